package hotrun

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Proc is a worker process.
type Proc struct {
	cmd       *exec.Cmd
	stdin     io.WriteCloser
	started   time.Time
	ready     chan struct{}
	committed chan struct{}
	ended     chan struct{}
	err       error // how it ended; after ended

	mu   sync.Mutex
	last said
	text tail
}

// Start starts this program as a worker. Whoever calls it ends it by Kill or Stop.
func Start(ctx context.Context, s Spec) (*Proc, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program's own file: %w", err)
	}
	p := &Proc{
		cmd: exec.CommandContext(context.WithoutCancel(ctx), self, childWord), started: time.Now(),
		ready: make(chan struct{}), committed: make(chan struct{}), ended: make(chan struct{}),
	}
	p.cmd.Env = append(os.Environ(), childEnv+"=1")
	p.cmd.Stderr = &p.text
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	go p.listen(out) // ends with the process, which every caller ends
	if err := json.NewEncoder(p.stdin).Encode(s); err != nil {
		return nil, errors.Join(fmt.Errorf("telling a worker what to do: %w", err), p.Kill())
	}
	return p, nil
}

func (p *Proc) listen(out io.Reader) {
	defer close(p.ended)
	dec := json.NewDecoder(out)
	var before said
	for {
		var now said
		if dec.Decode(&now) != nil {
			break // its end
		}
		p.mu.Lock()
		p.last = now
		p.mu.Unlock()
		if now.Ready && !before.Ready {
			close(p.ready)
		}
		if now.Committed && !before.Committed {
			close(p.committed)
		}
		before = now
	}
	if err := p.cmd.Wait(); err != nil {
		p.err = fmt.Errorf("a worker ended: %w: %s", err, p.text.String())
	}
}

// Ready waits until every task has its state and gives the time that took since the start.
func (p *Proc) Ready(ctx context.Context, limit time.Duration) (time.Duration, error) {
	return p.await(ctx, p.ready, limit, "having its state")
}

// Committed waits until every task has its state and records were committed.
func (p *Proc) Committed(ctx context.Context, limit time.Duration) (time.Duration, error) {
	if _, err := p.await(ctx, p.ready, limit, "having its state"); err != nil {
		return 0, err
	}
	return p.await(ctx, p.committed, limit, "its first commit")
}

// Restored is how much was read to restore tasks, and the seconds that took, added up over tasks.
func (p *Proc) Restored() (records, seconds float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last.Records, p.last.Restored
}

// PID is the process's number.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Ended tells of the end of the process.
func (p *Proc) Ended() <-chan struct{} { return p.ended }

// Said is the end of what the process logged.
func (p *Proc) Said() string { return p.text.String() }

func (p *Proc) await(ctx context.Context, what <-chan struct{}, limit time.Duration, name string) (time.Duration, error) {
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-what:
		return time.Since(p.started), nil
	case <-p.ended:
		return 0, errors.Join(fmt.Errorf("a worker ended before %s", name), p.err)
	case <-late.C:
		return 0, fmt.Errorf("a worker waits for %s since %s: %s", name, limit, p.text.String())
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Kill is kill -9. It returns when the process is gone.
func (p *Proc) Kill() error {
	err := p.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	_ = p.stdin.Close() // the process is gone
	<-p.ended
	return err
}

// Stop ends the process as an update does, and kills it if that takes longer than half a minute.
func (p *Proc) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // gone is what is wanted
	select {
	case <-p.ended:
		_ = p.stdin.Close() // the process is gone
		return p.err
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("a worker did not end within 30 s of SIGTERM"), p.Kill())
	}
}

// tail keeps the end of what a process says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if most := 8 << 10; len(t.b) > most {
		t.b = append(t.b[:0], t.b[len(t.b)-most:]...)
	}
	return len(b), nil
}

// String implements fmt.Stringer.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
