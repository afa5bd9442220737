package bigquery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/internal/failpoint"
)

func steps() []string {
	return []string{FailMade, FailPlanned, FailStage, FailPart, FailStaged, FailSubmitted, FailCommitted, FailLeased}
}

// process runs a load in a process of its own, which a failpoint ends.
func (f *fixture) process(t *testing.T, failpoints string) error {
	t.Helper()
	text, err := json.Marshal(f.set)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "settings.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childEnv+"="+path, failpoint.Env+"="+failpoints)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	if err != nil {
		t.Logf("%v %s", err, said.Bytes())
	}
	return err
}

// A worker that is killed at each step of a load, and run again: nothing is lost, nothing is there twice.
func TestAWorkerKilledAtAnyStepLoadsOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers)
	f.append(t, 20)
	f.publish(t)
	f.load(t)
	kills := append(steps(), FailPart+"@2")
	for _, step := range kills {
		f.append(t, 20)
		f.append(t, 2)
		f.publish(t)
		at := "@1"
		if step == FailPart+"@2" {
			step, at = FailPart, "@2"
		}
		err := f.process(t, step+"=kill"+at)
		var ended *exec.ExitError
		if status, ok := waitStatus(err, &ended); !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
			t.Fatalf("%s: the process was not killed: %v", step, err)
		}
		visible := slices.Index(steps(), step) >= slices.Index(steps(), FailCommitted)
		if visible {
			f.holds(t, f.next) // before anybody runs again
		} else if step != FailSubmitted {
			f.holds(t, f.next-22)
		}
		if err := f.process(t, ""); err != nil {
			t.Fatalf("%s: run again: %v", step, err)
		}
		f.holds(t, f.next)
	}
	if v, err := f.Verify(t.Context(), purchases, nil, nil, nil); err != nil || len(v.Differences) != 0 {
		t.Errorf("verification: %+v, %v", v, err)
	}
}

func waitStatus(err error, ended **exec.ExitError) (syscall.WaitStatus, bool) {
	if !errors.As(err, ended) {
		return 0, false
	}
	status, ok := (*ended).Sys().(syscall.WaitStatus)
	return status, ok
}

// The server killed under a load at each step, and started again on its data: the load goes on, or fails and is run again.
func TestABigQueryKilledAtAnyStepHasEveryRowOnce(t *testing.T) {
	if os.Getenv(cloudEnv) != "" {
		t.Skip("Google's servers are not ours to kill")
	}
	if servers == nil {
		t.Skipf("%s is set: what needs the BigQuery emulator is not tested", embedded.NoBigQueryEnv)
	}
	t.Parallel()
	own, err := embeddedtest.Start(t.Context(), filepath.Join(t.TempDir(), "servers"), embedded.BrokerKfake, embedded.BigQueryChild)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Stop)
	f := newFixture(t, own)
	f.cfg.JobTimeout = f.cfg.JobTimeout / 4
	f.append(t, 20)
	f.publish(t)
	f.load(t)
	for _, step := range steps() {
		f.append(t, 20)
		f.append(t, 2)
		f.publish(t)
		killed := false
		f.hook = func(ctx context.Context, at, _ string) {
			if at == step && !killed {
				killed = true
				if err := own.Kill(ctx, embedded.BigQueryChild); err != nil {
					t.Error(err)
				}
			}
		}
		if _, err := f.Load(t.Context(), Request{Table: purchases}); err != nil {
			t.Logf("%s: %v", step, err)
			if !Retryable(err) {
				t.Errorf("%s: a server that was away is no reason to give up: %v", step, err)
			}
			if err := own.WaitHealthy(t.Context(), embedded.BigQueryChild); err != nil {
				t.Fatal(err)
			}
			f.load(t)
		}
		if !killed {
			t.Errorf("%s was not reached", step)
		}
		f.holds(t, f.next)
	}
	if v, err := f.Verify(t.Context(), purchases, nil, nil, nil); err != nil || len(v.Differences) != 0 {
		t.Errorf("verification: %+v, %v", v, err)
	}
}
