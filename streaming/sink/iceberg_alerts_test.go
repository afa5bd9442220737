package sink

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/lakehouse"
)

// alert writes an alert in a transaction of its own.
func (b *icebergBench) alert(partition int32, a event.Alert, abort bool) {
	b.t.Helper()
	value, err := b.codecs.Append(nil, event.TopicAlerts, &a)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.cl.BeginTransaction(); err != nil {
		b.t.Fatal(err)
	}
	if err := b.cl.ProduceSync(b.t.Context(), &kgo.Record{Topic: event.TopicAlerts, Partition: partition, Value: value}).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
	if err := b.cl.EndTransaction(b.t.Context(), kgo.TransactionEndTry(!abort)); err != nil {
		b.t.Fatal(err)
	}
}

func icebergAlert(i int) event.Alert {
	return event.Alert{
		AlertID: fmt.Sprintf("a%d", i), Kind: event.AlertFraud, Rule: "velocity", RuleVersion: 2, Tenant: "default", Entity: event.EntityVisitor, Key: fmt.Sprintf("v%d", i%10),
		Severity: event.SeverityCritical, Score: 0.5, Reasons: []string{"much"}, TriggerEventID: fmt.Sprintf("e%d", i), OccurredAt: icebergBase + int64(i), DetectedAt: icebergBase + int64(i) + 9, Confirmed: true,
	}
}

// sendAlerts writes n alerts to each partition; every third transaction is aborted, so that offsets have gaps.
func (b *icebergBench) sendAlerts(n int) {
	b.t.Helper()
	for p := range int32(icebergPartitions) {
		for i := range n {
			a := icebergAlert(b.next)
			b.next++
			abort := i%3 == 1
			if b.alert(p, a, abort); !abort {
				b.alerts[a.AlertID] = a.OccurredAt
			}
		}
	}
}

// alertsDifference says how the table alerts differs from what was sent, once.
func (b *icebergBench) alertsDifference() error {
	if len(b.alerts) == 0 {
		return nil
	}
	got := map[string]int64{}
	var twice []error
	if err := b.cat.Scan(b.t.Context(), lakehouse.AlertsTable, "", []string{"alert_id", "occurred_at", "confirmed"}, func(batch arrow.RecordBatch) error {
		of := func(name string) arrow.Array { return batch.Column(batch.Schema().FieldIndices(name)[0]) }
		for i := range int(batch.NumRows()) {
			id := strings.Clone(of("alert_id").(*array.String).Value(i))
			if _, there := got[id]; there || !of("confirmed").(*array.Boolean).Value(i) {
				twice = append(twice, fmt.Errorf("alert %s is there twice, or is not confirmed", id))
			}
			got[id] = int64(of("occurred_at").(*array.Timestamp).Value(i))
		}
		return nil
	}); err != nil {
		return err
	}
	if d := cmp.Diff(b.alerts, got); d != "" {
		twice = append(twice, fmt.Errorf("alerts (-want +got):\n%s", d))
	}
	return errors.Join(twice...)
}

func TestIcebergAlertsAreStoredOnceWhereverTheSinkIsKilled(t *testing.T) {
	for _, point := range []string{lakehouse.FailBeforeCommit, lakehouse.FailAfterCommit} { // after it the group's offsets are not committed
		t.Run(point, func(t *testing.T) {
			b := newIcebergBench(t)
			killed := 0
			for range 3 {
				b.sendAlerts(9)
				if b.life(point + "=kill@1") {
					killed++
				}
			}
			if killed != 3 {
				t.Errorf("killed %d times", killed)
			}
			if b.life("") {
				t.Fatal("killed without a failpoint")
			}
		})
	}
}

func TestIcebergAnAlertThatCannotBeReadIsRefusedAndThoseOfTheErasedAreNotStored(t *testing.T) {
	b := newIcebergBench(t)
	entry := event.Erasure{
		RequestID: "r1", Key: erasedKey.ID(), RequestedAt: icebergBase + 100, Cut: event.Cut{"raw.page": {0}}.String(),
		Subjects: []string{erasedKey.Digest(event.Subject{Tenant: "default", Kind: event.SubjectVisitor, ID: "v3"}).String()},
	}
	value, err := b.codecs.Append(nil, event.TopicErasures, &entry)
	if err != nil {
		t.Fatal(err)
	}
	b.raw(event.TopicErasures, 0, value) // the topic ends in a transaction's marker
	b.alert(0, icebergAlert(3), false)   // of the erased visitor, before the request
	b.raw(event.TopicAlerts, 0, []byte("no Avro"))
	b.alert(0, icebergAlert(103), false) // after it
	b.alert(0, icebergAlert(4), false)
	b.alerts = map[string]int64{"a103": icebergBase + 103, "a4": icebergBase + 4}
	cfg := icebergFast()
	cfg.Erasures = &erasedKey
	r := b.start(cfg)
	b.exact()
	if got := icebergValue(t, r.m.refused.WithLabelValues(lakehouse.AlertsTable)); got != 1 {
		t.Errorf("%v rows are refused", got)
	}
	if got := icebergValue(t, r.m.erasure.dropped.WithLabelValues(lakehouse.AlertsTable)); got != 1 {
		t.Errorf("%v rows are dropped", got)
	}
	b.end(r)
}
