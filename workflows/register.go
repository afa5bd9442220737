package workflows

import (
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"millrace/workflows/name"
)

// Register adds all workflows to a worker, or to a replayer, under their registered names.
func Register(w worker.WorkflowRegistry) {
	w.RegisterWorkflowWithOptions(maintainTable, workflow.RegisterOptions{Name: name.MaintainTable})
	w.RegisterWorkflowWithOptions(maintainTableTick, workflow.RegisterOptions{Name: name.MaintainTableTick})
}
