package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"millrace/activities"
	"millrace/workflows"
	"millrace/workflows/name"
)

// world is a fake of the activities: the plans that it gives in turn, what commits answer, and what was called.
type world struct {
	mu       sync.Mutex
	plans    []activities.PlanOutput
	conflict int   // commits that meet a conflict before one succeeds
	lane     error // answer of the stream's committer
	done     []name.StepResult
	group    func(activities.GroupInput) error
	fail     map[string]error
	calls    []string
	begun    []activities.Run
	steps    []activities.StepNote
	ended    []activities.RunEnd
	dropped  []string
	most     int
	running  int
}

func (w *world) call(n string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, n)
	return w.fail[n]
}

func (w *world) count(n string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := 0
	for _, k := range w.calls {
		if k == n {
			c++
		}
	}
	return c
}

func (w *world) register(env *testsuite.TestWorkflowEnvironment) {
	for n, f := range map[string]any{
		name.BeginRun: func(_ context.Context, r activities.Run) (activities.BeginOutput, error) {
			w.mu.Lock()
			w.begun = append(w.begun, r)
			w.mu.Unlock()
			return activities.BeginOutput{Snapshot: 11, Done: w.done}, w.call(name.BeginRun)
		},
		name.NoteStep: func(_ context.Context, n activities.StepNote) error {
			w.mu.Lock()
			w.steps = append(w.steps, n)
			w.mu.Unlock()
			return w.call(name.NoteStep)
		},
		name.EndRun: func(_ context.Context, e activities.RunEnd) error {
			w.mu.Lock()
			w.ended = append(w.ended, e)
			w.mu.Unlock()
			return w.call(name.EndRun)
		},
		name.PlanTable: func(_ context.Context, in activities.PlanInput) (activities.PlanOutput, error) {
			err := w.call(name.PlanTable)
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.plans) == 0 {
				return activities.PlanOutput{Key: in.Key}, err
			}
			out := w.plans[0]
			w.plans = w.plans[1:]
			out.Key = in.Key
			return out, err
		},
		name.CompactGroup: func(ctx context.Context, in activities.GroupInput) (activities.GroupOutput, error) {
			w.mu.Lock()
			w.running++
			w.most = max(w.most, w.running)
			w.mu.Unlock()
			defer func() { w.mu.Lock(); w.running--; w.mu.Unlock() }()
			err := w.call(name.CompactGroup)
			if err == nil && w.group != nil {
				err = w.group(in)
			}
			return activities.GroupOutput{Files: 10, Bytes: 1000, Rows: 100}, err
		},
		name.CommitRewrite: func(ctx context.Context, _ activities.PlanRef) (activities.CommitOutput, error) {
			by := "direct"
			if strings.HasPrefix(activity.GetInfo(ctx).TaskQueue, "lake-commit.") {
				by = "lane"
			}
			err := w.call("commit by " + by)
			w.mu.Lock()
			defer w.mu.Unlock()
			if by == "lane" && w.lane != nil {
				return activities.CommitOutput{}, w.lane
			}
			if w.conflict > 0 {
				w.conflict--
				return activities.CommitOutput{}, temporal.NewNonRetryableApplicationError("others", name.Conflict, nil)
			}
			return activities.CommitOutput{SnapshotID: 12, Removed: 10, Added: 1, By: by, BytesRemoved: 1000, BytesAdded: 900, ReadBefore: 40, ReadAfter: 10}, err
		},
		name.DropPlan: func(_ context.Context, r activities.PlanRef) error {
			w.mu.Lock()
			w.dropped = append(w.dropped, r.Key)
			w.mu.Unlock()
			return w.call(name.DropPlan)
		},
		name.RewriteManifests: w.plain(name.RewriteManifests), name.ExpireSnapshots: w.plain(name.ExpireSnapshots), name.RemoveOrphans: w.plain(name.RemoveOrphans),
	} {
		env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: n})
	}
}

func (w *world) plain(n string) any {
	return func(context.Context, name.MaintainTableInput) (activities.StepOutput, error) {
		return activities.StepOutput{Numbers: map[string]int64{n: 1}}, w.call(n)
	}
}

func newEnv(t *testing.T, w *world) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	var s testsuite.WorkflowTestSuite
	s.SetLogger(tlog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := s.NewTestWorkflowEnvironment()
	workflows.Register(env)
	w.register(env)
	env.SetTestTimeout(30 * time.Second)
	env.SetStartTime(time.Date(2026, 10, 23, 2, 0, 0, 0, time.UTC)) // nights are of days that are over
	return env
}

func result(t *testing.T, env *testsuite.TestWorkflowEnvironment) name.MaintainResult {
	t.Helper()
	if !env.IsWorkflowCompleted() {
		t.Fatal("the workflow has not ended")
	}
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	var r name.MaintainResult
	if err := env.GetWorkflowResult(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

func plan(groups int) activities.PlanOutput {
	return activities.PlanOutput{SnapshotID: 11, Groups: groups, Files: int64(groups) * 10, Bytes: int64(groups) * 1000, Rows: int64(groups) * 100}
}

var table = name.MaintainTableInput{Table: "events_page"}

func TestAllStepsAreDoneInOrderAndNoted(t *testing.T) {
	t.Parallel()
	w := &world{plans: []activities.PlanOutput{plan(3)}}
	env := newEnv(t, w)
	env.ExecuteWorkflow(name.MaintainTable, table)
	r := result(t, env)
	if r.Outcome != name.Done || r.Rounds != 1 || r.Bytes != 3000 || r.Rows != 300 {
		t.Errorf("result: %+v", r)
	}
	var order []string
	for _, c := range w.calls {
		if c != name.CompactGroup && c != name.NoteStep {
			order = append(order, c)
		}
	}
	want := []string{name.BeginRun, name.PlanTable, "commit by lane", name.DropPlan, name.RewriteManifests, name.ExpireSnapshots, name.RemoveOrphans, name.EndRun}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Error(diff)
	}
	if w.count(name.CompactGroup) != 3 || len(w.steps) != 4 || len(w.ended) != 1 || w.ended[0].Outcome != name.Done || w.ended[0].Run.Snapshot != 11 {
		t.Errorf("groups %d, steps %d, ended %+v", w.count(name.CompactGroup), len(w.steps), w.ended)
	}
	if n := w.ended[0].Numbers; n["files_removed"] != 10 || n["groups"] != 3 || n["commits_lane"] != 1 {
		t.Errorf("numbers: %v", n)
	}
}

func TestOnlyTheStepsOfTheInputAreDone(t *testing.T) {
	t.Parallel()
	w := &world{}
	env := newEnv(t, w)
	env.ExecuteWorkflow(name.MaintainTable, name.MaintainTableInput{Table: "events_page", Steps: []string{"orphans", "manifests"}})
	result(t, env)
	if w.count(name.PlanTable)+w.count(name.ExpireSnapshots) != 0 || w.count(name.RewriteManifests) != 1 || w.count(name.RemoveOrphans) != 1 {
		t.Error(w.calls)
	}
}

func TestAWrongInputIsRefusedWithAllItsProblemsBeforeAnythingIsDone(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		input any
		want  []string
	}{
		"a typo":             {map[string]any{"tabel": "events_page"}, []string{"tabel: unknown field, did you mean table?"}},
		"several problems":   {map[string]any{"table": "X", "steps": []string{"y"}}, []string{"table:", "steps[0]:"}},
		"another type":       {[]int{1}, []string{"an object is expected"}},
		"bytes and no JSON":  {[]byte("events_page"), []string{"encoded as binary/plain"}},
		"nothing":            {nil, []string{"table: is missing"}},
		"a wrong duration":   {map[string]any{"table": "t", "snapshot_age": 7}, []string{"snapshot_age: 7 is not a duration"}},
		"a tick with a typo": {map[string]any{"table": "t", "snapshotage": "7d"}, []string{"snapshotage: unknown field, did you mean snapshot_age?"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for _, typ := range []string{name.MaintainTable, name.MaintainTableTick} {
				w := &world{}
				env := newEnv(t, w)
				env.ExecuteWorkflow(typ, c.input)
				var app *temporal.ApplicationError
				if err := env.GetWorkflowError(); !errors.As(err, &app) || app.Type() != name.InvalidInput || !app.NonRetryable() {
					t.Fatalf("%s: %v", typ, err)
				}
				for _, part := range c.want {
					if !strings.Contains(app.Message(), part) {
						t.Errorf("%s: %q does not say %q", typ, app.Message(), part)
					}
				}
				if len(w.calls) > 0 {
					t.Errorf("%s did %v", typ, w.calls)
				}
			}
		})
	}
}

func TestAConflictLeadsToANewPlanAFewTimes(t *testing.T) {
	t.Parallel()
	w := &world{plans: []activities.PlanOutput{plan(2), plan(2), plan(2)}, conflict: 2}
	env := newEnv(t, w)
	env.ExecuteWorkflow(name.MaintainTable, table)
	r := result(t, env)
	if r.Rounds != 3 || len(w.dropped) != 3 || w.count(name.CompactGroup) != 6 || w.ended[0].Numbers["conflicts"] != 2 {
		t.Errorf("%+v, dropped %v", r, w.dropped)
	}
	if u := slices.Compact(slices.Sorted(slices.Values(w.dropped))); len(u) != 3 {
		t.Errorf("plans share a folder: %v", w.dropped)
	}

	w = &world{conflict: 100}
	for range 10 {
		w.plans = append(w.plans, plan(1))
	}
	env = newEnv(t, w)
	env.ExecuteWorkflow(name.MaintainTable, table)
	var app *temporal.ApplicationError
	if err := env.GetWorkflowError(); !errors.As(err, &app) || app.Type() != name.StillConflict {
		t.Errorf("conflicts without end: %v", err)
	}
	if w.count(name.PlanTable) != 5 || w.ended[0].Outcome != name.Failed || w.ended[0].Reason != name.StillConflict || w.count(name.ExpireSnapshots) != 0 {
		t.Errorf("plans %d, ended %+v", w.count(name.PlanTable), w.ended)
	}
}

func TestAPlanThatLeavesWorkIsFollowedByTheNext(t *testing.T) {
	t.Parallel()
	first := plan(2)
	first.Left = 7
	w := &world{plans: []activities.PlanOutput{first, plan(1)}}
	env := newEnv(t, w)
	env.ExecuteWorkflow(name.MaintainTable, table)
	if r := result(t, env); r.Rounds != 2 || w.count(name.CompactGroup) != 3 || r.Bytes != 3000 {
		t.Errorf("%+v", r)
	}
}

func TestTheRunCommitsByItselfWhereTheCommitterDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for what, err := range map[string]error{
		"nobody polls its queue":           temporal.NewTimeoutError(enums.TIMEOUT_TYPE_SCHEDULE_TO_START, nil),
		"it died while it committed":       temporal.NewTimeoutError(enums.TIMEOUT_TYPE_START_TO_CLOSE, nil),
		"it no longer owns the table":      temporal.NewApplicationError("not mine", name.NotCommitter),
		"it does not see the plan's files": temporal.NewNonRetryableApplicationError("no plan.json", name.PlanLost, nil),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := &world{plans: []activities.PlanOutput{plan(1)}, lane: err}
			env := newEnv(t, w)
			env.ExecuteWorkflow(name.MaintainTable, table)
			result(t, env)
			if w.count("commit by direct") != 1 || w.ended[0].Numbers["commits_direct"] != 1 {
				t.Errorf("%v", w.calls)
			}
		})
	}
}

func TestTheRunDoesNotAskForACommitterThatThePlanDidNotSee(t *testing.T) {
	t.Parallel()
	alone := plan(1)
	alone.NoCommitter = true
	w := &world{plans: []activities.PlanOutput{alone}}
	env := newEnv(t, w)
	env.ExecuteWorkflow(name.MaintainTable, table)
	result(t, env)
	if w.count("commit by lane") != 0 || w.count("commit by direct") != 1 {
		t.Errorf("%v", w.calls)
	}
}

func TestAtMost64GroupsAreUnderWay(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := &world{plans: []activities.PlanOutput{plan(150)}}
	var seen sync.WaitGroup
	seen.Add(64)
	var once sync.Once
	w.group = func(activities.GroupInput) error {
		w.mu.Lock()
		n := len(w.calls)
		w.mu.Unlock()
		if n <= 66 { // begin, plan, 64 groups
			seen.Done()
		}
		once.Do(func() { go func() { seen.Wait(); close(gate) }() })
		<-gate
		return nil
	}
	env := newEnv(t, w)
	env.ExecuteWorkflow(name.MaintainTable, table)
	result(t, env)
	if w.most != 64 || w.count(name.CompactGroup) != 150 {
		t.Errorf("%d at a time, %d in all", w.most, w.count(name.CompactGroup))
	}
}

// updates collects what updates answer.
type updates struct {
	rejected error
	accepted bool
	result   any
	err      error
}

func (u *updates) Accept()                         { u.accepted = true }
func (u *updates) Reject(err error)                { u.rejected = err }
func (u *updates) Complete(success any, err error) { u.result, u.err = success, err }

func TestAPausedRunStartsNothingUntilItIsResumed(t *testing.T) {
	t.Parallel()
	w := &world{plans: []activities.PlanOutput{plan(2)}}
	env := newEnv(t, w)
	var paused, again, resumed, twice updates
	var during name.MaintainProgress
	var calls int
	env.RegisterDelayedCallback(func() { env.UpdateWorkflow(name.Pause, "1", &paused) }, 0)
	env.RegisterDelayedCallback(func() { env.UpdateWorkflow(name.Pause, "2", &again) }, time.Minute)
	env.RegisterDelayedCallback(func() {
		v, err := env.QueryWorkflow(name.Progress)
		if err == nil {
			err = v.Get(&during)
		}
		if err != nil {
			t.Error(err)
		}
		calls = w.count(name.CompactGroup) + w.count(name.PlanTable)
	}, time.Hour)
	env.RegisterDelayedCallback(func() { env.UpdateWorkflow(name.Resume, "3", &resumed) }, 2*time.Hour)
	env.RegisterDelayedCallback(func() { env.UpdateWorkflow(name.Resume, "4", &twice) }, 2*time.Hour)
	env.ExecuteWorkflow(name.MaintainTable, table)
	result(t, env)
	if !paused.accepted || paused.err != nil || !resumed.accepted || resumed.err != nil {
		t.Errorf("pause %+v, resume %+v", paused, resumed)
	}
	if again.rejected == nil || !strings.Contains(again.rejected.Error(), "it is paused already") {
		t.Errorf("a second pause: %+v", again)
	}
	if twice.rejected == nil || !strings.Contains(twice.rejected.Error(), "it is not paused") {
		t.Errorf("a second resume: %+v", twice)
	}
	if !during.Paused || during.Phase != name.StepCompact || calls != 0 {
		t.Errorf("while paused: %+v, %d calls", during, calls)
	}
	if w.count(name.CompactGroup) != 2 {
		t.Error(w.calls)
	}
}

func TestStepsThatAreDoneUnderTheSameRunAreSkipped(t *testing.T) {
	t.Parallel()
	w := &world{done: []name.StepResult{{Step: name.StepCompact, Outcome: name.Skipped}, {Step: name.StepManifests, Outcome: name.Skipped}}}
	env := newEnv(t, w)
	in := table
	in.Run = "2026-10-22"
	env.ExecuteWorkflow(name.MaintainTable, in)
	r := result(t, env)
	if w.count(name.PlanTable)+w.count(name.RewriteManifests) != 0 || w.count(name.ExpireSnapshots) != 1 || w.count(name.RemoveOrphans) != 1 {
		t.Error(w.calls)
	}
	if len(r.Steps) != 4 || r.Steps[0].Outcome != name.Skipped || w.begun[0].Run != "2026-10-22" || len(w.steps) != 2 {
		t.Errorf("%+v", r)
	}
}

func TestAFailedStepEndsTheRunWithItsNote(t *testing.T) {
	t.Parallel()
	w := &world{fail: map[string]error{name.ExpireSnapshots: temporal.NewNonRetryableApplicationError("it holds what it was given", "MR-ICE-003", nil)}}
	env := newEnv(t, w)
	env.ExecuteWorkflow(name.MaintainTable, table)
	if env.GetWorkflowError() == nil {
		t.Fatal("it succeeded")
	}
	if w.count(name.RemoveOrphans) != 0 || len(w.ended) != 1 || w.ended[0].Outcome != name.Failed || w.ended[0].Reason != "MR-ICE-003" {
		t.Errorf("%v, %+v", w.calls, w.ended)
	}
	if last := w.steps[len(w.steps)-1].Result; last.Outcome != name.Failed || last.Reason != "MR-ICE-003" {
		t.Errorf("%+v", last)
	}
}

func TestAFailedGroupDropsThePlan(t *testing.T) {
	t.Parallel()
	w := &world{plans: []activities.PlanOutput{plan(5)}}
	w.group = func(in activities.GroupInput) error {
		if in.Group == 3 {
			return temporal.NewNonRetryableApplicationError("lost", name.PlanLost, nil)
		}
		return nil
	}
	env := newEnv(t, w)
	env.ExecuteWorkflow(name.MaintainTable, table)
	if env.GetWorkflowError() == nil || len(w.dropped) != 1 || w.count("commit by lane") != 0 || w.ended[0].Reason != name.PlanLost {
		t.Errorf("%v, %v, %+v", env.GetWorkflowError(), w.calls, w.ended)
	}
}

func TestACancelledRunDropsItsPlanAndNotesIt(t *testing.T) {
	t.Parallel()
	w := &world{plans: []activities.PlanOutput{plan(2)}}
	env := newEnv(t, w)
	w.group = func(in activities.GroupInput) error {
		if in.Group == 0 {
			env.RegisterDelayedCallback(env.CancelWorkflow, 0)
		}
		return errors.New("tried again until then")
	}
	env.ExecuteWorkflow(name.MaintainTable, table)
	if err := env.GetWorkflowError(); err == nil || !temporal.IsCanceledError(errors.Unwrap(err)) && !temporal.IsCanceledError(err) {
		t.Errorf("it ended with %v", err)
	}
	if len(w.dropped) != 1 || len(w.ended) != 1 || w.ended[0].Outcome != name.Canceled {
		t.Errorf("dropped %v, ended %+v", w.dropped, w.ended)
	}
}

func TestALongHistoryGoesOnInANewOne(t *testing.T) {
	t.Parallel()
	w := &world{plans: []activities.PlanOutput{plan(100)}}
	env := newEnv(t, w)
	env.SetContinueAsNewSuggested(true)
	env.ExecuteWorkflow(name.MaintainTable, table)
	var next *workflow.ContinueAsNewError
	rounds := 0
	for errors.As(env.GetWorkflowError(), &next) {
		if rounds++; rounds > 10 {
			t.Fatal("it goes on without end")
		}
		args := next.Input.GetPayloads()
		if len(args) != 2 {
			t.Fatalf("%d arguments", len(args))
		}
		var in name.MaintainTableInput
		var state json.RawMessage
		if err := errors.Join(json.Unmarshal(args[0].GetData(), &in), json.Unmarshal(args[1].GetData(), &state)); err != nil {
			t.Fatal(err)
		}
		if len(state) > 4<<10 {
			t.Errorf("%d bytes of state", len(state))
		}
		env = newEnv(t, w)
		env.SetContinueAsNewSuggested(rounds < 3)
		env.ExecuteWorkflow(name.MaintainTable, in, state)
	}
	r := result(t, env)
	if rounds == 0 || w.count(name.CompactGroup) != 100 || w.count(name.BeginRun) != 1 || w.count(name.PlanTable) != 1 || w.count("commit by lane") != 1 || r.Rows != 10_000 {
		t.Errorf("%d executions, %+v", rounds, r)
	}
}

func TestATickStartsTheCanonicalRunUnderItsScheduledTime(t *testing.T) {
	t.Parallel()
	w := &world{}
	env := newEnv(t, w)
	at := time.Date(2026, 10, 22, 3, 0, 0, 0, time.UTC)
	if err := env.SetTypedSearchAttributesOnStart(temporal.NewSearchAttributes(name.ScheduledStart.ValueSet(at))); err != nil {
		t.Fatal(err)
	}
	var got activities.StartRequest
	env.RegisterActivityWithOptions(func(_ context.Context, r activities.StartRequest) (activities.WaitOutput, error) {
		got = r
		return activities.WaitOutput{Started: activities.Started{ID: "maintain/events_page", RunID: "r"}, Result: json.RawMessage(`{}`)}, nil
	}, activity.RegisterOptions{Name: name.StartAndWait})
	env.ExecuteWorkflow(name.MaintainTableTick, table)
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	want := activities.StartRequest{
		Type: name.MaintainTable, Input: json.RawMessage(`{"table":"events_page","run":"2026-10-22T03:00:00Z"}`), Trigger: name.Scheduled, Day: "2026-10-22",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHistoriesStaySmall(t *testing.T) {
	t.Parallel()
	w := &world{plans: []activities.PlanOutput{plan(500)}}
	env := newEnv(t, w)
	env.ExecuteWorkflow(name.MaintainTable, table)
	r := result(t, env)
	b, err := json.Marshal(r)
	if err != nil || len(b) > 2<<10 {
		t.Errorf("the result of 500 groups has %d bytes, %v", len(b), err)
	}
}
