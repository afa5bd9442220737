package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/fault"
)

// position is called by the group with newly assigned partitions and their committed offsets, which are only a hint: consumption begins where the head of each
// table is. It waits while the catalog or the broker is away.
func (s *Iceberg) position(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	out := map[string]map[int32]kgo.Offset{}
	for topic, parts := range offsets {
		t := s.tables[topic]
		if t == nil {
			continue
		}
		numbers := slices.Collect(maps.Keys(parts))
		for {
			at, wait, err := s.start(ctx, t, numbers)
			if err != nil {
				return nil, err
			}
			if at != nil {
				out[topic] = at
				break
			}
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil, ctx.Err()
			case <-timer.C:
			}
		}
	}
	s.mu.Lock()
	s.joined = true
	s.mu.Unlock()
	return out, nil
}

// start tries once to find where partitions begin. Without an error and offsets it is to be called again after a while.
func (s *Iceberg) start(ctx context.Context, t *icebergTable, numbers []int32) (map[int32]kgo.Offset, time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal != nil {
		return nil, 0, s.fatal
	}
	found, err := s.resolve(ctx, t, numbers)
	if err != nil {
		if _, ok := fault.IDOf(err); ok {
			s.fail(err)
			return nil, 0, err
		}
		t.trouble(ctx, err)
		return nil, t.backoff, nil
	}
	if t.pending == nil && !t.rewind {
		t.well()
	}
	at := map[int32]kgo.Offset{}
	for n, p := range found {
		t.parts[n] = p
		at[n] = kgo.NewOffset().At(p.next).WithEpoch(-1)
	}
	return at, 0, nil
}

// resolve finds where the head says partitions are, and whether Kafka still has what comes next.
func (s *Iceberg) resolve(ctx context.Context, t *icebergTable, numbers []int32) (map[int32]*icebergPart, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CommitTimeout)
	defer cancel()
	details, err := s.adm.ListTopics(ctx, t.topic)
	if err != nil {
		return nil, fmt.Errorf("topic id of %s: %w", t.topic, err)
	}
	d, ok := details[t.topic]
	if !ok {
		return nil, fmt.Errorf("topic %s is unknown to the broker", t.topic)
	}
	if d.Err != nil {
		return nil, fmt.Errorf("topic id of %s: %w", t.topic, d.Err)
	}
	id := d.ID.String()
	head, err := s.cat.Head(ctx, t.name)
	if err != nil {
		return nil, err
	}
	if _, ok := head.Vector[id]; !ok && len(head.Vector) > 0 {
		return nil, fault.New("MR-ICE-005", fmt.Errorf("table %s was fed from topic id %v, but topic %s now has id %s", t.name, slices.Sorted(maps.Keys(head.Vector)), t.topic, id))
	}
	starts, err := s.adm.ListStartOffsets(ctx, t.topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("start offsets of %s: %w", t.topic, err)
	}
	ends, err := s.adm.ListEndOffsets(ctx, t.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("end offsets of %s: %w", t.topic, err)
	}
	out := map[int32]*icebergPart{}
	for _, n := range numbers {
		first, ok1 := starts.Lookup(t.topic, n)
		last, ok2 := ends.Lookup(t.topic, n)
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("offsets of %s/%d are unknown", t.topic, n)
		}
		p := &icebergPart{lo: head.Vector.At(id, n), end: last.Offset}
		p.next = p.lo
		if !head.Vector.Has(id, n) {
			p.next = first.Offset // never read: there is no range that is owed
		}
		if p.next < first.Offset || p.next > last.Offset {
			return nil, fault.New("MR-ICE-004", fmt.Errorf("table %s is at offset %d of %s/%d, which holds [%d, %d)", t.name, p.next, t.topic, n, first.Offset, last.Offset))
		}
		out[n] = p
	}
	t.topicID = id
	t.checked = s.now()
	return out, nil
}

// toHead drops what is not committed and goes where the head is.
func (t *icebergTable) toHead(ctx context.Context) {
	t.discard(ctx)
	found, err := t.s.resolve(ctx, t, slices.Collect(maps.Keys(t.parts)))
	if err != nil {
		if _, ok := fault.IDOf(err); ok {
			t.s.fail(err)
			return
		}
		t.trouble(ctx, err)
		return
	}
	set := map[int32]kgo.EpochOffset{}
	for n, p := range found {
		set[n] = kgo.EpochOffset{Epoch: -1, Offset: p.next}
	}
	if len(set) > 0 {
		t.s.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{t.topic: set})
		known := t.s.cl.CommittedOffsets()[t.topic]
		for n, want := range set {
			if known[n].Offset != want.Offset { // assigned, but not consumed yet: the client has passed over it
				t.trouble(ctx, errors.New("the position of a partition just assigned cannot be set yet"))
				return
			}
		}
	}
	t.parts = found
	t.rewind = false
	t.well()
	t.s.m.rewinds.WithLabelValues(t.name).Inc()
}

// revoked commits what was taken before partitions go to another member. What cannot be committed now is discarded, and the new owner begins at the head.
func (s *Iceberg) revoked(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, cancel := context.WithTimeout(ctx, s.cfg.CommitTimeout) // for all tables: the group waits
	defer cancel()
	for topic, numbers := range gone {
		t := s.tables[topic]
		if t == nil {
			continue
		}
		if t.flush(last); t.pending == nil {
			t.flush(last) // what came while the first was on its way
		}
		t.release(ctx, numbers)
	}
}

// lost is called when partitions were taken away without notice: their rows may be with another member already.
func (s *Iceberg) lost(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, numbers := range gone {
		if t := s.tables[topic]; t != nil {
			t.rewind = true
			t.discard(ctx)
			t.release(ctx, numbers)
		}
	}
}

func (t *icebergTable) release(ctx context.Context, numbers []int32) {
	if t.pending != nil || t.w != nil && t.w.Rows() > 0 {
		t.discard(ctx)
		t.rewind = true
	}
	for _, n := range numbers {
		delete(t.parts, n)
	}
	if len(t.parts) == 0 {
		t.rewind = false
	}
	t.s.m.lag.WithLabelValues(t.topic).Set(0)
}
