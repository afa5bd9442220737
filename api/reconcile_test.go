package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReconciliationsAreGivenWithWhatStillDiffers(t *testing.T) {
	t.Parallel()
	s := openAlone(t)
	hour := time.Date(2026, 3, 1, 14, 0, 0, 0, time.UTC)
	begin := hour.Add(time.Hour)
	insert := func(topic, run, store, outcome string, expected, found, missing, repaired int64, after time.Duration, ended bool, version uint64) {
		var end *time.Time
		if ended {
			at := begin.Add(after + 3*time.Second)
			end = &at
		}
		if err := s.conn.Exec(t.Context(), "INSERT INTO reconcile_runs (topic, hour, run, store, outcome, expected, found, missing, repaired, started_at, finished_at, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			topic, hour, run, store, outcome, expected, found, missing, repaired, begin.Add(after), end, version); err != nil {
			t.Fatal(err)
		}
	}
	differ := func(topic, run, kind, state string, from, to, count int64, version uint64) {
		if err := s.conn.Exec(t.Context(), "INSERT INTO reconcile_differences (topic, hour, run, store, kind, raw_partition, raw_from, raw_to, count, state, noted_at, version) VALUES (?, ?, ?, 'iceberg', ?, 2, ?, ?, ?, ?, ?, ?)",
			topic, hour, run, kind, from, to, count, state, begin.Add(time.Duration(version)*time.Second), version); err != nil {
			t.Fatal(err)
		}
	}
	insert("events.page", "r1", "iceberg", "running", 0, 0, 0, 0, 0, false, 1)
	insert("events.page", "r1", "iceberg", "differs", 120, 110, 10, 0, 0, true, 2) // the later note of the same run
	insert("events.page", "r2", "iceberg", "repaired", 120, 120, 10, 10, time.Minute, true, 3)
	insert("events.cart", "r1", "clickhouse", "running", 7, 0, 0, 0, 2*time.Minute, false, 4)
	differ("events.page", "r1", "missing", "open", 40, 50, 10, 1)
	differ("events.page", "r2", "missing", "repaired", 40, 50, 10, 2) // what it became
	differ("events.cart", "r1", "unexplained", "nosource", 3, 9, 2, 3)

	got := answer[reconciliations](t, s, "/api/v1/reconcile")
	var runs []string
	for _, r := range got.Runs {
		runs = append(runs, r.Topic+" "+r.Run+" "+r.Store+" "+r.Outcome+" "+r.WorkflowID)
	}
	want := []string{
		"events.cart r1 clickhouse running reconcile/events.cart/2026-03-01T14", "events.page r2 iceberg repaired reconcile/events.page/2026-03-01T14", "events.page r1 iceberg differs reconcile/events.page/2026-03-01T14",
	}
	if d := cmp.Diff(want, runs); d != "" {
		t.Fatal(d)
	}
	if r := got.Runs[2]; r.Expected != 120 || r.Found != 110 || r.Repaired != 0 || r.DurationSeconds != 3 || r.FinishedAt == nil || !cmp.Equal(r.Differences, map[string]int64{"missing": 10}) {
		t.Errorf("%+v", r)
	}
	if r := got.Runs[0]; r.FinishedAt != nil || len(r.Differences) != 0 {
		t.Errorf("%+v", r)
	}
	var differences []string
	for _, d := range got.Differences {
		differences = append(differences, d.Topic+" "+d.Kind+" "+d.State)
	}
	if d := cmp.Diff([]string{"events.cart unexplained nosource", "events.page missing repaired"}, differences); d != "" {
		t.Error(d)
	}
	if d := got.Differences[0]; d.RawPartition != 2 || d.RawFrom != 3 || d.RawTo != 9 || d.Rows != 2 || d.Store != "iceberg" {
		t.Errorf("%+v", d)
	}
	if open := answer[reconciliations](t, s, "/api/v1/reconcile?state=open"); len(open.Differences) != 1 || open.Differences[0].Topic != "events.cart" || len(open.Runs) != 3 {
		t.Errorf("%+v", open)
	}
	if one := answer[reconciliations](t, s, "/api/v1/reconcile?topic=events.page&limit=1"); len(one.Runs) != 1 || one.Runs[0].Run != "r2" || len(one.Differences) != 1 {
		t.Errorf("%+v", one)
	}
}
