package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/internal/embedded"
	"millrace/test/bench/child"
	"millrace/workers"
)

// childWord is the hidden subcommand by which this program becomes a process whose CPU time is measured.
const childWord = "bench-child"

// job is what a measured child is told, as JSON on its standard input.
type job struct {
	Brokers    string              `json:"brokers"`
	ClickHouse embedded.ClickHouse `json:"clickhouse"`
	Dir        string              `json:"dir"`   // for its files
	Group      string              `json:"group"` // of consumers
	Rows       int64               `json:"rows"`  // to be read or written
	ByRow      bool                `json:"by_row"`
	Profile    string              `json:"profile"`

	Compaction compactionJob `json:"compaction"`
}

// measured is the table of children that do one job and say on their standard output what it cost.
var measured = map[string]func(context.Context, job) (cost, error){
	"hot":        hotOurs,
	"decode":     hotPeer,
	"clickhouse": clickhouseOurs,
	"native":     clickhousePeer,
	"iceberg":    icebergOurs,
	"parquet":    icebergPeer,
	"small":      compactionFill,
	"compaction": compactionOurs,
}

// childMain is a child's main. It ends when its standard input does, which the parent holds open.
func childMain(kind string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := runChild(ctx, kind, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", kind, err)
		return 1
	}
	return 0
}

func runChild(ctx context.Context, kind string, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var j job
	if err := child.Told(in, &j, cancel); err != nil {
		return err
	}
	switch {
	case kind == "bare-gateway":
		return serveBare(ctx, j, out)
	case kind == "gateway":
		return runGateway(ctx, j)
	case measured[kind] == nil:
		return fmt.Errorf("there is no child %q", kind)
	}
	c, err := measured[kind](ctx, j)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(c)
}

// runGateway is the gateway role in this program, configured by the environment as the real one is: for profiles, and where there is no binary.
func runGateway(ctx context.Context, j job) error {
	cfg, err := workers.Load("", map[string]any{"data": j.Dir})
	if err != nil {
		return err
	}
	stop, err := child.StartProfile(j.Profile)
	if err != nil {
		return err
	}
	return errors.Join(workers.Run(ctx, cfg, []string{"gateway"}, child.Quiet()), stop())
}

// process is a running child.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	said  *tail
	ended chan struct{}
	err   error // how it ended; after ended
}

// startSelf starts this program as a child.
func startSelf(ctx context.Context, kind string, j job, env ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program's own file: %w", err)
	}
	return tell(ctx, self, []string{childWord, kind}, j, env...)
}

// tell starts a program and tells it its job.
func tell(ctx context.Context, path string, args []string, job any, env ...string) (*process, error) {
	p, err := start(ctx, path, args, env...)
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(p.stdin).Encode(job); err != nil {
		p.stop()
		return nil, fmt.Errorf("telling %s its job: %w", args, err)
	}
	return p, nil
}

func start(ctx context.Context, path string, args []string, env ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, path, args...), said: &tail{}, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = 30 * time.Second
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	out, w, err := os.Pipe() // not cmd's own, which Wait closes before all has been read
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	p.out, p.cmd.Stdout = bufio.NewReader(out), w
	err = p.cmd.Start()
	_ = w.Close() // the child has its own
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", path, err), out.Close())
	}
	go func() { // ends with the child, which every caller ends
		defer close(p.ended)
		if err := p.cmd.Wait(); err != nil {
			p.err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, p.said.text())
		}
	}()
	return p, nil
}

// wait waits for the end.
func (p *process) wait() error {
	<-p.ended
	return p.err
}

// stop ends the process and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // gone is what is wanted
	_ = p.stdin.Close()                       // so is this
	<-p.ended
}

// do runs one measured job in a process of its own.
func do(ctx context.Context, kind string, j job) (cost, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	p, err := startSelf(ctx, kind, j)
	if err != nil {
		return cost{}, err
	}
	return p.cost(kind, j.Rows)
}

// cost waits for the end and gives what the process says of itself; n is how many it had to take.
func (p *process) cost(kind string, n int64) (cost, error) {
	var c cost
	err := json.NewDecoder(p.out).Decode(&c)
	if ended := p.wait(); ended != nil {
		return cost{}, ended
	}
	if err != nil {
		return cost{}, fmt.Errorf("reading what %s says: %w", kind, err)
	}
	if c.N != n {
		return cost{}, fmt.Errorf("%s took %d of %d", kind, c.N, n)
	}
	return c, nil
}

// profile is the file for a side's profile, "" if none is wanted: the last turn's is left.
func (s settings) profile(name string) string {
	if s.profiles == "" {
		return ""
	}
	return filepath.Join(s.profiles, name+".pprof")
}

// tail keeps the end of what a child says.
type tail struct{ b bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	if t.b.Len() > 64<<10 {
		t.b.Next(32 << 10)
	}
	return t.b.Write(p)
}

func (t *tail) text() string { return strings.TrimSpace(t.b.String()) }

// runUntil runs f until counter has reached n, then stops it and waits for its end.
func runUntil(ctx context.Context, f func(context.Context) error, reg prometheus.Gatherer, counter string, n int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return errors.Join(err, errors.New("ended early"))
		case <-tick.C:
		}
		got, err := total(reg, counter)
		if err != nil {
			return err
		}
		if got >= float64(n) {
			cancel()
			return <-ended
		}
	}
}

// total is the sum of a counter over its labels.
func total(reg prometheus.Gatherer, name string) (float64, error) {
	families, err := reg.Gather()
	if err != nil {
		return 0, fmt.Errorf("reading metrics: %w", err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum, nil
}
