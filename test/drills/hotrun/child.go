// Package hotrun is the hot topology as drills run it: a broker, worker processes that can be killed, and a shop that writes to raw.* itself, without a gateway.
package hotrun

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"millrace/event/schema"
	"millrace/kpi"
	"millrace/streaming"
	"millrace/streaming/hot"
)

// Spec is what a worker process is told, as JSON on its standard input.
type Spec struct {
	Brokers    string
	Dir        string // for the files of this worker
	Topology   string // "" or "hot": both stages of the hot topology; else one of Topologies
	Partitions int32
	Engine     streaming.Config // of the first stage; later ones have names of their own
}

// Topologies are those that a drill runs in place of the hot one, by name. A drill gives them to MaybeChild.
type Topologies map[string]func(Spec) (streaming.Topology, error)

// Groups are the consumer groups of a worker of the hot topology, by stage.
func (s Spec) Groups() []string { return []string{s.Engine.Group, s.Engine.Group + ".entity"} }

const (
	childWord = "drill-worker"
	childEnv  = "MILLRACE_DRILL_WORKER"
)

// MaybeChild turns the process into a worker if it was started as one, and does not return then. Drills call it first in main, their tests in TestMain.
func MaybeChild(more Topologies) {
	if os.Getenv(childEnv) == "" || len(os.Args) < 2 || os.Args[1] != childWord {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := child(ctx, os.Stdin, os.Stdout, more)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// said is what a worker says, once each, on its standard output.
type said struct {
	Ready     bool    // every task of every stage has its state
	Committed bool    // and records were part of a committed transaction of the first stage
	Restored  float64 // seconds spent to restore tasks, all of them added up
	Records   float64 // read to restore them
}

func child(ctx context.Context, in io.Reader, out io.Writer, more Topologies) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := bufio.NewReader(in)
	text, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading what to do: %w", err)
	}
	var s Spec
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("reading what to do: %w", err)
	}
	go func() { // owned by the process: a blocked read of stdin cannot be interrupted
		_, _ = io.Copy(io.Discard, lines) // any end means that the parent is gone
		cancel()
	}()
	reg := prometheus.NewRegistry()
	g, ctx := errgroup.WithContext(ctx)
	var workers []*streaming.Worker
	add := func(top streaming.Topology, cfg streaming.Config) error {
		w, err := streaming.NewWorker(cfg, top, []kgo.Opt{kgo.SeedBrokers(s.Brokers)}, reg, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
		workers = append(workers, w)
		return err
	}
	if build := more[s.Topology]; build != nil {
		top, err := build(s)
		if err != nil {
			return err
		}
		if err := add(top, s.Engine); err != nil {
			return err
		}
	} else {
		rules, fast, err := s.hot(reg, add)
		if err != nil {
			return err
		}
		defer fast.Close()
		read := make(chan struct{})
		g.Go(func() error { return rules.Run(ctx, []kgo.Opt{kgo.SeedBrokers(s.Brokers)}, func() { close(read) }) })
		select {
		case <-read:
		case <-ctx.Done():
		}
	}
	for _, w := range workers {
		g.Go(func() error { return w.Run(ctx) })
	}
	g.Go(func() error { return report(ctx, out, reg, workers) })
	return g.Wait()
}

// hot adds both stages of the hot topology.
func (s Spec) hot(reg *prometheus.Registry, add func(streaming.Topology, streaming.Config) error) (*hot.Rules, *kgo.Client, error) {
	codecs, err := Codecs()
	if err != nil {
		return nil, nil, err
	}
	defs, err := kpi.New(kpi.DefaultConfig())
	if err != nil {
		return nil, nil, err
	}
	rules, err := hot.NewRules(reg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	fast, err := kgo.NewClient(kgo.SeedBrokers(s.Brokers), kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite(), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(10_000))
	if err != nil {
		return nil, nil, fmt.Errorf("making the producer of provisional alerts: %w", err)
	}
	cfg := hot.DefaultConfig()
	cfg.Dir = filepath.Join(s.Dir, s.Engine.InstanceID)
	cfg.Fraud.Rules, cfg.Fraud.Fast = rules, hot.FastAlerts(fast, codecs, reg)
	visitor, err := hot.Topology(cfg, s.Partitions, codecs, defs, reg)
	if err == nil {
		err = add(visitor, s.Engine)
	}
	if err == nil {
		var entity streaming.Topology
		if entity, err = hot.EntityTopology(cfg, s.Partitions, codecs, reg); err == nil {
			second := s.Engine
			second.Group, second.TransactionalID = s.Groups()[1], ""
			err = add(entity, second)
		}
	}
	if err != nil {
		fast.Close()
		return nil, nil, err
	}
	return rules, fast, nil
}

// report tells the parent of what happens first.
func report(ctx context.Context, out io.Writer, reg prometheus.Gatherer, workers []*streaming.Worker) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last said
	for !last.Ready || !last.Committed {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := last
		if !last.Ready {
			now.Ready = true
			for _, w := range workers {
				now.Ready = now.Ready && w.Ready() == nil
			}
		}
		families, err := reg.Gather()
		if err != nil {
			return fmt.Errorf("reading metrics: %w", err)
		}
		now.Restored, now.Records = 0, 0
		for _, f := range families {
			for _, m := range f.GetMetric() {
				first := true
				for _, l := range m.GetLabel() {
					first = first && (l.GetName() != "stage" || l.GetValue() != "entity")
				}
				switch f.GetName() {
				case "millrace_stream_records_total":
					now.Committed = now.Committed || first && m.GetCounter().GetValue() > 0
				case "millrace_stream_restore_seconds_total":
					now.Restored += m.GetCounter().GetValue()
				case "millrace_stream_restore_records_total":
					now.Records += m.GetCounter().GetValue()
				}
			}
		}
		if now.Ready == last.Ready && now.Committed == last.Committed {
			continue
		}
		last = now
		if err := json.NewEncoder(out).Encode(now); err != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	<-ctx.Done()
	return nil
}

// Codecs are codecs whose schema ids need no registry: all processes of a drill agree on them.
func Codecs() (*schema.Codecs, error) {
	c, err := schema.NewCodecs()
	if err != nil {
		return nil, fmt.Errorf("reading the schemas: %w", err)
	}
	return c.AssignLocal(), nil
}
