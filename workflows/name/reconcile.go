package name

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Activities of Reconcile and RecomputeKPIs.
const (
	ReconcileCompare = "reconcile.compare" // compares stores with the control totals of an hour
	ReconcileRepair  = "reconcile.repair"  // mends what differs, and compares again
	RecomputeDay     = "kpi.recompute"     // writes what late and replayed events add to the KPIs of a day
)

// Steps of Reconcile.
const (
	StepCompare = "compare"
	StepRepair  = "repair"
)

// StepRecompute is the step of RecomputeKPIs.
const StepRecompute = "recompute"

// HourForm is how an hour is written in the id of a Reconcile.
const HourForm = "2006-01-02T15"

// ReconcileDelay is how long after its end an hour is reconciled by schedule: control totals are closed within a minute or two, and sinks are behind by seconds.
const ReconcileDelay = 5 * time.Minute

// ReconcileID is the workflow id of Reconcile of a topic and an hour.
func ReconcileID(topic string, hour time.Time) string {
	return "reconcile/" + topic + "/" + hour.UTC().Format(HourForm)
}

// ReconcileInput is the input of Reconcile.
type ReconcileInput struct {
	// Topic is what the stores are fed from, such as "events.page"; "raw.page" means the same.
	Topic string `json:"topic"`
	// Hour is the hour in which the platform took the events, UTC: "2026-10-22T14", also as a time.
	Hour string `json:"hour"`
	// Repair mends what differs. Absent or false: it is only named.
	Repair bool `json:"repair,omitempty"`
	// Stores are compared and no others; absent: all that there are.
	Stores []string `json:"stores,omitempty"`
	// Run names the logical run. The same input with the same run, started again, skips the steps that are done. Absent: a run of its own.
	Run string `json:"run,omitempty"`
}

var (
	topicForm = regexp.MustCompile(`^(events|raw)\.[a-z]{1,32}$`)
	storeForm = regexp.MustCompile(`^[a-z]{1,32}$`)
)

// At is the beginning of the hour, zero if the input names none.
func (in ReconcileInput) At() time.Time {
	for _, form := range []string{HourForm, HourForm + "Z", "2006-01-02T15:04", "2006-01-02T15:04Z", time.RFC3339} {
		if t, err := time.Parse(form, in.Hour); err == nil {
			return t.UTC().Truncate(time.Hour)
		}
	}
	return time.Time{}
}

// Events is the topic that the stores are fed from.
func (in ReconcileInput) Events() string {
	return "events." + strings.TrimPrefix(strings.TrimPrefix(in.Topic, "raw."), "events.")
}

// Table is the table of the topic.
func (in ReconcileInput) Table() string {
	if c := strings.TrimPrefix(in.Events(), "events."); c != "failed" {
		return "events_" + c
	}
	return "failed_events"
}

// Validate implements Input.
func (in ReconcileInput) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	const example = `{"topic": "events.page", "hour": "2026-10-22T14"}`
	switch in.Topic {
	case "":
		bad(true, "topic: is missing; an example is %s", example)
	default:
		bad(!topicForm.MatchString(in.Topic), "topic: %.60q is no topic of events such as events.page or events.failed", in.Topic)
	}
	switch in.Hour {
	case "":
		bad(true, "hour: is missing; an example is %s", example)
	default:
		bad(in.At().IsZero(), "hour: %.60q is no hour such as 2026-10-22T14", in.Hour)
	}
	for i, s := range in.Stores {
		bad(!storeForm.MatchString(s), "stores[%d]: %.60q is no name of a store such as clickhouse or iceberg", i, s)
		bad(slices.Index(in.Stores, s) < i, "stores[%d]: %.60q is there twice", i, s)
	}
	if err := ValidRun(in.Run); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ReconcileResult is what Reconcile gives.
type ReconcileResult struct {
	Topic   string           `json:"topic"`
	Hour    string           `json:"hour"`
	Run     string           `json:"run"`
	Outcome string           `json:"outcome"` // equal, repaired, or differs
	Stores  []StoreResult    `json:"stores"`
	Numbers map[string]int64 `json:"numbers,omitempty"`
}

// Outcomes of a reconciliation.
const (
	Equal    = "equal"    // the store is as the control totals say, or what it lacks is explained
	Mended   = "repaired" // it is now
	Differs  = "differs"  // something is left to be mended
	Unjudged = "open"     // nothing of the hour can be judged yet: its control totals are not closed, or the store has not come so far
)

// StoreResult is what was found of one store. Differences are numbers of rows by kind.
type StoreResult struct {
	Store       string           `json:"store"`
	Outcome     string           `json:"outcome"`
	Expected    int64            `json:"expected"` // rows, by the control totals
	Found       int64            `json:"found"`    // rows within closed ranges
	Ranges      int64            `json:"ranges"`
	Differences map[string]int64 `json:"differences,omitempty"`
	Repaired    int64            `json:"repaired,omitempty"`
}

// Kinds of differences. The first four can be mended.
const (
	KindMissing     = "missing"     // a row that the control totals count is not there
	KindDuplicate   = "duplicate"   // a row is there more than once
	KindSurplus     = "surplus"     // a row of a closed range was never written by the stream
	KindChanged     = "changed"     // a row has another hash than the stream gave it
	KindUnexplained = "unexplained" // numbers differ, and no source knows the rows any more
	KindUncounted   = "uncounted"   // rows between two ranges: a control total is missing, not a row
	KindRepeated    = "repeated"    // the same event under two raw offsets: it came again after the dedup window, or under another key
	KindOrderCopy   = "order_copy"  // an order that is the first of its order id twice: its copy came under another key
	KindLate        = "late"        // the store has not come so far
	KindErased      = "erased"      // the row was of an erased subject
	KindRefused     = "refused"     // the store could not hold the row: it is a failed event
)

// MendableKinds can be mended.
func MendableKinds() []string { return []string{KindMissing, KindDuplicate, KindSurplus, KindChanged} }

// OpenKinds count as differences; the others are explained.
func OpenKinds() []string { return append(MendableKinds(), KindUnexplained, KindUncounted) }

// States of a difference.
const (
	StateOpen     = "open"
	StateRepaired = "repaired"
	StateGone     = "gone"     // it was not there any more when it was looked for again
	StateNoted    = "noted"    // it is explained, or for a person to decide
	StateNoSource = "nosource" // it is open, and no source has the rows any more
)

// RecomputeKPIsID is the workflow id of RecomputeKPIs of a day.
func RecomputeKPIsID(day string) string { return "kpi/" + day }

// RecomputeKPIsInput is the input of RecomputeKPIs.
type RecomputeKPIsInput struct {
	// Day is the day of the events, as each tenant's time zone has it: "2026-10-22".
	Day string `json:"day"`
	// Tenants are recomputed and no others; absent: all that have late or replayed events on that day.
	Tenants []string `json:"tenants,omitempty"`
	// Run names the logical run; absent: a run of its own.
	Run string `json:"run,omitempty"`
}

const maxTenants = 1000

// Validate implements Input.
func (in RecomputeKPIsInput) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	switch at, err := time.Parse(time.DateOnly, in.Day); {
	case in.Day == "":
		bad(true, `day: is missing; an example is {"day": "2026-10-22"}`)
	case err != nil:
		bad(true, "day: %.60q is no day such as 2026-10-22", in.Day)
	default:
		bad(at.Year() < 1989 || at.Year() > 2299, "day: %s has no events: they are of 1990 or later", in.Day)
	}
	bad(len(in.Tenants) > maxTenants, "tenants: %d are more than %d", len(in.Tenants), maxTenants)
	for i, t := range in.Tenants {
		bad(t == "" || len(t) > 128, "tenants[%d]: %.60q is no tenant", i, t)
		bad(slices.Index(in.Tenants, t) < i, "tenants[%d]: %.60q is there twice", i, t)
	}
	if err := ValidRun(in.Run); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// RecomputeKPIsResult is what RecomputeKPIs gives.
type RecomputeKPIsResult struct {
	Day     string           `json:"day"`
	Run     string           `json:"run"`
	Outcome string           `json:"outcome"`
	Numbers map[string]int64 `json:"numbers,omitempty"`
}

func reconcileTypes() []Type {
	reconcile := Type{
		Name:    Reconcile,
		Doc:     "compare the stores with the control totals of an hour, name what differs and mend it",
		Example: `{"topic": "events.page", "hour": "2026-10-22T14", "repair": true}`,
		Target: func(text []byte) (Target, error) {
			in, err := Decode[ReconcileInput](text)
			return Target{ID: ReconcileID(in.Events(), in.At()), Table: in.Table(), Input: in}, err
		},
		Tick: func(fields map[string]any, at time.Time) {
			if fields["hour"] == nil { // the last one that is over
				fields["hour"] = at.Add(-ReconcileDelay).Truncate(time.Hour).Add(-time.Hour).Format(HourForm)
			}
			if fields["run"] == nil {
				fields["run"] = RunAt(at)
			}
		},
	}
	recompute := Type{
		Name:    RecomputeKPIs,
		Doc:     "take late and replayed events of a day up into its KPIs",
		Example: `{"day": "2026-10-22"}`,
		Target: func(text []byte) (Target, error) {
			in, err := Decode[RecomputeKPIsInput](text)
			return Target{ID: RecomputeKPIsID(in.Day), Input: in}, err
		},
		Tick: func(fields map[string]any, at time.Time) {
			if fields["day"] == nil { // the day that is over
				fields["day"] = at.Add(-day).Format(time.DateOnly)
			}
			if fields["run"] == nil {
				fields["run"] = RunAt(at)
			}
		},
	}
	return []Type{reconcile, TickOf(reconcile), recompute, TickOf(recompute)}
}
