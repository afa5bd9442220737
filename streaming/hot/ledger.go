package hot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"millrace/event"
	"millrace/event/schema"
	"millrace/streaming"
)

// ledger keeps the control totals: for each raw topic how many records of the range in hand became rows, which rows, and what became of the others. A range ends when
// a record of another minute of arrival comes, or its topic has been silent; it is then emitted, in the transaction of its last record or a later one. What is
// counted in between is state, so ranges neither overlap nor leave a record out, whatever aborts and crashes there are.
type ledger struct {
	t      *streaming.Task
	codecs *schema.Codecs
	in     []source
	idle   time.Duration
	store  *streaming.Store[totals]

	open  []totals // by input
	dirty []bool
	heard []time.Time // processing time of the last record
	entry event.LedgerEntry
}

// totals is one range of one raw topic. The zero value is no range.
type totals struct {
	from, to   int64 // offsets read; to is one past the last
	first, end int64 // least and greatest ingested_at
	rows       event.Checksum
	duplicates int64
	failed     int64
}

func (t *totals) add(hash int64) { t.rows.Add(hash) }

func (t *totals) empty() bool { return t.to == 0 }

const minute = 60 * 1_000_000

func newLedger(t *streaming.Task, codecs *schema.Codecs, in []source, idle time.Duration) *ledger {
	return &ledger{
		t: t, codecs: codecs, in: in, idle: idle, store: streaming.OpenStore(t, storeLedger, streaming.Codec[totals](totalsCodec{})),
		open: make([]totals, len(in)), dirty: make([]bool, len(in)), heard: make([]time.Time, len(in)),
	}
}

// count takes a record into the range of its topic and gives the range, to which the caller adds what became of it.
func (l *ledger) count(in int, offset, at int64) (*totals, error) {
	r := &l.open[in]
	if !r.empty() && r.first/minute != at/minute {
		if err := l.end(in); err != nil {
			return nil, err
		}
	}
	if r.empty() {
		r.from, r.first, r.end = offset, at, at
	}
	r.to, r.first, r.end = offset+1, min(r.first, at), max(r.end, at)
	l.dirty[in], l.heard[in] = true, l.t.Now()
	return r, nil
}

// tick ends the ranges of silent topics.
func (l *ledger) tick(now time.Time) error {
	for in := range l.open {
		if !l.open[in].empty() && now.Sub(l.heard[in]) >= l.idle {
			if err := l.end(in); err != nil {
				return err
			}
		}
	}
	return nil
}

// end emits a range.
func (l *ledger) end(in int) error {
	r, src := &l.open[in], &l.in[in]
	l.entry = event.LedgerEntry{
		RawTopic: src.raw, RawPartition: l.t.Partition(), RawFrom: r.from, RawTo: r.to, OutTopic: src.out,
		Count: r.rows.Count, HashLo: r.rows.HashLo, HashHi: r.rows.HashHi, Duplicates: r.duplicates, Failed: r.failed, IngestedFrom: r.first, IngestedTo: r.end,
	}
	value, err := l.codecs.Append(l.t.Buf(160), event.TopicLedger, &l.entry)
	if err != nil {
		return err
	}
	out := l.t.Record()
	out.Topic, out.Value = event.TopicLedger, l.t.Keep(value)
	out.Key = l.t.Keep(fmt.Appendf(l.t.Buf(64), "%s/%d@%d", src.raw, l.t.Partition(), r.from))
	l.t.Emit(out)
	*r, l.dirty[in] = totals{}, true
	return nil
}

// save puts the ranges that changed in the transaction into the state.
func (l *ledger) save() {
	for in := range l.open {
		switch {
		case !l.dirty[in]:
		case l.open[in].empty():
			l.store.Delete(l.in[in].raw)
		default:
			l.store.Put(l.in[in].raw, l.open[in])
		}
		l.dirty[in] = false
	}
}

// load takes the ranges from the state, after a restore or an abort.
func (l *ledger) load() {
	for in := range l.open {
		l.open[in], _ = l.store.Get(l.in[in].raw)
		l.dirty[in], l.heard[in] = false, l.t.Now()
	}
}

// totalsCodec writes the fields as varints.
type totalsCodec struct{}

func (totalsCodec) fields(t *totals) [9]*int64 {
	return [...]*int64{&t.from, &t.to, &t.first, &t.end, &t.rows.Count, &t.rows.HashLo, &t.rows.HashHi, &t.duplicates, &t.failed}
}

// Append implements streaming.Codec.
func (c totalsCodec) Append(dst []byte, t totals) []byte {
	for _, f := range c.fields(&t) {
		dst = binary.AppendVarint(dst, *f)
	}
	return dst
}

// Decode implements streaming.Codec.
func (c totalsCodec) Decode(src []byte) (t totals, err error) {
	for _, f := range c.fields(&t) {
		v, n := binary.Varint(src)
		if n <= 0 {
			return totals{}, errTotals
		}
		*f, src = v, src[n:]
	}
	if len(src) != 0 {
		return totals{}, errTotals
	}
	return t, nil
}

var errTotals = errors.New("not control totals")
