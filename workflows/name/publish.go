package name

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Activities of PublishTable.
const (
	PublishPin   = "publish.pin"   // takes a lease on the snapshot that is to be published
	PublishCheck = "publish.check" // compares it with the control totals, and asks the gates
	PublishMove  = "publish.move"  // moves published, tags the night, notes it in publications
	PublishNote  = "publish.note"  // notes that published stays, and why
)

// Steps of PublishTable.
const (
	PublishStepCheck = "check"
	PublishStepMove  = "publish"
)

// CheckFailed is the failure of a run whose snapshot was refused: the message lists what is wrong and what to do.
const CheckFailed = "CheckFailed"

// Outcomes of a publication, beside Done.
const (
	Published  = "published"   // all checks passed
	Approved   = "approved"    // some did not, and somebody answers for it
	Refused    = "refused"     // published stays
	Unchanged  = "unchanged"   // there is nothing new
	Empty      = "empty"       // the table has no rows yet
	RolledBack = "rolled_back" // together with main
)

// PublishID is the workflow id of the publication of a table.
func PublishID(table string) string { return "publish/" + table }

// PublishTableInput is the input of PublishTable.
type PublishTableInput struct {
	Table string `json:"table"` // such as "events_page"

	// Snapshot is published; absent: the head of main when the run begins.
	Snapshot int64 `json:"snapshot,omitempty"`
	// Full compares the whole table with the control totals, not only what is new.
	Full bool `json:"full,omitempty"`
	// Window is how far before the new rows ids are compared; absent: 1d.
	Window Duration `json:"window,omitempty"`
	// Lag is how old rows may be for which there are no control totals yet; absent: 1h.
	Lag Duration `json:"lag,omitempty"`
	// MaxDuplicates is how many new rows may have the id of another one.
	MaxDuplicates int64 `json:"max_duplicates,omitempty"`
	// WaitForApproval is how long a snapshot with failing checks waits for the update approve; absent: it is refused at once.
	WaitForApproval Duration `json:"wait_for_approval,omitempty"`
	// Approve publishes a snapshot whatever the checks say; they are made and noted.
	Approve *PublishApproval `json:"approve,omitempty"`
	// Day names the night for its tag; absent: that of the run.
	Day string `json:"day,omitempty"`
	// NoTag sets no tag of the night.
	NoTag bool `json:"no_tag,omitempty"`
	// Run names the logical run; absent: a run of its own.
	Run string `json:"run,omitempty"`
}

// PublishApproval is who answers for a snapshot, and why.
type PublishApproval struct {
	Snapshot int64  `json:"snapshot"`
	Reason   string `json:"reason"`
	By       string `json:"by,omitempty"`
}

// Defaults of what an input may leave out.
const (
	defaultWindow = 24 * time.Hour
	defaultLag    = time.Hour
)

// Validate implements Input.
func (in PublishTableInput) Validate() error {
	errs := []error{ValidTable(in.Table), ValidRun(in.Run)}
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	bad(strings.HasSuffix(in.Table, "__quarantine"), "table: %s holds rows that are not to be published", in.Table)
	bad(in.Snapshot < 0, "snapshot: %d is no snapshot id", in.Snapshot)
	bad(time.Duration(in.Window) > 31*24*time.Hour, "window: %s is above 31d", in.Window)
	bad(time.Duration(in.Lag) > 31*24*time.Hour, "lag: %s is above 31d", in.Lag)
	bad(in.MaxDuplicates < 0, "max_duplicates: %d is below 0", in.MaxDuplicates)
	bad(time.Duration(in.WaitForApproval) > 7*24*time.Hour, "wait_for_approval: %s is above 7d", in.WaitForApproval)
	if in.Day != "" {
		_, err := time.Parse(time.DateOnly, in.Day)
		bad(err != nil, "day: %.20q is no day such as 2026-03-01", in.Day)
	}
	if a := in.Approve; a != nil {
		bad(a.Snapshot <= 0, "approve.snapshot: is missing: the snapshot that was refused, see `millrace lake publications TABLE`")
		bad(in.Snapshot != 0 && in.Snapshot != a.Snapshot, "approve.snapshot: %d is not the snapshot to be published, %d", a.Snapshot, in.Snapshot)
		if err := (Approval{Reason: a.Reason, By: a.By}).Validate(); err != nil {
			errs = append(errs, fmt.Errorf("approve.%w", err))
		}
	}
	return errors.Join(errs...)
}

// IDWindow is how far before the new rows ids are compared.
func (in PublishTableInput) IDWindow() time.Duration {
	if in.Window > 0 {
		return time.Duration(in.Window)
	}
	return defaultWindow
}

// TotalsLag is how old rows without control totals may be.
func (in PublishTableInput) TotalsLag() time.Duration {
	if in.Lag > 0 {
		return time.Duration(in.Lag)
	}
	return defaultLag
}

// PublishResult is what PublishTable gives.
type PublishResult struct {
	Table    string           `json:"table"`
	Run      string           `json:"run"`
	Outcome  string           `json:"outcome"`
	From     int64            `json:"from_snapshot"`
	To       int64            `json:"to_snapshot"`
	Tag      string           `json:"tag,omitempty"`
	Numbers  map[string]int64 `json:"numbers,omitempty"`
	Problems []string         `json:"problems,omitempty"`
}

func publishTypes() []Type {
	t := Type{
		Name:    PublishTable,
		Doc:     "check what is new in a table and move its ref published there",
		Example: `{"table": "events_purchase", "wait_for_approval": "1h"}`,
		Target: func(text []byte) (Target, error) {
			in, err := Decode[PublishTableInput](text)
			return Target{PublishID(in.Table), in.Table, in}, err
		},
	}
	return []Type{t, TickOf(t)}
}
