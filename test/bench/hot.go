package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/kpi"
	"millrace/streaming"
	"millrace/streaming/hot"
	"millrace/test/bench/child"
)

// benchHot measures a worker of the hot topology that catches up with filled topics, beside a loop that fetches and decodes the same records.
func benchHot(ctx context.Context, s settings, say func(string, ...any)) (_ []result, err error) {
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
	if err := fillRaw(ctx, brokers, s.hot); err != nil {
		return nil, err
	}
	n, err := records(ctx, brokers, "raw.")
	if err != nil {
		return nil, err
	}
	var turns []turn
	for i := range s.reps {
		var one turn
		one.ours, err = do(ctx, "hot", job{Brokers: brokers, Dir: filepath.Join(dir, groupName("hot", i)), Group: groupName("hot", i), Rows: n, Profile: s.profile("hot")})
		if err == nil {
			one.peer, err = do(ctx, "decode", job{Brokers: brokers, Rows: n, Profile: s.profile("hot-decode")})
		}
		if err != nil {
			return nil, err
		}
		turns = append(turns, one)
		say("  ours %.2f, peer %.2f CPU s per million events", 1e6*one.ours.CPU/float64(n), 1e6*one.peer.CPU/float64(n))
	}
	r := compareBy("hot topology", "CPU s per 1M events", "bare consume and decode", turns, func(c cost) float64 { return 1e6 * c.CPU / float64(c.N) })
	return []result{r}, nil
}

// hotOurs runs a worker with a state of its own from the start of the topics to their end, with the settings of one machine.
func hotOurs(ctx context.Context, j job) (cost, error) {
	codecs, err := local()
	if err != nil {
		return cost{}, err
	}
	defs, err := kpi.New(kpi.DefaultConfig())
	if err != nil {
		return cost{}, err
	}
	cfg, reg := hot.DefaultConfig(), prometheus.NewRegistry()
	cfg.Dir = j.Dir
	top, err := hot.Topology(cfg, partitions, codecs, defs, reg)
	if err != nil {
		return cost{}, err
	}
	top.Name = j.Group // a state of its own
	if err := createTopics(ctx, j.Brokers, top.RequiredTopics()...); err != nil {
		return cost{}, err
	}
	engine := streaming.DefaultConfig()
	engine.Group, engine.TransactionalID = j.Group, j.Group
	w, err := streaming.NewWorker(engine, top, []kgo.Opt{kgo.SeedBrokers(j.Brokers)}, reg, child.Quiet())
	if err != nil {
		return cost{}, err
	}
	return child.Measure(j.Profile, func() (int64, error) {
		const counter = "millrace_stream_records_total"
		if err := runUntil(ctx, w.Run, reg, counter, j.Rows); err != nil {
			return 0, err
		}
		n, err := total(reg, counter)
		return int64(n), err
	})
}

// hotPeer fetches and decodes.
func hotPeer(ctx context.Context, j job) (cost, error) {
	codecs, err := local()
	if err != nil {
		return cost{}, err
	}
	categories := map[string]event.Category{}
	for _, c := range event.Categories() {
		categories[c.RawTopic()] = c
	}
	return child.Measure(j.Profile, func() (int64, error) {
		return consume(ctx, j, "raw.", func(dec *schema.EventDecoder, r *kgo.Record, e *event.Event) error {
			_, err := dec.DecodeRaw(ctx, categories[r.Topic], r.Value, e)
			return err
		}, codecs)
	})
}

// consume reads the topics with a prefix from their start until it has all records of the job.
func consume(ctx context.Context, j job, prefix string, f func(*schema.EventDecoder, *kgo.Record, *event.Event) error, codecs *schema.Codecs) (int64, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(j.Brokers))
	if err != nil {
		return 0, fmt.Errorf("consuming: %w", err)
	}
	defer cl.Close()
	topics, err := kadm.NewClient(cl).ListTopics(ctx)
	if err != nil {
		return 0, fmt.Errorf("consuming: %w", err)
	}
	for _, name := range topics.Names() {
		if strings.HasPrefix(name, prefix) {
			cl.AddConsumeTopics(name)
		}
	}
	dec := codecs.NewEventDecoder()
	var e event.Event
	var n int64
	for n < j.Rows {
		fetches := cl.PollRecords(ctx, 10_000)
		if err := fetches.Err(); err != nil {
			return n, fmt.Errorf("consuming: %w", err)
		}
		var failed error
		fetches.EachRecord(func(r *kgo.Record) {
			if err := f(dec, r, &e); err != nil {
				failed = err
			}
			n++
		})
		if failed != nil {
			return n, fmt.Errorf("decoding: %w", failed)
		}
	}
	return n, nil
}
