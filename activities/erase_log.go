package activities

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
)

// EraseTopic is the topic erasures.
type EraseTopic struct {
	client *kgo.Client
	codecs *schema.Codecs
}

// NewEraseTopic writes through a client that is idempotent with acks=all, as clients are by default.
func NewEraseTopic(client *kgo.Client, codecs *schema.Codecs) *EraseTopic {
	return &EraseTopic{client, codecs}
}

// Cut implements EraseLog.
func (t *EraseTopic) Cut(ctx context.Context) (event.Cut, error) {
	var topics []string
	for _, c := range event.Categories() {
		topics = append(topics, c.RawTopic())
	}
	topics = append(topics, event.TopicRawFailed)
	ends, err := kadm.NewClient(t.client).ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, err
	}
	cut := event.Cut{}
	for topic, parts := range ends {
		list := make([]int64, len(parts))
		for p, o := range parts {
			if int(p) >= len(list) {
				return nil, fmt.Errorf("topic %s has partition %d, but %d partitions", topic, p, len(list))
			}
			list[p] = o.Offset
		}
		cut[topic] = list
	}
	return cut, nil
}

// Append implements EraseLog.
func (t *EraseTopic) Append(ctx context.Context, entries []event.Erasure) error {
	records := make([]*kgo.Record, 0, len(entries))
	for i := range entries {
		value, err := t.codecs.Append(nil, event.TopicErasures, &entries[i])
		if err != nil {
			return err
		}
		records = append(records, &kgo.Record{Topic: event.TopicErasures, Key: entries[i].AppendKey(nil), Value: value})
	}
	return t.client.ProduceSync(ctx, records...).FirstErr()
}
