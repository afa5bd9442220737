package workflows

import (
	"encoding/json"
	"fmt"
	"time"

	"go.temporal.io/sdk/converter"
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
