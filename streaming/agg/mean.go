package agg

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
)

// Mean is mean and variance of floats by Welford's recurrence, merged as in Chan, Golub and LeVeque (1979). It is numerically stable;
// its last bits depend on the grouping of what was added. The zero value is empty.
type Mean struct {
	n        int64
	mean, m2 float64
}

// Add takes v in. It is not finite: it is left out, and Add gives false.
func (m *Mean) Add(v float64) bool {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return false
	}
	m.n++
	d := v - m.mean
	m.mean += d / float64(m.n)
	m.m2 += d * (v - m.mean)
	return true
}

func (m *Mean) merge(o Mean) {
	switch {
	case o.n == 0:
		return
	case m.n == 0:
		*m = o
		return
	}
	n := addCount(m.n, o.n)
	d, share := o.mean-m.mean, float64(o.n)/float64(n)
	m.m2 += o.m2 + d*d*float64(m.n)*share
	m.mean += d * share
	m.n = n
}

// Count is the number of values.
func (m Mean) Count() int64 { return m.n }

// Mean is 0 for no values.
func (m Mean) Mean() float64 { return m.mean }

// Variance is the variance of the values themselves (divided by n); 0 for fewer than two.
func (m Mean) Variance() float64 { return ratio(m.m2, float64(m.n)) }

// SampleVariance estimates the variance of what the values were drawn from (divided by n-1); 0 for fewer than two.
func (m Mean) SampleVariance() float64 { return ratio(m.m2, float64(m.n-1)) }

func ratio(a, b float64) float64 {
	if b <= 0 {
		return 0
	}
	return a / b
}

// MeanAgg handles Means.
type MeanAgg struct{}

// New is empty.
func (MeanAgg) New() Mean { return Mean{} }

// Clone is a itself.
func (MeanAgg) Clone(a Mean) Mean { return a }

// Merge takes delta's values in.
func (MeanAgg) Merge(into *Mean, delta Mean) { into.merge(delta) }

// Append writes a.
func (MeanAgg) Append(dst []byte, a Mean) []byte {
	dst = binary.AppendUvarint(append(dst, version), uint64(a.n))
	if a.n == 0 {
		return dst
	}
	return appendFloat(appendFloat(dst, a.mean), a.m2)
}

// Decode reads what Append wrote. What overflowed float64 was written as it was, and is read.
func (MeanAgg) Decode(src []byte) (Mean, error) {
	r := read("a mean", src)
	m := Mean{n: r.count()}
	if m.n > 0 {
		m.mean, m.m2 = math.Float64frombits(r.uint64()), math.Float64frombits(r.uint64())
		if m.m2 < 0 {
			r.fail("a sum of squares of %v", m.m2)
		}
	}
	if err := r.end(); err != nil {
		return Mean{}, err
	}
	return m, nil
}

// Moments is count, sum and sum of squares of 64-bit integers, exact in 64, 128 and 192 bits: mean and variance are the same however
// the values were grouped. The zero value is empty.
type Moments struct {
	n   int64
	sum Sum
	sq  [3]uint64 // little end first
}

// Add takes v in.
func (m *Moments) Add(v int64) {
	u := uint64(v)
	if v < 0 {
		u = -u
	}
	hi, lo := bits.Mul64(u, u)
	m.n = addCount(m.n, 1)
	m.sum.Add(v)
	m.square([3]uint64{lo, hi})
}

func (m *Moments) square(q [3]uint64) {
	var c uint64
	for i := range m.sq {
		m.sq[i], c = bits.Add64(m.sq[i], q[i], c)
	}
}

// Count is the number of values.
func (m Moments) Count() int64 { return m.n }

// Sum is their sum.
func (m Moments) Sum() Sum { return m.sum }

// Mean is 0 for no values.
func (m Moments) Mean() float64 {
	if m.n == 0 {
		return 0
	}
	f, _ := new(big.Rat).SetFrac(m.sum.Big(), big.NewInt(m.n)).Float64()
	return f
}

// Variance is the variance of the values themselves (divided by n); 0 for none.
func (m Moments) Variance() float64 { return m.variance(m.n) }

// SampleVariance estimates the variance of what the values were drawn from (divided by n-1); 0 for fewer than two.
func (m Moments) SampleVariance() float64 { return m.variance(m.n - 1) }

// variance is (n·Σx² − (Σx)²) / (n·d).
func (m Moments) variance(d int64) float64 {
	if d <= 0 {
		return 0
	}
	q := m.squares()
	n, s := big.NewInt(m.n), m.sum.Big()
	q.Mul(q, n).Sub(q, s.Mul(s, s))
	f, _ := new(big.Rat).SetFrac(q, n.Mul(n, big.NewInt(d))).Float64()
	return f
}

func (m Moments) squares() *big.Int {
	q := new(big.Int)
	for i := len(m.sq) - 1; i >= 0; i-- {
		q.Or(q.Lsh(q, 64), new(big.Int).SetUint64(m.sq[i]))
	}
	return q
}

// MomentsAgg handles Moments.
type MomentsAgg struct{}

// New is empty.
func (MomentsAgg) New() Moments { return Moments{} }

// Clone is a itself.
func (MomentsAgg) Clone(a Moments) Moments { return a }

// Merge takes delta's values in.
func (MomentsAgg) Merge(into *Moments, delta Moments) {
	into.n = addCount(into.n, delta.n)
	into.sum.merge(delta.sum)
	into.square(delta.sq)
}

// Append writes a.
func (MomentsAgg) Append(dst []byte, a Moments) []byte {
	dst = binary.AppendUvarint(append(dst, version), uint64(a.n))
	dst = binary.AppendVarint(dst, a.sum.hi)
	dst = binary.AppendUvarint(dst, a.sum.lo)
	for _, v := range a.sq {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

// Decode reads what Append wrote. Sums that no n values can have are refused.
func (MomentsAgg) Decode(src []byte) (Moments, error) {
	r := read("moments", src)
	m := Moments{n: r.count(), sum: Sum{r.varint(), r.uvarint()}}
	for i := range m.sq {
		m.sq[i] = r.uvarint()
	}
	if r.err == nil && (m.n == 0 && m != Moments{} || m.n > 0 && m.n < math.MaxInt64 && !m.possible()) {
		r.fail("sums that %d values cannot have", m.n)
	}
	if err := r.end(); err != nil {
		return Moments{}, err
	}
	return m, nil
}

// possible: (Σx)² ≤ n·Σx².
func (m Moments) possible() bool {
	s, q := m.sum.Big(), m.squares()
	return q.Mul(q, big.NewInt(m.n)).Cmp(s.Mul(s, s)) >= 0
}
