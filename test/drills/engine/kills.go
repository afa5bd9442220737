package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"millrace/test/drills/drill"
	"millrace/test/drills/hotrun"
)

// A kill comes this long after the first commit of the recovery before, and up to as long again later.
const killAfter = 500 * time.Millisecond

// recoverLimit is the most that a recovery may take before the drill gives up. A broker that assigns partitions itself holds a dead member's for its session timeout, 45 s, and
// a machine that does other work is slow.
const recoverLimit = 10 * time.Minute

// kills lets a shop write while the worker is killed, and compares what it found with what a worker finds on a broker of its own that has the same events and is let alone.
func kills(ctx context.Context, d *drill.Drill, o options, dir string) error {
	crashed, records, err := crashRun(ctx, d, o, filepath.Join(dir, "crashed"))
	if err != nil {
		return fmt.Errorf("the run with kills: %w", err)
	}
	fmt.Printf("the same %d events without a kill\n", len(records))
	var calm *found
	err = onBroker(ctx, o, filepath.Join(dir, "calm"), func(b *hotrun.Broker) error {
		if err := hotrun.Fill(ctx, b.Addr, records); err != nil {
			return err
		}
		calm, err = finish(ctx, b, o.spec(b.Addr, filepath.Join(dir, "calm"), "stream-0"))
		return err
	})
	if err != nil {
		return fmt.Errorf("the run without kills: %w", err)
	}
	compare(d, crashed, calm)
	return nil
}

// onBroker runs f on a new broker.
func onBroker(ctx context.Context, o options, dir string, f func(*hotrun.Broker) error) error {
	b, err := hotrun.StartBroker(ctx, filepath.Join(dir, "servers"), o.broker)
	if err != nil {
		return err
	}
	defer b.Stop()
	if err := b.CreateTopics(ctx, filepath.Join(dir, "topics"), int32(o.partitions)); err != nil {
		return err
	}
	return f(b)
}

// finish lets a worker work to the end and reads what is found.
func finish(ctx context.Context, b *hotrun.Broker, s hotrun.Spec) (_ *found, err error) {
	w, err := hotrun.Start(ctx, s)
	if err != nil {
		return nil, err
	}
	quiet := b.Quiet(ctx, s, 10*time.Minute)
	if err := errors.Join(quiet, w.Stop()); err != nil {
		return nil, err
	}
	return read(ctx, b)
}

func crashRun(ctx context.Context, d *drill.Drill, o options, dir string) (f *found, records []*record, err error) {
	err = onBroker(ctx, o, dir, func(b *hotrun.Broker) error {
		spec := o.spec(b.Addr, dir, "stream-0")
		writing, stopWriting := context.WithCancel(ctx)
		defer stopWriting()
		shop := &hotrun.Shop{Seed: o.seed, Rate: o.rate, Disorder: 0, Partitions: int32(o.partitions), Keep: true}
		ended := make(chan error, 1)
		go func() { ended <- shop.Run(writing, b.Addr) }()
		took, killed, killErr := killing(ctx, o, spec)
		for killErr == nil && shop.Count.Load() < o.atLeast && len(ended) == 0 {
			<-time.After(20 * time.Millisecond)
		}
		stopWriting()
		if err := errors.Join(killErr, <-ended); err != nil {
			return err
		}
		slices.Sort(killed.recovery)
		d.Check(killed.n == o.kills && took <= o.limit, "%d of %d kills -9 within %s, each at least %s after the first commit of the recovery before (%s took %s)", killed.n, o.kills, o.limit, killAfter, "all", took.Round(time.Second))
		if n := len(killed.recovery); n > 0 {
			fmt.Printf("     from start of process to first commit: p50 %s, p95 %s, max %s; %d events written, %.0f a second\n", round(killed.recovery[n/2]), round(killed.recovery[n*95/100]), round(killed.recovery[n-1]), shop.Count.Load(), float64(shop.Count.Load())/shop.Duration.Seconds())
		}
		records = shop.Records
		f, err = finish(ctx, b, spec)
		return err
	})
	return f, records, err
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// slow is a recovery of which more is told.
const slow = 5 * time.Second

type killed struct {
	n        int
	recovery []time.Duration
}

// killing starts the worker and kills it as often as asked for, or until the time is over.
func killing(ctx context.Context, o options, spec hotrun.Spec) (time.Duration, killed, error) {
	began := time.Now()
	var k killed
	random := rand.New(rand.NewPCG(o.seed, 848))
	fmt.Printf("%d kills of the worker (%s, group protocol %s, %d partitions) at %g events/s, seed %d\n", o.kills, o.broker, o.protocol, o.partitions, o.rate, o.seed)
	for k.n < o.kills && time.Since(began) < o.limit {
		w, err := hotrun.Start(ctx, spec)
		if err != nil {
			return 0, k, err
		}
		took, err := w.Committed(ctx, recoverLimit)
		if err != nil {
			return 0, k, errors.Join(fmt.Errorf("after %d kills: %w", k.n, err), w.Kill())
		}
		if k.n > 0 {
			k.recovery = append(k.recovery, took)
		}
		if records, seconds := w.Restored(); took > slow {
			fmt.Printf("     recovery %d took %s, %.1f s of tasks being restored from %.0f records; %s\n", k.n, round(took), seconds, records, w.Said())
		}
		select {
		case <-time.After(killAfter + time.Duration(random.Int64N(int64(killAfter)))):
		case <-ctx.Done():
			return 0, k, errors.Join(ctx.Err(), w.Kill())
		}
		if err := w.Kill(); err != nil {
			return 0, k, fmt.Errorf("killing the worker: %w", err)
		}
		k.n++
		if k.n%20 == 0 || k.n == o.kills {
			fmt.Printf("     %d kills in %s\n", k.n, time.Since(began).Round(time.Second))
		}
	}
	return time.Since(began), k, nil
}
