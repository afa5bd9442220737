package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"millrace/internal/failpoint"
	"millrace/workflows/name"
)

// StartRequest is a workflow to be started by its canonical id.
type StartRequest struct {
	Type    string          `json:"type"`
	Input   json.RawMessage `json:"input"`
	Trigger string          `json:"trigger"`
	Day     string          `json:"day,omitempty"` // of its logical time
}

// Started is a workflow that runs.
type Started struct {
	ID     string `json:"id"`
	RunID  string `json:"run_id"`
	Joined bool   `json:"joined"` // it ran already
}

// Start starts a workflow, or joins the one that runs under the same id. The input is checked first, strictly.
func Start(ctx context.Context, c client.Client, r StartRequest) (client.WorkflowRun, Started, error) {
	t, err := name.TypeNamed(r.Type)
	if err != nil {
		return nil, Started{}, err
	}
	target, err := t.Target(r.Input)
	if err != nil {
		return nil, Started{}, err
	}
	attrs := []temporal.SearchAttributeUpdate{name.AttrTrigger.ValueSet(r.Trigger)}
	summary := t.Name
	if target.Table != "" {
		attrs = append(attrs, name.AttrTable.ValueSet(target.Table))
		summary += " of " + target.Table
	}
	if r.Day != "" {
		attrs = append(attrs, name.AttrDay.ValueSet(r.Day))
	}
	o := client.StartWorkflowOptions{
		ID: target.ID, TaskQueue: name.Queue, StaticSummary: summary, TypedSearchAttributes: temporal.NewSearchAttributes(attrs...),
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL, // tells whether it was started or joined, which USE_EXISTING does not
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE, WorkflowExecutionErrorWhenAlreadyStarted: true,
	}
	run, err := c.ExecuteWorkflow(ctx, o, t.Name, target.Input)
	var already *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &already) {
		return c.GetWorkflow(ctx, target.ID, already.RunId), Started{target.ID, already.RunId, true}, nil
	}
	if err != nil {
		return nil, Started{}, fmt.Errorf("starting %s %s: %w", r.Type, target.ID, err)
	}
	return run, Started{ID: target.ID, RunID: run.GetRunID()}, nil
}

// FailNightPart is hit before a workflow is started for a night.
const FailNightPart = "activities.nightly.part"

// Starter starts workflows for other workflows: a child cannot join the one that runs.
type Starter struct{ client client.Client }

// NewStarter makes the activity.
func NewStarter(c client.Client) *Starter { return &Starter{c} }

// Register adds the activity.
func (s *Starter) Register(w worker.ActivityRegistry) {
	w.RegisterActivityWithOptions(s.Run, activity.RegisterOptions{Name: name.StartAndWait})
}

// WaitOutput is how a workflow ended.
type WaitOutput struct {
	Started Started         `json:"started"`
	Result  json.RawMessage `json:"result"`
}

// Run starts a workflow or joins it, and waits for its end. Which run it waits for stands in the heartbeat, so that a later attempt does not start another one.
func (s *Starter) Run(ctx context.Context, r StartRequest) (WaitOutput, error) {
	var out WaitOutput
	if r.Trigger == name.ByNight {
		if err := failpoint.Err(FailNightPart); err != nil {
			return out, failure(ctx, err, "Failpoint", false)
		}
	}
	var run client.WorkflowRun
	var last Progress
	if activity.HasHeartbeatDetails(ctx) && activity.GetHeartbeatDetails(ctx, &last) == nil && last.RunID != "" {
		t, err := name.TypeNamed(r.Type)
		if err != nil {
			return out, failure(ctx, err, name.InvalidInput, false)
		}
		target, err := t.Target(r.Input)
		if err != nil {
			return out, failure(ctx, err, name.InvalidInput, false)
		}
		out.Started = Started{ID: target.ID, RunID: last.RunID, Joined: true}
		run = s.client.GetWorkflow(ctx, target.ID, last.RunID)
	} else {
		var err error
		run, out.Started, err = Start(ctx, s.client, r)
		if err != nil {
			return out, failure(ctx, err, "", true)
		}
	}
	b := startBeats(ctx)
	defer b.end()
	b.note(Progress{RunID: out.Started.RunID, State: "waiting for its end"})
	activity.RecordHeartbeat(ctx, Progress{RunID: out.Started.RunID, State: "waiting for its end"})
	err := run.Get(ctx, &out.Result)
	var ended *temporal.WorkflowExecutionError
	if errors.As(err, &ended) { // its own history says why
		var cause *temporal.ApplicationError
		kind := "WorkflowFailed"
		if errors.As(err, &cause) && cause.Type() != "" {
			kind = cause.Type()
		}
		return out, failure(ctx, fmt.Errorf("%s did not succeed: %w", out.Started.ID, err), kind, false)
	}
	return out, failure(ctx, err, "", true)
}
