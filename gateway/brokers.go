package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/gateway/spool"
)

// HeaderSpool marks a record that came through the spool: flags u8 (1: in the spool for longer than spool.max_age) ‖ the time it was spooled, µs int64
// big-endian.
const HeaderSpool = "sp"

// maxRecordBytes bounds key, value and headers of a record: brokers take batches of 1 MiB by default, and franz-go makes them up to 1,000,012 bytes.
const maxRecordBytes = 990_000

// brokers is the producers, one for each nature of topic, and the breaker that guards them.
type brokers struct {
	byTopic map[string]*kgo.Client
	clients []*kgo.Client
	classes map[string]event.ShedClass
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	latency atomic.Int64 // of acknowledgements, ns, smoothed
	maxAge  time.Duration
	timeout time.Duration
}

func newBrokers(cfg Config, opts []kgo.Opt, log *slog.Logger) (*brokers, error) {
	type nature struct {
		linger time.Duration
		codec  event.Codec
	}
	b := &brokers{byTopic: map[string]*kgo.Client{}, classes: map[string]event.ShedClass{}, maxAge: cfg.spool().MaxAge, timeout: cfg.AckTimeout}
	byNature := map[nature]*kgo.Client{}
	for _, t := range event.Topics() {
		if !t.HotInput {
			continue
		}
		n := nature{t.Linger, t.Codec}
		if byNature[n] == nil {
			codec := kgo.SnappyCompression()
			if n.codec == event.Zstd {
				codec = kgo.ZstdCompression()
			}
			cl, err := kgo.NewClient(append(append([]kgo.Opt{kgo.ClientID("millrace-gateway"), kgo.RetryBackoffFn(backoff)}, opts...),
				kgo.ProducerLinger(n.linger), kgo.ProducerBatchCompression(codec), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.AllowIdempotentProduceCancellation(),
				kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(200_000), kgo.MaxBufferedBytes(int(cfg.MaxInFlightBytes)),
				kgo.ProduceRequestTimeout(cfg.AckTimeout), kgo.MetadataMinAge(250*time.Millisecond))...)
			if err != nil {
				b.close()
				return nil, fmt.Errorf("making the producer of %s: %w", t.Name, err)
			}
			byNature[n] = cl
			b.clients = append(b.clients, cl)
		}
		b.byTopic[t.Name], b.classes[t.Name] = byNature[n], t.Shed
	}
	b.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: "broker", MaxRequests: 3, Interval: 30 * time.Second, Timeout: cfg.BreakerOpen,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= cfg.BreakerFailures || c.Requests >= 50 && c.TotalFailures*2 >= c.Requests
		},
		OnStateChange: func(_ string, from, to gobreaker.State) {
			log.Warn("broker breaker changed", "from", from.String(), "to", to.String())
		},
	})
	return b, nil
}

// backoff between a client's own retries: short, because the spool is what waits.
func backoff(n int) time.Duration {
	return min(time.Duration(n)*50*time.Millisecond, 500*time.Millisecond)
}

func (b *brokers) close() {
	for _, cl := range b.clients {
		cl.Close()
	}
}

// flush waits until nothing is in the producers.
func (b *brokers) flush(ctx context.Context) error {
	var errs []error
	for _, cl := range b.clients {
		errs = append(errs, cl.Flush(ctx))
	}
	return errors.Join(errs...)
}

// observe smooths the latency of acknowledgements.
func (b *brokers) observe(d time.Duration) {
	old := b.latency.Load()
	b.latency.Store(old + (int64(d)-old)/8) // a lost update is no matter
}

// forGood says whether an error of a record will be the same whenever it is tried.
func forGood(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.InvalidRecord) || errors.Is(err, kerr.RecordListTooLarge)
}

// deliver is the spool's way to the broker.
func (b *brokers) deliver(ctx context.Context, recs []spool.Record) (func() ([]int, error), error) {
	report, err := b.breaker.Allow()
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*b.timeout+5*time.Second)
	errs := make([]error, len(recs))
	var all sync.WaitGroup
	for i := range recs {
		r := &recs[i]
		cl := b.byTopic[r.Topic]
		if cl == nil {
			errs[i] = kerr.InvalidRecord // of a topic that this version does not know
			continue
		}
		mark := binary.BigEndian.AppendUint64([]byte{0}, uint64(r.SpooledAt.UnixMicro()))
		if time.Since(r.SpooledAt) > b.maxAge {
			mark[0] = 1
		}
		rec := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: HeaderSpool, Value: mark})
		all.Add(1)
		cl.TryProduce(ctx, rec, func(_ *kgo.Record, err error) {
			errs[i] = err
			all.Done()
		})
	}
	return func() (refused []int, err error) {
		all.Wait()
		cancel()
		for i, e := range errs {
			switch {
			case e == nil:
			case forGood(e):
				refused = append(refused, i)
			default:
				err = e
			}
		}
		report(err)
		if err != nil {
			return nil, fmt.Errorf("producing spooled records: %w", err)
		}
		return refused, nil
	}, nil
}
