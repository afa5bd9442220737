package hot

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
)

// takeFailed handles a record of raw.failed: the same failure sent again is one row.
func (o *operator) takeFailed(in int, r *kgo.Record, at int64, total *totals) error {
	f := &o.failed
	*f = event.Failed{}
	if err := o.codecs.Decode(context.Background(), event.TopicRawFailed, r.Value, f); err != nil {
		if unreachable(err) {
			return fmt.Errorf("decoding: %w", err)
		}
		return o.refuse(in, r, at, total, event.ReasonMalformed, "", err)
	}
	if f.ID == "" {
		f.ID = event.FailedID(f.Tenant, f.Source, f.Reason, []byte(f.Payload))
	}
	first, err := o.emitFailed(in, f, r, at)
	switch {
	case err != nil:
		return err
	case !first:
		total.duplicates++
		o.note(in, duplicate)
		return nil
	}
	total.add(failedHash(f.ID))
	o.note(in, accepted)
	return nil
}

// emitFailed writes f to events.failed unless it is there; it tells whether it was not.
//
// A record of raw.<category> that is refused twice with the same bytes is one row and two in the control totals: failed counts what was read and did not become an event.
func (o *operator) emitFailed(in int, f *event.Failed, r *kgo.Record, at int64) (first bool, err error) {
	if first, err = o.dedup.first(failedID(f.ID)); err != nil || !first {
		return false, err
	}
	f.IngestedAt, f.RawTopic, f.RawPartition, f.RawOffset = at, o.in[in].raw, r.Partition, r.Offset
	value, err := o.codecs.Append(o.t.Buf(256+len(f.Payload)+len(f.Error)), event.TopicEventsFailed, f)
	if err != nil {
		return false, err
	}
	value = o.t.Keep(value)
	o.emit(event.TopicEventsFailed, o.t.Keep(f.AppendKey(o.t.Buf(256))), value, r)
	return true, nil
}
