package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"millrace/activities"
	"millrace/workflows/name"
)

// opening is what a frame is told of a run.
type opening struct {
	Table string // the run is about: it must exist; its snapshot is noted
	Day   string // logical day, 2006-01-02; "": that of the logical time
	Run   string // logical run; "": a run of its own, of which nothing is done yet
	// Same is the text that the input is known by: under the same run and the same text, steps that are done are skipped. "": the input.
	Same string
	// Redo does steps again that are done.
	Redo    bool
	Approve bool // takes the update "approve"
	Attrs   []temporal.SearchAttributeUpdate
}

// frame is a run of a workflow: its progress, its notes in workflow_runs and workflow_steps, its updates. A workflow opens one first, does its work in steps and closes it
// last:
//
//	f, err := open(ctx, typ, id, in, opening{…})
//	if err != nil { return result, err }
//	err = f.step(ctx, "read", func(ctx workflow.Context) (map[string]int64, error) { … })
//	return result, f.close(ctx, err)
//
// A workflow may continue as new between two steps, without closing: its next execution opens the same run again and skips what is done.
type frame struct {
	Run      activities.Run
	Progress name.RunProgress
	Numbers  map[string]int64  // of the whole run, beside the sums over its steps
	Outcome  string            // of a run that ends without a failure; "": done
	before   []name.StepResult // steps that the same run has done
	redo     bool
	said     bool // the failure of the run says all by itself
	approval *name.Approval
}

// open begins a run: it notes it, answers "progress" and takes updates. A run that cannot be noted has changed nothing.
func open(ctx workflow.Context, typ, id string, in name.Input, o opening) (*frame, error) {
	info := workflow.GetInfo(ctx)
	trigger, ok := workflow.GetTypedSearchAttributes(ctx).GetKeyword(name.AttrTrigger)
	if !ok {
		trigger = name.Manual
	}
	if o.Day == "" {
		if o.Day, ok = workflow.GetTypedSearchAttributes(ctx).GetKeyword(name.AttrDay); !ok {
			o.Day = logicalTime(ctx).Format(time.DateOnly)
		}
	}
	if o.Run == "" {
		o.Run = info.FirstRunID
	}
	if o.Same == "" {
		o.Same = name.Text(in)
	}
	start := info.WorkflowStartTime.UTC()
	f := &frame{
		Run: activities.Run{
			ID: id, Run: o.Run, Type: typ, Input: o.Same, Day: o.Day, Table: o.Table, Trigger: trigger, Workflow: info.FirstRunID, StartedAt: start,
		},
		Progress: name.RunProgress{Type: typ, ID: id, Run: o.Run, Phase: starting, Steps: []name.StepResult{}, StartedAt: start},
		Numbers:  map[string]int64{},
	}
	if err := f.handle(ctx, o.Approve); err != nil {
		return nil, err
	}
	attrs := append([]temporal.SearchAttributeUpdate{name.AttrTrigger.ValueSet(trigger), name.AttrDay.ValueSet(o.Day), name.AttrPhase.ValueSet(starting)}, o.Attrs...)
	if o.Table != "" {
		attrs = append(attrs, name.AttrTable.ValueSet(o.Table))
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, attrs...); err != nil {
		return nil, fmt.Errorf("setting search attributes: %w", err)
	}
	var out activities.BeginOutput
	if err := workflow.ExecuteActivity(record(ctx, "note the beginning in workflow_runs"), name.BeginRun, f.Run).Get(ctx, &out); err != nil {
		return nil, err
	}
	f.Run.Snapshot, f.before, f.redo = out.Snapshot, out.Done, o.Redo
	f.details(ctx)
	return f, nil
}

const starting = "starting"

// step does one step of the run and notes it. It waits while the run is paused; what the same run has done before is skipped, its numbers are those of then. Steps follow
// each other; parts of a step may run side by side.
func (f *frame) step(ctx workflow.Context, step string, work func(ctx workflow.Context) (map[string]int64, error)) error {
	if s, ok := stepNamed(f.before, step); ok && !f.redo {
		f.add(ctx, s)
		return nil
	}
	if err := f.unpaused(ctx); err != nil {
		return err
	}
	began := workflow.Now(ctx)
	f.Progress.Done, f.Progress.Total = 0, 0
	if err := f.phase(ctx, step); err != nil {
		return err
	}
	result := name.StepResult{Step: step, Outcome: name.Done}
	var err error
	result.Numbers, err = work(ctx)
	if workflow.IsContinueAsNewError(err) {
		return err // the step is not over
	}
	if err != nil {
		result.Outcome, result.Reason = outcome(err)
	}
	if noted := f.note(ctx, result, began); err == nil {
		err = noted
	}
	return err
}

// leave notes a step that is not done, and why.
func (f *frame) leave(ctx workflow.Context, step, why string) error {
	return f.note(ctx, name.StepResult{Step: step, Outcome: name.Skipped, Reason: why}, workflow.Now(ctx))
}

func (f *frame) note(ctx workflow.Context, r name.StepResult, began time.Time) error {
	f.add(ctx, r)
	ctx, cancel := cleanup(ctx)
	defer cancel()
	return workflow.ExecuteActivity(record(ctx, "note "+r.Step+" in workflow_steps"), name.NoteStep, activities.StepNote{Run: f.Run, Result: r, StartedAt: began}).Get(ctx, nil)
}

func (f *frame) add(ctx workflow.Context, r name.StepResult) {
	f.Progress.Steps = append(f.Progress.Steps, r)
	f.details(ctx)
}

// did gives the numbers of a step that is done, in this run or before.
func (f *frame) did(step string) (map[string]int64, bool) {
	for _, list := range [][]name.StepResult{f.Progress.Steps, f.before} {
		if s, ok := stepNamed(list, step); ok {
			return s.Numbers, s.Outcome == name.Done || s.Outcome == name.Skipped && s.Reason == ""
		}
	}
	return nil, false
}

func stepNamed(list []name.StepResult, step string) (name.StepResult, bool) {
	i := slices.IndexFunc(list, func(s name.StepResult) bool { return s.Step == step })
	if i < 0 {
		return name.StepResult{}, false
	}
	return list[i], true
}

// count says how many parts of the step that is under way are done.
func (f *frame) count(ctx workflow.Context, done, total int) {
	f.Progress.Done, f.Progress.Total = int64(done), int64(total)
	f.details(ctx)
}

// close notes the outcome, also of a run that was cancelled. A failure becomes one that names the step and, as its type, the cause.
func (f *frame) close(ctx workflow.Context, err error) error {
	if workflow.IsContinueAsNewError(err) {
		if waited := workflow.Await(ctx, func() bool { return !f.Progress.Paused && workflow.AllHandlersFinished(ctx) }); waited != nil {
			return waited
		}
		return err
	}
	result, reason, at := name.Done, "", f.Progress.Phase
	switch {
	case err != nil:
		result, reason = outcome(err)
	case f.Outcome != "":
		result = f.Outcome
	}
	ctx, cancel := cleanup(ctx)
	defer cancel()
	numbers := map[string]int64{}
	for _, s := range f.Progress.Steps {
		for k, n := range s.Numbers {
			numbers[k] += n
		}
	}
	for k, n := range f.Numbers {
		numbers[k] = n
	}
	f.Progress.Waiting = ""
	if attrErr := f.phase(ctx, result); attrErr != nil {
		return errors.Join(err, attrErr)
	}
	attrs := []temporal.SearchAttributeUpdate{name.AttrOutcome.ValueSet(result)}
	if n, ok := numbers["rows"]; ok {
		attrs = append(attrs, name.AttrRows.ValueSet(n))
	}
	if n, ok := numbers["bytes"]; ok {
		attrs = append(attrs, name.AttrBytes.ValueSet(n))
	}
	if attrErr := workflow.UpsertTypedSearchAttributes(ctx, attrs...); attrErr != nil {
		return errors.Join(err, fmt.Errorf("setting search attributes: %w", attrErr))
	}
	noted := workflow.ExecuteActivity(record(ctx, "note the end in workflow_runs"), name.EndRun, activities.RunEnd{Run: f.Run, Outcome: result, Reason: reason, Numbers: numbers}).Get(ctx, nil)
	switch {
	case err == nil:
		return noted
	case result == name.Failed && !f.said:
		return temporal.NewNonRetryableApplicationError(at+" did not succeed", reason, err)
	}
	return err
}

// phase enters a phase: in the progress, in the search attributes, in the UI.
func (f *frame) phase(ctx workflow.Context, phase string) error {
	f.Progress.Phase = phase
	f.details(ctx)
	if err := workflow.UpsertTypedSearchAttributes(ctx, name.AttrPhase.ValueSet(phase)); err != nil {
		return fmt.Errorf("setting search attributes: %w", err)
	}
	return nil
}

// unpaused waits while the run is paused.
func (f *frame) unpaused(ctx workflow.Context) error {
	return workflow.Await(ctx, func() bool { return !f.Progress.Paused })
}

// details is what the UI shows of a run.
func (f *frame) details(ctx workflow.Context) {
	p := f.Progress
	var text strings.Builder
	fmt.Fprintf(&text, "**%s** of `%s`", p.Phase, p.ID)
	if p.Paused {
		text.WriteString(", paused")
	}
	if p.Total > 0 && !p.Finished() {
		fmt.Fprintf(&text, ", %d of %d", p.Done, p.Total)
	}
	if p.Waiting != "" {
		fmt.Fprintf(&text, "\n\nWaits: %s", p.Waiting)
	}
	for _, s := range p.Steps {
		fmt.Fprintf(&text, "\n- %s: %s", s.Step, s.Outcome)
		if s.Reason != "" {
			fmt.Fprintf(&text, " (%s)", s.Reason)
		}
	}
	workflow.SetCurrentDetails(ctx, text.String())
}
