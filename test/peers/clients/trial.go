package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"millrace/test/peers/clients/proxy"
)

// trial is one run of one client with one fault, under a write key and source of its own.
type trial struct {
	client  client
	fault   proxy.Fault
	session session
	snippet *snippet
	wants   []want
	means   string

	// What came of it.
	from, to time.Time
	counts   proxy.Counts
	said     string
	err      error
}

func (r *trial) name() string {
	if r.snippet != nil {
		return "snippet." + r.snippet.name
	}
	return r.client.name + "." + string(r.fault)
}

func (r *trial) label() string {
	if r.snippet != nil {
		return "docs: " + r.snippet.name
	}
	return r.client.name
}

// source names the run in the stores.
func (r *trial) source() string { return r.name() }

// key is its write key.
func (r *trial) key() string { return "key-" + strings.ReplaceAll(r.name(), ".", "-") }

// drive runs the client until it has delivered or given up.
func (r *trial) drive(ctx context.Context, t *tools, s stores, dir string) {
	r.from = time.Now()
	defer func() { r.to = time.Now() }()
	p, err := proxy.Start(ctx, s.endpoints.Gateway, proxy.Plan{Fault: r.fault, Every: r.client.every})
	if err != nil {
		r.err = err
		return
	}
	defer func() {
		r.counts = p.Counts()
		r.err = errors.Join(r.err, p.Close())
	}()
	work := filepath.Join(dir, "runs", r.name())
	if r.err = os.MkdirAll(work, 0o700); r.err != nil {
		return
	}
	file := filepath.Join(work, "session.json")
	if r.snippet == nil {
		r.err = writeJSON(file, r.client.dialect.file(r.session))
	} else {
		r.err = writeJSON(file, object{})
	}
	if r.err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience+30*time.Second)
	defer cancel()
	cmd, err := r.command(ctx, t, work, p.URL())
	if err != nil {
		r.err = err
		return
	}
	retry := "0"
	if r.client.retried {
		retry = "1"
	}
	cmd.Env = append(os.Environ(), append(cmd.Env, "GATEWAY="+p.URL(), "WRITE_KEY="+r.key(), "SESSION="+file, "APP_RETRY="+retry, "CHROMIUM="+t.chromium,
		"TIMEOUT_MS="+strconv.FormatInt(answerTimeout.Milliseconds(), 10), "PATIENCE_MS="+strconv.FormatInt(patience.Milliseconds(), 10), "PYTHONDONTWRITEBYTECODE=1", "TZ=UTC")...)
	var said lockedBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 10 * time.Second
	if r.client.run == browser {
		r.err = r.whileOpen(ctx, cmd, s, p)
	} else {
		r.err = cmd.Run()
	}
	r.said = said.String()
	if r.err != nil {
		r.err = fmt.Errorf("the driver: %w", r.err)
	}
}

// whileOpen keeps a page open until everything it is to send is stored and nothing has come for a while, as a shopper who stays.
func (r *trial) whileOpen(ctx context.Context, cmd *exec.Cmd, s stores, p *proxy.Proxy) error {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	until := time.Now().Add(patience)
	for {
		select {
		case err := <-ended:
			return errors.Join(errors.New("the page closed by itself"), err)
		case <-tick.C:
		}
		c := p.Counts()
		rows, err := s.count(ctx, r.source())
		wanted := len(r.wants)
		if r.client.drops != nil && r.fault == proxy.TooManyRequests {
			wanted = 1 // how many are thrown away is seen afterwards
		}
		done := err == nil && rows >= wanted && c.InFlight == 0 && time.Since(c.Last) > 4*time.Second
		// Snowplow's tracker sends what failed with the next event, or when the page is left: shoppers do leave.
		idle := c.Requests > 0 && c.InFlight == 0 && time.Since(c.Last) > idleTime
		if done || idle || time.Now().After(until) || ctx.Err() != nil {
			return errors.Join(stdin.Close(), <-ended)
		}
	}
}

// command is how a driver or a snippet is started.
func (r *trial) command(ctx context.Context, t *tools, work, gateway string) (*exec.Cmd, error) {
	program := r.client.program
	if r.snippet != nil {
		var err error
		if program, err = r.snippet.write(t, work, gateway, r.key()); err != nil {
			return nil, err
		}
	}
	switch r.client.run {
	case node:
		cmd := exec.CommandContext(ctx, t.node, inside(t.js, program))
		cmd.Dir = t.js
		return cmd, nil
	case browser:
		cmd := exec.CommandContext(ctx, t.node, "browser.mjs", inside(t.js, program))
		cmd.Dir = t.js
		return cmd, nil
	case python:
		cmd := exec.CommandContext(ctx, t.python, inside(t.scripts, program))
		cmd.Dir = work
		return cmd, nil
	case java:
		if r.snippet != nil {
			return exec.CommandContext(ctx, t.java, "-cp", t.jars, program), nil
		}
		return exec.CommandContext(ctx, t.java, "-Xmx128m", "-cp", t.jars+":"+t.classes, program), nil
	}
	return nil, fmt.Errorf("nothing runs %s", r.client.run)
}

func inside(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// problems says what is wrong with a run; nothing if it passed.
func (r *trial) problems(b both) []string {
	var out []string
	if r.err != nil {
		out = append(out, r.err.Error())
	}
	if r.fault != proxy.None && r.counts.Spoilt == 0 {
		out = append(out, "no request was spoilt: the run shows nothing")
	}
	for _, refused := range r.counts.Refused {
		out = append(out, "the gateway answered "+refused)
	}
	lost := map[string]bool{}
	if r.fault == proxy.TooManyRequests && r.client.drops != nil {
		for _, body := range r.counts.Withheld {
			ids, err := r.client.drops(body)
			if err != nil {
				out = append(out, "reading a refused request: "+err.Error())
			}
			for _, id := range ids {
				lost[id] = true
			}
		}
	}
	for _, store := range []struct {
		name string
		has  contents
	}{{"ClickHouse", b.clickhouse}, {"Iceberg", b.iceberg}} {
		missing, other := differences(r.wants, store.has.rows[r.source()], r.from.Add(-time.Second), r.to.Add(time.Second))
		for _, row := range store.has.rows[r.source()] {
			if lost[row.EventID] {
				other = append(other, "an event that was thrown away is there: "+row.EventID)
			}
		}
		if len(lost) > 0 && len(missing) == len(lost) {
			missing = nil
		}
		for _, d := range append(missing, other...) {
			out = append(out, store.name+": "+d)
		}
		for _, f := range store.has.failed[r.source()] {
			out = append(out, store.name+": failed event "+f)
		}
	}
	return out
}

// lockedBuffer takes what a driver says on both of its outputs.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*lockedBuffer)(nil)

// Write keeps at most a megabyte.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() < 1<<20 {
		l.b.Write(p)
	}
	return len(p), nil
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
