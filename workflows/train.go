package workflows

import (
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"millrace/activities"
	"millrace/workflows/name"
)

func registerTrain(w worker.WorkflowRegistry) {
	w.RegisterWorkflowWithOptions(trainRecommendations, workflow.RegisterOptions{Name: name.TrainRecommendations})
	registerTick(w, name.TrainRecommendations)
}

// trainRecommendations trains a model and publishes it. The model is a file between the two steps; what is served is swapped by the last command of the second. The
// version is named by what it was trained on, so that a run repeated makes and publishes the same one.
func trainRecommendations(ctx workflow.Context, raw converter.RawValue) (name.TrainRecommendationsResult, error) {
	in, err := inputOf[name.TrainRecommendationsInput](raw)
	if err != nil {
		return name.TrainRecommendationsResult{}, err
	}
	in = in.WithDefaults()
	result := name.TrainRecommendationsResult{Model: in.Model}
	f, err := open(ctx, name.TrainRecommendations, name.TrainID(in.Model), in, opening{
		Run: in.Run,
	})
	if err != nil {
		return result, err
	}
	// The plan is no step: a run that is repeated finds the same files by it.
	var plan activities.TrainPlanOutput
	_, before := f.did(name.StepPublishModel)
	if !before {
		err = workflow.ExecuteActivity(metadata(ctx, "which snapshots are read"), name.TrainPlan, activities.TrainPlanInput{Input: in, Run: f.Run.Run}).Get(ctx, &plan)
	}
	if err == nil {
		err = f.step(ctx, name.StepTrain, func(ctx workflow.Context) (map[string]int64, error) {
			var out activities.TrainOutput
			err := workflow.ExecuteActivity(heavy(ctx, "train "+in.Model), name.TrainModel, activities.TrainInput{Input: in, Key: plan.Key}).Get(ctx, &out)
			return map[string]int64{"rows": out.Rows, "items": int64(out.Items), "interactions": out.Interactions}, err
		})
	}
	if err == nil {
		err = f.step(ctx, name.StepPublishModel, func(ctx workflow.Context) (map[string]int64, error) {
			var out activities.TrainPublished
			err := workflow.ExecuteActivity(metadata(ctx, "publish "+in.Model), name.TrainPublish, activities.TrainInput{Input: in, Key: plan.Key}).Get(ctx, &out)
			result.Version, result.State, result.Reason, result.Metrics, result.Items, result.Rows = out.Version, out.State, out.Reason, out.Metrics, out.Items, out.Rows
			return map[string]int64{"keys": out.Keys}, err
		})
	}
	if err == nil && !before {
		err = workflow.ExecuteActivity(metadata(ctx, "remove the files"), name.TrainDrop, activities.TrainInput{Input: in, Key: plan.Key}).Get(ctx, nil)
	}
	err = f.close(ctx, err)
	result.Steps = f.Progress.Steps
	return result, err
}
