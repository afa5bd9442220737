package streaming

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// An entry's key in the changelog is u8 kind ‖ time of id ‖ key of a session, and u8 kind ‖ time ‖ u32 seq ‖ key of a point. The value
// of a session is u8 flags ‖ varint start−id ‖ varint last−id ‖ varint cut−id, if flagged ‖ value; that of a point is the value.
const (
	kindSession = 0
	kindPoint   = 1

	flagCut       = 1 << 0
	flagGone      = 1 << 1
	flagEmitted   = 1 << 2
	flagTell      = 1 << 3
	flagTold      = 1 << 4
	sessionFlags  = flagCut | flagGone | flagEmitted | flagTell | flagTold
	sessionHead   = 9
	sessionPoint  = 13
	farthestPoint = 2 * farTime
)

func (w *Sessions[K, A]) store() StoreSpec { return w.s }

func (w *Sessions[K, A]) size() int { return w.n }

func (w *Sessions[K, A]) flush(put func(key, value []byte)) error {
	w.placeBehind()
	for _, e := range w.dirty {
		if !e.live && !e.before.live {
			continue // came and went within the transaction
		}
		kind := byte(kindSession)
		if e.point {
			kind = kindPoint
		}
		w.buf = appendTime(append(w.buf[:0], kind), e.id)
		if e.point {
			w.buf = binary.BigEndian.AppendUint32(w.buf, e.seq)
		}
		w.buf = w.spec.Keys.Append(w.buf, e.k.key)
		at := len(w.buf)
		if !e.live {
			put(w.buf, nil)
			continue
		}
		if !e.point {
			w.buf = e.appendHead(w.buf)
		}
		if !e.gone {
			w.buf = w.spec.Values.Append(w.buf, e.a)
		}
		put(w.buf[:at:at], w.buf[at:])
	}
	return nil
}

func (e *sessionEntry[K, A]) appendHead(b []byte) []byte {
	var flags byte
	for _, f := range [...]struct {
		on   bool
		flag byte
	}{{e.cut != never, flagCut}, {e.gone, flagGone}, {e.emitted, flagEmitted}, {e.changed, flagTell}, {e.told, flagTold}} {
		if f.on {
			flags |= f.flag
		}
	}
	b = binary.AppendVarint(binary.AppendVarint(append(b, flags), e.start-e.id), e.last-e.id)
	if e.cut != never {
		b = binary.AppendVarint(b, e.cut-e.id)
	}
	return b
}

func (w *Sessions[K, A]) load(kb, v []byte) error {
	head := sessionHead
	if len(kb) > 0 && kb[0] == kindPoint {
		head = sessionPoint
	}
	if len(kb) < head || kb[0] > kindPoint {
		return fmt.Errorf("session key %x of store %s", kb, w.s.Name)
	}
	key, err := w.spec.Keys.Decode(kb[head:])
	if err != nil {
		return fmt.Errorf("decoding a session key of store %s: %w", w.s.Name, err)
	}
	at := &sessionEntry[K, A]{id: timeOf(string(kb[1:9])), point: kb[0] == kindPoint}
	if at.point {
		at.seq = binary.BigEndian.Uint32(kb[9:])
	}
	if at.id > farthestPoint || at.id < -farthestPoint {
		return fmt.Errorf("store %s has a session at %d", w.s.Name, at.id)
	}
	k := w.keys[key]
	if k == nil {
		k = &sessionKey[K, A]{key: key}
		w.keys[key] = k
	}
	l := &k.list
	if at.point {
		l = &k.points
	}
	i := slices.IndexFunc(*l, func(e *sessionEntry[K, A]) bool { return e.id == at.id && e.seq == at.seq })
	if v == nil {
		if i >= 0 {
			*l = slices.Delete(*l, i, i+1)
		}
		return nil
	}
	var val sessionValue[A]
	if val, err = w.decode(at, v); err != nil {
		return fmt.Errorf("decoding a session of store %s: %w", w.s.Name, err)
	}
	if i < 0 {
		i = len(*l)
		e := w.entry(k, at.id)
		e.point, e.seq = at.point, at.seq
		*l = append(*l, e)
	}
	(*l)[i].sessionValue = val
	return nil
}

func (w *Sessions[K, A]) decode(e *sessionEntry[K, A], v []byte) (val sessionValue[A], err error) {
	val = sessionValue[A]{start: e.id, last: e.id, cut: never, live: true}
	if !e.point {
		if len(v) == 0 || v[0]&^sessionFlags != 0 {
			return val, errors.New("it has no flags that are known")
		}
		flags := v[0]
		v = v[1:]
		varint := func() int64 {
			d, n := binary.Varint(v)
			if n <= 0 || d > farthestPoint || d < -farthestPoint {
				err = errors.New("cut off")
				return 0
			}
			v = v[n:]
			return e.id + d
		}
		val.start, val.last = varint(), varint()
		if flags&flagCut != 0 {
			val.cut = varint()
		}
		if err == nil && (val.start > val.last || val.start < -farTime || val.last > farTime) {
			err = fmt.Errorf("it lasts from %d to %d", val.start, val.last)
		}
		val.gone, val.emitted, val.changed, val.told = flags&flagGone != 0, flags&flagEmitted != 0, flags&flagTell != 0, flags&flagTold != 0
	}
	if err == nil && !val.gone {
		val.a, err = w.spec.Values.Decode(v)
	}
	return val, err
}

func (w *Sessions[K, A]) restored() {
	w.heap, w.n = nil, 0
	for key, k := range w.keys {
		all := slices.Concat(k.list, k.points)
		if len(all) == 0 {
			delete(w.keys, key)
			continue
		}
		w.index(k, all)
		for _, e := range all {
			w.n++
			w.resume(e)
		}
	}
	w.swept = w.t.stagger(w.spec.EmitEvery, 0)
}

// index makes the lists of a key from those of its entries that are live.
func (w *Sessions[K, A]) index(k *sessionKey[K, A], all []*sessionEntry[K, A]) {
	k.list, k.points, k.owed = nil, nil, nil
	for _, e := range all {
		switch {
		case !e.live:
		case e.point:
			k.points = append(k.points, e)
		case e.gone:
			k.owed = append(k.owed, e)
		default:
			k.list = append(k.list, e)
		}
	}
	slices.SortFunc(k.list, func(a, b *sessionEntry[K, A]) int { return cmp.Compare(a.start, b.start) })
	slices.SortFunc(k.points, func(a, b *sessionEntry[K, A]) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.seq, b.seq))
	})
}

// resume puts a live entry where it waits for what comes next.
func (w *Sessions[K, A]) resume(e *sessionEntry[K, A]) {
	switch {
	case e.point:
		w.push(e, e.id, 0)
	case e.gone:
		w.owed = append(w.owed, e)
	default:
		e.due = never
		w.schedule(e)
		w.list(e)
	}
}

func (w *Sessions[K, A]) commit() {
	var none sessionValue[A]
	for i, e := range w.dirty {
		e.before, w.dirty[i] = none, nil
	}
	w.close()
	w.counted.OnTime += w.count.OnTime
	w.counted.Late += w.count.Late
	w.counted.Dropped += w.count.Dropped
	w.count = WindowCounts{}
}

// abort sets back what was changed, key by key.
func (w *Sessions[K, A]) abort() {
	w.behind, w.count = nil, WindowCounts{}
	touched := map[*sessionKey[K, A]][]*sessionEntry[K, A]{}
	var none sessionValue[A]
	for i, e := range w.dirty {
		if e.live != e.before.live {
			if e.live {
				w.n--
			} else {
				w.n++
			}
		}
		e.sessionValue, e.before, w.dirty[i] = e.before, none, nil
		touched[e.k] = append(touched[e.k], e)
	}
	for k, l := range touched {
		all := slices.Concat(k.list, k.points, k.owed)
		for _, e := range l {
			if !slices.Contains(all, e) {
				all = append(all, e)
			}
		}
		w.index(k, all)
		for _, e := range l {
			if e.live {
				w.resume(e)
			}
		}
		w.idle = append(w.idle, k)
	}
	w.close()
}

// close ends a transaction.
func (w *Sessions[K, A]) close() {
	for i, k := range w.idle {
		if len(k.list)+len(k.points)+len(k.owed) == 0 && w.keys[k.key] == k {
			delete(w.keys, k.key)
		}
		w.idle[i] = nil
	}
	w.dirty, w.idle = w.dirty[:0], w.idle[:0]
	w.epoch++
}
