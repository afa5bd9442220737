package streaming

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// SessionsSpec describes session windows over a keyed aggregate: events of a key that are no further than Gap apart. Gap, Split and the
// codecs are part of the state's format: to change them, raise the store's Format.
type SessionsSpec[K comparable, A any] struct {
	Store    uint16        // declared in Topology.Stores
	Gap      time.Duration // more than 0: two events this far apart are still of one session
	Lateness time.Duration // how long after its end, in event time, a session still takes events
	// EmitEvery is the least processing time between two emissions of a session that is not closing. Default 1 s.
	EmitEvery time.Duration
	// ClosedOnly: nothing is emitted of a session before it closes for the first time.
	ClosedOnly bool
	// Split, if set, tells whether after begins a session of its own although it lies within Gap of before: a change of campaign, say. It
	// must be a pure function of its arguments. It is asked in the order of event time: an event waits until the watermark has passed it,
	// then it is held against the session before it; events of equal time come in the order of arrival. What comes behind the watermark
	// is held against its neighbours as they are by then, and never divides what is together: between the first and the last event of a
	// session it is of that session. So which sessions there are depends on the order of arrival only for events behind the watermark.
	Split  func(before, after A) bool
	Keys   Codec[K]
	Values Accumulator[A] // Merge must be associative and commutative
	// Emit is called with the total of a session: when it closes (Closed is true); before that, and again when late events have changed
	// it, at most once per EmitEvery; and, with Retracted and an empty total, when a session that was emitted has become part of another,
	// before that one is emitted. total must neither be changed nor retained. Emit may emit records and write stores, but not add to the
	// same sessions.
	Emit func(s Session[K], total A) error
}

// Session is one session of one key.
//
// Key and ID are its identity: they stay as they are while its bounds grow. ID is the event time of its event that arrived first,
// which depends on nothing but the input; it need not be Start. (Should a Split make two sessions of one key begin with events of equal
// time, the later one has the next free number.) When an event joins two sessions, the one that starts later is absorbed: it is
// retracted if it had been emitted, and the other lives on with both.
type Session[K comparable] struct {
	Key K
	ID  int64
	// Start and Last are the times of its first and last event; End is Last + Gap, or the start of the session that Split began.
	Start, Last, End int64
	Closed           bool // the watermark is past End, or Split ended it; late events may still change it, and open it again
	Retracted        bool // it is part of another session now
}

// Sessions is the session windows of one task.
//
// Without Split an event is added to its session on arrival. With it, events that the watermark has not passed are kept one by one
// (points), since a session that is summed up cannot be taken apart.
type Sessions[K comparable, A any] struct {
	t             *Task
	s             StoreSpec
	spec          SessionsSpec[K, A]
	gap, lateness int64

	keys    map[K]*sessionKey[K, A]
	heap    dueHeap[*sessionEntry[K, A]] // points, then sessions that close, then those that expire
	n       int                          // entries
	behind  *sessionEntry[K, A]          // the point that came last, if it came behind the watermark: it is placed before anything else happens
	changed []*sessionEntry[K, A]
	owed    []*sessionEntry[K, A] // retractions
	swept   time.Time

	epoch   uint64
	dirty   []*sessionEntry[K, A]
	idle    []*sessionKey[K, A] // have lost an entry in this transaction
	slab    []sessionEntry[K, A]
	buf     []byte
	count   WindowCounts // of the open transaction
	counted WindowCounts // committed
}

// sessionKey is a key that has entries.
type sessionKey[K comparable, A any] struct {
	key    K
	list   []*sessionEntry[K, A] // by time; two that follow each other are more than a gap apart, or cut
	points []*sessionEntry[K, A] // by time and arrival
	owed   []*sessionEntry[K, A]
}

// sessionEntry is a session, a retraction that is owed, or a point.
type sessionEntry[K comparable, A any] struct {
	k      *sessionKey[K, A]
	id     int64 // of a point its time
	seq    uint32
	point  bool
	own    bool // a was made in this transaction and may be changed in place
	inList bool
	epoch  uint64 // of the transaction that changed it last
	due    int64  // in the heap
	sessionValue[A]
	before sessionValue[A] // as of the last commit
}

// sessionValue is the part of an entry that commits and aborts.
type sessionValue[A any] struct {
	start, last int64
	cut         int64 // where Split began the next session, or never
	a           A
	live        bool
	gone        bool // absorbed, and the retraction not told yet
	emitted     bool // at least once
	changed     bool // since the last emission, and to be told
	told        bool // that it is closed
}

// OpenSessions makes the session windows of a declared store. It is called in Topology.New only.
func OpenSessions[K comparable, A any](t *Task, spec SessionsSpec[K, A]) *Sessions[K, A] {
	def(&spec.EmitEvery, time.Second)
	w := &Sessions[K, A]{t: t, s: t.declared(spec.Store), spec: spec, gap: spec.Gap.Microseconds(), lateness: spec.Lateness.Microseconds(), keys: map[K]*sessionKey[K, A]{}, epoch: 1}
	if w.gap <= 0 || spec.Lateness < 0 || spec.Emit == nil || spec.Keys == nil || spec.Values == nil {
		t.openErr = errors.Join(t.openErr, fmt.Errorf("sessions %d: a gap of 1 µs or more, lateness of 0 or more, Keys, Values and Emit are needed", spec.Store))
	}
	t.register(w)
	t.windows = append(t.windows, w)
	return w
}

// Add gives the value that an event of key at the given event time is to be added to, in place and at once, and the session as it is
// with the event (with Split: as it would be if nothing split it off). It is nil when the event is Dropped: no session is there for it
// to join, and one of its own would be beyond lateness. It is Late when a session that it joins has closed, or one of its own would be.
func (w *Sessions[K, A]) Add(key K, at int64) (*A, Session[K], Outcome) {
	w.placeBehind()
	watermark, k := w.t.Watermark(), w.keys[key]
	n := neighbours[K, A]{}
	if k != nil {
		n = w.around(k, at)
	}
	outcome := OnTime
	switch {
	case at > farTime || at < -farTime, n.left == nil && n.right == nil && at+w.gap+w.lateness < watermark:
		w.count.Dropped++
		w.t.touched = true
		return nil, Session[K]{}, Dropped
	case n.left != nil && w.closed(n.left), n.right != nil && w.closed(n.right), n.left == nil && n.right == nil && at+w.gap < watermark:
		outcome = Late
		w.count.Late++
	default:
		w.count.OnTime++
	}
	if k == nil {
		k = &sessionKey[K, A]{key: key}
		w.keys[key] = k
	}
	if w.spec.Split == nil {
		e := w.join(k, n, at, nil)
		return &e.a, w.view(e), outcome
	}
	p := w.newPoint(k, at, watermark)
	view := Session[K]{Key: key, ID: at, Start: at, Last: at, End: at + w.gap}
	if n.left != nil {
		view = w.view(n.left)
		view.Last = max(view.Last, at)
	} else if n.right != nil {
		view = w.view(n.right)
		view.Start = at
	}
	return &p.a, view, outcome
}

// Last gives the latest session of key that is not beyond lateness, with its total, which must neither be changed nor retained. With
// Split, what the watermark has not passed is not in it.
func (w *Sessions[K, A]) Last(key K) (s Session[K], total A, ok bool) {
	w.placeBehind()
	if k := w.keys[key]; k != nil && len(k.list) > 0 {
		e := k.list[len(k.list)-1]
		return w.view(e), e.a, true
	}
	return s, total, false
}

// Counts counts outcomes.
func (w *Sessions[K, A]) Counts() WindowCounts { return w.counted }

func (w *Sessions[K, A]) counts() WindowCounts { return w.count }

func (w *Sessions[K, A]) end(e *sessionEntry[K, A]) int64 {
	if e.cut != never {
		return e.cut
	}
	return e.last + w.gap
}

// closed: an event at the very end would still join it.
func (w *Sessions[K, A]) closed(e *sessionEntry[K, A]) bool {
	return e.cut != never || e.last+w.gap < w.t.Watermark()
}

func (w *Sessions[K, A]) view(e *sessionEntry[K, A]) Session[K] {
	return Session[K]{Key: e.k.key, ID: e.id, Start: e.start, Last: e.last, End: w.end(e), Closed: w.closed(e), Retracted: e.gone}
}

// neighbours are the sessions that an event could be of: left starts before it or with it, right after it.
type neighbours[K comparable, A any] struct {
	left, right *sessionEntry[K, A]
	at          int // place of a session between them
}

func (w *Sessions[K, A]) around(k *sessionKey[K, A], at int64) (n neighbours[K, A]) {
	n.at = len(k.list)
	for n.at > 0 && k.list[n.at-1].start > at { // most often the last one is it
		n.at--
	}
	if n.at > 0 {
		if l := k.list[n.at-1]; at-l.last <= w.gap {
			n.left = l
			if at <= l.last {
				return n
			}
		}
	}
	if n.at < len(k.list) {
		if r := k.list[n.at]; r.start-at <= w.gap {
			n.right = r
		}
	}
	return n
}

// join adds an event, with Split its value p as well, to the session it is of, and gives that.
func (w *Sessions[K, A]) join(k *sessionKey[K, A], n neighbours[K, A], at int64, p *A) *sessionEntry[K, A] {
	l, r := n.left, n.right
	split := func(before, after *A) bool { return w.spec.Split != nil && w.spec.Split(*before, *after) }
	var e *sessionEntry[K, A]
	switch {
	case l != nil && (at <= l.last || !split(&l.a, p)):
		e = l
		w.own(e)
		w.add(e, p)
		if at > l.last {
			e.last = at
			if r != nil && e.cut == never {
				if split(&e.a, &r.a) {
					e.cut = r.start
				} else {
					w.absorb(e, r)
				}
			}
		}
	case r != nil && !split(p, &r.a):
		e = r
		w.own(e)
		w.add(e, p)
		e.start = at
		if l != nil {
			w.cutAt(l, at)
		}
	default:
		e = w.entry(k, w.freeID(k, at))
		w.touch(e)
		e.sessionValue = sessionValue[A]{start: at, last: at, cut: never, live: true, a: w.spec.Values.New()}
		e.own = true
		w.add(e, p)
		k.list = slices.Insert(k.list, n.at, e)
		w.n++
		if l != nil {
			w.cutAt(l, at)
		}
		if r != nil {
			e.cut = r.start
		}
	}
	w.grown(e)
	return e
}

func (w *Sessions[K, A]) add(e *sessionEntry[K, A], p *A) {
	if p != nil {
		w.spec.Values.Merge(&e.a, *p)
	}
}

// cutAt ends e where Split has begun another session.
func (w *Sessions[K, A]) cutAt(e *sessionEntry[K, A], at int64) {
	w.touch(e)
	e.cut = at
	w.grown(e)
}

// grown has e emitted and closed in time after a change.
func (w *Sessions[K, A]) grown(e *sessionEntry[K, A]) {
	closed := w.closed(e)
	e.told = e.told && closed
	if !w.spec.ClosedOnly || closed || e.emitted {
		e.changed = true
		w.list(e)
	}
	w.schedule(e)
}

func (w *Sessions[K, A]) list(e *sessionEntry[K, A]) {
	if e.changed && !e.inList {
		e.inList = true
		w.changed = append(w.changed, e)
	}
}

// schedule puts e into the heap, unless it is there at an earlier time.
func (w *Sessions[K, A]) schedule(e *sessionEntry[K, A]) {
	due := w.end(e)
	if e.told {
		due += w.lateness
	}
	if due < e.due {
		w.push(e, due, 1)
	}
}

func (w *Sessions[K, A]) push(e *sessionEntry[K, A], due int64, rank uint8) {
	e.due = due
	w.heap.push(due, rank, e)
}

// absorb makes r, which follows e, part of it.
func (w *Sessions[K, A]) absorb(e, r *sessionEntry[K, A]) {
	w.touch(r)
	w.spec.Values.Merge(&e.a, r.a)
	e.last, e.cut = r.last, r.cut
	w.remove(r)
	if r.emitted {
		var none A
		r.gone, r.a = true, none
		e.k.owed = append(e.k.owed, r)
		w.owed = append(w.owed, r)
		return
	}
	w.kill(r)
}

// remove takes e off its key's sessions.
func (w *Sessions[K, A]) remove(e *sessionEntry[K, A]) {
	if i := slices.Index(e.k.list, e); i >= 0 {
		e.k.list = slices.Delete(e.k.list, i, i+1)
	}
}

// kill ends an entry that no list of its key holds any more.
func (w *Sessions[K, A]) kill(e *sessionEntry[K, A]) {
	w.touch(e)
	e.sessionValue = sessionValue[A]{cut: never}
	w.n--
	w.idle = append(w.idle, e.k)
}

// freeID is at, or the next number that no session of k has.
func (w *Sessions[K, A]) freeID(k *sessionKey[K, A], at int64) int64 {
	taken := func(e *sessionEntry[K, A]) bool { return e.id == at }
	for slices.ContainsFunc(k.list, taken) || slices.ContainsFunc(k.owed, taken) {
		at++
	}
	return at
}

func (w *Sessions[K, A]) entry(k *sessionKey[K, A], id int64) *sessionEntry[K, A] {
	if len(w.slab) == 0 {
		w.slab = make([]sessionEntry[K, A], 32)
	}
	e := &w.slab[0]
	w.slab = w.slab[1:]
	e.k, e.id, e.due, e.cut = k, id, never, never
	return e
}

// touch remembers what e was before the open transaction changed it.
func (w *Sessions[K, A]) touch(e *sessionEntry[K, A]) {
	if e.epoch == w.epoch {
		return
	}
	e.epoch, e.before, e.own = w.epoch, e.sessionValue, false
	w.dirty = append(w.dirty, e)
	w.t.touched = true
}

// own gives e a value that may be changed in place.
func (w *Sessions[K, A]) own(e *sessionEntry[K, A]) {
	w.touch(e)
	if !e.own {
		e.a, e.own = w.spec.Values.Clone(e.a), true
	}
}
