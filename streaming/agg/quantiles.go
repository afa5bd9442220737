package agg

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"
)

const (
	// DefaultAccuracy is the relative accuracy of a QuantilesAgg that is asked for none.
	DefaultAccuracy = 0.01
	// quantileBins bounds the bins of each sign, hence the memory: 16 KiB. At 1 % they span a factor of 6·10^17 between the smallest and
	// the largest magnitude; what is smaller falls into the smallest bin.
	quantileBins = 2048
)

// Quantiles is a DDSketch (Masson, Rim and Lee 2019): a quantile of it is within its relative accuracy of the true one. It is made by
// QuantilesAgg.New.
type Quantiles struct{ s *ddsketch.DDSketch }

// Add takes v in. What cannot be tracked (NaN, infinities, beyond 10^307) is left out, and Add gives false.
func (q *Quantiles) Add(v float64) bool { return q.s.Add(v) == nil }

// Count is the number of values.
func (q *Quantiles) Count() int64 { return int64(q.s.GetCount()) }

// At is the p-quantile, 0 <= p <= 1: the value of rank p·(n−1), rounded down. It is false for no values or another p.
func (q *Quantiles) At(p float64) (float64, bool) {
	if !(p >= 0 && p <= 1) { // NaN is refused
		return 0, false
	}
	v, err := q.s.GetValueAtQuantile(p)
	return v, err == nil
}

// QuantilesAgg handles Quantiles of one accuracy, which a store keeps for ever. It is made by NewQuantilesAgg.
type QuantilesAgg struct {
	m          *mapping.LogarithmicMapping
	low, high  int // indexes that a float64 can have
	fixedPoint uint64
}

// NewQuantilesAgg makes one of the given relative accuracy, 0.001 to 0.2; 0 is DefaultAccuracy.
func NewQuantilesAgg(accuracy float64) (QuantilesAgg, error) {
	if accuracy == 0 {
		accuracy = DefaultAccuracy
	}
	if !(accuracy >= 0.001 && accuracy <= 0.2) { // NaN is refused
		return QuantilesAgg{}, fmt.Errorf("a relative accuracy of %v, want 0.001 to 0.2", accuracy)
	}
	fixed := uint64(math.Round(accuracy * 1e6))
	m, err := mapping.NewLogarithmicMapping(float64(fixed) / 1e6)
	if err != nil {
		return QuantilesAgg{}, fmt.Errorf("a relative accuracy of %v: %w", accuracy, err)
	}
	return QuantilesAgg{m: m, low: m.Index(m.MinIndexableValue()), high: m.Index(m.MaxIndexableValue()), fixedPoint: fixed}, nil
}

// New is empty.
func (x QuantilesAgg) New() *Quantiles {
	return &Quantiles{ddsketch.NewDDSketch(x.m, store.NewCollapsingLowestDenseStore(quantileBins), store.NewCollapsingLowestDenseStore(quantileBins))}
}

// Clone shares no memory with a.
func (QuantilesAgg) Clone(a *Quantiles) *Quantiles { return &Quantiles{a.s.Copy()} }

// Merge takes delta's values in.
func (QuantilesAgg) Merge(into **Quantiles, delta *Quantiles) {
	if err := (*into).s.MergeWith(delta.s); err != nil {
		panic(err) // of another accuracy: New and Decode make none
	}
}

// Append writes accuracy, zeros, and the bins in the order of their index: steps and counts.
func (x QuantilesAgg) Append(dst []byte, a *Quantiles) []byte {
	dst = binary.AppendUvarint(append(dst, version), x.fixedPoint)
	dst = binary.AppendUvarint(dst, uint64(a.s.GetZeroCount()))
	for _, s := range [2]store.Store{a.s.GetPositiveValueStore(), a.s.GetNegativeValueStore()} {
		n, last := 0, 0
		s.ForEach(func(int, float64) bool { n++; return false })
		dst = binary.AppendUvarint(dst, uint64(n))
		s.ForEach(func(index int, count float64) bool { // a dense store goes upwards
			dst = binary.AppendUvarint(binary.AppendVarint(dst, int64(index-last)), uint64(count))
			last = index
			return false
		})
	}
	return dst
}

// maxBin keeps sums of counts exact in float64.
const maxBin = 1 << 52

// Decode reads what Append wrote.
func (x QuantilesAgg) Decode(src []byte) (*Quantiles, error) {
	r := read("quantiles", src)
	if f := r.uvarint(); r.err == nil && f != x.fixedPoint {
		r.fail("a relative accuracy of %d millionths, want %d", f, x.fixedPoint)
	}
	q := x.New()
	left := uint64(maxBin)
	take := func(n uint64) float64 {
		if n > left {
			r.fail("more than %d values", uint64(maxBin))
			return 0
		}
		left -= n
		return float64(n)
	}
	if zeros := take(r.uvarint()); r.err == nil && zeros > 0 {
		if err := q.s.AddWithCount(0, zeros); err != nil {
			r.fail("zeros: %v", err)
		}
	}
	for _, s := range [2]store.Store{q.s.GetPositiveValueStore(), q.s.GetNegativeValueStore()} {
		n := r.length(2)
		if n > quantileBins {
			r.fail("%d bins", n)
		}
		index := int64(0)
		for i := 0; i < n && r.err == nil; i++ {
			step := r.varint()
			count := r.uvarint()
			if step < math.MinInt32 || step > math.MaxInt32 || i > 0 && step <= 0 || count == 0 {
				r.fail("a bin %d after the last, of %d", step, count)
				break
			}
			if index += step; index < int64(x.low) || index > int64(x.high) {
				r.fail("a bin %d", index)
				break
			}
			if c := take(count); c > 0 {
				s.AddWithCount(int(index), c)
			}
		}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return q, nil
}
