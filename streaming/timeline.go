package streaming

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// timeline is a table of items that leave it in the order (due, rank, seq, key), when their turn comes.
//
// Items lie in buckets of time, each sorted. What arrives nearly in order is appended to the last bucket; an item out of order moves no more than its own bucket, so a
// clock that runs a year ahead costs the others nothing.
//
// In the changelog the items that a commit finds new are one segment (a few, if they are due far apart), encoded once; what comes and goes within a transaction costs
// nothing. That an item has left need not be said for each: the turn says it for all, and a segment is deleted with its last item.
type timeline[T any] struct {
	t     *Task
	s     StoreSpec
	codec Codec[T]

	buckets map[int64]*bucket[T]
	order   bucketHeap[T]
	last    *bucket[T]
	spare   []*bucket[T]
	n       int
	// turn is the time below which items have left; was, as of the last commit.
	turn, was int64
	told      bool  // the changelog has a turn
	mean      int64 // bytes of an item, of the last segment written

	segments map[uint64]*segment // in the changelog, or about to be
	next     uint64              // id of the next one
	ended    []*segment          // without items since this transaction
	written  []*segment          // in this transaction

	fresh []*item[T] // added in the open transaction
	gone  []*item[T] // left in it
	free  []*item[T]
	buf   []byte
	val   []byte
}

type item[T any] struct {
	due  int64
	seq  int64
	key  string
	v    T
	in   *segment // nil until it is in the changelog
	rank uint8
	live bool // it is in the timeline
}

// segment is one record of the changelog.
type segment struct {
	id   uint64
	live int // items that have not left
}

const (
	bucketBits  = 15 // of µs: a bucket is 33 ms long
	slotBits    = 26 // of µs: items of a segment are due within 67 s
	segmentSize = 512 << 10
	itemCost    = 128     // bytes that an item takes besides key and value
	keepFree    = 1 << 16 // items that wait to be used again
	keepBuckets = 256
)

type bucket[T any] struct {
	at    int64 // due >> bucketBits of its items
	items []*item[T]
	head  int // items before it have left
}

type bucketHeap[T any] []*bucket[T]

func (h bucketHeap[T]) Len() int           { return len(h) }
func (h bucketHeap[T]) Less(i, j int) bool { return h[i].at < h[j].at }
func (h bucketHeap[T]) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *bucketHeap[T]) Push(x any) { *h = append(*h, x.(*bucket[T])) }

// Pop implements heap.Interface.
func (h *bucketHeap[T]) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return x
}

func newTimeline[T any](t *Task, id uint16, c Codec[T]) timeline[T] {
	return timeline[T]{t: t, s: t.declared(id), codec: c, buckets: map[int64]*bucket[T]{}, segments: map[uint64]*segment{}, turn: noTime, was: noTime}
}

func compareItems[T any](a, b *item[T]) int {
	switch {
	case a.due != b.due:
		if a.due < b.due {
			return -1
		}
		return 1
	case a.rank != b.rank:
		return int(a.rank) - int(b.rank)
	case a.seq != b.seq:
		if a.seq < b.seq {
			return -1
		}
		return 1
	}
	return strings.Compare(a.key, b.key)
}

// add puts an item where it belongs, in place of one with the same place.
func (l *timeline[T]) add(due int64, rank uint8, seq int64, key string, v T) *item[T] {
	if len(l.free) == 0 {
		block := make([]item[T], 64)
		for i := range block {
			l.free = append(l.free, &block[i])
		}
	}
	it := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	it.due, it.rank, it.seq, it.key, it.v, it.live, it.in = due, rank, seq, key, v, true, nil
	if old := l.insert(it); old != nil {
		l.leave(old)
	}
	l.fresh = append(l.fresh, it)
	l.t.touched = true
	return it
}

// leave notes that an item is not in its bucket any more.
func (l *timeline[T]) leave(it *item[T]) {
	it.live = false
	l.gone = append(l.gone, it)
	if s := it.in; s != nil {
		if s.live--; s.live == 0 {
			l.ended = append(l.ended, s)
		}
	}
}

// insert gives the item that had the place.
func (l *timeline[T]) insert(it *item[T]) *item[T] {
	at := it.due >> bucketBits
	b := l.last
	if b == nil || b.at != at {
		if b = l.buckets[at]; b == nil {
			b = l.bucket(at)
		}
		l.last = b
	}
	if n := len(b.items); n == b.head || compareItems(b.items[n-1], it) < 0 {
		b.items = append(b.items, it)
		l.n++
		return nil
	}
	i, same := slices.BinarySearchFunc(b.items[b.head:], it, compareItems[T])
	i += b.head
	if same {
		old := b.items[i]
		b.items[i] = it
		return old
	}
	b.items = slices.Insert(b.items, i, it)
	l.n++
	return nil
}

func (l *timeline[T]) bucket(at int64) *bucket[T] {
	var b *bucket[T]
	if n := len(l.spare); n > 0 {
		b, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		b = &bucket[T]{}
	}
	b.at = at
	l.buckets[at] = b
	heap.Push(&l.order, b)
	return b
}

// to moves the turn; it never goes back.
func (l *timeline[T]) to(turn int64) { l.turn = max(l.turn, turn) }

// pop takes out the first item whose turn has come.
func (l *timeline[T]) pop() *item[T] {
	for len(l.order) > 0 {
		b := l.order[0]
		if b.head == len(b.items) {
			l.drop(b)
			continue
		}
		it := b.items[b.head]
		if it.due >= l.turn {
			return nil
		}
		b.items[b.head] = nil
		b.head++
		l.n--
		l.leave(it)
		l.t.touched = true
		if b.head == len(b.items) {
			l.drop(b)
		}
		return it
	}
	return nil
}

// drop takes away the first bucket, which is empty.
func (l *timeline[T]) drop(b *bucket[T]) {
	heap.Pop(&l.order)
	delete(l.buckets, b.at)
	if l.last == b {
		l.last = nil
	}
	if len(l.spare) < keepBuckets && cap(b.items) <= 4096 {
		b.items, b.head = b.items[:0], 0
		l.spare = append(l.spare, b)
	}
}

// each calls f for the items in no order.
func (l *timeline[T]) each(f func(it *item[T])) {
	for _, b := range l.order {
		for _, it := range b.items[b.head:] {
			f(it)
		}
	}
}

func (l *timeline[T]) store() StoreSpec { return l.s }
func (l *timeline[T]) size() int        { return l.n }

// resident is about what the items take in memory: a segment says nothing of how many it has.
func (l *timeline[T]) resident() int64 { return int64(l.n) * (itemCost + l.mean) }

// In the changelog: an empty key has the turn (i64); a key of u64 is a segment: for each item varint due, u8 rank, varint seq, uvarint length and key, uvarint length and
// value.
func (l *timeline[T]) flush(put func(key, value []byte)) error {
	for _, s := range l.ended {
		if s.live == 0 { // it was in the changelog before this transaction
			put(l.id(s), nil)
			delete(l.segments, s.id)
		}
	}
	l.write(put)
	switch {
	case len(l.segments) == 0:
		if l.told {
			put([]byte{}, nil)
		}
	case l.turn != l.was || !l.told:
		l.buf = binary.BigEndian.AppendUint64(l.buf[:0], uint64(l.turn))
		put([]byte{}, l.buf)
	}
	return nil
}

func (l *timeline[T]) id(s *segment) []byte {
	l.buf = binary.BigEndian.AppendUint64(l.buf[:0], s.id)
	return l.buf
}

// write makes segments of the new items.
func (l *timeline[T]) write(put func(key, value []byte)) {
	sorted := true
	for i, it := range l.fresh {
		if i > 0 && it.due>>slotBits != l.fresh[i-1].due>>slotBits {
			sorted = false
			break
		}
	}
	if !sorted {
		slices.SortFunc(l.fresh, compareItems[T])
	}
	var s *segment
	b := l.val[:0]
	slot := int64(0)
	end := func() {
		if s != nil {
			l.mean = int64(len(b) / s.live)
			put(l.id(s), b)
			s, b = nil, b[:0]
		}
	}
	for _, it := range l.fresh {
		if !it.live {
			continue
		}
		if s != nil && (it.due>>slotBits != slot || len(b) >= segmentSize) {
			end()
		}
		if s == nil {
			s, slot = &segment{id: l.next}, it.due>>slotBits
			l.next++
			l.segments[s.id] = s
			l.written = append(l.written, s)
		}
		s.live++
		it.in = s
		b = append(binary.AppendVarint(b, it.due), it.rank)
		b = binary.AppendVarint(b, it.seq)
		b = append(binary.AppendUvarint(b, uint64(len(it.key))), it.key...)
		at := len(b) + 1
		b = l.codec.Append(append(b, 0), it.v)
		if n := len(b) - at; n < 0x80 {
			b[at-1] = byte(n)
		} else {
			b = slices.Replace(b, at-1, at, binary.AppendUvarint(nil, uint64(n))...)
		}
	}
	end()
	l.val = b
}

func (l *timeline[T]) load(k, v []byte) error {
	switch {
	case len(k) == 0:
		switch {
		case v == nil:
			l.turn, l.told = noTime, false
		case len(v) != 8:
			return fmt.Errorf("the turn of store %s has %d bytes", l.s.Name, len(v))
		default:
			l.turn, l.told = int64(binary.BigEndian.Uint64(v)), true
		}
		l.was = l.turn
		return nil
	case len(k) != 8:
		return fmt.Errorf("a key of store %s has %d bytes", l.s.Name, len(k))
	}
	id := binary.BigEndian.Uint64(k)
	l.next = max(l.next, id+1)
	if old := l.segments[id]; old != nil {
		old.live = -1 // its items go when all is loaded
		delete(l.segments, id)
	}
	if v == nil {
		return nil
	}
	s := &segment{id: id}
	l.segments[id] = s
	if err := l.decode(s, v); err != nil {
		return fmt.Errorf("decoding items of store %s: %w", l.s.Name, err)
	}
	return nil
}

func (l *timeline[T]) decode(s *segment, b []byte) error {
	cut := errors.New("cut off")
	piece := func() ([]byte, bool) {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return nil, false
		}
		p := b[k : k+int(n)]
		b = b[k+int(n):]
		return p, true
	}
	for len(b) > 0 {
		it := &item[T]{in: s, live: true}
		var k int
		if it.due, k = binary.Varint(b); k <= 0 || len(b) == k {
			return cut
		}
		it.rank, b = b[k], b[k+1:]
		if it.seq, k = binary.Varint(b); k <= 0 {
			return cut
		}
		b = b[k:]
		key, ok := piece()
		value, ok2 := piece()
		if !ok || !ok2 {
			return cut
		}
		it.key = string(key)
		var err error
		if it.v, err = l.codec.Decode(value); err != nil {
			return err
		}
		// segments may come in any order: of two items in one place the one written later stays
		if old := l.insert(it); old != nil && old.in.live >= 0 && old.in.id > s.id {
			l.insert(old)
		}
	}
	return nil
}

// settle drops what had left when the changelog was written, once all of it is loaded. turn is where it is now: the changelog is told of it only while there are items.
func (l *timeline[T]) settle(turn int64) {
	var kept []*item[T]
	l.each(func(it *item[T]) {
		if it.in.live >= 0 && it.due >= l.turn {
			kept = append(kept, it)
		}
	})
	for _, s := range l.segments {
		s.live = 0
	}
	l.rebuild(kept)
	l.to(turn)
	l.was = l.turn
}

// rebuild makes the buckets anew, of items that are in the changelog, and counts the items of segments, which are at 0.
func (l *timeline[T]) rebuild(items []*item[T]) {
	slices.SortFunc(items, compareItems[T])
	clear(l.order)
	l.order, l.last, l.n = l.order[:0], nil, 0
	clear(l.buckets)
	for _, it := range items {
		it.live = true
		it.in.live++
		l.insert(it)
	}
	for _, s := range l.segments {
		if s.live == 0 {
			l.ended = append(l.ended, s)
		}
	}
}

func (l *timeline[T]) commit() {
	clear(l.fresh)
	var none item[T]
	for i, it := range l.gone {
		*it = none
		if len(l.free) < keepFree {
			l.free = append(l.free, it)
		}
		l.gone[i] = nil
	}
	l.told = len(l.segments) > 0
	l.was = l.turn
	l.end()
}

func (l *timeline[T]) end() {
	clear(l.ended)
	clear(l.written)
	l.fresh, l.gone, l.ended, l.written = l.fresh[:0], l.gone[:0], l.ended[:0], l.written[:0]
}

// abort goes back to the items of the last commit.
func (l *timeline[T]) abort() {
	if len(l.fresh)+len(l.gone) > 0 {
		for _, s := range l.ended { // if the transaction was sealed they are not there any more
			l.segments[s.id] = s
		}
		for _, s := range l.written {
			s.live = -1
			delete(l.segments, s.id)
		}
		var base []*item[T]
		keep := func(it *item[T]) {
			if it.in != nil && it.in.live >= 0 {
				base = append(base, it)
			}
		}
		l.each(keep)
		for _, it := range l.gone {
			keep(it)
		}
		for _, s := range l.segments {
			s.live = 0
		}
		l.end()
		clear(l.fresh[:cap(l.fresh)])
		clear(l.gone[:cap(l.gone)])
		l.rebuild(base)
	}
	l.turn = l.was
}
