package gateway

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/gateway/spool"
)

// batch is the records of one request. Its memory is used again when the request is answered and the last record has left the producer.
type batch struct {
	pool *sync.Pool
	b    *budget

	slots []*slot // made once, used again
	n     int     // slots in use
	buf   []byte  // keys, values and headers of the records
	rx    []byte  // header rx of all
	spent int64   // of the budget

	refs atomic.Int64  // records in producers, and the request itself
	left atomic.Int64  // records in producers
	done chan struct{} // left has become 0
	stop context.CancelFunc
}

// slot is one record and what has become of it.
type slot struct {
	kgo.Record
	batch   *batch
	headers [6]kgo.RecordHeader
	class   event.ShedClass
	part    int32 // of the record, which its producer writes to
	client  *kgo.Client
	direct  bool                     // it was given to a producer
	state   atomic.Uint32            // set by the producer
	promise func(*kgo.Record, error) // made once
}

// What a producer has said of a record.
const (
	waiting = iota
	acked
	failed
)

func newBatch(pool *sync.Pool, b *budget) *batch {
	return &batch{pool: pool, b: b, done: make(chan struct{}, 1)}
}

// begin readies a batch for a request.
func (b *batch) begin(received int64) {
	b.n, b.buf, b.spent = 0, b.buf[:0], 0
	b.refs.Store(1)
	b.left.Store(0)
	select {
	case <-b.done:
	default:
	}
	b.buf = event.AppendReceived(b.buf, received)
	b.rx = b.buf[:8:8]
}

// room makes sure that about n bytes can be written without moving what is there.
func (b *batch) room(n int) {
	if cap(b.buf)-len(b.buf) < n {
		b.buf = make([]byte, 0, max(n, min(2*cap(b.buf), 256<<10), 4<<10)) // records keep the old one
	}
}

// add gives the next slot.
func (b *batch) add() *slot {
	if b.n == len(b.slots) {
		chunk := make([]slot, max(1, min(len(b.slots), 256)))
		for i := range chunk {
			s := &chunk[i]
			s.batch = b
			s.promise = s.finish
			b.slots = append(b.slots, s)
		}
	}
	s := b.slots[b.n]
	b.n++
	s.Record = kgo.Record{Headers: s.headers[:0]}
	s.direct = false
	s.state.Store(waiting)
	return s
}

// used is the slots in use.
func (b *batch) used() []*slot { return b.slots[:b.n] }

// finish is the producer's answer.
func (s *slot) finish(_ *kgo.Record, err error) {
	if err != nil {
		s.state.Store(failed)
	} else {
		s.state.Store(acked)
	}
	b := s.batch
	if b.left.Add(-1) == 0 {
		select {
		case b.done <- struct{}{}:
		default:
		}
	}
	b.release()
}

// release lets go of the batch; the last one to do so puts it back.
func (b *batch) release() {
	if b.refs.Add(-1) != 0 {
		return
	}
	if b.stop != nil {
		b.stop()
		b.stop = nil
	}
	b.b.give(b.spent)
	if cap(b.buf) > 1<<20 || len(b.slots) > MaxEvents {
		return
	}
	b.pool.Put(b)
}

// spooled is the record as the spool takes it.
func (s *slot) spooled() spool.Record {
	r := spool.Record{Topic: s.Topic, Partition: s.part, Key: s.Key, Value: s.Value, Headers: make([]spool.Header, len(s.Record.Headers))}
	for i, h := range s.Record.Headers {
		r.Headers[i] = spool.Header{Key: h.Key, Value: h.Value}
	}
	return r
}
