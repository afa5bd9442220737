package sink

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/zeebo/xxh3"

	"millrace/event"
	"millrace/lakehouse"
)

// refuse sends a row that cannot be stored to raw.failed and waits until it is durable there; only then does the partition go on. The same row refused again, after a
// crash or by another store, is the same failure, which the hot topology keeps once.
func (s *Iceberg) refuse(ctx context.Context, t *icebergTable, r *kgo.Record, why *lakehouse.RowError) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CommitTimeout)
	defer cancel()
	f := s.failedOf(ctx, t, r, why)
	value, err := s.codecs.Append(nil, event.TopicRawFailed, &f)
	if err != nil {
		return fmt.Errorf("encoding a refused row: %w", err)
	}
	out := &kgo.Record{
		Topic: event.TopicRawFailed, Key: f.AppendKey(nil), Value: value,
		Headers: []kgo.RecordHeader{{Key: event.HeaderTenant, Value: []byte(f.Tenant)}, {Key: event.HeaderReceived, Value: event.AppendReceived(nil, f.ReceivedAt)}},
	}
	if err := s.cl.ProduceSync(ctx, out).FirstErr(); err != nil {
		return fmt.Errorf("writing a refused row to %s: %w", event.TopicRawFailed, err)
	}
	s.m.refused.WithLabelValues(t.name).Inc()
	s.log.WarnContext(ctx, "iceberg sink: a row cannot be stored and went to raw.failed", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "error", why)
	return nil
}

// failedOf makes the failed event of a row. Its payload is the event as JSON, or the record's bytes if it cannot be decoded; either can be stored.
func (s *Iceberg) failedOf(ctx context.Context, t *icebergTable, r *kgo.Record, why *lakehouse.RowError) event.Failed {
	now := time.Now().UnixMicro()
	f := event.Failed{
		Reason: event.ReasonStore, Error: strings.ToValidUTF8(fmt.Sprintf("%s/%d@%d: %v", r.Topic, r.Partition, r.Offset, why), "\uFFFD"), ErrorPath: why.Column,
		FailedAt: now, ReceivedAt: now, ContentType: "avro/binary;base64",
	}
	payload := base64.StdEncoding.EncodeToString(r.Value)
	var e event.Event
	if t.events && s.codecs.NewEventDecoder().DecodeEnriched(ctx, t.cat, r.Value, &e) == nil {
		f.Tenant, f.Source, f.EventID = strings.ToValidUTF8(e.Tenant, "\uFFFD"), strings.ToValidUTF8(e.Source, "\uFFFD"), strings.ToValidUTF8(e.ID, "\uFFFD")
		if e.ReceivedAt > 0 && e.ReceivedAt <= now {
			f.ReceivedAt = e.ReceivedAt
		}
		if text, err := json.Marshal(&e); err == nil {
			payload, f.ContentType = string(text), "application/json"
		}
	}
	f.ID = event.FailedID(f.Tenant, f.Source, f.Reason, []byte(payload))
	f.PayloadBytes = int64(len(payload))
	if len(payload) > event.MaxFailedPayload {
		sum := xxh3.HashString128(payload).Bytes()
		f.PayloadDigest = hex.EncodeToString(sum[:])
		payload = strings.ToValidUTF8(payload[:event.MaxFailedPayload], "")
	}
	f.Payload = payload
	return f
}
