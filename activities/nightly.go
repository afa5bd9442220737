package activities

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"

	"millrace/internal/failpoint"
	"millrace/workflows/name"
)

// FailNightPlan is hit before a night is planned.
const FailNightPlan = "activities.nightly.plan"

// Nightly tells a night what there is to do.
type Nightly struct {
	conn driver.Conn
	lake Lake
	has  NightHas
}

// NightHas is what a platform has, as its configuration says.
type NightHas struct {
	// Off are the workflow types that do not run here, each with the reason.
	Off    map[string]string
	Loads  []string // tables that are loaded into BigQuery
	Topics []string // topics that are reconciled with the stores
	Repair bool     // what differs there is mended, and not only named
}

// NewNightly makes the activities.
func NewNightly(conn driver.Conn, lake Lake, has NightHas) *Nightly {
	return &Nightly{conn: conn, lake: lake, has: has}
}

// Register adds the activities.
func (n *Nightly) Register(w worker.ActivityRegistry) {
	w.RegisterActivityWithOptions(n.Plan, activity.RegisterOptions{Name: name.NightlyPlan})
	w.RegisterActivityWithOptions(n.Done, activity.RegisterOptions{Name: name.NightlyDone})
}

// NightPlanInput asks for the plan of a night.
type NightPlanInput struct {
	Input name.NightlyInput `json:"input"`
	Types map[string]string `json:"types"` // step → workflow type
}

// NightPlan is what there is to do.
type NightPlan struct {
	Tables  []string          `json:"tables"`
	Loads   []string          `json:"loads,omitempty"`
	Topics  []string          `json:"topics,omitempty"`
	Repair  bool              `json:"repair,omitempty"`
	Off     map[string]string `json:"off"`               // steps that are not done on this platform, each with the reason
	Missing []string          `json:"missing,omitempty"` // earlier nights that never ran, the oldest first
	Steps   []string          `json:"steps,omitempty"`   // that were asked about
}

// Plan tells what there is to do in a night.
func (n *Nightly) Plan(ctx context.Context, in NightPlanInput) (NightPlan, error) {
	out := NightPlan{Off: map[string]string{}, Loads: n.has.Loads, Topics: n.has.Topics, Repair: n.has.Repair}
	if err := failpoint.Err(FailNightPlan); err != nil {
		return out, failure(ctx, err, "Failpoint", false)
	}
	for step, typ := range in.Types {
		if _, err := name.TypeNamed(typ); err != nil {
			out.Off[step] = "this release has no " + typ
		} else if why := n.has.Off[typ]; why != "" {
			out.Off[step] = why
		}
	}
	out.Steps = slices.Sorted(maps.Keys(in.Types))
	tables, err := tableNames(ctx, n.lake)
	if err != nil {
		return out, failure(ctx, err, "", true)
	}
	for _, t := range tables {
		if !strings.Contains(t, "__") { // what a table's own rows were moved to
			out.Tables = append(out.Tables, t)
		}
	}
	before := in.Input.Before(in.Input.LookBack())
	if len(before) == 0 {
		out.Off[name.NightGaps] = "no earlier nights are asked for"
		return out, nil
	}
	ran, err := Nights(ctx, n.conn)
	if err != nil {
		return out, failure(ctx, err, "", true)
	}
	out.Missing = MissingNights(before, ran)
	return out, nil
}

// NightRan is a night as workflow_runs has it.
type NightRan struct {
	Night   string
	Outcome string
}

// Nights reads which nights were ever begun, the oldest first.
func Nights(ctx context.Context, conn driver.Conn) ([]NightRan, error) {
	rows, err := conn.Query(ctx, `SELECT substring(id, length(?) + 1) AS night, argMax(outcome, version) FROM workflow_runs WHERE type = ? GROUP BY id ORDER BY night`, name.NightlyID(""), name.Nightly)
	if err != nil {
		return nil, fmt.Errorf("reading the nights of workflow_runs: %w", err)
	}
	defer rows.Close()
	var out []NightRan
	for rows.Next() {
		var r NightRan
		if err := rows.Scan(&r.Night, &r.Outcome); err != nil {
			return nil, fmt.Errorf("reading the nights of workflow_runs: %w", err)
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the nights of workflow_runs: %w", err)
	}
	return out, nil
}

// MissingNights are those of want, which ascend, that never ran, or began and whose end nobody noted. Nights before the platform's first one are not missing. A night that
// failed is not missing: it waits for somebody to mend the cause.
func MissingNights(want []string, ran []NightRan) []string {
	var out []string
	for _, night := range want {
		known := false
		first := true // no night of the same kind is earlier
		for _, r := range ran {
			if len(r.Night) != len(night) { // days and times of short nights are not compared
				continue
			}
			first = first && r.Night >= night
			known = known || r.Night == night && r.Outcome != name.Running
		}
		begun := slices.ContainsFunc(ran, func(r NightRan) bool { return r.Night == night })
		if !known && (!first || begun) {
			out = append(out, night)
		}
	}
	return out
}

// NightDoneInput asks which workflows have done a logical run.
type NightDoneInput struct {
	Run string   `json:"run,omitempty"` // absent: any
	IDs []string `json:"ids"`
}

// NightDoneOutput lists them.
type NightDoneOutput struct {
	Done []string `json:"done,omitempty"`
}

// Done tells which of some workflows have done a logical run to its end.
func (n *Nightly) Done(ctx context.Context, in NightDoneInput) (NightDoneOutput, error) {
	var out NightDoneOutput
	rows, err := n.conn.Query(ctx, `SELECT id FROM workflow_runs WHERE (? = '' OR run = ?) AND has(?, id) GROUP BY id HAVING argMax(outcome, version) = ? ORDER BY id`, in.Run, in.Run, in.IDs, name.Done)
	if err != nil {
		return out, failure(ctx, fmt.Errorf("reading workflow_runs: %w", err), "", true)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return out, failure(ctx, fmt.Errorf("reading workflow_runs: %w", err), "", true)
		}
		out.Done = append(out.Done, id)
	}
	if err := rows.Err(); err != nil {
		return out, failure(ctx, fmt.Errorf("reading workflow_runs: %w", err), "", true)
	}
	return out, nil
}
