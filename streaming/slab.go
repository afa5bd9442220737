package streaming

import (
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"
)

// slab hands out records and bytes that live until the transaction ends: then all of it is free at once, and used again. Between begin
// and end nothing moves.
type slab struct {
	recs   [][]kgo.Record
	rc, rn int // chunk and place of the next record
	bytes  [][]byte
	bc     int    // chunk in use
	cur    []byte // it
	last   int    // where the last reservation begins
}

const (
	recordChunk = 512
	byteChunk   = 256 << 10
	keepChunks  = 16 // of each kind, across transactions
)

func (s *slab) record() *kgo.Record {
	if s.rn == recordChunk {
		s.rc, s.rn = s.rc+1, 0
	}
	if s.rc == len(s.recs) {
		s.recs = append(s.recs, make([]kgo.Record, recordChunk))
	}
	r := &s.recs[s.rc][s.rn]
	s.rn++
	return r
}

// buf reserves n bytes. What is appended beyond them moves to memory of its own.
func (s *slab) buf(n int) []byte {
	if cap(s.cur)-len(s.cur) < n {
		s.more(n)
	}
	s.last = len(s.cur)
	s.cur = s.cur[:s.last+n]
	return s.cur[s.last : s.last : s.last+n]
}

func (s *slab) more(n int) {
	if s.cur != nil {
		s.bc++
	}
	for s.bc < len(s.bytes) && cap(s.bytes[s.bc]) < n {
		s.bc++
	}
	if s.bc >= len(s.bytes) {
		s.bytes = append(s.bytes, make([]byte, 0, max(byteChunk, n)))
		s.bc = len(s.bytes) - 1
	}
	s.cur = s.bytes[s.bc][:0]
}

// keep gives back what b left of the last reservation.
func (s *slab) keep(b []byte) []byte {
	if n := len(b); n > 0 && s.last < len(s.cur) && unsafe.SliceData(b) == unsafe.SliceData(s.cur[s.last:]) {
		s.cur = s.cur[:s.last+n]
		s.last = len(s.cur)
	}
	return b[:len(b):len(b)]
}

func (s *slab) reset() {
	for i := 0; i <= s.rc && i < len(s.recs); i++ {
		clear(s.recs[i])
	}
	if len(s.recs) > keepChunks {
		clear(s.recs[keepChunks:])
		s.recs = s.recs[:keepChunks]
	}
	if len(s.bytes) > keepChunks {
		clear(s.bytes[keepChunks:])
		s.bytes = s.bytes[:keepChunks]
	}
	s.rc, s.rn, s.bc, s.cur = 0, 0, 0, nil
	if len(s.bytes) > 0 {
		s.cur = s.bytes[0][:0]
	}
}

// unsafeBytes sees s as bytes, which must not be changed.
func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// unsafeString sees b as a string, which is good as long as b is not changed.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
