package streaming

import (
	"fmt"
	"time"
)

// A store without a local base keeps what is in use as cells, and what is at rest as bytes (packed): a worker remembers millions of keys of which it needs some thousands in
// a second, and each cell is several objects that the garbage collector marks again in every cycle. Between two transactions a clock's hand moves over the cells, encodes
// those that nobody has used since it passed last, and frees them. Who asks for a key at rest makes a cell of it again.

// restPolicy says what is at rest. Tests have some that rest sooner.
type restPolicy struct {
	keys int           // a store of fewer stays as it is
	pass int           // moves of the hand in which it comes round once
	each time.Duration // between two moves
	work int           // of a task in one move; a look at a cell is 1
	used bool          // what was used since the hand passed stays, too
}

// restNormally lets a key rest that was not used for two to four seconds.
var restNormally = restPolicy{keys: 1024, pass: 20, each: tickEvery, work: 40_000, used: true}

const (
	packWork = 16   // for encoding or moving a cell
	tidyWork = 2000 // for a page
)

// cells are those of a store, many in one piece of memory.
type cells[V any] struct {
	free   []*cell[V]
	slabs  [][]cell[V]
	filled int // cells of the last slab that are or were in use
	hand   int // the next cell that the clock's hand looks at
}

const pageCells = 64

func (x *cells[V]) take() *cell[V] {
	if n := len(x.free); n > 0 {
		c := x.free[n-1]
		x.free[n-1] = nil
		x.free = x.free[:n-1]
		return c
	}
	if len(x.slabs) == 0 || x.filled == pageCells {
		x.slabs, x.filled = append(x.slabs, make([]cell[V], pageCells)), 0
	}
	c := &x.slabs[len(x.slabs)-1][x.filled]
	x.filled++
	return c
}

func (x *cells[V]) give(c *cell[V]) {
	*c = cell[V]{}
	x.free = append(x.free, c)
}

func (x *cells[V]) size() int { return len(x.slabs) * pageCells }

func (x *cells[V]) at(i int) *cell[V] { return &x.slabs[i/pageCells][i%pageCells] }

// resting is what a store without a local base has besides.
type resting[V any] struct {
	cells[V]
	packed packed
	// Neither a map nor the cells' memory gets smaller when keys leave. Once most of it is empty the hand moves what is left into new ones as it comes by; until it has
	// come round a key may have its cell in the old map.
	old      map[string]*cell[V]
	oldCells cells[V]
	walks    []*restWalk // Ranges under way
}

// restWalk is a Range over what is at rest.
type restWalk struct {
	at    uint64              // places before it were shown
	shown map[string]struct{} // and have a cell since
}

// thaw makes the cell of a key that has none in base; nil when the key has no value.
func (s *Store[V]) thaw(key []byte) *cell[V] {
	r := s.rest
	if r.old != nil {
		if c := r.old[string(key)]; c != nil {
			return c
		}
	}
	value, place, ok := r.packed.get(key)
	if !ok {
		return nil
	}
	c := s.cell(string(key))
	c.now, c.live, c.used = s.unpack(value), true, true
	s.resize(c, len(value))
	for _, w := range r.walks {
		if place < w.at {
			w.shown[c.key] = struct{}{}
		}
	}
	r.packed.remove(key)
	return c
}

func (s *Store[V]) unpack(value []byte) V {
	v, err := s.codec.Decode(value)
	if err != nil {
		panic(fmt.Errorf("store %s: what it encoded it cannot decode: %w", s.s.Name, err)) // a codec that does not keep its promise
	}
	return v
}

// pack brings a key to rest, if there is room. Nothing may be dirty.
func (s *Store[V]) pack(c *cell[V]) bool {
	s.buf = s.codec.Append(s.buf[:0], c.now)
	_, ok := s.rest.packed.put(unsafeBytes(c.key), s.buf)
	if ok {
		s.forget(c)
	}
	return ok
}

// cool moves the hand on, with so much work to do at most; it gives what is left of that. It is called when nothing is dirty.
func (s *Store[V]) cool(p *restPolicy, work int) int {
	r := s.rest
	if r == nil || len(s.dirty) > 0 {
		return work
	}
	for work > 0 && r.packed.tidy() {
		work -= tidyWork
	}
	if r.old == nil && r.size() <= p.keys {
		return work
	}
	x := &r.cells
	if r.old != nil {
		x = &r.oldCells
	}
	for look := x.size()/p.pass + 1; look > 0 && work > 0; look-- {
		work--
		c := x.at(x.hand)
		switch {
		case !c.live:
		case s.live >= p.keys && (!c.used || !p.used) && s.pack(c):
			work -= packWork
		case r.old != nil:
			s.renew(c)
			work -= packWork
		default:
			c.used = false
		}
		if x.hand++; x.hand == x.size() {
			s.round(p)
			break
		}
	}
	return work
}

// renew moves a cell from the old ones to the new ones.
func (s *Store[V]) renew(c *cell[V]) {
	n := s.rest.take()
	*n = *c
	n.used = false
	delete(s.rest.old, c.key)
	s.base[n.key] = n
	*c = cell[V]{}
}

// round is called when the hand has come round.
func (s *Store[V]) round(p *restPolicy) {
	r := s.rest
	r.hand = 0
	if r.old != nil {
		r.old, r.oldCells = nil, cells[V]{}
	} else if r.size() > 4*(len(s.base)+p.keys) {
		r.old, r.oldCells = s.base, r.cells
		s.base, r.cells = map[string]*cell[V]{}, cells[V]{}
	}
}

// rangeResting shows what is at rest, then the cells. What f makes a cell of was shown, or is the cells' to show.
func (s *Store[V]) rangeResting(f func(key string, v V) bool) {
	r := s.rest
	w := &restWalk{shown: map[string]struct{}{}}
	r.walks = append(r.walks, w)
	defer func() { r.walks = r.walks[:len(r.walks)-1] }()
	goOn := r.packed.each(func(place uint64, key, value []byte) bool {
		w.at = place + 1
		return f(string(key), s.unpack(value))
	})
	for _, m := range [...]map[string]*cell[V]{r.old, s.base} {
		for k, c := range m {
			if !goOn {
				return
			}
			if _, shown := w.shown[k]; c.live && !shown {
				goOn = f(k, c.now)
			}
		}
	}
}

// loadResting is load of a store without a local base: what is restored is at rest.
func (s *Store[V]) loadResting(key, value []byte) error {
	r := s.rest
	c := s.held(key)
	if value == nil {
		if c != nil {
			s.forget(c)
			s.live--
		} else if r.packed.remove(key) {
			s.live--
		}
		return nil
	}
	if c == nil && s.live >= s.t.rest.keys {
		if _, err := s.codec.Decode(value); err != nil {
			return s.cannotDecode(err)
		}
		added, ok := r.packed.put(key, value)
		if r.packed.tidy(); ok {
			if added {
				s.live++
			}
			return nil
		}
	}
	if c == nil && r.packed.remove(key) {
		s.live--
	}
	return s.loadCell(c, key, value)
}

// cool brings to rest what nobody uses. It is called between two transactions.
func (t *Task) cool(now time.Time) {
	if d := now.Sub(t.cooled); d < t.rest.each && d >= 0 || t.local != nil {
		return
	}
	t.cooled = now
	work := t.rest.work
	for range t.tables { // where it had to stop the last time it goes on
		if c, ok := t.tables[t.coolNext%len(t.tables)].(cooler); ok {
			if work = c.cool(&t.rest, work); work <= 0 {
				return
			}
		}
		t.coolNext++
	}
}

// cooler is a table of which some may be at rest.
type cooler interface {
	cool(p *restPolicy, work int) (left int)
}
