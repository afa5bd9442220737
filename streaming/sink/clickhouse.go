package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"golang.org/x/sync/errgroup"

	"millrace/event/schema"
	"millrace/internal/failpoint"
	"millrace/internal/fault"
	"millrace/internal/telemetry"
)

// ClickHouse stores events.*, events.failed, kpi.partial, kpi.late and events.ledger.
//
// events.* and events.failed are stored exactly once: a batch is a range of one partition and one block of its table. Before it is inserted the group is told
// (clickhouseIntent), with the member's generation; afterwards the group's offset moves on. After any doubt (a restart, another owner, an insert whose outcome is
// unknown) the table says which offsets it holds and only the others are sent. What it does not survive: rows deleted from the table behind the group's offset
// are not brought back; and a broker that loses acknowledged records.
//
// The other topics are stored at least once: their tables keep the newest version of a row, the version is the record's offset, and a record written twice is
// the same version of the same row.
type ClickHouse struct {
	cfg    ClickHouseConfig
	conn   driver.Conn
	codecs *schema.Codecs
	opts   []kgo.Opt
	log    *slog.Logger
	m      clickhouseMetrics
	topics map[string]*clickhouseTopic
	cl     *kgo.Client

	erasures   *erasures
	promotions *promotions
	promoted   int       // version of the promotions that the layouts have
	promoteAt  time.Time // not to be tried before

	mu         sync.Mutex // partitions: the group's callbacks and a round exclude each other
	partitions map[string]map[int32]*clickhousePartition
	status     error // why it is not ready; nil: it is

	pause    time.Duration // before the next round after a failed one
	resume   time.Time
	counted  time.Time // active parts
	identity bool      // topic ids have been checked
}

// NewClickHouse makes the sink. conn is to the database of the tables (olap.Migrate has made them); opts say how to reach the broker.
func NewClickHouse(cfg ClickHouseConfig, conn driver.Conn, codecs *schema.Codecs, opts []kgo.Opt, reg prometheus.Registerer, log *slog.Logger) (*ClickHouse, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fault.New("MR-CFG-001", fmt.Errorf("clickhouse sink: %w", err))
	}
	topics, err := clickhouseTopics()
	if err != nil {
		return nil, fmt.Errorf("clickhouse sink: %w", err)
	}
	s := &ClickHouse{
		cfg: cfg, conn: conn, codecs: codecs, opts: opts, log: log, m: newClickhouseMetrics(reg),
		topics: map[string]*clickhouseTopic{}, partitions: map[string]map[int32]*clickhousePartition{}, status: errors.New("not started"),
	}
	for _, t := range topics {
		s.topics[t.name] = t
	}
	return s, nil
}

// Ready says why the sink is not storing, nil when it is.
func (s *ClickHouse) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status != nil {
		return fmt.Errorf("clickhouse sink: %w", s.status)
	}
	return nil
}

// Run stores until ctx ends, then stores what it holds if that is soon done. It waits while the store is away, holding at most max_buffered bytes; it ends with an
// error only on what waiting cannot heal: another process with its instance id, a topic made anew, records that Kafka no longer holds.
func (s *ClickHouse) Run(ctx context.Context) error {
	follow, stop, err := followPromotions(ctx, s.opts, s.m.promotion, s.log)
	if err != nil {
		if ctx.Err() != nil {
			return nil // nothing was read yet
		}
		return fmt.Errorf("clickhouse sink: %w", err)
	}
	defer stop()
	s.promotions = follow
	erased, stopErased, err := followErasures(ctx, s.cfg.Erasures, s.codecs, s.opts, s.m.erasure, s.log)
	if err != nil {
		if ctx.Err() != nil {
			return nil // nothing was read yet
		}
		return fmt.Errorf("clickhouse sink: %w", err)
	}
	defer stopErased()
	s.erasures = erased
	for _, t := range s.topics {
		t.erasures = erased
	}
	var names []string
	for name := range s.topics {
		names = append(names, name)
	}
	slices.Sort(names)
	cl, err := kgo.NewClient(append(slices.Clone(s.opts),
		kgo.ConsumerGroup(s.cfg.Group), kgo.InstanceID(s.cfg.InstanceID), kgo.SessionTimeout(s.cfg.SessionTimeout), kgo.HeartbeatInterval(s.cfg.SessionTimeout/10),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.ConsumeTopics(names...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// A group without an offset starts at the start, or where the table ends; one whose offset Kafka no longer holds must not jump over what is lost.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.FetchMaxBytes(16<<20), kgo.FetchMaxPartitionBytes(4<<20),
		kgo.OnPartitionsAssigned(s.assigned), kgo.OnPartitionsRevoked(s.revoked), kgo.OnPartitionsLost(s.revoked),
		kgo.RequiredAcks(kgo.AllISRAcks()),
	)...)
	if err != nil {
		return fmt.Errorf("clickhouse sink: %w", err)
	}
	s.cl = cl
	defer cl.CloseAllowingRebalance()
	defer s.m.standing.watch(ctx, cl, names...)()
	for ctx.Err() == nil {
		fetches := s.poll(ctx)
		err := s.step(ctx, fetches)
		cl.AllowRebalance()
		if err != nil && ctx.Err() == nil {
			s.setStatus(err)
			return fmt.Errorf("clickhouse sink: %w", err)
		}
	}
	s.setStatus(errors.New("stopping"))
	return s.drain(context.WithoutCancel(ctx))
}

// drainTime is how long the last round may take after the sink was told to stop. Nothing is lost if it does not succeed.
const drainTime = 5 * time.Second

func (s *ClickHouse) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pause > 0 {
		return nil // the store is away
	}
	if err := s.round(ctx, true); err != nil {
		s.log.WarnContext(ctx, "clickhouse sink: what was held is left for the next start", "error", err)
	}
	return nil
}

func (s *ClickHouse) setStatus(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = err
}

// poll fetches, for as long as nothing else is to be done. With full buffers it only waits.
func (s *ClickHouse) poll(ctx context.Context) kgo.Fetches {
	wait, full := s.idle(time.Now())
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if full {
		<-ctx.Done()
		return nil
	}
	return s.cl.PollRecords(ctx, s.cfg.FlushRows)
}

// idle is how long the sink may wait, and whether it may not fetch.
func (s *ClickHouse) idle(now time.Time) (wait time.Duration, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := now.Add(s.cfg.FlushInterval)
	size := 0
	for p := range s.owned() {
		size += p.bytes
		if d, ok := s.due(p); ok && d.Before(at) {
			at = d
		}
		if !p.settled {
			at = now
		}
	}
	if s.resume.After(at) || s.pause > 0 {
		at = s.resume
	}
	s.m.buffered.Set(float64(size))
	return max(time.Millisecond, at.Sub(now)), size >= s.cfg.MaxBuffered
}

func (s *ClickHouse) owned() func(func(*clickhousePartition) bool) {
	return func(yield func(*clickhousePartition) bool) {
		for _, ps := range s.partitions {
			for _, p := range ps {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// due is when the partition's next batch is to be inserted; false if there is none.
func (s *ClickHouse) due(p *clickhousePartition) (time.Time, bool) {
	n, full := p.batch(s.cfg.FlushRows, s.cfg.FlushBytes)
	if n == 0 {
		return time.Time{}, false
	}
	parts, last := 0, time.Time{}
	for _, t := range p.topic.tables {
		parts = max(parts, t.parts)
		if t.inserted.After(last) {
			last = t.inserted
		}
	}
	interval, slow := clickhouseInterval(s.cfg.FlushInterval, parts, s.cfg.SlowParts)
	switch {
	case p.intent != nil:
		return p.first, true // it was begun
	case slow:
		// Even full batches give the server time to merge.
		if at := last.Add(interval); at.After(p.first) {
			return at, true
		}
		return p.first.Add(interval), true
	case full:
		return p.first, true
	}
	return p.first.Add(interval), true
}

// clickhouseInterval widens the flush interval with the number of active parts: up to a tenth of slowParts it is the configured one, from there it grows in
// proportion to ten times that at slowParts, from where on also full batches wait for it.
func clickhouseInterval(base time.Duration, parts, slowParts int) (interval time.Duration, slow bool) {
	widened := base * time.Duration(parts) * 10 / time.Duration(slowParts)
	return min(max(base, widened), 10*base), parts >= slowParts
}

// step takes over what was fetched and does a round.
func (s *ClickHouse) step(ctx context.Context, fetches kgo.Fetches) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if err := s.take(ctx, fetches, now); err != nil {
		return err
	}
	if now.Before(s.resume) {
		return nil
	}
	err := s.round(ctx, false)
	switch {
	case err == nil:
		s.pause, s.resume, s.status = 0, time.Time{}, nil
		if _, generation := s.cl.GroupMetadata(); generation < 0 {
			s.status = errors.New("not a member of the group yet")
		}
		return nil
	case clickhouseFatal(err):
		return err
	case ctx.Err() != nil:
		return nil
	}
	s.pause = min(max(2*s.pause, 100*time.Millisecond), s.cfg.RetryMax)
	s.resume = time.Now().Add(s.pause)
	s.status = err
	s.log.WarnContext(ctx, "clickhouse sink: not stored, trying again", "error", err, "pause", s.pause)
	return nil
}

// clickhouseFatal says whether an error is one that waiting does not heal.
func clickhouseFatal(err error) bool {
	if errors.Is(err, kerr.FencedInstanceID) {
		return true
	}
	id, ok := fault.IDOf(err)
	return ok && (id == "MR-CH-005" || id == "MR-CH-006" || id == "MR-CH-007")
}

// take takes over fetched records of partitions that are owned.
func (s *ClickHouse) take(ctx context.Context, fetches kgo.Fetches, now time.Time) error {
	var fatal error
	var lost []string
	fetches.EachError(func(topic string, partition int32, err error) {
		switch {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed):
		case errors.Is(err, kerr.OffsetOutOfRange):
			if err := s.settle(ctx); err != nil { // to name the offset
				s.log.WarnContext(ctx, "clickhouse sink: asking where the group is", "error", err)
			}
			lost = append(lost, fmt.Sprintf("%s/%d@%d", topic, partition, s.nextOf(topic, partition)))
		case errors.Is(err, kerr.FencedInstanceID):
			fatal = fmt.Errorf("another process has instance id %s: %w", s.cfg.InstanceID, err)
		default:
			s.log.WarnContext(ctx, "clickhouse sink: fetching", "topic", topic, "partition", partition, "error", err)
		}
	})
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		p := s.partitions[f.Topic][f.Partition]
		if p == nil {
			return
		}
		p.end = max(p.end, f.LastStableOffset)
		p.add(f.Records, now)
		s.m.records.Add(float64(len(f.Records)))
	})
	s.seek()
	if len(lost) > 0 {
		return fault.Newf("MR-CH-006", "%s: %w", strings.Join(lost, ", "), kerr.OffsetOutOfRange)
	}
	return fatal
}

func (s *ClickHouse) nextOf(topic string, partition int32) int64 {
	if p := s.partitions[topic][partition]; p != nil {
		return p.next
	}
	return -1
}

func (s *ClickHouse) assigned(_ context.Context, _ *kgo.Client, added map[string][]int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, ps := range added {
		if s.partitions[topic] == nil {
			s.partitions[topic] = map[int32]*clickhousePartition{}
		}
		for _, p := range ps {
			s.partitions[topic][p] = &clickhousePartition{topic: s.topics[topic], partition: p}
		}
	}
}

// revoked forgets partitions. What is held of them was not inserted, or the group has its intent.
func (s *ClickHouse) revoked(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, ps := range gone {
		for _, p := range ps {
			delete(s.partitions[topic], p)
		}
	}
}

// round settles new partitions, then inserts every batch that is due (all, if drain): intents to the group, inserts, offsets to the group.
func (s *ClickHouse) round(ctx context.Context, drain bool) error {
	if err := s.erasures.err(); err != nil {
		return err
	}
	s.promote(ctx, time.Now())
	if err := s.settle(ctx); err != nil {
		return err
	}
	s.countParts(ctx)
	now := time.Now()
	var batches []*clickhouseBatch
	replaced := map[*clickhouseTopic][]*clickhousePartition{}
	for p := range s.owned() {
		at, ok := s.due(p)
		if !ok || !drain && at.After(now) {
			continue
		}
		if !p.topic.once {
			replaced[p.topic] = append(replaced[p.topic], p)
			continue
		}
		n, _ := p.batch(s.cfg.FlushRows, s.cfg.FlushBytes)
		b := &clickhouseBatch{p: p, records: p.records[:n]}
		if p.intent == nil {
			p.intent = &clickhouseIntent{lo: p.next, hi: p.records[n-1].Offset + 1, columns: p.topic.tables[0].ids}
			p.doubt = p.next < p.until
		}
		b.intent, b.doubt = *p.intent, p.doubt
		batches = append(batches, b)
	}
	err := s.note(ctx, batches)
	if err == nil {
		failpoint.Hit("sink.clickhouse.intent")
		err = s.storeAll(ctx, batches)
		failpoint.Hit("sink.clickhouse.inserted")
	}
	err = errors.Join(err, s.replace(ctx, replaced))
	err = errors.Join(err, s.advance(ctx))
	failpoint.Hit("sink.clickhouse.committed")
	s.measure()
	return err
}

// note tells the group what is about to be inserted.
func (s *ClickHouse) note(ctx context.Context, batches []*clickhouseBatch) error {
	if len(batches) == 0 {
		return nil
	}
	var marks []clickhouseMark
	for _, b := range batches {
		text, err := b.intent.encode()
		if err != nil {
			return err
		}
		marks = append(marks, clickhouseMark{b.p, b.intent.lo, text})
	}
	// The time before the commit was sent: what the group accepted, it accepted later.
	at := time.Now()
	if err := s.commit(ctx, marks); err != nil {
		return err
	}
	for _, b := range batches {
		b.noted = at
		b.p.dirty = false // the intent's offset is where the partition is
	}
	return nil
}

// storeAll stores batches, a few at a time. One that fails stays where it is and is in doubt.
func (s *ClickHouse) storeAll(ctx context.Context, batches []*clickhouseBatch) error {
	var g errgroup.Group
	g.SetLimit(s.cfg.Inserters)
	for _, b := range batches {
		g.Go(func() error {
			span := s.trace(b.p.topic, b.records)
			if b.err = s.store(ctx, b); b.err == nil {
				b.err = s.reportRefused(ctx, b.p.topic, b.refused)
			}
			span.End(telemetry.Failure(b.err))
			return nil // the others go on; errors are gathered below
		})
	}
	_ = g.Wait() // gives no errors
	now := time.Now()
	var errs []error
	for _, b := range batches {
		if b.err != nil {
			b.p.doubt = true
			errs = append(errs, fmt.Errorf("%s/%d: %w", b.p.topic.name, b.p.partition, b.err))
			continue
		}
		s.count(b.p.topic, b.records, b.newest, now)
		b.p.stored(len(b.records), now)
	}
	return errors.Join(errs...)
}

func (s *ClickHouse) count(t *clickhouseTopic, rs []*kgo.Record, newest int64, now time.Time) {
	size := 0
	for _, r := range rs {
		size += clickhouseSize(r)
	}
	for _, table := range t.tables {
		table.inserted = now
	}
	table := t.tables[0].layout.table
	s.m.bytes.WithLabelValues(table).Add(float64(size))
	if t.once && newest > 0 {
		s.m.freshness.WithLabelValues(table).Set(float64(newest) / 1e6)
	}
	s.m.newest.Set(float64(rs[len(rs)-1].Timestamp.UnixMilli()) / 1e3)
}

// replace stores topics whose rows are replaced by version: all partitions that are due in one block a table.
func (s *ClickHouse) replace(ctx context.Context, due map[*clickhouseTopic][]*clickhousePartition) error {
	var errs []error
	for t, ps := range due {
		var rs []*kgo.Record
		taken := make([]int, len(ps))
		for i, p := range ps {
			n, _ := p.batch(s.cfg.FlushRows, s.cfg.FlushBytes)
			if len(rs) > 0 && len(rs)+n > s.cfg.FlushRows {
				continue
			}
			taken[i] = n
			rs = append(rs, p.records[:n]...)
		}
		span := s.trace(t, rs)
		refused, err := s.storeReplaced(ctx, t, rs)
		if err == nil {
			err = s.reportRefused(ctx, t, refused)
		}
		span.End(telemetry.Failure(err))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t.name, err))
			continue
		}
		now := time.Now()
		s.count(t, rs, 0, now)
		for i, p := range ps {
			if taken[i] > 0 {
				p.stored(taken[i], now)
			}
		}
	}
	return errors.Join(errs...)
}

// advance tells the group how far every partition is of which it does not know.
func (s *ClickHouse) advance(ctx context.Context) error {
	var marks []clickhouseMark
	for p := range s.owned() {
		if p.dirty {
			marks = append(marks, clickhouseMark{p, p.next, ""})
		}
	}
	if len(marks) == 0 {
		return nil
	}
	if err := s.commit(ctx, marks); err != nil {
		return err
	}
	for _, m := range marks {
		m.p.dirty = false
	}
	return nil
}

func (s *ClickHouse) trace(t *clickhouseTopic, rs []*kgo.Record) *telemetry.Span {
	return s.cfg.Tracer.BatchOf(rs, "clickhouse insert", attribute.String("db.system.name", "clickhouse"), attribute.String("db.collection.name", t.tables[0].layout.table), attribute.Int("db.operation.batch.size", len(rs)))
}

func (s *ClickHouse) measure() {
	lag := map[string]int64{}
	for p := range s.owned() {
		lag[p.topic.name] += max(0, p.end-p.next)
	}
	s.m.lag.Reset() // of what is no longer owned
	for topic, n := range lag {
		s.m.lag.WithLabelValues(topic).Set(float64(n))
	}
}
