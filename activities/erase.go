package activities

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"

	"millrace/event"
	"millrace/lakehouse"
	"millrace/live"
	"millrace/olap"
	"millrace/workflows/name"
)

// ErasureConfig says how persons are erased.
type ErasureConfig struct {
	Dir           string        `koanf:"dir" desc:"folder of the keys, certificates and exports of erasures; all sinks and batch workers need the same subject.key there"`
	Settle        time.Duration `koanf:"settle" desc:"wait between the ledger and the first deletion: what a sink had in its hands when it read the ledger is stored by then"`
	PhysicalAfter time.Duration `koanf:"physical_after" desc:"from the request; then snapshots from before it go, whoever would still read them"`
	Grace         time.Duration `koanf:"grace" desc:"how long the files of these snapshots stay for readers that have begun"`
}

// DefaultErasureConfig leaves consumers of snapshots a week.
func DefaultErasureConfig() ErasureConfig {
	return ErasureConfig{Settle: time.Minute, PhysicalAfter: 7 * 24 * time.Hour, Grace: lakehouse.ExpiredGrace}
}

// Validate reports every problem.
func (c ErasureConfig) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	bad(!filepath.IsAbs(c.Dir), "dir: %q is not an absolute path", c.Dir)
	bad(c.Settle < 0 || c.Settle > time.Hour, "settle: %s is not between 0s and 1h", c.Settle)
	bad(c.PhysicalAfter < 0 || c.PhysicalAfter > 90*24*time.Hour, "physical_after: %s is not between 0s and 90 days", c.PhysicalAfter)
	bad(c.Grace < 0 || c.Grace > 24*time.Hour, "grace: %s is not between 0s and 24h", c.Grace)
	return errors.Join(errs...)
}

// EraseLake is what an erasure asks of the lakehouse.
type EraseLake interface {
	Tables(ctx context.Context) ([]lakehouse.TableInfo, error)
	EraseRows(ctx context.Context, table, run string, erased *event.Erased, progress func(rows, files int64)) (lakehouse.EraseResult, error)
	FindErased(ctx context.Context, table string, erased *event.Erased, progress func(rows, files int64)) (lakehouse.ErasedFound, error)
	DropErasedRefs(ctx context.Context, table string, sequence int64) (dropped, held []string, err error)
	PurgeErased(ctx context.Context, table string, sequence int64, before time.Time) (lakehouse.PurgeResult, error)
	RemoveOrphans(ctx context.Context, table string, olderThan time.Duration, dryRun bool, progress func(files int64)) (lakehouse.OrphanResult, error)
}

// EraseLog is the topic of the ledger.
type EraseLog interface {
	// Cut reads the end offsets of all raw topics.
	Cut(ctx context.Context) (event.Cut, error)
	// Append writes entries; they are durable when it returns.
	Append(ctx context.Context, entries []event.Erasure) error
}

// EraseWarehouse is BigQuery, where it is configured.
type EraseWarehouse interface {
	// EraseRows deletes the rows that the ledger names from a table and gives how many; it may be repeated.
	EraseRows(ctx context.Context, table string, erased *event.Erased) (int64, error)
	// Tables lists what there is.
	Tables(ctx context.Context) ([]string, error)
}

// Erase takes persons out of the stores, and gathers what there is about them. Ids of persons are read from the table erasure_subjects and never leave an activity.
type Erase struct {
	cfg     ErasureConfig
	rows    *olap.Eraser
	ledger  ErasedSource
	log     EraseLog
	lake    EraseLake
	redis   redis.UniversalClient // nil: none
	bq      EraseWarehouse        // nil: not configured
	notes   *eraseNotes
	metrics eraseMetrics
	now     func() time.Time
}

// EraseParts are the stores that an erasure reaches.
type EraseParts struct {
	Rows     *olap.Eraser
	Ledger   *ErasedLedger
	Log      EraseLog
	Lake     EraseLake
	Redis    redis.UniversalClient
	BigQuery EraseWarehouse
	Cluster  string // of olap.Options
}

// NewErase makes the activities.
func NewErase(cfg ErasureConfig, parts EraseParts, reg prometheus.Registerer) *Erase {
	e := &Erase{
		cfg: cfg, rows: parts.Rows, ledger: parts.Ledger, log: parts.Log, lake: parts.Lake, redis: parts.Redis, bq: parts.BigQuery, metrics: newEraseMetrics(reg), now: time.Now,
	}
	e.notes = &eraseNotes{conn: parts.Ledger.conn, key: parts.Ledger.key, cluster: parts.Cluster, now: func() time.Time { return e.now() }}
	return e
}

// Register adds what runs on the queue "millrace".
func (e *Erase) Register(w worker.ActivityRegistry) {
	for n, f := range map[string]any{
		name.EraseScope: e.Scope, name.EraseLedger: e.Ledger, name.EraseClickHouse: e.ClickHouse, name.EraseRedis: e.Redis, name.EraseRefs: e.Refs, name.EraseBigQuery: e.BigQuery,
		name.EraseForget: e.Forget, name.EraseCertify: e.Certify, name.ExportRemove: e.ExportRemove,
	} {
		w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: n})
	}
}

// RegisterHeavy adds what runs on the queue "millrace-heavy".
func (e *Erase) RegisterHeavy(w worker.ActivityRegistry) {
	for n, f := range map[string]any{name.EraseIceberg: e.Iceberg, name.ErasePurge: e.Purge, name.ExportWrite: e.ExportWrite} {
		w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: n})
	}
}

// EraseScopeOutput is what a run works on.
type EraseScopeOutput struct {
	ClickHouse    []string      `json:"clickhouse"`
	Lake          []string      `json:"lake"`
	BigQuery      []string      `json:"bigquery,omitempty"`
	Subjects      int64         `json:"subjects"`
	RequestedAt   time.Time     `json:"requested_at"`
	Settle        time.Duration `json:"settle"`
	PhysicalAfter time.Duration `json:"physical_after"`
	Grace         time.Duration `json:"grace"`
}

// Scope says what a run works on. A request without its subjects is refused: either it is none, or its ids were forgotten when it was done.
func (e *Erase) Scope(ctx context.Context, in name.EraseSubjectInput) (EraseScopeOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	out, err := e.scope(ctx, in)
	return out, eraseFailure(ctx, err)
}

func (e *Erase) scope(ctx context.Context, in name.EraseSubjectInput) (EraseScopeOutput, error) {
	out := EraseScopeOutput{ClickHouse: olap.EraseTables(), Settle: e.cfg.Settle, PhysicalAfter: e.cfg.PhysicalAfter, Grace: e.cfg.Grace}
	noted, err := e.notes.entry(ctx, in.Request)
	if err != nil {
		return out, err
	}
	r, err := e.rows.Request(ctx, in.Request)
	if err != nil {
		return out, err
	}
	out.RequestedAt, out.Subjects = r.RequestedAt.UTC(), r.Subjects
	switch {
	case r.Subjects == 0 && noted.subjects == 0:
		return out, errInput(fmt.Sprintf("request: there are no subjects of request %s; `millrace erase request` puts them there and starts the workflow", in.Request))
	case r.Subjects == 0: // forgotten: everything but ClickHouse goes by digests, and a row that came back there is found
		out.RequestedAt, out.Subjects = noted.requestedAt, noted.subjects
	case r.Subjects < in.Subjects || r.Subjects > in.Subjects && !in.Linked:
		return out, errInput(fmt.Sprintf("subjects: request %s has %d, not %d", in.Request, r.Subjects, in.Subjects))
	}
	if in.Linked && noted.subjects == 0 {
		if err := e.rows.Link(ctx, in.Request, out.RequestedAt); err != nil {
			return out, err
		}
		if r, err = e.rows.Request(ctx, in.Request); err != nil {
			return out, err
		}
		out.Subjects = r.Subjects
	}
	infos, err := e.lake.Tables(ctx)
	if err != nil {
		return out, err
	}
	for _, t := range infos {
		out.Lake = append(out.Lake, t.Name)
	}
	slices.Sort(out.Lake)
	if e.bq != nil {
		if out.BigQuery, err = e.bq.Tables(ctx); err != nil {
			return out, err
		}
	}
	return out, nil
}

// Ledger writes the subjects' digests, with the cut, to the topic and then to the table. From then on the request is taken. Once it is in the table, the cut stays.
func (e *Erase) Ledger(ctx context.Context, in name.EraseSubjectInput) (StepOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	n, err := e.enter(ctx, in.Request)
	return StepOutput{n}, eraseFailure(ctx, err)
}

func (e *Erase) enter(ctx context.Context, request string) (map[string]int64, error) {
	noted, err := e.notes.entry(ctx, request)
	if err != nil || noted.subjects > 0 {
		return map[string]int64{"subjects": noted.subjects}, err
	}
	r, err := e.rows.Request(ctx, request)
	if err != nil {
		return nil, err
	}
	subjects, err := e.rows.Subjects(ctx, request)
	if err != nil {
		return nil, err
	}
	if len(subjects) == 0 {
		return nil, errInput("request: its subjects have gone before they were in the ledger")
	}
	cut, err := e.log.Cut(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the ends of the raw topics: %w", err)
	}
	entries := e.notes.entries(request, r.RequestedAt, cut, subjects)
	if err := e.log.Append(ctx, entries); err != nil {
		return nil, fmt.Errorf("writing the ledger of erasures: %w", err)
	}
	if err := e.notes.put(ctx, entries); err != nil {
		return nil, err
	}
	return map[string]int64{"subjects": int64(len(subjects)), "parts": int64(len(entries))}, nil
}

// EraseTableInput names one table of a request.
type EraseTableInput struct {
	Request string `json:"request"`
	Table   string `json:"table"`
	// Sequence is that of the snapshot of an Iceberg table from which on it has no row of the subjects.
	Sequence int64 `json:"sequence,omitempty"`
	// At is the time by which files are due.
	At time.Time `json:"at,omitzero"`
}

// ClickHouse deletes the rows of one table, and looks for what is left by another way.
func (e *Erase) ClickHouse(ctx context.Context, in EraseTableInput) (StepOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer e.metrics.took(name.EraseClickHouse)()
	n, err := e.clickhouse(ctx, in, b)
	return StepOutput{n}, eraseFailure(ctx, err)
}

func (e *Erase) clickhouse(ctx context.Context, in EraseTableInput, b *beats) (map[string]int64, error) {
	noted, err := e.notes.entry(ctx, in.Request)
	if err != nil {
		return nil, err
	}
	erased, err := e.ledger.Erased(ctx)
	if err != nil {
		return nil, err
	}
	b.note(Progress{State: "waiting until the parts are rewritten"})
	rows, err := e.rows.Erase(ctx, in.Request, in.Table, noted.cut, erased, nil)
	if err != nil {
		return nil, err
	}
	b.note(Progress{Rows: rows, State: "looking for what is left"})
	left, err := e.rows.Left(ctx, in.Table, erased)
	if err == nil && left > 0 {
		err = fmt.Errorf("table %s still has %d traces of erased subjects: %w", in.Table, left, errLeft)
	}
	e.metrics.rows.WithLabelValues(string(event.StoreClickHouse)).Add(float64(rows))
	return map[string]int64{"rows": rows, "left": left}, err
}

// Redis deletes the keys that name an erased subject, and reads all keys again.
func (e *Erase) Redis(ctx context.Context, _ EraseTableInput) (StepOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer e.metrics.took(name.EraseRedis)()
	n, err := e.keys(ctx, b)
	return StepOutput{n}, eraseFailure(ctx, err)
}

func (e *Erase) keys(ctx context.Context, b *beats) (map[string]int64, error) {
	if e.redis == nil {
		return map[string]int64{}, nil
	}
	erased, err := e.ledger.Erased(ctx)
	if err != nil {
		return nil, err
	}
	tenants, err := e.notes.tenants(ctx)
	if err != nil {
		return nil, err
	}
	deleted, seen, err := live.EraseKeys(ctx, e.redis, tenants, erased, true, func(n int64) { b.note(Progress{Rows: n}) })
	if err != nil {
		return nil, err
	}
	left, _, err := live.EraseKeys(ctx, e.redis, tenants, erased, false, func(n int64) { b.note(Progress{Rows: n}) })
	if err == nil && left > 0 {
		err = fmt.Errorf("redis still has %d keys that name erased subjects: %w", left, errLeft)
	}
	e.metrics.rows.WithLabelValues(string(event.StoreRedis)).Add(float64(deleted))
	return map[string]int64{"rows": deleted, "keys": seen, "left": left}, err
}

// BigQuery deletes the rows of one table.
func (e *Erase) BigQuery(ctx context.Context, in EraseTableInput) (StepOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer e.metrics.took(name.EraseBigQuery)()
	if e.bq == nil {
		return StepOutput{}, nil
	}
	erased, err := e.ledger.Erased(ctx)
	if err != nil {
		return StepOutput{}, eraseFailure(ctx, err)
	}
	rows, err := e.bq.EraseRows(ctx, in.Table, erased)
	e.metrics.rows.WithLabelValues(string(event.StoreBigQuery)).Add(float64(rows))
	return StepOutput{map[string]int64{"rows": rows}}, eraseFailure(ctx, err)
}

// Forget drops the ids of a request: what is left to do goes by digests.
func (e *Erase) Forget(ctx context.Context, in EraseTableInput) error {
	b := startBeats(ctx)
	defer b.end()
	return eraseFailure(ctx, e.rows.Forget(ctx, in.Request))
}

var errLeft = errors.New("something writes them without the ledger")

// inputError is a problem of an input that shows only here.
type inputError string

func (e inputError) Error() string { return string(e) }

func errInput(text string) error { return inputError(text) }

// eraseFailure is failure for errors of an erasure. Texts of stores may hold what a row held, so they do not go into the history: only their kind does.
func eraseFailure(ctx context.Context, err error) error {
	var in inputError
	if errors.As(err, &in) {
		return failure(ctx, err, name.InvalidInput, false)
	}
	return lakeFailure(ctx, err)
}
