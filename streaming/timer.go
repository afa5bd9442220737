package streaming

import (
	"container/heap"
	"encoding/binary"
	"errors"

	"millrace/internal/fault"
)

// timers are a store whose keys sort as timers fire: time, owner, key. The heap is an index over it that may hold keys that are gone;
// the store decides.
type timers struct {
	store *Store[struct{}]
	heap  timerHeap
	// taken out of the heap in the open transaction: they go back into it on an abort, where the store may know them again
	popped []string
	buf    []byte
}

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

type noValue struct{}

func (noValue) Append(dst []byte, _ struct{}) []byte { return dst }

func (noValue) Decode(src []byte) (struct{}, error) {
	if len(src) != 0 {
		return struct{}{}, errors.New("a timer has no value")
	}
	return struct{}{}, nil
}

func openTimers(t *Task) *timers {
	return &timers{store: OpenStore(t, storeTimers, Codec[struct{}](noValue{}))}
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

func (x *timers) set(tm Timer) {
	x.buf = appendTimer(x.buf[:0], tm)
	if _, ok := x.store.GetBytes(x.buf); ok {
		return
	}
	k := string(x.buf)
	x.store.Put(k, struct{}{})
	heap.Push(&x.heap, k)
}

func (x *timers) remove(tm Timer) {
	x.buf = appendTimer(x.buf[:0], tm)
	x.store.DeleteBytes(x.buf)
}

func (x *timers) due(watermark int64) bool { return len(x.heap) > 0 && timeOf(x.heap[0]) <= watermark }

// pop takes the first timer that is due.
func (x *timers) pop(watermark int64) (Timer, bool) {
	for x.due(watermark) {
		k := heap.Pop(&x.heap).(string)
		x.popped = append(x.popped, k)
		if _, ok := x.store.Get(k); ok {
			x.store.Delete(k)
			return parseTimer(k), true
		}
	}
	return Timer{}, false
}

func (x *timers) restored() error {
	x.heap = x.heap[:0]
	var err error
	x.store.Range(func(k string, _ struct{}) bool {
		if len(k) < timerHead {
			err = fault.Newf("MR-STR-005", "a timer's key has %d bytes", len(k))
			return false
		}
		x.heap = append(x.heap, k)
		return true
	})
	heap.Init(&x.heap)
	return err
}

func (x *timers) committed() {
	clear(x.popped)
	x.popped = x.popped[:0]
}

func (x *timers) aborted() {
	for _, k := range x.popped {
		heap.Push(&x.heap, k)
	}
	x.committed()
}
