package streaming

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"millrace/internal/fault"
)

// timers are a store whose keys sort as timers fire: time, owner, key. Heap and buckets are an index over it that may hold keys that are gone; the store decides.
//
// The heap has those that are due soon. All others lie as bytes in buckets of a few seconds, each key once, and a bucket goes into the heap when the watermark reaches it.
type timers struct {
	store   *Store[struct{}]
	heap    timerHeap
	later   map[int64]*timerBucket // by number: time >> timerBits
	numbers timerNumbers           // of the buckets
	gone    int                    // of them those whose bucket is none any more
	opened  int64                  // the last bucket that went into the heap: a timer of it or before goes there at once
	waiting int                    // in all buckets
	stale   packed                 // those in buckets that the store may not know: a timer that is set again is there already
	sweep   []int64                // buckets that are mostly stale
	taken   int                    // keys out of buckets, in the open transaction
	added   []byte                 // set in the open transaction, those in buckets
	// taken out of the heap in the open transaction: they go back into it on an abort, where the store may know them again
	popped []string
	buf    []byte
}

// timerBucket has runs of uvarint length ‖ key.
type timerBucket struct {
	runs     [][]byte
	n, stale int
	swept    int // runs that the sweep under way has seen
	sweeping bool
}

const (
	timerBits = 23       // 8.4 s
	timerRun  = 64 << 10 // bytes
	sweepWork = 8192     // after a transaction: keys to look at, and
	sweepEach = 64       // for each run, as many more for each key that it has taken away
	sweepFrom = 32       // stale timers of a bucket
	heapFrom  = 4096     // timers in the heap that the store does not know
)

type timerHeap []string

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push and Pop implement heap.Interface.
func (h *timerHeap) Push(x any) { *h = append(*h, x.(string)) }

// Pop implements heap.Interface.
func (h *timerHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = ""
	*h = old[:len(old)-1]
	return x
}

type timerNumbers []int64

func (h timerNumbers) Len() int           { return len(h) }
func (h timerNumbers) Less(i, j int) bool { return h[i] < h[j] }
func (h timerNumbers) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push and Pop implement heap.Interface.
func (h *timerNumbers) Push(x any) { *h = append(*h, x.(int64)) }

// Pop implements heap.Interface.
func (h *timerNumbers) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

type noValue struct{}

func (noValue) Append(dst []byte, _ struct{}) []byte { return dst }

func (noValue) Decode(src []byte) (struct{}, error) {
	if len(src) != 0 {
		return struct{}{}, errors.New("a timer has no value")
	}
	return struct{}{}, nil
}

func openTimers(t *Task) *timers {
	x := &timers{store: OpenStore(t, storeTimers, Codec[struct{}](noValue{}))}
	x.reset()
	return x
}

const timerHead = 10 // bytes before the key

func appendTimer(b []byte, tm Timer) []byte {
	b = appendTime(b, tm.At)
	b = binary.BigEndian.AppendUint16(b, tm.Owner)
	return append(b, tm.Key...)
}

func parseTimer(k string) Timer {
	return Timer{At: timeOf(k), Owner: binary.BigEndian.Uint16(unsafeBytes(k[8:timerHead])), Key: k[timerHead:]}
}

// appendTime writes a time so that bytes sort as times do.
func appendTime(b []byte, at int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(at)^1<<63) }

func timeOf(k string) int64 { return int64(binary.BigEndian.Uint64(unsafeBytes(k[:8])) ^ 1<<63) }

func (x *timers) reset() {
	x.heap, x.later, x.numbers, x.gone, x.opened, x.waiting = x.heap[:0], map[int64]*timerBucket{}, nil, 0, noTime, 0
	x.stale, x.sweep, x.taken, x.added = packed{}, nil, 0, nil
}

func (x *timers) set(tm Timer) {
	x.buf = appendTimer(x.buf[:0], tm)
	k, added := x.store.add(x.buf, struct{}{})
	switch no := tm.At >> timerBits; {
	case !added:
	case no <= x.opened:
		heap.Push(&x.heap, k)
	default:
		x.put(no, x.buf)
		x.added = appendRun(x.added, x.buf)
	}
}

// put adds a key to its bucket, if it is not there.
func (x *timers) put(no int64, key []byte) {
	b := x.later[no]
	if b == nil {
		b = &timerBucket{}
		x.later[no] = b
		heap.Push(&x.numbers, no)
	}
	if b.stale > 0 && x.stale.remove(key) {
		b.stale--
		return
	}
	last := len(b.runs) - 1
	if last < 0 || len(b.runs[last])+len(key)+binary.MaxVarintLen32 > timerRun {
		b.runs = append(b.runs, nil)
		last++
	}
	b.runs[last] = appendRun(b.runs[last], key)
	b.n++
	x.waiting++
}

func appendRun(b, key []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(key))), key...)
}

// cutRun gives the first key of a run and what is behind it.
func cutRun(b []byte) (key, rest []byte) {
	n, k := binary.Uvarint(b)
	end := k + int(n)
	return b[k:end:end], b[end:]
}

func (x *timers) remove(tm Timer) {
	x.buf = appendTimer(x.buf[:0], tm)
	if no := tm.At >> timerBits; x.store.drop(x.buf) && no > x.opened {
		x.forgotten(no, x.buf)
	}
}

// forgotten notes that the store does not know a key of a bucket.
func (x *timers) forgotten(no int64, key []byte) {
	b := x.later[no]
	if b == nil {
		return // cannot be
	}
	if added, ok := x.stale.put(key, nil); !added || !ok {
		return
	}
	b.stale++
	x.taken++
	if !b.sweeping && b.stale*2 > b.n && (b.stale >= sweepFrom || b.stale == b.n) {
		b.sweeping, b.swept = true, 0
		x.sweep = append(x.sweep, no)
	}
}

func (x *timers) due(watermark int64) bool {
	return len(x.heap) > 0 && timeOf(x.heap[0]) <= watermark || len(x.numbers) > 0 && x.numbers[0] <= watermark>>timerBits
}

// pop takes the first timer that is due.
func (x *timers) pop(watermark int64) (Timer, bool) {
	for {
		if x.open(watermark); len(x.heap) == 0 || timeOf(x.heap[0]) > watermark {
			return Timer{}, false
		}
		k := heap.Pop(&x.heap).(string)
		x.popped = append(x.popped, k)
		if x.store.drop(unsafeBytes(k)) {
			return parseTimer(strings.Clone(k)), true // k is a part of its run
		}
	}
}

// open moves the buckets that the watermark has reached into the heap, as far as they may have the first timer.
func (x *timers) open(watermark int64) {
	for len(x.numbers) > 0 {
		no := x.numbers[0]
		if no > watermark>>timerBits || len(x.heap) > 0 && timeOf(x.heap[0]) < no<<timerBits {
			return
		}
		heap.Pop(&x.numbers)
		b := x.later[no]
		if b == nil {
			x.gone--
			continue
		}
		delete(x.later, no)
		x.opened = max(x.opened, no)
		x.waiting -= b.n
		few := b.n*4 < len(x.heap)
		for _, run := range b.runs {
			text := string(run) // all of it in one piece
			for rest := run; len(rest) > 0; {
				key, tail := cutRun(rest)
				if b.stale > 0 {
					x.stale.remove(key)
				}
				end := len(text) - len(tail)
				if k := text[end-len(key) : end]; few {
					heap.Push(&x.heap, k)
				} else {
					x.heap = append(x.heap, k)
				}
				rest = tail
			}
		}
		if !few {
			heap.Init(&x.heap)
		}
	}
}

func (x *timers) restored() error {
	x.reset()
	var err error
	x.store.Range(func(k string, _ struct{}) bool {
		if len(k) < timerHead {
			err = fault.Newf("MR-STR-005", "a timer's key has %d bytes", len(k))
			return false
		}
		x.put(timeOf(k)>>timerBits, unsafeBytes(k))
		return true
	})
	return err
}

func (x *timers) committed() {
	x.ended()
	x.tidy()
}

func (x *timers) aborted() {
	for _, k := range x.popped {
		heap.Push(&x.heap, k)
	}
	for b := x.added; len(b) > 0; {
		var key []byte
		key, b = cutRun(b)
		if no := timeOf(unsafeString(key)) >> timerBits; no > x.opened && !x.store.has(key) {
			x.forgotten(no, key)
		}
	}
	x.ended()
}

func (x *timers) ended() {
	clear(x.popped)
	x.popped = x.popped[:0]
	if x.added = x.added[:0]; cap(x.added) > 1<<20 {
		x.added = nil // a burst
	}
}

// tidy takes keys that the store does not know out of the index. It is called when nothing is dirty: what is not known then will not be.
func (x *timers) tidy() {
	for work := sweepWork + sweepEach*x.taken; work > 0 && len(x.sweep) > 0; work -= sweepEach {
		looked, last := x.sweepBucket(x.sweep[0])
		if work -= looked; last {
			x.sweep = x.sweep[1:]
		}
	}
	x.taken = 0
	x.stale.tidy()
	if x.gone > len(x.later)+sweepFrom {
		x.numbers, x.gone = x.numbers[:0], 0
		for no := range x.later {
			x.numbers = append(x.numbers, no)
		}
		heap.Init(&x.numbers)
	}
	if known := x.store.Len() - (x.waiting - x.stale.n); len(x.heap) > 2*known+heapFrom {
		x.heap = slices.DeleteFunc(x.heap, func(k string) bool { return !x.store.has(unsafeBytes(k)) })
		slices.Sort(x.heap)
		x.heap = slices.Clip(slices.Compact(x.heap)) // sorted it is a heap
	}
}

// sweepBucket looks at one run of a bucket; it says at how many keys, and whether that was the last.
func (x *timers) sweepBucket(no int64) (looked int, last bool) {
	b := x.later[no]
	if b == nil {
		return 0, true
	}
	if b.swept < len(b.runs) {
		run := b.runs[b.swept]
		out := run[:0]
		for rest := run; len(rest) > 0; {
			key, tail := cutRun(rest)
			entry := rest[:len(rest)-len(tail)]
			rest = tail
			looked++
			if x.stale.remove(key) {
				b.stale--
				if !x.store.has(key) {
					b.n--
					x.waiting--
					continue
				}
			}
			out = append(out, entry...)
		}
		switch i := b.swept; {
		case i > 0 && len(b.runs[i-1])+len(out) <= timerRun: // it goes together with the one before; nothing of it, too
			b.runs[i-1] = append(b.runs[i-1], out...)
			b.runs = slices.Delete(b.runs, i, i+1)
		case len(out) == 0:
			b.runs = slices.Delete(b.runs, i, i+1)
		default:
			b.runs[i] = append(make([]byte, 0, len(out)), out...)
			b.swept++
		}
	}
	if b.swept < len(b.runs) {
		return looked, false
	}
	b.sweeping = false
	if b.n == 0 {
		delete(x.later, no)
		x.gone++
	}
	return looked, true
}
