package recommend

import (
	"cmp"
	"context"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Neighbour is an item and how much it is to be recommended.
type Neighbour struct {
	Item  string  `json:"item"`
	Score float64 `json:"score"`
}

// neighbour is the same while a model is fitted.
type neighbour struct {
	item  uint32
	score float32
}

// fitted is a model whose items are numbers.
type fitted struct {
	names   []string
	lists   [][]neighbour // by item, the most similar first; nil: none
	popular []neighbour   // most popular first, all items
}

// fit computes the similarities.
func (d *data) fit(ctx context.Context, p Params) (*fitted, error) {
	// Baskets by item, as offsets into one list.
	start := make([]int32, len(d.names)+1)
	for _, b := range d.baskets {
		for _, e := range b.items {
			start[e.item+1]++
		}
	}
	for i := range d.names {
		start[i+1] += start[i]
	}
	holders := make([]int32, start[len(d.names)])
	own := make([]float32, len(holders)) // the item's strength there
	fill := slices.Clone(start[:len(d.names)])
	norm := make([]float64, len(d.names))
	weight := make([]float64, len(d.baskets))
	for n, b := range d.baskets {
		weight[n] = 1 / math.Sqrt(float64(len(b.items)))
		for _, e := range b.items {
			holders[fill[e.item]], own[fill[e.item]] = int32(n), e.strength
			fill[e.item]++
			norm[e.item] += weight[n] * float64(e.strength) * float64(e.strength)
		}
	}
	for i := range norm {
		norm[i] = math.Sqrt(norm[i])
	}
	out := &fitted{names: d.names, lists: make([][]neighbour, len(d.names)), popular: d.popularity()}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 4) {
		wg.Go(func() {
			dot, both := make([]float64, len(d.names)), make([]int32, len(d.names))
			var touched []uint32
			for {
				i := int(next.Add(1) - 1)
				if i >= len(d.names) || ctx.Err() != nil {
					return
				}
				// The order of a sum's terms is that of the baskets, whoever computes it: the same bits everywhere.
				for at := start[i]; at < start[i+1]; at++ {
					n := holders[at]
					f := weight[n] * float64(own[at])
					for _, e := range d.baskets[n].items {
						if int(e.item) == i {
							continue
						}
						if both[e.item] == 0 {
							touched = append(touched, e.item)
						}
						both[e.item]++
						dot[e.item] += f * float64(e.strength)
					}
				}
				var list []neighbour
				for _, j := range touched {
					n := float64(both[j])
					if both[j] >= int32(p.MinSupport) {
						list = append(list, neighbour{j, float32(dot[j] / (norm[i] * norm[j]) * n / (n + p.Shrinkage))})
					}
					dot[j], both[j] = 0, 0
				}
				touched = touched[:0]
				out.lists[i] = slices.Clone(best(list, p.Neighbours))
			}
		})
	}
	wg.Wait()
	return out, ctx.Err()
}

// best sorts by score, the greatest first and equal ones by item, and gives the first n.
func best(list []neighbour, n int) []neighbour {
	slices.SortFunc(list, func(a, b neighbour) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.item, b.item)) })
	return list[:min(n, len(list))]
}

// popularity lists the items by the strengths of all baskets.
func (d *data) popularity() []neighbour {
	var out []neighbour
	for i, v := range d.pop {
		if v > 0 {
			out = append(out, neighbour{uint32(i), float32(v)})
		}
	}
	return best(out, len(out))
}

// recommend gives the n best items for a basket, without those in it. sum is scratch of the size of the items, all zero, and is so again afterwards.
func (m *fitted) recommend(have []entry, n int, sum []float32) []uint32 {
	var touched []uint32
	for _, e := range have {
		for _, nb := range m.lists[e.item] {
			if sum[nb.item] == 0 {
				touched = append(touched, nb.item)
			}
			sum[nb.item] += e.strength * nb.score
		}
	}
	for _, e := range have {
		sum[e.item] = 0
	}
	var list []neighbour
	for _, j := range touched {
		if sum[j] > 0 {
			list = append(list, neighbour{j, sum[j]})
			sum[j] = 0
		}
	}
	out := make([]uint32, 0, n)
	for _, nb := range best(list, n) {
		out = append(out, nb.item)
	}
	return out
}
