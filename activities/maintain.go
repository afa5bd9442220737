package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"
	"golang.org/x/sync/semaphore"

	"millrace/internal/failpoint"
	"millrace/lakehouse"
	"millrace/workflows/name"
)

// Failpoints for drills.
const (
	FailGroupWritten = "activities.group.written" // a group's files are written, its result is not noted
	FailGroupNoted   = "activities.group.noted"   // it is
)

// The lease of a plan's snapshot: it ends with the plan, or after leaseTime if nobody comes back to it.
const (
	leaseKind = "compact"
	leaseTime = 24 * time.Hour
)

// oldPlan is the age from which a plan is nobody's: no activity runs that long.
const oldPlan = 7 * 24 * time.Hour

// Committer runs f where commits to a table are made, between two of them. errNotCommitter-like errors are wrapped by the caller with NotCommitter.
type Committer func(ctx context.Context, table string, f func(ctx context.Context) error) error

// Maintain is the maintenance of Iceberg tables.
type Maintain struct {
	lake    Lake
	dir     string
	lane    Committer // nil: this process commits by itself
	there   func(ctx context.Context, table string) (bool, error)
	budget  *semaphore.Weighted
	limit   int64
	log     *slog.Logger
	metrics metrics
	now     func() time.Time
}

var errNotCommitter = errors.New("this process does not commit to the table")

// NotCommitter marks an error of a Committer: the table is not its own.
func NotCommitter(err error) error { return fmt.Errorf("%w: %w", errNotCommitter, err) }

// NewMaintain makes the activities. dir is for plans and results; heavy activities hold at most budget bytes of input at a time.
func NewMaintain(lake Lake, dir string, budget int64, reg prometheus.Registerer, log *slog.Logger) *Maintain {
	return &Maintain{lake: lake, dir: dir, budget: semaphore.NewWeighted(budget), limit: budget, log: log, metrics: newMetrics(reg), now: time.Now}
}

// Lane is the same with commits made by c.
func (m *Maintain) Lane(c Committer) *Maintain {
	l := *m
	l.lane = c
	return &l
}

// Committers lets plans say whether the stream has a committer for their table: a commit that nobody takes waits for a minute.
func (m *Maintain) Committers(there func(ctx context.Context, table string) (bool, error)) *Maintain {
	m.there = there
	return m
}

// Register adds what runs on the queue "millrace".
func (m *Maintain) Register(w worker.ActivityRegistry) {
	for n, f := range map[string]any{
		name.PlanTable: m.Plan, name.CommitRewrite: m.Commit, name.DropPlan: m.Drop,
		name.RewriteManifests: m.Manifests, name.ExpireSnapshots: m.Expire, name.RemoveOrphans: m.Orphans,
	} {
		w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: n})
	}
}

// RegisterHeavy adds what runs on the queue "millrace-heavy".
func (m *Maintain) RegisterHeavy(w worker.ActivityRegistry) {
	w.RegisterActivityWithOptions(m.Compact, activity.RegisterOptions{Name: name.CompactGroup})
}

// RegisterLane adds what runs on the queue of a table's committer.
func (m *Maintain) RegisterLane(w worker.ActivityRegistry) {
	w.RegisterActivityWithOptions(m.Commit, activity.RegisterOptions{Name: name.CommitRewrite})
}

// PlanInput names a plan to be made: once for a key, however often the activity runs.
type PlanInput struct {
	Input name.MaintainTableInput `json:"input"`
	Key   string                  `json:"key"`
}

// PlanOutput is the size of a plan.
type PlanOutput struct {
	Key        string `json:"key"`
	SnapshotID int64  `json:"snapshot_id"`
	Groups     int    `json:"groups"`
	Files      int64  `json:"files"`
	Bytes      int64  `json:"bytes"`
	Rows       int64  `json:"rows"`
	Left       int    `json:"left,omitempty"` // groups for the next plan

	NoCommitter bool `json:"no_committer,omitempty"` // nobody commits for the stream
}

// Plan decides which files are rewritten together and writes that down. A plan without groups leaves nothing behind.
func (m *Maintain) Plan(ctx context.Context, in PlanInput) (PlanOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer m.took(name.PlanTable)()
	out, err := m.plan(ctx, in)
	return out, lakeFailure(ctx, err)
}

func (m *Maintain) plan(ctx context.Context, in PlanInput) (PlanOutput, error) {
	f, err := openPlan(m.dir, in.Input.Table, in.Key)
	if err != nil {
		return PlanOutput{}, err
	}
	if err := dropOld(m.dir, in.Input.Table, m.now().Add(-oldPlan)); err != nil {
		return PlanOutput{}, err
	}
	p, ok, err := f.plan()
	if err != nil {
		return PlanOutput{}, err
	}
	if !ok {
		policy := policyFor(in.Input)
		plan, err := m.lake.PlanCompaction(ctx, in.Input.Table, policy)
		if err != nil {
			return PlanOutput{}, err
		}
		if len(plan.Groups) > 0 { // the files must stay until they are read
			if _, err := m.lake.Lease(ctx, in.Input.Table, leaseKind, in.Key, plan.SnapshotID, leaseTime); err != nil {
				return PlanOutput{}, err
			}
		}
		p = storedPlan{Made: m.now().UTC(), Policy: policy, Plan: plan}
		if len(plan.Groups) > 0 {
			if err := f.write("plan.json", p); err != nil {
				return PlanOutput{}, err
			}
		}
	}
	out := PlanOutput{
		Key: in.Key, SnapshotID: p.Plan.SnapshotID, Groups: len(p.Plan.Groups), Files: int64(p.Plan.Files), Bytes: p.Plan.Bytes, Rows: p.Plan.Rows, Left: p.Plan.Left,
	}
	if m.there != nil && out.Groups > 0 {
		there, err := m.there(ctx, in.Input.Table)
		if err != nil { // then one is asked, and waited for
			m.log.WarnContext(ctx, "looking for the stream's committer", "table", in.Input.Table, "error", err)
		}
		out.NoCommitter = err == nil && !there
	}
	return out, nil
}

// policyFor is the table's policy with what the input says otherwise.
func policyFor(in name.MaintainTableInput) lakehouse.Policy {
	p := lakehouse.PolicyOf(in.Table)
	if in.TargetFileBytes > 0 {
		p.TargetFileBytes = in.TargetFileBytes
		p.MaxGroupBytes = max(p.MaxGroupBytes, in.TargetFileBytes)
	}
	if in.MinInputFiles > 0 {
		p.MinInputFiles = in.MinInputFiles
	}
	switch {
	case in.Order == name.OrderNone:
		p = p.Ordered(nil, nil)
	case in.Order == name.OrderZ:
		p = p.Ordered(nil, in.Columns)
	case len(in.Columns) > 0:
		p = p.Ordered(in.Columns, nil)
	}
	if in.RewriteAll {
		p = p.All()
	}
	if in.SnapshotAge > 0 {
		p.SnapshotAge = time.Duration(in.SnapshotAge)
	}
	if in.KeepSnapshots > 0 {
		p.KeepSnapshots = in.KeepSnapshots
	}
	if in.OrphanAge > 0 {
		p.OrphanAge = time.Duration(in.OrphanAge)
	}
	return p
}

// GroupInput names one group of a plan.
type GroupInput struct {
	Table string `json:"table"`
	Key   string `json:"key"`
	Group int    `json:"group"`
}

// GroupOutput is what rewriting a group did.
type GroupOutput struct {
	Files   int64 `json:"files"`
	Bytes   int64 `json:"bytes"`
	Rows    int64 `json:"rows"`
	Resumed bool  `json:"resumed,omitempty"` // an earlier attempt had done it
}

// Compact rewrites one group of files and notes the result in the plan's folder. Nothing is visible before the commit. A group whose result is there is done: that is
// how a run goes on after its worker has died.
func (m *Maintain) Compact(ctx context.Context, in GroupInput) (GroupOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer m.took(name.CompactGroup)()
	out, err := m.compact(ctx, in, b)
	return out, lakeFailure(ctx, err)
}

func (m *Maintain) compact(ctx context.Context, in GroupInput, b *beats) (GroupOutput, error) {
	f, err := openPlan(m.dir, in.Table, in.Key)
	if err != nil {
		return GroupOutput{}, err
	}
	p, err := f.needPlan()
	if err != nil {
		return GroupOutput{}, err
	}
	if in.Group < 0 || in.Group >= len(p.Plan.Groups) {
		return GroupOutput{}, fmt.Errorf("plan %s has no group %d: %w", in.Key, in.Group, errPlanLost)
	}
	g := p.Plan.Groups[in.Group]
	out := GroupOutput{Files: int64(len(g.Files)), Bytes: g.Bytes, Rows: g.Rows}
	if _, ok, err := f.result(in.Group); err != nil {
		return GroupOutput{}, err
	} else if ok {
		out.Resumed = true
		return out, nil
	}
	weight := min(max(g.Bytes, 1), m.limit)
	b.note(Progress{State: "waiting for bytes of this worker's budget"})
	if err := m.budget.Acquire(ctx, weight); err != nil {
		return GroupOutput{}, err
	}
	m.metrics.budget.Add(float64(weight))
	defer func() { m.budget.Release(weight); m.metrics.budget.Sub(float64(weight)) }()
	b.note(Progress{})
	result, err := m.lake.CompactGroup(ctx, p.Plan, in.Group, func(rows, bytes int64) { b.note(Progress{Rows: rows, Bytes: bytes}) })
	if err != nil {
		return GroupOutput{}, err
	}
	failpoint.Hit(FailGroupWritten)
	if err := f.write(groupFile(in.Group), result); err != nil {
		return GroupOutput{}, err
	}
	failpoint.Hit(FailGroupNoted)
	m.metrics.groups.WithLabelValues(in.Table).Inc()
	m.metrics.bytes.WithLabelValues(in.Table).Add(float64(g.Bytes))
	m.metrics.rows.WithLabelValues(in.Table).Add(float64(g.Rows))
	return out, nil
}

// PlanRef names a plan.
type PlanRef struct {
	Table string `json:"table"`
	Key   string `json:"key"`
}

// CommitOutput is what a commit of rewritten files did.
type CommitOutput struct {
	SnapshotID int64  `json:"snapshot_id"`
	Removed    int64  `json:"files_removed"`
	Added      int64  `json:"files_added"`
	By         string `json:"by"` // lane or direct

	BytesRemoved int64 `json:"bytes_removed,omitempty"`
	BytesAdded   int64 `json:"bytes_added,omitempty"`
	ReadBefore   int64 `json:"files_read_before,omitempty"` // files that readers open for the table's queries, summed over these
	ReadAfter    int64 `json:"files_read_after,omitempty"`
}

// Commit makes the rewritten files of a plan visible in place of those they were made from. It may be repeated, also by another process after an unknown outcome. A
// Conflict means that the table's files are others now and a new plan is due.
func (m *Maintain) Commit(ctx context.Context, in PlanRef) (CommitOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer m.took(name.CommitRewrite)()
	by := "direct"
	if m.lane != nil {
		by = "lane"
	}
	out, err := m.commit(ctx, in)
	out.By = by
	outcome := name.Done
	switch {
	case errors.Is(err, lakehouse.ErrConflict):
		outcome = "conflict"
	case err != nil:
		outcome = name.Failed
	}
	m.metrics.commits.WithLabelValues(in.Table, by, outcome).Inc()
	return out, lakeFailure(ctx, err)
}

func (m *Maintain) commit(ctx context.Context, in PlanRef) (CommitOutput, error) {
	f, err := openPlan(m.dir, in.Table, in.Key)
	if err != nil {
		return CommitOutput{}, err
	}
	p, err := f.needPlan()
	if err != nil {
		return CommitOutput{}, err
	}
	results, err := f.results(len(p.Plan.Groups))
	if err != nil {
		return CommitOutput{}, err
	}
	var done lakehouse.CommitResult
	apply := func(ctx context.Context) error {
		var err error
		done, err = m.lake.CommitRewrite(ctx, p.Plan, results)
		return err
	}
	if m.lane != nil {
		err = m.lane(ctx, in.Table, apply)
	} else {
		err = apply(ctx)
	}
	out := CommitOutput{SnapshotID: done.SnapshotID, Removed: int64(done.Removed), Added: int64(done.Added), BytesRemoved: done.BytesRemoved, BytesAdded: done.BytesAdded}
	for _, r := range results {
		out.ReadBefore += r.ReadBefore
		out.ReadAfter += r.ReadAfter
	}
	return out, err
}

// Drop gives up a plan: its lease, and its folder. Files of groups that were not committed are orphans from then on.
func (m *Maintain) Drop(ctx context.Context, in PlanRef) error {
	b := startBeats(ctx)
	defer b.end()
	return lakeFailure(ctx, m.drop(ctx, in))
}

func (m *Maintain) drop(ctx context.Context, in PlanRef) error {
	f, err := openPlan(m.dir, in.Table, in.Key)
	if err != nil {
		return err
	}
	p, ok, err := f.plan()
	if err != nil || !ok {
		return err
	}
	release, err := m.lake.Lease(ctx, in.Table, leaseKind, in.Key, p.Plan.SnapshotID, time.Minute) // another process may have taken it
	if err == nil {
		err = release(ctx)
	}
	if err != nil && !errors.Is(err, lakehouse.ErrNoSnapshot) {
		return err
	}
	return f.drop()
}

// StepOutput is what a step did, in numbers.
type StepOutput struct {
	Numbers map[string]int64 `json:"numbers"`
}

// Manifests merges the manifests of a table.
func (m *Maintain) Manifests(ctx context.Context, in name.MaintainTableInput) (StepOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer m.took(name.RewriteManifests)()
	r, err := m.lake.RewriteManifests(ctx, in.Table)
	return StepOutput{map[string]int64{"manifests_before": int64(r.Before), "manifests_after": int64(r.After)}}, failure(ctx, err, "", true) // a head that moved is no reason to plan again
}

// Expire removes old snapshots of a table.
func (m *Maintain) Expire(ctx context.Context, in name.MaintainTableInput) (StepOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer m.took(name.ExpireSnapshots)()
	r, err := m.lake.Expire(ctx, in.Table, policyFor(in))
	return StepOutput{map[string]int64{"snapshots_removed": int64(r.Snapshots), "expired_files": int64(r.Files), "expired_bytes": r.Bytes}}, lakeFailure(ctx, err)
}

// Orphans removes the files of a table's folder that no snapshot names.
func (m *Maintain) Orphans(ctx context.Context, in name.MaintainTableInput) (StepOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer m.took(name.RemoveOrphans)()
	r, err := m.lake.RemoveOrphans(ctx, in.Table, policyFor(in).OrphanAge, in.DryRun, func(files int64) { b.note(Progress{Files: files}) })
	return StepOutput{map[string]int64{"scanned_files": int64(r.Scanned), "orphans": int64(r.Files), "orphan_bytes": r.Bytes}}, lakeFailure(ctx, err)
}

// took measures one activity.
func (m *Maintain) took(what string) func() {
	start := time.Now()
	return func() { m.metrics.seconds.WithLabelValues(what).Observe(time.Since(start).Seconds()) }
}

// tableNames lists the tables of the lake.
func tableNames(ctx context.Context, lake Lake) ([]string, error) {
	infos, err := lake.Tables(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, t := range infos {
		out = append(out, t.Name)
	}
	slices.Sort(out)
	return out, nil
}
