package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"millrace/internal/embedded"
	"millrace/internal/simulate"
	"millrace/workers"
)

// binary finds bin/millrace of this checkout.
func binary() (string, error) {
	if b := os.Getenv("MILLRACE_BIN"); b != "" {
		return b, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			b := filepath.Join(dir, "bin", "millrace")
			_, err := os.Stat(b)
			return b, err
		}
	}
	return "", errors.New("not in a checkout: set MILLRACE_BIN")
}

// platform is a whole platform that a scenario runs.
type platform struct {
	bin, dir, broker string
	out              io.Writer
	cmd              *exec.Cmd
	said             bytes.Buffer
	ended            chan struct{}
}

// up starts the platform and waits until everything is healthy. A platform that was killed is started again on the same data.
func (p *platform) up(ctx context.Context) error {
	started := time.Now()
	p.said.Reset()
	p.cmd = exec.Command(p.bin, "up", "--no-simulate", "--broker", p.broker, "--data", p.dir) //nolint:noctx // ended by down or kill
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.ended = make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(p.ended) }() // how it ended shows in what it said
	err := eventually(ctx, 10*time.Minute, func() error {
		select {
		case <-p.ended:
			return stop{fmt.Errorf("up ended: %s", p.said.String())}
		default:
		}
		client, err := embedded.Dial(ctx, p.dir)
		if err != nil {
			return err
		}
		r, err := client.Status(ctx)
		if err != nil {
			return err
		}
		for _, s := range r.Children {
			if !s.Optional && s.Phase != "healthy" {
				return fmt.Errorf("%s is %s: %s", s.Name, s.Phase, s.LastError)
			}
		}
		if e, err := p.endpoints(); err != nil || e.Gateway == "" || len(r.Children) < len(workers.Roles()) {
			return errors.Join(err, errors.New("endpoints are not complete"))
		}
		return nil
	})
	if err == nil {
		_, _ = fmt.Fprintf(p.out, "    up in %.1f s\n", time.Since(started).Seconds()) // progress
	}
	return err
}

func (p *platform) endpoints() (workers.Endpoints, error) { return workers.LoadEndpoints(p.dir) }

// down ends the platform as a user would, if it runs.
func (p *platform) down(ctx context.Context) error {
	if p.cmd == nil {
		return nil
	}
	select {
	case <-p.ended:
		return nil
	default:
	}
	_, err := p.call(ctx, "down")
	if err != nil {
		p.killTree()
		return err
	}
	<-p.ended
	return nil
}

// call runs a command of the binary on the platform's data and gives its stdout.
func (p *platform) call(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.bin, append(args, "--data", p.dir)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("millrace %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// pids are those of the platform's children, by name.
func (p *platform) pids(ctx context.Context) (map[string]int, error) {
	client, err := embedded.Dial(ctx, p.dir)
	if err != nil {
		return nil, err
	}
	r, err := client.Status(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, s := range r.Children {
		if s.PID > 0 {
			out[s.Name] = s.PID
		}
	}
	return out, nil
}

// killTree is kill -9 of the whole process tree at once.
func (p *platform) killTree() {
	pids, err := p.pids(context.Background())
	if err == nil {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone is what is wanted
		}
	}
	_ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL) // gone is what is wanted
	<-p.ended
}

// traffic is a running simulator.
type traffic struct {
	cmd       *exec.Cmd
	out, errs bytes.Buffer
}

// send starts the simulator as a user would.
func (p *platform) send(ctx context.Context, args ...string) (*traffic, error) {
	t := &traffic{}
	t.cmd = exec.CommandContext(ctx, p.bin, append([]string{"simulate", "--data", p.dir, "--patience", "5m"}, args...)...)
	t.cmd.Stdout, t.cmd.Stderr = &t.out, &t.errs
	return t, t.cmd.Start()
}

// wait gives the simulator's summary.
func (t *traffic) wait() (simulate.Summary, error) {
	var s simulate.Summary
	if err := t.cmd.Wait(); err != nil {
		return s, fmt.Errorf("simulate: %w: %s", err, t.errs.String())
	}
	if err := json.Unmarshal(t.out.Bytes(), &s); err != nil {
		return s, fmt.Errorf("simulate's summary: %w: %s", err, t.out.String())
	}
	return s, nil
}

// stop ends eventually at once.
type stop struct{ error }

func (s stop) Unwrap() error { return s.error }

// eventually repeats f until it succeeds, and says after limit what was wrong last.
func eventually(ctx context.Context, limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		var now stop
		if err == nil || errors.As(err, &now) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s: %w", limit, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
