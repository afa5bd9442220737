package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/google/go-cmp/cmp"

	"millrace/event"
)

// alertTest is alert i: in turns about one of ten visitors, users and cards.
func alertTest(i int) *event.Alert {
	return &event.Alert{
		AlertID: fmt.Sprintf("a-%04d", i), Kind: event.AlertFraud, Rule: "velocity", RuleVersion: 3, Tenant: "default",
		Entity: []string{event.EntityVisitor, event.EntityUser, event.EntityCard}[i%3], Key: fmt.Sprintf("k-%d", i%10), Severity: event.SeverityWarn,
		Score: float64(i) / 8, Reasons: []string{"much", fmt.Sprint(i)}[:i%3], TriggerEventID: fmt.Sprintf("e-%d", i),
		OccurredAt: baseTime + int64(i)*1000, DetectedAt: baseTime + int64(i)*1000 + 500, Confirmed: true, Details: `{"measured":3}`,
	}
}

// appendAlerts commits the alerts [from, to), with their number as offset.
func appendAlerts(t testing.TB, c *Catalog, from, to int) {
	t.Helper()
	w, err := c.NewWriter(t.Context(), AlertsTable)
	if err != nil {
		t.Fatal(err)
	}
	for i := from; i < to; i++ {
		if err := w.WriteAlert(t.Context(), alertTest(i), Provenance{event.TopicAlerts, 0, int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Append(t.Context(), AlertsTable, files, at(0, from), at(0, to)); err != nil {
		t.Fatal(err)
	}
}

// alertsOf reads a table of alerts, by id.
func alertsOf(t testing.TB, c *Catalog, table string) map[string]event.Alert {
	t.Helper()
	out := map[string]event.Alert{}
	if err := c.ScanRows(t.Context(), table, ScanOptions{}, func(b arrow.RecordBatch) error {
		text := func(name string, i int) string {
			col, err := column[*array.String](b, name)
			if err != nil {
				t.Fatal(err)
			}
			return col.Value(i)
		}
		version, err1 := column[*array.Int32](b, "rule_version")
		score, err2 := column[*array.Float64](b, "score")
		confirmed, err3 := column[*array.Boolean](b, "confirmed")
		occurred, err4 := column[*array.Timestamp](b, "occurred_at")
		detected, err5 := column[*array.Timestamp](b, "detected_at")
		reasons, err6 := column[*array.List](b, "reasons")
		offset, err7 := column[*array.Int64](b, "kafka_offset")
		if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			a := event.Alert{
				AlertID: text("alert_id", i), Kind: text("kind", i), Rule: text("rule", i), RuleVersion: version.Value(i), Tenant: text("tenant", i), Entity: text("entity", i), Key: text("key", i),
				Severity: text("severity", i), Score: score.Value(i), TriggerEventID: text("trigger_event_id", i), OccurredAt: int64(occurred.Value(i)), DetectedAt: int64(detected.Value(i)),
				Confirmed: confirmed.Value(i), Details: text("details", i), Reasons: []string{},
			}
			from, to := reasons.ValueOffsets(i)
			for n := from; n < to; n++ {
				a.Reasons = append(a.Reasons, reasons.ListValues().(*array.String).Value(int(n)))
			}
			if _, twice := out[a.AlertID]; twice || text("kafka_topic", i) != event.TopicAlerts || fmt.Sprintf("a-%04d", offset.Value(i)) != a.AlertID {
				t.Errorf("row %s is there twice or has offset %d", a.AlertID, offset.Value(i))
			}
			out[a.AlertID] = a
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// alertsBut are the alerts [0, n) but for some.
func alertsBut(n int, but func(a *event.Alert) bool) map[string]event.Alert {
	out := map[string]event.Alert{}
	for i := range n {
		if a := alertTest(i); but == nil || !but(a) {
			if a.Reasons == nil {
				a.Reasons = []string{}
			}
			out[a.AlertID] = *a
		}
	}
	return out
}

func TestAlertsAreReadAsTheyWereWrittenAlsoAfterMaintenance(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	for i := range 6 {
		appendAlerts(t, c, i*50, i*50+50)
	}
	if d := cmp.Diff(alertsBut(300, nil), alertsOf(t, c, AlertsTable)); d != "" {
		t.Fatal(d)
	}
	policy := PolicyOf(AlertsTable)
	policy.MinInputFiles = 2
	plan, err := c.PlanCompaction(t.Context(), AlertsTable, policy)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CommitRewrite(t.Context(), plan, groups(t, c, plan)); err != nil {
		t.Fatal(err)
	}
	info, err := c.Describe(t.Context(), AlertsTable)
	if err != nil || info.Files != 1 || info.Rows != 300 || info.Offsets.At(testTopic, 0) != 300 {
		t.Errorf("%+v, %v", info, err)
	}
	if d := cmp.Diff(alertsBut(300, nil), alertsOf(t, c, AlertsTable)); d != "" {
		t.Error(d)
	}
}

func TestAnAlertThatCannotBeStoredIsNamed(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	w, err := c.NewWriter(t.Context(), AlertsTable)
	if err != nil {
		t.Fatal(err)
	}
	for column, spoil := range map[string]func(*event.Alert){
		"alert_id":    func(a *event.Alert) { a.AlertID = "" },
		"reasons":     func(a *event.Alert) { a.Reasons = []string{"\xff"} },
		"details":     func(a *event.Alert) { a.Details = "\xff" },
		"detected_at": func(a *event.Alert) { a.DetectedAt = maxTime + 1 },
	} {
		a := alertTest(1)
		spoil(a)
		var refused *RowError
		if err := w.WriteAlert(t.Context(), a, Provenance{event.TopicAlerts, 0, 0}); !errors.As(err, &refused) || refused.Column != column {
			t.Errorf("%s: %v", column, err)
		}
	}
	if w.Rows() != 0 {
		t.Errorf("%d rows were taken", w.Rows())
	}
}

func TestErasedAlertsLeaveTheTableAndDoNotComeBackFromQuarantine(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendAlerts(t, c, 0, 200)
	appendAlerts(t, c, 200, 300)
	erased := event.NewErased(eraseKey)
	entry := event.Erasure{RequestID: "r1", Key: eraseKey.ID(), RequestedAt: baseTime + 250*1000, Cut: event.Cut{"raw.purchase": {0}}.String()}
	for kind, id := range map[string]string{event.SubjectVisitor: "k-3", event.SubjectUser: "k-4"} {
		entry.Subjects = append(entry.Subjects, eraseKey.Digest(event.Subject{Tenant: "default", Kind: kind, ID: id}).String())
	}
	if err := erased.Add(entry); err != nil {
		t.Fatal(err)
	}
	gone := func(a *event.Alert) bool {
		return a.OccurredAt <= entry.RequestedAt && (a.Entity == event.EntityVisitor && a.Key == "k-3" || a.Entity == event.EntityUser && a.Key == "k-4")
	}
	if _, err := c.Quarantine(t.Context(), AlertsTable, "q1", "a look at them", iceberg.LessThan(iceberg.Reference("kafka_offset"), int64(50))); err != nil {
		t.Fatal(err)
	}
	res, err := c.EraseRows(t.Context(), AlertsTable, "r1", erased, nil)
	if err != nil {
		t.Fatal(err)
	}
	main := alertsBut(300, func(a *event.Alert) bool { return gone(a) || a.AlertID < "a-0050" })
	if d := cmp.Diff(main, alertsOf(t, c, AlertsTable)); d != "" || res.Rows == 0 {
		t.Errorf("%d rows erased: %s", res.Rows, d)
	}
	back, err := c.Release(t.Context(), AlertsTable, "q1", "b1", erased)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(alertsBut(300, gone), alertsOf(t, c, AlertsTable)); d != "" || back.Dropped == 0 {
		t.Errorf("%+v: %s", back, d)
	}
	found, err := c.FindErased(t.Context(), AlertsTable, erased, nil)
	if err != nil || found.Refs[RefMain] != 0 || found.Rows == 0 { // what earlier snapshots hold is found until it is purged
		t.Errorf("%+v, %v", found, err)
	}
	if head, err := c.Head(t.Context(), AlertsTable); err != nil || head.Vector.At(testTopic, 0) != 300 {
		t.Errorf("%+v, %v", head, err)
	}
}

func TestAlertsArePublishedWithoutControlTotals(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	check := func() CheckResult {
		t.Helper()
		head, err := c.Head(t.Context(), AlertsTable)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.CheckSnapshot(t.Context(), AlertsTable, CheckOptions{Snapshot: head.SnapshotID, Window: time.Hour, Scratch: t.TempDir()},
			func(context.Context) ([]ControlRange, error) { return nil, nil }, nil)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	appendAlerts(t, c, 0, 40)
	wantNumbers(t, check(), map[string]int64{CheckRows: 40, CheckNew: 40})
	w, err := c.NewWriter(t.Context(), AlertsTable)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteAlert(t.Context(), alertTest(7), Provenance{event.TopicAlerts, 0, 40}); err != nil {
		t.Fatal(err)
	}
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Append(t.Context(), AlertsTable, files, at(0, 40), at(0, 41)); err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, check(), map[string]int64{CheckRows: 41, CheckNew: 41, CheckDuplicates: 1})
}
