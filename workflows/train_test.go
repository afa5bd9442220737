package workflows_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"millrace/activities"
	"millrace/workflows/name"
)

// fakeTrain lets the examples of trainings end well.
func fakeTrain(env *testsuite.TestWorkflowEnvironment) { fakeTraining(env, &training{}) }

// training is what the activities of a training do in a test, and what they were asked.
type training struct {
	model  error
	asked  []string
	inputs []activities.TrainInput
}

func fakeTraining(env *testsuite.TestWorkflowEnvironment, tr *training) {
	for n, f := range map[string]any{
		name.TrainPlan: func(_ context.Context, in activities.TrainPlanInput) (activities.TrainPlanOutput, error) {
			tr.asked = append(tr.asked, "plan "+in.Input.Model)
			return activities.TrainPlanOutput{Key: "k", Version: "v1"}, nil
		},
		name.TrainModel: func(_ context.Context, in activities.TrainInput) (activities.TrainOutput, error) {
			tr.asked, tr.inputs = append(tr.asked, "model "+in.Key), append(tr.inputs, in)
			return activities.TrainOutput{Version: "v1", Rows: 10, Items: 3, Interactions: 9}, tr.model
		},
		name.TrainPublish: func(_ context.Context, in activities.TrainInput) (activities.TrainPublished, error) {
			tr.asked = append(tr.asked, "publish "+in.Key)
			return activities.TrainPublished{TrainOutput: activities.TrainOutput{Version: "v1", Items: 3, Rows: 10}, State: "refused", Reason: "not better", Keys: 2}, nil
		},
		name.TrainDrop: func(_ context.Context, in activities.TrainInput) error {
			tr.asked = append(tr.asked, "drop "+in.Key)
			return nil
		},
	} {
		env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: n})
	}
}

func TestTrainingPlansTrainsPublishesAndDropsItsFiles(t *testing.T) {
	t.Parallel()
	tr := &training{}
	env := newEnv(t, &world{})
	fakeTraining(env, tr)
	env.ExecuteWorkflow(name.TrainRecommendations, json.RawMessage(`{"weights": [0, 1, 2]}`))
	var got name.TrainRecommendationsResult
	if err := env.GetWorkflowResult(&got); err != nil {
		t.Fatal(err)
	}
	if asked := strings.Join(tr.asked, ", "); asked != "plan similar-items, model k, publish k, drop k" {
		t.Error(asked)
	}
	if in := tr.inputs[0].Input; in.Weights[2] != 2 || in.Neighbours != 50 || in.Ref != "published" || in.Tenant != "default" {
		t.Errorf("%+v", in)
	}
	if got.State != "refused" || got.Reason != "not better" || got.Version != "v1" || len(got.Steps) != 2 || got.Steps[0].Numbers["rows"] != 10 {
		t.Errorf("%+v", got)
	}
}

func TestATrainingThatFailsKeepsItsFilesForTheNextAttempt(t *testing.T) {
	t.Parallel()
	tr := &training{model: temporal.NewNonRetryableApplicationError("too many", name.TooManyItems, nil)}
	env := newEnv(t, &world{})
	fakeTraining(env, tr)
	env.ExecuteWorkflow(name.TrainRecommendations, json.RawMessage(`{}`))
	err := env.GetWorkflowError()
	if err == nil || !strings.Contains(err.Error(), "too many") || !strings.Contains(err.Error(), name.StepTrain) {
		t.Errorf("got %v", err)
	}
	if asked := strings.Join(tr.asked, ", "); asked != "plan similar-items, model k" {
		t.Error(asked)
	}
}
