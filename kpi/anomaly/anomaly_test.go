package anomaly

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var verbose = flag.Bool("incidents", false, "print each planted incident that was missed and each alert that was none")

// season is all days of a series in memory.
type season [7]*Day

// Day implements Season.
func (s *season) Day(w int) *Day { return s[w] }

// shop makes the minutes of a KPI: a daily and a weekly season, a level that wanders from day to day, noise that is correlated over minutes, arrivals that are independent, or
// money of orders that differ in size.
type shop struct {
	rng   *rand.Rand
	kind  Kind
	rate  float64 // a minute on average
	noise float64 // of the rate, correlated
	swing float64 // of the day
	drift float64 // at the last midnight
	next  float64 // and the next
	ar    float64
}

func (g *shop) minute(m int64, factor float64) float64 {
	if m%1440 == 0 {
		g.drift, g.next = g.next, 0.7*g.next+g.rng.NormFloat64()*0.05
	}
	g.ar = 0.8*g.ar + 0.6*g.rng.NormFloat64()*g.noise
	day := float64(m%1440) / 1440
	factors := [...]float64{1, 1, 1.05, 0.95, 1.1, 1.35, 0.75} // at the days' beginnings, and in between a line
	week := factors[m/1440%7]*(1-day) + factors[(m/1440+1)%7]*day
	drift := g.drift*(1-day) + g.next*day
	rate := g.rate * week * (1 + g.swing*math.Sin(2*math.Pi*(day-0.4)) + 0.25*g.swing*math.Sin(4*math.Pi*day)) * math.Exp(drift+g.ar) * factor
	n := poisson(g.rng, max(0, rate))
	if g.kind == Counts {
		return n
	}
	total := 0.0
	for range int(n) {
		total += math.Exp(3.5 + 0.7*g.rng.NormFloat64())
	}
	return total
}

func poisson(rng *rand.Rand, mean float64) float64 {
	if mean > 60 {
		return max(0, math.Round(mean+math.Sqrt(mean)*rng.NormFloat64()))
	}
	n, p, limit := 0.0, rng.Float64(), math.Exp(-mean)
	for p > limit {
		p *= rng.Float64()
		n++
	}
	return n
}

// planted is an incident that was put into a series.
type planted struct {
	from, to int64
	factor   float64
}

// plant spreads incidents over [from, to), some hours apart.
func plant(rng *rand.Rand, from, to int64, strong bool) []planted {
	var out []planted
	for at := from + rng.Int64N(600); at < to-120; at += 350 + rng.Int64N(850) {
		length := 10 + rng.Int64N(50)
		factors := []float64{0, 0.2, 0.4, 0.5, 1.7, 2, 3}
		if strong {
			factors = []float64{0, 0, 0.1, 2.5, 3, 4}
		}
		out = append(out, planted{at, at + length, factors[rng.IntN(len(factors))]})
	}
	return out
}

type tally struct{ planted, found, alerts, right int }

func (t tally) recall() float64    { return float64(t.found) / float64(t.planted) }
func (t tally) precision() float64 { return float64(t.right) / float64(t.alerts) }

func (t tally) plus(o tally) tally {
	return tally{t.planted + o.planted, t.found + o.found, t.alerts + o.alerts, t.right + o.right}
}

const (
	testWeeks = 5
	seeds     = 3
)

// play gives five weeks of a series to the detector, the last three of them with incidents, and counts what was found. An alert is right if it is for an incident, in its
// direction, that no other alert was for, and not later than 15 minutes after its end.
func play(t *testing.T, g *shop, strong bool) (tally, []int64) {
	t.Helper()
	var h Head
	var s season
	cfg := DefaultConfig()
	start := int64(28_000_000 / 10080 * 10080) // a Thursday
	plants := plant(g.rng, start+2*10080, start+testWeeks*10080, strong)
	out := tally{planted: len(plants)}
	found := make([]bool, len(plants))
	var delays []int64
	next := 0
	for m := start; m < start+testWeeks*10080; m++ {
		factor := 1.0
		for next < len(plants) && m >= plants[next].to {
			next++
		}
		if next < len(plants) && m >= plants[next].from {
			factor = plants[next].factor
		}
		state, weekday, learned := h.Step(cfg, g.kind, &s, m, m, g.minute(m-start, factor))
		if learned != nil {
			s[weekday] = learned
		}
		if state != Opened {
			continue
		}
		in, open := h.Incident()
		if !open {
			t.Fatal("an incident begins that there is not")
		}
		out.alerts++
		hit := false
		for i, p := range plants {
			if m >= p.from && m < p.to+15 && in.Drop == (p.factor < 1) && !found[i] {
				found[i], hit = true, true
				out.found++
				out.right++
				delays = append(delays, m-p.from)
			}
		}
		if !hit && *verbose {
			t.Logf("none: %+v", in)
		}
	}
	for i, p := range plants {
		if !found[i] && *verbose {
			t.Logf("missed: %+v", p)
		}
	}
	return out, delays
}

func TestPlantedDropsAndSpikesAreFoundAndLittleElse(t *testing.T) {
	t.Parallel()
	var all tally
	for _, c := range []struct {
		name              string
		kind              Kind
		rate, noise       float64
		strong            bool
		precision, recall float64
	}{
		{"2000 page views a minute", Counts, 2000, 0.05, false, 0.9, 0.9},
		{"200 carts a minute", Counts, 200, 0.05, false, 0.9, 0.9},
		{"30 orders a minute", Counts, 30, 0.05, false, 0.9, 0.9},
		{"30 orders a minute, in money", Amounts, 30, 0.05, false, 0.9, 0.85},
		{"5 orders a minute, out or beyond double", Counts, 5, 0.05, true, 0.9, 0.8},
		{"an order a minute, out or beyond double: too few to tell soon", Counts, 1, 0.05, true, 0.7, 0.1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sum tally
			var delays []float32
			for seed := range uint64(seeds) {
				g := &shop{rng: rand.New(rand.NewPCG(seed, uint64(c.rate))), kind: c.kind, rate: c.rate, noise: c.noise, swing: 0.6}
				one, d := play(t, g, c.strong)
				sum = sum.plus(one)
				for _, v := range d {
					delays = append(delays, float32(v))
				}
			}
			if sum.alerts == 0 || len(delays) == 0 {
				t.Fatal("nothing was found")
			}
			t.Logf("%d planted: precision %.3f, recall %.3f, median %.0f minutes until told; %d false alerts in %d weeks", sum.planted, sum.precision(), sum.recall(), median(delays), sum.alerts-sum.right, seeds*testWeeks)
			if sum.planted < 100 || sum.precision() < c.precision || sum.recall() < c.recall {
				t.Errorf("less than precision %.2f and recall %.2f of 100", c.precision, c.recall)
			}
			if !c.strong {
				all = all.plus(sum)
			}
		})
	}
	t.Logf("together, but for the two smallest: %d planted, precision %.3f, recall %.3f", all.planted, all.precision(), all.recall())
	if all.precision() < 0.9 || all.recall() < 0.9 {
		t.Error("less than 0.9")
	}
}

// learnt is a head that knows three weeks of a constant rate.
func learnt(t *testing.T, rate float64) (h Head, s *season, at int64, g *shop) {
	t.Helper()
	g = &shop{rng: rand.New(rand.NewPCG(7, 7)), rate: rate, swing: 0.3}
	s, at = &season{}, 1
	for ; at < 3*10080; at++ {
		if state, weekday, learned := h.Step(DefaultConfig(), Counts, s, at, at, g.minute(at, 1)); learned != nil {
			s[weekday] = learned
		} else if state == Opened {
			t.Logf("minute %d: %+v", at, h.incident)
		}
	}
	return h, s, at, g
}

func TestAnIncidentIsToldOnceFromItsBeginningToItsEnd(t *testing.T) {
	t.Parallel()
	h, s, at, g := learnt(t, 100)
	run := func(minutes int64, factor float64) (states []State) {
		for end := at + minutes; at < end; at++ {
			state, weekday, learned := h.Step(DefaultConfig(), Counts, s, at, at, g.minute(at, factor))
			if learned != nil {
				s[weekday] = learned
			}
			if len(states) == 0 || states[len(states)-1] != state {
				states = append(states, state)
			}
		}
		return states
	}
	same := func(what string, got, want []State) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	begin := at
	same("a drop", run(20, 0), []State{Calm, Opened, Extended})
	in, open := h.Incident()
	if !open || in.Start != begin || !in.Drop || in.Observed != 0 || in.Low <= 0 || in.High <= in.Low || in.Expected < in.Low || in.Expected > in.High {
		t.Errorf("%+v, it began at %d", in, begin)
	}
	same("its end", run(10, 1), []State{Quiet, Closed, Calm})
	same("again, within the cool-down", run(5, 0), []State{Calm, Extended})
	same("its end again", run(10, 1), []State{Quiet, Closed, Calm})
	same("after it", run(60, 1), []State{Calm})
	same("another", run(5, 3), []State{Calm, Opened, Extended})
	if in, _ := h.Incident(); in.Drop {
		t.Errorf("%+v is a rise", in)
	}
	same("a new normal", run(400, 3), []State{Extended, Closed, Calm})
	same("which it stays", run(2000, 3), []State{Calm})
}

func TestAMinuteOffIsNoIncidentAndASilenceOfDaysIsForgotten(t *testing.T) {
	t.Parallel()
	h, s, at, g := learnt(t, 100)
	step := func(factor float64) State {
		state, weekday, learned := h.Step(DefaultConfig(), Counts, s, at, at, g.minute(at, factor))
		if learned != nil {
			s[weekday] = learned
		}
		at++
		return state
	}
	for i := range 60 {
		factor := 1.0
		if i%20 == 10 {
			factor = 0
		}
		if got := step(factor); got != Calm {
			t.Errorf("minute %d: state %d", i, got)
		}
	}
	at += 3 * 1440
	for i := range 200 { // at another level
		if got := step(0.5); got != Calm {
			t.Errorf("minute %d after a silence: state %d", i, got)
		}
	}
}

func TestASeriesComesBackAsItWas(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		g := &shop{rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)), rate: rapid.Float64Range(0, 300).Draw(t, "rate"), noise: 0.1, swing: 0.5}
		every := int64(rapid.IntRange(1, 700).Draw(t, "every"))
		var a, b Head
		var sa, sb season
		for m := int64(100_000); m < 100_000+5*1440; m++ {
			x := g.minute(m, 1)
			if m%1000 > 970 {
				x *= 5
			}
			s1, w1, l1 := a.Step(DefaultConfig(), Counts, &sa, m, m, x)
			s2, w2, l2 := b.Step(DefaultConfig(), Counts, &sb, m, m, x)
			if s1 != s2 || w1 != w2 || (l1 == nil) != (l2 == nil) {
				t.Fatalf("minute %d: states %d and %d", m, s1, s2)
			}
			if l1 != nil {
				sa[w1] = l1
				back, err := DecodeDay(l2.Append(nil))
				if err != nil || *back != *l1 {
					t.Fatalf("a day comes back otherwise: %v", err)
				}
				sb[w2] = back
			}
			if m%every == 0 {
				text := b.Append(nil)
				var err error
				if b, err = DecodeHead(text); err != nil || len(text) != HeadBytes {
					t.Fatalf("%d bytes: %v", len(text), err)
				}
			}
		}
		if a != b {
			t.Fatal("heads differ")
		}
	})
	t.Logf("a series takes %d + 7 × %d bytes", HeadBytes, DayBytes)
}

func FuzzSeries(f *testing.F) {
	var h Head
	f.Add(h.Append(nil))
	f.Add((&Day{}).Append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := DecodeHead(data); err == nil {
			var s season
			for m := range int64(40) {
				h.Step(DefaultConfig(), Counts, &s, h.at+1, m, 3)
			}
			if _, err := DecodeHead(h.Append(nil)); err != nil {
				t.Error(err)
			}
		}
		if d, err := DecodeDay(data); err == nil {
			if again, err := DecodeDay(d.Append(nil)); err != nil || *again != *d {
				t.Error(err)
			}
		}
	})
}

func TestConfigReportsEveryProblem(t *testing.T) {
	t.Parallel()
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Open: 1, Close: 20, Effect: -1, Calm: 0, Cooldown: -1, Longest: time.Minute}.Validate()
	want := "open: 1 is not between 3 and 50\nclose: 20 is not between 0.5 and 10\nclose: 20 is not below open, which is 1\neffect: -1 is not between 0 and 10\ncalm: 0s is not between 1m0s and 1h0m0s\ncooldown: -1ns is not between 0s and 24h0m0s\nlongest: 1m0s is not between 30m0s and 168h0m0s"
	if d := cmp.Diff(want, fmt.Sprint(err)); d != "" {
		t.Error(d)
	}
}

func BenchmarkStep(b *testing.B) {
	var h Head
	var s season
	g := &shop{rng: rand.New(rand.NewPCG(7, 7)), rate: 50, noise: 0.05, swing: 0.5}
	at := int64(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, weekday, learned := h.Step(DefaultConfig(), Counts, &s, at, at, g.minute(at, 1)); learned != nil {
			s[weekday] = learned
		}
		at++
	}
}
