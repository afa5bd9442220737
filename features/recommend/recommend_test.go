package recommend

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const minute = int64(60_000_000)

// doing is one interaction.
type doing struct {
	basket, item string
	kind         Kind
	at           int64
}

// shop plants structure: items come in sets of four, of which visitors who like one like the others. Within all sets the first items are the most popular. Noise is
// what they look at besides.
func shop(seed uint64, visitors, items int, noise float64) []doing {
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func() int { u := r.Float64(); return int(u * u * float64(items)) }
	var out []doing
	for v := range visitors {
		liked := pick() / 4 * 4
		for step := range 3 + r.IntN(6) {
			item := liked + r.IntN(4)
			if r.Float64() < noise {
				item = pick()
			}
			out = append(out, doing{"v" + strconv.Itoa(v), fmt.Sprintf("sku-%03d", item), Kind(r.IntN(3)), (int64(step)*int64(visitors) + int64(v)) * minute})
		}
	}
	return out
}

func collected(t testing.TB, p Params, all []doing) *Collector {
	t.Helper()
	c := NewCollector(p)
	for _, d := range all {
		if err := c.Add(d.basket, d.item, d.kind, d.at); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func lists(t testing.TB, m *Model) map[string][]Neighbour {
	t.Helper()
	out := map[string][]Neighbour{}
	if err := m.Each(func(item string, ns []Neighbour) error { out[item] = ns; return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPlantedStructureIsFoundAndBeatsPopularity(t *testing.T) {
	p := DefaultParams()
	m, metrics, err := collected(t, p, shop(1, 3000, 200, 0.25)).Train(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", metrics)
	if ok, why := metrics.Better(p); !ok {
		t.Error(why)
	}
	if metrics.Recall < 2*metrics.PopularRecall || metrics.TestBaskets < 1000 || metrics.Coverage < 0.9 || metrics.PopularCoverage > 0.5 {
		t.Errorf("the structure is not found: %+v", metrics)
	}
	// The three others of a set are the nearest neighbours of a popular item.
	for _, item := range []int{0, 8, 20} {
		nearest := map[string]bool{}
		for _, n := range lists(t, m)[fmt.Sprintf("sku-%03d", item)][:3] {
			nearest[n.Item] = true
		}
		for other := range 4 {
			if name := fmt.Sprintf("sku-%03d", item/4*4+other); name != fmt.Sprintf("sku-%03d", item) && !nearest[name] {
				t.Errorf("the nearest of %d are %v, without %s", item, nearest, name)
			}
		}
	}
}

func TestWithoutStructureAModelIsNotBetterThanPopularity(t *testing.T) {
	p := DefaultParams()
	_, metrics, err := collected(t, p, shop(2, 1500, 60, 1)).Train(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if ok, why := metrics.Better(p); ok || !strings.Contains(why, "recall@20") {
		t.Errorf("%+v is said to be better: %t, %s", metrics, ok, why)
	}
}

func TestTheOrderOfInteractionsDoesNotMatter(t *testing.T) {
	p := DefaultParams()
	p.MaxInteractions, p.MaxItems, p.MaxBasket, p.MinTest = 900, 40, 5, 1
	all := shop(3, 400, 80, 0.5)
	want, wantMetrics, err := collected(t, p, all).Train(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if wantMetrics.Sampled != 0.5 && wantMetrics.Sampled != 0.25 {
		t.Errorf("a share of %v was kept; this test is about leaving baskets out", wantMetrics.Sampled)
	}
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 7))
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		got, metrics, err := collected(t, p, all).Train(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(lists(t, want), lists(t, got)); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(want.Popular, got.Popular); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(wantMetrics, metrics); diff != "" {
			t.Fatal(diff)
		}
	}
}

// naive is the definition, pair by pair.
func naive(c *Collector, p Params) map[string]map[string]float64 {
	d := c.between(math.MinInt64, c.end())
	strength := func(b basket, i uint32) float64 {
		for _, e := range b.items {
			if e.item == i {
				return float64(e.strength)
			}
		}
		return 0
	}
	out := map[string]map[string]float64{}
	for i := range d.names {
		for j := range d.names {
			var dot, ni, nj, n float64
			for _, b := range d.baskets {
				w, ri, rj := 1/math.Sqrt(float64(len(b.items))), strength(b, uint32(i)), strength(b, uint32(j))
				dot, ni, nj = dot+w*ri*rj, ni+w*ri*ri, nj+w*rj*rj
				if ri > 0 && rj > 0 {
					n++
				}
			}
			if i != j && n >= float64(p.MinSupport) {
				if out[d.names[i]] == nil {
					out[d.names[i]] = map[string]float64{}
				}
				out[d.names[i]][d.names[j]] = dot / math.Sqrt(ni*nj) * n / (n + p.Shrinkage)
			}
		}
	}
	return out
}

func TestSimilaritiesAreThoseOfTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := DefaultParams()
		p.MinSupport = rapid.IntRange(1, 3).Draw(t, "support")
		p.Shrinkage = float64(rapid.IntRange(0, 5).Draw(t, "shrinkage"))
		p.MaxBasket = rapid.IntRange(2, 8).Draw(t, "basket")
		c := NewCollector(p)
		for range rapid.IntRange(0, 80).Draw(t, "interactions") {
			b, i := rapid.IntRange(0, 8).Draw(t, "b"), rapid.IntRange(0, 9).Draw(t, "i")
			if err := c.Add(strconv.Itoa(b), strconv.Itoa(i), Kind(rapid.IntRange(0, 2).Draw(t, "kind")), rapid.Int64Range(0, 50*24*60).Draw(t, "at")*minute); err != nil {
				t.Fatal(err)
			}
		}
		m, _, err := c.Train(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := naive(c, p)
		got := map[string]map[string]float64{}
		if err := m.Each(func(item string, ns []Neighbour) error {
			got[item] = map[string]float64{}
			for i, n := range ns {
				got[item][n.Item] = n.Score
				if i > 0 && ns[i-1].Score < n.Score {
					t.Fatalf("neighbours of %s are out of order: %v", item, ns)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			for j, w := range want[i] {
				if g := got[i][j]; math.Abs(g-w) > 2e-5 {
					t.Fatalf("similarity of %s and %s is %v, want %v", i, j, g, w)
				}
			}
			if len(got[i]) != len(want[i]) {
				t.Fatalf("%s has neighbours %v, want %v", i, got[i], want[i])
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d items with neighbours, want %d", len(got), len(want))
		}
	})
}

func TestLimitsHold(t *testing.T) {
	p := DefaultParams()
	p.MaxItems, p.Neighbours = 10, 3
	c := collected(t, p, shop(4, 500, 100, 0.7))
	m, metrics, err := c.Train(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if metrics.Items > 10 {
		t.Errorf("%d items", metrics.Items)
	}
	for item, ns := range lists(t, m) {
		if len(ns) > 3 {
			t.Errorf("%s has %d neighbours", item, len(ns))
		}
	}

	c = NewCollector(DefaultParams())
	for i := range maxDistinct {
		c.names = append(c.names, "")
		_ = i
	}
	if err := c.Add("v", "one more", View, 0); !errors.Is(err, ErrTooManyItems) {
		t.Errorf("got %v", err)
	}
	c = NewCollector(DefaultParams())
	for _, d := range []doing{{"", "i", View, 1}, {"v", "", View, 1}, {"v", strings.Repeat("x", 129), View, 1}, {"v", "i", kinds, 1}} {
		if err := c.Add(d.basket, d.item, d.kind, d.at); err != nil || c.Interactions() != 0 {
			t.Errorf("%+v was taken: %v", d, err)
		}
	}
}

func TestNothingAndNextToNothingTrain(t *testing.T) {
	p := DefaultParams()
	for what, all := range map[string][]doing{"nothing": nil, "one": {{"v", "i", View, 1}}, "one moment": {{"v", "i", View, 1}, {"w", "i", View, 1}, {"v", "j", Cart, 1}}} {
		m, metrics, err := collected(t, p, all).Train(t.Context())
		if err != nil || len(lists(t, m)) != 0 {
			t.Errorf("%s: %v %v", what, m, err)
		}
		if ok, why := metrics.Better(p); ok || why == "" {
			t.Errorf("%s is said to be better", what)
		}
	}
}

func TestOldInteractionsCountLess(t *testing.T) {
	p := DefaultParams()
	p.MinSupport, p.HalfLife = 1, 24*time.Hour
	day := 24 * 60 * minute
	var all []doing
	for v := range 20 { // a goes with b of late, with c long ago
		name := strconv.Itoa(v)
		all = append(all, doing{"n" + name, "a", View, 30 * day}, doing{"n" + name, "b", View, 30 * day}, doing{"o" + name, "a", View, 20 * day}, doing{"o" + name, "c", View, 20 * day}, doing{"p" + name, "c", View, 30 * day})
	}
	m, _, err := collected(t, p, all).Train(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a := lists(t, m)["a"]; len(a) != 2 || a[0].Item != "b" || a[0].Score < 10*a[1].Score {
		t.Errorf("%v", a)
	}
}

func TestParamsListEveryProblem(t *testing.T) {
	if err := DefaultParams().Validate(); err != nil {
		t.Fatal(err)
	}
	err := Params{Weights: [3]float64{math.NaN(), -1, 0}, HoldOut: 1, Shrinkage: math.Inf(1)}.Validate()
	if err == nil || strings.Count(err.Error(), "\n") < 10 {
		t.Errorf("%v", err)
	}
}

func BenchmarkTrain(b *testing.B) {
	all := shop(9, 100_000, 10_000, 0.5)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := collected(b, DefaultParams(), all).Train(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(all)), "interactions")
}
