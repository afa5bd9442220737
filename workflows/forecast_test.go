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

// fakeForecast lets the examples of forecasts end well.
func fakeForecast(env *testsuite.TestWorkflowEnvironment) { fakeForecasting(env, &forecasting{}) }

// forecasting is what the activities of a forecast do in a test, and what they were asked.
type forecasting struct {
	fit    error
	asked  []string
	inputs []activities.ForecastInput
}

func fakeForecasting(env *testsuite.TestWorkflowEnvironment, f *forecasting) {
	for n, a := range map[string]any{
		name.ForecastPlan: func(_ context.Context, in activities.ForecastPlanInput) (activities.ForecastPlanOutput, error) {
			f.asked = append(f.asked, "plan "+in.Input.Tenant)
			return activities.ForecastPlanOutput{Key: "k", Version: "v1"}, nil
		},
		name.ForecastFit: func(_ context.Context, in activities.ForecastInput) (activities.ForecastOutput, error) {
			f.asked, f.inputs = append(f.asked, "fit "+in.Key), append(f.inputs, in)
			return activities.ForecastOutput{Version: "v1", Rows: 10, Products: 3, Fitted: 2}, f.fit
		},
		name.ForecastPublish: func(_ context.Context, in activities.ForecastInput) (activities.ForecastPublished, error) {
			f.asked = append(f.asked, "publish "+in.Key)
			return activities.ForecastPublished{ForecastOutput: activities.ForecastOutput{Version: "v1", Rows: 10, Products: 3, Fitted: 2, Metrics: map[string]float64{"mase_median": 0.7}}, Sent: 3, Hours: 9}, nil
		},
		name.ForecastDrop: func(_ context.Context, in activities.ForecastInput) error {
			f.asked = append(f.asked, "drop "+in.Key)
			return nil
		},
	} {
		env.RegisterActivityWithOptions(a, activity.RegisterOptions{Name: n})
	}
}

func TestAForecastPlansFitsPublishesAndDropsItsFiles(t *testing.T) {
	t.Parallel()
	f := &forecasting{}
	env := newEnv(t, &world{})
	fakeForecasting(env, f)
	env.ExecuteWorkflow(name.ForecastDemand, json.RawMessage(`{"cost_share": 0.5}`))
	var got name.ForecastDemandResult
	if err := env.GetWorkflowResult(&got); err != nil {
		t.Fatal(err)
	}
	if asked := strings.Join(f.asked, ", "); asked != "plan default, fit k, publish k, drop k" {
		t.Error(asked)
	}
	if in := f.inputs[0].Input; in.CostShare != 0.5 || in.MaxProducts != 20_000 || in.Ref != "published" || in.LookBack.String() != "56d" {
		t.Errorf("%+v", in)
	}
	if got.Version != "v1" || got.Products != 3 || got.Fitted != 2 || got.Metrics["mase_median"] != 0.7 || len(got.Steps) != 2 || got.Steps[1].Numbers["hours"] != 9 {
		t.Errorf("%+v", got)
	}
}

func TestAForecastThatFailsKeepsItsFilesForTheNextAttempt(t *testing.T) {
	t.Parallel()
	f := &forecasting{fit: temporal.NewNonRetryableApplicationError("too many", name.TooManyProducts, nil)}
	env := newEnv(t, &world{})
	fakeForecasting(env, f)
	env.ExecuteWorkflow(name.ForecastDemand, json.RawMessage(`{}`))
	if err := env.GetWorkflowError(); err == nil || !strings.Contains(err.Error(), "too many") || !strings.Contains(err.Error(), name.StepFit) {
		t.Errorf("got %v", err)
	}
	if asked := strings.Join(f.asked, ", "); asked != "plan default, fit k" {
		t.Error(asked)
	}
}
