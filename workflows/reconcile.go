package workflows

import (
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"millrace/activities"
	"millrace/workflows/name"
)

func registerReconcile(w worker.WorkflowRegistry) {
	w.RegisterWorkflowWithOptions(reconcile, workflow.RegisterOptions{Name: name.Reconcile})
	registerTick(w, name.Reconcile)
	w.RegisterWorkflowWithOptions(recomputeKPIs, workflow.RegisterOptions{Name: name.RecomputeKPIs})
	registerTick(w, name.RecomputeKPIs)
}

// reconcile compares the stores with the control totals of one hour of one topic, and mends them if the input says so. That a store differs is a result and an alert, no
// failure: what can be mended is, and the rest is named.
func reconcile(ctx workflow.Context, raw converter.RawValue) (name.ReconcileResult, error) {
	in, err := inputOf[name.ReconcileInput](raw)
	if err != nil {
		return name.ReconcileResult{}, err
	}
	f, err := open(ctx, name.Reconcile, name.ReconcileID(in.Events(), in.At()), in, opening{Table: in.Table(), Day: in.At().Format(time.DateOnly), Run: in.Run})
	if err != nil {
		return name.ReconcileResult{}, err
	}
	out := name.ReconcileResult{Topic: in.Events(), Hour: in.At().Format(name.HourForm), Run: f.Run.Run, Stores: []name.StoreResult{}}
	request := activities.ReconcileRequest{Input: in, Run: f.Run.Run}
	look := func(step, activity string) error {
		return f.step(ctx, step, func(ctx workflow.Context) (map[string]int64, error) {
			var found activities.ReconcileOutput
			err := workflow.ExecuteActivity(heavy(ctx, step+" "+in.Events()+" of "+out.Hour), activity, request).Get(ctx, &found)
			if err == nil {
				out.Stores = found.Stores
			}
			return storeNumbers(step, found), err
		})
	}
	err = look(name.StepCompare, name.ReconcileCompare)
	if compared, ok := f.did(name.StepCompare); err == nil && ok && in.Repair {
		if compared[mendable] > 0 {
			err = look(name.StepRepair, name.ReconcileRepair)
		} else {
			err = f.leave(ctx, name.StepRepair, "there is nothing to mend")
		}
	}
	for _, s := range out.Stores {
		f.Numbers["rows"] += s.Expected
	}
	err = f.close(ctx, err)
	out.Outcome = worst(out.Stores)
	return out, err
}

const mendable = "mendable"

// storeNumbers are what stands in workflow_steps.
func storeNumbers(step string, o activities.ReconcileOutput) map[string]int64 {
	out := map[string]int64{}
	if step == name.StepCompare {
		out[mendable] = o.Mendable
	} else {
		out["left"] = o.Mendable
	}
	for _, s := range o.Stores {
		if step == name.StepRepair {
			out[s.Store+"_repaired"] = s.Repaired
			continue
		}
		out[s.Store+"_expected"], out[s.Store+"_found"] = s.Expected, s.Found
		for kind, n := range s.Differences {
			out[s.Store+"_"+kind] = n
		}
	}
	return out
}

// worst is the outcome of all stores together.
func worst(stores []name.StoreResult) string {
	rank := map[string]int{name.Unjudged: 0, name.Equal: 1, name.Mended: 2, name.Differs: 3}
	out := name.Unjudged
	for _, s := range stores {
		if rank[s.Outcome] > rank[out] {
			out = s.Outcome
		}
	}
	return out
}

// recomputeKPIs takes late and replayed events of a day up into the KPI tables.
func recomputeKPIs(ctx workflow.Context, raw converter.RawValue) (name.RecomputeKPIsResult, error) {
	in, err := inputOf[name.RecomputeKPIsInput](raw)
	if err != nil {
		return name.RecomputeKPIsResult{}, err
	}
	f, err := open(ctx, name.RecomputeKPIs, name.RecomputeKPIsID(in.Day), in, opening{Day: in.Day, Run: in.Run})
	if err != nil {
		return name.RecomputeKPIsResult{}, err
	}
	err = f.step(ctx, name.StepRecompute, func(ctx workflow.Context) (map[string]int64, error) {
		var out activities.StepOutput
		err := workflow.ExecuteActivity(heavy(ctx, "recompute the KPIs of "+in.Day), name.RecomputeDay, in).Get(ctx, &out)
		return out.Numbers, err
	})
	numbers, _ := f.did(name.StepRecompute)
	err = f.close(ctx, err)
	return name.RecomputeKPIsResult{Day: in.Day, Run: f.Run.Run, Outcome: f.Progress.Phase, Numbers: numbers}, err
}
