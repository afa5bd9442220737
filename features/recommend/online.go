package recommend

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/zeebo/xxh3"
)

// Online is how the stream learns which items go together, beside the model of the night.
type Online struct {
	HalfLife   time.Duration // after which what happened counts half
	Neighbours int           // kept of an item, for views and for orders each
	Popular    int           // kept of a tenant, a category, a country
	Recent     int           // items of a session that are kept
	Gap        time.Duration // silence after which a session is another
	Shrinkage  float64       // λ, in weights: two items that met once are not alike
}

// DefaultOnline forgets half within three days.
func DefaultOnline() Online {
	return Online{HalfLife: 72 * time.Hour, Neighbours: 24, Popular: 100, Recent: 8, Gap: 30 * time.Minute, Shrinkage: 3}
}

// Together is what was looked at in the same sessions as an item, and what was bought in the same orders. The total of each list is how often that happened to the item
// itself.
type Together struct {
	Views  Ranked
	Orders Ranked
}

// Step is what one look at an item adds to the lists.
type Step struct {
	Target string   // whose list is added to
	Others []string // what is added, with these weights
	Weight []float64
	Count  bool // the look counts in the total of the target's views
}

// Look says what a look at item adds, after the session's earlier items, the last first. Of the two lists that a pair belongs to, one is chosen by the bits of hash, which
// are to be as good as random: half the writes, and the same expectation. buf is reused.
func Look(item string, earlier []string, hash uint64, buf *Step) *Step {
	buf.Others, buf.Weight, buf.Count = buf.Others[:0], buf.Weight[:0], false
	n := len(earlier)
	if hash&1 == 0 || n == 0 {
		if hash&1 == 1 {
			return nil // a first look that is not sampled
		}
		buf.Target, buf.Count = item, true
		for i, e := range earlier {
			buf.Others, buf.Weight = append(buf.Others, e), append(buf.Weight, 1/float64(i+1))
		}
		return buf
	}
	j := int((hash >> 1) % uint64(n))
	buf.Target = earlier[j]
	buf.Others, buf.Weight = append(buf.Others, item), append(buf.Weight, float64(n)/float64(j+1))
	return buf
}

// Clone shares nothing with t that is changed in place.
func (t Together) Clone() Together { return Together{t.Views.Clone(), t.Orders.Clone()} }

// Apply adds a step to the target's lists. d is reused from call to call.
func (t *Together) Apply(d *Decay, s *Step, at int64, o Online) {
	if s.Count {
		t.Views.CountWith(d, 2, at, o.HalfLife) // one look of two is counted
	}
	for i, other := range s.Others {
		t.Views.AddWith(d, other, xxh3.HashString(other), 2*s.Weight[i], at, o.Neighbours, o.HalfLife)
	}
}

// Bought adds the other items of an order.
func (t *Together) Bought(d *Decay, self int, items []string, at int64, o Online) {
	t.Orders.CountWith(d, 1, at, o.HalfLife)
	for i, other := range items {
		if i != self {
			t.Orders.AddWith(d, other, xxh3.HashString(other), 1, at, o.Neighbours, o.HalfLife)
		}
	}
}

// Newest is about the time of the newest thing in it, µs.
func (t *Together) Newest() int64 { return max(t.Views.Newest(), t.Orders.Newest()) }

// Append writes t as bytes.
func (t *Together) Append(dst []byte) []byte { return t.Orders.Append(t.Views.Append(dst)) }

// DecodeTogether reads what Append has written.
func DecodeTogether(src []byte) (t Together, err error) {
	if t.Views, src, err = DecodeRanked(src); err != nil {
		return Together{}, err
	}
	if t.Orders, src, err = DecodeRanked(src); err != nil {
		return Together{}, err
	}
	if len(src) != 0 {
		return Together{}, errRanked
	}
	return t, nil
}

// Pair is two items in one list, as one task knows them.
type Pair struct {
	Item  string
	Co    float64 // weight of both together
	Other float64 // of the other item alone
}

// List is what one task serves of an item.
type List struct {
	Self  float64 // weight of the item alone
	All   float64 // of all items
	At    int64   // µs
	Pairs []Pair
}

// Serve makes the list of an item's neighbours. alone gives the weight of an item alone in the same kind of list.
func (r *Ranked) Serve(at int64, o Online, all float64, alone func(item string) float64) List {
	out := List{Self: r.Total(at, o.HalfLife), All: all, At: at}
	for _, n := range r.Top(o.Neighbours, at, o.HalfLife) {
		out.Pairs = append(out.Pairs, Pair{n.Item, n.Score, alone(n.Item)})
	}
	return out
}

// Append writes l as bytes.
func (l *List) Append(dst []byte) []byte {
	dst = binary.AppendVarint(dst, l.At)
	for _, v := range []float64{l.Self, l.All} {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
	}
	dst = binary.AppendUvarint(dst, uint64(len(l.Pairs)))
	for _, p := range l.Pairs {
		dst = append(binary.AppendUvarint(dst, uint64(len(p.Item))), p.Item...)
		for _, v := range []float64{p.Co, p.Other} {
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(v)))
		}
	}
	return dst
}

// DecodeList reads what Append has written.
func DecodeList(src []byte) (l List, err error) {
	d := bytesReader{src: src}
	l.At, l.Self, l.All = d.varint(), d.float(), d.float()
	n := d.uvarint()
	if n > uint64(len(d.src)) {
		return List{}, errRanked
	}
	for range n {
		p := Pair{Item: d.text()}
		if len(d.src) < 8 {
			return List{}, errRanked
		}
		p.Co = float64(math.Float32frombits(binary.LittleEndian.Uint32(d.src)))
		p.Other = float64(math.Float32frombits(binary.LittleEndian.Uint32(d.src[4:])))
		d.src = d.src[8:]
		l.Pairs = append(l.Pairs, p)
	}
	if d.bad || len(d.src) != 0 {
		return List{}, errRanked
	}
	return l, nil
}

// Similar is a neighbour by what happened lately.
type Similar struct {
	Item  string  `json:"item"`
	Score float64 `json:"score"` // cosine, shrunk by λ
	Lift  float64 `json:"lift"`  // how much more often together than by chance
}

// Merge adds the lists of several tasks up and gives the neighbours that come together more often than by chance, the most similar first.
func Merge(lists []List, at int64, o Online) []Similar {
	self, all := 0.0, 0.0
	co, other := map[string]float64{}, map[string]float64{}
	for _, l := range lists {
		f := math.Exp2(-float64(max(0, at-l.At)) / float64(o.HalfLife.Microseconds()))
		self, all = self+l.Self*f, all+l.All*f
		for _, p := range l.Pairs {
			co[p.Item] += p.Co * f
			other[p.Item] += p.Other * f
		}
	}
	var out []Similar
	for item, w := range co {
		// A neighbour is looked at as often as it was seen beside the item at least.
		a, b := max(self, w, 1e-9), max(other[item], w, 1e-9)
		s := Similar{item, w / math.Sqrt(a*b) * w / (w + o.Shrinkage), w * max(all, a, b) / (a * b)}
		if s.Lift > 1 && w > 0 {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b Similar) int { return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Item, b.Item)) })
	return out
}

// Blend adds up what the items that somebody had say: for each its neighbours, from as many sources as there are. Those items themselves are left out; the best n come
// first.
func Blend(have []Neighbour, n int, sources ...func(item string) []Neighbour) []Neighbour {
	sum, known := map[string]float64{}, map[string]bool{}
	for _, h := range have {
		known[h.Item] = true
	}
	for _, h := range have {
		for _, source := range sources {
			for _, nb := range source(h.Item) {
				if !known[nb.Item] {
					sum[nb.Item] += h.Score * nb.Score
				}
			}
		}
	}
	out := make([]Neighbour, 0, len(sum))
	for item, s := range sum {
		if s > 0 {
			out = append(out, Neighbour{item, s})
		}
	}
	slices.SortFunc(out, ByScore)
	return out[:min(n, len(out))]
}

// ByScore sorts the greatest first, and equal ones by item.
func ByScore(a, b Neighbour) int {
	return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Item, b.Item))
}
