package streaming

import (
	"cmp"
	"container/heap"
	"slices"
	"time"
)

// folder folds a range of slices that only moves forward, by two stacks: front holds the folds of slices lo up to split, each from its
// slice to split, so the oldest leaves by a pop; back is the fold of split up to hi, so the newest comes by a merge. When front runs
// out, what is in the range is stacked anew. A slice is merged once into back and once into front, so a window costs O(1) merges on
// average, whatever it spans; nothing is ever subtracted, so any aggregate will do (Tangwongsan et al. 2021).
type folder[A any] struct {
	valid         bool
	lo, split, hi int
	front         []A
	back          A
	some          bool // back holds something
}

// foldSlices gives the fold of slices i up to j, at least one. It must neither be changed nor retained.
func foldSlices[K comparable, A any](f *folder[A], v Accumulator[A], s []*hopSlice[K, A], i, j int) A {
	if j == i+1 {
		return s[i].a
	}
	if !f.valid || i < f.lo || i >= f.hi || j < f.hi {
		f.reset(i)
	}
	for f.lo < i {
		if f.lo++; len(f.front) > 0 {
			f.pop()
		}
	}
	if len(f.front) == 0 {
		f.stack(func(at int) A { return s[at].a }, v, j)
		return f.front[len(f.front)-1]
	}
	for ; f.hi < j; f.hi++ {
		if !f.some {
			f.back, f.some = v.Clone(s[f.hi].a), true
		} else {
			v.Merge(&f.back, s[f.hi].a)
		}
	}
	top := f.front[len(f.front)-1]
	if !f.some {
		return top
	}
	out := v.Clone(top)
	v.Merge(&out, f.back)
	return out
}

func (f *folder[A]) pop() {
	var none A
	f.front[len(f.front)-1] = none
	f.front = f.front[:len(f.front)-1]
}

// stack fills front with everything from lo up to j.
func (f *folder[A]) stack(at func(int) A, v Accumulator[A], j int) {
	var none A
	f.split, f.hi, f.back, f.some = j, j, none, false
	f.front = append(f.front[:0], v.Clone(at(j-1)))
	for i := j - 2; i >= f.lo; i-- {
		a := v.Clone(at(i))
		v.Merge(&a, f.front[len(f.front)-1])
		f.front = append(f.front, a)
	}
}

func (f *folder[A]) reset(at int) {
	var none A
	clear(f.front)
	f.valid, f.lo, f.split, f.hi = true, at, at, at
	f.front, f.back, f.some = f.front[:0], none, false
}

// shift tells the folder that the slice 0 is gone.
func (f *folder[A]) shift() {
	if f.valid = f.valid && f.lo > 0; !f.valid {
		f.reset(0)
		f.valid = false
		return
	}
	f.lo, f.split, f.hi = f.lo-1, f.split-1, f.hi-1
}

// total folds k's window that ends at end; false if it holds nothing.
func (w *Hopping[K, A]) total(f *folder[A], k *hopKey[K, A], end int64) (a A, ok bool) {
	i, _ := k.find(end - w.length)
	j, _ := k.find(end)
	if i == j {
		return a, false
	}
	return foldSlices(f, w.spec.Values, k.slices, i, j), true
}

func (w *Hopping[K, A]) emit(k *hopKey[K, A], end int64, f *folder[A]) error {
	a, ok := w.total(f, k, end)
	if !ok {
		return nil
	}
	return w.spec.Emit(Window[K]{Key: k.key, Start: end - w.length, End: end, Closed: end <= w.t.Watermark()}, a)
}

// advance closes the windows that the watermark has reached, and releases the slices of which no window is within lateness.
func (w *Hopping[K, A]) advance(watermark int64) error {
	if watermark >= w.lateDue {
		if err := w.corrections(); err != nil {
			return err
		}
	}
	for w.ends.due(watermark) {
		end := w.ends.pop()
		w.moved = true
		keys := w.closings[end]
		delete(w.closings, end)
		for _, k := range keys {
			if k.due != end {
				continue // it has been given an earlier one, and was seen then
			}
			if err := w.emit(k, end, &k.fold); err != nil {
				return err
			}
			w.next(k, end)
		}
	}
	for len(w.expiring) > 0 && w.times(w.expiring[0]).lastEnd+w.lateness <= watermark {
		w.release(w.panes[w.expiring.pop()])
	}
	w.mark = watermark
	return nil
}

// next schedules k's first window after the one that ends at end.
func (w *Hopping[K, A]) next(k *hopKey[K, A], end int64) {
	k.due = never
	i, _ := k.find(end - w.length + w.slide) // the first slice of a window that ends later
	if i < len(k.slices) {
		s := k.slices[i]
		w.schedule(k, max(w.times(s.start).firstEnd, w.endAfter(end)), s)
	}
}

func (w *Hopping[K, A]) release(p *hopPane[K, A]) {
	w.moved = true
	delete(w.panes, p.start)
	w.dropped = append(w.dropped, p)
	for _, s := range p.slices {
		w.touch(s)
		k := s.k
		k.slices[0] = nil // it is the oldest
		k.slices = k.slices[1:]
		k.fold.shift()
		if len(k.slices) == 0 {
			delete(w.keys, k.key)
		}
		s.hopValue = hopValue[A]{late: never}
		w.n--
	}
}

func (w *Hopping[K, A]) tick(now time.Time) error {
	if now.Sub(w.swept) < w.spec.EmitEvery {
		return nil
	}
	w.swept = now
	if err := w.corrections(); err != nil || len(w.fresh) == 0 {
		return err
	}
	return w.sweep(&w.fresh, 0, func(s *hopSlice[K, A]) bool { s.fresh = false; return s.live }, func(s *hopSlice[K, A]) (int64, int64) {
		x := w.times(s.start)
		return max(x.firstEnd, w.endAfter(w.t.Watermark())), x.lastEnd
	})
}

// corrections emits the closed windows that late events have changed. None of them had expired at the watermark before this one: see lateDue.
func (w *Hopping[K, A]) corrections() error {
	if len(w.late) == 0 {
		return nil
	}
	w.lateDue = never
	told := map[*hopSlice[K, A]]int64{}
	return w.sweep(&w.late, 1, func(s *hopSlice[K, A]) bool {
		told[s], s.late = s.late, never
		return s.live
	}, func(s *hopSlice[K, A]) (int64, int64) {
		x := w.times(s.start)
		return max(x.firstEnd, w.endAfter(w.mark-w.lateness)), min(x.lastEnd, told[s])
	})
}

// sweep empties a list: per key, it emits each window between the bounds of one of its slices once.
func (w *Hopping[K, A]) sweep(list *[]*hopSlice[K, A], which int, take func(*hopSlice[K, A]) bool, bounds func(*hopSlice[K, A]) (first, last int64)) error {
	l := w.some[:0]
	for i, s := range *list {
		(*list)[i] = nil
		s.inList[which] = false
		if which == 0 && !s.fresh || which == 1 && s.late == never {
			continue // taken back by an abort, or gone
		}
		w.touch(s)
		if take(s) {
			l = append(l, s)
		}
	}
	*list = (*list)[:0]
	w.some = l
	err := w.eachKey(l, bounds)
	clear(w.some)
	return err
}

func (w *Hopping[K, A]) eachKey(l []*hopSlice[K, A], bounds func(*hopSlice[K, A]) (first, last int64)) error {
	by := map[*hopKey[K, A]][]*hopSlice[K, A]{}
	var order []*hopKey[K, A]
	for _, s := range l {
		if by[s.k] == nil {
			order = append(order, s.k)
		}
		by[s.k] = append(by[s.k], s)
	}
	for _, k := range order {
		told := int64(noTime) // up to here windows have been emitted
		w.scratch.reset(0)
		l := by[k]
		slices.SortFunc(l, func(a, b *hopSlice[K, A]) int { return cmp.Compare(a.start, b.start) })
		for _, s := range l {
			first, last := bounds(s)
			for end := max(first, w.endAfter(told)); end <= last; end += w.slide {
				if err := w.emit(k, end, &w.scratch); err != nil {
					return err
				}
				told = end
			}
		}
	}
	w.scratch.reset(0)
	return nil
}

// timeHeap is a heap of times.
type timeHeap []int64

func (h timeHeap) due(watermark int64) bool { return len(h) > 0 && h[0] <= watermark }
func (h *timeHeap) push(at int64)           { heap.Push(h, at) }
func (h *timeHeap) pop() int64              { return heap.Pop(h).(int64) }

// Len implements heap.Interface.
func (h timeHeap) Len() int { return len(h) }

// Less implements heap.Interface.
func (h timeHeap) Less(i, j int) bool { return h[i] < h[j] }

// Swap implements heap.Interface.
func (h timeHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *timeHeap) Push(x any) { *h = append(*h, x.(int64)) }

// Pop implements heap.Interface.
func (h *timeHeap) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}
