package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/test/bench/child"
)

// benchGuarantee measures what exactly-once costs: the job that is run beside Flink, with every event written again and a changelog, in transactions and without, in turn,
// over the same topic of the same Apache Kafka. Commits are as far apart on both sides. Nothing crashes, so both must find exactly what the events hold.
func benchGuarantee(ctx context.Context, s settings, say func(string, ...any)) (_ []result, err error) {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	servers, err := embeddedtest.Start(ctx, filepath.Join(dir, "servers"), embedded.BrokerApache, embedded.KafkaChild)
	if err != nil {
		return nil, err
	}
	defer servers.Stop()
	b := &flinkBench{s: s, say: say, dir: dir, brokers: servers.Endpoints().Kafka, truth: flinkTruth(s.flink)}
	if err := b.topics(ctx, "shop.avro"); err != nil {
		return nil, err
	}
	if err := fillFlink(ctx, b.brokers, s.flink, map[string]func(*shopEvent, []byte) []byte{"shop.avro": (*shopEvent).appendAvro}); err != nil {
		return nil, err
	}
	var all []result
	for _, interval := range []time.Duration{100 * time.Millisecond, 10 * time.Second} {
		var turns []turn
		for range s.reps {
			run := child.FlinkRun{Format: "avro", Interval: interval, Enriched: true}
			once, err := b.ours(ctx, run)
			if err != nil {
				return all, fmt.Errorf("exactly once: %w", err)
			}
			run.AtLeast = true
			least, err := b.ours(ctx, run)
			if err != nil {
				return all, fmt.Errorf("at least once: %w", err)
			}
			say("  commits every %s: exactly once %.2f (peak %.0f MiB), at least once %.2f CPU s per million events (%.0f MiB)", interval, perMillion(once), once.Peak, perMillion(least), least.Peak)
			turns = append(turns, turn{once, least})
		}
		all = append(all, atMost(compareBy("guarantee, exactly once, commits every "+interval.String(), "CPU s per 1M events", "at least once", turns, perMillion), 1.15))
	}
	return all, nil
}
