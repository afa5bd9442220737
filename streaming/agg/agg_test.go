package agg

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

type aggregate[A any] interface {
	New() A
	Clone(a A) A
	Merge(into *A, delta A)
	Append(dst []byte, a A) []byte
	Decode(src []byte) (A, error)
}

// laws checks what every aggregate promises, for values drawn by draw and added by add; check compares with brute force. Unless loose, the
// bytes of the result must not depend on the grouping.
func laws[A, V any](t *testing.T, x aggregate[A], loose bool, draw *rapid.Generator[V], add func(a *A, v V), check func(rt *rapid.T, a A, values []V)) {
	t.Helper()
	t.Parallel()
	bytesOf := func(a A) []byte { return x.Append(nil, a) }
	rapid.Check(t, func(rt *rapid.T) {
		values := rapid.SliceOfN(draw, 0, 200).Draw(rt, "values")
		plain := x.New()
		for _, v := range values {
			add(&plain, v)
		}
		check(rt, plain, values)

		// any grouping, any order, stored and read in between
		parts := make([]A, rapid.IntRange(1, 6).Draw(rt, "parts"))
		for i := range parts {
			parts[i] = x.New()
		}
		for _, v := range values {
			add(&parts[rapid.IntRange(0, len(parts)-1).Draw(rt, "part")], v)
		}
		for len(parts) > 1 {
			i := rapid.IntRange(0, len(parts)-1).Draw(rt, "into")
			j := rapid.IntRange(0, len(parts)-2).Draw(rt, "delta")
			if j >= i {
				j++
			}
			into, delta := x.Clone(parts[i]), parts[j]
			before, held := bytesOf(parts[i]), bytesOf(delta)
			x.Merge(&into, delta)
			for _, v := range values[:min(3, len(values))] { // no memory is shared
				spoilt := x.Clone(into)
				add(&spoilt, v)
				own := x.Clone(parts[i])
				x.Merge(&own, delta)
				add(&own, v)
			}
			if !bytes.Equal(held, bytesOf(delta)) {
				rt.Fatal("merging or adding afterwards changed the delta")
			}
			if !bytes.Equal(before, bytesOf(parts[i])) {
				rt.Fatal("changing a clone changed the original")
			}
			b := x.Append([]byte("head"), into)[4:]
			back, err := x.Decode(b)
			if err != nil {
				rt.Fatalf("decoding %x: %v", b, err)
			}
			if again := bytesOf(back); !bytes.Equal(b, again) {
				rt.Fatalf("%x became %x", b, again)
			}
			parts[i] = back
			parts = slices.Delete(parts, j, j+1)
		}
		check(rt, parts[0], values)
		if !loose && !bytes.Equal(bytesOf(plain), bytesOf(parts[0])) {
			rt.Fatalf("grouped %x, plain %x", bytesOf(parts[0]), bytesOf(plain))
		}
	})
}

func wideInt() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64(), rapid.Int64Range(-10, 10), rapid.SampledFrom([]int64{math.MaxInt64, math.MinInt64}))
}

func TestCountsAddUp(t *testing.T) {
	laws(t, CountAgg{}, false, rapid.Just(1), func(a *int64, v int) { *a += int64(v) }, func(rt *rapid.T, a int64, vs []int) {
		if a != int64(len(vs)) {
			rt.Fatalf("%d of %d", a, len(vs))
		}
	})
}

func TestACountDoesNotOverflow(t *testing.T) {
	t.Parallel()
	a := int64(math.MaxInt64 - 1)
	CountAgg{}.Merge(&a, 5)
	if a != math.MaxInt64 {
		t.Fatalf("count %d", a)
	}
}

func bigSum(vs []int64) *big.Int {
	want := new(big.Int)
	for _, v := range vs {
		want.Add(want, big.NewInt(v))
	}
	return want
}

func TestSumsAreExactBeyond64Bits(t *testing.T) {
	laws(t, SumAgg{}, false, wideInt(), func(a *Sum, v int64) { a.Add(v) }, func(rt *rapid.T, a Sum, vs []int64) {
		want := bigSum(vs)
		if a.Big().Cmp(want) != 0 || a.String() != want.String() {
			rt.Fatalf("sum %s, want %s", a, want)
		}
		if v, ok := a.Int64(); ok != want.IsInt64() || ok && v != want.Int64() {
			rt.Fatalf("as int64 %d %v, want %s", v, ok, want)
		}
		if f, _ := new(big.Float).SetInt(want).Float64(); a.Float64() != f {
			rt.Fatalf("as float %v, want %v", a.Float64(), f)
		}
	})
}

func TestMinimumAndMaximumOfIntegers(t *testing.T) {
	laws(t, MinMaxAgg[int64]{}, false, wideInt(), func(a *MinMax[int64], v int64) { a.Add(v) }, func(rt *rapid.T, a MinMax[int64], vs []int64) {
		if a.Some != (len(vs) > 0) || a.Some && (a.Min != slices.Min(vs) || a.Max != slices.Max(vs)) {
			rt.Fatalf("%+v of %v", a, vs)
		}
	})
}

func TestMinimumAndMaximumOfFloatsLeaveNaNOut(t *testing.T) {
	gen := rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 0}))
	laws(t, MinMaxAgg[float64]{}, false, gen, func(a *MinMax[float64], v float64) { a.Add(v) }, func(rt *rapid.T, a MinMax[float64], vs []float64) {
		vs = slices.DeleteFunc(slices.Clone(vs), math.IsNaN)
		if a.Some != (len(vs) > 0) || a.Some && (a.Min != slices.Min(vs) || a.Max != slices.Max(vs)) {
			rt.Fatalf("%+v of %v", a, vs)
		}
	})
}

func TestMeanAndVarianceAreStable(t *testing.T) {
	gen := rapid.OneOf(rapid.Float64Range(-1e6, 1e6), rapid.Float64Range(1e9, 1e9+1), rapid.SampledFrom([]float64{math.NaN(), math.Inf(-1)}))
	laws(t, MeanAgg{}, true, gen, func(a *Mean, v float64) { a.Add(v) }, func(rt *rapid.T, a Mean, vs []float64) {
		n, sum := 0, new(big.Float).SetPrec(500)
		for _, v := range vs {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				n++
				sum.Add(sum, big.NewFloat(v))
			}
		}
		if a.Count() != int64(n) {
			rt.Fatalf("%d values, want %d", a.Count(), n)
		}
		if n == 0 {
			return
		}
		exact := sum.Quo(sum, big.NewFloat(float64(n)))
		squares := new(big.Float).SetPrec(500)
		for _, v := range vs {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				d := new(big.Float).SetPrec(500).Sub(big.NewFloat(v), exact)
				squares.Add(squares, d.Mul(d, d))
			}
		}
		mean, _ := exact.Float64()
		m2, _ := squares.Float64()
		// the error grows with the ratio of mean and deviation (Chan, Golub and LeVeque 1983)
		slack := 1e-9*m2 + 1e-13*float64(n)*math.Sqrt(m2)*math.Abs(mean) + 1e-15
		if math.Abs(a.Mean()-mean) > 1e-9*math.Abs(mean)+1e-12 || math.Abs(a.Variance()*float64(n)-m2) > slack || n > 1 && math.Abs(a.SampleVariance()*float64(n-1)-m2) > slack {
			rt.Fatalf("mean %v, squares %v, want %v %v", a.Mean(), a.Variance()*float64(n), mean, m2)
		}
	})
}

func TestMomentsAreExact(t *testing.T) {
	laws(t, MomentsAgg{}, false, wideInt(), func(a *Moments, v int64) { a.Add(v) }, func(rt *rapid.T, a Moments, vs []int64) {
		n := int64(len(vs))
		sum := bigSum(vs)
		if a.Count() != n || a.Sum().Big().Cmp(sum) != 0 {
			rt.Fatalf("count %d sum %s, want %d %s", a.Count(), a.Sum(), n, sum)
		}
		if n == 0 {
			return
		}
		mean := new(big.Rat).SetFrac(sum, big.NewInt(n))
		m2 := new(big.Rat)
		for _, v := range vs {
			d := new(big.Rat).Sub(new(big.Rat).SetInt64(v), mean)
			m2.Add(m2, d.Mul(d, d))
		}
		want, _ := mean.Float64()
		variance, _ := new(big.Rat).Quo(m2, new(big.Rat).SetInt64(n)).Float64()
		if a.Mean() != want || a.Variance() != variance {
			rt.Fatalf("mean %v variance %v, want %v %v", a.Mean(), a.Variance(), want, variance)
		}
		if n > 1 {
			if sample, _ := new(big.Rat).Quo(m2, new(big.Rat).SetInt64(n-1)).Float64(); a.SampleVariance() != sample {
				rt.Fatalf("sample variance %v, want %v", a.SampleVariance(), sample)
			}
		}
	})
}

func TestDistinctValuesAreCountedExactlyUpToTheBound(t *testing.T) {
	for _, bound := range []int{5, 40, 0} {
		t.Run("bound "+strconv.Itoa(bound), func(t *testing.T) {
			laws(t, DistinctAgg{Bound: bound}, false, rapid.IntRange(0, 300), func(a **Distinct, v int) {
				if v%2 == 0 {
					(*a).Add(strconv.Itoa(v))
				} else {
					(*a).AddBytes(strconv.AppendInt(nil, int64(v), 10))
				}
			}, func(rt *rapid.T, a *Distinct, vs []int) {
				set := map[int]bool{}
				for _, v := range vs {
					set[v] = true
				}
				limit := bound
				if bound == 0 {
					limit = DefaultExact
				}
				if a.Exact() != (len(set) <= limit) {
					rt.Fatalf("%d of at most %d values, exact: %v", len(set), limit, a.Exact())
				}
				if d := a.Count() - int64(len(set)); d != 0 && (a.Exact() || d < -2 || d > 2) { // a sparse sketch is next to exact
					rt.Fatalf("%d of %d", a.Count(), len(set))
				}
			})
		})
	}
}

func TestASketchOfManyDistinctValuesIsWithinItsError(t *testing.T) {
	t.Parallel()
	x := DistinctAgg{}
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		a, b := x.New(), x.New()
		for i := range n {
			a.Add(strconv.Itoa(i))
			b.Add(strconv.Itoa(i + n/2)) // half of them again
		}
		x.Merge(&a, b)
		want := float64(n + n/2)
		if off := math.Abs(float64(a.Count())/want - 1); off > 0.03 {
			t.Errorf("%d of %.0f: %.1f %% off", a.Count(), want, 100*off)
		}
	}
}

func quantiles(t testing.TB, accuracy float64) QuantilesAgg {
	x, err := NewQuantilesAgg(accuracy)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestQuantilesAreWithinTheirAccuracy(t *testing.T) {
	for _, accuracy := range []float64{0.01, 0.05} {
		t.Run(fmt.Sprint(accuracy), func(t *testing.T) {
			gen := rapid.OneOf(rapid.Float64Range(-1e6, -1e-6), rapid.Float64Range(1e-6, 1e9), rapid.SampledFrom([]float64{0, math.NaN(), math.Inf(1), 5, 5.01}))
			laws(t, quantiles(t, accuracy), false, gen, func(a **Quantiles, v float64) { (*a).Add(v) }, func(rt *rapid.T, a *Quantiles, vs []float64) {
				kept := slices.DeleteFunc(slices.Clone(vs), func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
				slices.Sort(kept)
				if a.Count() != int64(len(kept)) {
					rt.Fatalf("%d values, want %d", a.Count(), len(kept))
				}
				for _, p := range []float64{0, 0.1, 0.5, 0.95, 0.99, 1} {
					got, ok := a.At(p)
					if !ok {
						if len(kept) > 0 {
							rt.Fatalf("no quantile %v", p)
						}
						continue
					}
					// the rank may be rounded either way: bins hold many
					at := p * float64(len(kept)-1)
					low, high := kept[int(math.Floor(at))], kept[int(math.Ceil(at))]
					slack := func(v float64) float64 { return math.Abs(v)*(accuracy+1e-9) + 1e-300 }
					if got < low-slack(low) || got > high+slack(high) {
						rt.Fatalf("quantile %v is %v, true ones are %v to %v", p, got, low, high)
					}
				}
			})
		})
	}
}

func TestQuantilesOfAnImpossibleRangeStayBounded(t *testing.T) {
	t.Parallel()
	x := quantiles(t, 0.01)
	forth, back := x.New(), x.New()
	for e := -300; e <= 300; e++ {
		forth.Add(math.Pow(10, float64(e)))
		back.Add(math.Pow(10, float64(-e)))
	}
	b := x.Append(nil, forth)
	if !bytes.Equal(b, x.Append(nil, back)) {
		t.Fatal("what falls into the smallest bin depends on the order")
	}
	if v, _ := forth.At(1); math.Abs(v/1e300-1) > 0.01 || forth.Count() != 601 {
		t.Fatalf("maximum %v of %d", v, forth.Count())
	}
	for _, bad := range []float64{-1, 0.5, math.NaN()} {
		if _, err := NewQuantilesAgg(bad); err == nil {
			t.Errorf("an accuracy of %v is taken", bad)
		}
	}
	for _, p := range []float64{-0.1, 1.1, math.NaN()} {
		if _, ok := forth.At(p); ok {
			t.Errorf("there is a quantile %v", p)
		}
	}
}

type weighted struct {
	Item int
	N    int64
}

func TestTopKIsWithinItsBound(t *testing.T) {
	for _, capacity := range []int{1, 4, 50} {
		t.Run("capacity "+strconv.Itoa(capacity), func(t *testing.T) {
			gen := rapid.Custom(func(rt *rapid.T) weighted {
				item := rapid.IntRange(0, 40).Draw(rt, "item")
				if rapid.Bool().Draw(rt, "heavy") {
					item %= 3
				}
				return weighted{item, rapid.Int64Range(-1, 9).Draw(rt, "n")}
			})
			laws(t, TopKAgg{Capacity: capacity}, true, gen, func(a **TopK, v weighted) {
				if v.Item%2 == 0 {
					(*a).Add(strconv.Itoa(v.Item), v.N)
				} else {
					(*a).AddBytes(strconv.AppendInt(nil, int64(v.Item), 10), v.N)
				}
			}, func(rt *rapid.T, a *TopK, vs []weighted) {
				truth, total := map[string]int64{}, int64(0)
				for _, v := range vs {
					if v.N > 0 {
						truth[strconv.Itoa(v.Item)] += v.N
						total += v.N
					}
				}
				if a.Total() != total || a.Error() > total/int64(capacity+1) {
					rt.Fatalf("total %d error %d, want %d and at most %d", a.Total(), a.Error(), total, total/int64(capacity+1))
				}
				if len(truth) <= capacity && a.Error() != 0 {
					rt.Fatalf("%d items of at most %d have error %d", len(truth), capacity, a.Error())
				}
				for k, n := range truth {
					if c := a.Count(k); c > n || c+a.Error() < n {
						rt.Fatalf("item %s came %d times, said %d to %d", k, n, c, c+a.Error())
					}
				}
				top := a.Top(capacity)
				if !slices.IsSortedFunc(top, func(x, y Item) int { return int(y.Count - x.Count) }) || len(top) > capacity || a.Error() == 0 && len(top) != min(capacity, len(truth)) {
					rt.Fatalf("top %v", top)
				}
			})
		})
	}
}

func TestLastValuesAreTheLatestByEventTime(t *testing.T) {
	for _, n := range []int{1, 3, 500} {
		t.Run(strconv.Itoa(n)+" values", func(t *testing.T) {
			gen := rapid.Custom(func(rt *rapid.T) Entry {
				at := rapid.OneOf(rapid.Int64Range(-3, 30), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64})).Draw(rt, "at")
				return Entry{at, rapid.Uint64Range(0, 3).Draw(rt, "order"), strconv.Itoa(rapid.IntRange(0, 3).Draw(rt, "value"))}
			})
			laws(t, LastNAgg{N: n}, false, gen, func(a **LastN, v Entry) { (*a).Add(v) }, func(rt *rapid.T, a *LastN, vs []Entry) {
				want := slices.Clone(vs)
				slices.SortFunc(want, compareEntries)
				want = want[max(0, len(want)-n):]
				if diff := cmp.Diff(append([]Entry{}, want...), append([]Entry{}, a.Entries()...)); diff != "" {
					rt.Fatal(diff)
				}
				if last, ok := a.Last(); ok != (len(want) > 0) || ok && last != want[len(want)-1] {
					rt.Fatalf("last %v %v", last, ok)
				}
			})
		})
	}
}

func TestBytesOfAnotherKindAreRefused(t *testing.T) {
	t.Parallel()
	q := quantiles(t, 0.05)
	for _, c := range []struct {
		name   string
		decode func([]byte) error
		src    []byte
	}{
		{"nothing at all", decoder(CountAgg{}), nil},
		{"a later version", decoder(CountAgg{}), []byte{9, 1}},
		{"a count beyond int64", decoder(CountAgg{}), []byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}},
		{"a count with something after it", decoder(CountAgg{}), []byte{1, 1, 0}},
		{"a wide sum that is not", decoder(SumAgg{}), append([]byte{1, 1}, make([]byte, 16)...)},
		{"a minimum above the maximum", decoder(MinMaxAgg[int64]{}), []byte{1, 1, 4, 2}},
		{"a minimum that is no number", decoder(MinMaxAgg[float64]{}), appendFloat(appendFloat([]byte{1, 1}, math.NaN()), 1)},
		{"a negative sum of squares", decoder(MeanAgg{}), appendFloat(appendFloat([]byte{1, 1}, 1), -1)},
		{"moments of nothing", decoder(MomentsAgg{}), []byte{1, 0, 0, 1, 0, 0, 0}},
		{"a square of a sum above the sum of squares", decoder(MomentsAgg{}), []byte{1, 2, 0, 9, 1, 0, 0}},
		{"hashes out of order", decoder(DistinctAgg{}), append([]byte{1, 0, 2}, make([]byte, 16)...)},
		{"more hashes than bytes", decoder(DistinctAgg{}), []byte{1, 0, 200}},
		{"a sketch of another precision", decoder(DistinctAgg{}), []byte{1, 1, 2, 10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
		{"quantiles of another accuracy", decoder(q), quantiles(t, 0.01).Append(nil, quantiles(t, 0.01).New())},
		{"a bin that no float has", decoder(q), []byte{1, 0xd0, 0x86, 0x03, 0, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 1, 0}},
		{"an item more often than all", decoder(TopKAgg{Capacity: 3}), []byte{1, 1, 0, 1, 1, 'a', 2}},
		{"items out of order", decoder(TopKAgg{Capacity: 3}), []byte{1, 9, 0, 2, 1, 'b', 1, 1, 'a', 1}},
		{"values out of order", decoder(LastNAgg{N: 3}), []byte{1, 2, 2, 0, 0, 1, 0, 0}},
	} {
		if err := c.decode(c.src); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
}

func decoder[A any](x aggregate[A]) func([]byte) error {
	return func(b []byte) error { _, err := x.Decode(b); return err }
}

// FuzzDecode: whatever the bytes, Decode gives an error or a value whose own bytes read back as the same value, and which merges.
func FuzzDecode(f *testing.F) {
	q := quantiles(f, 0.01)
	kinds := []func(*testing.T, []byte){
		whole(CountAgg{}), whole(SumAgg{}), whole(MinMaxAgg[int64]{}), whole(MinMaxAgg[float64]{}), whole(MeanAgg{}), whole(MomentsAgg{}),
		whole(DistinctAgg{Bound: 4}), whole(q), whole(TopKAgg{Capacity: 2}), whole(LastNAgg{N: 2}),
	}
	seed := func(kind byte, b []byte) { f.Add(append([]byte{kind}, b...)) }
	var s Sum
	s.Add(math.MaxInt64)
	seed(0, CountAgg{}.Append(nil, 7))
	seed(1, SumAgg{}.Append(nil, s))
	s.Add(math.MaxInt64)
	seed(1, SumAgg{}.Append(nil, s))
	seed(2, MinMaxAgg[int64]{}.Append(nil, MinMax[int64]{-1, 5, true}))
	seed(3, MinMaxAgg[float64]{}.Append(nil, MinMax[float64]{-1, 5, true}))
	var mean Mean
	var moments Moments
	d, many := DistinctAgg{Bound: 4}.New(), DistinctAgg{Bound: 4}.New()
	quant, top, last := q.New(), TopKAgg{Capacity: 2}.New(), LastNAgg{N: 2}.New()
	for i := range 9 {
		mean.Add(float64(i))
		moments.Add(int64(i - 4))
		d.AddHash(uint64(i%3) << 60)
		many.Add(strconv.Itoa(i))
		quant.Add(float64(i - 4))
		top.Add(strconv.Itoa(i%5), 2)
		last.Add(Entry{int64(i % 4), uint64(i), "v"})
	}
	seed(4, MeanAgg{}.Append(nil, mean))
	seed(5, MomentsAgg{}.Append(nil, moments))
	seed(6, DistinctAgg{}.Append(nil, d))
	seed(6, DistinctAgg{}.Append(nil, many))
	seed(7, q.Append(nil, quant))
	seed(8, TopKAgg{}.Append(nil, top))
	seed(9, LastNAgg{}.Append(nil, last))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 0 {
			kinds[int(b[0])%len(kinds)](t, b[1:])
		}
	})
}

func whole[A any](x aggregate[A]) func(*testing.T, []byte) {
	return func(t *testing.T, b []byte) {
		a, err := x.Decode(b)
		if err != nil {
			if !errors.Is(err, ErrEncoding) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		c := x.Append(nil, a)
		again, err := x.Decode(c)
		if err != nil {
			t.Fatalf("%x became %x, which cannot be read: %v", b, c, err)
		}
		if d := x.Append(nil, again); !bytes.Equal(c, d) {
			t.Fatalf("%x became %x, then %x", b, c, d)
		}
		x.Merge(&again, a)
		if d := x.Append(nil, a); !bytes.Equal(c, d) {
			t.Fatalf("a merge changed its delta from %x to %x", c, d)
		}
	}
}
