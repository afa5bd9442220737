package name

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// MaintainTableInput is the input of MaintainTable, and of the ticks that schedules start. What is absent is as the table's policy says.
type MaintainTableInput struct {
	Table string `json:"table"` // such as "events_page"

	Steps []string `json:"steps,omitempty"` // of compact, manifests, expire, orphans, which are done in this order; absent: all
	// TargetFileBytes is the size that rewritten files have about.
	TargetFileBytes int64 `json:"target_file_bytes,omitempty"`
	// MinInputFiles is how many small files of a partition are worth a rewrite.
	MinInputFiles int `json:"min_input_files,omitempty"`
	// Order is the order of rows that are rewritten: sort, zorder or none; absent: as the policy says.
	Order string `json:"order,omitempty"`
	// Columns are what Order sorts by: columns, day(column) or hour(column) of sort, columns of zorder. Absent with sort: as the policy says.
	Columns []string `json:"columns,omitempty"`
	// RewriteAll rewrites every file, also those that need nothing.
	RewriteAll bool `json:"rewrite_all,omitempty"`
	// SnapshotAge is the age from which snapshots are removed, KeepSnapshots how many stay however old they are.
	SnapshotAge   Duration `json:"snapshot_age,omitempty"`
	KeepSnapshots int      `json:"keep_snapshots,omitempty"`
	// OrphanAge is the age from which files that no snapshot names are removed, at least 24 h.
	OrphanAge Duration `json:"orphan_age,omitempty"`
	// DryRun says what would be removed as orphans, and removes none.
	DryRun bool `json:"dry_run,omitempty"`
	// Run names the logical run, such as the time of a schedule. The same input with the same run, started again, skips the steps that are done. Absent: a run of its own.
	Run string `json:"run,omitempty"`
}

var (
	tableForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,127}$`)
	orderForm = regexp.MustCompile(`^([a-z][a-z0-9_]*|(day|hour)\([a-z][a-z0-9_]*\))$`)
	plainForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	runForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:._-]{0,63}$`)
)

// Orders of rows.
const (
	OrderSort = "sort"   // by one column after the other
	OrderZ    = "zorder" // by several at once, in Morton order
	OrderNone = "none"   // as they come
)

const (
	maxColumns  = 8 // of a sort order
	maxZColumns = 5

	minOrphanAge   = 24 * time.Hour
	minTargetBytes = 1 << 20
	maxTargetBytes = 4 << 30
)

// Validate implements Input.
func (in MaintainTableInput) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	switch in.Table {
	case "":
		bad(true, `table: is missing; an example is {"table": "events_page"}`)
	default:
		bad(!tableForm.MatchString(in.Table), "table: %.130q is no table name: lower-case letters, digits and _, beginning with a letter", in.Table)
	}
	seen := map[string]bool{}
	for i, s := range in.Steps {
		bad(!slices.Contains(MaintainSteps(), s), "steps[%d]: %.60q is not one of %s", i, s, strings.Join(MaintainSteps(), ", "))
		bad(seen[s], "steps[%d]: %.60q is there twice", i, s)
		seen[s] = true
	}
	bad(in.TargetFileBytes != 0 && (in.TargetFileBytes < minTargetBytes || in.TargetFileBytes > maxTargetBytes), "target_file_bytes: %d is not between %d and %d", in.TargetFileBytes, minTargetBytes, maxTargetBytes)
	bad(in.MinInputFiles != 0 && (in.MinInputFiles < 2 || in.MinInputFiles > 10_000), "min_input_files: %d is not between 2 and 10000", in.MinInputFiles)
	in.validateOrder(bad)
	bad(in.KeepSnapshots < 0 || in.KeepSnapshots > 100_000, "keep_snapshots: %d is not between 1 and 100000", in.KeepSnapshots)
	bad(in.OrphanAge != 0 && time.Duration(in.OrphanAge) < minOrphanAge, "orphan_age: %s is below 1d: a younger file may belong to a commit that is on its way", in.OrphanAge)
	bad(in.Run != "" && !runForm.MatchString(in.Run), "run: %.70q has other characters than letters, digits, : . _ -, or more than 64 of them", in.Run)
	return errors.Join(errs...)
}

func (in MaintainTableInput) validateOrder(bad func(wrong bool, format string, a ...any)) {
	form, most := orderForm, maxColumns
	switch in.Order {
	case "":
		bad(len(in.Columns) > 0, `columns: order is missing; "sort" or "zorder"`)
	case OrderSort:
	case OrderZ:
		form, most = plainForm, maxZColumns
		bad(len(in.Columns) < 2, "columns: a z-order has at least 2")
	case OrderNone:
		bad(len(in.Columns) > 0, `columns: order is "none", so there are none`)
	default:
		bad(true, "order: %.60q is not one of %s, %s, %s", in.Order, OrderSort, OrderZ, OrderNone)
	}
	bad(len(in.Columns) > most, "columns: %d are more than %d", len(in.Columns), most)
	for i, c := range in.Columns {
		bad(!form.MatchString(c), "columns[%d]: %.60q is no column, such as occurred_at, nor (of sort only) day(occurred_at) or hour(occurred_at)", i, c)
		bad(slices.Contains(in.Columns[:i], c), "columns[%d]: %.60q is there twice", i, c)
	}
	bad((in.RewriteAll || in.Order != "") && !in.Wants(StepCompact), "steps: rewrite_all, order and columns are of compact, which is not one of them")
}

// Wants says whether the input asks for a step.
func (in MaintainTableInput) Wants(step string) bool {
	return len(in.Steps) == 0 || slices.Contains(in.Steps, step)
}

// MaintainProgress is what the query "progress" of MaintainTable answers.
type MaintainProgress struct {
	Table      string       `json:"table"`
	Run        string       `json:"run"`
	Phase      string       `json:"phase"` // a step, "starting", or an outcome
	Paused     bool         `json:"paused"`
	Round      int          `json:"round"` // plans made, this one included
	GroupsDone int          `json:"groups_done"`
	Groups     int          `json:"groups_total"`
	BytesDone  int64        `json:"bytes_done"`
	Bytes      int64        `json:"bytes_total"`
	RowsDone   int64        `json:"rows_done"`
	Rows       int64        `json:"rows_total"`
	Steps      []StepResult `json:"steps"`
	StartedAt  time.Time    `json:"started_at"`
}

// Finished says whether nothing more is to come.
func (p MaintainProgress) Finished() bool {
	return p.Phase == Done || p.Phase == Failed || p.Phase == Canceled
}

// StepResult is what one step did.
type StepResult struct {
	Step    string           `json:"step"`
	Outcome string           `json:"outcome"`
	Numbers map[string]int64 `json:"numbers,omitempty"`
	Reason  string           `json:"reason,omitempty"` // of a failure: its type
}

// MaintainResult is what MaintainTable gives.
type MaintainResult struct {
	Table   string       `json:"table"`
	Run     string       `json:"run"`
	Outcome string       `json:"outcome"`
	Rounds  int          `json:"rounds"`
	Bytes   int64        `json:"bytes_rewritten"`
	Rows    int64        `json:"rows_rewritten"`
	Steps   []StepResult `json:"steps"`
}

func maintainTypes() []Type {
	return []Type{
		{
			Name:    MaintainTable,
			Doc:     "compact a table, rewrite its manifests, expire its snapshots, remove its orphans",
			Example: `{"table": "events_page"}`,
			Target: func(text []byte) (Target, error) {
				in, err := Decode[MaintainTableInput](text)
				return Target{MaintainID(in.Table), in.Table, in}, err
			},
		},
		{
			Name:    MaintainTableTick,
			Doc:     "start MaintainTable, or join the one that runs, and wait for its end; what schedules start",
			Example: `{"table": "events_page", "steps": ["compact", "expire"]}`,
			Target: func(text []byte) (Target, error) {
				in, err := Decode[MaintainTableInput](text)
				return Target{TickID(MaintainID(in.Table)), in.Table, in}, err
			},
		},
	}
}
