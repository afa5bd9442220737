package activities

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"millrace/workflows/name"
)

// Runs keeps the tables workflow_runs, workflow_steps and (for MaintainTable) maintenance_runs, which are the truth of what ran: Temporal forgets a closed workflow after 30 days. A run is named by the
// workflow's canonical id and its logical run, so that the same run started again finds what it did.
type Runs struct {
	conn    driver.Conn
	lake    Lake
	cluster string
	now     func() time.Time
}

// NewRuns makes the activities. cluster is that of olap.Options.
func NewRuns(conn driver.Conn, lake Lake, cluster string) *Runs {
	return &Runs{conn: conn, lake: lake, cluster: cluster, now: time.Now}
}

// Register adds the activities.
func (r *Runs) Register(w worker.ActivityRegistry) {
	w.RegisterActivityWithOptions(r.Begin, activity.RegisterOptions{Name: name.BeginRun})
	w.RegisterActivityWithOptions(r.Step, activity.RegisterOptions{Name: name.NoteStep})
	w.RegisterActivityWithOptions(r.End, activity.RegisterOptions{Name: name.EndRun})
}

// Run names one run and what it is about. It is repeated with every note, so that no note depends on an earlier one.
type Run struct {
	ID        string    `json:"id"`  // canonical workflow id
	Run       string    `json:"run"` // logical run
	Type      string    `json:"type"`
	Input     string    `json:"input"` // compact JSON; only its digest is kept
	Day       string    `json:"day"`   // of its logical time, 2006-01-02
	Table     string    `json:"table,omitempty"`
	Trigger   string    `json:"trigger"`
	Workflow  string    `json:"workflow_run"` // Temporal's run id
	StartedAt time.Time `json:"started_at"`
	Snapshot  int64     `json:"snapshot"` // of the table when the run began
}

// digest identifies an input.
func (r Run) digest() string {
	sum := sha256.Sum256([]byte(r.Input))
	return hex.EncodeToString(sum[:16])
}

// BeginOutput is what a run finds when it begins.
type BeginOutput struct {
	Snapshot int64             `json:"snapshot"`
	Done     []name.StepResult `json:"done,omitempty"` // steps that the same run with the same input has done
}

// Begin notes that a run has begun, and tells which steps of it are done. A table that does not exist is refused.
func (r *Runs) Begin(ctx context.Context, run Run) (BeginOutput, error) {
	if run.Table != "" {
		tables, err := tableNames(ctx, r.lake)
		if err != nil {
			return BeginOutput{}, failure(ctx, err, "", true)
		}
		if err := CheckTable(run.Table, tables); err != nil {
			return BeginOutput{}, temporal.NewNonRetryableApplicationError(err.Error(), name.UnknownTable, nil)
		}
		head, err := r.lake.Head(ctx, run.Table)
		if err != nil {
			return BeginOutput{}, failure(ctx, err, "", true)
		}
		run.Snapshot = head.SnapshotID
	}
	out := BeginOutput{Snapshot: run.Snapshot}
	err := r.note(ctx, run, name.Running, nil, "", time.Time{})
	if err == nil {
		out.Done, err = r.done(ctx, run)
	}
	return out, failure(ctx, err, "", true)
}

// CheckTable says whether a table is one of those that exist; the error names the nearest.
func CheckTable(table string, tables []string) error {
	if slices.Contains(tables, table) {
		return nil
	}
	if near := name.Nearest(table, tables); near != "" {
		return fmt.Errorf("table: there is no table %s, did you mean %s?", table, near)
	}
	return fmt.Errorf("table: there is no table %s; there are %s", table, strings.Join(tables, ", "))
}

// RunEnd is the outcome of a run.
type RunEnd struct {
	Run     Run              `json:"run"`
	Outcome string           `json:"outcome"`
	Reason  string           `json:"reason,omitempty"` // of a failure: its type
	Numbers map[string]int64 `json:"numbers,omitempty"`
}

// End notes how a run ended.
func (r *Runs) End(ctx context.Context, e RunEnd) error {
	return failure(ctx, r.note(ctx, e.Run, e.Outcome, e.Numbers, e.Reason, r.now()), "", true)
}

func (r *Runs) note(ctx context.Context, run Run, outcome string, numbers map[string]int64, reason string, finished time.Time) error {
	if numbers == nil {
		numbers = map[string]int64{}
	}
	day, err := time.Parse(time.DateOnly, run.Day)
	if err != nil {
		return fmt.Errorf("noting run %s of %s: %w", run.Run, run.ID, err)
	}
	var end *time.Time
	if !finished.IsZero() {
		end = &finished
	}
	err = r.insert(ctx, "workflow_runs", run.ID, run.Run, run.Type, run.digest(), day, run.Table, run.Snapshot, run.Trigger, run.Workflow, outcome, reason, numbers, run.StartedAt, end, r.version())
	if err != nil {
		return fmt.Errorf("noting run %s of %s in workflow_runs: %w", run.Run, run.ID, err)
	}
	return nil
}

// StepNote is the outcome of one step.
type StepNote struct {
	Run       Run             `json:"run"`
	Result    name.StepResult `json:"result"`
	StartedAt time.Time       `json:"started_at"`
}

// Step notes what a step did.
func (r *Runs) Step(ctx context.Context, n StepNote) error {
	numbers := n.Result.Numbers
	if numbers == nil {
		numbers = map[string]int64{}
	}
	var err error
	if n.Run.Type == name.MaintainTable {
		err = r.insert(ctx, "maintenance_runs", n.Run.Table, n.Run.Run, n.Result.Step, n.Run.digest(), n.Result.Outcome, n.Result.Reason, numbers, n.Run.ID, n.Run.Workflow, n.StartedAt, r.now(), r.version())
	} else {
		err = r.insert(ctx, "workflow_steps", n.Run.ID, n.Run.Run, n.Run.Type, n.Result.Step, n.Run.digest(), n.Result.Outcome, n.Result.Reason, numbers, n.Run.Workflow, n.StartedAt, r.now(), r.version())
	}
	if err != nil {
		err = fmt.Errorf("noting step %s of run %s: %w", n.Result.Step, n.Run.Run, err)
	}
	return failure(ctx, err, "", true)
}

// done reads which steps of a run are done. Rows are compared by version and not by FINAL: on a cluster the copies of a row may be on several shards.
func (r *Runs) done(ctx context.Context, run Run) ([]name.StepResult, error) {
	from, is := "workflow_steps WHERE id = ?", run.ID
	if run.Type == name.MaintainTable {
		from, is = "maintenance_runs WHERE table_name = ?", run.Table
	}
	rows, err := r.conn.Query(ctx, `SELECT step, toJSONString(argMax(numbers, version)) FROM `+from+` AND run = ?
		GROUP BY step HAVING argMax(outcome, version) = ? AND argMax(input_digest, version) = ? ORDER BY step`, is, run.Run, name.Done, run.digest())
	if err != nil {
		return nil, fmt.Errorf("reading which steps are done: %w", err)
	}
	defer rows.Close()
	var out []name.StepResult
	for rows.Next() {
		s := name.StepResult{Outcome: name.Skipped}
		var numbers string
		if err := rows.Scan(&s.Step, &numbers); err != nil {
			return nil, fmt.Errorf("reading which steps are done: %w", err)
		}
		if err := json.Unmarshal([]byte(numbers), &s.Numbers); err != nil {
			return nil, fmt.Errorf("reading which steps are done: %w", err)
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading which steps are done: %w", err)
	}
	return out, nil
}

// version orders the copies of a row: the later note wins.
func (r *Runs) version() uint64 { return uint64(r.now().UnixMicro()) }

// batch begins an insert of many rows.
func (r *Runs) batch(ctx context.Context, table string) (driver.Batch, error) {
	if r.cluster != "" {
		table += "_local"
	}
	return r.conn.PrepareBatch(ctx, "INSERT INTO "+table)
}

func (r *Runs) insert(ctx context.Context, table string, values ...any) error {
	batch, err := r.batch(ctx, table)
	if err != nil {
		return err
	}
	defer func() { _ = batch.Close() }() // sent, or given up
	if err := batch.Append(values...); err != nil {
		return err
	}
	return batch.Send()
}
