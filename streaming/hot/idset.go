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

// idSet is a set of ids: parts by their high bits, so that no more than a part is moved at a time as it grows (doubling the set of a busy task in one piece took 200 ms, in which
// everything waited).
type idSet struct {
	parts [idParts]idPart
	n     int
}

// idPart is a set of ids with open addressing and linear probing, at most 3/5 full. An id's home is given by its high bits, so that reading the slots in order gives the
// ids nearly sorted.
type idPart struct {
	slots []id
	n     int
	shift uint // of the high word, without the bits of the part, to the home slot
}

const (
	idPartBits = 8
	idParts    = 1 << idPartBits
	minSlots   = 8
)

func newIDSet(expect int) *idSet {
	s := &idSet{}
	if expect /= idParts; expect > 0 {
		size := minSlots
		for size*3 < expect*5 {
			size *= 2
		}
		for i := range s.parts {
			s.parts[i].make(size)
		}
	}
	return s
}

func (s *idSet) part(x id) *idPart { return &s.parts[x.hi>>(64-idPartBits)] }

// find gives the slot of x, or the empty one where it would be put.
func (s *idSet) find(x id) (slot int, found bool) { return s.part(x).find(x) }

// add adds an id that is not in the set; slot is what find gave.
func (s *idSet) add(x id, slot int) {
	s.part(x).add(x, slot)
	s.n++
}

// remove removes an id.
func (s *idSet) remove(x id) {
	if s.part(x).remove(x) {
		s.n--
	}
}

// sorted lists the ids in order.
func (s *idSet) sorted() []id {
	out := make([]id, 0, s.n)
	for i := range s.parts {
		out = s.parts[i].appendSorted(out)
	}
	return out
}

// bytes is what the slots take.
func (s *idSet) bytes() (n int) {
	for i := range s.parts {
		n += len(s.parts[i].slots) * idBytes
	}
	return n
}

func (s *idPart) make(size int) {
	s.slots, s.shift, s.n = make([]id, size), 64, 0
	for n := size; n > 1; n /= 2 {
		s.shift--
	}
}

func (s *idPart) home(x id) int { return int(x.hi << idPartBits >> s.shift) }

func (s *idPart) find(x id) (slot int, found bool) {
	if len(s.slots) == 0 {
		return 0, false
	}
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

func (s *idPart) add(x id, slot int) {
	if len(s.slots) == 0 {
		s.make(minSlots)
		slot = s.home(x)
	}
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

// remove moves back those that were displaced by x (Knuth, The Art of Computer Programming 3, algorithm 6.4 R).
func (s *idPart) remove(x id) bool {
	hole, found := s.find(x)
	if !found {
		return false
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
	return true
}

// appendSorted lists the ids in order. What lies before its place lies so within its cluster, so that the insertion sort moves each id by a few places only.
func (s *idPart) appendSorted(all []id) []id {
	from := len(all)
	var wrapped []id // at the front of the slots, but belonging to their end
	first := true
	for i, x := range s.slots {
		switch {
		case x == (id{}):
			first = false
		case first && s.home(x) > i:
			wrapped = append(wrapped, x)
		default:
			all = append(all, x)
		}
	}
	all = append(all, wrapped...)
	out := all[from:]
	for i := 1; i < len(out); i++ {
		x, j := out[i], i
		for ; j > 0 && compareIDs(x, out[j-1]) < 0; j-- {
			out[j] = out[j-1]
		}
		out[j] = x
	}
	return all
}
