package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"millrace/event"
	"millrace/internal/failpoint"
	"millrace/olap"
	"millrace/workflows/name"
)

// FailReconcileMended is hit when differences are mended and not noted.
const FailReconcileMended = "activities.reconcile.mended"

// Reconcile compares the stores with the control totals that the stream wrote in the same transactions as its output, names what differs, and mends it.
type Reconcile struct {
	conn    driver.Conn
	repair  *olap.Repair
	cluster string
	stores  []ReconcileStore
	events  *EventLog // nil: the broker cannot be asked
	erased  ErasedSource
	log     *slog.Logger
	m       reconcileMetrics
	now     func() time.Time
}

type reconcileMetrics struct {
	rows     *prometheus.CounterVec
	found    *prometheus.CounterVec
	repaired *prometheus.CounterVec
	open     *prometheus.GaugeVec
	last     *prometheus.GaugeVec
	seconds  *prometheus.HistogramVec
}

// NewReconcile makes the activities. stores are compared in their order; events and erased may be nil.
func NewReconcile(conn driver.Conn, cluster string, stores []ReconcileStore, events *EventLog, erased ErasedSource, reg prometheus.Registerer, log *slog.Logger) *Reconcile {
	counter := func(n, help string, labels ...string) *prometheus.CounterVec {
		return register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: n, Help: help}, labels))
	}
	gauge := func(n, help string, labels ...string) *prometheus.GaugeVec {
		return register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: n, Help: help}, labels))
	}
	return &Reconcile{
		conn: conn, repair: olap.NewRepair(conn, cluster), cluster: cluster, stores: stores, events: events, erased: erased, log: log, now: time.Now,
		m: reconcileMetrics{
			rows:     counter("millrace_reconcile_rows_total", "Rows that the control totals of reconciled hours count, by store.", "topic", "store"),
			found:    counter("millrace_reconcile_differences_total", "Rows by which a store differed from the control totals, by kind.", "topic", "store", "kind"),
			repaired: counter("millrace_reconcile_repaired_rows_total", "Rows that were added to a store, or deleted, to mend it.", "topic", "store"),
			open:     gauge("millrace_reconcile_open_rows", "Rows by which a store differs from the control totals, over all hours, as the last reconciliation of the topic left it.", "topic", "store"),
			last:     gauge("millrace_reconcile_hour_timestamp_seconds", "End of the last hour that was reconciled.", "topic"),
			seconds: register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
				Name: "millrace_reconcile_seconds", Help: "Time of one comparison or repair.", Buckets: prometheus.ExponentialBuckets(0.05, 4, 9),
			}, []string{"activity"})),
		},
	}
}

// Register adds nothing: it all runs on the queue "millrace-heavy".
func (r *Reconcile) Register(worker.ActivityRegistry) {}

// RegisterHeavy adds what runs on the queue "millrace-heavy".
func (r *Reconcile) RegisterHeavy(w worker.ActivityRegistry) {
	w.RegisterActivityWithOptions(r.Compare, activity.RegisterOptions{Name: name.ReconcileCompare})
	w.RegisterActivityWithOptions(r.Repair, activity.RegisterOptions{Name: name.ReconcileRepair})
}

// ReconcileRequest asks for one comparison.
type ReconcileRequest struct {
	Input name.ReconcileInput `json:"input"`
	Run   string              `json:"run"`
}

// ReconcileOutput is what was found.
type ReconcileOutput struct {
	Stores []name.StoreResult `json:"stores"`
	// Mendable is how many rows can be mended.
	Mendable int64 `json:"mendable"`
}

// Compare compares the stores and notes what differs.
func (r *Reconcile) Compare(ctx context.Context, in ReconcileRequest) (ReconcileOutput, error) {
	return r.do(ctx, name.ReconcileCompare, in, false)
}

// Repair mends what differs, and compares again.
func (r *Reconcile) Repair(ctx context.Context, in ReconcileRequest) (ReconcileOutput, error) {
	return r.do(ctx, name.ReconcileRepair, in, true)
}

func (r *Reconcile) do(ctx context.Context, what string, in ReconcileRequest, mend bool) (ReconcileOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	start := time.Now()
	defer func() { r.m.seconds.WithLabelValues(what).Observe(time.Since(start).Seconds()) }()
	out, err := r.run(ctx, in, mend, b.note)
	if errors.Is(err, errNoStore) || errors.Is(err, errNoTopic) {
		return out, temporal.NewNonRetryableApplicationError(err.Error(), name.InvalidInput, nil)
	}
	return out, failure(ctx, err, "", true)
}

var (
	errNoStore = errors.New("stores: there is no such store")
	errNoTopic = errors.New("topic: there is no such topic")
)

// sliceOf is what an input is about.
func sliceOf(in name.ReconcileInput) (slice, error) {
	s := slice{topic: in.Events(), table: in.Table(), from: in.At(), to: in.At().Add(time.Hour)}
	if s.topic == event.TopicEventsFailed {
		s.raw = event.TopicRawFailed
		return s, nil
	}
	var names []string
	for _, c := range event.Categories() {
		if c.EventsTopic() == s.topic {
			s.raw = c.RawTopic()
			return s, nil
		}
		names = append(names, c.EventsTopic())
	}
	return s, fmt.Errorf("%w: %s; there are %s", errNoTopic, s.topic, strings.Join(append(names, event.TopicEventsFailed), ", "))
}

func (r *Reconcile) run(ctx context.Context, in ReconcileRequest, mend bool, beat func(Progress)) (ReconcileOutput, error) {
	s, err := sliceOf(in.Input)
	if err != nil {
		return ReconcileOutput{}, err
	}
	stores := r.stores
	if len(in.Input.Stores) > 0 {
		var have []string
		for _, st := range r.stores {
			have = append(have, st.Name())
		}
		for _, want := range in.Input.Stores {
			if !slices.Contains(have, want) {
				return ReconcileOutput{}, fmt.Errorf("%w: %s; there are %s", errNoStore, want, strings.Join(have, ", "))
			}
		}
		stores = slices.DeleteFunc(slices.Clone(r.stores), func(st ReconcileStore) bool { return !slices.Contains(in.Input.Stores, st.Name()) })
	}
	started := r.now().UTC()
	c, err := r.compare(ctx, s, stores, false, "", beat)
	if err != nil {
		return ReconcileOutput{}, err
	}
	if mend && mendable(c) > 0 {
		token := "repair:" + s.topic + ":" + s.from.Format(name.HourForm) + ":" + in.Run
		const attempts = 5 // a table that is compacted meanwhile
		for try := range attempts {
			c, err = r.compare(ctx, s, stores, true, fmt.Sprintf("%s:%d", token, try), beat)
			if err == nil || !errors.Is(err, errMoved) {
				break
			}
		}
		if err != nil {
			return ReconcileOutput{}, err
		}
		failpoint.Hit(FailReconcileMended)
		again, err := r.compare(ctx, s, stores, false, "", beat)
		if err != nil {
			return ReconcileOutput{}, err
		}
		for i, f := range again.found { // what is open now is what counts
			f.diffs = append(f.diffs, slices.DeleteFunc(slices.Clone(c.found[i].diffs), func(d difference) bool { return d.state != name.StateRepaired })...)
			f.result.Differences = map[string]int64{}
			again.judge(f)
		}
		c = again
	}
	if err := r.repeats(ctx, s, c); err != nil {
		return ReconcileOutput{}, err
	}
	if err := r.note(ctx, s, in, c, started); err != nil {
		return ReconcileOutput{}, err
	}
	out := ReconcileOutput{Mendable: mendable(c)}
	for _, f := range c.found {
		out.Stores = append(out.Stores, f.result)
	}
	return out, nil
}

// mendable is how many rows are open and can be mended.
func mendable(c *comparison) int64 {
	n := int64(0)
	for _, f := range c.found {
		for _, d := range f.diffs {
			if d.state == name.StateOpen && slices.Contains(name.MendableKinds(), d.kind) {
				n += d.count
			}
		}
	}
	return n
}

func (r *Reconcile) compare(ctx context.Context, s slice, stores []ReconcileStore, mend bool, token string, beat func(Progress)) (*comparison, error) {
	// The order matters: rows of a closed control total are on their topic before it is, and below the position of a store that has passed them.
	ledger, err := r.repair.Ledger(ctx, s.raw, s.topic, s.from, s.to)
	if err != nil {
		return nil, err
	}
	ends, err := r.repair.LedgerEnds(ctx, s.raw)
	if err != nil {
		return nil, err
	}
	c := &comparison{
		slice: s, ledger: ledger, ends: ends, mend: mend, token: token, beat: beat,
		covered: func(ctx context.Context, p int32, offset int64) (bool, error) {
			_, ok, err := r.repair.LedgerAt(ctx, s.raw, p, offset)
			return ok, err
		},
		refused: r.refused,
	}
	if r.erased != nil {
		if c.erased, err = r.erased.Erased(ctx); err != nil {
			return nil, fmt.Errorf("reading the ledger of erasures: %w", err)
		}
	}
	if r.events != nil {
		c.log = &logView{EventLog: r.events, slice: s, ledger: ledger}
	}
	for _, st := range stores {
		v, err := st.look(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("looking at %s: %w", st.Name(), err)
		}
		c.views = append(c.views, v)
	}
	return c, c.run(ctx)
}

// refused finds the rows that a store could not hold: their failed events begin with where the row is.
func (r *Reconcile) refused(ctx context.Context, places []string) (map[string]bool, error) {
	out := map[string]bool{}
	for chunk := range slices.Chunk(places, 1000) {
		rows, err := r.conn.Query(ctx, "SELECT DISTINCT splitByString(': ', error)[1] AS at FROM failed_events WHERE reason = ? AND at IN ?", event.ReasonStore, chunk)
		if err != nil {
			return nil, fmt.Errorf("looking for refused rows: %w", err)
		}
		for rows.Next() {
			var at string
			if err := rows.Scan(&at); err != nil {
				_ = rows.Close() // the other error says more
				return nil, fmt.Errorf("looking for refused rows: %w", err)
			}
			out[at] = true
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, fmt.Errorf("looking for refused rows: %w", err)
		}
	}
	return out, nil
}

// How far back copies of an event are looked for, and up to how many rows of an hour: eight bytes of memory each.
const (
	repeatsBack = 8 * 24 * time.Hour
	repeatsMost = 50_000_000
)

// repeats finds events that are in the table under two raw offsets, which is how copies look that the stream could not know: beyond the dedup window, or with another
// key. They are named and never deleted: which one is right is for a person to say.
func (r *Reconcile) repeats(ctx context.Context, s slice, c *comparison) error {
	at := slices.IndexFunc(c.found, func(f *found) bool { return f.result.Store == "clickhouse" })
	if at < 0 || s.topic == event.TopicEventsFailed || c.found[at].result.Expected > repeatsMost {
		return nil
	}
	part := "raw_topic = '" + s.raw + "' AND ingested_at >= fromUnixTimestamp64Micro(?, 'UTC') AND ingested_at < fromUnixTimestamp64Micro(?, 'UTC')"
	find := func(kind, key, only string) error {
		rows, err := r.conn.Query(ctx, "SELECT raw_partition, min(raw_offset), max(raw_offset) + 1, toInt64(uniqExact(raw_offset)) FROM "+s.table+" WHERE "+part+only+" AND "+key+" GLOBAL IN ("+
			"SELECT k FROM (SELECT "+key+" AS k, uniqExact(raw_partition, raw_offset) AS n FROM "+s.table+" WHERE "+part+only+" AND "+key+" GLOBAL IN (SELECT "+key+" FROM "+s.table+" WHERE "+part+only+") GROUP BY k HAVING n > 1)) GROUP BY raw_partition",
			s.from.UnixMicro(), s.to.UnixMicro(), s.from.Add(-repeatsBack).UnixMicro(), s.to.UnixMicro(), s.from.UnixMicro(), s.to.UnixMicro())
		if err != nil {
			return fmt.Errorf("looking for repeated events: %w", err)
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			d := difference{kind: kind, state: name.StateNoted}
			if err := rows.Scan(&d.partition, &d.from, &d.to, &d.count); err != nil {
				return fmt.Errorf("looking for repeated events: %w", err)
			}
			c.found[at].diffs = append(c.found[at].diffs, d)
			c.found[at].result.Differences[kind] += d.count
		}
		return rows.Err()
	}
	if err := find(name.KindRepeated, "sipHash64(tenant, source, event_id)", ""); err != nil {
		return err
	}
	if s.table != event.Purchase.Table() {
		return nil
	}
	return find(name.KindOrderCopy, "sipHash64(tenant, assumeNotNull(order_id))", " AND order_id != '' AND order_rank = 1 AND name = 'purchase'")
}

// note writes what was found to the tables and metrics.
func (r *Reconcile) note(ctx context.Context, s slice, in ReconcileRequest, c *comparison, started time.Time) error {
	now := r.now().UTC()
	version := uint64(now.UnixMicro())
	runs, err := r.conn.PrepareBatch(ctx, "INSERT INTO "+r.table("reconcile_runs"))
	if err != nil {
		return fmt.Errorf("noting a reconciliation: %w", err)
	}
	defer func() { _ = runs.Close() }() // sent, or given up
	for _, f := range c.found {
		d := f.result.Differences
		if err := runs.Append(s.topic, s.from, in.Run, f.result.Store, f.result.Outcome, f.result.Expected, f.result.Found, f.result.Ranges, d[name.KindMissing], d[name.KindDuplicate], d[name.KindSurplus], d[name.KindChanged],
			d[name.KindUnexplained], d[name.KindUncounted], d[name.KindLate], d[name.KindErased], d[name.KindRefused], d[name.KindRepeated], d[name.KindOrderCopy], f.result.Repaired, started, &now, version); err != nil {
			return fmt.Errorf("noting a reconciliation: %w", err)
		}
	}
	if err := runs.Send(); err != nil {
		return fmt.Errorf("noting a reconciliation: %w", err)
	}
	if err := r.noteDifferences(ctx, s, in.Run, c, now); err != nil {
		return err
	}
	for _, f := range c.found {
		r.m.rows.WithLabelValues(s.topic, f.result.Store).Add(float64(f.result.Expected))
		for kind, n := range f.result.Differences {
			r.m.found.WithLabelValues(s.topic, f.result.Store, kind).Add(float64(n))
		}
		r.m.repaired.WithLabelValues(s.topic, f.result.Store).Add(float64(f.result.Repaired))
		if f.result.Outcome == name.Differs || f.result.Repaired > 0 {
			r.log.WarnContext(ctx, "reconcile: a store differs from the control totals", "topic", s.topic, "hour", s.from.Format(name.HourForm), "store", f.result.Store, "outcome", f.result.Outcome, "repaired", f.result.Repaired)
		}
	}
	r.m.last.WithLabelValues(s.topic).Set(float64(s.to.Unix()))
	return r.measureOpen(ctx, s, c)
}

// noteDifferences writes differences, and that earlier ones of the same hour and stores are no longer there.
func (r *Reconcile) noteDifferences(ctx context.Context, s slice, run string, c *comparison, now time.Time) error {
	type key struct {
		store, kind string
		partition   int32
		from        int64
	}
	stores := make([]string, len(c.found))
	rows := map[key]difference{}
	for i, f := range c.found {
		stores[i] = f.result.Store
		for _, d := range f.diffs {
			k := key{f.result.Store, d.kind, d.partition, d.from}
			if old, ok := rows[k]; ok { // what is open outweighs what was mended
				if d.state == name.StateRepaired {
					d = old
				}
			}
			rows[k] = d
		}
	}
	old, err := r.conn.Query(ctx, "SELECT store, kind, raw_partition, raw_from, raw_to, count FROM reconcile_differences FINAL WHERE topic = ? AND hour = fromUnixTimestamp64Micro(?, 'UTC') AND store IN ? AND state IN ?",
		s.topic, s.from.UnixMicro(), stores, []string{name.StateOpen, name.StateNoSource, name.StateNoted})
	if err != nil {
		return fmt.Errorf("reading earlier differences: %w", err)
	}
	defer func() { _ = old.Close() }() // Err tells
	for old.Next() {
		var k key
		d := difference{state: name.StateGone}
		if err := old.Scan(&k.store, &k.kind, &k.partition, &k.from, &d.to, &d.count); err != nil {
			return fmt.Errorf("reading earlier differences: %w", err)
		}
		d.kind, d.partition, d.from = k.kind, k.partition, k.from
		if _, ok := rows[k]; !ok {
			rows[k] = d
		}
	}
	if err := old.Err(); err != nil {
		return fmt.Errorf("reading earlier differences: %w", err)
	}
	if len(rows) == 0 {
		return nil
	}
	batch, err := r.conn.PrepareBatch(ctx, "INSERT INTO "+r.table("reconcile_differences"))
	if err != nil {
		return fmt.Errorf("noting differences: %w", err)
	}
	defer func() { _ = batch.Close() }() // sent, or given up
	for k, d := range rows {
		if err := batch.Append(s.topic, s.from, run, k.store, d.kind, d.partition, d.from, d.to, d.count, d.state, now, uint64(now.UnixMicro())); err != nil {
			return fmt.Errorf("noting differences: %w", err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("noting differences: %w", err)
	}
	return nil
}

// measureOpen sets the gauge that the alert is on: what is open over all hours of the topic.
func (r *Reconcile) measureOpen(ctx context.Context, s slice, c *comparison) error {
	open := map[string]int64{}
	for _, f := range c.found {
		open[f.result.Store] = 0
	}
	rows, err := r.conn.Query(ctx, "SELECT store, toInt64(sum(count)) FROM reconcile_differences FINAL WHERE topic = ? AND state IN ? GROUP BY store", s.topic, []string{name.StateOpen, name.StateNoSource})
	if err != nil {
		return fmt.Errorf("counting open differences: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var store string
		var n int64
		if err := rows.Scan(&store, &n); err != nil {
			return fmt.Errorf("counting open differences: %w", err)
		}
		open[store] = n
	}
	for _, store := range slices.Sorted(maps.Keys(open)) {
		r.m.open.WithLabelValues(s.topic, store).Set(float64(open[store]))
	}
	return rows.Err()
}

func (r *Reconcile) table(t string) string {
	if r.cluster != "" {
		return t + "_local"
	}
	return t
}
