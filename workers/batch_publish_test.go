package workers

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/apache/iceberg-go"
	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"millrace/activities"
	"millrace/event"
	"millrace/internal/failpoint"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workflows/name"
)

// publish starts a PublishTable, as the UI does.
func (b *batchTest) publish(t *testing.T, input string) client.WorkflowRun {
	t.Helper()
	run, _, err := activities.Start(t.Context(), b.client, activities.StartRequest{Type: name.PublishTable, Input: json.RawMessage(input), Trigger: name.Manual})
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func (b *batchTest) published(t *testing.T, run client.WorkflowRun) (name.PublishResult, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var r name.PublishResult
	return r, run.Get(ctx, &r)
}

func (b *batchTest) clickhouse(t *testing.T) driver.Conn {
	t.Helper()
	cfg, err := Load(b.cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := olap.Open(t.Context(), cfg.ClickHouse)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // read and written by statements that have told
	return conn
}

// totals writes the control totals of rows [from, to) of a table that fill has filled, in ranges of 20; more is added to the number of rows of the first.
func totals(t *testing.T, conn driver.Conn, c event.Category, from, to int, more int64) {
	t.Helper()
	batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO event_ledger")
	if err != nil {
		t.Fatal(err)
	}
	for lo := from; lo < to; lo += 20 {
		var sum event.Checksum
		hi := min(lo+20, to)
		for i := lo; i < hi; i++ {
			e := &event.Event{ID: fillID(i), Tenant: "default", Name: event.NamePageView, OccurredAt: 1_772_323_200_000_000 + int64(i)}
			sum.Add(e.ComputeRowHash())
		}
		sum.Count += more
		more = 0
		at := event.Time(1_772_323_202_000_000 + int64(lo))
		if err := batch.Append(c.RawTopic(), int32(0), int64(lo), int64(hi), c.EventsTopic(), sum.Count, sum.HashLo, sum.HashHi, int64(0), int64(0), int64(0), at, at, uint64(time.Now().UnixMicro())); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
}

// alerts appends alerts to their table.
func (b *batchTest) alerts(t *testing.T, from int64, ids ...string) {
	t.Helper()
	w, err := b.cat.NewWriter(t.Context(), lakehouse.AlertsTable)
	if err != nil {
		t.Fatal(err)
	}
	next := from
	for _, id := range ids {
		a := &event.Alert{AlertID: id, Kind: event.AlertFraud, Tenant: "default", Entity: event.EntityVisitor, Key: "v-1", OccurredAt: 1_772_323_200_000_000, DetectedAt: 1_772_323_201_000_000, Confirmed: true}
		if err := w.WriteAlert(t.Context(), a, lakehouse.Provenance{Topic: event.TopicAlerts, Offset: next}); err != nil {
			t.Fatal(err)
		}
		next++
	}
	made, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.cat.Append(t.Context(), lakehouse.AlertsTable, made, lakehouse.Vector{"topic": {0: from}}, lakehouse.Vector{"topic": {0: next}}); err != nil {
		t.Fatal(err)
	}
}

func (b *batchTest) publishedAt(t *testing.T, table string) int64 {
	t.Helper()
	r, err := b.cat.Ref(t.Context(), table, lakehouse.RefPublished)
	if errors.Is(err, lakehouse.ErrNoRef) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.SnapshotID
}

// newest is the newest line of publications.
func newest(t *testing.T, conn driver.Conn, table string) activities.Publication {
	t.Helper()
	list, err := activities.Publications(t.Context(), conn, table, 1)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v: %v", list, err)
	}
	return list[0]
}

// One test, because the servers take seconds to start.
func TestPublishTableMovesOnlyToWhatTheControlTotalsProve(t *testing.T) {
	t.Parallel()
	b := newBatchTest(t)
	r := b.start(t)
	eventuallySo(t, "the role is ready", func() bool { return b.ready(t) == "" })
	conn := b.clickhouse(t)
	const table = "events_page"
	fill := func(files int) int64 {
		b.fill(t, event.Page, files)
		h, err := b.cat.Head(t.Context(), table)
		if err != nil {
			t.Fatal(err)
		}
		return h.SnapshotID
	}

	t.Log("a table without rows has nothing to publish")
	res, err := b.published(t, b.publish(t, `{"table": "events_page"}`))
	if err != nil || res.Outcome != name.Empty || b.publishedAt(t, table) != 0 {
		t.Errorf("%+v: %v", res, err)
	}

	t.Log("alerts, which nothing counts, are published when their ids are there, once")
	for lo, ids := range [][]string{{"a1", "a2"}, {"a3", "a1"}} {
		b.alerts(t, int64(2*lo), ids...)
		head, err := b.cat.Head(t.Context(), lakehouse.AlertsTable)
		if err != nil {
			t.Fatal(err)
		}
		res, err := b.published(t, b.publish(t, `{"table": "alerts"}`))
		switch at := b.publishedAt(t, lakehouse.AlertsTable); {
		case lo == 0 && (err != nil || res.Outcome != name.Published || at != head.SnapshotID || res.Numbers[lakehouse.CheckNew] != 2):
			t.Errorf("%+v: %v", res, err)
		case lo == 1 && (err == nil || !strings.Contains(err.Error(), "1 new rows have the") || at == head.SnapshotID):
			t.Errorf("an alert is there twice, and is published: %+v, %v", res, err)
		}
	}

	t.Log("what equals its control totals is published, and tagged")
	first := fill(12)
	totals(t, conn, event.Page, 0, 120, 0)
	run := b.publish(t, `{"table": "events_page", "day": "2026-03-01"}`)
	res, err = b.published(t, run)
	if err != nil || res.Outcome != name.Published || res.To != first || res.Numbers[lakehouse.CheckProven] != 120 || b.publishedAt(t, table) != first {
		t.Fatalf("%+v: %v", res, err)
	}
	if tag, err := b.cat.Ref(t.Context(), table, "nightly-2026-03-01"); err != nil || tag.SnapshotID != first || res.Tag != tag.Name {
		t.Errorf("tag %+v: %v", tag, err)
	}
	row := newest(t, conn, table)
	if row.Outcome != name.Published || row.To != first || row.From != 0 || row.Rows != 120 || !row.Full || row.Run != run.GetRunID() {
		t.Errorf("%+v", row)
	}
	b.keep(t, "publish-done", run.GetID(), run.GetRunID())
	if res, err = b.published(t, b.publish(t, `{"table": "events_page"}`)); err != nil || res.Outcome != name.Unchanged {
		t.Errorf("%+v: %v", res, err)
	}

	t.Log("what has no control totals is refused, and published stays")
	second := fill(3)
	totals(t, conn, event.Page, 120, 140, 0)
	_, err = b.published(t, b.publish(t, `{"table": "events_page"}`))
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != name.CheckFailed || !strings.Contains(err.Error(), "10 rows have no control totals") || b.publishedAt(t, table) != first {
		t.Errorf("got %v", err)
	}
	row = newest(t, conn, table)
	if row.Outcome != name.Refused || row.To != second || row.Full || row.Checks[lakehouse.CheckUntold] != 10 || row.Checks[lakehouse.CheckNew] != 30 || len(row.Problems) != 1 {
		t.Errorf("%+v", row)
	}

	t.Log("somebody answers for it")
	if _, err := b.published(t, b.publish(t, `{"table": "events_page", "approve": {"snapshot": 4711, "reason": "x"}}`)); err == nil || !strings.Contains(err.Error(), "MR-ICE-060") {
		t.Errorf("a snapshot that is not there: %v", err)
	}
	input, err := json.Marshal(name.PublishTableInput{Table: table, Approve: &name.PublishApproval{Snapshot: second, Reason: "ledger was down", By: "on call"}})
	if err != nil {
		t.Fatal(err)
	}
	if res, err = b.published(t, b.publish(t, string(input))); err != nil || res.Outcome != name.Approved || b.publishedAt(t, table) != second {
		t.Errorf("%+v: %v", res, err)
	}
	if row = newest(t, conn, table); row.Reason != "ledger was down" || row.By != "on call" || row.Outcome != name.Approved || row.Checks[lakehouse.CheckUntold] != 10 {
		t.Errorf("%+v", row)
	}

	t.Log("a snapshot that lacks a row waits for a decision")
	totals(t, conn, event.Page, 140, 150, 0)
	third := fill(4)
	totals(t, conn, event.Page, 150, 190, 1)
	run = b.publish(t, `{"table": "events_page", "wait_for_approval": "3m"}`)
	eventuallySo(t, "it waits", func() bool {
		v, err := b.client.QueryWorkflow(t.Context(), run.GetID(), run.GetRunID(), name.Progress)
		var p name.RunProgress
		return err == nil && v.Get(&p) == nil && strings.Contains(p.Waiting, "1 rows of the control totals are missing")
	})
	if b.publishedAt(t, table) != second {
		t.Error("published moved while it waits")
	}
	h, err := b.client.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{WorkflowID: run.GetID(), UpdateName: name.Approve, Args: []any{name.Approval{Reason: "known gap"}}, WaitForStage: client.WorkflowUpdateStageCompleted})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Get(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if res, err = b.published(t, run); err != nil || res.Outcome != name.Approved || b.publishedAt(t, table) != third {
		t.Errorf("%+v: %v", res, err)
	}
	b.keep(t, "publish-approved", run.GetID(), run.GetRunID())

	t.Log("killed after published has moved, the next attempt notes it once")
	fourth := fill(2)
	totals(t, conn, event.Page, 190, 210, 0)
	r.stop()
	r = b.start(t, failpoint.Env+"="+activities.FailPublishMoved+"=kill")
	run = b.publish(t, `{"table": "events_page", "run": "k1"}`)
	<-r.ended
	if b.publishedAt(t, table) != fourth {
		t.Error("published has not moved")
	}
	r = b.start(t)
	if res, err = b.published(t, run); err != nil || res.Outcome != name.Published || res.To != fourth || res.Numbers[lakehouse.CheckProven] != 20 {
		t.Errorf("%+v: %v", res, err)
	}
	if row = newest(t, conn, table); row.Run != "k1" || row.Outcome != name.Published {
		t.Errorf("%+v", row)
	}

	t.Log("rows in quarantine are counted as if they were there; rows that nobody knows of are not")
	if _, err := b.cat.Quarantine(t.Context(), table, "q1", "test", iceberg.EqualTo(iceberg.Reference("event_id"), fillID(5))); err != nil {
		t.Fatal(err)
	}
	totals(t, conn, event.Page, 150, 170, 0) // the gap was none
	if res, err = b.published(t, b.publish(t, `{"table": "events_page"}`)); err != nil || res.Outcome != name.Published || res.Numbers["rows_quarantined"] != 1 || res.Numbers[lakehouse.CheckNew] != 209 {
		t.Errorf("%+v: %v", res, err)
	}
	refs, err := b.cat.Refs(t.Context(), table)
	if err != nil {
		t.Fatal(err)
	}
	leases := 0
	for _, ref := range refs {
		if strings.HasPrefix(ref.Name, lakehouse.LeasePrefix) {
			leases++
		}
	}
	if d := cmp.Diff(1, leases); d != "" { // of the snapshot that was refused, for who approves it
		t.Errorf("leases: %s", d)
	}
	_ = r
}
