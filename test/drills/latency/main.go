// Command latency measures how long it takes from an event to what the hot topology says about it. Only a broker, a stream worker and the generator run. It finds the highest rate
// at which the lag stays flat, and at 70 % of it measures from the moment at which an event was to be sent, whether or not it was sent then (open loop).
// Its last line is "N passed, N failed".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"time"

	"millrace/internal/embedded"
	"millrace/streaming"
	"millrace/test/drills/drill"
	"millrace/test/drills/hotrun"
)

// Bounds of the 99th percentile, and the share of the sustainable rate at which they hold.
const (
	loadShare    = 0.7
	boundVisitor = 100 * time.Millisecond
	boundRekeyed = 150 * time.Millisecond
)

type options struct {
	broker     string
	seed       uint64
	time       time.Duration
	rate       float64
	partitions int
	keep       bool
	commit     time.Duration
	wait       time.Duration
}

func main() {
	embedded.MaybeChild()
	hotrun.MaybeChild(nil)
	var o options
	flag.StringVar(&o.broker, "broker", "apache", "apache or kfake")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the events")
	flag.DurationVar(&o.time, "for", time.Minute, "how long the lag must stay flat, and how long each measurement is")
	flag.Float64Var(&o.rate, "rate", 0, "measure at this rate in place of 70 % of the sustainable one")
	flag.IntVar(&o.partitions, "partitions", 4, "partitions of a topic, which is the number of tasks of a stage")
	flag.DurationVar(&o.commit, "commit", 0, "commit interval in place of the default")
	flag.DurationVar(&o.wait, "merge-wait", 0, "wait for another input's records in place of the default; -1ns does not wait")
	flag.BoolVar(&o.keep, "keep", false, "keep the data directory")
	flag.Parse()
	drill.Main(func(ctx context.Context, d *drill.Drill) error { return run(ctx, d, o) })
}

func run(ctx context.Context, d *drill.Drill, o options) (err error) {
	if o.broker != embedded.BrokerApache && o.broker != embedded.BrokerKfake {
		return fmt.Errorf("-broker %s: there are apache and kfake", o.broker)
	}
	dir, remove, err := drill.Folder("latency", o.keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	b, err := hotrun.StartBroker(ctx, filepath.Join(dir, "servers"), o.broker)
	if err != nil {
		return err
	}
	defer b.Stop()
	if err := b.CreateTopics(ctx, filepath.Join(dir, "topics"), int32(o.partitions)); err != nil {
		return err
	}
	cfg := streaming.DefaultConfig()
	cfg.Group, cfg.InstanceID, cfg.TransactionalID = "hot", "stream-0", ""
	if o.commit != 0 {
		cfg.CommitInterval = o.commit
	}
	if o.wait != 0 {
		cfg.MergeWait = o.wait
	}
	spec := hotrun.Spec{Brokers: b.Addr, Dir: dir, Partitions: int32(o.partitions), Engine: cfg}
	w, err := hotrun.Start(ctx, spec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Stop()) }()
	if _, err := w.Ready(ctx, 2*time.Minute); err != nil {
		return err
	}
	m := &meter{options: o, b: b, spec: spec, worker: w}
	rate := o.rate
	if rate == 0 {
		sustainable, err := m.sustainable(ctx)
		if err != nil {
			return err
		}
		rate = loadShare * sustainable
		d.Check(sustainable > 0, "sustainable: %.0f events/s, the highest rate at which the lag was flat for %s (%s, %d partitions, one worker)", sustainable, o.time, o.broker, o.partitions)
	}
	if o.rate > 0 { // a broker that has just started is slow
		if _, err := m.flat(ctx, rate, 20*time.Second); err != nil {
			return err
		}
	}
	fmt.Printf("open loop at %.0f events/s for %s, from the moment at which an event is due\n", rate, o.time)
	for _, disorder := range []float64{0.01, 0.10} {
		if err := m.measure(ctx, d, rate, disorder); err != nil {
			return err
		}
	}
	return nil
}
