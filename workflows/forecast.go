package workflows

import (
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"millrace/activities"
	"millrace/workflows/name"
)

func registerForecast(w worker.WorkflowRegistry) {
	w.RegisterWorkflowWithOptions(forecastDemand, workflow.RegisterOptions{Name: name.ForecastDemand})
	registerTick(w, name.ForecastDemand)
}

// forecastDemand fits the demand of each product and hands the models out. Files hold them between the two steps; a version is named by what it was fitted to, so that a
// run repeated makes and publishes the same one.
func forecastDemand(ctx workflow.Context, raw converter.RawValue) (name.ForecastDemandResult, error) {
	in, err := inputOf[name.ForecastDemandInput](raw)
	if err != nil {
		return name.ForecastDemandResult{}, err
	}
	in = in.WithDefaults()
	result := name.ForecastDemandResult{Tenant: in.Tenant}
	f, err := open(ctx, name.ForecastDemand, name.ForecastID(in.Tenant), in, opening{Run: in.Run})
	if err != nil {
		return result, err
	}
	var plan activities.ForecastPlanOutput
	_, before := f.did(name.StepPublishForecasts)
	if !before {
		err = workflow.ExecuteActivity(metadata(ctx, "which snapshot is read"), name.ForecastPlan, activities.ForecastPlanInput{Input: in, Run: f.Run.Run}).Get(ctx, &plan)
	}
	if err == nil {
		err = f.step(ctx, name.StepFit, func(ctx workflow.Context) (map[string]int64, error) {
			var out activities.ForecastOutput
			err := workflow.ExecuteActivity(heavy(ctx, "fit "+in.Tenant), name.ForecastFit, activities.ForecastInput{Input: in, Key: plan.Key}).Get(ctx, &out)
			return map[string]int64{"rows": out.Rows, "products": int64(out.Products), "fitted": int64(out.Fitted)}, err
		})
	}
	if err == nil {
		err = f.step(ctx, name.StepPublishForecasts, func(ctx workflow.Context) (map[string]int64, error) {
			var out activities.ForecastPublished
			err := workflow.ExecuteActivity(metadata(ctx, "publish "+in.Tenant), name.ForecastPublish, activities.ForecastInput{Input: in, Key: plan.Key}).Get(ctx, &out)
			result.Version, result.Products, result.Fitted, result.Metrics, result.Rows = out.Version, out.Products, out.Fitted, out.Metrics, out.Rows
			return map[string]int64{"products": int64(out.Products), "sent": out.Sent, "hours": out.Hours}, err
		})
	}
	if err == nil && !before {
		err = workflow.ExecuteActivity(metadata(ctx, "remove the files"), name.ForecastDrop, activities.ForecastInput{Input: in, Key: plan.Key}).Get(ctx, nil)
	}
	err = f.close(ctx, err)
	result.Steps = f.Progress.Steps
	return result, err
}
