package sink

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// ErrNotCommitter says that this process does not append to a table now.
var ErrNotCommitter = errors.New("this process does not commit to the table")

// icebergLane is a commit of maintenance between two appends of a table.
type icebergLane struct {
	until time.Time // appends wait no longer
	late  bool      // an append waits
	done  chan struct{}
}

// Between runs f between two appends of a table that this process commits to, and waits for it: meanwhile rows are taken, but not committed, so that f meets
// a head that nobody moves. Afterwards the sink looks where the head is. ErrNotCommitter at once, without f, if the table's partitions are not this member's.
//
// Appends wait for LaneTimeout at most; f then goes on without the lane, as it must be right without it: every commit is a compare-and-swap. A panic of f is an
// error of Between and no concern of the sink.
func (s *Iceberg) Between(ctx context.Context, table string, f func(ctx context.Context) error) error {
	lane, t, err := s.enter(ctx, table)
	if err != nil {
		return err
	}
	start := time.Now()
	defer func() {
		s.m.laneSeconds.WithLabelValues(table).Observe(time.Since(start).Seconds())
		s.leave(ctx, t, lane)
	}()
	return guarded(ctx, table, f)
}

// enter waits until the lane of a table is free and takes it.
func (s *Iceberg) enter(ctx context.Context, table string) (*icebergLane, *icebergTable, error) {
	for {
		s.mu.Lock()
		i := slices.IndexFunc(s.order, func(t *icebergTable) bool { return t.name == table })
		if i < 0 || s.fatal != nil || !s.joined || len(s.order[i].parts) == 0 {
			s.mu.Unlock()
			return nil, nil, fmt.Errorf("table %s: %w", table, ErrNotCommitter)
		}
		t := s.order[i]
		if t.lane == nil { // no append is on its way either: it would have mu
			lane := &icebergLane{until: s.now().Add(s.cfg.LaneTimeout), done: make(chan struct{})}
			t.lane = lane
			s.mu.Unlock()
			return lane, t, nil
		}
		busy := t.lane.done
		s.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("waiting for the commit lane of table %s: %w", table, ctx.Err())
		}
	}
}

// leave frees the lane. The next append must begin where the head is: a commit of maintenance carries the offsets, a rollback does not.
func (s *Iceberg) leave(ctx context.Context, t *icebergTable, lane *icebergLane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.lane = nil
	close(lane.done)
	if s.fatal == nil && s.joined && len(t.parts) > 0 && t.pending == nil && !t.rewind { // a pending append looks for itself
		t.check(context.WithoutCancel(ctx))
	}
}

func guarded(ctx context.Context, table string, f func(ctx context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("commit lane of table %s: panic: %v\n%s", table, p, debug.Stack())
		}
	}()
	return f(ctx)
}

// held says whether appends of the table wait for the lane.
func (t *icebergTable) held(now time.Time) bool {
	if t.lane == nil || !now.Before(t.lane.until) {
		return false
	}
	if !t.lane.late {
		t.lane.late = true
		t.s.m.laneWaits.WithLabelValues(t.name).Inc()
	}
	return true
}
