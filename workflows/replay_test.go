package workflows_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"

	"millrace/workflows"
	"millrace/workflows/name"
)

// The histories in testdata were made by workers on a real server (`make histories`). A workflow that runs while a release is rolled out goes on with the new code: it must
// decide as it did. A history is added when a workflow gets a new path; none is removed.
func histories(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 7 {
		t.Fatalf("%d histories, at least 7 were recorded", len(files))
	}
	return files
}

func replay(text []byte) error {
	h, err := client.HistoryFromJSON(bytes.NewReader(text), client.HistoryJSONOptions{})
	if err != nil {
		return err
	}
	r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{DisableRegistrationAliasing: true})
	if err != nil {
		return err
	}
	workflows.Register(r)
	return r.ReplayWorkflowHistory(tlog.NewStructuredLogger(slog.New(slog.DiscardHandler)), h)
}

func TestRecordedHistoriesReplay(t *testing.T) {
	t.Parallel()
	for _, file := range histories(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := replay(text); err != nil {
				t.Error(err)
			}
		})
	}
}

// The test above must be able to fail: a history of other decisions is refused.
func TestAHistoryOfOtherDecisionsDoesNotReplay(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/maintain.json")
	if err != nil {
		t.Fatal(err)
	}
	for old, other := range map[string]string{name.ExpireSnapshots: "maintain.other", name.PlanTable: name.RemoveOrphans} {
		if err := replay(bytes.ReplaceAll(text, []byte(`"`+old+`"`), []byte(`"`+other+`"`))); err == nil || !strings.Contains(err.Error(), "nondeterministic") && !strings.Contains(err.Error(), "TMPRL1100") {
			t.Errorf("%s in the place of %s: %v", other, old, err)
		}
	}
}

// Histories are kept for 30 days and read by everybody who may read Temporal: names and numbers only.
func TestHistoriesHoldNoEventsAndNoPaths(t *testing.T) {
	t.Parallel()
	for _, file := range histories(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 512<<10 { // EraseSubject asks each table of each store several times: 94 activities, the most of all
			t.Errorf("%s has %d bytes", file, len(text))
		}
		for _, never := range []string{"visitor", "user_id", "@", ".parquet", "file://", "/tmp/"} {
			if bytes.Contains(text, []byte(never)) {
				t.Errorf("%s holds %q", file, never)
			}
		}
	}
}
