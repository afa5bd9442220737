package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/lakehouse"
)

// Iceberg takes events.*, events.failed and alerts into the lakehouse, one table a topic. The head of each table says how far it has got; on start, after a rebalance and
// whenever the head turns out to be elsewhere, the sink goes there.
//
// Several members may share the topics, also partitions of one topic: each commits the offsets of its own partitions, by compare-and-swap on the head.
type Iceberg struct {
	cfg    IcebergConfig
	cat    *lakehouse.Catalog
	codecs *schema.Codecs
	opts   []kgo.Opt
	log    *slog.Logger
	m      icebergMetrics
	now    func() time.Time

	erasures   *erasures
	promotions *promotions
	promoted   int // version of the promotions that the tables were told

	cl     *kgo.Client
	adm    *kadm.Client
	dec    *schema.EventDecoder
	event  event.Event
	failed event.Failed
	alert  event.Alert

	// mu makes the loop and the group's callbacks take turns with the tables.
	mu     sync.Mutex
	tables map[string]*icebergTable // by topic
	order  []*icebergTable
	fatal  error
	stop   context.CancelCauseFunc
	joined bool
	tried  time.Time // freshness was set
}

// NewIceberg makes the sink. The tables must exist (lakehouse.EnsureTables). opts reach the brokers; the sink adds what it needs as a consumer.
func NewIceberg(cfg IcebergConfig, cat *lakehouse.Catalog, codecs *schema.Codecs, opts []kgo.Opt, reg prometheus.Registerer, log *slog.Logger) (*Iceberg, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("iceberg sink: %w", err)
	}
	s := &Iceberg{cfg: cfg, cat: cat, codecs: codecs, opts: opts, log: log, m: newIcebergMetrics(reg), now: time.Now, dec: codecs.NewEventDecoder(), tables: map[string]*icebergTable{}}
	for _, c := range event.Categories() {
		s.add(&icebergTable{topic: c.EventsTopic(), name: c.Table(), events: true, cat: c, rows: eventRows{s, c}})
	}
	s.add(&icebergTable{topic: event.TopicEventsFailed, name: lakehouse.FailedTable, rows: failedRows{s}})
	s.add(&icebergTable{topic: event.TopicAlerts, name: lakehouse.AlertsTable, rows: alertRows{s}})
	return s, nil
}

func (s *Iceberg) add(t *icebergTable) {
	t.s, t.parts, t.checked = s, map[int32]*icebergPart{}, s.now()
	s.tables[t.topic] = t
	s.order = append(s.order, t)
}

// Ready says why the sink is not at work: it has not joined its group, or a table cannot be written now.
func (s *Iceberg) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal != nil {
		return s.fatal
	}
	if !s.joined {
		return errors.New("iceberg sink: no partitions yet")
	}
	var errs []error
	for _, t := range s.order {
		if t.problem != nil {
			errs = append(errs, fmt.Errorf("iceberg sink: table %s: %w", t.name, t.problem))
		}
	}
	return errors.Join(errs...)
}

// Run sinks until ctx ends, then commits what it has and gives nil. An error is one that no waiting mends: a fault that names what is wrong with a table, or another
// member with this instance id.
func (s *Iceberg) Run(ctx context.Context) error {
	ctx, s.stop = context.WithCancelCause(ctx)
	defer s.stop(nil)
	follow, stop, err := followPromotions(ctx, s.opts, s.m.promotion, s.log)
	if err != nil {
		if ctx.Err() != nil {
			return nil // nothing was read yet
		}
		return fmt.Errorf("iceberg sink: %w", err)
	}
	defer stop()
	s.promotions = follow
	erased, stopErased, err := followErasures(ctx, s.cfg.Erasures, s.codecs, s.opts, s.m.erasure, s.log)
	if err != nil {
		if ctx.Err() != nil {
			return nil // nothing was read yet
		}
		return fmt.Errorf("iceberg sink: %w", err)
	}
	defer stopErased()
	s.erasures = erased
	topics := make([]string, len(s.order))
	for i, t := range s.order {
		topics[i] = t.topic
	}
	s.mu.Lock() // the client joins the group at once: its callbacks must find it
	cl, err := kgo.NewClient(slices.Concat(s.opts, []kgo.Opt{
		kgo.ConsumerGroup(s.cfg.Group), kgo.InstanceID(s.cfg.InstanceID), kgo.ConsumeTopics(topics...), kgo.SessionTimeout(s.cfg.SessionTimeout), kgo.HeartbeatInterval(s.cfg.SessionTimeout / 5),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.BlockRebalanceOnPoll(), kgo.DisableAutoCommit(), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset()), // positions are the heads'; out of range is not to be skipped
		kgo.FetchMaxBytes(icebergFetchBytes), kgo.FetchMaxPartitionBytes(icebergFetchBytes / 4),
		kgo.AdjustFetchOffsetsFn(s.position), kgo.OnPartitionsRevoked(s.revoked), kgo.OnPartitionsLost(s.lost),
	})...)
	if err == nil {
		s.cl, s.adm = cl, kadm.NewClient(cl)
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("iceberg sink: making the Kafka client: %w", err)
	}
	defer s.end(ctx)
	defer s.m.standing.watch(ctx, cl, topics...)()
	for ctx.Err() == nil {
		if err := s.step(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fatal
}

// end commits what is there and closes the client.
func (s *Iceberg) end(ctx context.Context) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.CommitTimeout)
	defer cancel()
	s.mu.Lock()
	for _, t := range s.order {
		if s.fatal == nil {
			t.flush(last)
		}
	}
	s.mu.Unlock()
	s.cl.CloseAllowingRebalance()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.order {
		t.discard(last)
		t.parts = map[int32]*icebergPart{}
	}
	s.joined = false
}

// step polls once and does what is due.
func (s *Iceberg) step(ctx context.Context) error {
	pollCtx, cancel := context.WithTimeout(ctx, s.wait())
	fetches := s.cl.PollRecords(pollCtx, icebergPollRows)
	cancel()
	defer s.cl.AllowRebalance()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.erasures.err(); err != nil {
		return fmt.Errorf("iceberg sink: %w", err)
	}
	for _, e := range fetches.Errors() {
		if err := s.fetchError(ctx, e); err != nil {
			return err
		}
	}
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if t := s.tables[p.Topic]; t != nil && len(p.Records) > 0 {
			t.take(ctx, p)
		}
	})
	if ctx.Err() == nil { // else end commits, with a context of its own
		s.commitDue(ctx)
	}
	return s.fatal
}

// wait is how long a poll may wait for records.
func (s *Iceberg) wait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := icebergPollMax
	for _, t := range s.order {
		if d, ok := t.dueIn(s.now()); ok {
			w = min(w, d)
		}
	}
	return max(w, time.Millisecond)
}

func (s *Iceberg) fetchError(ctx context.Context, e kgo.FetchError) error {
	var session *kgo.ErrGroupSession
	switch {
	case errors.Is(e.Err, context.DeadlineExceeded), errors.Is(e.Err, context.Canceled), errors.Is(e.Err, kgo.ErrClientClosed):
	case errors.Is(e.Err, kerr.FencedInstanceID):
		return fmt.Errorf("iceberg sink: another member has instance id %s: %w", s.cfg.InstanceID, e.Err)
	case errors.As(e.Err, &session):
		s.log.WarnContext(ctx, "iceberg sink: the group session ended and is joined again", "error", e.Err)
	case s.tables[e.Topic] != nil: // out of range, unknown topic: going to the head finds out what is wrong
		t := s.tables[e.Topic]
		t.problem, t.rewind = fmt.Errorf("fetching %s/%d: %w", e.Topic, e.Partition, e.Err), true
		t.retryLater()
	default:
		s.log.WarnContext(ctx, "iceberg sink: fetching failed and is tried again", "error", e.Err)
	}
	return nil
}

// commitDue commits the tables whose time has come, rewinds those that must, and looks after idle ones.
func (s *Iceberg) commitDue(ctx context.Context) {
	now := s.now()
	if all, version, changed := s.promotions.since(s.promoted); changed {
		for _, t := range s.order {
			if ps := all[t.cat]; t.events && len(ps) > 0 && !slices.Equal(ps, t.promoted) {
				t.adding, t.addAt = ps, now
			}
		}
		s.promoted = version
	}
	var total int64
	var largest *icebergTable
	for _, t := range s.order {
		t.work(ctx, now)
		b := t.bytes()
		total += b
		if largest == nil || b > largest.bytes() {
			largest = t
		}
	}
	if total > s.cfg.MaxBuffered && largest.pending == nil && !largest.held(now) {
		largest.flush(ctx)
	}
	for _, t := range s.order {
		t.throttle(total > s.cfg.MaxBuffered)
	}
	if now.Sub(s.tried) >= time.Second {
		s.tried = now
		for _, t := range s.order {
			t.report(now)
		}
	}
}

// fail ends Run with an error that waiting does not mend.
func (s *Iceberg) fail(err error) {
	if s.fatal == nil {
		s.fatal = fmt.Errorf("iceberg sink: %w", err)
		s.stop(s.fatal)
	}
}
