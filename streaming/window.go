package streaming

import (
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Grain is one size of windows in a cascade.
type Grain[K comparable] struct {
	Name string
	// From is the index of the finer grain that is folded into this one; each window of it must lie within one of this. The first
	// grain has none.
	From int
	// Window gives the window [start, end) of key that holds at, in microseconds since the epoch.
	Window func(key K, at int64) (start, end int64)
}

// Fixed is the grain of windows of a fixed size, aligned to the epoch.
func Fixed[K comparable](name string, from int, size time.Duration) Grain[K] {
	d := size.Microseconds()
	return Grain[K]{Name: name, From: from, Window: func(_ K, at int64) (int64, int64) {
		start := at - at%d
		if at%d < 0 {
			start -= d
		}
		return start, start + d
	}}
}

// Accumulator is how values of a window are made, added and stored. A may hold pointers; what Clone gives shares nothing with its
// argument that Merge or the operator would change in place.
type Accumulator[A any] interface {
	Codec[A]
	New() A
	Clone(a A) A
	Merge(into *A, delta A) // adds delta to *into; delta is not changed, and *into must not share memory with it afterwards
}

// WindowsSpec describes a cascade of tumbling windows over a keyed aggregate.
type WindowsSpec[K comparable, A any] struct {
	Store    uint16 // declared in Topology.Stores
	Grains   []Grain[K]
	Lateness time.Duration // how long after its end, in event time, a window still takes events
	// EmitEvery is how often, in processing time, a window that is not closing is emitted at most. Default 1 s. The keys have their turns spread over that time.
	EmitEvery time.Duration
	// ClosedOnly emits a window when it has closed, and corrections of it, and not before.
	ClosedOnly bool
	Keys       Codec[K]
	Values     Accumulator[A]
	// Emit is called with the total of a window that has changed since it was last emitted: once in each EmitEvery (unless ClosedOnly), and at its
	// close. total must neither be changed nor retained. Emit may emit records and write stores, but not add to the same windows.
	Emit func(w Window[K], total A) error
}

// Window is one window of one key, as it is emitted.
type Window[K comparable] struct {
	Key        K
	Grain      int
	Start, End int64
	// Closed: the watermark has reached End. What is emitted after the first emission with Closed is a correction.
	Closed bool
}

// Outcome of an event at a window set.
type Outcome uint8

// Every event has exactly one outcome.
const (
	OnTime  Outcome = iota // its smallest window was open
	Late                   // its smallest window was closed, within lateness: a correction follows
	Dropped                // beyond lateness: nothing was added
)

// WindowCounts counts the outcomes of committed events since the task was made on this worker.
type WindowCounts struct{ OnTime, Late, Dropped int64 }

// Windows is a cascade of tumbling windows of one task.
//
// An event is added to its window of the smallest grain only. What an entry has not yet passed on to the larger grains is its pending
// delta; when it is emitted, the delta is folded upwards. So in between an event dirties one small entry.
type Windows[K comparable, A any] struct {
	t        *Task
	s        StoreSpec
	spec     WindowsSpec[K, A]
	lateness int64
	parents  [][]int // for each grain those that fold it

	panes    map[paneID]*pane[K, A]
	last     *pane[K, A] // of grain 0, asked for last
	closing  paneHeap[K, A]
	expiring paneHeap[K, A]
	changed  [][][]*entry[K, A] // by grain and turn of the key: those to fold and emit
	turns    int                // in an EmitEvery
	turn     int64              // the next one, counted from origin
	origin   time.Time

	epoch    uint64
	dirty    []*entry[K, A] // nil where the window has come and gone
	released []*pane[K, A]  // in this transaction
	made     []*pane[K, A]  // in this transaction
	warm     []*pane[K, A]  // closed, and not cold
	moved    bool           // panes closed or were released in this transaction
	slab     []entry[K, A]
	entries  int
	cold     []byte                      // scratch
	count    WindowCounts                // of the open transaction
	counted  WindowCounts                // committed
	loading  map[paneStart][]*pane[K, A] // on restore only
	buf      []byte
}

type paneID struct {
	grain      int
	start, end int64
}

// pane is one window with all its keys.
type pane[K comparable, A any] struct {
	paneID
	keys map[K]*entry[K, A] // nil while it is cold
	made uint64             // the epoch in which it was made
	cold []byte             // a closed pane at rest, see cold.go
	n    int                // keys while it is cold
}

// entry is one key of one window.
type entry[K comparable, A any] struct {
	p   *pane[K, A]
	key K
	id  []byte // in the changelog
	value[A]
	before  value[A] // as of the last commit
	epoch   uint64   // of the transaction that changed it last
	dirty   int      // its place in the list of those
	ownBase bool     // base was made in this transaction and may be changed in place
	listed  bool     // it is in the list of its turn
	turn    uint8
}

// value is the part of an entry that commits and aborts.
type value[A any] struct {
	base, pending       A // passed on to larger grains; not yet
	hasBase, hasPending bool
	changed             bool // since the last emission
	live                bool
}

// due: there is something to fold or to emit.
func (v *value[A]) due() bool { return v.changed || v.hasPending }

// OpenWindows makes the window set of a declared store. It is called in Topology.New only.
func OpenWindows[K comparable, A any](t *Task, spec WindowsSpec[K, A]) *Windows[K, A] {
	def(&spec.EmitEvery, time.Second)
	w := &Windows[K, A]{
		t: t, s: t.declared(spec.Store), spec: spec, lateness: spec.Lateness.Microseconds(),
		panes: map[paneID]*pane[K, A]{}, loading: map[paneStart][]*pane[K, A]{}, parents: make([][]int, len(spec.Grains)), epoch: 1,
		changed: make([][][]*entry[K, A], len(spec.Grains)), turns: int(min(maxTurns, max(1, spec.EmitEvery/tickEvery))),
	}
	for g := range w.changed {
		w.changed[g] = make([][]*entry[K, A], w.turns)
	}
	w.closing.by = func(p *pane[K, A]) int64 { return p.end }
	w.expiring.by = func(p *pane[K, A]) int64 { return p.end + w.lateness }
	if len(spec.Grains) == 0 || len(spec.Grains) > 255 || spec.Lateness < 0 || spec.Emit == nil || spec.Keys == nil || spec.Values == nil {
		t.openErr = errors.Join(t.openErr, fmt.Errorf("windows %d: 1 to 255 grains, lateness of 0 or more, Keys, Values and Emit are needed", spec.Store))
	}
	for g := 1; g < len(spec.Grains); g++ {
		from := spec.Grains[g].From
		if from < 0 || from >= g {
			t.openErr = errors.Join(t.openErr, fmt.Errorf("windows %d: grain %s is folded from grain %d, want one before it", spec.Store, spec.Grains[g].Name, from))
			continue
		}
		w.parents[from] = append(w.parents[from], g)
	}
	t.register(w)
	t.windows = append(t.windows, w)
	return w
}

// At gives the delta that an event of key at the given event time is to be added to, in place and at once. It is nil when the event is
// Dropped.
func (w *Windows[K, A]) At(key K, at int64) (*A, Outcome) {
	start, end := w.spec.Grains[0].Window(key, at)
	watermark, outcome := w.t.Watermark(), OnTime
	if end <= watermark {
		if end+w.lateness <= watermark {
			w.count.Dropped++
			w.t.touched = true
			return nil, Dropped
		}
		outcome = Late
		w.count.Late++
	} else {
		w.count.OnTime++
	}
	return w.delta(w.entry(0, start, end, key)), outcome
}

// Counts counts outcomes.
func (w *Windows[K, A]) Counts() WindowCounts { return w.counted }

func (w *Windows[K, A]) counts() WindowCounts { return w.count }

// delta makes e's pending value one that may be changed, and lists e to be folded and emitted.
func (w *Windows[K, A]) delta(e *entry[K, A]) *A {
	w.touch(e)
	if !e.hasPending {
		e.pending, e.hasPending = w.spec.Values.New(), true
	}
	e.changed, e.live = true, true
	w.list(e)
	return &e.pending
}

func (w *Windows[K, A]) list(e *entry[K, A]) {
	if l := &w.changed[e.p.grain][e.turn]; e.due() && !e.listed {
		e.listed = true
		*l = append(*l, e)
	}
}

// touch remembers what e was before the open transaction changed it, and gives it a pending value of its own.
func (w *Windows[K, A]) touch(e *entry[K, A]) {
	if e.epoch == w.epoch {
		return
	}
	e.epoch, e.before, e.ownBase = w.epoch, e.value, false
	if e.hasPending {
		e.pending = w.spec.Values.Clone(e.pending)
	}
	e.dirty = len(w.dirty)
	w.dirty = append(w.dirty, e)
	w.t.touched = true
}

func (w *Windows[K, A]) entry(grain int, start, end int64, key K) *entry[K, A] {
	p := w.last
	if p == nil || p.start != start || p.end != end || p.grain != grain {
		id := paneID{grain, start, end}
		if p = w.panes[id]; p == nil {
			p = &pane[K, A]{paneID: id, keys: map[K]*entry[K, A]{}, made: w.epoch}
			w.panes[id] = p
			w.closing.push(p)
			w.expiring.push(p)
			w.made = append(w.made, p)
		}
		if grain == 0 {
			w.last = p
		}
	}
	if p.cold != nil {
		w.thaw(p)
	}
	e := p.keys[key]
	if e == nil {
		if len(w.slab) == 0 {
			w.slab = make([]entry[K, A], 64)
		}
		e = &w.slab[0]
		w.slab = w.slab[1:]
		e.p, e.key = p, key
		e.id = w.spec.Keys.Append(appendTime([]byte{byte(grain)}, start), key)
		e.turn = w.turnOf(e.id)
		p.keys[key] = e
		w.entries++
	}
	return e
}

// turnOf is the same for all windows of a key.
func (w *Windows[K, A]) turnOf(id []byte) uint8 {
	return uint8(xxhash.Sum64(id[keyAt:]) % uint64(w.turns))
}
