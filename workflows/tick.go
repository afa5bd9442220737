package workflows

import (
	"encoding/json"
	"fmt"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"millrace/activities"
	"millrace/workflows/name"
)

// maintainTableTick is what schedules start. A schedule adds the time to the id of what it starts, so it cannot start MaintainTable under its one id: the tick does, or
// joins the run that is there, and waits for its end. Its scheduled time names the logical run.
func maintainTableTick(ctx workflow.Context, raw converter.RawValue) (activities.WaitOutput, error) {
	in, err := inputOf[name.MaintainTableInput](raw)
	if err != nil {
		return activities.WaitOutput{}, err
	}
	at := logicalTime(ctx)
	trigger := name.Manual
	if _, ok := workflow.GetTypedSearchAttributes(ctx).GetTime(name.ScheduledStart); ok {
		trigger = name.Scheduled
	}
	if in.Run == "" {
		in.Run = at.Format("2006-01-02T15:04:05Z")
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, name.AttrTable.ValueSet(in.Table), name.AttrTrigger.ValueSet(trigger), name.AttrDay.ValueSet(at.Format(time.DateOnly))); err != nil {
		return activities.WaitOutput{}, fmt.Errorf("setting search attributes: %w", err)
	}
	text, err := json.Marshal(in)
	if err != nil {
		return activities.WaitOutput{}, fmt.Errorf("passing the input on: %w", err)
	}
	id := name.MaintainID(in.Table)
	workflow.SetCurrentDetails(ctx, "Waits for `"+id+"`.")
	var out activities.WaitOutput
	err = workflow.ExecuteActivity(wait(ctx, "run "+id), name.StartAndWait,
		activities.StartRequest{Type: name.MaintainTable, Input: text, Trigger: trigger, Day: at.Format(time.DateOnly)}).Get(ctx, &out)
	return out, err
}

// logicalTime is the time for which a workflow runs: that of its schedule, else its start.
func logicalTime(ctx workflow.Context) time.Time {
	if t, ok := workflow.GetTypedSearchAttributes(ctx).GetTime(name.ScheduledStart); ok {
		return t.UTC()
	}
	return workflow.GetInfo(ctx).WorkflowStartTime.UTC()
}

// tick is what schedules start for a type: it starts the type's workflow under its canonical id, or joins the run that is there, and waits for its end. Its input is that
// of the type, in which the scheduled time fills in what is absent.
func tick(typ string) func(ctx workflow.Context, raw converter.RawValue) (activities.WaitOutput, error) {
	return func(ctx workflow.Context, raw converter.RawValue) (activities.WaitOutput, error) {
		var out activities.WaitOutput
		text, err := textOf(raw)
		if err != nil {
			return out, err
		}
		at := logicalTime(ctx)
		t, err := name.TypeNamed(typ)
		if err != nil {
			return out, invalid(err.Error())
		}
		if text, err = name.TickInput(t, text, at); err != nil {
			return out, invalid(err.Error())
		}
		target, err := t.Target(text)
		if err != nil {
			return out, invalid(err.Error())
		}
		trigger := name.Manual
		if _, ok := workflow.GetTypedSearchAttributes(ctx).GetTime(name.ScheduledStart); ok {
			trigger = name.Scheduled
		}
		day := at.Format(time.DateOnly)
		attrs := []temporal.SearchAttributeUpdate{name.AttrTrigger.ValueSet(trigger), name.AttrDay.ValueSet(day)}
		if target.Table != "" {
			attrs = append(attrs, name.AttrTable.ValueSet(target.Table))
		}
		if err := workflow.UpsertTypedSearchAttributes(ctx, attrs...); err != nil {
			return out, fmt.Errorf("setting search attributes: %w", err)
		}
		workflow.SetCurrentDetails(ctx, "Waits for `"+target.ID+"`.")
		err = workflow.ExecuteActivity(wait(ctx, "run "+target.ID), name.StartAndWait, activities.StartRequest{Type: typ, Input: text, Trigger: trigger, Day: day}).Get(ctx, &out)
		return out, err
	}
}

// registerTick adds the tick of a type.
func registerTick(w worker.WorkflowRegistry, typ string) {
	w.RegisterWorkflowWithOptions(tick(typ), workflow.RegisterOptions{Name: typ + name.TickSuffix})
}
