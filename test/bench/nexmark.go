package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/test/bench/child"
)

// benchNexmark measures queries of Nexmark on the engine's public contracts beside Flink SQL, over the same topic of the same Apache Kafka. Both must give the answer that
// brute force gives. What starting Flink costs, on an empty topic, is taken off its side.
func benchNexmark(ctx context.Context, s settings, say func(string, ...any)) (_ []result, err error) {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	home, err := installFlink(ctx, say)
	if err != nil {
		return nil, err
	}
	servers, err := embeddedtest.Start(ctx, filepath.Join(dir, "servers"), embedded.BrokerApache, embedded.KafkaChild)
	if err != nil {
		return nil, err
	}
	defer servers.Stop()
	b := &flinkBench{s: s, say: say, dir: dir, home: home, brokers: servers.Endpoints().Kafka}
	if err := b.topics(ctx, "nexmark", "nexmark.empty"); err != nil {
		return nil, err
	}
	if err := fillNexmark(ctx, b.brokers, "nexmark", s.nexmark); err != nil {
		return nil, err
	}
	truth := nexmarkTruth(s.nexmark)
	say("  %d events", s.nexmark)
	var all []result
	for _, query := range []string{"q1", "q5", "q7", "q8", "q11", "q18"} {
		empty, err := b.nexmarkFlink(ctx, query, "nexmark.empty", answer{})
		if err != nil {
			return all, fmt.Errorf("Flink's start, %s: %w", query, err)
		}
		var turns []turn
		for range s.reps {
			peer, err := b.nexmarkFlink(ctx, query, "nexmark", truth[query])
			if err != nil {
				return all, fmt.Errorf("Flink, %s: %w", query, err)
			}
			peer.CPU -= empty.CPU
			ours, err := b.nexmarkOurs(ctx, query, truth[query])
			if err != nil {
				return all, fmt.Errorf("ours, %s: %w", query, err)
			}
			say("  %s: %d rows; ours %.2f (peak %.0f MiB), Flink SQL %.2f CPU s per million events (%.0f MiB), less %.1f for its start", query, len(truth[query]), perMillion(ours), ours.Peak, perMillion(peer), peer.Peak, empty.CPU)
			turns = append(turns, turn{ours, peer})
		}
		all = append(all, atMost(compareBy("nexmark "+query, "CPU s per 1M events", flinkName+" SQL", turns, perMillion), 0.5))
	}
	return all, nil
}

func (b *flinkBench) nexmarkOurs(ctx context.Context, query string, truth answer) (cost, error) {
	b.n++
	r := child.NexRun{Query: query, Name: "ours" + strconv.Itoa(b.n), Topic: "nexmark", Events: int64(b.s.nexmark)}
	names := []string{r.Out()}
	for i := 1; i < child.NexStages; i++ {
		names = append(names, r.Between(i))
	}
	if err := b.topics(ctx, names...); err != nil {
		return cost{}, err
	}
	c, err := b.engine(ctx, "nexmark", child.Engine{Brokers: b.brokers, Profile: b.s.profile("nexmark-" + query), Nexmark: r}, r.Events)
	if err == nil {
		err = b.checkAnswer(ctx, r.Out(), query, truth)
	}
	return c, errors.Join(err, b.remove(ctx, names...))
}

func (b *flinkBench) nexmarkFlink(ctx context.Context, query, topic string, truth answer) (cost, error) {
	b.n++
	name := "flink" + strconv.Itoa(b.n)
	out := name + ".out"
	if err := b.topics(ctx, out); err != nil {
		return cost{}, err
	}
	began := time.Now()
	p, err := b.flink(ctx, "millrace.bench.Nexmark", "brokers="+b.brokers, "topic="+topic, "query="+query, "out="+out, "run="+name, "guarantee=exactly-once",
		"checkpoint_ms="+strconv.FormatInt(child.FlinkCheckpoint.Milliseconds(), 10), "dir="+filepath.Join(b.dir, name))
	if err != nil {
		return cost{}, err
	}
	c := processCost(p, time.Since(began).Seconds(), int64(b.s.nexmark))
	return c, errors.Join(b.checkAnswer(ctx, out, query, truth), b.remove(ctx, out))
}

func (b *flinkBench) checkAnswer(ctx context.Context, topic, query string, truth answer) error {
	got, err := answered(ctx, b.brokers, topic, query)
	if err != nil {
		return err
	}
	if diff := cmp.Diff(truth, got); diff != "" {
		return fmt.Errorf("%d rows, %d are right (-want +got):\n%.1500s", len(got), len(truth), diff)
	}
	return nil
}

func sortInt64(v []int64) { slices.Sort(v) }
