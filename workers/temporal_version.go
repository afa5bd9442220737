package workers

import (
	"context"
	"log/slog"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"millrace/workflows"
)

// versioned sets the version of workers, where a deployment is configured. Long workflows move to new versions by themselves, which replay tests guard; short ones, which the
// registration names, end on the version they began on.
func (c TemporalDeployment) versioned(o worker.Options) worker.Options {
	if c.Name != "" {
		o.DeploymentOptions = worker.DeploymentOptions{
			UseVersioning: true, Version: worker.WorkerDeploymentVersion{DeploymentName: c.Name, BuildID: c.BuildID}, DefaultVersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
		}
	}
	return o
}

// register adds the workflows to a worker.
func (c TemporalDeployment) register(w worker.WorkflowRegistry) {
	if c.Name != "" {
		w = pinning{w}
	}
	workflows.Register(w)
}

// pinning pins short workflows to the version they begin on.
type pinning struct{ worker.WorkflowRegistry }

// RegisterWorkflowWithOptions implements worker.WorkflowRegistry.
func (p pinning) RegisterWorkflowWithOptions(w any, o workflow.RegisterOptions) {
	if workflows.Short(o.Name) {
		o.VersioningBehavior = workflow.VersioningBehaviorPinned
	}
	p.WorkflowRegistry.RegisterWorkflowWithOptions(w, o)
}

// become makes this process's version the current one. Temporal knows a version only when its workers have polled, so it is tried until then. Versions become current in
// the order in which their processes start.
func (c TemporalDeployment) become(ctx context.Context, cl client.Client, log *slog.Logger) {
	if c.Name == "" {
		return
	}
	h := cl.WorkerDeploymentClient().GetHandle(c.Name)
	for pause := temporalPauseMin; ctx.Err() == nil; pause = min(2*pause, temporalPauseMax) {
		attempt, cancel := context.WithTimeout(ctx, temporalAttempt)
		_, err := h.SetCurrentVersion(attempt, client.WorkerDeploymentSetCurrentVersionOptions{BuildID: c.BuildID})
		cancel()
		if err == nil {
			log.InfoContext(ctx, "version is current", "deployment", c.Name, "build_id", c.BuildID)
			return
		}
		log.DebugContext(ctx, "version is not current yet", "deployment", c.Name, "build_id", c.BuildID, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}
