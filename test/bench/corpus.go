package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/event/wire"
	"millrace/internal/simulate"
	"millrace/streaming"
)

const partitions = 4 // as on one machine

// bodies are requests as the simulator makes them, with the given number of events in each. Malformed events are left out: a peer that does not decode would
// take them. Everything else of the simulator's traffic is there, late events, copies and attacks too.
func bodies(ctx context.Context, events, batch int) ([][]byte, error) {
	o := simulate.DefaultOptions()
	c := &capture{}
	o.To, o.WriteKey, o.Transport, o.Connections = "http://capture.invalid", "bench", c, 1
	o.Seed, o.Events, o.Batch, o.BatchBytes, o.Malformed = 7, int64(events), batch, 8<<20, 0
	if _, err := simulate.Run(ctx, o); err != nil {
		return nil, fmt.Errorf("making events: %w", err)
	}
	return c.bodies, nil
}

// capture takes requests in place of a gateway.
type capture struct{ bodies [][]byte }

// RoundTrip implements http.RoundTripper. One connection is at work at a time.
func (c *capture) RoundTrip(r *http.Request) (*http.Response, error) {
	text, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return nil, err
	}
	c.bodies = append(c.bodies, text)
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(bytes.NewReader(nil)), Request: r}, nil
}

// eachEvent decodes events as the gateway does. The event is used again for the next one.
func eachEvent(ctx context.Context, n int, each func(cat event.Category, e *event.Event)) error {
	all, err := bodies(ctx, n, 500)
	if err != nil {
		return err
	}
	dec := wire.NewDecoder()
	dec.Reset(&wire.Source{Tenant: "default", Name: "web", Redactor: wire.NewRedactor(nil), Secret: wire.Secret{ID: "bench", Key: []byte("0123456789abcdef0123456789abcdef")}})
	var e event.Event
	for _, body := range all {
		var failed error
		wire.Split(body, func(text []byte) bool {
			if f := dec.Decode(text, &e); f != nil {
				failed = f
			} else if f := dec.Complete(&wire.Request{ReceivedAt: time.Now().UnixMicro()}); f != nil {
				failed = f
			} else {
				each(e.Category(), &e)
			}
			return failed == nil
		})
		if failed != nil {
			return fmt.Errorf("decoding what the simulator made: %w", failed)
		}
	}
	return nil
}

// local are codecs whose schema ids need no registry: all processes of a bench agree on them.
func local() (*schema.Codecs, error) {
	c, err := schema.NewCodecs()
	if err != nil {
		return nil, err
	}
	return c.AssignLocal(), nil
}

// fillRaw writes n events to raw.*, as the gateway would.
func fillRaw(ctx context.Context, brokers string, n int) error {
	codecs, err := local()
	if err != nil {
		return err
	}
	var sequence uint64
	return fill(ctx, brokers, n, func(cat event.Category, e *event.Event) *kgo.Record {
		sequence++
		return &kgo.Record{Topic: cat.RawTopic(), Value: codecs.AppendRaw(nil, cat, e), Headers: []kgo.RecordHeader{
			{Key: event.HeaderCategory, Value: []byte(cat.String())},
			{Key: event.HeaderTenant, Value: []byte(e.Tenant)},
			{Key: event.HeaderReceived, Value: event.AppendReceived(nil, e.ReceivedAt)},
			{Key: event.HeaderLane, Value: []byte{byte(event.LaneOf(e.OccurredAt, e.ReceivedAt))}},
			{Key: event.HeaderGateway, Value: event.AppendGateway(nil, 1, sequence)},
		}}
	})
}

// fillEvents writes n events to events.*, as the hot topology would.
func fillEvents(ctx context.Context, brokers string, n int) error {
	codecs, err := local()
	if err != nil {
		return err
	}
	var offset int64
	return fill(ctx, brokers, n, func(cat event.Category, e *event.Event) *kgo.Record {
		e.Enriched = event.Enriched{IngestedAt: e.ReceivedAt + 20_000, RawTopic: cat.RawTopic(), RawPartition: event.Partition(e.AppendKey(nil), partitions), RawOffset: offset, RowHash: e.ComputeRowHash()}
		offset++
		if e.Name == event.NamePurchase {
			e.OrderRank = 1
		}
		return &kgo.Record{Topic: cat.EventsTopic(), Value: codecs.AppendEnriched(nil, cat, e, nil)}
	})
}

func fill(ctx context.Context, brokers string, n int, record func(event.Category, *event.Event) *kgo.Record) error {
	clients := map[event.Codec]*kgo.Client{}
	for codec, c := range map[event.Codec]kgo.CompressionCodec{event.Snappy: kgo.SnappyCompression(), event.Zstd: kgo.ZstdCompression()} {
		cl, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(c), kgo.ProducerLinger(20*time.Millisecond))
		if err != nil {
			return fmt.Errorf("filling topics: %w", err)
		}
		defer cl.Close()
		clients[codec] = cl
	}
	var refused atomic.Pointer[error]
	err := eachEvent(ctx, n, func(cat event.Category, e *event.Event) {
		r := record(cat, e)
		r.Key = e.AppendKey(nil)
		r.Partition = event.Partition(r.Key, partitions)
		t, _ := event.TopicNamed(r.Topic) // every category's are in the table
		clients[t.Codec].Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				refused.Store(&err)
			}
		})
	})
	for _, cl := range clients {
		err = errors.Join(err, cl.Flush(ctx))
	}
	if r := refused.Load(); r != nil {
		err = errors.Join(err, *r)
	}
	if err != nil {
		return fmt.Errorf("filling topics: %w", err)
	}
	return nil
}

// createTopics makes the platform's topics and those of an engine's state.
func createTopics(ctx context.Context, brokers string, state ...streaming.TopicSpec) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers))
	if err != nil {
		return fmt.Errorf("creating topics: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	create := func(n int32, configs map[string]*string, name string) error {
		got, err := adm.CreateTopic(ctx, n, 1, configs, name)
		if err := errors.Join(err, got.Err); err != nil {
			return fmt.Errorf("creating topic %s: %w", name, err)
		}
		return nil
	}
	if len(state) > 0 {
		for _, t := range state {
			if err := create(t.Partitions, nil, t.Name); err != nil {
				return err
			}
		}
		return nil
	}
	for _, t := range event.Topics() {
		n := int32(1)
		if t.Partitioned {
			n = partitions
		}
		configs := map[string]*string{}
		if t.LogAppendTime {
			configs["message.timestamp.type"] = kadm.StringPtr("LogAppendTime")
		}
		if err := create(n, configs, t.Name); err != nil {
			return err
		}
	}
	return nil
}

// records counts what is in the topics with a prefix.
func records(ctx context.Context, brokers, prefix string) (int64, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers))
	if err != nil {
		return 0, fmt.Errorf("counting records: %w", err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("counting records: %w", err)
	}
	var n int64
	ends.Each(func(o kadm.ListedOffset) {
		if strings.HasPrefix(o.Topic, prefix) {
			n += o.Offset
		}
	})
	return n, nil
}

// groupName is a consumer group of one turn.
func groupName(bench string, turn int) string { return "bench." + bench + "." + strconv.Itoa(turn) }
