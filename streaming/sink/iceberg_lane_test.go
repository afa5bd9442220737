package sink

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/event"
	"millrace/lakehouse"
)

// icebergPolicy takes every file of the tests, which are of a day long closed.
func icebergPolicy() lakehouse.Policy {
	p := lakehouse.PolicyOf("events_cart")
	p.MemoryBytes = 8 << 20
	return p
}

// maintain compacts a table once, with its commit in the lane.
func (b *icebergBench) maintain(ctx context.Context, r *runningIceberg, table string) (int, error) {
	plan, err := b.cat.PlanCompaction(ctx, table, icebergPolicy())
	if err != nil || len(plan.Groups) == 0 {
		return 0, err
	}
	var results []lakehouse.GroupResult
	for i := range plan.Groups {
		g, err := b.cat.CompactGroup(ctx, plan, i, nil)
		if err != nil {
			return 0, err
		}
		results = append(results, g)
	}
	removed := 0
	err = r.Between(ctx, table, func(ctx context.Context) error {
		res, err := b.cat.CommitRewrite(ctx, plan, results)
		removed = res.Removed
		return err
	})
	return removed, err
}

func TestIcebergCompactionThroughTheLaneKeepsFilesFewWhileTheSinkCommits(t *testing.T) {
	b := newIcebergBench(t)
	cfg := icebergFast()
	cfg.CommitInterval, cfg.KeepSnapshots, cfg.ExpireEvery = 50*time.Millisecond, 5, 10
	r := b.start(cfg)
	b.send(event.Cart, 0, 5)
	b.exact()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var passes, removed int
	wg.Go(func() {
		for ctx.Err() == nil {
			n, err := b.maintain(ctx, r, "events_cart")
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("pass %d: %v", passes, err)
				}
				return
			}
			if n > 0 {
				passes++
				removed += n
			}
			if passes%3 == 2 {
				if err := r.Between(ctx, "events_cart", func(ctx context.Context) error {
					_, err := b.cat.RewriteManifests(ctx, "events_cart")
					return err
				}); err != nil && ctx.Err() == nil {
					t.Errorf("manifests: %v", err)
				}
			}
		}
	})
	most := int64(0)
	for i := range 25 {
		b.send(event.Cart, int32(i%icebergPartitions), 7)
		head, err := b.cat.Head(t.Context(), "events_cart")
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, head.Files)
		before := head.SnapshotID
		icebergEventually(t, "the sink commits", func() error {
			h, err := b.cat.Head(t.Context(), "events_cart")
			if err == nil && h.SnapshotID == before {
				err = errors.New("the head has not moved")
			}
			return err
		})
	}
	b.exact()
	cancel()
	wg.Wait()
	if _, err := b.maintain(t.Context(), r, "events_cart"); err != nil {
		t.Error(err)
	}
	head, err := b.cat.Head(t.Context(), "events_cart")
	if err != nil {
		t.Fatal(err)
	}
	commits, waits := icebergValue(t, r.m.commits.WithLabelValues("events_cart")), icebergValue(t, r.m.laneWaits.WithLabelValues("events_cart"))
	t.Logf("%v commits, %d passes that removed %d files; at most %d files at once, %d at the end; %v appends waited", commits, passes, removed, most, head.Files, waits)
	if passes < 3 || most > 40 || waits > float64(2*passes+2) {
		t.Errorf("%d passes, at most %d files, %v waits", passes, most, waits)
	}
	if n := icebergValue(t, r.m.rewinds.WithLabelValues("events_cart")); n > 0 {
		t.Errorf("the sink went back %v times over commits that carried its offsets", n)
	}
	b.send(event.Cart, 1, 10)
	b.exact()
	b.end(r)
}

func TestIcebergTheLaneIsOnlyForTheCommitterAndNothingInItHarmsTheSink(t *testing.T) {
	b := newIcebergBench(t)
	cfg := icebergFast()
	cfg.LaneTimeout = 2 * time.Second
	r := b.start(cfg)
	fine := func(context.Context) error { return nil }
	b.send(event.Cart, 0, 20)
	b.exact()
	if err := r.Between(t.Context(), "events_nothing", fine); !errors.Is(err, ErrNotCommitter) {
		t.Errorf("a table that is not ours: %v", err)
	}
	other, err := NewIceberg(cfg, b.cat, b.codecs, b.opts, prometheus.NewRegistry(), r.log)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Between(t.Context(), "events_cart", fine); !errors.Is(err, ErrNotCommitter) {
		t.Errorf("a sink that does not run: %v", err)
	}
	wrong := errors.New("wrong")
	if err := r.Between(t.Context(), "events_cart", func(context.Context) error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("an error in the lane: %v", err)
	}
	if err := r.Between(t.Context(), "events_cart", func(context.Context) error { panic("oh") }); err == nil || !strings.Contains(err.Error(), "oh") {
		t.Errorf("a panic in the lane: %v", err)
	}
	// While the lane is held rows wait; after its time they do not.
	in, out := make(chan struct{}), make(chan struct{})
	held := make(chan error, 1)
	go func() {
		held <- r.Between(t.Context(), "events_cart", func(context.Context) error { close(in); <-out; return nil })
	}()
	<-in
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	if err := r.Between(short, "events_cart", fine); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one at the same time: %v", err)
	}
	cancel()
	b.send(event.Cart, 0, 20)
	b.exact() // although the lane is not given back
	if n := icebergValue(t, r.m.laneWaits.WithLabelValues("events_cart")); n != 1 {
		t.Errorf("%v appends waited", n)
	}
	close(out)
	if err := <-held; err != nil {
		t.Error(err)
	}
	// A commit in the lane that takes offsets back is followed at once.
	first, err := b.cat.Head(t.Context(), "events_cart")
	if err != nil {
		t.Fatal(err)
	}
	b.send(event.Cart, 0, 20)
	b.exact()
	if err := r.Between(t.Context(), "events_cart", func(context.Context) error { b.rollback("events_cart", first.SnapshotID); return nil }); err != nil {
		t.Error(err)
	}
	b.send(event.Cart, 1, 5)
	b.exact()
	b.end(r)
	if err := r.Between(t.Context(), "events_cart", fine); !errors.Is(err, ErrNotCommitter) {
		t.Errorf("a sink that has ended: %v", err)
	}
}
