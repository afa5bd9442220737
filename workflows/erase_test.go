package workflows_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"millrace/activities"
	"millrace/workflows/name"
)

// stores is what a faked erasure finds.
type stores struct {
	calls     []string
	held      int // looks at refs that find published behind
	refuse    bool
	left      map[int]int64 // rows that a round of purging leaves
	waiting   map[int]int64 // files
	rounds    int
	certified []activities.CertifyInput
	failIn    string
	failed    int
	at        []time.Time // of purges
}

func (s *stores) register(env *testsuite.TestWorkflowEnvironment) {
	add := func(n string, f any) { env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: n}) }
	note := func(what string) { s.calls = append(s.calls, what) }
	add(name.EraseScope, func(_ context.Context, in name.EraseSubjectInput) (activities.EraseScopeOutput, error) {
		note("scope")
		return activities.EraseScopeOutput{
			ClickHouse: []string{"events_page"}, Lake: []string{"events_page"}, Subjects: in.Subjects, RequestedAt: env.Now(), Settle: time.Minute, PhysicalAfter: 7 * 24 * time.Hour, Grace: time.Hour,
		}, nil
	})
	add(name.EraseLedger, func(context.Context, name.EraseSubjectInput) (activities.StepOutput, error) {
		note("ledger")
		return activities.StepOutput{Numbers: map[string]int64{"subjects": 2}}, nil
	})
	place := func(n string, numbers map[string]int64) {
		add(n, func(_ context.Context, in activities.EraseTableInput) (activities.StepOutput, error) {
			note(strings.TrimPrefix(n, "erase."))
			if n == s.failIn && s.failed > 0 {
				s.failed--
				return activities.StepOutput{}, temporal.NewApplicationError("away", "")
			}
			return activities.StepOutput{Numbers: numbers}, nil
		})
	}
	place(name.EraseClickHouse, map[string]int64{"rows": 10})
	place(name.EraseRedis, map[string]int64{"rows": 1})
	place(name.EraseIceberg, map[string]int64{"rows": 10, "files": 3, "sequence": 42})
	place(name.EraseBigQuery, nil)
	add(name.EraseRefs, func(_ context.Context, in activities.EraseTableInput) (activities.RefsOutput, error) {
		note("refs")
		out := activities.RefsOutput{Numbers: map[string]int64{"refs": 2, "sequence_asked": in.Sequence}}
		if s.held > 0 {
			s.held--
			out.Held, out.Numbers["refs_held"] = []string{"published"}, 1
		}
		return out, nil
	})
	add(name.StartAndWait, func(_ context.Context, r activities.StartRequest) (activities.WaitOutput, error) {
		note("start " + r.Type + " " + string(r.Input))
		if s.refuse {
			return activities.WaitOutput{}, temporal.NewNonRetryableApplicationError("the gate is shut", "GateFailed", nil)
		}
		return activities.WaitOutput{Result: json.RawMessage("{}")}, nil
	})
	add(name.EraseForget, func(context.Context, activities.EraseTableInput) error { note("forget"); return nil })
	add(name.ErasePurge, func(_ context.Context, in activities.EraseTableInput) (activities.RefsOutput, error) {
		note("purge")
		s.at = append(s.at, in.At)
		out := activities.RefsOutput{Numbers: map[string]int64{"left": s.left[s.rounds], "files_waiting": s.waiting[s.rounds]}}
		s.rounds++
		return out, nil
	})
	add(name.EraseCertify, func(_ context.Context, in activities.CertifyInput) (activities.CertifyOutput, error) {
		note("certify " + in.Phase)
		s.certified = append(s.certified, in)
		return activities.CertifyOutput{Stores: 1}, nil
	})
	add(name.ExportWrite, func(_ context.Context, in name.ExportSubjectInput) (name.ExportResult, error) {
		note("write")
		return name.ExportResult{Request: in.Request, Rows: 5}, nil
	})
	add(name.ExportRemove, func(context.Context, name.ExportSubjectInput) error { note("remove"); return nil })
}

// fakeErase lets the examples of erasures end well.
func fakeErase(env *testsuite.TestWorkflowEnvironment) {
	env.RegisterActivityWithOptions(func(_ context.Context, in name.EraseSubjectInput) (activities.EraseScopeOutput, error) {
		return activities.EraseScopeOutput{ClickHouse: []string{"events_page"}, Lake: []string{"events_page"}, Subjects: in.Subjects, RequestedAt: env.Now()}, nil
	}, activity.RegisterOptions{Name: name.EraseScope})
	for n, f := range map[string]any{
		name.EraseLedger: func(context.Context, name.EraseSubjectInput) (activities.StepOutput, error) {
			return activities.StepOutput{}, nil
		},
		name.EraseForget: func(context.Context, activities.EraseTableInput) error { return nil },
		name.EraseCertify: func(context.Context, activities.CertifyInput) (activities.CertifyOutput, error) {
			return activities.CertifyOutput{}, nil
		},
		name.ExportWrite: func(context.Context, name.ExportSubjectInput) (name.ExportResult, error) {
			return name.ExportResult{}, nil
		},
		name.ExportRemove: func(context.Context, name.ExportSubjectInput) error { return nil },
	} {
		env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: n})
	}
	for _, n := range []string{name.EraseClickHouse, name.EraseRedis, name.EraseIceberg, name.EraseBigQuery} {
		env.RegisterActivityWithOptions(func(context.Context, activities.EraseTableInput) (activities.StepOutput, error) {
			return activities.StepOutput{}, nil
		}, activity.RegisterOptions{Name: n})
	}
	for _, n := range []string{name.EraseRefs, name.ErasePurge} {
		env.RegisterActivityWithOptions(func(context.Context, activities.EraseTableInput) (activities.RefsOutput, error) {
			return activities.RefsOutput{}, nil
		}, activity.RegisterOptions{Name: n})
	}
}

func erase(t *testing.T, s *stores, input string) (name.EraseResult, *testsuite.TestWorkflowEnvironment, error) {
	t.Helper()
	w := &world{}
	env := newEnv(t, w)
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute}) // the machine may be busy
	s.register(env)
	env.ExecuteWorkflow(name.EraseSubject, json.RawMessage(input))
	if !env.IsWorkflowCompleted() {
		t.Fatal("the erasure has not ended")
	}
	var r name.EraseResult
	if err := env.GetWorkflowError(); err != nil {
		return r, env, err
	}
	return r, env, env.GetWorkflowResult(&r)
}

const request = `{"request": "20261122-5f3a9c01", "subjects": 2}`

func TestAnErasureIsInTheLedgerFirstAndCertifiedTwice(t *testing.T) {
	t.Parallel()
	s := &stores{held: 1, waiting: map[int]int64{0: 4}}
	r, _, err := erase(t, s, request)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"scope", "ledger", "clickhouse", "redis", "iceberg", "refs", `start PublishTable {"table":"events_page"}`, "refs", "forget", "certify logical", "purge", "purge", "certify physical"}
	if diff := cmp.Diff(want, s.calls); diff != "" {
		t.Error(diff)
	}
	if r.Rows != 21 || r.Files != 3 || r.Rounds != 2 {
		t.Errorf("%+v", r)
	}
	logical, physical := s.certified[0], s.certified[1]
	if week := s.at[0].Sub(logical.At); week < 6*24*time.Hour || !physical.At.After(logical.PhysicalBy) {
		t.Errorf("purged %s after the logical state, certified %s for %s", week, physical.At, logical.PhysicalBy)
	}
	if grace := s.at[1].Sub(s.at[0]); grace < time.Hour || grace > 2*time.Hour {
		t.Errorf("files that wait for readers are looked at again after %s", grace)
	}
	if !slices.ContainsFunc(logical.Steps, func(r name.StepResult) bool { return r.Step == "iceberg/events_page" && r.Numbers["rows"] == 10 }) {
		t.Errorf("the certificate does not know what was done: %+v", logical.Steps)
	}
}

func TestAGateThatIsShutDoesNotStopAnErasureButIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := &stores{held: 1, refuse: true, left: map[int]int64{0: 7, 1: 7}}
	if _, _, err := erase(t, s, request); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(strings.Join(s.calls, ","), "purge"); n != 3 {
		t.Errorf("%d rounds: %v", n, s.calls)
	}
	if day := s.at[1].Sub(s.at[0]); day < 23*time.Hour {
		t.Errorf("rows that a ref holds are looked at again after %s", day)
	}
}

func TestAnErasureThatCannotBeDoneByItsDateFails(t *testing.T) {
	t.Parallel()
	s := &stores{left: map[int]int64{}}
	for i := range 100 {
		s.left[i] = 1
	}
	_, _, err := erase(t, s, request)
	if err == nil || !strings.Contains(err.Error(), "what holds them") {
		t.Errorf("%v", err)
	}
	if len(s.certified) != 1 {
		t.Errorf("%d certificates", len(s.certified))
	}
}

func TestAStoreThatIsAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := &stores{failIn: name.EraseClickHouse, failed: 8}
	if _, _, err := erase(t, s, request); err != nil {
		t.Error(err)
	}
}

func TestAnErasureWithWrongInputDoesNothing(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]string{
		`{}`: "request: is missing", `{"request": "x"}`: "8 to 64", `{"request": "20261122-5f3a9c01", "subjects": 0}`: "subjects: 0",
		`{"request": "20261122-5f3a9c01", "subjects": 1, "visitor": "v1"}`:          "visitor: unknown field",
		`{"request": "20261122-5f3a9c01", "subjects": 1, "physical_after": "100d"}`: "above 90d",
	} {
		s := &stores{}
		if _, _, err := erase(t, s, input); err == nil || !strings.Contains(err.Error(), want) || len(s.calls) > 0 {
			t.Errorf("%s: %v, %v", input, err, s.calls)
		}
	}
}

func TestAnArchiveIsRemovedWhenItsTimeIsOverAndWhenTheRunIsCancelled(t *testing.T) {
	t.Parallel()
	for what, cancel := range map[string]time.Duration{"its time": 0, "cancelled": time.Hour} {
		s := &stores{}
		env := newEnv(t, &world{})
		env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute})
		s.register(env)
		if cancel > 0 {
			env.RegisterDelayedCallback(env.CancelWorkflow, cancel)
		}
		began := env.Now()
		env.ExecuteWorkflow(name.ExportSubject, json.RawMessage(`{"request": "20261122-77b0e4d2", "subjects": 1, "keep": "2d"}`))
		if err := env.GetWorkflowError(); (err != nil) != (cancel > 0) {
			t.Errorf("%s: %v", what, err)
		}
		if diff := cmp.Diff([]string{"write", "remove"}, s.calls); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		if kept := env.Now().Sub(began); cancel == 0 && kept < 48*time.Hour {
			t.Errorf("it was kept for %s", kept)
		}
	}
}
