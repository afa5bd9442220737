package rules

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// State is what rules remember of one key. The zero State is that of a key never seen. It is not safe for concurrent use.
type State struct {
	cells []cell
	hits  []past
	Timer int64 // µs: for whoever keeps it, the time at which it is to be looked at; 0: none
}

// cell is what one rule remembers. Which parts it uses is its kind's affair.
type cell struct {
	id    uint32
	until int64 // µs: forgotten after it
	last  int64 // time of the newest event
	fired int64 // time of the last hit, 0: none
	mark  int64
	n     int64
	mean  float64
	dev   float64
	text  string
	head  int64 // number of the newest sub-bucket
	ring  []uint32
	marks []mark
}

// mark is a value seen.
type mark struct {
	hash uint64
	at   int64
}

// past is a rule that was met.
type past struct {
	id    uint32
	at    int64
	score float64
}

const (
	together   = 3600 * 1_000_000 // hits of a key within an hour are told together
	maxCells   = 64
	maxPast    = 8
	ringBins   = 12
	microsASec = 1_000_000
)

// cell gives that of an id, and makes it if there is none. It is valid until the next call.
func (s *State) cell(id uint32) *cell {
	for i := range s.cells {
		if s.cells[i].id == id {
			return &s.cells[i]
		}
	}
	if len(s.cells) >= maxCells { // only of many currencies: the one that was idle longest makes room
		oldest := 0
		for i := range s.cells {
			if s.cells[i].last < s.cells[oldest].last {
				oldest = i
			}
		}
		s.cells[oldest] = cell{id: id}
		return &s.cells[oldest]
	}
	s.cells = append(s.cells, cell{id: id})
	return &s.cells[len(s.cells)-1]
}

// Empty says that nothing is remembered.
func (s *State) Empty() bool { return len(s.cells) == 0 && len(s.hits) == 0 }

// Expire forgets what is over at a time and gives the time of the next thing that will be, 0 if nothing is left.
func (s *State) Expire(at int64) int64 {
	s.cells = slices.DeleteFunc(s.cells, func(c cell) bool { return c.until <= at })
	s.hits = slices.DeleteFunc(s.hits, func(h past) bool { return h.at+together <= at })
	next := int64(math.MaxInt64)
	for i := range s.cells {
		next = min(next, s.cells[i].until)
	}
	for _, h := range s.hits {
		next = min(next, h.at+together)
	}
	if next == math.MaxInt64 {
		return 0
	}
	return next
}

// Clone is a copy that shares nothing.
func (s *State) Clone() *State {
	out := &State{cells: slices.Clone(s.cells), hits: slices.Clone(s.hits), Timer: s.Timer}
	for i := range out.cells {
		c := &out.cells[i]
		c.ring, c.marks = slices.Clone(c.ring), slices.Clone(c.marks)
	}
	return out
}

// Append encodes a state.
func (s *State) Append(b []byte) []byte {
	b = binary.AppendVarint(b, s.Timer)
	b = binary.AppendUvarint(b, uint64(len(s.hits)))
	for _, h := range s.hits {
		b = binary.BigEndian.AppendUint32(b, h.id)
		b = binary.BigEndian.AppendUint64(binary.AppendVarint(b, h.at), math.Float64bits(h.score))
	}
	b = binary.AppendUvarint(b, uint64(len(s.cells)))
	for i := range s.cells {
		c := &s.cells[i]
		b = binary.BigEndian.AppendUint32(b, c.id)
		for _, v := range [...]int64{c.last, c.until - c.last, sub(c.last, c.fired), sub(c.last, c.mark), c.n} {
			b = binary.AppendVarint(b, v)
		}
		if c.mean == 0 && c.dev == 0 {
			b = append(b, 0)
		} else {
			b = append(b, 1)
			b = binary.BigEndian.AppendUint64(b, math.Float64bits(c.mean))
			b = binary.BigEndian.AppendUint64(b, math.Float64bits(c.dev))
		}
		b = append(binary.AppendUvarint(b, uint64(len(c.text))), c.text...)
		b = binary.AppendUvarint(b, uint64(len(c.ring)))
		if len(c.ring) > 0 {
			b = binary.AppendVarint(b, c.head)
		}
		for _, v := range c.ring {
			b = binary.AppendUvarint(b, uint64(v))
		}
		b = binary.AppendUvarint(b, uint64(len(c.marks)))
		for _, m := range c.marks {
			b = binary.BigEndian.AppendUint64(b, m.hash)
			b = binary.AppendVarint(b, c.last-m.at)
		}
	}
	return b
}

// sub writes a time as its distance from a later one, which is short; 0, for none, is kept as -1, which no time has.
func sub(last, at int64) int64 {
	if at == 0 {
		return -1
	}
	if d := last - at; d >= 0 {
		return d
	}
	return -2 - at // later than last: as it is
}

func unsub(last, v int64) int64 {
	switch {
	case v >= 0:
		return last - v
	case v == -1:
		return 0
	}
	return -2 - v
}

var errState = errors.New("a state of rules is cut off or corrupt")

// stateReader reads what Append wrote; after a problem it reads zeros.
type stateReader struct {
	b   []byte
	bad bool
}

func (r *stateReader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads a number of things that take at least each bytes.
func (r *stateReader) count(each int) int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > uint64(len(r.b)-n)/uint64(each) {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

func (r *stateReader) take(n int) []byte {
	if len(r.b) < n {
		r.b, r.bad = nil, true
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *stateReader) u32() uint32   { return binary.BigEndian.Uint32(r.take(4)) }
func (r *stateReader) u64() uint64   { return binary.BigEndian.Uint64(r.take(8)) }
func (r *stateReader) real() float64 { return math.Float64frombits(r.u64()) }

// DecodeState reads what Append wrote. It retains nothing of b.
func DecodeState(b []byte) (*State, error) {
	r := &stateReader{b: b}
	s := &State{Timer: r.int()}
	for range r.count(13) {
		s.hits = append(s.hits, past{id: r.u32(), at: r.int(), score: r.real()})
	}
	n := r.count(13)
	for i := 0; i < n && !r.bad; i++ {
		c := cell{id: r.u32(), last: r.int()}
		c.until = c.last + r.int()
		c.fired, c.mark, c.n = unsub(c.last, r.int()), unsub(c.last, r.int()), r.int()
		switch r.take(1)[0] {
		case 0:
		case 1:
			c.mean, c.dev = r.real(), r.real()
		default:
			r.bad = true
		}
		c.text = string(r.take(r.count(1)))
		if n := r.count(1); n > 0 {
			c.head = r.int()
			if n != ringBins {
				return nil, errState
			}
			c.ring = make([]uint32, n)
			for j := range c.ring {
				v, k := binary.Uvarint(r.b)
				if k <= 0 || v > math.MaxUint32 {
					return nil, errState
				}
				c.ring[j], r.b = uint32(v), r.b[k:]
			}
		}
		for range r.count(9) {
			h := r.u64()
			c.marks = append(c.marks, mark{h, c.last - r.int()})
		}
		s.cells = append(s.cells, c)
	}
	if r.bad || len(r.b) > 0 {
		return nil, errState
	}
	return s, nil
}
