package streaming

import (
	"container/heap"
	"fmt"
	"time"
)

// foldGrain passes the pending deltas of a grain on to the grains above it. Afterwards its totals are complete with regard to the
// grains below that were folded before.
func (w *Windows[K, A]) foldGrain(g int) error {
	l := &w.grains[g]
	for i, e := range l.fold {
		l.fold[i] = nil
		e.inFold = false
		if !e.live || !e.hasPending {
			continue // went away with its window, or with an aborted transaction
		}
		w.touch(e)
		for _, up := range w.parents[g] {
			start, end := w.spec.Grains[up].Window(e.key, e.p.start)
			if start > e.p.start || end < e.p.end {
				return fmt.Errorf("window %s [%d, %d) does not lie within one of %s: [%d, %d)", w.spec.Grains[g].Name, e.p.start, e.p.end, w.spec.Grains[up].Name, start, end)
			}
			w.spec.Values.Merge(w.delta(w.entry(up, start, end, e.key)), e.pending)
		}
		switch {
		case !e.hasBase:
			e.base, e.hasBase, e.ownBase = e.pending, true, true
		case e.ownBase:
			w.spec.Values.Merge(&e.base, e.pending)
		default:
			e.base = w.spec.Values.Clone(e.base)
			w.spec.Values.Merge(&e.base, e.pending)
			e.ownBase = true
		}
		var none A
		e.pending, e.hasPending = none, false
	}
	l.fold = l.fold[:0]
	return nil
}

// foldBelow folds every grain that is smaller than g.
func (w *Windows[K, A]) foldBelow(g int) error {
	for i := range g {
		if err := w.foldGrain(i); err != nil {
			return err
		}
	}
	return nil
}

// emit gives out an entry that has changed, as it was when its grain was folded last. What has come since is for the next time.
func (w *Windows[K, A]) emit(e *entry[K, A]) error {
	if e.inEmit = false; !e.live || !e.changed {
		return nil
	}
	if !e.hasBase { // an abort took back its only fold
		w.list(e)
		return nil
	}
	w.touch(e)
	e.changed = e.hasPending
	w.list(e)
	return w.spec.Emit(Window[K]{Key: e.key, Grain: e.p.grain, Start: e.p.start, End: e.p.end, Closed: e.p.end <= w.t.Watermark()}, e.base)
}

// tick folds what each grain is made of and emits what has changed in it. That is done piece by piece, one with each tick: emitting thousands of windows at once is what
// every record that comes then would wait for.
func (w *Windows[K, A]) tick(now time.Time) error {
	for g := range w.grains {
		l := &w.grains[g]
		if now.Sub(w.swept[g]) >= w.spec.EmitEvery {
			w.swept[g] = now
			if err := w.sweep(l, len(l.sweep)); err != nil { // ticks were rare
				return err
			}
			if err := w.foldBelow(g + 1); err != nil {
				return err
			}
			l.sweep, l.emit = l.emit, l.sweep[:0]
			l.piece = max(smallSweep, len(l.sweep)/max(1, int(w.spec.EmitEvery/tickEvery)-2)+1)
		}
		if err := w.sweep(l, min(l.piece, len(l.sweep))); err != nil {
			return err
		}
	}
	return nil
}

// smallSweep is as much as is emitted at once in any case.
const smallSweep = 64

// sweep emits the first n entries of the sweep under way.
func (w *Windows[K, A]) sweep(l *grainLists[K, A], n int) error {
	for _, e := range l.sweep[:n] {
		if e != nil {
			if err := w.emit(e); err != nil {
				return err
			}
		}
	}
	rest := copy(l.sweep, l.sweep[n:])
	clear(l.sweep[rest:])
	l.sweep = l.sweep[:rest]
	return nil
}

// advance closes the windows that the watermark has reached, smaller ones first, and releases those beyond lateness.
func (w *Windows[K, A]) advance(watermark int64) error {
	for w.closing.due(watermark) {
		w.moved = true
		p := heap.Pop(&w.closing).(*pane[K, A])
		if err := w.finish(p); err != nil {
			return err
		}
		w.warm = append(w.warm, p)
	}
	for w.expiring.due(watermark) {
		w.moved = true
		p := heap.Pop(&w.expiring).(*pane[K, A])
		if err := w.finish(p); err != nil { // corrections since the last sweep
			return err
		}
		w.release(p)
	}
	return nil
}

// finish emits what has changed in p.
func (w *Windows[K, A]) finish(p *pane[K, A]) error {
	if err := w.foldBelow(p.grain + 1); err != nil {
		return err
	}
	l := &w.grains[p.grain]
	for i, e := range l.sweep {
		if e != nil && e.p == p {
			l.sweep[i] = nil
			if err := w.emit(e); err != nil {
				return err
			}
		}
	}
	rest := l.emit[:0]
	for _, e := range l.emit {
		if e.p != p {
			rest = append(rest, e)
			continue
		}
		if err := w.emit(e); err != nil {
			return err
		}
	}
	clear(l.emit[len(rest):])
	l.emit = rest
	return nil
}

func (w *Windows[K, A]) release(p *pane[K, A]) {
	delete(w.panes, p.paneID)
	if w.last == p {
		w.last = nil
	}
	w.entries -= p.size()
	w.released = append(w.released, p)
	w.t.touched = true
}

// paneHeap orders panes by a time of theirs, then by grain, so that a window comes before those it is folded into.
type paneHeap[K comparable, A any] struct {
	p  []*pane[K, A]
	by func(*pane[K, A]) int64
}

func (h *paneHeap[K, A]) due(watermark int64) bool { return len(h.p) > 0 && h.by(h.p[0]) <= watermark }
func (h *paneHeap[K, A]) push(p *pane[K, A])       { heap.Push(h, p) }

// Len implements heap.Interface.
func (h *paneHeap[K, A]) Len() int { return len(h.p) }

// Less implements heap.Interface.
func (h *paneHeap[K, A]) Less(i, j int) bool {
	a, b := h.p[i], h.p[j]
	if x, y := h.by(a), h.by(b); x != y {
		return x < y
	}
	if a.grain != b.grain {
		return a.grain < b.grain
	}
	return a.start < b.start
}

// Swap implements heap.Interface.
func (h *paneHeap[K, A]) Swap(i, j int) { h.p[i], h.p[j] = h.p[j], h.p[i] }

// Push implements heap.Interface.
func (h *paneHeap[K, A]) Push(x any) { h.p = append(h.p, x.(*pane[K, A])) }

// Pop implements heap.Interface.
func (h *paneHeap[K, A]) Pop() any {
	x := h.p[len(h.p)-1]
	h.p[len(h.p)-1] = nil
	h.p = h.p[:len(h.p)-1]
	return x
}
