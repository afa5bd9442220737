package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/test/drills/drill"
	"millrace/test/drills/hotrun"
)

const (
	rollingWorkers = 4
	mostGap        = 2 * time.Second
)

// rolling restarts four workers one after the other, as an update does, while a shop writes, and looks for the longest time without a committed update of KPIs.
func rolling(ctx context.Context, d *drill.Drill, o options, dir string) error {
	o.partitions = max(o.partitions, rollingWorkers)
	return onBroker(ctx, o, dir, func(b *hotrun.Broker) (err error) {
		workers := make([]*hotrun.Proc, rollingWorkers)
		defer func() {
			for _, w := range workers {
				if w != nil {
					err = errors.Join(err, w.Stop())
				}
			}
		}()
		writing, stopWriting := context.WithCancel(ctx)
		defer stopWriting()
		shop := &hotrun.Shop{Seed: o.seed, Rate: o.rate, Partitions: int32(o.partitions)}
		ended := make(chan error, 1)
		go func() { ended <- shop.Run(writing, b.Addr) }()
		for i := range workers {
			if workers[i], err = hotrun.Start(ctx, o.spec(b.Addr, dir, "stream-"+strconv.Itoa(i))); err != nil {
				return err
			}
		}
		for _, w := range workers {
			if _, err := w.Committed(ctx, recoverLimit); err != nil {
				return err
			}
		}
		fmt.Printf("%d workers of %d tasks a stage (%s) at %g events/s\n", rollingWorkers, o.partitions, o.broker, o.rate)
		watch, err := startGaps(ctx, b)
		if err != nil {
			return err
		}
		defer watch.stop()
		pause := func() error { // so that the gaps of two restarts do not come together
			select {
			case <-time.After(3 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := pause(); err != nil {
			return err
		}
		before := watch.take()
		var took []time.Duration
		for range o.rounds {
			for i := range workers {
				began := time.Now()
				if err := workers[i].Stop(); err != nil {
					return err
				}
				away := time.Since(began)
				if workers[i], err = hotrun.Start(ctx, o.spec(b.Addr, dir, "stream-"+strconv.Itoa(i))); err != nil {
					return err
				}
				if _, err := workers[i].Committed(ctx, recoverLimit); err != nil {
					return err
				}
				took = append(took, time.Since(began))
				fmt.Printf("     worker %d: ended in %s, its first commit after %s\n", i, round(away), round(took[len(took)-1]))
				if err := pause(); err != nil {
					return err
				}
			}
		}
		during := watch.take()
		stopWriting()
		if err := <-ended; err != nil {
			return err
		}
		slices.Sort(took)
		d.Check(len(during.most) == o.partitions && during.all <= mostGap, "no time above %s without an update of KPIs: at most %s; before the restarts %s", mostGap, round(during.all), round(before.all))
		var worst time.Duration
		for _, g := range during.most {
			worst = max(worst, g)
		}
		d.Check(len(during.most) == o.partitions && worst <= mostGap, "nor of any one of the %d tasks: at most %s (restart: p50 %s, max %s)", o.partitions, round(worst), round(took[len(took)/2]), round(took[len(took)-1]))
		if err := b.Quiet(ctx, o.spec(b.Addr, dir, ""), 5*time.Minute); err != nil {
			return err
		}
		f, err := read(ctx, b)
		if err != nil {
			return err
		}
		d.Check(int64(len(f.events)) > 0 && f.again == 0 && f.twice == 0, "each of %d events and %d alerts was written once (%d, %d twice)", len(f.events), len(f.alerts), f.again, f.twice)
		return nil
	})
}

// gaps are the longest times without an update.
type gaps struct {
	all  time.Duration
	most map[int32]time.Duration // of each partition
}

type gapWatch struct {
	cl   *kgo.Client
	done chan struct{}

	mu      sync.Mutex
	now     gaps
	last    time.Time
	updated map[int32]time.Time
}

// startGaps follows the committed updates of KPIs from now on.
func startGaps(ctx context.Context, b *hotrun.Broker) (*gapWatch, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr), kgo.ConsumeTopics(event.TopicKPIPartial), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		return nil, fmt.Errorf("following the KPIs: %w", err)
	}
	w := &gapWatch{cl: cl, done: make(chan struct{}), updated: map[int32]time.Time{}, now: gaps{most: map[int32]time.Duration{}}}
	go func() {
		defer close(w.done)
		for {
			f := cl.PollFetches(ctx)
			if f.IsClientClosed() || ctx.Err() != nil {
				return
			}
			now := time.Now()
			w.mu.Lock()
			f.EachPartition(func(p kgo.FetchTopicPartition) {
				if len(p.Records) == 0 {
					return
				}
				if at, ok := w.updated[p.Partition]; ok {
					w.now.most[p.Partition] = max(w.now.most[p.Partition], now.Sub(at))
				}
				if !w.last.IsZero() {
					w.now.all = max(w.now.all, now.Sub(w.last))
				}
				w.updated[p.Partition], w.last = now, now
			})
			w.mu.Unlock()
		}
	}()
	return w, nil
}

// take gives the longest gaps since it was called last. One that has not ended counts as long as it is.
func (w *gapWatch) take() gaps {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	g := w.now
	for p, at := range w.updated {
		g.most[p] = max(g.most[p], now.Sub(at))
	}
	if !w.last.IsZero() {
		g.all = max(g.all, now.Sub(w.last))
	}
	w.now = gaps{most: map[int32]time.Duration{}}
	return g
}

func (w *gapWatch) stop() {
	w.cl.Close()
	<-w.done
}
