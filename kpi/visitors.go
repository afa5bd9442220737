package kpi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/axiomhq/hyperloglog"
	"github.com/zeebo/xxh3"
)

// ExactVisitors is how many distinct visitors are counted exactly. Above it they are estimated by HyperLogLog with 2^14 registers (Flajolet et al. 2007, with
// Ertl's bias correction; sparse at first, as in Heule et al. 2013): standard error 0.8 %, and well below 0.1 % up to some 6,000. An exact set of this size is as large as
// a full sketch: 16 KiB.
const ExactVisitors = 2048

// VisitorSet is a set of distinct visitors that can be merged: exact while it is small, a sketch when it is large. What it counts, and the bytes it is written as,
// depend on the set of visitors only, not on the order or the grouping in which they came. The zero value is empty.
type VisitorSet struct {
	exact  []uint64 // sorted hashes; nil once there is a sketch
	sketch *hyperloglog.Sketch
}

// Add adds a visitor by its id.
func (s *VisitorSet) Add(visitorID string) { s.add(xxh3.HashString(visitorID)) }

func (s *VisitorSet) add(h uint64) {
	if s.sketch != nil {
		s.sketch.InsertHash(h)
		return
	}
	i, found := slices.BinarySearch(s.exact, h)
	if found {
		return
	}
	if s.exact == nil {
		s.exact = make([]uint64, 0, 4) // most sets are of one second, and small
	}
	s.exact = slices.Insert(s.exact, i, h)
	s.bound()
}

// bound turns an exact set that has become too large into a sketch.
func (s *VisitorSet) bound() {
	if len(s.exact) <= ExactVisitors {
		return
	}
	s.sketch = hyperloglog.New14()
	for _, h := range s.exact {
		s.sketch.InsertHash(h)
	}
	s.exact = nil
}

// Merge adds the visitors of o, which is not changed and shares no memory with s afterwards.
func (s *VisitorSet) Merge(o *VisitorSet) error {
	switch {
	case o.sketch != nil && s.sketch != nil:
		return s.sketch.Merge(o.sketch)
	case o.sketch != nil:
		small := s.exact
		s.exact, s.sketch = nil, o.sketch.Clone()
		for _, h := range small {
			s.sketch.InsertHash(h)
		}
	case s.sketch != nil:
		for _, h := range o.exact {
			s.sketch.InsertHash(h)
		}
	case len(o.exact) <= 4: // most deltas: one visitor
		for _, h := range o.exact {
			s.add(h)
		}
	default:
		s.exact = mergeSorted(s.exact, o.exact)
		s.bound()
	}
	return nil
}

func mergeSorted(a, b []uint64) []uint64 {
	out := make([]uint64, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] < b[0]:
			out, a = append(out, a[0]), a[1:]
		case a[0] > b[0]:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// Clone is a copy that shares no memory with s.
func (s *VisitorSet) Clone() VisitorSet {
	if s.sketch != nil {
		return VisitorSet{sketch: s.sketch.Clone()}
	}
	return VisitorSet{exact: slices.Clone(s.exact)}
}

// Count is the number of distinct visitors: exact up to ExactVisitors, the sketch's estimate above.
func (s *VisitorSet) Count() int64 {
	if s.sketch != nil {
		return int64(s.sketch.Estimate())
	}
	return int64(len(s.exact))
}

// AppendSketch writes the set as a sketch in the wire format of github.com/axiomhq/hyperloglog (version 2, precision 14), in a canonical form; an empty set is no
// bytes. This is the column visitors_sketch, which MergeSketches reads.
func (s *VisitorSet) AppendSketch(dst []byte) ([]byte, error) {
	switch {
	case s.sketch != nil:
		s.sketch.Estimate() // makes the form canonical: a sketch's own bytes depend on the order of its insertions until they are compacted
		out, err := s.sketch.AppendBinary(dst)
		if err != nil {
			return dst, fmt.Errorf("encoding a visitor sketch: %w", err)
		}
		return out, nil
	case len(s.exact) == 0:
		return dst, nil
	}
	// A sparse sketch is a sorted list of 25-bit register numbers, doubled. Where the low 11 bits of a register number are zero, which is one in 2,048, the key has the
	// number of leading zeros that follow as well, and another place in the order. Writing it from the hashes is 20 times cheaper than making a sketch first,
	// and this runs for every row that is emitted.
	var few [8]uint32
	long := few[:0]
	for _, h := range s.exact {
		if h>>39&0x7ff == 0 {
			long = append(long, uint32(h>>39)<<7|uint32(bits.LeadingZeros64(h<<25|(1<<25-1))+1)<<1|1)
		}
	}
	slices.Sort(long)
	head := len(dst)
	dst = append(dst, 2, 14, 0, 1, 0, 0, 0, 0) // version, precision, bias, sparse, no keys outside of the list
	dst = append(dst, make([]byte, 12)...)     // count, last key, size of the list
	var count, last uint32
	put := func(k uint32) {
		if k == last && count > 0 { // two visitors of one register
			return
		}
		dst = binary.AppendUvarint(dst, uint64(k-last))
		last = k
		count++
	}
	for _, h := range s.exact {
		if h>>39&0x7ff == 0 {
			continue
		}
		k := uint32(h>>39) << 1
		for len(long) > 0 && long[0] < k {
			put(long[0])
			long = long[1:]
		}
		put(k)
	}
	for _, k := range long {
		put(k)
	}
	binary.BigEndian.PutUint32(dst[head+8:], count)
	binary.BigEndian.PutUint32(dst[head+12:], last)
	binary.BigEndian.PutUint32(dst[head+16:], uint32(len(dst)-head-20))
	return dst, nil
}

// MergeSketches counts the distinct visitors of several rows' visitors_sketch together.
func MergeSketches(sketches ...[]byte) (int64, error) {
	var all, one hyperloglog.Sketch
	for _, b := range sketches {
		if len(b) == 0 {
			continue
		}
		if err := one.UnmarshalBinary(b); err != nil {
			return 0, fmt.Errorf("reading a visitor sketch: %w", err)
		}
		if err := all.Merge(&one); err != nil {
			return 0, fmt.Errorf("merging visitor sketches: %w", err)
		}
	}
	return int64(all.Estimate()), nil
}

// append writes the set so that decode gives it back whole: the number of hashes and the hashes, or ExactVisitors+1 and the sketch.
func (s *VisitorSet) append(dst []byte) []byte {
	if s.sketch != nil {
		dst = binary.AppendUvarint(dst, ExactVisitors+1)
		out, err := s.AppendSketch(dst)
		if err != nil {
			panic(err) // a sketch made by New14 has a valid precision, the only error there is
		}
		return out
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.exact)))
	for _, h := range s.exact {
		dst = binary.LittleEndian.AppendUint64(dst, h)
	}
	return dst
}

var errVisitors = errors.New("not a set of visitors")

func (s *VisitorSet) decode(src []byte) error {
	n, k := binary.Uvarint(src)
	if k <= 0 || n > ExactVisitors+1 {
		return errVisitors
	}
	src = src[k:]
	if n == ExactVisitors+1 {
		sk := hyperloglog.New14()
		if err := sk.UnmarshalBinary(src); err != nil {
			return fmt.Errorf("%w: %w", errVisitors, err)
		}
		*s = VisitorSet{sketch: sk}
		return nil
	}
	if uint64(len(src)) != 8*n {
		return errVisitors
	}
	*s = VisitorSet{}
	if n > 0 {
		s.exact = make([]uint64, n)
	}
	for i := range s.exact {
		s.exact[i] = binary.LittleEndian.Uint64(src[8*i:])
		if i > 0 && s.exact[i] <= s.exact[i-1] {
			return errVisitors
		}
	}
	return nil
}
