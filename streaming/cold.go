package streaming

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A closed window waits out its lateness, and hardly ever changes meanwhile: an hour of one-second windows would fill the memory with
// entries nobody asks for. So once it has nothing to fold, emit or commit, a closed pane goes cold: all its entries become one run of
// bytes (uvarint length ‖ key, uvarint length ‖ value as in the changelog). A late event warms it up again.

func (p *pane[K, A]) size() int {
	if p.cold != nil {
		return p.n
	}
	return len(p.keys)
}

// freeze cools the warm panes that are at rest. It is called when nothing is dirty.
func (w *Windows[K, A]) freeze() {
	rest := w.warm[:0]
	for _, p := range w.warm {
		switch {
		case w.panes[p.paneID] != p || p.cold != nil || p.end > w.t.Watermark():
			// released, there already, or an abort has opened it again
		case !p.atRest():
			rest = append(rest, p)
		default:
			w.cool(p)
		}
	}
	clear(w.warm[len(rest):])
	w.warm = rest
}

func (p *pane[K, A]) atRest() bool {
	for _, e := range p.keys {
		if e.due() {
			return false
		}
	}
	return true
}

func (w *Windows[K, A]) cool(p *pane[K, A]) {
	b := w.cold[:0]
	for _, e := range p.keys {
		b = binary.AppendUvarint(b, uint64(len(e.id)-keyAt))
		b = append(b, e.id[keyAt:]...)
		w.buf = w.encode(w.buf[:0], e)
		b = binary.AppendUvarint(b, uint64(len(w.buf)))
		b = append(b, w.buf...)
	}
	w.cold = b
	p.n, p.keys, p.cold = len(p.keys), nil, append(make([]byte, 0, len(b)), b...)
}

// eachCold calls f for every entry of a cold pane.
func (p *pane[K, A]) eachCold(f func(key, value []byte) error) error {
	next := func(b []byte) (v, rest []byte) {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return nil, nil
		}
		return b[k : k+int(n) : k+int(n)], b[k+int(n):]
	}
	for b := p.cold; len(b) > 0; {
		var key, val []byte
		key, b = next(b)
		if val, b = next(b); val == nil {
			return errors.New("a cold window is cut off")
		}
		if err := f(key, val); err != nil {
			return err
		}
	}
	return nil
}

// thaw brings the entries of a cold pane back. It changes nothing that commits or aborts.
func (w *Windows[K, A]) thaw(p *pane[K, A]) {
	p.keys = make(map[K]*entry[K, A], p.n)
	slab := make([]entry[K, A], p.n)
	err := p.eachCold(func(kb, vb []byte) error {
		key, err := w.spec.Keys.Decode(kb)
		if err != nil {
			return err
		}
		e := &slab[0]
		slab = slab[1:]
		e.p, e.key = p, key
		e.id = append(appendTime([]byte{byte(p.grain)}, p.start), kb...)
		e.turn = w.turnOf(e.id)
		if _, e.value, err = w.decode(vb); err != nil {
			return err
		}
		p.keys[key] = e
		return nil
	})
	if err != nil {
		panic(fmt.Errorf("store %s: what it encoded it cannot decode: %w", w.s.Name, err)) // a codec that does not keep its promise
	}
	p.cold, p.n = nil, 0
	w.warm = append(w.warm, p)
}
