package recommend

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"
)

// maxDistinct bounds the item ids that are remembered while interactions are collected: far above any catalogue, so that ids made up by somebody end the training and
// not the process.
const maxDistinct = 2_000_000

// maxItemBytes is the longest item id that takes part; longer ones are passed over.
const maxItemBytes = 128

// ErrTooManyItems says that the events name more items than any shop has.
var ErrTooManyItems = errors.New("more than 2,000,000 distinct item ids: are they made up, or do they carry something that changes with every event?")

// interaction is one basket's doing with one item at one time.
type interaction struct {
	basket uint64 // hash of its key
	at     int64  // µs
	item   uint32
	kind   Kind
}

// Collector takes interactions in any order.
type Collector struct {
	p      Params
	items  map[string]uint32
	names  []string
	all    []interaction
	level  int   // baskets whose hash begins with fewer zero bits are left out
	Taken  int64 // interactions that were offered
	newest int64
}

// NewCollector makes a collector; p must be valid.
func NewCollector(p Params) *Collector {
	return &Collector{p: p, items: map[string]uint32{}, newest: math.MinInt64}
}

// Add takes one interaction: basket is the key of its basket (a visitor or session, with the tenant if there are several), at its time in µs. The strings may be reused
// after the call. The order of calls does not matter: which baskets are left out when there are too many interactions follows from their hashes alone.
func (c *Collector) Add(basket, item string, kind Kind, at int64) error {
	if basket == "" || item == "" || len(item) > maxItemBytes || kind >= kinds {
		return nil
	}
	c.Taken++
	c.newest = max(c.newest, at)
	h := xxh3.HashString(basket)
	if !c.kept(h) {
		return nil
	}
	id, ok := c.items[item]
	if !ok {
		if len(c.names) >= maxDistinct {
			return ErrTooManyItems
		}
		id = uint32(len(c.names))
		name := strings.Clone(item)
		c.items[name], c.names = id, append(c.names, name)
	}
	c.all = append(c.all, interaction{basket: h, at: at, item: id, kind: kind})
	for len(c.all) > c.p.MaxInteractions && c.level < 63 {
		c.level++
		c.all = slices.DeleteFunc(c.all, func(x interaction) bool { return !c.kept(x.basket) })
	}
	return nil
}

func (c *Collector) kept(h uint64) bool { return h>>(64-c.level) == 0 || c.level == 0 }

// Sampled is the share of the baskets that was kept.
func (c *Collector) Sampled() float64 { return math.Pow(2, -float64(c.level)) }

// Newest is the time of the newest interaction, in µs; false if there was none.
func (c *Collector) Newest() (int64, bool) { return c.newest, c.newest != math.MinInt64 }

// Interactions is how many were kept.
func (c *Collector) Interactions() int { return len(c.all) }

// data is what a model is fitted to: baskets of items with their strengths, in an order that does not depend on that of the interactions.
type data struct {
	names   []string // by item, in lexical order
	baskets []basket
	pop     []float64 // Σ of the strengths of an item
	count   []int32   // baskets that hold it
}

type basket struct {
	key   uint64
	items []entry // by item
}

type entry struct {
	item     uint32
	strength float32
}

// sorted brings the interactions into their order, and items to that of their names. It may be called once.
func (c *Collector) sorted() {
	order := make([]uint32, len(c.names))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return strings.Compare(c.names[a], c.names[b]) })
	to := make([]uint32, len(order))
	names := make([]string, len(order))
	for n, old := range order {
		to[old], names[n] = uint32(n), c.names[old]
	}
	c.names, c.items = names, nil
	for i := range c.all {
		c.all[i].item = to[c.all[i].item]
	}
	slices.SortFunc(c.all, func(a, b interaction) int {
		return cmp.Or(cmp.Compare(a.basket, b.basket), cmp.Compare(a.item, b.item), cmp.Compare(a.at, b.at), cmp.Compare(a.kind, b.kind))
	})
}

// between makes the data of the interactions with from ≤ at < to, with their age counted to `to`.
func (c *Collector) between(from, to int64) *data {
	d := &data{names: c.names, pop: make([]float64, len(c.names)), count: make([]int32, len(c.names))}
	half := float64(c.p.HalfLife.Microseconds())
	for i := 0; i < len(c.all); {
		b := basket{key: c.all[i].basket}
		for i < len(c.all) && c.all[i].basket == b.key {
			item, sum := c.all[i].item, 0.0
			for i < len(c.all) && c.all[i].basket == b.key && c.all[i].item == item {
				if x := c.all[i]; x.at >= from && x.at < to {
					sum += c.p.Weights[x.kind] * math.Exp2(-float64(to-x.at)/half)
				}
				i++
			}
			if sum > 0 {
				b.items = append(b.items, entry{item, float32(math.Log1p(sum))})
			}
		}
		if len(b.items) > c.p.MaxBasket {
			strongest(b.items)
			b.items = b.items[:c.p.MaxBasket]
			slices.SortFunc(b.items, func(x, y entry) int { return cmp.Compare(x.item, y.item) })
		}
		if len(b.items) > 0 {
			b.items = slices.Clip(b.items)
			d.baskets = append(d.baskets, b)
		}
	}
	for _, b := range d.baskets {
		for _, e := range b.items {
			d.pop[e.item] += float64(e.strength)
			d.count[e.item]++
		}
	}
	d.limit(c.p.MaxItems)
	return d
}

// strongest sorts entries by strength, the greatest first.
func strongest(es []entry) {
	slices.SortFunc(es, func(x, y entry) int { return cmp.Or(cmp.Compare(y.strength, x.strength), cmp.Compare(x.item, y.item)) })
}

// limit leaves the items that are in most baskets.
func (d *data) limit(most int) {
	present := 0
	for _, n := range d.count {
		if n > 0 {
			present++
		}
	}
	if present <= most {
		return
	}
	order := make([]uint32, len(d.names))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Or(cmp.Compare(d.count[b], d.count[a]), cmp.Compare(a, b)) })
	out := make([]bool, len(d.names))
	for _, i := range order[most:] {
		out[i], d.count[i], d.pop[i] = true, 0, 0
	}
	for i := range d.baskets {
		b := &d.baskets[i]
		b.items = slices.DeleteFunc(b.items, func(e entry) bool { return out[e.item] })
	}
	d.baskets = slices.DeleteFunc(d.baskets, func(b basket) bool { return len(b.items) == 0 })
}

// String says what was collected.
func (c *Collector) String() string {
	return fmt.Sprintf("%d interactions of %d items, of a share of %g of the baskets", len(c.all), len(c.names), c.Sampled())
}
