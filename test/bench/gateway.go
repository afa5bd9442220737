package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
)

// load is how requests are sent in one phase.
type load struct {
	batch       int // events in a request
	connections int
	seconds     float64
}

func (l load) name() string { return fmt.Sprintf("gateway, %d a request", l.batch) }

// benchGateway measures the gateway process beside a bare one, both with the same broker, topics, acknowledgements, compression, linger and partitions, under the
// same requests. Counted is the CPU time of the measured process alone.
func benchGateway(ctx context.Context, s settings, say func(string, ...any)) (_ []result, err error) {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	servers, err := embeddedtest.Start(ctx, filepath.Join(dir, "servers"), embedded.BrokerKfake, embedded.KafkaChild)
	if err != nil {
		return nil, err
	}
	defer servers.Stop()
	brokers := servers.Endpoints().Kafka
	if err := createTopics(ctx, brokers); err != nil {
		return nil, err
	}
	registry, stopRegistry, err := startRegistry(brokers)
	if err != nil {
		return nil, err
	}
	defer stopRegistry()
	ours, err := startOurs(ctx, s, servers, registry, dir)
	if err != nil {
		return nil, err
	}
	defer ours.stop()
	bare, err := startBare(ctx, brokers, s.profile("gateway-bare"))
	if err != nil {
		return nil, err
	}
	defer bare.stop()

	var all []result
	for i, l := range s.gateway {
		if !s.want.MatchString(l.name()) {
			continue
		}
		texts, err := bodies(ctx, max(2000, 40*l.batch), l.batch)
		if err != nil {
			return all, err
		}
		var turns []turn
		warm := l
		warm.seconds = min(1, l.seconds)
		for _, t := range []*target{ours, bare} {
			if _, err := t.phase(ctx, brokers, texts, warm); err != nil {
				return all, err
			}
		}
		for range s.reps {
			var one turn
			if one.ours, err = ours.phase(ctx, brokers, texts, l); err == nil {
				one.peer, err = bare.phase(ctx, brokers, texts, l)
			}
			if err != nil {
				return all, err
			}
			turns = append(turns, one)
			say("  %d events a request: ours %.0f, peer %.0f events per CPU s", l.batch, float64(one.ours.N)/one.ours.CPU, float64(one.peer.N)/one.peer.CPU)
		}
		goal := 0.0
		if i == len(s.gateway)-1 {
			goal = 0.6
		}
		all = append(all, compare(l.name(), "events", "bare net/http + franz-go producer", goal, turns))
	}
	return all, ours.direct(ctx)
}

// target is a running gateway, ours or the bare one.
type target struct {
	*process
	name string
	url  string // of the server
	key  string
}

const writeKey = "wk_bench_0123456789"

func startOurs(ctx context.Context, s settings, servers *embeddedtest.Servers, registry, dir string) (*target, error) {
	l, err := listen(ctx) // for a free port
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, fmt.Errorf("choosing a port: %w", err)
	}
	data := filepath.Join(dir, "gateway")
	env := []string{
		"MILLRACE_KAFKA__BROKERS=" + servers.Endpoints().Kafka, "MILLRACE_KAFKA__COMPACTION=false", "MILLRACE_SCHEMA_REGISTRY__URL=" + registry,
		"MILLRACE_WRITE_KEY=" + writeKey, "MILLRACE_GATEWAY__LISTEN=" + addr, "MILLRACE_LOG__LEVEL=warn",
	}
	t := &target{name: "gateway", url: "http://" + addr, key: writeKey}
	if s.binary == "" || s.profiles != "" {
		t.process, err = startSelf(ctx, "gateway", job{Dir: data, Profile: s.profile("gateway")}, env...)
	} else {
		t.process, err = start(ctx, s.binary, []string{"run", "gateway", "--data", data}, env...)
	}
	if err != nil {
		return nil, err
	}
	return t, t.ready(ctx)
}

func startBare(ctx context.Context, brokers, profile string) (*target, error) {
	p, err := startSelf(ctx, "bare-gateway", job{Brokers: brokers, Profile: profile})
	if err != nil {
		return nil, err
	}
	addr, err := p.out.ReadString('\n')
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("starting the bare gateway: %w: %s", err, p.said.text())
	}
	t := &target{process: p, name: "bare gateway", url: "http://" + addr[:len(addr)-1]}
	return t, t.ready(ctx)
}

// ready waits until the server answers that it is.
func (t *target) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := t.get(ctx, "/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-t.ended:
			return fmt.Errorf("the %s ended: %w", t.name, t.err)
		case <-ctx.Done():
			t.stop()
			return fmt.Errorf("waiting for the %s: %w: %s", t.name, err, t.said.text())
		case <-tick.C:
		}
	}
}

func (t *target) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", path, resp.Status)
	}
	return text, err
}

// direct makes sure that our gateway gave everything to the broker and refused nothing: else it was measured at something else than its peer.
func (t *target) direct(ctx context.Context) error {
	text, err := t.get(ctx, "/metrics")
	if err != nil {
		return fmt.Errorf("reading the gateway's metrics: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "millrace_gateway_events_total{") && !strings.Contains(line, `outcome="kafka"`) && !strings.HasSuffix(line, " 0") {
			return fmt.Errorf("not all went to the broker, so this was no measurement: %s", line)
		}
	}
	return nil
}

// phase sends requests for a while and gives what the server's process took.
func (t *target) phase(ctx context.Context, brokers string, bodies [][]byte, l load) (cost, error) {
	held, err := records(ctx, brokers, "raw.")
	if err != nil {
		return cost{}, err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: l.connections, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	var next, sent atomic.Int64
	var once sync.Once
	var failed error
	before, err := processCPU(t.cmd.Process.Pid)
	if err != nil {
		return cost{}, err
	}
	begin := time.Now()
	var senders sync.WaitGroup
	for range l.connections {
		senders.Go(func() {
			for time.Since(begin).Seconds() < l.seconds && ctx.Err() == nil {
				i := next.Add(1)
				if err := t.post(ctx, client, bodies[int(i)%len(bodies)]); err != nil {
					once.Do(func() { failed = err })
					return
				}
				sent.Add(int64(l.batch))
			}
		})
	}
	senders.Wait()
	wall := time.Since(begin).Seconds()
	after, err := processCPU(t.cmd.Process.Pid)
	if err := errors.Join(failed, err, ctx.Err()); err != nil {
		return cost{}, fmt.Errorf("%s: %w: %s", t.name, err, t.said.text())
	}
	now, err := records(ctx, brokers, "raw.")
	if err != nil {
		return cost{}, err
	}
	if got := now - held; got != sent.Load() {
		return cost{}, fmt.Errorf("%s: %d events were acknowledged, %d are in the topics", t.name, sent.Load(), got)
	}
	return cost{CPU: after - before, Wall: wall, N: sent.Load()}, nil
}

func (t *target) post(ctx context.Context, client *http.Client, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+"/v1/events", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Write-Key", t.key)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("a request was answered %s", resp.Status)
	}
	return nil
}

// listen opens a port of the loopback interface.
func listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	return l, nil
}
