package hotrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/event/wire"
	"millrace/internal/simulate"
)

// Shop is traffic: the simulator's events, decoded as the gateway does, each written to raw.* when it is due. It never waits for what was written before (open loop).
type Shop struct {
	Seed       uint64
	Rate       float64
	Events     int64         // 0: without end
	For        time.Duration // 0: without end
	Disorder   float64       // share of events that happened seconds before their predecessors
	Partitions int32
	Keep       bool                           // Records keeps what was written
	Sent       func(id string, due, at int64) // µs; nil: nobody asks

	Records  []*kgo.Record // in the order of time
	Count    atomic.Int64  // so far
	Behind   time.Duration // how late the latest event was handed to the producer
	Duration time.Duration

	// After Render: how much earlier the events say that they happen than they are due.
	Shift    time.Duration
	rendered []rendered
}

// rendered is an event that waits to be due.
type rendered struct {
	record *kgo.Record
	id     string
	due    int64 // µs, before the shift
	at     int64
}

// Render makes all events before any is written, so that Run takes no more of the processors than a producer needs. Run is to follow at once.
func (s *Shop) Render(ctx context.Context) error {
	if s.For == 0 && s.Events == 0 {
		return errors.New("traffic without end cannot be rendered")
	}
	codecs, err := Codecs()
	if err != nil {
		return err
	}
	start := time.Now()
	s.rendered = make([]rendered, 0, max(s.Events, int64(s.Rate*s.For.Seconds())))
	err = s.simulate(ctx, codecs, nil, start)
	s.Shift = time.Since(start) + 200*time.Millisecond
	return err
}

// Run writes to a broker until the end or until ctx is done, which is no error.
func (s *Shop) Run(ctx context.Context, brokers string) error {
	codecs, err := Codecs()
	if err != nil {
		return err
	}
	cl, err := Writer(brokers)
	if err != nil {
		return err
	}
	defer cl.Close()
	if s.rendered != nil {
		return s.replay(ctx, cl)
	}
	return s.simulate(ctx, codecs, cl, time.Now().Add(200*time.Millisecond))
}

// replay writes what is rendered.
func (s *Shop) replay(ctx context.Context, cl *kgo.Client) error {
	run := &shopRun{Shop: s, ctx: ctx, cl: cl}
	began := time.Now()
	for _, x := range s.rendered {
		if err := run.await(x.due + s.Shift.Microseconds()); err != nil {
			break
		}
		run.hand(x.record, x.id, x.due+s.Shift.Microseconds(), x.at)
	}
	s.Duration = time.Since(began)
	return run.flush()
}

// simulate renders without a client, and writes with one.
func (s *Shop) simulate(ctx context.Context, codecs *schema.Codecs, cl *kgo.Client, start time.Time) error {
	o := simulate.DefaultOptions()
	o.To, o.WriteKey, o.Connections, o.Batch, o.Diurnal = "http://shop.invalid", "drill", 1, 20, 0
	o.Seed, o.Rate, o.Tempo, o.Start = s.Seed, 0, s.Rate, start
	o.Shoppers = max(1000, 2*int(s.Rate)) // a few that do all of it would check out within the second, each of them an alert
	o.Events = s.Events
	if n := int64(s.Rate * s.For.Seconds()); s.For > 0 && (o.Events == 0 || n < o.Events) {
		o.Events = n
	}
	// Copies are left out of account by the topology. Late events are told apart by where the watermark was when they came, which is no function of what was sent.
	o.Shares = simulate.Shares{Duplicates: 0.01, Fraud: 0.01, OutOfOrder: s.Disorder}
	run := &shopRun{Shop: s, ctx: ctx, cl: cl, codecs: codecs, dec: wire.NewDecoder()}
	run.dec.Reset(&wire.Source{Tenant: "default", Name: "shop", Redactor: wire.NewRedactor(nil), Secret: wire.Secret{ID: "drill", Key: []byte("0123456789abcdef0123456789abcdef")}})
	o.Transport = run
	began := time.Now()
	_, err := simulate.Run(ctx, o)
	if ctx.Err() != nil {
		err = nil
	}
	if cl == nil {
		return err
	}
	s.Duration = time.Since(began)
	return errors.Join(err, run.flush())
}

// Writer is a client that writes as the gateway does, sooner.
func Writer(brokers string) (*kgo.Client, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.SnappyCompression()),
		kgo.ProducerLinger(2*time.Millisecond), kgo.MaxBufferedRecords(1_000_000))
	if err != nil {
		return nil, fmt.Errorf("making a producer: %w", err)
	}
	return cl, nil
}

type shopRun struct {
	*Shop
	ctx      context.Context //nolint:containedctx // of one Run, whose transport it is
	cl       *kgo.Client
	codecs   *schema.Codecs
	dec      *wire.Decoder
	e        event.Event
	newest   int64
	sequence uint64

	mu      sync.Mutex
	refused error
}

// RoundTrip implements http.RoundTripper in place of a gateway. One connection is at work at a time.
func (s *shopRun) RoundTrip(r *http.Request) (*http.Response, error) {
	text, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return nil, err
	}
	var failed error
	wire.Split(text, func(text []byte) bool {
		if f := s.dec.Decode(text, &s.e); f != nil {
			failed = f
			return false
		}
		s.newest = max(s.newest, s.e.OccurredAt)
		if f := s.dec.Complete(&wire.Request{ReceivedAt: s.newest}); f != nil {
			failed = f
			return false
		}
		failed = s.write()
		return failed == nil
	})
	if failed != nil {
		return nil, failed
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(bytes.NewReader([]byte(`{"success":true}`))), Request: r}, nil
}

// write hands the event in hand over when it is due, or keeps it until then.
func (s *shopRun) write() error {
	if s.cl != nil {
		// A clock that is ahead counts when it is heard, so an event that is written before it happens has another time than its copy: await may be half a millisecond early.
		if err := s.await(s.newest + time.Millisecond.Microseconds()); err != nil {
			return err
		}
	}
	s.sequence++
	r, id := RawRecord(s.codecs, &s.e, s.sequence, s.Partitions), strings.Clone(s.e.ID)
	if s.cl == nil {
		s.rendered = append(s.rendered, rendered{r, id, s.newest, s.e.OccurredAt})
		return nil
	}
	s.hand(r, id, s.newest, s.e.OccurredAt)
	return nil
}

// await waits until a moment in µs.
func (s *shopRun) await(due int64) error {
	wait := time.Until(time.UnixMicro(due))
	if wait <= 0 {
		s.Behind = max(s.Behind, -wait)
		return s.ctx.Err()
	}
	if wait > 500*time.Microsecond {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-s.ctx.Done():
			t.Stop()
			return s.ctx.Err()
		}
	}
	return nil
}

func (s *shopRun) hand(r *kgo.Record, id string, due, at int64) {
	if s.Sent != nil {
		s.Sent(id, due, at)
	}
	if s.Keep {
		s.Records = append(s.Records, &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers})
	}
	s.Count.Add(1)
	s.cl.Produce(context.WithoutCancel(s.ctx), r, s.promise)
}

// flush waits until everything is written.
func (s *shopRun) flush() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), time.Minute)
	defer cancel()
	err := s.cl.Flush(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err = errors.Join(err, s.refused); err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	return nil
}

func (s *shopRun) promise(_ *kgo.Record, err error) {
	if err != nil {
		s.mu.Lock()
		s.refused = err
		s.mu.Unlock()
	}
}

// RawRecord is an event as the gateway writes it.
func RawRecord(codecs *schema.Codecs, e *event.Event, sequence uint64, partitions int32) *kgo.Record {
	cat := e.Category()
	r := &kgo.Record{Topic: cat.RawTopic(), Key: e.AppendKey(nil), Value: codecs.AppendRaw(nil, cat, e), Headers: []kgo.RecordHeader{
		{Key: event.HeaderCategory, Value: []byte(cat.String())},
		{Key: event.HeaderTenant, Value: []byte(e.Tenant)},
		{Key: event.HeaderReceived, Value: event.AppendReceived(nil, e.ReceivedAt)},
		{Key: event.HeaderLane, Value: []byte{byte(event.LaneOf(e.OccurredAt, e.ReceivedAt))}},
		{Key: event.HeaderGateway, Value: event.AppendGateway(nil, 1, sequence)},
	}}
	r.Partition = event.Partition(r.Key, partitions)
	return r
}

// Fill writes records as fast as they are taken.
func Fill(ctx context.Context, brokers string, records []*kgo.Record) error {
	cl, err := Writer(brokers)
	if err != nil {
		return err
	}
	defer cl.Close()
	var mu sync.Mutex
	var refused error
	for _, r := range records {
		cl.Produce(ctx, &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers}, func(_ *kgo.Record, err error) {
			if err != nil {
				mu.Lock()
				refused = err
				mu.Unlock()
			}
		})
	}
	err = cl.Flush(ctx)
	mu.Lock()
	defer mu.Unlock()
	if err = errors.Join(err, refused); err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	return nil
}
