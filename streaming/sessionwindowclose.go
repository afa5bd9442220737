package streaming

import (
	"cmp"
	"slices"
	"time"
)

// newPoint keeps an event by itself until Split may be asked about it.
func (w *Sessions[K, A]) newPoint(k *sessionKey[K, A], at, watermark int64) *sessionEntry[K, A] {
	p := w.entry(k, at)
	p.point = true
	w.touch(p)
	p.sessionValue = sessionValue[A]{start: at, last: at, cut: never, live: true, a: w.spec.Values.New()}
	p.own = true
	w.n++
	i := len(k.points)
	for i > 0 && k.points[i-1].id > at {
		i--
	}
	if i > 0 && k.points[i-1].id == at {
		p.seq = k.points[i-1].seq + 1
	}
	k.points = slices.Insert(k.points, i, p)
	if at < watermark {
		w.behind = p
	} else {
		w.push(p, at, 0)
	}
	return p
}

// placeBehind places the point that came behind the watermark. Its value was not there yet when it came; nothing has happened since.
func (w *Sessions[K, A]) placeBehind() {
	if p := w.behind; p != nil {
		w.behind = nil
		w.placePoints(p.k, p.id)
	}
}

// placePoints places k's points up to the given time.
func (w *Sessions[K, A]) placePoints(k *sessionKey[K, A], upto int64) {
	for len(k.points) > 0 && k.points[0].id <= upto {
		p := k.points[0]
		k.points[0] = nil
		k.points = k.points[1:]
		w.touch(p)
		w.join(k, w.around(k, p.id), p.id, &p.a)
		w.kill(p)
	}
}

// advance places the points that the watermark has passed, closes sessions, and releases those beyond lateness.
func (w *Sessions[K, A]) advance(watermark int64) error {
	w.placeBehind()
	for w.heap.due(watermark - 1) { // what lies at the watermark is not past
		at, e := w.heap.pop()
		switch {
		case !e.live || e.gone || e.due != at: // it has gone, or is in the heap at another time
			continue
		case e.point:
			w.placePoints(e.k, e.id)
			continue
		}
		e.due = never
		due := w.end(e)
		if e.told {
			due += w.lateness
		}
		switch {
		case due > at: // it has grown meanwhile
			w.push(e, due, 1)
		case !e.told:
			if err := w.emit(e); err != nil {
				return err
			}
			w.push(e, due+w.lateness, 1)
		default:
			if e.changed {
				if err := w.emit(e); err != nil {
					return err
				}
			}
			w.remove(e)
			w.kill(e)
		}
	}
	return nil
}

// emit gives out a session, after what it has absorbed.
func (w *Sessions[K, A]) emit(e *sessionEntry[K, A]) error {
	for len(e.k.owed) > 0 {
		if err := w.retract(e.k.owed[0]); err != nil {
			return err
		}
	}
	w.touch(e)
	e.emitted, e.changed, e.told = true, false, w.closed(e)
	return w.spec.Emit(w.view(e), e.a)
}

func (w *Sessions[K, A]) retract(e *sessionEntry[K, A]) error {
	view := w.view(e)
	w.touch(e)
	e.k.owed = slices.DeleteFunc(e.k.owed, func(x *sessionEntry[K, A]) bool { return x == e })
	w.kill(e)
	return w.spec.Emit(view, w.spec.Values.New())
}

func (w *Sessions[K, A]) tick(now time.Time) error {
	if now.Sub(w.swept) < w.spec.EmitEvery {
		return nil
	}
	w.swept = now
	w.placeBehind()
	for i, e := range w.owed {
		w.owed[i] = nil
		if e.live && e.gone {
			if err := w.retract(e); err != nil {
				return err
			}
		}
	}
	w.owed = w.owed[:0]
	for i, e := range w.changed {
		w.changed[i] = nil
		e.inList = false
		if e.live && !e.gone && e.changed {
			if err := w.emit(e); err != nil {
				return err
			}
		}
	}
	w.changed = w.changed[:0]
	return nil
}

// dueHeap is a heap of things by time; of equal times the lesser rank comes first.
type dueHeap[T any] []dueItem[T]

type dueItem[T any] struct {
	at   int64
	rank uint8
	v    T
}

func (h dueHeap[T]) due(at int64) bool { return len(h) > 0 && h[0].at <= at }

func (h dueHeap[T]) less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].at, h[j].at), cmp.Compare(h[i].rank, h[j].rank)) < 0
}

func (h *dueHeap[T]) push(at int64, rank uint8, v T) {
	*h = append(*h, dueItem[T]{at, rank, v})
	x := *h
	for i := len(x) - 1; i > 0; {
		up := (i - 1) / 2
		if !x.less(i, up) {
			return
		}
		x[i], x[up] = x[up], x[i]
		i = up
	}
}

func (h *dueHeap[T]) pop() (int64, T) {
	x := *h
	out, last := x[0], len(x)-1
	x[0], x[last] = x[last], dueItem[T]{}
	x = x[:last]
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(x); c++ {
			if x.less(c, least) {
				least = c
			}
		}
		if least == i {
			break
		}
		x[i], x[least] = x[least], x[i]
		i = least
	}
	*h = x
	return out.at, out.v
}
