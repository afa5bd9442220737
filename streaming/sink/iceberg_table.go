package sink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/attribute"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/fault"
	"millrace/internal/telemetry"
	"millrace/lakehouse"
)

// icebergTable is one topic on its way into one table.
type icebergTable struct {
	s      *Iceberg
	topic  string
	name   string
	events bool // events_*, of category cat
	cat    event.Category
	rows   icebergRows

	topicID string
	parts   map[int32]*icebergPart // that we own
	w       *lakehouse.Writer      // nil until there is a row
	first   time.Time              // when the oldest row in w was taken
	pending *icebergPending        // written, on its way into the catalog
	rewind  bool                   // all parts must go to the head; until then records are dropped
	problem error                  // why it stands still
	retryAt time.Time
	backoff time.Duration
	paused  bool
	checked time.Time       // the head was last known to be where we think
	expire  int             // snapshots at which to expire
	newest  int64           // ingested_at, committed
	stamp   time.Time       // newest record taken
	links   telemetry.Links // the sampled records in w
	lane    *icebergLane

	promoted []schema.Promotion // properties that are columns of the table
	adding   []schema.Promotion // the same as the topic control has them, until the table does
	addAt    time.Time          // not before
	lacking  int                // those that could not be added
	stale    bool               // w was made before
}

// icebergPart is one partition.
type icebergPart struct {
	lo   int64 // in the head's vector; 0 if it is not there
	next int64 // offset to be taken next
	end  int64 // of the partition, when it was last fetched
}

// icebergPending is what one commit makes visible.
type icebergPending struct {
	files  []iceberg.DataFile
	lo, hi lakehouse.Vector
	rows   int64
	bytes  int64
	newest int64
	stamp  time.Time
	links  telemetry.Links // the sampled records
}

func (t *icebergTable) bytes() int64 {
	if t.w == nil {
		return 0
	}
	return t.w.Bytes()
}

// take writes the records of a partition to the table's files.
func (t *icebergTable) take(ctx context.Context, fetched kgo.FetchTopicPartition) {
	p := t.parts[fetched.Partition]
	if p == nil {
		return // no longer ours
	}
	p.end = fetched.HighWatermark
	for _, r := range fetched.Records {
		if t.rewind {
			return // fetched again from the head
		}
		if r.Offset < p.next {
			continue
		}
		err := t.row(ctx, r)
		var refused *lakehouse.RowError
		if errors.As(err, &refused) {
			err = t.s.refuse(ctx, t, r, refused)
		}
		if err != nil {
			t.trouble(ctx, fmt.Errorf("%s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err))
			t.s.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{t.topic: {r.Partition: {Epoch: -1, Offset: r.Offset}}})
			return
		}
		p.next = r.Offset + 1
		t.s.m.records.Inc()
		t.s.cfg.Tracer.Add(&t.links, r)
		if r.Timestamp.After(t.stamp) {
			t.stamp = r.Timestamp
		}
	}
	if t.pending == nil && !t.rewind {
		t.well()
	}
}

// row gives one record to the writer. A record that cannot be decoded or stored is a RowError.
func (t *icebergTable) row(ctx context.Context, r *kgo.Record) error {
	from := lakehouse.Provenance{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}
	erased, err := t.rows.decode(ctx, r)
	if err != nil {
		return err
	}
	if erased {
		return nil // the vector goes on without it
	}
	if t.w != nil && t.stale && t.w.Rows() == 0 {
		t.countUnfit()
		t.w = nil
	}
	if t.w == nil {
		if t.w, err = t.s.cat.NewWriter(ctx, t.name); err != nil {
			return err
		}
		t.stale = false
	}
	if t.w.Rows() == 0 {
		t.first = t.s.now()
	}
	err = t.rows.write(ctx, t.w, from)
	var refused *lakehouse.RowError
	if err != nil && !errors.As(err, &refused) { // the files are lost, and with them rows already taken
		t.discard(ctx)
		t.rewind = true
	}
	return err
}

// work does what is due at now.
func (t *icebergTable) work(ctx context.Context, now time.Time) {
	switch {
	case now.Before(t.retryAt):
	case t.adding != nil && !now.Before(t.addAt) && !t.held(now):
		t.promote(ctx)
	case t.rewind:
		t.toHead(ctx)
	case t.pending != nil:
		if !t.held(now) {
			t.flush(ctx)
		}
	case t.w != nil && t.w.Rows() > 0:
		if t.due(now) && !t.held(now) {
			t.flush(ctx)
		}
	case t.lane != nil:
	case len(t.parts) > 0 && now.Sub(t.checked) >= t.s.cfg.CheckInterval:
		t.check(ctx)
	}
}

// due says whether what was taken is to be committed.
func (t *icebergTable) due(now time.Time) bool {
	return now.Sub(t.first) >= t.s.cfg.CommitInterval || t.w.Bytes() >= t.s.cfg.CommitBytes
}

// dueIn is when work has something to do.
func (t *icebergTable) dueIn(now time.Time) (time.Duration, bool) {
	switch {
	case t.lane != nil && now.Before(t.lane.until): // asked again often, as it may end before
	case t.rewind || t.pending != nil:
		return t.retryAt.Sub(now), true
	case t.w != nil && t.w.Rows() > 0:
		return t.first.Add(t.s.cfg.CommitInterval).Sub(now), true
	}
	return 0, false
}

// flush commits what was taken: first its files are closed, then they become visible. If the catalog is away the files wait, and rows are taken into new ones
// until those are as large as a commit may be.
func (t *icebergTable) flush(ctx context.Context) {
	if t.rewind {
		return
	}
	if t.pending == nil {
		if t.w == nil || t.w.Rows() == 0 {
			return
		}
		p := &icebergPending{lo: lakehouse.Vector{}, hi: lakehouse.Vector{}, rows: t.w.Rows(), bytes: t.w.Bytes(), newest: t.w.Newest(), stamp: t.stamp}
		for n, part := range t.parts {
			if part.next > part.lo {
				p.lo.Set(t.topicID, n, part.lo)
				p.hi.Set(t.topicID, n, part.next)
			}
		}
		var err error
		if p.files, err = t.w.Finish(ctx); err != nil {
			t.discard(ctx)
			t.rewind = true
			t.trouble(ctx, err)
			return
		}
		p.links, t.links = t.links, telemetry.Links{}
		t.pending = p
	}
	start := t.s.now()
	attempt, cancel := context.WithTimeout(ctx, t.s.cfg.CommitTimeout)
	span := t.s.cfg.Tracer.Batch(&t.pending.links, "iceberg commit", attribute.String("db.system.name", "iceberg"), attribute.String("db.collection.name", t.name), attribute.Int64("db.operation.batch.size", t.pending.rows))
	head, err := t.s.cat.Append(attempt, t.name, t.pending.files, t.pending.lo, t.pending.hi)
	cancel()
	span.End(telemetry.Failure(err))
	var conflict *lakehouse.ConflictError
	switch {
	case err == nil:
		t.s.m.seconds.WithLabelValues(t.name).Observe(t.s.now().Sub(start).Seconds())
		t.committed(ctx, head)
	case errors.As(err, &conflict): // rolled back, or another member was first: the head is right
		t.s.log.WarnContext(ctx, "iceberg sink: the head of a table is not where it was left; going there", "table", t.name, "reason", err)
		t.discard(ctx)
		t.rewind = true
	default:
		if _, ok := fault.IDOf(err); ok {
			t.s.fail(err)
			return
		}
		t.trouble(ctx, err)
	}
}

func (t *icebergTable) committed(ctx context.Context, head lakehouse.Head) {
	p := t.pending
	t.pending = nil
	offsets := map[int32]kgo.EpochOffset{}
	for n, next := range p.hi[t.topicID] {
		if part := t.parts[n]; part != nil {
			part.lo = next
		}
		offsets[n] = kgo.EpochOffset{Epoch: -1, Offset: next}
	}
	t.newest = max(t.newest, p.newest)
	t.checked = t.s.now()
	t.well()
	m := &t.s.m
	m.rows.WithLabelValues(t.name).Add(float64(p.rows))
	m.bytes.WithLabelValues(t.name).Add(float64(p.bytes))
	m.files.WithLabelValues(t.name).Add(float64(len(p.files)))
	m.commits.WithLabelValues(t.name).Inc()
	m.ingested.WithLabelValues(t.name).Set(float64(t.newest) / 1e6)
	m.snapshots.WithLabelValues(t.name).Set(float64(head.Snapshots))
	m.newest.Set(float64(p.stamp.UnixMilli()) / 1e3)
	for _, f := range p.files {
		m.fileBytes.WithLabelValues(t.name).Add(float64(f.FileSizeBytes()))
	}
	t.countUnfit()
	if t.w != nil && t.w.Rows() == 0 && t.w.SchemaID() != head.SchemaID {
		t.w = nil // made anew, with the new columns
	}
	t.commitOffsets(ctx, offsets)
	t.expireSnapshots(ctx, head)
}

// promote brings the table to the columns that the topic control asks for. Rows taken before are committed without them; rows do not wait for a column that
// cannot be added now.
func (t *icebergTable) promote(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, t.s.cfg.CommitTimeout)
	defer cancel()
	var have []schema.Promotion
	for _, p := range t.adding {
		if err := t.s.cat.AddPromoted(ctx, t.name, []schema.Promotion{p}); err != nil {
			t.s.log.WarnContext(ctx, "iceberg sink: a property cannot become a column now", "table", t.name, "column", p.Name, "error", err)
			continue
		}
		have = append(have, p)
	}
	t.lacking = len(t.adding) - len(have)
	lacking := 0
	for _, o := range t.s.order {
		lacking += o.lacking
	}
	t.s.m.promotion.pending.Set(float64(lacking))
	t.promoted, t.stale = have, true
	t.addAt = t.s.now().Add(promoteRetry)
	if len(have) == len(t.adding) {
		t.adding = nil
	}
}

// countUnfit counts the values that w could not put into their columns.
func (t *icebergTable) countUnfit() {
	if t.w == nil {
		return
	}
	for column, n := range t.w.Unfit() {
		t.s.m.promotion.unfit.WithLabelValues(t.name, column).Add(float64(n))
	}
}

// commitOffsets tells the group how far the table is, so that tools show lag. The head is the truth: a failure is only counted.
func (t *icebergTable) commitOffsets(ctx context.Context, offsets map[int32]kgo.EpochOffset) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	t.s.cl.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{t.topic: offsets}, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			t.s.m.resets.Inc()
		}
	})
}

// expireSnapshots keeps the metadata small: commits write all of it. A failure is counted and tried again after as many commits.
func (t *icebergTable) expireSnapshots(ctx context.Context, head lakehouse.Head) {
	if t.expire == 0 {
		t.expire = t.s.cfg.KeepSnapshots + t.s.cfg.ExpireEvery
	}
	if head.Snapshots < t.expire {
		return
	}
	n, err := t.s.cat.ExpireSnapshots(ctx, t.name, t.s.cfg.KeepAge, t.s.cfg.KeepSnapshots)
	if err != nil {
		t.s.m.failures.WithLabelValues(t.name).Inc()
		t.s.log.WarnContext(ctx, "iceberg sink: snapshots could not be expired", "table", t.name, "error", err)
	}
	t.s.m.expired.WithLabelValues(t.name).Add(float64(n))
	t.expire = head.Snapshots - n + t.s.cfg.ExpireEvery
}

// check looks whether the head of a table without new rows is still where it was left.
func (t *icebergTable) check(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, t.s.cfg.CommitTimeout)
	defer cancel()
	head, err := t.s.cat.Head(ctx, t.name)
	if err != nil {
		if _, ok := fault.IDOf(err); ok {
			t.s.fail(err)
			return
		}
		t.trouble(ctx, err)
		return
	}
	t.checked = t.s.now()
	t.well()
	for n, p := range t.parts {
		if head.Vector.At(t.topicID, n) != p.lo {
			t.s.log.WarnContext(ctx, "iceberg sink: the head of a table is not where it was left; going there", "table", t.name)
			t.rewind = true
			return
		}
	}
}

// discard forgets what was taken and not committed. Files that were on their way into the catalog stay: their commit may have arrived.
func (t *icebergTable) discard(ctx context.Context) {
	t.pending, t.links = nil, telemetry.Links{}
	if t.w == nil {
		return
	}
	if err := t.w.Discard(ctx); err != nil {
		t.s.m.failures.WithLabelValues(t.name).Inc()
		t.s.log.WarnContext(ctx, "iceberg sink: files of rows that are written again could not be removed", "table", t.name, "error", err)
	}
	t.w = nil
}

// trouble notes a failure that is tried again later.
func (t *icebergTable) trouble(ctx context.Context, err error) {
	t.problem = err
	t.retryLater()
	t.s.m.failures.WithLabelValues(t.name).Inc()
	t.s.log.WarnContext(ctx, "iceberg sink: a step failed and is tried again", "table", t.name, "in", t.backoff, "error", err)
}

func (t *icebergTable) retryLater() {
	t.backoff = min(max(2*t.backoff, icebergRetryMin), t.s.cfg.RetryMax)
	t.retryAt = t.s.now().Add(t.backoff)
}

func (t *icebergTable) well() { t.problem, t.backoff, t.retryAt = nil, 0, time.Time{} }

// throttle stops fetching while the table cannot take rows.
func (t *icebergTable) throttle(full bool) {
	waiting := t.pending == nil && t.s.now().Before(t.retryAt)
	pause := full || waiting || (t.pending != nil || t.lane != nil) && t.bytes() >= t.s.cfg.CommitBytes
	if pause == t.paused {
		return
	}
	t.paused = pause
	if pause {
		t.s.cl.PauseFetchTopics(t.topic)
	} else {
		t.s.cl.ResumeFetchTopics(t.topic)
	}
}

func (t *icebergTable) report(now time.Time) {
	lag := int64(0)
	for _, p := range t.parts {
		lag += max(0, p.end-p.lo)
	}
	t.s.m.lag.WithLabelValues(t.topic).Set(float64(lag))
	t.s.m.buffered.WithLabelValues(t.name).Set(float64(t.bytes()))
	if t.newest > 0 {
		t.s.m.freshness.WithLabelValues(t.name).Set(now.Sub(event.Time(t.newest)).Seconds())
	}
}
