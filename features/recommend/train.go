package recommend

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// Metrics are measured on interactions that the model has not seen: it is fitted to the first ones by time and asked for what the same baskets did next.
type Metrics struct {
	Baskets           int     `json:"baskets"`            // of the whole model
	Items             int     `json:"items"`              // of the whole model, with at least one neighbour
	TestBaskets       int     `json:"test_baskets"`       // that had items before the split and new ones after it
	Recall            float64 `json:"recall"`             // mean over test baskets of hits / min(top, new items) among the first `top` recommended
	PopularRecall     float64 `json:"popular_recall"`     // the same for the most popular items, recommended to everybody
	Coverage          float64 `json:"coverage"`           // share of the items that were recommended to somebody
	PopularCoverage   float64 `json:"popular_coverage"`   //
	HitRate           float64 `json:"hit_rate"`           // share of the test baskets with a hit
	Sampled           float64 `json:"sampled"`            // share of the baskets that took part
	SplitAt           int64   `json:"split_at"`           // µs
	Interactions      int     `json:"interactions"`       //
	MeanNeighbours    float64 `json:"mean_neighbours"`    // of an item that has any
	TestInteractions  int     `json:"test_interactions"`  //
	TrainInteractions int     `json:"train_interactions"` //
}

// Better says whether the model is worth publishing; if not, why.
func (m Metrics) Better(p Params) (bool, string) {
	switch {
	case m.Items == 0:
		return false, "no two items met in enough baskets"
	case m.TestBaskets < p.MinTest:
		return false, fmt.Sprintf("%d baskets did something new in the held-back time, %d are needed to measure it", m.TestBaskets, p.MinTest)
	case m.Recall <= m.PopularRecall:
		return false, fmt.Sprintf("recall@%d is %.4f, that of the most popular items %.4f", p.Top, m.Recall, m.PopularRecall)
	}
	return true, ""
}

// Model is what is published.
type Model struct {
	Popular []Neighbour // for who has no neighbours
	names   []string
	lists   [][]neighbour
}

// Each calls f with every item that has neighbours, in lexical order, until f fails. The list may be kept.
func (m *Model) Each(f func(item string, neighbours []Neighbour) error) error {
	for i, l := range m.lists {
		if len(l) == 0 {
			continue
		}
		out := make([]Neighbour, len(l))
		for k, n := range l {
			out[k] = Neighbour{m.names[n.item], round(n.score)}
		}
		if err := f(m.names[i], out); err != nil {
			return err
		}
	}
	return nil
}

// round keeps five digits: a model is compared by its bytes.
func round(v float32) float64 { return math.Round(float64(v)*1e5) / 1e5 }

// Train measures a model on the last interactions and fits it to all. The collector is used up. A collector without interactions gives an empty model.
func (c *Collector) Train(ctx context.Context) (*Model, Metrics, error) {
	c.sorted()
	m := Metrics{Sampled: c.Sampled(), Interactions: len(c.all)}
	if err := c.measure(ctx, &m); err != nil {
		return nil, m, err
	}
	d := c.between(math.MinInt64, c.end())
	f, err := d.fit(ctx, c.p)
	if err != nil {
		return nil, m, err
	}
	m.Baskets = len(d.baskets)
	total := 0
	for _, l := range f.lists {
		if len(l) > 0 {
			m.Items++
			total += len(l)
		}
	}
	if m.Items > 0 {
		m.MeanNeighbours = float64(total) / float64(m.Items)
	}
	out := &Model{names: f.names, lists: f.lists}
	for _, n := range f.popular[:min(len(f.popular), max(c.p.Top, 100))] {
		out.Popular = append(out.Popular, Neighbour{f.names[n.item], round(n.score)})
	}
	return out, m, nil
}

// end is just after the newest interaction.
func (c *Collector) end() int64 {
	if c.newest == math.MinInt64 {
		return 0
	}
	return c.newest + 1
}

// split is the time before which the first interactions are that the model is fitted to when it is measured.
func (c *Collector) split() int64 {
	at := make([]int64, len(c.all))
	for i, x := range c.all {
		at[i] = x.at
	}
	slices.Sort(at)
	return at[min(int(float64(len(at))*(1-c.p.HoldOut)), len(at)-1)]
}

func (c *Collector) measure(ctx context.Context, m *Metrics) error {
	if len(c.all) == 0 {
		return nil
	}
	m.SplitAt = c.split()
	for _, x := range c.all {
		if x.at < m.SplitAt {
			m.TrainInteractions++
		} else {
			m.TestInteractions++
		}
	}
	train := c.between(math.MinInt64, m.SplitAt)
	f, err := train.fit(ctx, c.p)
	if err != nil {
		return err
	}
	after := map[uint64][]entry{}
	for _, b := range c.between(m.SplitAt, c.end()).baskets {
		after[b.key] = b.items
	}
	known := 0
	for _, n := range train.count {
		if n > 0 {
			known++
		}
	}
	sum := make([]float32, len(c.names))
	shown, shownPopular := map[uint32]bool{}, map[uint32]bool{}
	var recall, popular float64
	for _, b := range train.baskets {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		want := map[uint32]bool{}
		for _, e := range after[b.key] {
			if train.count[e.item] > 0 && !holds(b.items, e.item) {
				want[e.item] = true
			}
		}
		if len(want) == 0 {
			continue
		}
		m.TestBaskets++
		list := f.recommend(b.items, c.p.Top, sum)
		hits := hitsOf(list, want, shown)
		recall += float64(hits) / float64(min(c.p.Top, len(want)))
		if hits > 0 {
			m.HitRate++
		}
		popular += float64(hitsOf(f.mostPopular(b.items, c.p.Top), want, shownPopular)) / float64(min(c.p.Top, len(want)))
	}
	if m.TestBaskets > 0 {
		n := float64(m.TestBaskets)
		m.Recall, m.PopularRecall, m.HitRate = recall/n, popular/n, m.HitRate/n
		m.Coverage, m.PopularCoverage = float64(len(shown))/float64(known), float64(len(shownPopular))/float64(known)
	}
	return nil
}

// mostPopular gives the n most popular items that are not in a basket.
func (m *fitted) mostPopular(have []entry, n int) []uint32 {
	out := make([]uint32, 0, n)
	for _, p := range m.popular {
		if len(out) == n {
			break
		}
		if !holds(have, p.item) {
			out = append(out, p.item)
		}
	}
	return out
}

// holds looks an item up in a basket, which is in the order of items.
func holds(items []entry, item uint32) bool {
	_, ok := slices.BinarySearchFunc(items, item, func(e entry, want uint32) int { return int(int64(e.item) - int64(want)) })
	return ok
}

func hitsOf(list []uint32, want map[uint32]bool, shown map[uint32]bool) int {
	hits := 0
	for _, i := range list {
		shown[i] = true
		if want[i] {
			hits++
		}
	}
	return hits
}
