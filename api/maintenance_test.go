package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMaintenanceIsGivenStepByStepWithWhatItChanged(t *testing.T) {
	t.Parallel()
	s := openAlone(t)
	begin := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	insert := func(table, run, step, outcome string, numbers map[string]int64, after time.Duration, version uint64) {
		if err := s.conn.Exec(t.Context(), "INSERT INTO maintenance_runs (table_name, run, step, input_digest, outcome, reason, numbers, id, workflow_run, started_at, finished_at, version) VALUES (?, ?, ?, 'd', ?, '', ?, ?, 'w', ?, ?, ?)",
			table, run, step, outcome, numbers, "maintain/"+table, begin.Add(after-2*time.Second), begin.Add(after), version); err != nil {
			t.Fatal(err)
		}
	}
	compacted := map[string]int64{"files_removed": 200, "files_added": 4, "bytes_removed": 1000, "bytes_added": 900, "files_read_before": 80, "files_read_after": 20}
	insert("events_page", "r1", "compact", "failed", nil, 0, 1)
	insert("events_page", "r1", "compact", "done", compacted, time.Minute, 2) // the later note of the same step
	insert("events_page", "r1", "expire", "done", map[string]int64{"snapshots_removed": 3}, 2*time.Minute, 3)
	insert("events_cart", "r1", "compact", "done", map[string]int64{"files_removed": 0, "files_added": 0}, 3*time.Minute, 4)
	got := answer[maintenance](t, s, "/api/v1/maintenance")
	var steps []string
	for _, m := range got.Steps {
		steps = append(steps, m.Table+" "+m.Step+" "+m.Outcome)
	}
	if d := cmp.Diff([]string{"events_cart compact done", "events_page expire done", "events_page compact done"}, steps); d != "" {
		t.Fatal(d)
	}
	c := got.Steps[2]
	if d := cmp.Diff([]*change{{200, 4, 0.02}, {1000, 900, 0.9}, {80, 20, 0.25}}, []*change{c.Files, c.Bytes, c.FilesRead}); d != "" || c.DurationSeconds != 2 || !cmp.Equal(c.Numbers, compacted) {
		t.Errorf("%s %+v", d, c)
	}
	if e := got.Steps[1]; e.Files != nil || e.FilesRead != nil || e.Numbers["snapshots_removed"] != 3 {
		t.Errorf("%+v", e)
	}
	if one := answer[maintenance](t, s, "/api/v1/maintenance?table=events_page&limit=1"); len(one.Steps) != 1 || one.Steps[0].Step != "expire" {
		t.Errorf("%+v", one)
	}
}
