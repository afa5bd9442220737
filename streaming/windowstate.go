package streaming

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
)

// A window's entry in the changelog: key = u8 grain ‖ time of start ‖ key, value = u8 flags ‖ varint length of the window in µs ‖
// uvarint length of base ‖ base ‖ pending.
const (
	flagBase    = 1 << iota // there is a base
	flagPending             // there is a pending delta
	flagChanged             // it has changed since it was emitted last
)

const keyAt = 9 // where the key begins in an entry's id

func (w *Windows[K, A]) store() StoreSpec { return w.s }

func (w *Windows[K, A]) size() int { return w.entries }

func (w *Windows[K, A]) flush(put func(key, value []byte)) error {
	for _, p := range w.released {
		for _, e := range p.keys {
			if e.epoch == w.epoch && !e.before.live {
				continue // came and went within the transaction
			}
			put(e.id, nil)
		}
		if err := p.eachCold(func(key, _ []byte) error {
			w.buf = append(appendTime(append(w.buf[:0], byte(p.grain)), p.start), key...)
			put(w.buf, nil)
			return nil
		}); err != nil {
			return err
		}
	}
	for _, e := range w.dirty {
		if e == nil || w.panes[e.p.paneID] != e.p {
			continue // released
		}
		w.buf = w.encode(w.buf[:0], e)
		put(e.id, w.buf)
	}
	return nil
}

func (w *Windows[K, A]) encode(b []byte, e *entry[K, A]) []byte {
	var flags byte
	if e.hasBase {
		flags |= flagBase
	}
	if e.hasPending {
		flags |= flagPending
	}
	if e.changed {
		flags |= flagChanged
	}
	b = binary.AppendVarint(append(b, flags), e.p.end-e.p.start)
	if e.hasBase {
		// the length goes before the base: room for it is made when it is known, most are below 128 bytes
		at := len(b)
		b = w.spec.Values.Append(append(b, 0), e.base)
		if n := len(b) - at - 1; n < 0x80 {
			b[at] = byte(n)
		} else {
			head := binary.AppendUvarint(nil, uint64(n))
			b = append(b, head[1:]...)
			copy(b[at+len(head):], b[at+1:at+1+n])
			copy(b[at:], head)
		}
	} else {
		b = append(b, 0)
	}
	if e.hasPending {
		b = w.spec.Values.Append(b, e.pending)
	}
	return b
}

func (w *Windows[K, A]) load(k, v []byte) error {
	if len(k) < keyAt || int(k[0]) >= len(w.changed) {
		return fmt.Errorf("window key %x of store %s", k, w.s.Name)
	}
	key, err := w.spec.Keys.Decode(k[keyAt:])
	if err != nil {
		return fmt.Errorf("decoding a window key of store %s: %w", w.s.Name, err)
	}
	grain, start := int(k[0]), timeOf(string(k[1:9]))
	if v == nil {
		// a tombstone does not say how long the window was
		for _, p := range w.loading[paneStart{grain, start}] {
			if e := p.keys[key]; e != nil {
				delete(p.keys, key)
				e.live = false
				w.entries--
			}
			if len(p.keys) == 0 {
				w.unload(p)
			}
		}
		return nil
	}
	length, val, err := w.decode(v)
	if err != nil {
		return fmt.Errorf("decoding a window of store %s: %w", w.s.Name, err)
	}
	known := len(w.panes)
	e := w.entry(grain, start, start+length, key)
	if len(w.panes) != known {
		at := paneStart{grain, start}
		w.loading[at] = append(w.loading[at], e.p)
	}
	e.value = val
	return nil
}

func (w *Windows[K, A]) decode(v []byte) (length int64, val value[A], err error) {
	cut := errors.New("cut off")
	if len(v) == 0 {
		return 0, val, cut
	}
	flags := v[0]
	length, n := binary.Varint(v[1:])
	if n <= 0 {
		return 0, val, cut
	}
	v = v[1+n:]
	size, n := binary.Uvarint(v)
	if n <= 0 || size > uint64(len(v)-n) {
		return 0, val, cut
	}
	base, pending := v[n:n+int(size)], v[n+int(size):]
	val.live, val.changed = true, flags&flagChanged != 0
	if flags&flagBase != 0 {
		if val.base, err = w.spec.Values.Decode(base); err != nil {
			return 0, val, err
		}
		val.hasBase = true
	}
	if flags&flagPending != 0 {
		if val.pending, err = w.spec.Values.Decode(pending); err != nil {
			return 0, val, err
		}
		val.hasPending = true
	}
	return length, val, nil
}

type paneStart struct {
	grain int
	start int64
}

func (w *Windows[K, A]) unload(p *pane[K, A]) {
	delete(w.panes, p.paneID)
	if w.last == p {
		w.last = nil
	}
	at := paneStart{p.grain, p.start}
	rest := w.loading[at][:0]
	for _, x := range w.loading[at] {
		if x != p {
			rest = append(rest, x)
		}
	}
	if w.loading[at] = rest; len(rest) == 0 {
		delete(w.loading, at)
	}
}

// restored builds the lists and heaps over what was loaded.
func (w *Windows[K, A]) restored() {
	w.loading, w.made = nil, nil
	w.epoch++ // what was loaded is of an earlier one
	w.reindex()
	for _, p := range w.panes {
		w.warm = append(w.warm, p)
		for _, e := range p.keys {
			w.list(e)
		}
	}
	w.origin = w.t.stagger(w.spec.EmitEvery, 0)
	w.freeze()
}

// reindex builds the heaps from the panes and the watermark. A pane that the watermark has reached closed when it did.
func (w *Windows[K, A]) reindex() {
	w.closing.p, w.expiring.p = w.closing.p[:0], w.expiring.p[:0]
	for _, p := range w.panes {
		if p.end > w.t.Watermark() {
			w.closing.p = append(w.closing.p, p)
		}
		w.expiring.p = append(w.expiring.p, p)
	}
	heap.Init(&w.closing)
	heap.Init(&w.expiring)
}

func (w *Windows[K, A]) commit() {
	var none value[A]
	for i, e := range w.dirty {
		if e != nil {
			e.before, w.dirty[i] = none, nil
		}
	}
	for _, p := range w.released {
		for _, e := range p.keys {
			e.value, e.id = none, nil // lists may still hold it
		}
	}
	w.end()
	w.freeze()
	w.counted.OnTime += w.count.OnTime
	w.counted.Late += w.count.Late
	w.counted.Dropped += w.count.Dropped
	w.count = WindowCounts{}
}

func (w *Windows[K, A]) abort() {
	for _, p := range w.released {
		w.panes[p.paneID] = p
		w.entries += p.size()
	}
	var none value[A]
	for i, e := range w.dirty {
		if e == nil {
			continue
		}
		e.value, e.before, w.dirty[i] = e.before, none, nil
		if e.live {
			w.list(e)
		} else {
			delete(e.p.keys, e.key)
			w.entries--
		}
	}
	made := w.made
	for _, p := range made {
		if p.size() == 0 {
			delete(w.panes, p.paneID)
		}
	}
	if w.moved || len(made) > 0 {
		w.reindex()
	}
	w.last = nil
	w.end()
	w.count = WindowCounts{}
}

func (w *Windows[K, A]) end() {
	clear(w.released)
	clear(w.made)
	w.dirty, w.released, w.made, w.moved = w.dirty[:0], w.released[:0], w.made[:0], false
	w.epoch++
}
