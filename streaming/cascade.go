package streaming

import (
	"container/heap"
	"fmt"
	"time"
)

// fold passes the pending delta of e on to the grains above it. Afterwards its base is its total with regard to the grains below that were folded before.
func (w *Windows[K, A]) fold(e *entry[K, A]) error {
	for _, up := range w.parents[e.p.grain] {
		start, end := w.spec.Grains[up].Window(e.key, e.p.start)
		if start > e.p.start || end < e.p.end {
			return fmt.Errorf("window %s [%d, %d) does not lie within one of %s: [%d, %d)", w.spec.Grains[e.p.grain].Name, e.p.start, e.p.end, w.spec.Grains[up].Name, start, end)
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
	return nil
}

// emit folds and gives out an entry that has changed.
func (w *Windows[K, A]) emit(e *entry[K, A]) error {
	e.listed = false
	if !e.live || !e.due() {
		return nil // went away with its window or with an aborted transaction
	}
	w.touch(e)
	if e.hasPending {
		if err := w.fold(e); err != nil {
			return err
		}
	}
	e.changed = false
	return w.spec.Emit(Window[K]{Key: e.key, Grain: e.p.grain, Start: e.p.start, End: e.p.end, Closed: e.p.end <= w.t.Watermark()}, e.base)
}

// maxTurns is in how many pieces the keys are dealt with at most.
const maxTurns = 16

// tick folds and emits what has changed. A key has its turn once per EmitEvery, with all its windows, smaller ones first; the turns of the
// keys are spread over that time: folding and emitting thousands of windows at once is what every record that comes then would wait for.
func (w *Windows[K, A]) tick(now time.Time) error {
	turns := int64(w.turns)
	upTo := int64(now.Sub(w.origin) / (w.spec.EmitEvery / time.Duration(turns)))
	for i := max(w.turn, upTo-turns); i < upTo; i++ { // less if ticks were rare
		for g := range w.changed {
			if err := w.emitAll(&w.changed[g][i%turns], func(e *entry[K, A]) bool { return !w.spec.ClosedOnly || e.p.end <= w.t.Watermark() }); err != nil {
				return err
			}
		}
	}
	w.turn = max(w.turn, upTo)
	return nil
}

// emitAll emits the entries of a list that are in question and leaves the others.
func (w *Windows[K, A]) emitAll(list *[]*entry[K, A], which func(*entry[K, A]) bool) error {
	rest := (*list)[:0]
	for _, e := range *list {
		if !which(e) {
			rest = append(rest, e)
		} else if err := w.emit(e); err != nil {
			return err
		}
	}
	clear((*list)[len(rest):])
	*list = rest
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

// finish folds and emits what has changed in p and in the smaller windows it is made of. Those are closed too.
func (w *Windows[K, A]) finish(p *pane[K, A]) error {
	for g := range p.grain + 1 {
		for i := range w.changed[g] {
			if err := w.emitAll(&w.changed[g][i], func(e *entry[K, A]) bool { return p.start <= e.p.start && e.p.end <= p.end }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *Windows[K, A]) release(p *pane[K, A]) {
	delete(w.panes, p.paneID)
	if w.last == p {
		w.last = nil
	}
	w.entries -= p.size()
	w.t.touched = true
	if p.made < w.epoch {
		w.released = append(w.released, p)
		return
	}
	for _, e := range p.keys { // it came and went within the transaction: nobody has to know of it, and a long one has many of those
		w.dirty[e.dirty] = nil
	}
	p.keys = nil
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
