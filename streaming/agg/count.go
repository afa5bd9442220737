package agg

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
)

// CountAgg counts: its values are plain integers of 0 or more, which stay at the largest int64 rather than overflow.
type CountAgg struct{}

// New is 0.
func (CountAgg) New() int64 { return 0 }

// Clone is a itself.
func (CountAgg) Clone(a int64) int64 { return a }

// Merge adds.
func (CountAgg) Merge(into *int64, delta int64) { *into = addCount(*into, delta) }

// Append writes a.
func (CountAgg) Append(dst []byte, a int64) []byte {
	return binary.AppendUvarint(append(dst, version), uint64(max(a, 0)))
}

// Decode reads what Append wrote.
func (CountAgg) Decode(src []byte) (int64, error) {
	r := read("a count", src)
	v := r.count()
	return v, r.end()
}

// Sum is a sum of 64-bit integers in 128 bits, which 2^64 of them cannot overflow. The zero value is 0.
type Sum struct {
	hi int64
	lo uint64
}

// Add adds v.
func (s *Sum) Add(v int64) { s.merge(Sum{v >> 63, uint64(v)}) }

func (s *Sum) merge(o Sum) {
	lo, carry := bits.Add64(s.lo, o.lo, 0)
	hi, _ := bits.Add64(uint64(s.hi), uint64(o.hi), carry)
	s.hi, s.lo = int64(hi), lo
}

// Int64 is the sum, and whether it fits.
func (s Sum) Int64() (int64, bool) { return int64(s.lo), s.hi == int64(s.lo)>>63 }

// Big is the sum.
func (s Sum) Big() *big.Int {
	v := new(big.Int).Lsh(big.NewInt(s.hi), 64)
	return v.Add(v, new(big.Int).SetUint64(s.lo))
}

// Float64 is the nearest float.
func (s Sum) Float64() float64 {
	if v, ok := s.Int64(); ok {
		return float64(v)
	}
	f, _ := new(big.Float).SetInt(s.Big()).Float64()
	return f
}

// String writes the sum in decimal.
func (s Sum) String() string { return s.Big().String() }

// SumAgg handles Sums.
type SumAgg struct{}

// New is 0.
func (SumAgg) New() Sum { return Sum{} }

// Clone is a itself.
func (SumAgg) Clone(a Sum) Sum { return a }

// Merge adds.
func (SumAgg) Merge(into *Sum, delta Sum) { into.merge(delta) }

// Append writes a: one varint when it fits into 64 bits.
func (SumAgg) Append(dst []byte, a Sum) []byte {
	if v, ok := a.Int64(); ok {
		return binary.AppendVarint(append(dst, version, 0), v)
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(append(dst, version, 1), uint64(a.hi)), a.lo)
}

// Decode reads what Append wrote.
func (SumAgg) Decode(src []byte) (Sum, error) {
	r := read("a sum", src)
	var s Sum
	switch wide := r.bytes(1); {
	case wide == nil:
	case wide[0] == 0:
		s.Add(r.varint())
	case wide[0] == 1:
		s = Sum{int64(r.uint64()), r.uint64()}
		if _, fits := s.Int64(); fits {
			r.fail("a sum that is wider than it must be")
		}
	default:
		r.fail("a sum of width %d", wide[0])
	}
	if err := r.end(); err != nil {
		return Sum{}, err
	}
	return s, nil
}

// MinMax is the least and the greatest value. The zero value is empty.
type MinMax[T int64 | float64] struct {
	Min, Max T
	Some     bool // there is a value
}

// Add takes v in; NaN is no value.
func (m *MinMax[T]) Add(v T) {
	if v != v { // NaN
		return
	}
	v += 0 // -0 is 0
	if !m.Some {
		*m = MinMax[T]{v, v, true}
		return
	}
	m.Min, m.Max = min(m.Min, v), max(m.Max, v)
}

// MinMaxAgg handles MinMaxes.
type MinMaxAgg[T int64 | float64] struct{}

// New is empty.
func (MinMaxAgg[T]) New() MinMax[T] { return MinMax[T]{} }

// Clone is a itself.
func (MinMaxAgg[T]) Clone(a MinMax[T]) MinMax[T] { return a }

// Merge takes delta's values in.
func (MinMaxAgg[T]) Merge(into *MinMax[T], delta MinMax[T]) {
	if delta.Some {
		into.Add(delta.Min)
		into.Add(delta.Max)
	}
}

// Append writes a.
func (MinMaxAgg[T]) Append(dst []byte, a MinMax[T]) []byte {
	if !a.Some {
		return append(dst, version, 0)
	}
	dst = append(dst, version, 1)
	for _, v := range [2]T{a.Min, a.Max} {
		switch x := any(v).(type) {
		case int64:
			dst = binary.AppendVarint(dst, x)
		case float64:
			dst = appendFloat(dst, x)
		}
	}
	return dst
}

// Decode reads what Append wrote.
func (MinMaxAgg[T]) Decode(src []byte) (MinMax[T], error) {
	r := read("a minimum and maximum", src)
	var m MinMax[T]
	if some := r.bytes(1); some != nil && some[0] == 1 {
		m.Some = true
		for _, v := range [2]*T{&m.Min, &m.Max} {
			switch x := any(v).(type) {
			case *int64:
				*x = r.varint()
			case *float64:
				*x = math.Float64frombits(r.uint64()) + 0
			}
		}
		if !(m.Min <= m.Max) { // NaN is refused
			r.fail("a minimum of %v, a maximum of %v", m.Min, m.Max)
		}
	} else if some != nil && some[0] != 0 {
		r.fail("a flag of %d", some[0])
	}
	if err := r.end(); err != nil {
		return MinMax[T]{}, err
	}
	return m, nil
}
