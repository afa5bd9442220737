package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNightsAreGivenWithTheirStepsAndWorkflows(t *testing.T) {
	t.Parallel()
	s := openAlone(t, func(c *Config, d *Deps) { c.TemporalUI, d.Namespace = "http://ui", "default" })
	ctx := t.Context()
	at := now.Add(-time.Hour)
	run := func(id, run, typ, trigger, outcome, reason string, from time.Time, to *time.Time, version uint64) {
		t.Helper()
		err := s.conn.Exec(ctx, `INSERT INTO workflow_runs (id, run, type, trigger, outcome, reason, workflow_run, started_at, finished_at, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			id, run, typ, trigger, outcome, reason, "run-of-"+id, from, to, version)
		if err != nil {
			t.Fatal(err)
		}
	}
	step := func(night, step, outcome, reason string, from time.Time, version uint64) {
		t.Helper()
		err := s.conn.Exec(ctx, `INSERT INTO workflow_steps (id, run, type, step, outcome, reason, numbers, started_at, finished_at, version) VALUES (?, ?, 'Nightly', ?, ?, ?, map('parts', 2), ?, ?, ?)`,
			"nightly/"+night, night, step, outcome, reason, from, from.Add(time.Minute), version)
		if err != nil {
			t.Fatal(err)
		}
	}
	end := at.Add(10 * time.Minute)
	run("nightly/2026-02-25", "2026-02-25", "Nightly", "schedule", "done", "", at, &end, 1)
	run("nightly/2026-02-28", "2026-02-28", "Nightly", "schedule", "running", "", at, nil, 1)
	run("nightly/2026-02-28", "2026-02-28", "Nightly", "schedule", "failed", "NightFailed", at, &end, 2) // the newer copy counts
	run("publish/events_page", "2026-02-28", "PublishTable", "nightly", "failed", "GateFailed", at, &end, 1)
	run("publish/events_cart", "2026-02-28", "PublishTable", "nightly", "done", "", at, &end, 1)
	run("publish/events_cart", "by-hand", "PublishTable", "manual", "done", "", at, &end, 1)
	step("2026-02-28", "publish", "failed", "PartsFailed", at, 1)
	step("2026-02-28", "load", "skipped", "needs publish", at.Add(time.Minute), 1)
	step("2026-02-25", "publish", "done", "", at, 1)

	got := answer[nights](t, s, "/api/v1/nights?days=5")
	if diff := cmp.Diff([]string{"2026-02-27", "2026-02-26"}, got.Gaps); diff != "" {
		t.Error(diff)
	}
	if len(got.Nights) != 2 || got.Nights[0].Night != "2026-02-28" || got.Nights[1].Night != "2026-02-25" {
		t.Fatalf("%+v", got.Nights)
	}
	n := got.Nights[0]
	if n.Outcome != "failed" || n.Reason != "NightFailed" || n.Trigger != "schedule" || n.DurationSeconds != 600 || n.FinishedAt == nil || n.Input != `{"day": "2026-02-28"}` ||
		n.URL != "http://ui/namespaces/default/workflows/nightly%2F2026-02-28/run-of-nightly%2F2026-02-28/history" {
		t.Errorf("%+v", n)
	}
	if diff := cmp.Diff([]nightStep{{"publish", "failed", "PartsFailed", 60, map[string]int64{"parts": 2}}, {"load", "skipped", "needs publish", 60, map[string]int64{"parts": 2}}}, n.Steps); diff != "" {
		t.Error(diff)
	}
	var ids []string
	for _, w := range n.Workflows {
		ids = append(ids, w.WorkflowID+" "+w.Outcome)
	}
	if diff := cmp.Diff([]string{"publish/events_page failed", "publish/events_cart done"}, ids); diff != "" {
		t.Error(diff)
	}
	if got := answer[nights](t, s, "/api/v1/nights?days=1"); len(got.Nights) != 1 {
		t.Errorf("%d nights for one", len(got.Nights))
	}
}
