package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"millrace/activities"
	"millrace/event"
	"millrace/workflows/name"
)

// loads is a BigQuery that answers what it is told to.
type loads struct {
	asked    []activities.LoadInput
	answers  []activities.LoadResult // to loads; the last one stays
	verifies []activities.VerifyInput
	differ   [][]string // days, by comparison
	notes    []activities.LoadNote
	err      error
}

func fakeBigQuery(l *loads) func(*testsuite.TestWorkflowEnvironment) {
	return func(env *testsuite.TestWorkflowEnvironment) {
		env.RegisterActivityWithOptions(func(_ context.Context, in activities.LoadInput) (activities.LoadOutput, error) {
			l.asked = append(l.asked, in)
			if l.err != nil {
				return activities.LoadOutput{}, l.err
			}
			r := activities.LoadResult{Outcome: activities.LoadNothing}
			if n := len(l.answers); n > 0 {
				r = l.answers[0]
				l.answers = l.answers[min(1, n-1):]
			}
			return activities.LoadOutput{Result: r}, nil
		}, activity.RegisterOptions{Name: name.BigQueryLoad})
		env.RegisterActivityWithOptions(func(_ context.Context, in activities.VerifyInput) (activities.Verified, error) {
			l.verifies = append(l.verifies, in)
			var v activities.Verified
			if len(l.differ) > 0 {
				for _, d := range l.differ[0] {
					v.Differences = append(v.Differences, activities.DayDiffers{Day: d})
				}
				l.differ = l.differ[1:]
			}
			return v, nil
		}, activity.RegisterOptions{Name: name.BigQueryVerify})
		env.RegisterActivityWithOptions(func(_ context.Context, n activities.LoadNote) error {
			l.notes = append(l.notes, n)
			return nil
		}, activity.RegisterOptions{Name: name.BigQueryNote})
	}
}

func runLoad(t *testing.T, l *loads, input string) (name.LoadBigQueryResult, error) {
	t.Helper()
	env := newEnv(t, &world{})
	fakeBigQuery(l)(env)
	env.ExecuteWorkflow(name.LoadBigQuery, json.RawMessage(input))
	var out name.LoadBigQueryResult
	if err := env.GetWorkflowError(); err != nil {
		return out, err
	}
	return out, env.GetWorkflowResult(&out)
}

func stepsOf(r []name.StepResult) []string {
	var out []string
	for _, s := range r {
		out = append(out, s.Step+" "+s.Outcome)
	}
	return out
}

func loaded() activities.LoadResult {
	return activities.LoadResult{
		Table: "events_page", Outcome: activities.LoadLoaded, From: 1, To: 2, Rows: event.Checksum{Count: 7}, JobID: "j", Touched: []string{"2026-03-01", "2026-03-02"},
	}
}

func TestALoadIsComparedWithTheLake(t *testing.T) {
	t.Parallel()
	l := &loads{answers: []activities.LoadResult{loaded()}}
	out, err := runLoad(t, l, `{"table": "events_page"}`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"load done", "verify done"}, stepsOf(out.Steps)); diff != "" || out.Rows != 7 || out.Outcome != activities.LoadLoaded || out.JobID != "j" {
		t.Errorf("%+v\n%s", out, diff)
	}
	if len(l.verifies) != 1 || !slices.Equal(l.verifies[0].Days, []string{"2026-03-01", "2026-03-02"}) || len(l.notes) != 1 {
		t.Errorf("compared %+v, noted %+v", l.verifies, l.notes)
	}
}

func TestNothingToLoadIsNotCompared(t *testing.T) {
	t.Parallel()
	l := &loads{}
	out, err := runLoad(t, l, `{"table": "events_page"}`)
	if err != nil || out.Outcome != activities.LoadNothing || len(l.verifies) != 0 || len(l.notes) != 0 {
		t.Errorf("%+v, %+v: %v", out, l, err)
	}
}

func TestALoadThatIsTooEarlyWaits(t *testing.T) {
	t.Parallel()
	early := activities.LoadResult{Outcome: activities.LoadEarly, Wait: 90 * time.Second}
	l := &loads{answers: []activities.LoadResult{early, loaded()}}
	if out, err := runLoad(t, l, `{"table": "events_page"}`); err != nil || out.Outcome != activities.LoadLoaded || len(l.asked) != 2 {
		t.Errorf("%+v, asked %+v: %v", out, l.asked, err)
	}
}

func TestDaysThatDifferAreMendedOnce(t *testing.T) {
	t.Parallel()
	l := &loads{answers: []activities.LoadResult{loaded()}, differ: [][]string{{"2026-03-02"}, nil}}
	out, err := runLoad(t, l, `{"table": "events_page", "from": 1, "to": 2}`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"load done", "verify done", "mend done"}, stepsOf(out.Steps)); diff != "" {
		t.Error(diff)
	}
	if len(l.asked) != 2 || !l.asked[1].Mend || !l.asked[1].Now || l.asked[1].Input.From != 0 || l.asked[1].Input.To != 2 {
		t.Errorf("asked %+v", l.asked)
	}
	if len(l.notes) != 3 || l.notes[1].Reason != name.BigQueryDiffers || !slices.Equal(l.notes[1].Differing, []string{"2026-03-02"}) {
		t.Errorf("noted %+v", l.notes)
	}
}

func TestDaysThatDifferAfterTheyWereMendedEndTheRun(t *testing.T) {
	t.Parallel()
	l := &loads{answers: []activities.LoadResult{loaded()}, differ: [][]string{{"2026-03-02"}, {"2026-03-02"}}}
	_, err := runLoad(t, l, `{"table": "events_page"}`)
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != name.BigQueryDiffers || !app.NonRetryable() {
		t.Errorf("got %v", err)
	}
}

func TestAFailureThatSomebodyHasToMendIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	l := &loads{err: temporal.NewNonRetryableApplicationError("column value has type STRING", "MR-BQ-004", nil)}
	_, err := runLoad(t, l, `{"table": "events_page"}`)
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != "MR-BQ-004" || len(l.asked) != 1 {
		t.Errorf("asked %d times: %v", len(l.asked), err)
	}
	if _, err := runLoad(t, l, `{"table": "events_page", "form": 1}`); !errors.As(err, &app) || app.Type() != name.InvalidInput {
		t.Errorf("a wrong field: %v", err)
	}
}
