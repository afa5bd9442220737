package agg

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/axiomhq/hyperloglog"
	"github.com/zeebo/xxh3"
)

// DefaultExact is the bound of an exact set of a DistinctAgg without one: as large as a full sketch, 16 KiB.
const DefaultExact = 2048

const maxExact = 1 << 20

// Distinct counts different values: exactly, by their 64-bit hashes, up to the bound of its DistinctAgg, by HyperLogLog with 2^14
// registers above it (standard error 0.8 %). What it holds, and its bytes, depend on the set of values only. It is made by
// DistinctAgg.New.
type Distinct struct {
	bound  int
	exact  []uint64 // sorted; nil once there is a sketch
	sketch *hyperloglog.Sketch
}

// Add takes a value in.
func (d *Distinct) Add(v string) { d.AddHash(xxh3.HashString(v)) }

// AddBytes takes a value in; it is the same value as the string of these bytes.
func (d *Distinct) AddBytes(v []byte) { d.AddHash(xxh3.Hash(v)) }

// AddHash takes in a value by its hash, which must be uniform over 64 bits.
func (d *Distinct) AddHash(h uint64) {
	if d.sketch != nil {
		d.sketch.InsertHash(h)
		return
	}
	i, found := slices.BinarySearch(d.exact, h)
	if found {
		return
	}
	if d.exact == nil {
		d.exact = make([]uint64, 0, 4) // most sets are of one slice, and small
	}
	d.exact = slices.Insert(d.exact, i, h)
	d.check()
}

// check turns an exact set beyond its bound into a sketch.
func (d *Distinct) check() {
	if len(d.exact) <= d.bound {
		return
	}
	d.sketch = hyperloglog.New14()
	for _, h := range d.exact {
		d.sketch.InsertHash(h)
	}
	d.exact = nil
}

// Count is the number of different values.
func (d *Distinct) Count() int64 {
	if d.sketch != nil {
		return int64(d.sketch.Estimate())
	}
	return int64(len(d.exact))
}

// Exact tells whether Count is exact.
func (d *Distinct) Exact() bool { return d.sketch == nil }

// DistinctAgg handles Distincts. Bound is how many values are counted exactly (0: DefaultExact; at most 2^20); it may only grow from
// version to version of a store.
type DistinctAgg struct{ Bound int }

func (x DistinctAgg) bound() int {
	if x.Bound <= 0 {
		return DefaultExact
	}
	return min(x.Bound, maxExact)
}

// New is empty.
func (x DistinctAgg) New() *Distinct { return &Distinct{bound: x.bound()} }

// Clone shares no memory with a.
func (DistinctAgg) Clone(a *Distinct) *Distinct {
	c := &Distinct{bound: a.bound, exact: slices.Clone(a.exact)}
	if a.sketch != nil {
		c.sketch = a.sketch.Clone()
	}
	return c
}

// Merge takes delta's values in.
func (DistinctAgg) Merge(into **Distinct, delta *Distinct) {
	d := *into
	switch {
	case delta.sketch != nil && d.sketch != nil:
		if err := d.sketch.Merge(delta.sketch); err != nil {
			panic(err) // sketches of unequal precision: all are of New14
		}
	case delta.sketch != nil:
		small := d.exact
		d.exact, d.sketch = nil, delta.sketch.Clone()
		for _, h := range small {
			d.sketch.InsertHash(h)
		}
	case d.sketch != nil || len(delta.exact) <= 4:
		for _, h := range delta.exact {
			d.AddHash(h)
		}
	default:
		d.exact = union(d.exact, delta.exact)
		d.check()
	}
}

func union(a, b []uint64) []uint64 {
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

// Append writes the hashes, or the sketch in the library's own versioned format, in its canonical form.
func (DistinctAgg) Append(dst []byte, a *Distinct) []byte {
	if a.sketch != nil {
		a.sketch.Estimate() // a sparse sketch's bytes depend on the order of insertions until they are compacted
		out, err := a.sketch.AppendBinary(append(dst, version, 1))
		if err != nil {
			panic(err) // of an invalid precision only
		}
		return out
	}
	dst = binary.AppendUvarint(append(dst, version, 0), uint64(len(a.exact)))
	for _, h := range a.exact {
		dst = binary.LittleEndian.AppendUint64(dst, h)
	}
	return dst
}

// Decode reads what Append wrote.
func (x DistinctAgg) Decode(src []byte) (*Distinct, error) {
	r := read("a set of distinct values", src)
	d := x.New()
	switch kind := r.bytes(1); {
	case kind == nil:
	case kind[0] == 1:
		if len(r.b) < 2 || r.b[1] != 14 { // a precision that would not merge
			r.fail("a sketch of another precision")
			break
		}
		d.sketch = hyperloglog.New14()
		if err := d.sketch.UnmarshalBinary(r.b); err != nil {
			return nil, fmt.Errorf("%w: a sketch: %w", ErrEncoding, err)
		}
		r.b = nil
	case kind[0] == 0:
		n := r.length(8)
		d.exact = make([]uint64, n)
		for i, b := 0, r.bytes(8*n); i < n; i++ {
			d.exact[i] = binary.LittleEndian.Uint64(b[8*i:])
			if i > 0 && d.exact[i] <= d.exact[i-1] {
				r.fail("hashes out of order")
				break
			}
		}
		d.check()
	default:
		r.fail("a set of kind %d", kind[0])
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return d, nil
}
