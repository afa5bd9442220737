package supervisor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/fault"
)

func TestDeadChildIsRestartedAndShown(t *testing.T) {
	s := start(t, t.TempDir(), testChild("a", "sleep"))
	waitHealthy(t, s)
	first := state(t, s, "a").PID
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a second process", func() bool {
		st := state(t, s, "a")
		return st.Phase == Healthy && st.PID != first && st.Restarts == 1
	})
	if st := state(t, s, "a"); !strings.Contains(st.LastError, "killed") {
		t.Errorf("last error is %q, should tell that it was killed", st.LastError)
	}
}

func TestChildThatKeepsDyingBacksOffAndWaitingForItFailsWithItsLog(t *testing.T) {
	dir := t.TempDir()
	c := testChild("a", "die=hunger")
	c.Healthy = func(context.Context) error { return errors.New("not answering") }
	s := start(t, dir, c)
	var pauses []time.Duration
	var last time.Time
	err := s.WaitHealthy(t.Context())
	if id, _ := fault.IDOf(err); id != cannotStartID {
		t.Fatalf("error is %v, want id %s", err, cannotStartID)
	}
	for _, want := range []string{"dying of hunger", "a.log", "exit status 3"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not contain %q", err, want)
		}
	}
	// Each time the backoff phase begins, the pause before it has been at least the configured one.
	for len(pauses) < 4 {
		changed := s.Changed()
		if st := state(t, s, "a"); st.Phase == Backoff && st.Since != last {
			if !last.IsZero() {
				pauses = append(pauses, st.Since.Sub(last))
			}
			last = st.Since
		}
		<-changed
	}
	for _, p := range pauses {
		if p < 80*time.Millisecond {
			t.Errorf("pauses after five deaths are %v, want each at least the longest backoff of 80ms", pauses)
			break
		}
	}
}

func TestHoldKeepsAChildDownAndReleaseLetsItUp(t *testing.T) {
	s := start(t, t.TempDir(), testChild("a", "sleep"))
	waitHealthy(t, s)
	pid := state(t, s, "a").PID
	if err := s.Hold(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if st := state(t, s, "a"); st.Phase != Held || st.PID != 0 || isAlive(pid) {
		t.Fatalf("after hold: %+v, alive %v", st, isAlive(pid))
	}
	if err := s.Release("a"); err != nil {
		t.Fatal(err)
	}
	waitHealthy(t, s)
	if again := state(t, s, "a").PID; again == pid || !isAlive(again) {
		t.Errorf("after release process is %d, before %d", again, pid)
	}
	if id, _ := fault.IDOf(s.Release("b")); id != unknownChildID {
		t.Errorf("releasing an unknown child has id %q", id)
	}
}

func TestHoldInterruptsAPreparation(t *testing.T) {
	c := testChild("a", "sleep")
	var runs atomic.Int32
	c.Prepare = func(ctx context.Context, note func(string)) error {
		if runs.Add(1) > 1 {
			return nil
		}
		note("compiling 1 of 2")
		<-ctx.Done()
		return ctx.Err()
	}
	s := start(t, t.TempDir(), c)
	eventually(t, "the preparation", func() bool { return state(t, s, "a").Detail == "compiling 1 of 2" })
	if err := s.Hold(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if st := state(t, s, "a"); st.Phase != Held {
		t.Fatalf("phase is %s", st.Phase)
	}
	if err := s.Release("a"); err != nil {
		t.Fatal(err)
	}
	waitHealthy(t, s)
}

func TestFailedPreparationIsFinalUntilReleased(t *testing.T) {
	c := testChild("a", "sleep")
	var runs atomic.Int32
	c.Prepare = func(context.Context, func(string)) error {
		if runs.Add(1) == 1 {
			return fault.New("MR-EMB-003", errors.New("java is missing"))
		}
		return nil
	}
	s := start(t, t.TempDir(), c)
	err := s.WaitHealthy(t.Context())
	if id, _ := fault.IDOf(err); id != "MR-EMB-003" {
		t.Fatalf("error is %v", err)
	}
	if st := state(t, s, "a"); st.Phase != Failed || runs.Load() != 1 {
		t.Fatalf("state %+v after %d preparations", st, runs.Load())
	}
	if err := s.Release("a"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "health after release", func() bool { return state(t, s, "a").Phase == Healthy })
}

func TestOptionalChildIsNotWaitedFor(t *testing.T) {
	c := testChild("late", "sleep")
	c.Optional = true
	c.Prepare = func(ctx context.Context, _ func(string)) error { <-ctx.Done(); return ctx.Err() }
	s := start(t, t.TempDir(), testChild("a", "sleep"), c)
	waitHealthy(t, s)
	if st := state(t, s, "late"); st.Phase == Healthy {
		t.Errorf("late is %s", st.Phase)
	}
}

func TestChildrenStartAndStopInDependencyOrder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "order")
	seen := func(line string) bool {
		b, err := os.ReadFile(file)
		return err == nil && slices.Contains(strings.Split(string(b), "\n"), line)
	}
	child := func(name string, deps ...string) Child {
		c := testChild(name, "append="+file+","+name)
		c.Deps = deps
		c.Healthy = func(context.Context) error {
			if !seen("start " + name) {
				return errors.New("not started")
			}
			return nil
		}
		return c
	}
	s := start(t, dir, child("store"), child("broker"), child("gateway", "broker"), child("sink", "broker", "store"), child("api", "sink"))
	waitHealthy(t, s)
	s.Stop()
	lines := strings.Fields(strings.ReplaceAll(readFile(t, file), " ", "-"))
	index := func(line string) int { return slices.Index(lines, line) }
	for _, dep := range [][2]string{{"broker", "gateway"}, {"broker", "sink"}, {"store", "sink"}, {"sink", "api"}} {
		below, above := dep[0], dep[1]
		if index("start-"+below) > index("start-"+above) || index("stop-"+below) < index("stop-"+above) || index("stop-"+above) < 0 {
			t.Errorf("%s depends on %s, but the order was %v", above, below, lines)
		}
	}
	for _, st := range s.Status() {
		if st.Phase != Stopped || st.PID != 0 {
			t.Errorf("after stop: %+v", st)
		}
	}
}

func TestDependencyThatDiesLaterDoesNotTouchItsDependents(t *testing.T) {
	above := testChild("above", "sleep")
	above.Deps = []string{"below"}
	s := start(t, t.TempDir(), testChild("below", "sleep"), above)
	waitHealthy(t, s)
	pid := state(t, s, "above").PID
	if err := s.Hold(t.Context(), "below"); err != nil {
		t.Fatal(err)
	}
	if st := state(t, s, "above"); st.Phase != Healthy || st.PID != pid {
		t.Errorf("above is %+v, was %d", st, pid)
	}
}

func TestChildThatIgnoresItsSignalIsKilledAfterItsGrace(t *testing.T) {
	c := testChild("a", "stubborn")
	c.Grace = 50 * time.Millisecond
	s := start(t, t.TempDir(), c)
	waitHealthy(t, s)
	pid := state(t, s, "a").PID
	if err := s.Hold(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if isAlive(pid) {
		t.Errorf("process %d lives on", pid)
	}
}

func TestChildThatNeverGetsHealthyIsKilledAndTriedAgain(t *testing.T) {
	c := testChild("a", "sleep")
	c.HealthTimeout = 50 * time.Millisecond
	c.Healthy = func(context.Context) error { return errors.New("not answering") }
	s := start(t, t.TempDir(), c)
	eventually(t, "a second start", func() bool { return state(t, s, "a").Restarts > 0 })
	if st := state(t, s, "a"); !strings.Contains(st.LastError, "not answering") {
		t.Errorf("last error is %q", st.LastError)
	}
}

func TestHealthyChildThatStopsAnsweringIsShownButNotKilled(t *testing.T) {
	var sick atomic.Bool
	c := testChild("a", "sleep")
	c.Healthy = func(context.Context) error {
		if sick.Load() {
			return errors.New("too busy")
		}
		return nil
	}
	s := start(t, t.TempDir(), c)
	waitHealthy(t, s)
	pid := state(t, s, "a").PID
	sick.Store(true)
	eventually(t, "unhealthy", func() bool { return state(t, s, "a").Phase == Unhealthy })
	sick.Store(false)
	eventually(t, "healthy again", func() bool { return state(t, s, "a").Phase == Healthy })
	if st := state(t, s, "a"); st.PID != pid || st.Restarts != 0 {
		t.Errorf("state is %+v, process was %d", st, pid)
	}
}

func TestBadChildrenAreRefused(t *testing.T) {
	s := start(t, t.TempDir(), testChild("a", "sleep"))
	twice := testChild("a", "sleep")
	lost := testChild("b", "sleep")
	lost.Deps = []string{"nobody"}
	for what, c := range map[string]Child{"no name": {Command: twice.Command}, "no command": {Name: "c"}, "a name twice": twice, "an unknown dependency": lost} {
		if err := s.Add(c); err == nil {
			t.Errorf("child with %s was taken", what)
		}
	}
	if diff := cmp.Diff(1, len(s.Status())); diff != "" {
		t.Error(diff)
	}
}
