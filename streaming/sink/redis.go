package sink

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/telemetry"
	"millrace/live"
)

// RedisConfig is how the Redis sink works. See DefaultRedisConfig.
type RedisConfig struct {
	Group          string            `koanf:"group" desc:"consumer group"`
	InstanceID     string            `koanf:"instance_id" desc:"static member id of this process within the group"`
	SessionTimeout time.Duration     `koanf:"session_timeout" desc:"after which a silent member loses its partitions"`
	MaxRecords     int               `koanf:"max_records" desc:"records of one write"`
	Generation     uint16            `koanf:"-"` // topic generation
	Erasures       *event.SubjectKey `koanf:"-"` // key of the ledger of erasures; nil: there is none
	Tracer         *telemetry.Tracer `koanf:"-"` // nil: no traces
}

// DefaultRedisConfig has values for one machine.
func DefaultRedisConfig() RedisConfig {
	return RedisConfig{Group: "millrace.sink.redis", InstanceID: "redis-0", SessionTimeout: 10 * time.Second, MaxRecords: 5000}
}

// Validate reports every problem.
func (c RedisConfig) Validate() error {
	var errs []error
	if c.Group == "" {
		errs = append(errs, errors.New("group: must not be empty"))
	}
	if c.SessionTimeout < 6*time.Second {
		errs = append(errs, fmt.Errorf("session_timeout: %s is below the broker's least, 6s", c.SessionTimeout))
	}
	if c.MaxRecords < 1 || c.MaxRecords > 100_000 {
		errs = append(errs, fmt.Errorf("max_records: %d is not between 1 and 100000", c.MaxRecords))
	}
	return errors.Join(errs...)
}

// Redis keeps the live KPIs of kpi.partial, the values of live.updates and the last alerts in Redis. Delivery is at least once, of versioned writes, so the values are exactly-once; the positions are
// kept in Redis behind the data (live.Progress), so a server that comes back with less than it had, or empty, is filled again.
type Redis struct {
	cfg    RedisConfig
	rdb    redis.UniversalClient
	codecs *schema.Codecs
	opts   []kgo.Opt
	log    *slog.Logger
	m      redisMetrics
	ready  atomic.Bool

	erasures *erasures

	progress map[string]live.Progress // by topic
	mu       sync.Mutex               // startPositions runs on the group's goroutine
	at       map[place]int64          // recorded position of each partition we read, live.None if there is none
}

// place is a partition.
type place struct {
	topic     string
	partition int32
}

// redisTopics are what the sink reads.
func redisTopics() []string {
	return append(alertTopics(), event.TopicKPIPartial, event.TopicLiveUpdates)
}

type redisMetrics struct {
	records, writes, rewinds, refused prometheus.Counter
	alerts                            *prometheus.CounterVec
	seconds                           prometheus.Histogram
	freshness                         prometheus.Gauge
	standing                          standing
	erasure                           erasureMetrics
}

// NewRedis makes the sink. opts say how to reach the broker.
func NewRedis(cfg RedisConfig, rdb redis.UniversalClient, codecs *schema.Codecs, opts []kgo.Opt, reg prometheus.Registerer, log *slog.Logger) (*Redis, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("redis sink: %w", err)
	}
	labels := prometheus.Labels{"sink": "redis"}
	m := redisMetrics{
		records:   prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_sink_records_total", Help: "Records read by the sink.", ConstLabels: labels}),
		writes:    prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_sink_redis_fields_total", Help: "Versioned writes that were newer than what was there."}),
		rewinds:   prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_sink_rewinds_total", Help: "Times the sink went back to the store's own position.", ConstLabels: labels}),
		refused:   prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_sink_redis_refused_total", Help: "Records of the topics of alerts that are no alert."}),
		alerts:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_sink_redis_alerts_total", Help: "Alerts that followers were told of: new ones, and ones that were confirmed after they were provisional."}, []string{"what"}),
		seconds:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "millrace_sink_redis_write_seconds", Help: "Time of one write.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 12)}),
		freshness: prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_sink_newest_record_timestamp_seconds", Help: "Broker time of the newest record written.", ConstLabels: labels}),
	}
	reg.MustRegister(m.records, m.writes, m.rewinds, m.refused, m.alerts, m.seconds, m.freshness)
	m.standing, m.erasure = newStanding(reg, "redis"), newErasureMetrics(reg, "redis")
	return &Redis{cfg: cfg, rdb: rdb, codecs: codecs, opts: opts, log: log, m: m}, nil
}

// Ready says why the sink is not writing yet, nil when it is.
func (s *Redis) Ready() error {
	if !s.ready.Load() {
		return errors.New("redis sink: no position read yet")
	}
	return nil
}

// Run writes until ctx ends. While Redis is away it waits, holding at most one poll of records.
func (s *Redis) Run(ctx context.Context) error {
	s.progress, s.at = map[string]live.Progress{}, map[place]int64{}
	for _, topic := range redisTopics() {
		id, err := topicID(ctx, s.opts, topic)
		if err != nil {
			if ctx.Err() != nil {
				return nil // nothing was read yet
			}
			return fmt.Errorf("redis sink: %w", err)
		}
		s.progress[topic] = live.Progress{Group: s.cfg.Group, Topic: topic, TopicID: id}
	}
	erased, stop, err := followErasures(ctx, s.cfg.Erasures, s.codecs, s.opts, s.m.erasure, s.log)
	if err != nil {
		if ctx.Err() != nil {
			return nil // nothing was read yet
		}
		return fmt.Errorf("redis sink: %w", err)
	}
	defer stop()
	s.erasures = erased
	cl, err := kgo.NewClient(append(slices.Clone(s.opts),
		kgo.ConsumerGroup(s.cfg.Group), kgo.InstanceID(s.cfg.InstanceID), kgo.SessionTimeout(s.cfg.SessionTimeout), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.ConsumeTopics(redisTopics()...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.AdjustFetchOffsetsFn(s.startPositions),
	)...)
	if err != nil {
		return fmt.Errorf("redis sink: %w", err)
	}
	defer cl.CloseAllowingRebalance()
	defer s.m.standing.watch(ctx, cl, redisTopics()...)()
	for {
		fetches := s.poll(ctx, cl)
		if ctx.Err() != nil {
			return nil
		}
		if err := s.erasures.err(); err != nil {
			return fmt.Errorf("redis sink: %w", err)
		}
		fetches.EachError(func(topic string, p int32, err error) {
			s.log.WarnContext(ctx, "redis sink: fetching", "topic", topic, "partition", p, "error", err)
		})
		step := s.write
		if fetches.NumRecords() == 0 {
			step = s.check
		}
		if err := step(ctx, cl, fetches); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("redis sink: %w", err)
		}
		cl.AllowRebalance()
	}
}

// idleCheck is how long the sink waits for records before it looks whether Redis still is where it was left.
const idleCheck = 2 * time.Second

func (s *Redis) poll(ctx context.Context, cl *kgo.Client) kgo.Fetches {
	ctx, cancel := context.WithTimeout(ctx, idleCheck)
	defer cancel()
	fetches := cl.PollRecords(ctx, s.cfg.MaxRecords)
	if ctx.Err() != nil && fetches.NumRecords() == 0 {
		return nil
	}
	return fetches
}

// check finds partitions whose position in Redis is not where we left it: a server that was restarted with less, or emptied, while nothing was written.
func (s *Redis) check(ctx context.Context, cl *kgo.Client, _ kgo.Fetches) error {
	have, err := s.positions(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "redis sink: reading positions", "error", err)
		return nil // the next write or check meets it again
	}
	var moved []place
	s.mu.Lock()
	for p, at := range s.at {
		if got, ok := have[p]; ok && got != at || !ok && at != live.None {
			moved = append(moved, p)
		}
	}
	s.mu.Unlock()
	if len(moved) == 0 {
		return nil
	}
	s.log.WarnContext(ctx, "redis sink: Redis holds less than was written, going back", "partitions", moved)
	s.m.rewinds.Inc()
	return s.rewind(ctx, cl, moved)
}

// positions reads what Redis says of all topics.
func (s *Redis) positions(ctx context.Context) (map[place]int64, error) {
	out := map[place]int64{}
	for topic, progress := range s.progress {
		have, err := progress.Positions(ctx, s.rdb)
		if err != nil {
			return nil, err
		}
		for p, at := range have {
			out[place{topic, p}] = at
		}
	}
	return out, nil
}

// startPositions replaces the group's offsets by Redis's own.
func (s *Redis) startPositions(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	var have map[place]int64
	err := retry(ctx, s.log, "redis sink: reading positions", func() (err error) {
		have, err = s.positions(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, parts := range offsets {
		for p := range parts {
			at, ok := have[place{topic, p}]
			if !ok {
				s.at[place{topic, p}] = live.None
				parts[p] = kgo.NewOffset().AtStart()
				continue
			}
			s.at[place{topic, p}] = at
			parts[p] = kgo.NewOffset().At(at)
		}
	}
	s.ready.Store(true)
	return offsets, nil
}

// write stores one poll and records how far it got. Where Redis is not where we left it, the partition goes back to where Redis is.
func (s *Redis) write(ctx context.Context, cl *kgo.Client, fetches kgo.Fetches) error {
	newest := map[[2]string]live.Write{} // by key and field: only the last of a poll is worth writing
	var alerts []event.Alert
	first, next := map[place]int64{}, map[place]int64{}
	var stamp time.Time
	var bad error
	now := time.Now()
	fetches.EachRecord(func(r *kgo.Record) {
		p := place{r.Topic, r.Partition}
		if _, ok := first[p]; !ok {
			first[p] = r.Offset
		}
		next[p] = r.Offset + 1
		stamp = r.Timestamp
		s.m.records.Inc()
		if r.Topic == event.TopicAlerts || r.Topic == event.TopicAlertsFast {
			var a event.Alert
			switch err := decodeAlert(ctx, s.codecs, r, &a); {
			case errors.Is(err, errBadAlert): // ClickHouse's sink brings it to raw.failed
				s.m.refused.Inc()
				s.log.WarnContext(ctx, "redis sink: a record is no alert", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "error", err)
			case err != nil:
				bad = err
			case s.erasures.dropsAlert(&a):
			default:
				alerts = append(alerts, a)
			}
			return
		}
		w, ok, err := s.writeOf(ctx, r, now)
		switch {
		case err != nil:
			bad = fmt.Errorf("%s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err)
		case ok:
			newest[[2]string{w.Key, w.Field}] = w
		}
	})
	if bad != nil {
		return bad
	}
	if len(next) == 0 {
		return nil
	}
	var moved []place
	started := time.Now()
	span := s.cfg.Tracer.Batch(nil, "redis write", attribute.String("db.system.name", "redis"), attribute.Int("db.operation.batch.size", len(newest))) // partials have no one event
	err := retry(ctx, s.log, "redis sink: writing", func() error {
		if err := s.begin(ctx, first); err != nil {
			return err
		}
		n, err := live.Put(ctx, s.rdb, slices.Collect(maps.Values(newest)))
		s.m.writes.Add(float64(n))
		if err != nil {
			return err
		}
		added, confirmed, err := live.PutAlerts(ctx, s.rdb, alerts, now)
		s.m.alerts.WithLabelValues("new").Add(float64(added))
		s.m.alerts.WithLabelValues("confirmed").Add(float64(confirmed))
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for p, hi := range next {
			if s.at[p] == hi {
				continue // recorded before an error made us repeat
			}
			switch err := s.progress[p.topic].Advance(ctx, s.rdb, p.partition, s.at[p], hi); {
			case errors.Is(err, live.ErrMoved):
				s.log.WarnContext(ctx, "redis sink: going back to the position that Redis holds", "topic", p.topic, "partition", p.partition, "error", err)
				moved = append(moved, p)
				delete(next, p)
			case err != nil:
				return err
			default:
				s.at[p] = hi
			}
		}
		return nil
	})
	span.End(telemetry.Failure(err))
	if err != nil {
		return err
	}
	s.m.seconds.Observe(time.Since(started).Seconds())
	s.m.freshness.Set(float64(stamp.UnixMilli()) / 1e3)
	if len(moved) > 0 {
		s.m.rewinds.Inc()
		if err := s.rewind(ctx, cl, moved); err != nil {
			return err
		}
	}
	return s.commit(ctx, cl, next)
}

// writeOf is what a record says is to be written; ok is false if that is nothing.
func (s *Redis) writeOf(ctx context.Context, r *kgo.Record, now time.Time) (w live.Write, ok bool, err error) {
	version := live.Version{Generation: s.cfg.Generation, Offset: r.Offset}
	if r.Topic == event.TopicLiveUpdates {
		var u event.LiveUpdate
		if err := s.codecs.Decode(ctx, r.Topic, r.Value, &u); err != nil {
			return w, false, err
		}
		if w, ok = live.UpdateWrite(&u, version, now); ok && s.erasures.dropsUpdate(&u, r.Timestamp) {
			return w, false, nil
		}
		return w, ok, nil
	}
	var p event.KPIPartial
	if err := s.codecs.Decode(ctx, r.Topic, r.Value, &p); err != nil {
		return w, false, err
	}
	w, ok = live.KPIWrite(&p, version, r.Value)
	return w, ok, nil
}

// begin records where partitions begin of which Redis knows nothing, before their first values: otherwise a server emptied between these and their position could
// not be told from one that never had any, and would be left without them.
func (s *Redis) begin(ctx context.Context, first map[place]int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, lo := range first {
		if s.at[p] != live.None {
			continue
		}
		switch err := s.progress[p.topic].Advance(ctx, s.rdb, p.partition, live.None, lo); {
		case errors.Is(err, live.ErrMoved): // another has begun, or our reply was lost: the advance behind the values settles it
		case err != nil:
			return err
		default:
			s.at[p] = lo
		}
	}
	return nil
}

// rewind goes on from where Redis is.
func (s *Redis) rewind(ctx context.Context, cl *kgo.Client, partitions []place) error {
	var have map[place]int64
	err := retry(ctx, s.log, "redis sink: reading positions", func() (err error) {
		have, err = s.positions(ctx)
		return err
	})
	if err != nil {
		return err
	}
	set := map[string]map[int32]kgo.EpochOffset{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range partitions {
		at, ok := have[p]
		if !ok {
			at, s.at[p] = 0, live.None
		} else {
			s.at[p] = at
		}
		if set[p.topic] == nil {
			set[p.topic] = map[int32]kgo.EpochOffset{}
		}
		set[p.topic][p.partition] = kgo.EpochOffset{Epoch: -1, Offset: at}
	}
	cl.SetOffsets(set)
	return nil
}

// commit tells the group how far we are, for lag alone; a failure is no failure of the sink.
func (s *Redis) commit(ctx context.Context, cl *kgo.Client, next map[place]int64) error {
	var rs []*kgo.Record
	for p, hi := range next {
		rs = append(rs, &kgo.Record{Topic: p.topic, Partition: p.partition, Offset: hi - 1, LeaderEpoch: -1})
	}
	if err := cl.CommitRecords(ctx, rs...); err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "redis sink: committing offsets", "error", err)
	}
	return nil
}

// retry calls f until it succeeds or ctx ends, with a growing pause.
func retry(ctx context.Context, log *slog.Logger, what string, f func() error) error {
	pause := 50 * time.Millisecond
	for {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.WarnContext(ctx, "sink: the store does not answer, trying again", "doing", what, "error", err, "pause", pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, 2*time.Second)
	}
}

// topicID gives the id of a topic in hex: a topic made anew has another.
func topicID(ctx context.Context, opts []kgo.Opt, topic string) (string, error) {
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return "", err
	}
	defer cl.Close()
	got, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err != nil {
		return "", fmt.Errorf("looking up topic %s: %w", topic, err)
	}
	d := got[topic]
	if d.Err != nil {
		return "", fmt.Errorf("looking up topic %s: %w", topic, d.Err)
	}
	return hex.EncodeToString(d.ID[:]), nil
}
