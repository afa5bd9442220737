package recommend

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/zeebo/xxh3"
)

// Ranked counts the items that come most often, with weights that halve with time, in bounded memory: space-saving (Metwally, Agrawal, El Abbadi, Efficient Computation of
// Frequent and Top-k Elements in Data Streams, ICDT 2005) over weights with forward decay (Cormode, Shkapenyuk, Srivastava, Xu, Forward Decay, ICDE 2009). An item that
// takes the place of another begins with that one's weight, which is noted as what it may be too much.
//
// Weights count from a landmark, a multiple of thirty half-lives, and are rounded to 1/256 of what an item weighs there: sums of them are exact, so that it does not
// matter in which order items come, but for which of two rare ones is kept.
//
// It is a value: Clone before Add where somebody else holds it.
type Ranked struct {
	total  float64 // weight of all that was counted, as of the landmark
	ref    int64   // µs: the landmark, at which weights count as they are
	newest int64   // µs
	hash   []uint64
	weight []float64 // a slice each, so that the search for the least goes over little memory
	rows   []row
}

type row struct {
	item string
	over float64 // by how much the weight may be too much
}

// Decay remembers the last power of two that it was asked for: an event is counted in several lists of one landmark.
type Decay struct {
	half time.Duration
	age  int64
	f    float64
}

// factor is what weighs 1 at a landmark when that is as old as age, in µs.
func (d *Decay) factor(age int64, half time.Duration) float64 {
	if d.f == 0 || d.age != age || d.half != half {
		d.half, d.age, d.f = half, age, math.Exp2(-float64(age)/float64(half.Microseconds()))
	}
	return d.f
}

const (
	landmark = 30 // half-lives from one to the next
	quantum  = 256
)

// Clone shares nothing with r that Add changes.
func (r Ranked) Clone() Ranked {
	r.hash, r.weight, r.rows = slices.Clone(r.hash), slices.Clone(r.weight), slices.Clone(r.rows)
	return r
}

// Len is the number of items.
func (r *Ranked) Len() int { return len(r.rows) }

// Newest is the time of the newest item, µs.
func (r *Ranked) Newest() int64 { return r.newest }

// Total is the weight of all that was counted, as of a time in µs.
func (r *Ranked) Total(at int64, half time.Duration) float64 { return r.total * r.factor(at, half) }

// factor is what weighs 1 at the landmark at a later time.
func (r *Ranked) factor(at int64, half time.Duration) float64 {
	return math.Exp2(-float64(at-r.ref) / float64(half.Microseconds()))
}

// grown is the weight as of the landmark of what happened at a time, after moving the landmark if the next one has been reached.
func (r *Ranked) grown(d *Decay, weight float64, at int64, half time.Duration) float64 {
	step := landmark * half.Microseconds()
	if mark := at / step * step; r.newest == 0 {
		r.ref = mark
	} else if mark > r.ref {
		f := r.factor(mark, half)
		for i := range r.rows {
			r.weight[i] *= f
			r.rows[i].over *= f
		}
		r.total *= f
		r.ref = mark
	}
	r.newest = max(r.newest, at)
	return math.Round(weight/d.factor(at-r.ref, half)*quantum) / quantum
}

// Count adds to the total alone.
func (r *Ranked) Count(weight float64, at int64, half time.Duration) {
	r.CountWith(&Decay{}, weight, at, half)
}

// CountWith is Count; d is reused from call to call.
func (r *Ranked) CountWith(d *Decay, weight float64, at int64, half time.Duration) {
	r.total += r.grown(d, weight, at, half)
}

// Add adds weight to an item at a time in µs; at most k items are kept. It does not count in the total.
func (r *Ranked) Add(item string, weight float64, at int64, k int, half time.Duration) {
	r.AddWith(&Decay{}, item, xxh3.HashString(item), weight, at, k, half)
}

// AddWith is Add of an item whose hash (xxh3) is known; d is reused from call to call.
func (r *Ranked) AddWith(d *Decay, item string, hash uint64, weight float64, at int64, k int, half time.Duration) {
	w := r.grown(d, weight, at, half)
	for i, have := range r.hash {
		if have == hash && r.rows[i].item == item {
			r.weight[i] += w
			return
		}
	}
	if len(r.rows) < k {
		r.hash, r.weight, r.rows = append(r.hash, hash), append(r.weight, w), append(r.rows, row{cloneText(item), 0})
		return
	}
	least, was := 0, r.weight[0]
	for i, v := range r.weight {
		if v < was {
			least, was = i, v
		}
	}
	r.hash[least], r.weight[least], r.rows[least] = hash, was+w, row{cloneText(item), was}
}

func cloneText(s string) string { return string(append([]byte(nil), s...)) }

// Top lists the items by the weight that is certain, the greatest first, as of a time in µs.
func (r *Ranked) Top(n int, at int64, half time.Duration) []Neighbour {
	f := r.factor(at, half)
	out := make([]Neighbour, 0, len(r.rows))
	for i, x := range r.rows {
		if w := (r.weight[i] - x.over) * f; w > 0 {
			out = append(out, Neighbour{x.item, w})
		}
	}
	slices.SortFunc(out, ByScore)
	return out[:min(n, len(out))]
}

// Append writes r as bytes.
func (r *Ranked) Append(dst []byte) []byte {
	dst = binary.AppendVarint(binary.AppendVarint(dst, r.ref), r.newest)
	dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(r.total))
	dst = binary.AppendUvarint(dst, uint64(len(r.rows)))
	for i, x := range r.rows {
		dst = binary.AppendUvarint(dst, uint64(len(x.item)))
		dst = append(dst, x.item...)
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(r.weight[i]))
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(x.over))
	}
	return dst
}

var errRanked = errors.New("these bytes are no ranking")

// DecodeRanked reads what Append has written, and gives what follows it.
func DecodeRanked(src []byte) (r Ranked, rest []byte, err error) {
	d := bytesReader{src: src}
	r.ref, r.newest, r.total = d.varint(), d.varint(), d.float()
	n := d.uvarint()
	if n > uint64(len(d.src)) {
		return Ranked{}, nil, errRanked
	}
	for range n {
		x := row{item: d.text()}
		w := d.float()
		x.over = d.float()
		r.hash, r.weight, r.rows = append(r.hash, xxh3.HashString(x.item)), append(r.weight, w), append(r.rows, x)
	}
	if d.bad {
		return Ranked{}, nil, errRanked
	}
	return r, d.src, nil
}

type bytesReader struct {
	src []byte
	bad bool
}

func (d *bytesReader) fail() { d.bad, d.src = true, nil }

func (d *bytesReader) varint() int64 {
	v, n := binary.Varint(d.src)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.src = d.src[n:]
	return v
}

func (d *bytesReader) uvarint() uint64 {
	v, n := binary.Uvarint(d.src)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.src = d.src[n:]
	return v
}

func (d *bytesReader) text() string {
	n := d.uvarint()
	if d.bad || n > uint64(len(d.src)) {
		d.fail()
		return ""
	}
	s := string(d.src[:n])
	d.src = d.src[n:]
	return s
}

func (d *bytesReader) float() float64 {
	if len(d.src) < 8 {
		d.fail()
		return 0
	}
	v := math.Float64frombits(binary.LittleEndian.Uint64(d.src))
	d.src = d.src[8:]
	if math.IsNaN(v) || math.IsInf(v, 0) {
		d.bad = true
	}
	return v
}
