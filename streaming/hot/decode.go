package hot

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/zeebo/xxh3"

	"millrace/event"
)

// takeEvent handles a record of raw.<category>.
func (o *operator) takeEvent(in int, r *kgo.Record, at int64, total *totals) error {
	src, e := &o.in[in], &o.e
	body, err := o.dec.DecodeRaw(context.Background(), src.cat, r.Value, e)
	if err != nil {
		if unreachable(err) {
			return fmt.Errorf("decoding: %w", err)
		}
		return o.refuse(in, r, at, total, event.ReasonMalformed, "", err)
	}
	// What the gateway checks is checked again, because anybody may write to a topic: an event without an id would be a copy of all others, one with a wild time would
	// be refused by the stores or close every window.
	switch {
	case e.ID == "":
		return o.refuse(in, r, at, total, event.ReasonSchema, "event_id", errNoID)
	case !event.TimeOK(e.OccurredAt, e.ReceivedAt):
		return o.refuse(in, r, at, total, event.ReasonBadTime, "occurred_at", fmt.Errorf("%s is not between 1990 and a day after %s", event.Time(e.OccurredAt), event.Time(e.ReceivedAt)))
	}
	lane := laneOf(r, e)
	o.t.Observe(in, uint8(lane), min(event.WatermarkTime(e.OccurredAt, e.ReceivedAt), at))

	first, err := o.dedup.first(eventID(e))
	if err != nil {
		return err
	}
	if !first {
		total.duplicates++
		o.note(in, duplicate)
		return nil
	}
	return o.accept(in, r, at, lane, body, total)
}

var errNoID = errors.New("the event has no id")

// laneOf is the lane that a header, or else the event's age on arrival, puts it on.
func laneOf(r *kgo.Record, e *event.Event) event.Lane {
	for i := range r.Headers {
		if h := &r.Headers[i]; h.Key == event.HeaderLane && len(h.Value) == 1 && h.Value[0] == byte(event.Replay) {
			return event.Replay
		}
	}
	return event.LaneOf(e.OccurredAt, e.ReceivedAt)
}

// unreachable says that a record could not be decoded because the schema registry did not answer, or not to the question, which says nothing of the record: the worker
// is to stop and try again. That it does not know the schema is an answer.
func unreachable(err error) bool {
	var answer *sr.ResponseError
	if errors.As(err, &answer) {
		return answer.StatusCode != http.StatusNotFound
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// refuse turns a record that is no event into a failed event: it is kept, with its bytes, and counted.
func (o *operator) refuse(in int, r *kgo.Record, at int64, total *totals, reason, path string, cause error) error {
	f := &o.failed
	*f = event.Failed{
		FailedAt: at, ReceivedAt: at, Reason: reason, Error: cause.Error(), ErrorPath: path, PayloadBytes: int64(len(r.Value)), ContentType: "avro/binary; encoding=base64",
	}
	for i := range r.Headers {
		switch h := &r.Headers[i]; h.Key {
		case event.HeaderTenant:
			f.Tenant = string(h.Value)
		case event.HeaderReceived:
			if us, ok := event.ParseReceived(h.Value); ok {
				f.ReceivedAt = us
			}
		}
	}
	if reason != event.ReasonMalformed && reason != event.ReasonSize { // it could be read, and was
		f.EventID, f.Tenant, f.Source = o.e.ID, o.e.Tenant, o.e.Source
	}
	f.ID = event.FailedID(f.Tenant, f.Source, reason, r.Value)
	payload := r.Value
	if most := event.MaxFailedPayload / 4 * 3; len(payload) > most {
		payload = payload[:most]
		sum := xxh3.Hash128(r.Value).Bytes()
		f.PayloadDigest = hex.EncodeToString(sum[:])
	}
	f.Payload = base64.StdEncoding.EncodeToString(payload)
	total.failed++
	o.note(in, failed)
	_, err := o.emitFailed(in, f, r, at)
	return err
}
