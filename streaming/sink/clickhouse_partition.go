package sink

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// clickhousePartition is what the sink knows of one partition that it owns.
type clickhousePartition struct {
	topic     *clickhouseTopic
	partition int32

	settled bool              // the group's offset and note and the table have been asked
	next    int64             // first offset that is not known to be stored
	intent  *clickhouseIntent // the range that is being inserted, or was by whoever noted it
	doubt   bool              // rows of the intent may be in the table
	until   int64             // rows below this offset may be in the table whatever the group says
	dirty   bool              // the group does not know next yet

	records []*kgo.Record // offsets from next on
	bytes   int
	first   time.Time // arrival of records[0]
	end     int64     // end of the partition on the broker, for lag
	seek    bool      // what was fetched begins below next: fetch from next
}

// add takes fetched records over.
func (p *clickhousePartition) add(rs []*kgo.Record, now time.Time) {
	for _, r := range rs {
		if r.Offset < p.next {
			p.seek = true
			continue
		}
		if len(p.records) == 0 {
			p.first = now
		}
		p.records = append(p.records, r)
		p.bytes += clickhouseSize(r)
	}
}

func clickhouseSize(r *kgo.Record) int { return len(r.Key) + len(r.Value) }

// skip drops what is stored already.
func (p *clickhousePartition) skip() {
	n := 0
	for n < len(p.records) && p.records[n].Offset < p.next {
		p.bytes -= clickhouseSize(p.records[n])
		n++
	}
	p.seek = p.seek || n > 0
	p.drop(n)
}

func (p *clickhousePartition) drop(n int) {
	clear(p.records[:n])
	p.records = p.records[n:]
	if len(p.records) == 0 {
		p.records = nil
	}
}

// batch is how many of the records make the next batch and whether it is complete whatever its age. An intent is a batch as soon as it is whole.
func (p *clickhousePartition) batch(maxRows, maxBytes int) (n int, full bool) {
	if p.intent != nil {
		for n < len(p.records) && p.records[n].Offset < p.intent.hi {
			n++
		}
		whole := n < len(p.records) || n > 0 && p.records[n-1].Offset == p.intent.hi-1
		if !whole {
			return 0, false
		}
		return n, true
	}
	size := 0
	for n < len(p.records) {
		size += clickhouseSize(p.records[n])
		n++
		if n >= maxRows || size >= maxBytes {
			return n, true
		}
	}
	return n, false
}

// stored moves on past the records of a batch.
func (p *clickhousePartition) stored(n int, now time.Time) {
	p.next = p.records[n-1].Offset + 1
	if p.intent != nil {
		p.next = max(p.next, p.intent.hi)
	}
	for _, r := range p.records[:n] {
		p.bytes -= clickhouseSize(r)
	}
	p.drop(n)
	p.first = now
	p.intent, p.doubt, p.dirty = nil, false, true
}
