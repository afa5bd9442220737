package workers

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/activities"
	"millrace/event"
	"millrace/internal/failpoint"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workflows/name"
)

// One test, because the servers take seconds to start.
func TestBatchReconcilesStoresOnARealTemporal(t *testing.T) {
	t.Parallel()
	b := newBatchTest(t)
	ctx := t.Context()
	b.fill(t, event.Page, 12)
	cfg, err := Load(b.cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := olap.Open(ctx, cfg.complete().ClickHouse)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := olap.Migrate(ctx, conn, olap.Options{}); err != nil {
		t.Fatal(err)
	}
	hour := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	head, err := b.cat.Head(ctx, "events_page")
	if err != nil {
		t.Fatal(err)
	}
	offsets := make([]int64, 120)
	for i := range offsets {
		offsets[i] = int64(i)
	}
	var rows []event.Stored
	var sum event.Checksum
	if err := b.cat.StoredRows(ctx, "events_page", head.SnapshotID, lakehouse.Part{RawTopic: "raw.page", From: hour, To: hour.Add(time.Hour)}, 0, offsets, func(s event.Stored) error {
		rows = append(rows, s)
		sum.Add(s.Event.RowHash)
		return nil
	}); err != nil || len(rows) != 120 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	part := olap.Part{Table: "events_page", RawTopic: "raw.page", From: hour, To: hour.Add(time.Hour)}
	if _, err := olap.NewRepair(conn, "").Insert(ctx, part, 0, rows, nil, "sink"); err != nil {
		t.Fatal(err)
	}
	exec := func(sql string, args ...any) {
		t.Helper()
		if err := conn.Exec(ctx, sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec("INSERT INTO event_ledger VALUES ('raw.page', 0, 0, 120, 'events.page', ?, ?, ?, 0, 0, 0, '2026-03-01 00:00:02', '2026-03-01 00:00:03', 1)", sum.Count, sum.HashLo, sum.HashHi)
	exec("DELETE FROM events_page WHERE raw_offset >= 20 AND raw_offset < 30 SETTINGS lightweight_deletes_sync = 2")
	exec("INSERT INTO events_page SELECT * FROM events_page WHERE raw_offset < 5")

	r := b.start(t)
	eventuallySo(t, "the role is ready", func() bool { return b.ready(t) == "" })
	reconcile := func(input, file string) name.ReconcileResult {
		t.Helper()
		run, started, err := activities.Start(ctx, b.client, activities.StartRequest{Type: name.Reconcile, Input: json.RawMessage(input), Trigger: name.Manual})
		if err != nil {
			t.Fatal(err)
		}
		var out name.ReconcileResult
		if err := run.Get(ctx, &out); err != nil {
			t.Fatal(err)
		}
		if file != "" {
			b.keep(t, file, started.ID, started.RunID)
		}
		if started.ID != "reconcile/events.page/2026-03-01T00" {
			t.Errorf("the id is %s", started.ID)
		}
		return out
	}
	store := func(s, outcome string, found, repaired int64, differences map[string]int64) name.StoreResult {
		return name.StoreResult{Store: s, Outcome: outcome, Expected: 120, Found: found, Ranges: 1, Differences: differences, Repaired: repaired}
	}

	t.Log("what differs is named; with repair it is mended; the second time nothing is to be done")
	got := reconcile(`{"topic": "raw.page", "hour": "2026-03-01T00:00:00Z", "run": "r1"}`, "reconcile-compare")
	differences := map[string]int64{name.KindMissing: 10, name.KindDuplicate: 5}
	want := name.ReconcileResult{Topic: "events.page", Hour: "2026-03-01T00", Run: "r1", Outcome: name.Differs, Stores: []name.StoreResult{store("clickhouse", name.Differs, 115, 0, differences), store("iceberg", name.Equal, 120, 0, nil)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = reconcile(`{"topic": "events.page", "hour": "2026-03-01T00", "repair": true, "run": "r2"}`, "reconcile-repair")
	want.Run, want.Outcome, want.Stores[0] = "r2", name.Mended, store("clickhouse", name.Mended, 120, 15, differences)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = reconcile(`{"topic": "events.page", "hour": "2026-03-01T00", "repair": true, "run": "r3"}`, "reconcile-equal")
	want.Run, want.Outcome, want.Stores[0] = "r3", name.Equal, store("clickhouse", name.Equal, 120, 0, nil)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var states []string
	if err := conn.QueryRow(ctx, "SELECT groupUniqArray(concat(kind, ' ', state)) FROM reconcile_differences FINAL").Scan(&states); err != nil {
		t.Fatal(err)
	}
	slices.Sort(states)
	if diff := cmp.Diff([]string{"duplicate repaired", "missing repaired"}, states); diff != "" {
		t.Error(diff)
	}

	t.Log("a topic, a store that do not exist, and a day, end at once with what is wrong")
	for input, says := range map[string]string{
		`{"topic": "events.pages", "hour": "2026-03-01T00"}`:                        "events_page?",
		`{"topic": "events.page", "hour": "2026-03-01T00", "stores": ["bigtable"]}`: "there is no such store: bigtable; there are clickhouse, iceberg",
	} {
		run, _, err := activities.Start(ctx, b.client, activities.StartRequest{Type: name.Reconcile, Input: json.RawMessage(input), Trigger: name.Manual})
		if err != nil {
			t.Fatal(err)
		}
		if err := run.Get(ctx, nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", input, err)
		}
	}

	r.stop()
	iceberg := lakehouse.Part{RawTopic: "raw.page", From: hour, To: hour.Add(time.Hour)}
	// What was mended before the kill is found equal by the activity's next attempt, which mends the rest.
	for step, outcome := range map[string]string{activities.FailReconcileMended: name.Equal, lakehouse.FailRepairBefore: name.Mended, lakehouse.FailRepairAfter: name.Equal} {
		t.Log("the worker is killed in the middle of a repair, at", step)
		exec("DELETE FROM events_page WHERE raw_offset >= 20 AND raw_offset < 30 SETTINGS lightweight_deletes_sync = 2")
		exec("INSERT INTO events_page SELECT * FROM events_page WHERE raw_offset < 5")
		gone := map[int64]bool{}
		for i := int64(40); i < 50; i++ {
			gone[i] = false
		}
		if _, err := b.cat.DropRows(ctx, "events_page", "spoil:"+step, iceberg, 0, gone); err != nil {
			t.Fatal(err)
		}
		dying := b.start(t, failpoint.Env+"="+step+"=kill@1")
		run, _, err := activities.Start(ctx, b.client, activities.StartRequest{Type: name.Reconcile, Input: json.RawMessage(`{"topic": "events.page", "hour": "2026-03-01T00", "repair": true}`), Trigger: name.Manual})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-dying.ended:
		case <-time.After(time.Minute):
			t.Fatalf("%s: the role was not killed", step)
		}
		r := b.start(t)
		var out name.ReconcileResult
		if err := run.Get(ctx, &out); err != nil || out.Outcome != outcome {
			t.Errorf("%s: %+v, %v", step, out, err)
		}
		var have event.Checksum
		if err := conn.QueryRow(ctx, "SELECT toInt64(count()), toInt64(sum(bitAnd(row_hash, 0xffffffff))), toInt64(sum(bitAnd(bitShiftRight(row_hash, 32), 0xffffffff))) FROM events_page").Scan(&have.Count, &have.HashLo, &have.HashHi); err != nil || have != sum {
			t.Errorf("%s: ClickHouse has %+v, %v", step, have, err)
		}
		lake, err := b.cat.Totals(ctx, "events_page")
		if err != nil || lake.Checksum != sum || lake.Distinct != sum.Count {
			t.Errorf("%s: Iceberg has %+v, %v", step, lake, err)
		}
		if h, err := b.cat.Head(ctx, "events_page"); err != nil || !cmp.Equal(h.Vector, head.Vector) {
			t.Errorf("%s: the offsets of the table are %v, %v", step, h.Vector, err)
		}
		r.stop()
	}
	b.start(t)

	t.Log("a replayed event is in no KPI, and enters them by RecomputeKPIs")
	exec("INSERT INTO events_page SELECT * REPLACE (1 AS lane, raw_offset + 5000 AS raw_offset) FROM (SELECT * FROM events_page WHERE raw_offset = 3)")
	run, started, err := activities.Start(ctx, b.client, activities.StartRequest{Type: name.RecomputeKPIs, Input: json.RawMessage(`{"day": "2026-03-01"}`), Trigger: name.Manual})
	if err != nil {
		t.Fatal(err)
	}
	var kpis name.RecomputeKPIsResult
	if err := run.Get(ctx, &kpis); err != nil || kpis.Numbers["events"] != 1 || kpis.Numbers["rows"] != 4 {
		t.Errorf("%+v, %v", kpis, err)
	}
	b.keep(t, "recompute-kpis", started.ID, started.RunID)
	var views int64
	if err := conn.QueryRow(ctx, "SELECT sum(page_views) FROM kpi_1d FINAL WHERE kafka_partition = -1").Scan(&views); err != nil || views != 1 {
		t.Errorf("%d views are recomputed, %v", views, err)
	}
}
