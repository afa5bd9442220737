package streaming

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// A slice's entry in the changelog: key = time of start ‖ key, value = u8 flags ‖ varint late, if flagged ‖ value.
const (
	flagFresh = 1 << iota
	flagLate
)

func (w *Hopping[K, A]) store() StoreSpec { return w.s }

func (w *Hopping[K, A]) size() int { return w.n }

func (w *Hopping[K, A]) flush(put func(key, value []byte)) error {
	for _, s := range w.dirty {
		if !s.live && !s.before.live {
			continue // came and went within the transaction
		}
		w.buf = w.spec.Keys.Append(appendTime(w.buf[:0], s.start), s.k.key)
		at := len(w.buf)
		if !s.live {
			put(w.buf, nil)
			continue
		}
		var flags byte
		if s.fresh {
			flags |= flagFresh
		}
		if s.late != never {
			flags |= flagLate
		}
		w.buf = append(w.buf, flags)
		if s.late != never {
			w.buf = binary.AppendVarint(w.buf, s.late)
		}
		w.buf = w.spec.Values.Append(w.buf, s.a)
		put(w.buf[:at:at], w.buf[at:])
	}
	return nil
}

func (w *Hopping[K, A]) load(k, v []byte) error {
	if len(k) < 8 {
		return fmt.Errorf("hopping window key %x of store %s", k, w.s.Name)
	}
	start := timeOf(string(k[:8]))
	if start != floorTo(start, w.step) || start > farTime || start < -farTime {
		return fmt.Errorf("store %s has a slice at %d, which size %s and slide %s do not have", w.s.Name, start, w.spec.Size, w.spec.Slide)
	}
	key, err := w.spec.Keys.Decode(k[8:])
	if err != nil {
		return fmt.Errorf("decoding a window key of store %s: %w", w.s.Name, err)
	}
	if v == nil {
		if x := w.keys[key]; x != nil {
			if i, ok := x.find(start); ok {
				x.slices[i].hopValue = hopValue[A]{late: never} // restored sweeps it away
			}
		}
		return nil
	}
	val, err := w.decode(v)
	if err != nil {
		return fmt.Errorf("decoding a hopping window of store %s: %w", w.s.Name, err)
	}
	w.slice(key, start).hopValue = val
	return nil
}

func (w *Hopping[K, A]) decode(v []byte) (val hopValue[A], err error) {
	if len(v) == 0 {
		return val, errors.New("cut off")
	}
	val = hopValue[A]{live: true, fresh: v[0]&flagFresh != 0, late: never}
	rest := v[1:]
	if v[0]&flagLate != 0 {
		at, n := binary.Varint(rest)
		if n <= 0 {
			return val, errors.New("cut off")
		}
		val.late, rest = at, rest[n:]
	}
	val.a, err = w.spec.Values.Decode(rest)
	return val, err
}

func (w *Hopping[K, A]) restored() {
	w.rebuild()
	w.end()
	w.swept = w.t.stagger(w.spec.EmitEvery, 0)
}

// rebuild makes everything that is derived from the slices and the watermark: after a restore, and after an abort.
func (w *Hopping[K, A]) rebuild() {
	old := slices.Concat(slices.Collect(maps.Values(w.panes)), w.dropped)
	slices.SortFunc(old, func(a, b *hopPane[K, A]) int { return int(min(1, max(-1, a.start-b.start))) })
	w.keys, w.panes, w.closings = map[K]*hopKey[K, A]{}, map[int64]*hopPane[K, A]{}, map[int64][]*hopKey[K, A]{}
	w.expiring, w.ends, w.n, w.mark, w.lateDue = nil, nil, 0, w.t.Watermark(), never
	for _, p := range old {
		for _, s := range p.slices {
			if !s.live {
				continue
			}
			k := w.keys[s.k.key]
			if k == nil {
				k = &hopKey[K, A]{key: s.k.key, due: never}
				w.keys[k.key] = k
			}
			s.k = k
			w.n++
			w.place(s, len(k.slices))
			w.list(s)
			if s.late != never {
				w.lateDue = noTime // at the next watermark, which may be early
			}
		}
	}
}

func (w *Hopping[K, A]) commit() {
	var none hopValue[A]
	for i, s := range w.dirty {
		s.before, w.dirty[i] = none, nil
	}
	w.end()
	w.counted.OnTime += w.count.OnTime
	w.counted.Late += w.count.Late
	w.counted.Dropped += w.count.Dropped
	w.count = WindowCounts{}
}

func (w *Hopping[K, A]) abort() {
	w.count = WindowCounts{}
	if len(w.dirty) == 0 && !w.moved {
		w.mark = w.t.Watermark()
		return
	}
	var none hopValue[A]
	for i, s := range w.dirty {
		s.hopValue, s.before, w.dirty[i] = s.before, none, nil
	}
	w.rebuild()
	w.end()
}

func (w *Hopping[K, A]) end() {
	clear(w.dirty)
	clear(w.dropped)
	w.dirty, w.dropped, w.moved = w.dirty[:0], w.dropped[:0], false
	w.epoch++
}
