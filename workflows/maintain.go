package workflows

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"millrace/activities"
	"millrace/workflows/name"
)

// maintainState is what a run takes along when it continues as new.
type maintainState struct {
	Run      activities.Run         `json:"run"`
	Progress name.MaintainProgress  `json:"progress"`
	Skip     []name.StepResult      `json:"skip,omitempty"` // steps that were done before, under the same run and input
	Plan     *activities.PlanOutput `json:"plan,omitempty"` // under way
	Next     int                    `json:"next"`           // the plan's groups below it are done
	Conflict int                    `json:"conflict"`       // plans that met a conflict
	Compact  map[string]int64       `json:"compact,omitempty"`
	Step     time.Time              `json:"step"` // when the step began
}

// maintain is one run of MaintainTable.
type maintain struct {
	in name.MaintainTableInput
	maintainState
	inFlight  int
	groups    int // done in this execution
	continues bool
}

// errContinue ends an execution whose history is long: the run goes on in a new one.
var errContinue = errors.New("continue as new")

// maintainTable keeps one table small: it rewrites small files into larger ones, merges manifests, removes old snapshots and files that nothing names. The rows of the
// table stay the same. It is safe beside the stream's committer, beside other engines, and when it ends anywhere: what a later run finds undone, it does.
func maintainTable(ctx workflow.Context, raw converter.RawValue, carried *maintainState) (name.MaintainResult, error) {
	in, err := inputOf[name.MaintainTableInput](raw)
	if err != nil {
		return name.MaintainResult{}, err
	}
	m := &maintain{in: in}
	if carried != nil {
		m.maintainState = *carried
	} else {
		m.first(ctx)
	}
	if err := m.handle(ctx); err != nil {
		return name.MaintainResult{}, err
	}
	if carried == nil {
		if err := m.begin(ctx); err != nil {
			return name.MaintainResult{}, err
		}
	}
	err = m.steps(ctx)
	if m.continues {
		if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
			return name.MaintainResult{}, err
		}
		return name.MaintainResult{}, workflow.NewContinueAsNewError(ctx, name.MaintainTable, in, &m.maintainState)
	}
	return m.end(ctx, err)
}

// first sets what a run knows of itself from the beginning.
func (m *maintain) first(ctx workflow.Context) {
	info := workflow.GetInfo(ctx)
	attrs := workflow.GetTypedSearchAttributes(ctx)
	trigger, ok := attrs.GetKeyword(name.AttrTrigger)
	if !ok {
		trigger = name.Manual
	}
	day, ok := attrs.GetKeyword(name.AttrDay)
	if !ok {
		day = logicalTime(ctx).Format(time.DateOnly)
	}
	run := m.in.Run
	if run == "" {
		run = info.FirstRunID
	}
	start := info.WorkflowStartTime.UTC()
	m.Run = activities.Run{
		ID: name.MaintainID(m.in.Table), Run: run, Type: name.MaintainTable, Input: name.Text(m.in), Day: day, Table: m.in.Table, Trigger: trigger,
		Workflow: info.FirstRunID, StartedAt: start,
	}
	m.Progress = name.MaintainProgress{Table: m.in.Table, Run: run, Phase: "starting", Steps: []name.StepResult{}, StartedAt: start}
}

// begin notes the run. A run that cannot be noted has changed nothing.
func (m *maintain) begin(ctx workflow.Context) error {
	err := workflow.UpsertTypedSearchAttributes(ctx, name.AttrTable.ValueSet(m.in.Table), name.AttrTrigger.ValueSet(m.Run.Trigger), name.AttrDay.ValueSet(m.Run.Day), name.AttrPhase.ValueSet(m.Progress.Phase))
	if err != nil {
		return fmt.Errorf("setting search attributes: %w", err)
	}
	var out activities.BeginOutput
	if err := workflow.ExecuteActivity(record(ctx, "note the beginning in workflow_runs"), name.BeginRun, m.Run).Get(ctx, &out); err != nil {
		return err
	}
	m.Run.Snapshot, m.Skip = out.Snapshot, out.Done
	return nil
}

// steps does those that the input asks for, in order, up to the first that fails.
func (m *maintain) steps(ctx workflow.Context) error {
	for _, step := range name.MaintainSteps()[len(m.past()):] {
		if !m.in.Wants(step) {
			continue
		}
		if s, ok := m.skipped(step); ok {
			m.Progress.Steps = append(m.Progress.Steps, s)
			continue
		}
		if m.Progress.Phase != step {
			m.Step = workflow.Now(ctx)
			if err := m.phase(ctx, step); err != nil {
				return err
			}
		}
		if err := m.unpaused(ctx); err != nil {
			return err
		}
		result := name.StepResult{Step: step, Outcome: name.Done}
		var err error
		result.Numbers, err = m.step(ctx, step)
		if errors.Is(err, errContinue) {
			m.continues = true
			return nil
		}
		if err != nil {
			result.Outcome, result.Reason = outcome(err)
		}
		m.Progress.Steps = append(m.Progress.Steps, result)
		if noteErr := m.noteStep(ctx, result); err == nil {
			err = noteErr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// past are the steps before the one that is under way.
func (m *maintain) past() []string {
	for i, s := range name.MaintainSteps() {
		if s == m.Progress.Phase {
			return name.MaintainSteps()[:i]
		}
	}
	return nil
}

func (m *maintain) skipped(step string) (name.StepResult, bool) {
	for _, s := range m.Skip {
		if s.Step == step {
			return s, true
		}
	}
	return name.StepResult{}, false
}

func (m *maintain) step(ctx workflow.Context, step string) (map[string]int64, error) {
	if step == name.StepCompact {
		return m.compact(ctx)
	}
	activity := map[string]string{name.StepManifests: name.RewriteManifests, name.StepExpire: name.ExpireSnapshots, name.StepOrphans: name.RemoveOrphans}[step]
	var out activities.StepOutput
	err := workflow.ExecuteActivity(metadata(ctx, step+" of "+m.in.Table), activity, m.in).Get(ctx, &out)
	return out.Numbers, err
}

func (m *maintain) noteStep(ctx workflow.Context, r name.StepResult) error {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	return workflow.ExecuteActivity(record(ctx, "note "+r.Step+" in maintenance_runs"), name.NoteStep, activities.StepNote{Run: m.Run, Result: r, StartedAt: m.Step}).Get(ctx, nil)
}

// end notes the outcome, also of a run that was cancelled, and gives the result.
func (m *maintain) end(ctx workflow.Context, failed error) (name.MaintainResult, error) {
	result, reason, at := name.Done, "", m.Progress.Phase
	if failed != nil {
		result, reason = outcome(failed)
	}
	ctx, cancel := cleanup(ctx)
	defer cancel()
	if err := m.phase(ctx, result); err != nil {
		return name.MaintainResult{}, errors.Join(failed, err)
	}
	numbers := map[string]int64{}
	for _, s := range m.Progress.Steps {
		maps.Copy(numbers, s.Numbers)
	}
	p := m.Progress
	numbers["plans"], numbers["groups"], numbers["bytes"], numbers["rows"] = int64(p.Round), int64(p.GroupsDone), p.BytesDone, p.RowsDone
	err := workflow.UpsertTypedSearchAttributes(ctx, name.AttrOutcome.ValueSet(result), name.AttrRows.ValueSet(p.RowsDone), name.AttrBytes.ValueSet(p.BytesDone))
	if err != nil {
		return name.MaintainResult{}, errors.Join(failed, fmt.Errorf("setting search attributes: %w", err))
	}
	noted := workflow.ExecuteActivity(record(ctx, "note the end in workflow_runs"), name.EndRun, activities.RunEnd{Run: m.Run, Outcome: result, Reason: reason, Numbers: numbers}).Get(ctx, nil)
	switch {
	case failed == nil:
		failed = noted
	case result == name.Failed:
		failed = temporal.NewNonRetryableApplicationError(at+" did not succeed", reason, failed)
	}
	return name.MaintainResult{Table: p.Table, Run: p.Run, Outcome: result, Rounds: p.Round, Bytes: p.BytesDone, Rows: p.RowsDone, Steps: p.Steps}, failed
}

// outcome names how a failure is noted: its type only, since a text could hold anything.
func outcome(err error) (result, reason string) {
	var app *temporal.ApplicationError
	var timeout *temporal.TimeoutError
	switch {
	case temporal.IsCanceledError(err):
		return name.Canceled, ""
	case errors.As(err, &app):
		return name.Failed, app.Type()
	case errors.As(err, &timeout):
		return name.Failed, "Timeout" + timeout.TimeoutType().String()
	}
	return name.Failed, "Other"
}
