package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"

	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/lakehouse/bigquery"
	"millrace/workflows/name"
)

// Warehouse is what LoadBigQuery asks of BigQuery.
type Warehouse interface {
	Load(ctx context.Context, r bigquery.Request) (bigquery.Result, error)
	Verify(ctx context.Context, table string, days []string, ledger bigquery.Ledger, note func(state string, rows int64)) (bigquery.Verification, error)
}

// BigQuery loads tables of the lake into BigQuery. What a load has done stands in BigQuery itself; the table bigquery_loads tells of it.
type BigQuery struct {
	store   Warehouse // nil: not configured
	ledger  ErasedSource
	runs    *Runs
	metrics bigQueryMetrics
	now     func() time.Time
}

type bigQueryMetrics struct {
	rows, bytes, loads, differing *prometheus.CounterVec
	seconds                       *prometheus.HistogramVec
	loaded                        *prometheus.GaugeVec
}

func newBigQueryMetrics(reg prometheus.Registerer) bigQueryMetrics {
	counter := func(n, help string, labels ...string) *prometheus.CounterVec {
		return register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: n, Help: help}, labels))
	}
	return bigQueryMetrics{
		rows:      counter("millrace_bigquery_rows_total", "Rows made visible in BigQuery by this process.", "table"),
		bytes:     counter("millrace_bigquery_loaded_bytes_total", "Bytes of files given to load jobs by this process.", "table"),
		loads:     counter("millrace_bigquery_loads_total", "Loads of ranges by their outcome: loaded, nothing, early, failed.", "table", "outcome"),
		differing: counter("millrace_bigquery_differing_days_total", "Days of which BigQuery had other rows than the lake when it was compared.", "table"),
		seconds: register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "millrace_bigquery_step_seconds", Help: "Time of one activity of LoadBigQuery.", Buckets: prometheus.ExponentialBuckets(0.1, 4, 9),
		}, []string{"activity"})),
		loaded: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_bigquery_loaded_timestamp_seconds", Help: "When this process last made rows of the table visible, or found that there are none to load."}, []string{"table"})),
	}
}

// NewBigQuery makes the activities; store is nil where BigQuery is not configured, and every run then says so. cluster is that of olap.Options.
func NewBigQuery(store Warehouse, ledger ErasedSource, conn driver.Conn, cluster string, reg prometheus.Registerer) *BigQuery {
	return &BigQuery{store: store, ledger: ledger, runs: NewRuns(conn, nil, cluster), metrics: newBigQueryMetrics(reg), now: time.Now}
}

// Register adds what runs on the queue "millrace".
func (q *BigQuery) Register(w worker.ActivityRegistry) {
	w.RegisterActivityWithOptions(q.Verify, activity.RegisterOptions{Name: name.BigQueryVerify})
	w.RegisterActivityWithOptions(q.Note, activity.RegisterOptions{Name: name.BigQueryNote})
}

// RegisterHeavy adds what runs on the queue "millrace-heavy".
func (q *BigQuery) RegisterHeavy(w worker.ActivityRegistry) {
	w.RegisterActivityWithOptions(q.Load, activity.RegisterOptions{Name: name.BigQueryLoad})
}

// LoadInput says what to load.
type LoadInput struct {
	Input name.LoadBigQueryInput `json:"input"`
	Run   string                 `json:"run"`            // names the step of the run: a repeated attempt is told what an earlier one has done
	Mend  bool                   `json:"mend,omitempty"` // replace days that differ, of what was loaded last
	Now   bool                   `json:"now,omitempty"`  // however short ago the last load was
}

// LoadOutput is what a load did.
type LoadOutput struct {
	Result     LoadResult `json:"result"`
	VectorFrom string     `json:"vector_from"`
	VectorTo   string     `json:"vector_to"`
	StartedAt  time.Time  `json:"started_at"`
}

// What a load did, and what a comparison found.
type (
	// LoadResult is what a load did.
	LoadResult = bigquery.Result
	// Verified is what a comparison found.
	Verified = bigquery.Verification
	// DayDiffers is a day of which BigQuery has other rows.
	DayDiffers = bigquery.Difference
)

// Outcomes of a load.
const (
	LoadLoaded  = bigquery.Loaded
	LoadNothing = bigquery.Nothing
	LoadEarly   = bigquery.Early // the last one is not long enough ago
)

var errNoBigQuery = errors.New("BigQuery is not configured: bigquery.project is empty")

// Load loads a range. It may be repeated, and run twice at a time: what is visible once is visible once.
func (q *BigQuery) Load(ctx context.Context, in LoadInput) (LoadOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer q.took(name.BigQueryLoad)()
	out, err := q.load(ctx, in, b)
	outcome := out.Result.Outcome
	if err != nil {
		outcome = name.Failed
	}
	q.metrics.loads.WithLabelValues(in.Input.Table, outcome).Inc()
	return out, bigQueryFailure(ctx, err)
}

func (q *BigQuery) load(ctx context.Context, in LoadInput, b *beats) (LoadOutput, error) {
	out := LoadOutput{StartedAt: q.now().UTC()}
	if q.store == nil {
		return out, errNoBigQuery
	}
	var err error
	out.Result, err = q.store.Load(ctx, bigquery.Request{
		Table: in.Input.Table, From: in.Input.From, To: in.Input.To, Mend: in.Mend || in.Input.Mend, Now: in.Now, Run: in.Run, Ledger: q.erased(),
		Note: func(state string, rows int64) { b.note(Progress{State: state, Rows: rows}) },
	})
	out.VectorFrom, out.VectorTo = out.Result.VectorFrom.String(), out.Result.VectorTo.String()
	if err != nil {
		return out, err
	}
	switch out.Result.Outcome {
	case bigquery.Loaded:
		q.metrics.rows.WithLabelValues(in.Input.Table).Add(float64(out.Result.Rows.Count))
		q.metrics.bytes.WithLabelValues(in.Input.Table).Add(float64(out.Result.Bytes))
		fallthrough
	case bigquery.Nothing:
		q.metrics.loaded.WithLabelValues(in.Input.Table).Set(float64(q.now().Unix()))
	}
	return out, nil
}

func (q *BigQuery) erased() bigquery.Ledger {
	if q.ledger == nil {
		return nil
	}
	return q.ledger.Erased
}

// VerifyInput names the days to be compared; none are all.
type VerifyInput struct {
	Table string   `json:"table"`
	Days  []string `json:"days,omitempty"`
}

// Verify compares BigQuery with the lake. That days differ is no failure.
func (q *BigQuery) Verify(ctx context.Context, in VerifyInput) (bigquery.Verification, error) {
	b := startBeats(ctx)
	defer b.end()
	defer q.took(name.BigQueryVerify)()
	if q.store == nil {
		return bigquery.Verification{}, bigQueryFailure(ctx, errNoBigQuery)
	}
	out, err := q.store.Verify(ctx, in.Table, in.Days, q.erased(), func(state string, rows int64) { b.note(Progress{State: state, Rows: rows}) })
	q.metrics.differing.WithLabelValues(in.Table).Add(float64(len(out.Differences)))
	const most = 100 // of days in a history
	out.Differences = out.Differences[:min(len(out.Differences), most)]
	return out, bigQueryFailure(ctx, err)
}

// LoadNote is one row of bigquery_loads.
type LoadNote struct {
	Load      LoadOutput `json:"load"`
	Run       string     `json:"run"`
	Reason    string     `json:"reason,omitempty"`
	Differing []string   `json:"differing,omitempty"` // days
}

// Note tells of a load in bigquery_loads.
func (q *BigQuery) Note(ctx context.Context, n LoadNote) error {
	r := n.Load.Result
	replaced, err := dates(r.Replaced)
	var differing []time.Time
	if err == nil {
		differing, err = dates(n.Differing)
	}
	if err == nil {
		err = q.runs.insert(ctx, "bigquery_loads", r.Table, r.From, r.To, r.Revision, r.JobID, r.Method, r.Outcome, n.Reason, r.Rows.Count, r.Rows.HashLo, r.Rows.HashHi, r.Held,
			int64(r.Parts), r.Bytes, replaced, differing, n.Load.VectorFrom, n.Load.VectorTo, n.Run, n.Load.StartedAt, q.now(), q.runs.version())
	}
	if err != nil {
		err = fmt.Errorf("noting the load of table %s in bigquery_loads: %w", r.Table, err)
	}
	return failure(ctx, err, "", true)
}

func dates(texts []string) ([]time.Time, error) {
	out := make([]time.Time, len(texts))
	for i, text := range texts {
		var err error
		if out[i], err = time.Parse(time.DateOnly, text); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (q *BigQuery) took(what string) func() {
	start := time.Now()
	return func() { q.metrics.seconds.WithLabelValues(what).Observe(time.Since(start).Seconds()) }
}

// bigQueryFailure says whether a repetition may help; the type of the failure is the id under which docs/errors.md has the remedy.
func bigQueryFailure(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNoBigQuery):
		return failure(ctx, err, name.BigQueryOff, false)
	case errors.Is(err, lakehouse.ErrNoSnapshot):
		return failure(ctx, err, "NoSnapshot", false)
	}
	if id, ok := fault.IDOf(err); ok {
		err = fmt.Errorf("%w; %s", err, fault.Remedy(id))
	}
	return failure(ctx, err, "", bigquery.Retryable(err))
}
