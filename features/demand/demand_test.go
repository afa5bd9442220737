package demand

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// shop makes hours of sales: a day's curve, days of the week, growth by the week, and counts from a Poisson process or, with burst, a negative binomial one.
type shop struct {
	rate   float64 // mean an hour
	growth float64 // a week
	burst  float64 // variance of an hour in units of its mean, from 1
	weeks  int
}

// first is a Monday, 00:00, in hours since the epoch.
const first = int64(2900*Week + 4*24)

func (s shop) mean(i int) float64 {
	clock, day := float64(i%24), i/24%7
	curve := 1 + 0.9*math.Sin((clock-8)/24*2*math.Pi)
	if day == 5 && clock > 18 { // Saturday's evening is its own
		curve *= 1.8
	}
	return s.rate * curve * []float64{0.8, 0.85, 0.9, 1, 1.2, 1.4, 0.85}[day] * math.Pow(1+s.growth, float64(i)/Week)
}

func poisson(r *rand.Rand, mean float64) float64 {
	if mean > 500 {
		return max(0, math.Round(mean+math.Sqrt(mean)*r.NormFloat64()))
	}
	n, p, end := 0, 1.0, math.Exp(-mean)
	for {
		if p *= r.Float64(); p <= end {
			return float64(n)
		}
		n++
	}
}

// count draws from a negative binomial as a Poisson whose mean is gamma distributed.
func count(r *rand.Rand, mean, burst float64) float64 {
	if burst <= 1 || mean == 0 {
		return poisson(r, mean)
	}
	return poisson(r, gammaDraw(r, mean/(burst-1))*(burst-1))
}

// gammaDraw is Marsaglia and Tsang's.
func gammaDraw(r *rand.Rand, shape float64) float64 {
	if shape < 1 {
		return gammaDraw(r, shape+1) * math.Pow(r.Float64(), 1/shape)
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := r.NormFloat64()
		v := (1 + c*x) * (1 + c*x) * (1 + c*x)
		if v > 0 && math.Log(r.Float64()) < 0.5*x*x+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}

func (s shop) hours(seed uint64) []float64 {
	r := rand.New(rand.NewPCG(seed, 7))
	out := make([]float64, s.weeks*Week)
	for i := range out {
		out[i] = count(r, s.mean(i), s.burst)
	}
	return out
}

func TestForecastsBeatTheSeasonalNaiveOneOnHeldBackDays(t *testing.T) {
	for _, c := range []struct {
		name   string
		s      shop
		mase   float64 // mean over the products
		better float64 // share of the products that are forecast better than "as a week ago" on the same days
	}{
		{"best sellers", shop{rate: 40, burst: 1, weeks: 8}, 0.9, 0.9},
		{"best sellers in bursts", shop{rate: 40, burst: 6, weeks: 8}, 0.9, 0.9},
		{"ordinary products", shop{rate: 2, burst: 2, weeks: 8}, 0.9, 0.9},
		{"a product ten of which are sold a day", shop{rate: 0.4, burst: 1.5, weeks: 8}, 0.9, 0.9},
		{"three weeks of history", shop{rate: 5, burst: 2, weeks: 3}, 1.1, 0.6}, // one week held back, and one to scale by
		{"growth of a tenth a week", shop{rate: 10, growth: 0.1, burst: 2, weeks: 8}, 1.5, 0.6},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const products = 60
			below, better := 0, 0
			mase, naive := 0.0, 0.0
			for seed := range products {
				f, err := Fit(c.s.hours(uint64(seed)), first, DefaultOptions())
				if err != nil {
					t.Fatal(err)
				}
				if err := f.Model.Valid(); err != nil {
					t.Fatal(err)
				}
				a := f.Accuracy
				if !a.Measured || a.Days < 7 {
					t.Fatalf("%+v", a)
				}
				if a.MASE < 1 {
					below++
				}
				if a.MASE < a.NaiveMASE {
					better++
				}
				mase, naive = mase+a.MASE/products, naive+a.NaiveMASE/products
			}
			t.Logf("mean MASE %.3f, of the naïve forecast %.3f; below 1 for %d of %d products, better than the naïve forecast for %d", mase, naive, below, products, better)
			if mase > c.mase || mase >= naive || float64(better) < c.better*products {
				t.Errorf("mean MASE %.3f, of the naïve forecast %.3f; better than it for %d of %d products", mase, naive, better, products)
			}
		})
	}
}

func TestThePlantedWeekIsFound(t *testing.T) {
	s := shop{rate: 60, burst: 1, weeks: 8}
	f, err := Fit(s.hours(3), first, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	worst := 0.0
	for i, got := range f.Model.Forecast(Week) {
		want := s.mean(8*Week + i)
		worst = max(worst, math.Abs(got-want)/max(want, 10))
	}
	if worst > 0.25 {
		t.Errorf("an hour is off by %.0f %%", 100*worst)
	}
}

func TestTooLittleHistoryIsANormalAnswer(t *testing.T) {
	sold := shop{rate: 5, burst: 1, weeks: 8}.hours(1)
	for name, hours := range map[string][]float64{"none": nil, "no sale": make([]float64, 5000), "two weeks": sold[:2*Week], "a new product": append(make([]float64, 5000), sold[:3*Week-24]...)} {
		if _, err := Fit(hours, first, DefaultOptions()); !errors.Is(err, ErrHistory) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatIsSeldomSoldIsForecastAsSparse(t *testing.T) {
	s := shop{rate: 0.015, burst: 1, weeks: 8}
	total, want := 0.0, 0.0
	for seed := range uint64(20) {
		f, err := Fit(s.hours(seed), first, DefaultOptions())
		if errors.Is(err, ErrHistory) {
			continue // its first sale was too late
		}
		if err != nil {
			t.Fatal(err)
		}
		if f.Model.Kind != Sparse {
			t.Errorf("product %d is %s", seed, f.Model.Kind)
		}
		total += f.Model.Lead(Week).Mean
		want += s.rate * Week
	}
	if math.Abs(total-want) > 0.3*want {
		t.Errorf("%.1f units a week are forecast, %.1f are sold", total, want)
	}
}

func TestStepsOneByOneGiveTheStateOfTheFit(t *testing.T) {
	hours := shop{rate: 3, burst: 2, weeks: 6}.hours(9)
	start := begin(hours, first, Model{Kind: Multiplicative, Alpha: 0.1, Gamma: 0.05, Beta: 0.01, Phi: 0.98})
	want := start.run(hours)
	got := start
	for _, y := range hours {
		before := slices.Clone(got.Season)
		next := got.Step(y)
		if !slices.Equal(before, got.Season) {
			t.Fatal("a step changed the state before it")
		}
		got = next
	}
	got.Dispersion = want.Dispersion
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var back Model
	if err := json.Unmarshal(text, &back); err != nil || !cmp.Equal(got, back) {
		t.Errorf("%v: %s", err, cmp.Diff(got, back))
	}
	if len(text) > 3000 {
		t.Errorf("a model has %d bytes", len(text))
	}
}

// Whatever the hours hold, a model is valid, its forecast is finite and not negative, and it is the same each time.
func TestAnyHoursGiveAValidModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weeks := rapid.IntRange(3, 5).Draw(t, "weeks")
		zero := rapid.Float64Range(0, 1).Draw(t, "zeros")
		scale := rapid.SampledFrom([]float64{1, 10, 1e4, 1e7}).Draw(t, "scale")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		hours := make([]float64, weeks*Week)
		for i := range hours {
			if r.Float64() >= zero {
				hours[i] = math.Floor(r.Float64() * scale)
			}
		}
		o := DefaultOptions()
		f, err := Fit(hours, first, o)
		if errors.Is(err, ErrHistory) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Model.Valid(); err != nil {
			t.Fatal(err)
		}
		for h, v := range f.Model.Forecast(3 * Week) {
			if !(v >= 0 && v < 1e12) {
				t.Fatalf("hour %d: %g", h, v)
			}
		}
		if again, _ := Fit(hours, first, o); !cmp.Equal(f, again) {
			t.Fatal("the same hours give another model")
		}
		l := f.Model.Lead(48)
		before := 1.0
		for stock := int64(-1); stock < 40; stock++ {
			p := l.StockOut(stock)
			if !(p >= 0 && p <= 1) || p > before+1e-9 {
				t.Fatalf("P(stock-out) with %d is %g after %g", stock, p, before)
			}
			before = p
		}
		if low, high := l.Interval(0.9); low > high || low < 0 {
			t.Fatalf("interval %d to %d", low, high)
		}
	})
}

func TestStockOutIsWhatAMonteCarloRunCounts(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	flat := make([]float32, Week)
	for i := range flat {
		flat[i] = float32(1 + 0.8*math.Sin(float64(i)/24*2*math.Pi))
	}
	for _, c := range []struct {
		name   string
		m      Model
		hours  int
		stocks []int64
		off    float64
	}{
		{"few sales", Model{Kind: Multiplicative, Level: 0.1, Season: flat, Dispersion: 1}, 48, []int64{0, 3, 5, 8}, 0.01},
		{"a Poisson process", Model{Kind: Multiplicative, Level: 1.5, Season: flat, Dispersion: 1}, 72, []int64{90, 108, 120, 130}, 0.015},
		{"bursts", Model{Kind: Multiplicative, Level: 0.8, Season: flat, Dispersion: 3}, 72, []int64{40, 57, 70, 90}, 0.015},
		{"many", Model{Kind: Multiplicative, Level: 30, Season: flat, Dispersion: 2}, 72, []int64{2100, 2160, 2230}, 0.015},
		{"a level that wanders", Model{Kind: Multiplicative, Alpha: 0.03, Level: 4, Season: slices.Repeat([]float32{1}, Week), Dispersion: 2}, 72, []int64{230, 288, 340, 400}, 0.03},
	} {
		t.Run(c.name, func(t *testing.T) {
			const runs = 30_000
			over := make([]int, len(c.stocks))
			for range runs {
				m, sum := c.m, 0.0
				for range c.hours {
					y := count(r, m.ahead(1), c.m.Dispersion)
					sum += y
					m.Hour++
					if m.Alpha > 0 { // the level goes where its errors take it
						m.Hour--
						m = m.Step(y)
					}
				}
				for i, s := range c.stocks {
					if sum > float64(s) {
						over[i]++
					}
				}
			}
			l := c.m.Lead(c.hours)
			for i, s := range c.stocks {
				counted, got := float64(over[i])/runs, l.StockOut(s)
				t.Logf("stock %d: %.4f, counted %.4f", s, got, counted)
				if math.Abs(got-counted) > c.off {
					t.Errorf("P(stock-out) with %d is %.4f, counted %.4f", s, got, counted)
				}
			}
		})
	}
}

func TestCoverIsTheTimeUntilTheStockIsGone(t *testing.T) {
	m := Model{Kind: Additive, Level: 2, Season: make([]float32, Week)}
	for stock, want := range map[int64]int{0: 0, 1: 0, 2: 1, 48: 24, 1 << 40: MaxCover} {
		if got := m.Cover(stock); got != want {
			t.Errorf("%d units last %d hours, want %d", stock, got, want)
		}
	}
}

// priced makes days at prices that change now and then, with a planted elasticity.
func priced(seed uint64, days int, elasticity, rate, spread float64) []PriceDay {
	r := rand.New(rand.NewPCG(seed, 11))
	price := 20.0
	out := make([]PriceDay, days)
	for i := range out {
		if i%6 == 0 {
			price = 20 * math.Exp(spread*(2*r.Float64()-1))
		}
		mean := rate * []float64{0.8, 0.85, 0.9, 1, 1.2, 1.4, 0.85}[i%7] * math.Pow(price/20, elasticity) * (1 + 0.2*float64(i)/float64(days))
		out[i] = PriceDay{Day: 20_000 + int64(i), Units: count(r, mean, 1.5), Price: price}
		if out[i].Units == 0 {
			out[i].Price = 0 // nothing was paid
		}
	}
	return out
}

func TestThePlantedElasticityLiesInItsInterval(t *testing.T) {
	for _, planted := range []float64{-0.4, -1.5, -3} {
		const products = 60
		inside, off := 0, 0.0
		for seed := range uint64(products) {
			b, err := Price(priced(seed, 120, planted, 25, 0.25), DefaultPriceOptions())
			if err != nil {
				t.Fatal(err)
			}
			e := b.Elasticity
			if e.Low <= planted && planted <= e.High {
				inside++
			}
			off += math.Abs(e.Value-planted) / products
			if e.Low > e.Value || e.Value > e.High {
				t.Fatalf("%+v", e)
			}
		}
		t.Logf("elasticity %g: %d of %d intervals of 95 %% hold it, mean error %.3f", planted, inside, products, off)
		if inside < 51 || off > 0.3 {
			t.Errorf("elasticity %g: %d of %d intervals hold it, mean error %.3f", planted, inside, products, off)
		}
	}
}

func TestABandStaysWithinItsStepAndAboveItsFloor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := DefaultPriceOptions()
		o.Cost = rapid.SampledFrom([]float64{0, 5, 12, 19, 25}).Draw(t, "cost")
		d := priced(rapid.Uint64Range(0, 1000).Draw(t, "seed"), 90, rapid.Float64Range(-4, 0.5).Draw(t, "elasticity"), 30, 0.3)
		b, err := Price(d, o)
		if err != nil {
			t.Fatal(err)
		}
		if b.Low > b.High+1e-9 || b.Low < b.Floor-1e-9 || b.Low < b.Current*(1-o.MaxStep)-1e-9 || b.High > max(b.Floor, b.Current*(1+o.MaxStep))+1e-9 {
			t.Fatalf("%+v", b)
		}
		if o.Cost > 0 && math.Abs(b.Floor-o.Cost*1.1) > 1e-9 {
			t.Fatalf("floor %g with a cost of %g", b.Floor, o.Cost)
		}
	})
}

func TestABandFollowsTheElasticity(t *testing.T) {
	o := DefaultPriceOptions()
	o.Cost = 8
	dear, err := Price(priced(1, 200, -0.3, 60, 0.25), o)
	if err != nil || dear.Low <= dear.Current {
		t.Errorf("who pays whatever it costs pays more: %+v: %v", dear, err)
	}
	cheap, err := Price(priced(1, 200, -5, 200, 0.25), o) // best: 8 · 5/4 = 10
	if err != nil || cheap.High >= cheap.Current {
		t.Errorf("who leaves when it costs more pays less: %+v: %v", cheap, err)
	}
}

func TestPricesThatDoNotVaryGiveNoBand(t *testing.T) {
	o := DefaultPriceOptions()
	steady := priced(1, 120, -1, 25, 0)
	once := priced(1, 120, -1, 25, 0)
	for i := range 3 {
		once[i+50].Price = 30
	}
	byDay := priced(1, 140, -1, 50, 0) // the price follows the day of the week exactly
	for i := range byDay {
		byDay[i].Price = 20 + float64(byDay[i].Day%7)
		byDay[i].Units = max(byDay[i].Units, 1)
	}
	for name, d := range map[string][]PriceDay{"steady": steady, "three days": once, "few units": priced(1, 120, -1, 0.1, 0.3), "few days": priced(1, 20, -1, 25, 0.3), "none": nil, "by the calendar": byDay} {
		if b, err := Price(d, o); !errors.Is(err, ErrVariation) {
			t.Errorf("%s: %+v: %v", name, b, err)
		}
	}
}

func TestTheRegressionHoldsOnAWorkedExample(t *testing.T) {
	// y = exp(1 + 2x) without noise.
	var x [][]float64
	var y []float64
	for i := range 20 {
		v := float64(i) / 10
		x, y = append(x, []float64{1, v, 0}), append(y, math.Exp(1+2*v))
	}
	beta, _, err := quasiPoisson(x, y)
	if err != nil || math.Abs(beta[0]-1) > 1e-6 || math.Abs(beta[1]-2) > 1e-6 || beta[2] != 0 {
		t.Errorf("%v: %v", beta, err)
	}
	for df, want := range map[int]float64{6: 2.447, 10: 2.228, 30: 2.042, 1000: 1.962} {
		if got := studentT95(df); math.Abs(got-want) > 0.02 {
			t.Errorf("t(%d) = %.3f, want %.3f", df, got, want)
		}
	}
	if x, v := minimise([]span{{0, 1}, {-2, 3}}, func(x []float64) float64 { return (x[0]-0.3)*(x[0]-0.3) + (x[1]-1)*(x[1]-1) }); v > 1e-6 || math.Abs(x[0]-0.3) > 1e-3 {
		t.Errorf("minimum %g at %v", v, x)
	}
}

func BenchmarkFit(b *testing.B) {
	hours := shop{rate: 2, burst: 2, weeks: 8}.hours(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Fit(hours, first, DefaultOptions()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStep(b *testing.B) {
	f, err := Fit(shop{rate: 2, burst: 2, weeks: 8}.hours(1), first, DefaultOptions())
	if err != nil {
		b.Fatal(err)
	}
	m := f.Model
	b.ReportAllocs()
	for b.Loop() {
		m = m.Step(2)
	}
}

func ExampleLead_StockOut() {
	l := Lead{Mean: 10, Variance: 20}
	fmt.Printf("%.2f %.2f\n", l.StockOut(10), l.StockOut(20))
	// Output: 0.41 0.02
}

func TestTheModelExplainsAnHourByItsLevelAndTheSeasonOfThatHour(t *testing.T) {
	season := make([]float32, Week)
	for i := range season {
		season[i] = float32(i) / Week
	}
	for _, c := range []struct {
		name string
		m    Model
		want float64
	}{
		{"multiplicative", Model{Kind: Multiplicative, Level: 168, Trend: 9, Phi: 0.9, Season: season, Hour: first + 400}, 5},
		{"additive", Model{Kind: Additive, Level: 1, Trend: 9, Phi: 0.9, Season: season, Hour: first + 400}, 1 + 5.0/Week},
		{"sparse", Model{Kind: Sparse, Level: 4, P: 0.25, Hour: first + 400}, 1},
	} {
		before := c.m
		if got := c.m.Explain(int64(5 + 3*Week)); math.Abs(got-c.want) > 1e-6 {
			t.Errorf("%s: %g, want %g", c.name, got, c.want)
		}
		if d := cmp.Diff(before, c.m); d != "" {
			t.Errorf("%s: explaining changed the model: %s", c.name, d)
		}
	}
}
