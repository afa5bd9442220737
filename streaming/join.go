package streaming

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// IntervalSpec describes a join of two streams by key and time.
type IntervalSpec[A, B any] struct {
	Store uint16 // declared in Topology.Stores; both sides are in it
	// A left and a right event of one key are a pair if left.at + Lower <= right.at <= left.at + Upper.
	Lower, Upper time.Duration
	Left         Codec[A]
	Right        Codec[B]
	// Match gets every pair once, when the second of its events comes. It may emit records and write stores, but not add to the same join.
	Match func(p Pair[A, B]) error
	// Late gets the events that come below the watermark: they are in no pair, as in Flink's interval join, since what they would have met may be gone. nil drops them;
	// either way they are counted as dropped.
	Late func(key string, side Side, at int64) error
}

// Side is that of an event in a join.
type Side uint8

// The sides of a join.
const (
	Left Side = iota
	Right
)

// Pair is a left and a right event that belong together.
type Pair[A, B any] struct {
	Key             string
	Left            A
	Right           B
	LeftAt, RightAt int64
}

// Interval is a join of two streams in one task: both sides are held until the watermark says that nothing more can pair with them, then forgotten. Which events of a key
// pair does not depend on the order in which they come, as long as none is late.
type Interval[A, B any] struct {
	timeline[sided[A, B]]
	spec         IntervalSpec[A, B]
	lower, upper int64
	keys         map[string]*sides[A, B]
	spare        []*sides[A, B]
	seq          int64 // of the next item, so that no two are the same
	count        WindowCounts
	counted      WindowCounts
}

// sided is an event of either side.
type sided[A, B any] struct {
	a    A
	b    B
	side Side
	of   *sides[A, B] // its key's
}

// sides are the events of one key, each side in the order (time, arrival).
type sides[A, B any] struct {
	of [2][]*item[sided[A, B]]
}

// OpenInterval makes the join of a declared store. It is called in Topology.New only.
func OpenInterval[A, B any](t *Task, spec IntervalSpec[A, B]) *Interval[A, B] {
	j := &Interval[A, B]{
		timeline: newTimeline[sided[A, B]](t, spec.Store, sidedCodec[A, B]{spec.Left, spec.Right}), spec: spec,
		lower: spec.Lower.Microseconds(), upper: spec.Upper.Microseconds(), keys: map[string]*sides[A, B]{},
	}
	if spec.Left == nil || spec.Right == nil || spec.Match == nil || spec.Lower > spec.Upper {
		t.openErr = errors.Join(t.openErr, fmt.Errorf("join %d: Left, Right, Match and Lower <= Upper are needed", spec.Store))
	}
	t.register(j)
	t.windows = append(t.windows, j)
	return j
}

// AddLeft takes a left event. v is retained, as in Ordered.Add.
func (j *Interval[A, B]) AddLeft(key string, at int64, v A) error {
	return j.take(key, at, sided[A, B]{a: v, side: Left})
}

// AddRight takes a right event.
func (j *Interval[A, B]) AddRight(key string, at int64, v B) error {
	return j.take(key, at, sided[A, B]{b: v, side: Right})
}

func (j *Interval[A, B]) take(key string, at int64, v sided[A, B]) error {
	if at < j.turn {
		j.count.Dropped++
		j.t.touched = true
		if j.spec.Late != nil {
			return j.spec.Late(key, v.side, at)
		}
		return nil
	}
	j.count.OnTime++
	k := j.keys[key]
	if due := j.due(v.side, at); due >= j.turn { // else nothing can come any more that pairs with it
		if k == nil {
			k = j.key(key)
		}
		v.of = k
		it := j.add(due, uint8(v.side), j.seq, key, v)
		j.seq++
		j.index(k, it)
		key = it.key
	}
	if k == nil {
		return nil
	}
	lo, hi := at+j.lower, at+j.upper
	if v.side == Right {
		lo, hi = at-j.upper, at-j.lower
	}
	others := k.of[1-v.side]
	i, _ := slices.BinarySearchFunc(others, lo, func(it *item[sided[A, B]], lo int64) int {
		if j.at(it) < lo {
			return -1
		}
		return 1
	})
	for ; i < len(others) && j.at(others[i]) <= hi; i++ {
		o := others[i]
		p := Pair[A, B]{Key: key, Left: v.a, LeftAt: at, Right: o.v.b, RightAt: j.at(o)}
		if v.side == Right {
			p = Pair[A, B]{Key: key, Left: o.v.a, LeftAt: j.at(o), Right: v.b, RightAt: at}
		}
		if err := j.spec.Match(p); err != nil {
			return err
		}
	}
	return nil
}

// due is the time of the last event that can pair with one at the given time.
func (j *Interval[A, B]) due(side Side, at int64) int64 {
	if side == Left {
		return at + j.upper
	}
	return at - j.lower
}

func (j *Interval[A, B]) at(it *item[sided[A, B]]) int64 {
	if it.v.side == Left {
		return it.due - j.upper
	}
	return it.due + j.lower
}

func (j *Interval[A, B]) key(key string) *sides[A, B] {
	var k *sides[A, B]
	if n := len(j.spare); n > 0 {
		k, j.spare = j.spare[n-1], j.spare[:n-1]
	} else {
		k = &sides[A, B]{}
	}
	j.keys[key] = k
	return k
}

// index puts an item in its place among its key's: on one side the order of due times is that of event times.
func (j *Interval[A, B]) index(k *sides[A, B], it *item[sided[A, B]]) {
	l := k.of[it.v.side]
	i := len(l)
	for i > 0 && compareItems(l[i-1], it) > 0 {
		i--
	}
	k.of[it.v.side] = slices.Insert(l, i, it)
}

func (j *Interval[A, B]) advance(watermark int64) error {
	j.to(watermark)
	for {
		it := j.pop()
		if it == nil {
			return nil
		}
		k := it.v.of
		l := k.of[it.v.side] // it is the first: items leave in the order of the index
		copy(l, l[1:])
		l[len(l)-1] = nil
		k.of[it.v.side] = l[:len(l)-1]
		if len(k.of[Left])+len(k.of[Right]) == 0 {
			delete(j.keys, it.key)
			if len(j.spare) < 1024 && cap(k.of[Left])+cap(k.of[Right]) <= 16 {
				j.spare = append(j.spare, k)
			}
		}
	}
}

// Len is the number of events held.
func (j *Interval[A, B]) Len() int { return j.n }

// Counts counts the events: on time, and dropped because they were late.
func (j *Interval[A, B]) Counts() WindowCounts { return j.counted }

func (j *Interval[A, B]) counts() WindowCounts { return j.count }
func (j *Interval[A, B]) tick(time.Time) error { return nil }

func (j *Interval[A, B]) restored() {
	j.settle(j.t.Watermark())
	j.reindex()
}

func (j *Interval[A, B]) commit() {
	j.timeline.commit()
	j.counted.OnTime += j.count.OnTime
	j.counted.Dropped += j.count.Dropped
	j.count = WindowCounts{}
}

func (j *Interval[A, B]) abort() {
	changed := len(j.fresh)+len(j.gone) > 0
	if j.timeline.abort(); changed {
		j.reindex()
	}
	j.count = WindowCounts{}
}

// reindex builds the index from the timeline.
func (j *Interval[A, B]) reindex() {
	clear(j.keys)
	all := make([]*item[sided[A, B]], 0, j.n)
	j.each(func(it *item[sided[A, B]]) {
		all = append(all, it)
		j.seq = max(j.seq, it.seq+1)
	})
	slices.SortFunc(all, compareItems[sided[A, B]])
	for _, it := range all {
		k := j.keys[it.key]
		if k == nil {
			k = j.key(it.key)
		}
		it.v.of = k
		k.of[it.v.side] = append(k.of[it.v.side], it)
	}
}

// sidedCodec writes u8 side ‖ value.
type sidedCodec[A, B any] struct {
	left  Codec[A]
	right Codec[B]
}

func (c sidedCodec[A, B]) Append(b []byte, v sided[A, B]) []byte {
	if b = append(b, byte(v.side)); v.side == Left {
		return c.left.Append(b, v.a)
	}
	return c.right.Append(b, v.b)
}

func (c sidedCodec[A, B]) Decode(b []byte) (v sided[A, B], err error) {
	if len(b) == 0 || b[0] > byte(Right) {
		return v, errors.New("neither left nor right")
	}
	if v.side = Side(b[0]); v.side == Left {
		v.a, err = c.left.Decode(b[1:])
	} else {
		v.b, err = c.right.Decode(b[1:])
	}
	return v, err
}
