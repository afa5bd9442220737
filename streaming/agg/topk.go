package agg

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strings"
)

// Item is one entry of a TopK: its true count is at least Count, and at most Count + Error of the TopK.
type Item struct {
	Key   string
	Count int64
}

// TopK finds the heaviest of many items in bounded memory: space-saving (Metwally, Agrawal and El Abbadi 2005) in the form that merges,
// which is Misra and Gries' (Agarwal et al. 2012: the two hold the same, space-saving adds Error to every count). With a capacity of m
// no count is short by more than Error, and Error <= Total/(m+1): every item above that share is held. As long as there were no more
// than m different items all is exact. It is made by TopKAgg.New.
type TopK struct {
	capacity int
	counts   map[string]int64
	total    int64
	short    int64
}

// Add counts item by n; n below 1 is nothing.
func (t *TopK) Add(item string, n int64) {
	if n < 1 {
		return
	}
	t.total = addCount(t.total, n)
	if c, ok := t.counts[item]; ok {
		t.counts[item] = addCount(c, n)
		return
	}
	// what is kept may be a part of a larger string, or of a record
	t.counts[strings.Clone(item)] = n
	if len(t.counts) >= 2*t.capacity {
		t.shrink() // so rarely that an Add costs O(1) on average (Anderson et al. 2017)
	}
}

// AddBytes is Add without making a string of an item that is held already.
func (t *TopK) AddBytes(item []byte, n int64) {
	if c, ok := t.counts[string(item)]; ok && n > 0 {
		t.total = addCount(t.total, n)
		t.counts[string(item)] = addCount(c, n)
		return
	}
	t.Add(string(item), n)
}

// shrink takes the count of the first item beyond capacity off all.
func (t *TopK) shrink() {
	if len(t.counts) <= t.capacity {
		return
	}
	all := make([]int64, 0, len(t.counts))
	for _, c := range t.counts {
		all = append(all, c)
	}
	slices.Sort(all)
	off := all[len(all)-1-t.capacity]
	for k, c := range t.counts {
		if c <= off {
			delete(t.counts, k)
		} else {
			t.counts[k] = c - off
		}
	}
	t.short = addCount(t.short, off)
}

// Total is the sum of all that was added.
func (t *TopK) Total() int64 { return t.total }

// Error is by how much any count may be short; an item that is not held came no more often than this. 0: all is exact.
func (t *TopK) Error() int64 { return t.short }

// Count is the count of item that is certain; the true one is at most Error larger.
func (t *TopK) Count(item string) int64 { return t.counts[item] }

// Top gives the k heaviest items, heaviest first, equal ones by key.
func (t *TopK) Top(k int) []Item {
	items := t.items()
	slices.SortFunc(items, func(a, b Item) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Key, b.Key)) })
	return slices.Clip(items[:min(max(k, 0), len(items))])
}

func (t *TopK) items() []Item {
	items := make([]Item, 0, len(t.counts))
	for key, c := range t.counts {
		items = append(items, Item{key, c})
	}
	return items
}

// TopKAgg handles TopKs. Capacity is m: how many items are held at rest (twice as many at times). It may change from version to version
// of a store.
type TopKAgg struct{ Capacity int }

const maxTopK = 1 << 20

func (x TopKAgg) capacity() int { return min(max(x.Capacity, 1), maxTopK) }

// New is empty.
func (x TopKAgg) New() *TopK { return &TopK{capacity: x.capacity(), counts: map[string]int64{}} }

// Clone shares no memory with a.
func (TopKAgg) Clone(a *TopK) *TopK {
	c := *a
	c.counts = make(map[string]int64, len(a.counts))
	for k, n := range a.counts {
		c.counts[k] = n
	}
	return &c
}

// Merge adds delta's counts; errors add up, and so do the totals they are shares of.
func (TopKAgg) Merge(into **TopK, delta *TopK) {
	t := *into
	t.total, t.short = addCount(t.total, delta.total), addCount(t.short, delta.short)
	for k, n := range delta.counts {
		t.counts[k] = addCount(t.counts[k], n)
	}
	if len(t.counts) >= 2*t.capacity {
		t.shrink()
	}
}

// Append writes a, its items in the order of their keys.
func (TopKAgg) Append(dst []byte, a *TopK) []byte {
	dst = binary.AppendUvarint(binary.AppendUvarint(append(dst, version), uint64(a.total)), uint64(a.short))
	items := a.items()
	slices.SortFunc(items, func(x, y Item) int { return cmp.Compare(x.Key, y.Key) })
	dst = binary.AppendUvarint(dst, uint64(len(items)))
	for _, it := range items {
		dst = append(binary.AppendUvarint(dst, uint64(len(it.Key))), it.Key...)
		dst = binary.AppendUvarint(dst, uint64(it.Count))
	}
	return dst
}

// Decode reads what Append wrote.
func (x TopKAgg) Decode(src []byte) (*TopK, error) {
	r := read("a top-k", src)
	t := x.New()
	t.total, t.short = r.count(), r.count()
	n := r.length(2)
	left, last := t.total, ""
	for i := 0; i < n && r.err == nil; i++ {
		key := string(r.bytes(r.length(1)))
		c := r.count()
		if r.err == nil && (i > 0 && key <= last || c < 1 || c > left && t.total < math.MaxInt64) {
			r.fail("item %q of %d", key, c)
			break
		}
		left -= min(c, left)
		t.counts[key], last = c, key
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if len(t.counts) >= 2*t.capacity {
		t.shrink()
	}
	return t, nil
}
