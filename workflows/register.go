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
	registerNightly(w)
	registerPublish(w)
	registerErase(w)
	registerReconcile(w)
	registerTrain(w)
	registerForecast(w)
	registerBigQuery(w)
}

// Short says whether the runs of a type end within minutes, so that a worker of another version need not be able to go on with them.
func Short(typ string) bool {
	switch typ {
	case name.PublishTable, name.RecomputeKPIs, name.Reconcile, name.ExportSubject:
		return true
	}
	return false
}
