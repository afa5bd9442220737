package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// The process reads its environment once, so each case is a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("FAILPOINT_CHILD") == "" {
		os.Exit(m.Run())
	}
	Hit("other")
	for n := 1; n <= 3; n++ {
		if err := Err("here"); err != nil {
			os.Exit(10 + n)
		}
	}
	os.Exit(0)
}

func child(t *testing.T, spec string) *os.ProcessState {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", Env+"="+spec)
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState
}

func TestAFailpointActsAtItsHit(t *testing.T) {
	for spec, want := range map[string]int{"": 0, "here=error@2": 12, "here=error": 11, "there=error@1": 0, "there=kill@1,here=error@3": 13} {
		if got := child(t, spec).ExitCode(); got != want {
			t.Errorf("%q: exit %d, want %d", spec, got, want)
		}
	}
	for _, spec := range []string{"here=kill@3", "other=kill@1"} {
		if ws, ok := child(t, spec).Sys().(syscall.WaitStatus); !ok || !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
			t.Errorf("%q: the process was not killed", spec)
		}
	}
}
