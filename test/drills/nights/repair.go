package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	commonpb "go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"

	"millrace/activities"
	"millrace/internal/failpoint"
	"millrace/olap"
	"millrace/test/drills/drill"
	"millrace/workflows/name"
)

// failAt is the workflow of a night whose start fails: one of the first step that has several.
const failAt = 3

// repair lets a night fail and starts its input again, byte for byte, as "Start Workflow Like This One" of the Temporal UI does.
func repair(ctx context.Context, d *drill.Drill, p *platform, o options) error {
	if err := p.down(); err != nil {
		return err
	}
	if err := p.up(ctx, fmt.Sprintf("%s=%s=error@%d", failpoint.Env, activities.FailNightPart, failAt)); err != nil {
		return err
	}
	var night olap.Night
	failedNight := func(all []olap.Night) bool {
		for _, n := range all {
			if n.Outcome == name.Failed {
				night = n
				return true
			}
		}
		return false
	}
	if _, err := p.until(ctx, "a night has failed", 10, failedNight); err != nil {
		return err
	}
	d.Check(night.Reason == name.NightFailed, "night %s failed as %s", night.Night, night.Reason)
	before := map[string]string{} // workflow → run
	var failed, done []string
	for _, s := range night.Steps {
		switch s.Outcome {
		case name.Failed:
			failed = append(failed, s.Step)
		case name.Done:
			done = append(done, s.Step)
		}
	}
	for _, part := range night.Parts {
		if part.Outcome == name.Done {
			before[part.WorkflowID] = part.WorkflowRun
		}
	}
	d.Check(len(failed) == 1 && len(done) > 0, "%v failed, %v did not", failed, done)
	if err := p.shoot(ctx, o, "failed", night); err != nil {
		return err
	}
	history := p.temporal.GetWorkflowHistory(ctx, night.WorkflowID, night.WorkflowRun, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	begun, err := history.Next()
	if err != nil {
		return fmt.Errorf("reading the history of %s: %w", night.WorkflowID, err)
	}
	old := begun.GetWorkflowExecutionStartedEventAttributes()
	_, err = p.temporal.WorkflowService().StartWorkflowExecution(ctx, &workflowservice.StartWorkflowExecutionRequest{
		Namespace: p.endpoints.Temporal.Namespace, WorkflowId: night.WorkflowID, RequestId: uuid.NewString(), Identity: "drill",
		WorkflowType: &commonpb.WorkflowType{Name: old.GetWorkflowType().GetName()}, TaskQueue: &taskqueuepb.TaskQueue{Name: old.GetTaskQueue().GetName()}, Input: old.GetInput(),
	})
	if err != nil {
		return fmt.Errorf("starting %s again: %w", night.WorkflowID, err)
	}
	nights, err := p.until(ctx, "the night is repaired", 10, func(all []olap.Night) bool {
		for _, n := range all {
			if n.Night == night.Night && n.Outcome == name.Done {
				night = n
				return true
			}
		}
		return false
	})
	if err != nil {
		return err
	}
	again := 0
	for _, part := range night.Parts {
		if run, ok := before[part.WorkflowID]; ok && run != part.WorkflowRun {
			again++
			fmt.Printf("  %s ran again\n", part.WorkflowID)
		}
	}
	d.Check(again == 0, "the night is done; none of the %d workflows that were done ran again", len(before))
	d.Check(len(nights) > 0, "%d nights in all", len(nights))
	return p.shoot(ctx, o, "repaired", night)
}

// shoot photographs the night's page and the list of nights in the Temporal UI.
func (p *platform) shoot(ctx context.Context, o options, what string, night olap.Night) error {
	if o.shots == "" {
		return nil
	}
	dir, err := filepath.Abs(o.shots)
	if err != nil {
		return fmt.Errorf("finding %s: %w", o.shots, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	base := p.endpoints.Temporal.UI + "/namespaces/" + p.endpoints.Temporal.Namespace
	pages := []string{
		filepath.Join(dir, "nightly-"+what+".png"), base + "/workflows/" + strings.NewReplacer("/", "%2F", ":", "%3A").Replace(night.WorkflowID) + "/" + p.newest(ctx, night) + "/history",
		filepath.Join(dir, "nightly-"+what+"-list.png"), base + "/workflows?query=WorkflowType%3D%22Nightly%22",
	}
	cmd := exec.CommandContext(ctx, "node", append([]string{"test/drills/nights/shoot.mjs"}, pages...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("photographing the Temporal UI: %w", errors.Join(err, ctx.Err()))
	}
	return nil
}

// newest is the newest run of a night's workflow.
func (p *platform) newest(ctx context.Context, night olap.Night) string {
	d, err := p.temporal.DescribeWorkflowExecution(ctx, night.WorkflowID, "")
	if err != nil {
		return night.WorkflowRun
	}
	return d.GetWorkflowExecutionInfo().GetExecution().GetRunId()
}
