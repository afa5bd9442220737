package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"millrace/activities"
	"millrace/workflows/name"
)

// fakeReconcile lets the examples end well.
func fakeReconcile(env *testsuite.TestWorkflowEnvironment) { fakeStores(env, &fakedStores{}) }

// fakedStores are what the activities of Reconcile find, and what was asked of them.
type fakedStores struct {
	mendable int64
	fail     error
	asked    []string
}

func fakeStores(env *testsuite.TestWorkflowEnvironment, s *fakedStores) {
	find := func(what, outcome string) func(context.Context, activities.ReconcileRequest) (activities.ReconcileOutput, error) {
		return func(_ context.Context, in activities.ReconcileRequest) (activities.ReconcileOutput, error) {
			s.asked = append(s.asked, what+" "+in.Input.Events()+" "+in.Input.At().Format(name.HourForm)+" "+in.Run)
			out := activities.ReconcileOutput{Mendable: s.mendable, Stores: []name.StoreResult{{Store: "clickhouse", Outcome: name.Equal, Expected: 10, Found: 10}}}
			if s.mendable > 0 {
				out.Stores[0] = name.StoreResult{Store: "clickhouse", Outcome: outcome, Expected: 10, Found: 8, Differences: map[string]int64{name.KindMissing: s.mendable}}
			}
			if outcome == name.Mended {
				s.mendable = 0
			}
			return out, s.fail
		}
	}
	env.RegisterActivityWithOptions(find("compare", name.Differs), activity.RegisterOptions{Name: name.ReconcileCompare})
	env.RegisterActivityWithOptions(find("repair", name.Mended), activity.RegisterOptions{Name: name.ReconcileRepair})
	env.RegisterActivityWithOptions(func(_ context.Context, in name.RecomputeKPIsInput) (activities.StepOutput, error) {
		s.asked = append(s.asked, "recompute "+in.Day)
		return activities.StepOutput{Numbers: map[string]int64{"rows": 3}}, s.fail
	}, activity.RegisterOptions{Name: name.RecomputeDay})
}

func TestReconcileMendsOnlyWhatItIsToldToAndWhatCanBeMended(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		input    string
		mendable int64
		outcome  string
		asked    []string
		steps    []string
	}{
		"nothing differs": {
			`{"topic": "events.page", "hour": "2026-03-01T12", "repair": true, "run": "r"}`, 0, name.Equal,
			[]string{"compare events.page 2026-03-01T12 r"},
			[]string{"compare done", "repair skipped"},
		},
		"it is only named": {
			`{"topic": "raw.page", "hour": "2026-03-01T12:34:56Z", "run": "r"}`, 2, name.Differs, []string{"compare events.page 2026-03-01T12 r"}, []string{"compare done"},
		},
		"it is mended": {
			`{"topic": "events.page", "hour": "2026-03-01T12", "repair": true, "run": "r"}`, 2, name.Mended,
			[]string{"compare events.page 2026-03-01T12 r", "repair events.page 2026-03-01T12 r"},
			[]string{"compare done", "repair done"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w, s := &world{}, &fakedStores{mendable: c.mendable}
			env := newEnv(t, w)
			fakeStores(env, s)
			env.ExecuteWorkflow(name.Reconcile, json.RawMessage(c.input))
			var got name.ReconcileResult
			if err := env.GetWorkflowResult(&got); err != nil {
				t.Fatal(err)
			}
			if got.Outcome != c.outcome || got.Topic != "events.page" || got.Hour != "2026-03-01T12" {
				t.Errorf("%+v", got)
			}
			if diff := cmp.Diff(c.asked, s.asked); diff != "" {
				t.Error(diff)
			}
			var steps []string
			for _, n := range w.steps {
				steps = append(steps, n.Result.Step+" "+n.Result.Outcome)
			}
			if diff := cmp.Diff(c.steps, steps); diff != "" {
				t.Error(diff)
			}
			if run := w.begun[0]; run.ID != "reconcile/events.page/2026-03-01T12" || run.Table != "events_page" || run.Day != "2026-03-01" || run.Run != "r" {
				t.Errorf("%+v", run)
			}
		})
	}
}

func TestReconcileThatFailsIsNotedAsFailed(t *testing.T) {
	t.Parallel()
	w := &world{}
	env := newEnv(t, w)
	fakeStores(env, &fakedStores{fail: temporal.NewNonRetryableApplicationError("no store", name.InvalidInput, nil)})
	env.ExecuteWorkflow(name.Reconcile, json.RawMessage(`{"topic": "events.page", "hour": "2026-03-01T12"}`))
	var app *temporal.ApplicationError
	if err := env.GetWorkflowError(); !errors.As(err, &app) || app.Type() != name.InvalidInput || len(w.ended) != 1 || w.ended[0].Outcome != name.Failed {
		t.Errorf("%v, %+v", err, w.ended)
	}
}

func TestInputsOfReconcileAndRecomputeKPIs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		`{}`: {"topic: is missing", "hour: is missing"},
		`{"topic": "page", "hour": "12", "stores": ["A", "b", "b"], "run": "/"}`: {"topic: \"page\" is no topic", "hour: \"12\" is no hour", "stores[0]", "stores[2]: \"b\" is there twice", "run: "},
		`{"topic": "events.page", "hour": "2026-03-01T25"}`:                      {"hour: "},
	} {
		_, err := name.Decode[name.ReconcileInput]([]byte(text))
		contains(t, text, err, want)
	}
	for text, want := range map[string][]string{
		`{}`:                    {"day: is missing"},
		`{"day": "2026-02-30"}`: {"day: \"2026-02-30\" is no day"},
		`{"day": "1970-01-01"}`: {"day: 1970-01-01 has no events"},
		`{"day": "2026-03-01", "tenants": ["", "a", "a"]}`: {"tenants[0]", "tenants[2]"},
	} {
		_, err := name.Decode[name.RecomputeKPIsInput]([]byte(text))
		contains(t, text, err, want)
	}
	typ, err := name.TypeNamed(name.Reconcile)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 1, 13, 7, 0, 0, time.UTC)
	text, err := name.TickInput(typ, []byte(`{"topic": "events.page"}`), at)
	if err != nil {
		t.Fatal(err)
	}
	target, err := typ.Target(text)
	if err != nil || target.ID != "reconcile/events.page/2026-03-01T12" || target.Table != "events_page" {
		t.Errorf("%+v, %v", target, err)
	}
	if !slices.ContainsFunc(name.Types(), func(t name.Type) bool { return t.Name == name.RecomputeKPIs+name.TickSuffix }) {
		t.Error("there is no tick of RecomputeKPIs")
	}
}

func contains(t *testing.T, text string, err error, want []string) {
	t.Helper()
	for _, part := range want {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v does not say %q", text, err, part)
		}
	}
}
