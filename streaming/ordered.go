package streaming

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// OrderedSpec describes a buffer that brings items into the order of event time.
type OrderedSpec[T any] struct {
	Store uint16 // declared in Topology.Stores
	Codec Codec[T]
	// Lateness is how much longer than the watermark the buffer waits. Default 0: the watermark already allows for Config.Disorder.
	Lateness time.Duration
	// Each gets every item once, in the order (event time, topic rank, offset, key), when the watermark has passed its time by Lateness. It may emit records, write stores and
	// set timers, and add items that are not late. It is called before the timers that the same step of the watermark makes due.
	Each func(key string, at int64, v T) error
	// Late gets the items that come when their turn is over: they reach no Each. nil drops them; either way they are counted as dropped.
	Late func(key string, at int64, v T) error
}

// Ordered holds items until no earlier one can come, and gives them back in an order that does not depend on how they arrived: what patterns, joins and last values need.
//
// The watermark drives it, as it drives windows: it needs no timers of its own. What it holds is at most what arrives within Config.Disorder + Lateness (more while an
// input lags behind the others), and nothing after that.
//
// An item that Each sees is older than the watermark, so a window set to which Each adds it takes it for late: windows are for adding on arrival.
type Ordered[T any] struct {
	timeline[T]
	spec     OrderedSpec[T]
	lateness int64
	count    WindowCounts // of the open transaction
	counted  WindowCounts // committed
}

// OpenOrdered makes the buffer of a declared store. It is called in Topology.New only.
func OpenOrdered[T any](t *Task, spec OrderedSpec[T]) *Ordered[T] {
	o := &Ordered[T]{timeline: newTimeline(t, spec.Store, spec.Codec), spec: spec, lateness: spec.Lateness.Microseconds()}
	if spec.Codec == nil || spec.Each == nil || spec.Lateness < 0 {
		t.openErr = errors.Join(t.openErr, fmt.Errorf("ordered buffer %d: Codec, Each and a lateness of 0 or more are needed", spec.Store))
	}
	t.register(o)
	t.windows = append(t.windows, o)
	return o
}

// Add takes an item of the given key and event time. rank and offset say where it was read: of two items with the same event time the one with the lower rank, then
// the lower offset comes first. An item at the very place of another (time, rank, offset, key) takes its place. v is retained until the transaction after Each has
// ended, so it must not refer to what the caller reuses.
func (o *Ordered[T]) Add(key string, at int64, rank uint8, offset int64, v T) error {
	if at < o.turn {
		o.count.Dropped++
		o.t.touched = true
		if o.spec.Late != nil {
			return o.spec.Late(key, at, v)
		}
		return nil
	}
	o.count.OnTime++
	o.add(at, rank, offset, key, v)
	return nil
}

// Len is the number of items held.
func (o *Ordered[T]) Len() int { return o.n }

// Counts counts the items: on time, and dropped because they were late.
func (o *Ordered[T]) Counts() WindowCounts { return o.counted }

func (o *Ordered[T]) counts() WindowCounts { return o.count }

func (o *Ordered[T]) advance(watermark int64) error {
	o.to(watermark - o.lateness)
	for {
		it := o.pop()
		if it == nil {
			return nil
		}
		if err := o.spec.Each(it.key, it.due, it.v); err != nil {
			return err
		}
	}
}

func (o *Ordered[T]) tick(time.Time) error { return nil }

func (o *Ordered[T]) restored() {
	turn := o.t.Watermark()
	if turn != noTime {
		turn -= o.lateness
	}
	o.settle(turn)
}

func (o *Ordered[T]) commit() {
	o.timeline.commit()
	o.counted.OnTime += o.count.OnTime
	o.counted.Dropped += o.count.Dropped
	o.count = WindowCounts{}
}

func (o *Ordered[T]) abort() {
	o.timeline.abort()
	o.count = WindowCounts{}
}

// Rank is the place of an input among the topology's inputs by name: which of two records with the same time the merge takes first. It is 255 for a topic that is no input.
func (t *Task) Rank(topic string) uint8 {
	if i := slices.Index(t.top.Inputs, topic); i >= 0 {
		return uint8(t.merge.rank[i])
	}
	return 255
}
