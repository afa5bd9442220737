package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"millrace/internal/failpoint"
	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/workflows/name"
)

// Failpoints of a publication, for drills.
const (
	FailPublishPinned = "activities.publish.pinned" // the lease is there, nobody knows
	FailPublishMoved  = "activities.publish.moved"  // published has moved, nothing is noted
)

// The lease of the snapshot that is being published: longer than its checks may take.
const (
	publishLease     = "publish"
	publishLeaseTime = 24 * time.Hour
)

// PublishLake is what a publication asks of the lakehouse.
type PublishLake interface {
	Ref(ctx context.Context, table, ref string) (lakehouse.RefState, error)
	MoveRef(ctx context.Context, table, ref string, from, to int64) error
	Tag(ctx context.Context, table, tag string, snapshot int64, maxAge time.Duration) error
	Lease(ctx context.Context, table, kind, run string, snapshot int64, d time.Duration) (release func(context.Context) error, err error)
	CheckSnapshot(ctx context.Context, table string, o lakehouse.CheckOptions, all func(context.Context) ([]lakehouse.ControlRange, error), progress func(rows int64)) (lakehouse.CheckResult, error)
	AddQuarantined(ctx context.Context, table string, ranges []lakehouse.RangeResult) (int64, error)
}

// Gate is one more check of a snapshot before it is published, such as a suite of expectations.
type Gate interface {
	Name() string
	Check(ctx context.Context, in GateInput) (GateResult, error)
}

// GateInput is what a gate looks at: the rows of Snapshot, of which those up to From were published before.
type GateInput struct {
	Table    string
	Snapshot int64
	From     int64 // 0: nothing was
	Offsets  lakehouse.Vector
	Before   lakehouse.Vector // of From
}

// GateResult is what a gate says. Problems stand in a history: they hold no values of rows.
type GateResult struct {
	Numbers  map[string]int64
	Problems []string // each stops published
}

// Publish is the publication of tables.
type Publish struct {
	lake   PublishLake
	conn   driver.Conn
	runs   *Runs
	erased ErasedSource
	dir    string
	gates  []Gate
	log    *slog.Logger
	done   *prometheus.CounterVec
	at     *prometheus.GaugeVec
	rows   *prometheus.CounterVec
	now    func() time.Time
}

// NewPublish makes the activities. dir is for what does not fit into memory; erased may be nil on a platform without erasures.
func NewPublish(lake PublishLake, conn driver.Conn, runs *Runs, erased ErasedSource, dir string, reg prometheus.Registerer, log *slog.Logger, gates ...Gate) *Publish {
	return &Publish{
		lake: lake, conn: conn, runs: runs, erased: erased, dir: filepath.Join(dir, "publish"), gates: gates, log: log, now: time.Now,
		done: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_publish_runs_total", Help: "Publications of tables, by outcome."}, []string{"table", "outcome"})),
		at:   register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_publish_snapshot_timestamp_seconds", Help: "Time of the snapshot that this process has published last."}, []string{"table"})),
		rows: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_publish_checked_rows_total", Help: "New rows that were compared with the control totals before publication."}, []string{"table"})),
	}
}

// Register adds what runs on the queue "millrace".
func (p *Publish) Register(w worker.ActivityRegistry) {
	for n, f := range map[string]any{name.PublishPin: p.Pin, name.PublishMove: p.Move, name.PublishNote: p.Note} {
		w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: n})
	}
}

// RegisterHeavy adds what runs on the queue "millrace-heavy".
func (p *Publish) RegisterHeavy(w worker.ActivityRegistry) {
	w.RegisterActivityWithOptions(p.Check, activity.RegisterOptions{Name: name.PublishCheck})
}

// PublishRef names a publication.
type PublishRef struct {
	Input name.PublishTableInput `json:"input"`
	Run   Run                    `json:"run"`
}

// PublishPinned is the snapshot of a publication.
type PublishPinned struct {
	Table    string    `json:"table"`
	Snapshot int64     `json:"snapshot"` // 0: the table is empty
	At       time.Time `json:"at"`
	From     int64     `json:"from"` // where published is; 0: nowhere yet
}

// Pin chooses the snapshot and takes a lease on it.
func (p *Publish) Pin(ctx context.Context, in PublishRef) (PublishPinned, error) {
	b := startBeats(ctx)
	defer b.end()
	out, err := p.pin(ctx, in)
	return out, publishFailure(ctx, err)
}

func (p *Publish) pin(ctx context.Context, in PublishRef) (PublishPinned, error) {
	out := PublishPinned{Table: in.Input.Table}
	from, err := p.lake.Ref(ctx, in.Input.Table, lakehouse.RefPublished)
	if err != nil && !errors.Is(err, lakehouse.ErrNoRef) {
		return out, err
	}
	out.From = from.SnapshotID
	ref := lakehouse.RefMain
	switch {
	case in.Input.Approve != nil:
		ref = fmt.Sprintf("snapshot:%d", in.Input.Approve.Snapshot)
	case in.Input.Snapshot != 0:
		ref = fmt.Sprintf("snapshot:%d", in.Input.Snapshot)
	}
	to, err := p.lake.Ref(ctx, in.Input.Table, ref)
	if err != nil {
		return out, err
	}
	out.Snapshot, out.At = to.SnapshotID, to.At
	if out.Snapshot == 0 {
		return out, nil
	}
	if _, err := p.lake.Lease(ctx, in.Input.Table, publishLease, in.Run.Run, out.Snapshot, publishLeaseTime); err != nil {
		return out, err
	}
	failpoint.Hit(FailPublishPinned)
	return out, nil
}

// PublishCheckInput is a pinned snapshot to be checked.
type PublishCheckInput struct {
	PublishRef
	Pinned PublishPinned `json:"pinned"`
}

// PublishChecked is what the checks found.
type PublishChecked struct {
	Numbers  map[string]int64 `json:"numbers"`
	Problems []string         `json:"problems,omitempty"` // none: it may be published
	Full     bool             `json:"full"`
	Covered  map[string]int64 `json:"covered,omitempty"` // topic/partition → raw offset
}

// Check compares the new rows of a snapshot with the control totals and asks the gates.
func (p *Publish) Check(ctx context.Context, in PublishCheckInput) (PublishChecked, error) {
	b := startBeats(ctx)
	defer b.end()
	out, err := p.check(ctx, in, b)
	return out, publishFailure(ctx, err)
}

func (p *Publish) check(ctx context.Context, in PublishCheckInput, b *beats) (PublishChecked, error) {
	table := in.Input.Table
	o := lakehouse.CheckOptions{
		Snapshot: in.Pinned.Snapshot, RawTopic: rawTopicOf(table), Window: in.Input.IDWindow(), Lag: in.Input.TotalsLag(), Scratch: p.dir, Covered: map[lakehouse.RawPartition]int64{},
	}
	if in.Pinned.From != 0 && !in.Input.Full {
		covered, known, err := p.covered(ctx, table, in.Pinned.From)
		if err != nil {
			return PublishChecked{}, err
		}
		if known {
			o.Since, o.Covered = in.Pinned.From, covered
		}
	}
	all := func(ctx context.Context) ([]lakehouse.ControlRange, error) {
		ranges, _, err := p.totals(ctx, table, nil)
		return ranges, err
	}
	var err error
	if o.Since != 0 {
		if o.Ranges, o.From, err = p.totals(ctx, table, o.Covered); err != nil {
			return PublishChecked{}, err
		}
		if o.From.IsZero() { // nothing is new to the ledger: what is new to the table arrived about when it was published
			from, err := p.lake.Ref(ctx, table, fmt.Sprintf("snapshot:%d", o.Since))
			if err != nil {
				return PublishChecked{}, err
			}
			o.From = from.At.Add(-in.Input.TotalsLag())
		}
		o.From = o.From.Add(-10 * time.Minute) // brokers' clocks
	}
	res, err := p.lake.CheckSnapshot(ctx, table, o, all, func(rows int64) { b.note(Progress{Rows: rows}) })
	if err != nil {
		return PublishChecked{}, err
	}
	p.rows.WithLabelValues(table).Add(float64(res.Numbers[lakehouse.CheckNew]))
	if err := p.excuse(ctx, table, &res); err != nil {
		return PublishChecked{}, err
	}
	out := PublishChecked{Numbers: res.Numbers, Full: res.Full, Covered: map[string]int64{}, Problems: verdict(res.Numbers, in.Input.MaxDuplicates)}
	for at, n := range res.Covered {
		out.Covered[fmt.Sprintf("%s/%d", at.Topic, at.Partition)] = n
	}
	if len(res.Differ) > 0 {
		out.Problems = append(out.Problems, "the first ranges that differ: "+rangesText(res.Differ))
	}
	return out, p.ask(ctx, in, &out)
}

// verdict names what is critical.
func verdict(n map[string]int64, duplicates int64) []string {
	var out []string
	for _, c := range [...]struct {
		number string
		most   int64
		text   string
	}{
		{lakehouse.CheckMissing, 0, "rows of the control totals are missing"},
		{lakehouse.CheckSurplus, 0, "rows are more than the control totals say"},
		{lakehouse.CheckDiffer, 0, "ranges differ from their control totals"},
		{lakehouse.CheckUntold, 0, "rows have no control totals although they are old enough"},
		{lakehouse.CheckDuplicates, duplicates, "new rows have the (tenant, source, event_id) of another row"},
		{lakehouse.CheckNulls, 0, "nulls are in required columns"},
		{lakehouse.CheckEmpty, 0, "rows have no id or tenant"},
	} {
		if n[c.number] > c.most {
			out = append(out, fmt.Sprintf("%d %s", n[c.number], c.text))
		}
	}
	return out
}

func rangesText(ranges []lakehouse.RangeResult) string {
	var parts []string
	for _, r := range ranges[:min(3, len(ranges))] {
		parts = append(parts, fmt.Sprintf("%s/%d [%d, %d) has %d rows of %d", r.Topic, r.Partition, r.From, r.To, r.Found.Count, r.Want.Count))
	}
	return strings.Join(parts, ", ")
}

// ask asks the gates.
func (p *Publish) ask(ctx context.Context, in PublishCheckInput, out *PublishChecked) error {
	if len(p.gates) == 0 {
		return nil
	}
	g := GateInput{Table: in.Input.Table, Snapshot: in.Pinned.Snapshot, From: in.Pinned.From}
	for id, into := range map[int64]*lakehouse.Vector{g.Snapshot: &g.Offsets, g.From: &g.Before} {
		if id == 0 {
			continue
		}
		r, err := p.lake.Ref(ctx, g.Table, fmt.Sprintf("snapshot:%d", id))
		if err != nil {
			return err
		}
		*into = r.Vector
	}
	for _, gate := range p.gates {
		res, err := gate.Check(ctx, g)
		if err != nil {
			return fmt.Errorf("gate %s: %w", gate.Name(), err)
		}
		for k, n := range res.Numbers {
			out.Numbers[gate.Name()+"."+k] = n
		}
		for _, text := range res.Problems {
			out.Problems = append(out.Problems, gate.Name()+": "+text)
		}
	}
	return nil
}

// PublicationRecord is a publication with its outcome.
type PublicationRecord struct {
	PublishRef
	Pinned  PublishPinned  `json:"pinned"`
	Checked PublishChecked `json:"checked"`
	Outcome string         `json:"outcome"`
	Reason  string         `json:"reason,omitempty"`
	By      string         `json:"by,omitempty"`
}

// PublishMoved is what a publication did.
type PublishMoved struct {
	Tag  string `json:"tag,omitempty"`
	Rows int64  `json:"rows"`
}

// Move moves published, tags the night and notes it. It may be repeated.
func (p *Publish) Move(ctx context.Context, rec PublicationRecord) (PublishMoved, error) {
	b := startBeats(ctx)
	defer b.end()
	out, err := p.move(ctx, rec)
	return out, publishFailure(ctx, err)
}

func (p *Publish) move(ctx context.Context, rec PublicationRecord) (PublishMoved, error) {
	table, to := rec.Input.Table, rec.Pinned.Snapshot
	out := PublishMoved{Rows: rec.Checked.Numbers[lakehouse.CheckNew]}
	if to == 0 {
		return out, nil
	}
	if err := p.lake.MoveRef(ctx, table, lakehouse.RefPublished, rec.Pinned.From, to); err != nil {
		return out, err
	}
	failpoint.Hit(FailPublishMoved)
	if !rec.Input.NoTag {
		out.Tag = lakehouse.NightlyTag(rec.Run.Day)
		if err := p.lake.Tag(ctx, table, out.Tag, to, lakehouse.NightlyAge); err != nil {
			return out, err
		}
	}
	p.at.WithLabelValues(table).Set(float64(rec.Pinned.At.UnixMilli()) / 1e3)
	return out, p.settle(ctx, rec, out.Tag)
}

// Note notes an outcome that leaves published where it is, and ends the lease. Without an outcome it only does the latter.
func (p *Publish) Note(ctx context.Context, rec PublicationRecord) error {
	return publishFailure(ctx, p.settle(ctx, rec, ""))
}

func (p *Publish) settle(ctx context.Context, rec PublicationRecord, tag string) error {
	if rec.Outcome != "" {
		if err := p.insert(ctx, rec, tag); err != nil {
			return err
		}
		p.done.WithLabelValues(rec.Input.Table, rec.Outcome).Inc()
	}
	if rec.Outcome == name.Refused { // it may be approved: the lease ends by itself
		return nil
	}
	release, err := p.lake.Lease(ctx, rec.Input.Table, publishLease, rec.Run.Run, rec.Pinned.Snapshot, time.Minute) // another process may have taken it
	if err == nil {
		err = release(ctx)
	}
	if errors.Is(err, lakehouse.ErrNoSnapshot) {
		return nil
	}
	return err
}

func (p *Publish) insert(ctx context.Context, rec PublicationRecord, tag string) error {
	day, err := time.Parse(time.DateOnly, rec.Run.Day)
	if err != nil {
		return fmt.Errorf("noting the publication of %s: %w", rec.Input.Table, err)
	}
	numbers, covered, problems := rec.Checked.Numbers, rec.Checked.Covered, rec.Checked.Problems
	if rec.Outcome == name.Unchanged { // what was covered stays so
		have, _, err := p.covered(ctx, rec.Input.Table, rec.Pinned.From)
		if err != nil {
			return err
		}
		covered = map[string]int64{}
		for at, n := range have {
			covered[fmt.Sprintf("%s/%d", at.Topic, at.Partition)] = n
		}
	}
	if numbers == nil {
		numbers = map[string]int64{}
	}
	if covered == nil {
		covered = map[string]int64{}
	}
	if problems == nil {
		problems = []string{}
	}
	err = p.runs.insert(ctx, "publications", rec.Input.Table, rec.Run.Run, day, rec.Pinned.From, rec.Pinned.Snapshot, rec.Outcome, numbers[lakehouse.CheckRows], numbers, problems, rec.Checked.Full, covered,
		rec.Reason, rec.By, tag, rec.Run.StartedAt, p.now(), p.runs.version())
	if err != nil {
		return fmt.Errorf("noting the publication of %s: %w", rec.Input.Table, err)
	}
	return nil
}

// publishFailure says which errors no repetition mends.
func publishFailure(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lakehouse.ErrNoSnapshot), errors.Is(err, lakehouse.ErrNoRef):
		return temporal.NewNonRetryableApplicationError(fault.New("MR-ICE-060", err).Error(), "MR-ICE-060", nil)
	case errors.Is(err, lakehouse.ErrBackward):
		return temporal.NewNonRetryableApplicationError(err.Error()+": main was rolled back, or published is further; start the workflow again without a snapshot", name.Conflict, nil)
	case errors.Is(err, lakehouse.ErrRefMoved):
		return temporal.NewNonRetryableApplicationError(err.Error()+": another run has published meanwhile; start the workflow again", name.Conflict, nil)
	case errors.Is(err, lakehouse.ErrNothingToCheck):
		return temporal.NewNonRetryableApplicationError(err.Error(), name.InvalidInput, nil)
	}
	return failure(ctx, err, "", true)
}
