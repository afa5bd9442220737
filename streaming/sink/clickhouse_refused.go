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
)

// reportRefused writes rows that cannot be stored to raw.failed, with their record, and waits until they are durable. Only then does the partition go on. The
// same row refused again (after a crash, or by a repair) is the same failure, which the hot topology keeps once.
func (s *ClickHouse) reportRefused(ctx context.Context, t *clickhouseTopic, refused []clickhouseRefused) error {
	if len(refused) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.InsertTimeout)
	defer cancel()
	out := make([]*kgo.Record, len(refused))
	for i, r := range refused {
		f := s.failedOf(ctx, t, r)
		value, err := s.codecs.Append(nil, event.TopicRawFailed, &f)
		if err != nil {
			return err
		}
		out[i] = &kgo.Record{
			Topic: event.TopicRawFailed, Key: f.AppendKey(nil), Value: value,
			Headers: []kgo.RecordHeader{{Key: event.HeaderTenant, Value: []byte(f.Tenant)}, {Key: event.HeaderReceived, Value: event.AppendReceived(nil, f.ReceivedAt)}},
		}
		s.log.WarnContext(ctx, "clickhouse sink: a row cannot be stored and goes to raw.failed",
			"topic", r.record.Topic, "partition", r.record.Partition, "offset", r.record.Offset, "error", r.why)
	}
	if err := s.cl.ProduceSync(ctx, out...).FirstErr(); err != nil {
		return fmt.Errorf("writing refused rows to %s: %w", event.TopicRawFailed, err)
	}
	s.m.refused.WithLabelValues(t.tables[0].layout.table).Add(float64(len(refused)))
	return nil
}

func (s *ClickHouse) failedOf(ctx context.Context, t *clickhouseTopic, r clickhouseRefused) event.Failed {
	now := time.Now().UnixMicro()
	f := event.Failed{
		Reason: event.ReasonStore, Error: fmt.Sprintf("%s/%d@%d: %v", r.record.Topic, r.record.Partition, r.record.Offset, r.why),
		FailedAt: now, ReceivedAt: now, ContentType: "avro/binary;base64",
	}
	payload := base64.StdEncoding.EncodeToString(r.record.Value)
	var e event.Event
	if t.events && s.codecs.NewEventDecoder().DecodeEnriched(ctx, t.category, r.record.Value, &e) == nil {
		f.Tenant, f.Source, f.EventID, f.ReceivedAt = e.Tenant, e.Source, e.ID, e.ReceivedAt
		if text, err := json.Marshal(&e); err == nil {
			payload, f.ContentType = string(text), "application/json"
		}
	}
	// A text on a topic is UTF-8; what a store says of a value may quote it.
	f.Error = strings.ToValidUTF8(f.Error, "\uFFFD")
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
