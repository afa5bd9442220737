package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/workflows/name"
)

// lake is a Lake in memory.
type lake struct {
	Lake
	mu       sync.Mutex
	plans    int
	groups   map[int]int // calls of CompactGroup
	held     int64       // bytes of groups being rewritten
	mostHeld int64
	commit   func(lakehouse.Plan, []lakehouse.GroupResult) (lakehouse.CommitResult, error)
	leases   map[string]bool
	fail     error
	gate     chan struct{}
}

func (l *lake) PlanCompaction(_ context.Context, table string, p lakehouse.Policy) (lakehouse.Plan, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return lakehouse.Plan{}, l.fail
	}
	l.plans++
	plan := lakehouse.Plan{ID: fmt.Sprint(l.plans), Table: table, SnapshotID: 7, Policy: p, Files: 6, Bytes: 600, Rows: 60}
	for i := range 3 {
		plan.Groups = append(plan.Groups, lakehouse.Group{ID: i, Files: []string{"a", "b"}, Bytes: 200, Rows: 20})
	}
	return plan, nil
}

func (l *lake) Lease(_ context.Context, _, kind, run string, _ int64, _ time.Duration) (func(context.Context) error, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leases[kind+run] = true
	return func(context.Context) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.leases, kind+run)
		return nil
	}, nil
}

func (l *lake) CompactGroup(ctx context.Context, plan lakehouse.Plan, group int, progress func(rows, bytes int64)) (lakehouse.GroupResult, error) {
	l.mu.Lock()
	l.groups[group]++
	l.held += plan.Groups[group].Bytes
	l.mostHeld = max(l.mostHeld, l.held)
	l.mu.Unlock()
	if l.gate != nil {
		<-l.gate
	}
	progress(10, 100)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held -= plan.Groups[group].Bytes
	if l.fail != nil {
		return lakehouse.GroupResult{}, l.fail
	}
	return lakehouse.GroupResult{Plan: plan.ID, Group: group, Rows: 20, Files: 1}, nil
}

func (l *lake) CommitRewrite(_ context.Context, p lakehouse.Plan, r []lakehouse.GroupResult) (lakehouse.CommitResult, error) {
	return l.commit(p, r)
}

func fixture(t *testing.T, budget int64) (*lake, *Maintain, string, *prometheus.Registry) {
	t.Helper()
	l := &lake{groups: map[int]int{}, leases: map[string]bool{}}
	dir, reg := t.TempDir(), prometheus.NewRegistry()
	return l, NewMaintain(l, dir, budget, reg, slog.New(slog.DiscardHandler)), dir, reg
}

// do runs an activity as a worker does.
func do[O any](t *testing.T, f any, in any) (O, error) {
	t.Helper()
	var s testsuite.WorkflowTestSuite
	s.SetLogger(tlog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := s.NewTestActivityEnvironment()
	env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: "it"})
	var out O
	v, err := env.ExecuteActivity("it", in)
	if err == nil && v.HasValue() {
		err = v.Get(&out)
	}
	return out, err
}

var input = PlanInput{Input: name.MaintainTableInput{Table: "events_page", MinInputFiles: 5}, Key: "run-1"}

func TestAPlanIsMadeOnceForAKey(t *testing.T) {
	t.Parallel()
	l, m, dir, _ := fixture(t, 1000)
	want := PlanOutput{Key: "run-1", SnapshotID: 7, Groups: 3, Files: 6, Bytes: 600, Rows: 60}
	for range 3 {
		got, err := do[PlanOutput](t, m.Plan, input)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	}
	if l.plans != 1 || len(l.leases) != 1 {
		t.Errorf("%d plans, %d leases", l.plans, len(l.leases))
	}
	text, err := os.ReadFile(filepath.Join(dir, "events_page", "run-1", "plan.json"))
	if err != nil || !strings.Contains(string(text), `"min_input_files":5`) {
		t.Errorf("the input's policy is not in the plan: %s, %v", text, err)
	}
}

func TestAGroupIsRewrittenOnceAndTheCommitHasAllOfThem(t *testing.T) {
	t.Parallel()
	l, m, dir, reg := fixture(t, 1000)
	var got []lakehouse.GroupResult
	l.commit = func(p lakehouse.Plan, r []lakehouse.GroupResult) (lakehouse.CommitResult, error) {
		got = r
		return lakehouse.CommitResult{SnapshotID: 8, Removed: 6, Added: 3}, nil
	}
	if _, err := do[PlanOutput](t, m.Plan, input); err != nil {
		t.Fatal(err)
	}
	ref := PlanRef{"events_page", "run-1"}
	if _, err := do[CommitOutput](t, m.Commit, ref); !isKind(err, name.PlanLost) {
		t.Errorf("a commit without the groups' results: %v", err)
	}
	for g := range 3 {
		for again := range 2 {
			out, err := do[GroupOutput](t, m.Compact, GroupInput{"events_page", "run-1", g})
			if err != nil || out.Rows != 20 || out.Resumed != (again == 1) {
				t.Errorf("group %d: %+v, %v", g, out, err)
			}
		}
	}
	if diff := cmp.Diff(map[int]int{0: 1, 1: 1, 2: 1}, l.groups); diff != "" {
		t.Error(diff)
	}
	out, err := do[CommitOutput](t, m.Commit, ref)
	if err != nil || out != (CommitOutput{SnapshotID: 8, Removed: 6, Added: 3, By: "direct"}) || len(got) != 3 || got[2].Group != 2 {
		t.Errorf("%+v, %v, %+v", out, err, got)
	}
	in := 0
	lane := m.Lane(func(ctx context.Context, table string, f func(context.Context) error) error { in++; return f(ctx) })
	if out, err := do[CommitOutput](t, lane.Commit, ref); err != nil || out.By != "lane" || in != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := do[any](t, m.Drop, ref); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "events_page", "run-1")); !errors.Is(err, fs.ErrNotExist) || len(l.leases) != 0 {
		t.Errorf("after the drop: %v, leases %v", err, l.leases)
	}
	if _, err := do[any](t, m.Drop, ref); err != nil {
		t.Errorf("a second drop: %v", err)
	}
	if _, err := do[GroupOutput](t, m.Compact, GroupInput{"events_page", "run-1", 0}); !isKind(err, name.PlanLost) {
		t.Errorf("a group of a plan that is gone: %v", err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	groups := -1.0
	for _, f := range families {
		if f.GetName() == "millrace_maintain_groups_total" {
			groups = f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	if groups != 3 {
		t.Errorf("the metric counts %v groups", groups)
	}
}

func isKind(err error, kind string) bool {
	var app *temporal.ApplicationError
	return errors.As(err, &app) && app.Type() == kind && app.NonRetryable()
}

func TestErrorsSayHowTheyAreToBeTaken(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		err   error
		kind  string
		final bool
	}{
		"a conflict":                 {fmt.Errorf("committing: %w", lakehouse.ErrConflict), name.Conflict, true},
		"the table of another":       {NotCommitter(errors.New("no")), name.NotCommitter, false},
		"a fault has its id as type": {fault.New("MR-ICE-003", errors.New("no offsets")), "MR-ICE-003", false},
		"anything else":              {errors.New("the disk is full"), "", false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l, m, _, _ := fixture(t, 1000)
			l.commit = func(lakehouse.Plan, []lakehouse.GroupResult) (lakehouse.CommitResult, error) {
				return lakehouse.CommitResult{}, c.err
			}
			if _, err := do[PlanOutput](t, m.Plan, input); err != nil {
				t.Fatal(err)
			}
			for g := range 3 {
				if _, err := do[GroupOutput](t, m.Compact, GroupInput{"events_page", "run-1", g}); err != nil {
					t.Fatal(err)
				}
			}
			_, err := do[CommitOutput](t, m.Commit, PlanRef{"events_page", "run-1"})
			var app *temporal.ApplicationError
			if !errors.As(err, &app) || app.Type() != c.kind || app.NonRetryable() != c.final {
				t.Errorf("%v", err)
			}
		})
	}
	long := errors.New(strings.Repeat("ü", 5000))
	l, m, _, _ := fixture(t, 1000)
	l.fail = long
	_, err := do[PlanOutput](t, m.Plan, input)
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || len(app.Message()) > maxFailure+10 || strings.ContainsRune(app.Message(), '\uFFFD') {
		t.Errorf("a long failure has %d bytes", len(app.Message()))
	}
}

func TestHeavyActivitiesShareABudgetOfBytes(t *testing.T) {
	t.Parallel()
	l, m, _, _ := fixture(t, 450) // two groups of 200
	if _, err := do[PlanOutput](t, m.Plan, input); err != nil {
		t.Fatal(err)
	}
	l.gate = make(chan struct{})
	var all sync.WaitGroup
	for g := range 3 {
		all.Go(func() {
			if _, err := do[GroupOutput](t, m.Compact, GroupInput{"events_page", "run-1", g}); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 {
		l.gate <- struct{}{}
	}
	all.Wait()
	if l.mostHeld > 450 {
		t.Errorf("%d bytes at a time", l.mostHeld)
	}
	small, big, _, _ := fixture(t, 10) // less than a group: it runs alone
	if _, err := do[PlanOutput](t, big.Plan, input); err != nil {
		t.Fatal(err)
	}
	if _, err := do[GroupOutput](t, big.Compact, GroupInput{"events_page", "run-1", 0}); err != nil || small.groups[0] != 1 {
		t.Error(err)
	}
}

func TestPlansOfRunsThatNobodyFinishedGoAfterAWeek(t *testing.T) {
	t.Parallel()
	_, m, dir, _ := fixture(t, 1000)
	if _, err := do[PlanOutput](t, m.Plan, input); err != nil {
		t.Fatal(err)
	}
	later := input
	later.Key = "run-2"
	m.now = func() time.Time { return time.Now().Add(6 * 24 * time.Hour) }
	if _, err := do[PlanOutput](t, m.Plan, later); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "events_page", "run-1")); err != nil {
		t.Error(err)
	}
	m.now = func() time.Time { return time.Now().Add(8 * 24 * time.Hour) }
	later.Key = "run-3"
	if _, err := do[PlanOutput](t, m.Plan, later); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(dir, "events_page"))
	if err != nil || len(left) != 1 || left[0].Name() != "run-3" {
		t.Errorf("%v, %v", left, err)
	}
}

func TestAPlanHasNoFolderOutsideItsOwn(t *testing.T) {
	t.Parallel()
	_, m, _, _ := fixture(t, 1000)
	for _, ref := range []PlanRef{{"..", "x"}, {"t", "../x"}, {"t", ""}, {"a/b", "x"}, {"t", ".."}} {
		if _, err := do[any](t, m.Drop, ref); err == nil {
			t.Errorf("%+v is taken", ref)
		}
	}
}

func TestPayloadsAreSmall(t *testing.T) {
	t.Parallel()
	for _, v := range []any{PlanOutput{Key: strings.Repeat("k", 40), SnapshotID: 1 << 62, Groups: 1 << 20, Files: 1 << 40, Bytes: 1 << 60, Rows: 1 << 50}, GroupOutput{1 << 40, 1 << 60, 1 << 50, true}, CommitOutput{SnapshotID: 1 << 62, Removed: 1 << 40, Added: 1 << 40, By: "direct", BytesRemoved: 1 << 60, BytesAdded: 1 << 60, ReadBefore: 1 << 40, ReadAfter: 1 << 40}} {
		b, err := json.Marshal(v)
		if err != nil || len(b) > 256 {
			t.Errorf("%T has %d bytes: %v", v, len(b), err)
		}
	}
}
