package name

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Approve is an update of the workflows that wait for a decision of a person. Its input is an Approval.
const Approve = "approve"

// RunProgress is what the query "progress" of every workflow but MaintainTable answers.
type RunProgress struct {
	Type      string       `json:"type"`
	ID        string       `json:"id"`
	Run       string       `json:"run"`
	Phase     string       `json:"phase"` // a step, "starting", or an outcome
	Paused    bool         `json:"paused"`
	Waiting   string       `json:"waiting,omitempty"` // for which decision it waits
	Done      int64        `json:"done"`              // parts of the step that is under way
	Total     int64        `json:"total"`
	Steps     []StepResult `json:"steps"`
	StartedAt time.Time    `json:"started_at"`
}

// Finished says whether nothing more is to come.
func (p RunProgress) Finished() bool {
	return p.Phase == Done || p.Phase == Failed || p.Phase == Canceled
}

// Approval is the input of the update "approve".
type Approval struct {
	Reason string `json:"reason"`       // kept with the run
	By     string `json:"by,omitempty"` // who decided, as a role: "on call"
}

const (
	maxReason = 200
	maxBy     = 64
)

// Validate implements Input.
func (a Approval) Validate() error {
	switch text := strings.TrimSpace(a.Reason); {
	case text == "":
		return errors.New(`reason: is missing; an example is {"reason": "known gap, ticket 123"}`)
	case len(a.Reason) > maxReason:
		return fmt.Errorf("reason: has %d bytes, at most %d are taken", len(a.Reason), maxReason)
	case len(a.By) > maxBy:
		return fmt.Errorf("by: has %d bytes, at most %d are taken", len(a.By), maxBy)
	}
	return nil
}

// ValidRun says what is wrong with the name of a logical run; absent is right.
func ValidRun(run string) error {
	if run != "" && !runForm.MatchString(run) {
		return fmt.Errorf("run: %.70q has other characters than letters, digits, : . _ -, or more than 64 of them", run)
	}
	return nil
}

// ValidTable says what is wrong with the name of a table, which must be there.
func ValidTable(table string) error {
	switch {
	case table == "":
		return errors.New(`table: is missing; an example is {"table": "events_page"}`)
	case !tableForm.MatchString(table):
		return fmt.Errorf("table: %.130q is no table name: lower-case letters, digits and _, beginning with a letter", table)
	}
	return nil
}

// RunAt names the logical run of a time.
func RunAt(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05Z") }

// TickOf is the tick of a type: what a schedule starts, with the type's input, to start the type under its canonical id.
func TickOf(t Type) Type {
	return Type{
		Name: t.Name + TickSuffix, Doc: "start " + t.Name + ", or join the one that runs, and wait for its end; what schedules start", Example: t.Example,
		Target: func(text []byte) (Target, error) {
			full, err := TickInput(t, text, time.Now())
			if err != nil {
				return Target{}, err
			}
			target, err := t.Target(full)
			if err != nil {
				return Target{}, err
			}
			if len(strings.TrimSpace(string(text))) == 0 {
				text = []byte("{}")
			}
			return Target{ID: TickID(target.ID), Table: target.Table, Input: json.RawMessage(text)}, nil
		},
	}
}

// TickInput is the input with which a tick of a logical time starts its workflow.
func TickInput(t Type, text []byte, at time.Time) ([]byte, error) {
	fill := t.Tick
	if fill == nil {
		fill = func(fields map[string]any, at time.Time) {
			if fields["run"] == nil {
				fields["run"] = RunAt(at)
			}
		}
	}
	fields := map[string]any{}
	if len(strings.TrimSpace(string(text))) > 0 {
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.UseNumber()
		if err := d.Decode(&fields); err != nil {
			return nil, fmt.Errorf("the input is no JSON object: %w", err)
		}
		if d.More() {
			return nil, errors.New("the input is one JSON object; something stands behind it")
		}
	}
	if fields == nil { // the text null
		fields = map[string]any{}
	}
	fill(fields, at.UTC())
	return json.Marshal(fields) // the keys in order: the same in every replay
}
