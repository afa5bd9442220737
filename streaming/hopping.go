package streaming

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// HoppingSpec describes hopping (sliding) windows over a keyed aggregate: one of length Size begins every Slide, aligned to the epoch.
// Size, Slide and the codecs are part of the state's format: to change them, raise the store's Format.
type HoppingSpec[K comparable, A any] struct {
	Store       uint16        // declared in Topology.Stores
	Size, Slide time.Duration // whole microseconds, 0 < Slide <= Size
	Lateness    time.Duration // how long after its end, in event time, a window still takes events
	// EmitEvery is the least processing time between two emissions of a window that is not closing. Default 1 s.
	EmitEvery time.Duration
	// ClosedOnly: nothing is emitted of a window before it closes. An event lies in Size/Slide windows, each of which has something new
	// to tell every EmitEvery: where nobody looks at open windows, this saves most of the emissions.
	ClosedOnly bool
	Keys       Codec[K]
	Values     Accumulator[A] // Merge must be associative and commutative
	// Emit is called with the total of a window: once when it closes (Closed is true), and not at all for one without events; before
	// that, and again when late events have changed it, at most once per EmitEvery. total must neither be changed nor retained. Emit may
	// emit records and write stores, but not add to the same windows.
	Emit func(w Window[K], total A) error
}

// Hopping is the hopping windows of one task.
//
// Time is cut into slices, as long as the greatest common divisor of Size and Slide; an event is added to one slice of its key,
// however many windows it lies in (Li et al. 2005, panes). A window is the fold of its slices. As a key's windows close one after
// another, the fold goes along by two stacks (see folder): each slice is merged twice, each window once more. Only slices are state.
type Hopping[K comparable, A any] struct {
	t                             *Task
	s                             StoreSpec
	spec                          HoppingSpec[K, A]
	length, slide, step, lateness int64

	keys     map[K]*hopKey[K, A]
	panes    map[int64]*hopPane[K, A] // by start
	expiring timeHeap                 // starts of panes
	closings map[int64][]*hopKey[K, A]
	ends     timeHeap // of closings
	n        int      // slices

	fresh   []*hopSlice[K, A] // that have something to tell of open windows
	late    []*hopSlice[K, A] // that have corrections to tell
	lateDue int64             // when the first window to be corrected expires
	mark    int64             // the watermark that advance was last given
	swept   time.Time

	at      hopTimes // of the event before
	epoch   uint64
	dirty   []*hopSlice[K, A]
	dropped []*hopPane[K, A] // in this transaction
	moved   bool             // slices came or went, or windows closed, in this transaction
	slab    []hopSlice[K, A]
	keySlab []hopKey[K, A]
	scratch folder[A]
	some    []*hopSlice[K, A] // scratch
	buf     []byte
	count   WindowCounts // of the open transaction
	counted WindowCounts // committed
}

// hopPane is the slices of one time, of all keys.
type hopPane[K comparable, A any] struct {
	start  int64
	slices []*hopSlice[K, A]
}

// hopKey is a key that has slices.
type hopKey[K comparable, A any] struct {
	key    K
	slices []*hopSlice[K, A] // by start
	due    int64             // end of its next window that closes; never: none
	fold   folder[A]         // of the window that closed last; not state, it can be made again from the slices
}

// hopSlice is one key in one slice of time.
type hopSlice[K comparable, A any] struct {
	k      *hopKey[K, A]
	start  int64
	epoch  uint64 // of the transaction that changed it last
	own    bool   // a was made in this transaction and may be changed in place
	inList [2]bool
	hopValue[A]
	before hopValue[A] // as of the last commit
}

// hopValue is the part of a slice that commits and aborts.
type hopValue[A any] struct {
	a     A
	live  bool
	fresh bool  // open windows have not been told yet
	late  int64 // windows that end at or before this one have not been told; never: all have
}

type hopTimes struct {
	start, end        int64 // of the slice
	firstEnd, lastEnd int64 // of the windows that hold it
}

const (
	never = math.MaxInt64
	// farTime bounds event times, so that adding sizes to them cannot overflow: 73,000 years.
	farTime = int64(1) << 61
)

// OpenHopping makes the hopping windows of a declared store. It is called in Topology.New only.
func OpenHopping[K comparable, A any](t *Task, spec HoppingSpec[K, A]) *Hopping[K, A] {
	def(&spec.EmitEvery, time.Second)
	w := &Hopping[K, A]{
		t: t, s: t.declared(spec.Store), spec: spec, length: spec.Size.Microseconds(), slide: spec.Slide.Microseconds(), lateness: spec.Lateness.Microseconds(),
		keys: map[K]*hopKey[K, A]{}, panes: map[int64]*hopPane[K, A]{}, closings: map[int64][]*hopKey[K, A]{}, lateDue: never, mark: noTime, epoch: 1,
	}
	bad := func(format string, a ...any) {
		t.openErr = errors.Join(t.openErr, fmt.Errorf("hopping windows %d: "+format, append([]any{spec.Store}, a...)...))
	}
	if spec.Size <= 0 || spec.Slide <= 0 || spec.Slide > spec.Size || spec.Size%time.Microsecond != 0 || spec.Slide%time.Microsecond != 0 {
		bad("size %s and slide %s, want whole microseconds, 0 < slide <= size", spec.Size, spec.Slide)
		w.length, w.slide = 1, 1
	}
	if spec.Lateness < 0 || spec.Emit == nil || spec.Keys == nil || spec.Values == nil {
		bad("lateness of 0 or more, Keys, Values and Emit are needed")
	}
	w.step = gcd(w.length, w.slide)
	w.at.end = noTime
	t.register(w)
	t.windows = append(t.windows, w)
	return w
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// floorTo is the largest multiple of d that is not above at.
func floorTo(at, d int64) int64 {
	r := at % d
	if r < 0 {
		r += d
	}
	return at - r
}

// At gives the value that an event of key at the given event time is to be added to, in place and at once: that of its slice. It is nil
// when the event is Dropped, as all of its windows are beyond lateness. It is Late when some of them had closed: those within lateness
// are corrected, those beyond go without it.
func (w *Hopping[K, A]) At(key K, at int64) (*A, Outcome) {
	if at >= w.at.end || at < w.at.start {
		if at > farTime || at < -farTime {
			return w.drop()
		}
		w.at = w.times(floorTo(at, w.step))
	}
	x, outcome, watermark := &w.at, OnTime, w.t.Watermark()
	if x.firstEnd <= watermark {
		if x.lastEnd+w.lateness <= watermark {
			return w.drop()
		}
		outcome = Late
		w.count.Late++
	} else {
		w.count.OnTime++
	}
	s := w.slice(key, x.start)
	w.touch(s)
	if !s.live {
		s.live, s.a, s.own = true, w.spec.Values.New(), true
	} else if !s.own {
		s.a, s.own = w.spec.Values.Clone(s.a), true
	}
	if outcome == Late {
		w.correct(s, watermark)
	}
	if !w.spec.ClosedOnly && !s.fresh && x.lastEnd > watermark {
		s.fresh = true
		w.list(s)
	}
	return &s.a, outcome
}

func (w *Hopping[K, A]) drop() (*A, Outcome) {
	w.count.Dropped++
	w.t.touched = true
	return nil, Dropped
}

// correct notes that the closed windows that hold s have changed. It is only called when all that have expired were told of before.
func (w *Hopping[K, A]) correct(s *hopSlice[K, A], watermark int64) {
	if i, ok := s.k.find(s.start); ok && i < s.k.fold.hi {
		s.k.fold.valid = false
	}
	first := max(w.at.firstEnd, w.endAfter(watermark-w.lateness)) // of those that have not expired
	if first > watermark {
		return
	}
	s.late = watermark
	w.lateDue = min(w.lateDue, first+w.lateness)
	w.list(s)
}

// Counts counts outcomes.
func (w *Hopping[K, A]) Counts() WindowCounts { return w.counted }

func (w *Hopping[K, A]) counts() WindowCounts { return w.count }

// times are those of the slice that begins at start. A window [b, b+size) holds it when start+step-size <= b <= start.
func (w *Hopping[K, A]) times(start int64) hopTimes {
	return hopTimes{start: start, end: start + w.step, firstEnd: floorTo(start+w.step-w.length+w.slide-1, w.slide) + w.length, lastEnd: floorTo(start, w.slide) + w.length}
}

// endAfter is the first end of a window that is after the given time.
func (w *Hopping[K, A]) endAfter(at int64) int64 {
	if at < -farTime {
		return at // no slice is there
	}
	return floorTo(at-w.length, w.slide) + w.slide + w.length
}

// list puts a slice with something to tell on its lists.
func (w *Hopping[K, A]) list(s *hopSlice[K, A]) {
	if s.fresh && !s.inList[0] {
		s.inList[0] = true
		w.fresh = append(w.fresh, s)
	}
	if s.late != never && !s.inList[1] {
		s.inList[1] = true
		w.late = append(w.late, s)
	}
}

// touch remembers what s was before the open transaction changed it.
func (w *Hopping[K, A]) touch(s *hopSlice[K, A]) {
	if s.epoch == w.epoch {
		return
	}
	s.epoch, s.before, s.own = w.epoch, s.hopValue, false
	w.dirty = append(w.dirty, s)
	w.t.touched = true
}

// find gives the place of the slice that begins at start: most often it is the last.
func (k *hopKey[K, A]) find(start int64) (int, bool) {
	n := len(k.slices)
	if n > 0 && k.slices[n-1].start == start {
		return n - 1, true
	}
	if n == 0 || k.slices[n-1].start < start {
		return n, false
	}
	return slices.BinarySearchFunc(k.slices, start, func(s *hopSlice[K, A], at int64) int { return cmp.Compare(s.start, at) })
}

func (w *Hopping[K, A]) slice(key K, start int64) *hopSlice[K, A] {
	k := w.keys[key]
	if k == nil {
		if len(w.keySlab) == 0 {
			w.keySlab = make([]hopKey[K, A], 32)
		}
		k = &w.keySlab[0]
		w.keySlab = w.keySlab[1:]
		k.key, k.due = key, never
		w.keys[key] = k
	}
	i, ok := k.find(start)
	if ok {
		return k.slices[i]
	}
	if len(w.slab) == 0 {
		w.slab = make([]hopSlice[K, A], 64)
	}
	s := &w.slab[0]
	w.slab = w.slab[1:]
	s.k, s.start, s.late = k, start, never
	w.place(s, i)
	w.n++
	w.moved = true
	return s
}

// place puts s into the lists of its key and its time, and has its first open window closed in time.
func (w *Hopping[K, A]) place(s *hopSlice[K, A], i int) {
	k := s.k
	k.slices = slices.Insert(k.slices, i, s)
	if i < k.fold.hi {
		k.fold.valid = false
	}
	p := w.panes[s.start]
	if p == nil {
		p = &hopPane[K, A]{start: s.start}
		w.panes[s.start] = p
		w.expiring.push(s.start)
	}
	p.slices = append(p.slices, s)
	w.schedule(k, max(w.times(s.start).firstEnd, w.endAfter(w.t.Watermark())), s)
}

// schedule has k's window that ends at end close, which s lies in if it lies in any that is open.
func (w *Hopping[K, A]) schedule(k *hopKey[K, A], end int64, s *hopSlice[K, A]) {
	if end >= k.due || end > w.times(s.start).lastEnd {
		return
	}
	k.due = end
	l, ok := w.closings[end]
	if !ok {
		w.ends.push(end)
	}
	w.closings[end] = append(l, k)
}
