package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"millrace/activities"
	"millrace/workflows/name"
)

// sky is a fake of what a night asks: its plan, and how the workflows end that it starts.
type sky struct {
	mu      sync.Mutex
	plan    activities.NightPlan
	done    map[string][]string // run → ids that are done
	fail    map[string]string   // id → kind of failure
	ran     []string
	inputs  map[string]string
	running int
	most    int
	gate    func(id string)
}

// off are the steps whose workflows the test leaves out.
func off(steps ...string) map[string]string {
	out := map[string]string{}
	for _, s := range steps {
		out[s] = "not here"
	}
	return out
}

func (s *sky) register(env *testsuite.TestWorkflowEnvironment) {
	env.RegisterActivityWithOptions(func(_ context.Context, in activities.NightPlanInput) (activities.NightPlan, error) {
		p := s.plan
		if p.Off == nil {
			p.Off = map[string]string{}
		}
		for step, typ := range in.Types {
			if _, err := name.TypeNamed(typ); err != nil {
				p.Off[step] = "this release has no " + typ
			}
		}
		return p, nil
	}, activity.RegisterOptions{Name: name.NightlyPlan})
	env.RegisterActivityWithOptions(func(_ context.Context, in activities.NightDoneInput) (activities.NightDoneOutput, error) {
		var out activities.NightDoneOutput
		for _, id := range in.IDs {
			if slices.Contains(s.done[in.Run], id) {
				out.Done = append(out.Done, id)
			}
		}
		return out, nil
	}, activity.RegisterOptions{Name: name.NightlyDone})
	env.RegisterActivityWithOptions(func(_ context.Context, r activities.StartRequest) (activities.WaitOutput, error) {
		t, err := name.TypeNamed(r.Type)
		if err != nil {
			return activities.WaitOutput{}, err
		}
		target, err := t.Target(r.Input)
		if err != nil {
			return activities.WaitOutput{}, temporal.NewNonRetryableApplicationError(err.Error(), name.InvalidInput, nil)
		}
		s.mu.Lock()
		s.ran = append(s.ran, target.ID)
		if s.inputs == nil {
			s.inputs = map[string]string{}
		}
		s.inputs[target.ID] = string(r.Input)
		s.running++
		s.most = max(s.most, s.running)
		kind := s.fail[target.ID]
		s.mu.Unlock()
		defer func() { s.mu.Lock(); s.running--; s.mu.Unlock() }()
		if s.gate != nil {
			s.gate(target.ID)
		}
		if kind != "" {
			return activities.WaitOutput{}, temporal.NewNonRetryableApplicationError(target.ID+" did not succeed", kind, nil)
		}
		return activities.WaitOutput{Result: json.RawMessage("{}")}, nil
	}, activity.RegisterOptions{Name: name.StartAndWait})
}

// fakeNightly is for the examples: StartAndWait is there already.
func fakeNightly(env *testsuite.TestWorkflowEnvironment) {
	env.RegisterActivityWithOptions(func(context.Context, activities.NightPlanInput) (activities.NightPlan, error) {
		p := activities.NightPlan{Tables: []string{"events_page"}, Off: off(name.NightlySteps()...)}
		delete(p.Off, name.NightMaintain)
		return p, nil
	}, activity.RegisterOptions{Name: name.NightlyPlan})
	env.RegisterActivityWithOptions(func(context.Context, activities.NightDoneInput) (activities.NightDoneOutput, error) {
		return activities.NightDoneOutput{}, nil
	}, activity.RegisterOptions{Name: name.NightlyDone})
}

// others are the steps that tests of the order leave out: what they start depends on the release.
var others = []string{name.NightQuality, name.NightPublish, name.NightLoad, name.NightKPIs, name.NightFeatures, name.NightExperiments, name.NightRecommendations, name.NightForecasts, name.NightReconcile}

func runNight(t *testing.T, w *world, s *sky, input any, more ...func(*testsuite.TestWorkflowEnvironment)) (*testsuite.TestWorkflowEnvironment, error) {
	t.Helper()
	env := newEnv(t, w)
	s.register(env)
	for _, m := range more {
		m(env)
	}
	env.ExecuteWorkflow(name.Nightly, input)
	if !env.IsWorkflowCompleted() {
		t.Fatal("the night has not ended")
	}
	return env, env.GetWorkflowError()
}

func outcomes(w *world) map[string]string {
	out := map[string]string{}
	for _, s := range w.steps {
		out[s.Result.Step] = s.Result.Outcome
	}
	return out
}

func TestANightDoesItsStepsAndNotesThem(t *testing.T) {
	t.Parallel()
	w, s := &world{}, &sky{plan: activities.NightPlan{Tables: []string{"events_cart", "events_page"}, Missing: []string{"2026-10-20", "2026-10-21"}, Off: off(others...)}}
	env, err := runNight(t, w, s, map[string]any{"day": "2026-10-22"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"nightly/2026-10-20", "nightly/2026-10-21"}, s.ran[:2]); diff != "" {
		t.Errorf("the nights that are missing are not first: %s", diff)
	}
	if got := slices.Sorted(slices.Values(s.ran[2:])); !slices.Equal(got, []string{"maintain/events_cart", "maintain/events_page"}) {
		t.Errorf("then ran %v", got)
	}
	if diff := cmp.Diff(`{"day":"2026-10-20","gaps":-1}`, s.inputs["nightly/2026-10-20"]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(`{"run":"2026-10-22","table":"events_page"}`, s.inputs["maintain/events_page"]); diff != "" {
		t.Error(diff)
	}
	var r name.NightlyResult
	if err := env.GetWorkflowResult(&r); err != nil {
		t.Fatal(err)
	}
	if r.Outcome != name.Done || len(r.Steps) != len(name.NightlySteps()) {
		t.Errorf("%+v", r)
	}
	begun, ended := w.begun[0], w.ended[0]
	if begun.ID != "nightly/2026-10-22" || begun.Run != "2026-10-22" || begun.Day != "2026-10-22" || begun.Type != name.Nightly || ended.Outcome != name.Done || ended.Numbers["parts"] != 4 {
		t.Errorf("begun %+v, ended %+v", begun, ended)
	}
	got := outcomes(w)
	if got[name.NightMaintain] != name.Done || got[name.NightGaps] != name.Done || got[name.NightLoad] != name.Skipped {
		t.Errorf("%v", got)
	}
}

func TestAStepThatFailsLeavesOutWhatNeedsItAndNothingElse(t *testing.T) {
	t.Parallel()
	need(t, name.PublishTable, name.LoadBigQuery)
	w := &world{}
	s := &sky{
		plan: activities.NightPlan{Tables: []string{"events_cart", "events_page"}, Loads: []string{"events_cart", "events_page"}, Off: off(name.NightGaps, name.NightKPIs, name.NightExperiments, name.NightRecommendations, name.NightForecasts, name.NightReconcile)},
		fail: map[string]string{"publish/events_page": "GateFailed"},
	}
	_, err := runNight(t, w, s, map[string]any{"day": "2026-10-22"})
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != name.NightFailed || !strings.HasPrefix(app.Message(), "publish, load, features did not succeed. Mend the cause") && !strings.HasPrefix(app.Message(), "publish, load did not succeed. Mend the cause") || !strings.Contains(err.Error(), `start Nightly again with {"day": "2026-10-22"}`) || !strings.Contains(err.Error(), "publish/events_page (GateFailed)") {
		t.Errorf("%v", err)
	}
	want := map[string]string{
		name.NightGaps: name.Skipped, name.NightQuality: name.Skipped, name.NightPublish: name.Failed, name.NightMaintain: name.Done, name.NightLoad: name.Failed, name.NightKPIs: name.Skipped,
		name.NightFeatures: name.Skipped, name.NightExperiments: name.Skipped, name.NightRecommendations: name.Skipped, name.NightForecasts: name.Skipped, name.NightReconcile: name.Skipped,
	}
	if diff := cmp.Diff(want, outcomes(w)); diff != "" {
		t.Error(diff)
	}
	if i := slices.IndexFunc(w.steps, func(n activities.StepNote) bool { return n.Result.Step == name.NightLoad }); i < 0 || w.steps[i].Result.Numbers["failed"] != 1 {
		t.Errorf("one table of two is not loaded: %+v", w.steps)
	}
	if slices.Contains(s.ran, "bigquery/events_page") || !slices.Contains(s.ran, "bigquery/events_cart") || !slices.Contains(s.ran, "publish/events_cart") || w.ended[0].Outcome != name.Failed || w.ended[0].Reason != name.NightFailed {
		t.Errorf("ran %v, ended %+v", s.ran, w.ended)
	}
}

// need ends a test early, as failed, where a type that it names is not there.
func need(t *testing.T, types ...string) {
	t.Helper()
	for _, typ := range types {
		if _, err := name.TypeNamed(typ); err != nil {
			t.Fatal(err)
		}
	}
}

func TestANightStartedAgainDoesOnlyWhatIsNotDone(t *testing.T) {
	t.Parallel()
	plan := activities.NightPlan{Tables: []string{"events_cart", "events_page"}, Off: off(others...)}
	plan.Off[name.NightGaps] = "not here"
	w := &world{}
	s := &sky{plan: plan, done: map[string][]string{"2026-10-22": {"maintain/events_cart"}}}
	if _, err := runNight(t, w, s, map[string]any{"day": "2026-10-22"}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.ran, []string{"maintain/events_page"}) || w.ended[0].Numbers["done_before"] != 1 {
		t.Errorf("a part that is done ran again: %v", s.ran)
	}
	again := &world{done: []name.StepResult{{Step: name.NightMaintain, Outcome: name.Skipped}}}
	s = &sky{plan: plan}
	if _, err := runNight(t, again, s, map[string]any{"day": "2026-10-22"}); err != nil {
		t.Fatal(err)
	}
	if len(s.ran) != 0 || again.ended[0].Outcome != name.Done {
		t.Errorf("a step that is done ran again: %v", s.ran)
	}
	if w.begun[0].Input != again.begun[0].Input {
		t.Error("the two runs are not the same work")
	}
	forced := &world{done: again.done}
	s = &sky{plan: plan, done: map[string][]string{"2026-10-22": {"maintain/events_cart"}}}
	if _, err := runNight(t, forced, s, map[string]any{"day": "2026-10-22", "force": true}); err != nil {
		t.Fatal(err)
	}
	if len(s.ran) != 2 || forced.begun[0].Input != w.begun[0].Input || strings.Contains(s.inputs["maintain/events_cart"], `"run":"2026-10-22"`) {
		t.Errorf("force ran %v with %v", s.ran, s.inputs)
	}
}

func TestSomeStepsOfANightArePartOfIt(t *testing.T) {
	t.Parallel()
	w, s := &world{}, &sky{plan: activities.NightPlan{Tables: []string{"events_page"}, Off: off(others...)}}
	if _, err := runNight(t, w, s, map[string]any{"day": "2026-10-22", "steps": []string{"maintain"}}); err != nil {
		t.Fatal(err)
	}
	if w.ended[0].Outcome != name.Partial || !slices.Equal(s.ran, []string{"maintain/events_page"}) {
		t.Errorf("%+v, ran %v", w.ended[0], s.ran)
	}
	w, s = &world{done: []name.StepResult{{Step: name.NightGaps, Outcome: name.Skipped}}}, &sky{plan: activities.NightPlan{Tables: []string{"events_page"}, Off: off(others...)}}
	if _, err := runNight(t, w, s, map[string]any{"day": "2026-10-22", "steps": []string{"maintain"}}); err != nil {
		t.Fatal(err)
	}
	if w.ended[0].Outcome != name.Done {
		t.Errorf("the last step that was missing leaves the night %s", w.ended[0].Outcome)
	}
}

func TestAFailedStepMayBeApproved(t *testing.T) {
	t.Parallel()
	need(t, name.PublishTable, name.LoadBigQuery)
	w := &world{}
	s := &sky{
		plan: activities.NightPlan{Tables: []string{"events_page"}, Loads: []string{"events_page"}, Off: off(name.NightGaps, name.NightMaintain, name.NightKPIs, name.NightRecommendations, name.NightForecasts, name.NightReconcile)},
		fail: map[string]string{"publish/events_page": "GateFailed"},
	}
	var early, empty, taken updates
	_, err := runNight(t, w, s, map[string]any{"day": "2026-10-22", "hold": "2h"}, func(env *testsuite.TestWorkflowEnvironment) {
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(name.Approve, "1", &early, name.Approval{Reason: "x"}) }, 0)
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(name.Approve, "2", &empty, name.Approval{}) }, time.Hour)
		env.RegisterDelayedCallback(func() {
			env.UpdateWorkflow(name.Approve, "3", &taken, name.Approval{Reason: "known gap"})
		}, 90*time.Minute)
	})
	if err == nil || w.ended[0].Outcome != name.Failed {
		t.Errorf("a night with a failed step ended %+v, %v", w.ended[0], err)
	}
	if early.rejected == nil || empty.rejected == nil || !strings.Contains(empty.rejected.Error(), "reason: is missing") || !taken.accepted || taken.err != nil {
		t.Errorf("early %+v, empty %+v, taken %+v", early, empty, taken)
	}
	if !slices.Contains(s.ran, "bigquery/events_page") {
		t.Errorf("after the approval ran %v", s.ran)
	}
}

func TestAtMostFourPartsOfANightRunAtATimeAndNoneWhilePaused(t *testing.T) {
	t.Parallel()
	w, s := &world{}, &sky{plan: activities.NightPlan{Off: off(others...)}}
	for i := range 12 {
		s.plan.Tables = append(s.plan.Tables, fmt.Sprintf("events_%d", i))
	}
	arrived, open := make(chan struct{}, 12), make(chan struct{})
	go func() {
		for range 4 {
			<-arrived
		}
		close(open)
	}()
	s.gate = func(string) { arrived <- struct{}{}; <-open }
	var paused updates
	var before int
	_, err := runNight(t, w, s, map[string]any{"day": "2026-10-22", "gaps": -1}, func(env *testsuite.TestWorkflowEnvironment) {
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(name.Pause, "1", &paused) }, 0)
		env.RegisterDelayedCallback(func() { s.mu.Lock(); before = len(s.ran); s.mu.Unlock() }, time.Hour)
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(name.Resume, "2", &updates{}) }, 2*time.Hour)
	})
	if err != nil {
		t.Fatal(err)
	}
	if before != 0 || s.most != 4 || len(s.ran) != 12 || !paused.accepted {
		t.Errorf("%d ran while paused; at most %d at a time, %d in all", before, s.most, len(s.ran))
	}
}

func TestACancelledNightIsNotedAndStopsStarting(t *testing.T) {
	t.Parallel()
	w, s := &world{}, &sky{plan: activities.NightPlan{Tables: []string{"events_page"}, Off: off(others...)}}
	var paused updates
	_, err := runNight(t, w, s, map[string]any{"day": "2026-10-22"}, func(env *testsuite.TestWorkflowEnvironment) {
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(name.Pause, "1", &paused) }, 0)
		env.RegisterDelayedCallback(env.CancelWorkflow, time.Hour)
	})
	if !temporal.IsCanceledError(err) || w.ended[0].Outcome != name.Canceled || len(s.ran) != 0 {
		t.Errorf("%v, ended %+v, ran %v", err, w.ended, s.ran)
	}
}

func TestTheTickOfANightSaysWhichNight(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 10, 23, 2, 0, 0, 0, time.UTC)
	for what, c := range map[string]struct{ input, id, want string }{
		"once a day, the day that is over":  {`{}`, "nightly/2026-10-22", `{"day":"2026-10-22"}`},
		"short nights, the scheduled time":  {`{"every": "1m"}`, "nightly/2026-10-23T02:00:00Z", `{"day":"2026-10-23T02:00:00Z","every":"1m"}`},
		"a day that the input says":         {`{"day": "2026-01-01"}`, "nightly/2026-01-01", `{"day":"2026-01-01"}`},
		"and what is not about the day too": {`{"hold": "2h"}`, "nightly/2026-10-22", `{"day":"2026-10-22","hold":"2h"}`},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w, s := &world{}, &sky{}
			env := newEnv(t, w)
			s.register(env)
			if err := env.SetTypedSearchAttributesOnStart(temporal.NewSearchAttributes(name.ScheduledStart.ValueSet(at))); err != nil {
				t.Fatal(err)
			}
			env.ExecuteWorkflow(name.Nightly+name.TickSuffix, json.RawMessage(c.input))
			if err := env.GetWorkflowError(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, s.inputs[c.id]); diff != "" {
				t.Errorf("%v: %s", s.ran, diff)
			}
		})
	}
}

func TestANightOfAWrongInputIsRefused(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]string{
		`{}`:                    "day: is missing",
		`{"day": "22.10.2026"}`: "neither a day such as",
		`{"day": "2026-02-30"}`: "neither a day such as",
		`{"day": "2026-10-23"}`: "is not over before 2026-10-24T00:00:00Z",
		`{"day": "2026-10-23T02:01:00Z", "every": "1m"}`: "is not over before",
		`{"day": "2026-10-22", "steps": ["loads"]}`:      "steps[0]",
		`{"day": "2026-10-22", "every": "1m"}`:           "every: 1m goes with the time of a night",
		`{"day": "2026-10-22", "gaps": 365}`:             "gaps: 365 is not between -1 and 100",
		`{"dya": "2026-10-22"}`:                          "dya: unknown field, did you mean day?",
		`{"day": "2026-10-22", "hold": "30d"}`:           "hold: 30d is above 7d",
		`{"day": "2026-10-22", "run": "a b"}`:            "run:",
		`{"day": "2026-10-22", "force": "yes"}`:          "true or false",
		`{"day": "2026-10-22", "days": "2026-10-2"}`:     "days: unknown field",
	} {
		w, s := &world{}, &sky{}
		_, err := runNight(t, w, s, json.RawMessage(input))
		var app *temporal.ApplicationError
		if !errors.As(err, &app) || app.Type() != name.InvalidInput || !strings.Contains(app.Message(), want) || len(w.calls) > 0 {
			t.Errorf("%s: %v", input, err)
		}
	}
}
