package hot

import (
	"github.com/cespare/xxhash/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
)

// accept enriches an event that is seen for the first time, writes it to events.<category>, and counts it: in the control totals always, in KPIs if it is live and no
// copy of an order.
func (o *operator) accept(in int, r *kgo.Record, at int64, lane event.Lane, body []byte, total *totals) error {
	src, e := &o.in[in], &o.e
	e.Enriched = event.Enriched{IngestedAt: at, LaneCode: int32(lane), RawTopic: src.raw, RawPartition: r.Partition, RawOffset: r.Offset, RowHash: e.ComputeRowHash()}
	if e.Name == event.NamePurchase {
		// SQL over orders and revenue takes rows with order_rank 1, so a purchase without an order id, of which copies cannot be told, is the first of its own.
		e.OrderRank = 1
		if e.OrderID != "" {
			rank, err := o.dedup.rank(orderID(e))
			if err != nil {
				return err
			}
			e.OrderRank = rank
		}
	}
	if lane == event.Live {
		e.SessionID = o.sessions.assign(e)
	}
	o.emit(src.out, r.Key, o.t.Keep(o.codecs.AppendEnriched(o.t.Buf(96+len(r.Value)), src.cat, e, body)), r)
	total.add(e.RowHash)
	o.note(in, accepted)
	if lane != event.Live || e.OrderRank > 1 {
		return nil
	}
	if err := o.jobs.each(func(j job) error { return j.event(e, r) }); err != nil {
		return err
	}
	inTime, err := o.kpis.add(e)
	if err != nil || inTime {
		return err
	}
	o.note(in, late)
	return o.kpis.late(e, r)
}

// failedHash stands for row_hash in the control totals of failed events: the bits of XXH64 over failed_id.
func failedHash(id string) int64 { return int64(xxhash.Sum64String(id)) }
