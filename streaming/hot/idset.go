package hot

import (
	"cmp"
	"encoding/binary"
)

// id is a 128-bit fingerprint. Being a hash, it needs no further one: its high bits are where it belongs.
type id struct{ hi, lo uint64 }

const idBytes = 16

func idOf(b [idBytes]byte) id {
	return nonzero(id{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])})
}

// nonzero keeps the id that marks an empty slot out of the sets.
func nonzero(x id) id {
	if x == (id{}) {
		x.lo = 1
	}
	return x
}

func (x id) append(dst []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, x.hi), x.lo)
}

func compareIDs(a, b id) int {
	if c := cmp.Compare(a.hi, b.hi); c != 0 {
		return c
	}
	return cmp.Compare(a.lo, b.lo)
}

// idSet is a set of ids with open addressing and linear probing, at most 3/5 full. An id's home is given by its high bits, so that reading the slots in order
// gives the ids nearly sorted.
type idSet struct {
	slots []id
	n     int
	shift uint // of the high word to the home slot
}

const minSlots = 256

func newIDSet(expect int) *idSet {
	s := &idSet{}
	size := minSlots
	for size*3 < expect*5 {
		size *= 2
	}
	s.make(size)
	return s
}

func (s *idSet) make(size int) {
	s.slots, s.shift, s.n = make([]id, size), 64, 0
	for n := size; n > 1; n /= 2 {
		s.shift--
	}
}

func (s *idSet) home(x id) int { return int(x.hi >> s.shift) }

// find gives the slot of x, or the empty one where it would be put.
func (s *idSet) find(x id) (slot int, found bool) {
	mask := len(s.slots) - 1
	for i := s.home(x); ; i = (i + 1) & mask {
		switch s.slots[i] {
		case x:
			return i, true
		case id{}:
			return i, false
		}
	}
}

// add adds an id that is not in the set; slot is what find gave.
func (s *idSet) add(x id, slot int) {
	s.slots[slot] = x
	s.n++
	if s.n*5 > len(s.slots)*3 {
		old := s.slots
		s.make(2 * len(old))
		for _, y := range old {
			if y != (id{}) {
				i, _ := s.find(y)
				s.slots[i] = y
				s.n++
			}
		}
	}
}

// remove removes an id, and moves back those that were displaced by it (Knuth, The Art of Computer Programming 3, algorithm 6.4 R).
func (s *idSet) remove(x id) {
	hole, found := s.find(x)
	if !found {
		return
	}
	s.n--
	mask := len(s.slots) - 1
	for i := (hole + 1) & mask; s.slots[i] != (id{}); i = (i + 1) & mask {
		if fromHome := (i - s.home(s.slots[i])) & mask; fromHome >= (i-hole)&mask {
			s.slots[hole] = s.slots[i]
			hole = i
		}
	}
	s.slots[hole] = id{}
}

// sorted lists the ids in order. What lies before its place lies so within its cluster, so that the insertion sort moves each id by a few places only.
func (s *idSet) sorted() []id {
	out := make([]id, 0, s.n)
	var wrapped []id // at the front of the slots, but belonging to their end
	first := true
	for i, x := range s.slots {
		switch {
		case x == (id{}):
			first = false
		case first && s.home(x) > i:
			wrapped = append(wrapped, x)
		default:
			out = append(out, x)
		}
	}
	out = append(out, wrapped...)
	for i := 1; i < len(out); i++ {
		x, j := out[i], i
		for ; j > 0 && compareIDs(x, out[j-1]) < 0; j-- {
			out[j] = out[j-1]
		}
		out[j] = x
	}
	return out
}
