package sink

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/live"
	"millrace/olap"
)

// testAlert is the i-th alert, found just now.
func testAlert(i int) event.Alert {
	return event.Alert{
		AlertID: event.AlertID("velocity", 2, fmt.Sprintf("v%d", i), fmt.Sprintf("e%d", i)), Kind: event.AlertFraud, Rule: "velocity", RuleVersion: 2, Tenant: "acme",
		Entity: event.EntityVisitor, Key: fmt.Sprintf("v%d", i), Severity: event.SeverityCritical, Score: 0.5 + float64(i)/1000, Reasons: []string{"many", "fast"},
		TriggerEventID: fmt.Sprintf("e%d", i), OccurredAt: clickhouseEpoch + int64(i)*1000, DetectedAt: time.Now().UnixMicro(), Details: `{"n":3}`,
	}
}

func alertRecord(t testing.TB, codecs *schema.Codecs, topic string, a event.Alert) *kgo.Record {
	t.Helper()
	v, err := codecs.Append(nil, topic, &a)
	if err != nil {
		t.Fatal(err)
	}
	return &kgo.Record{Topic: topic, Key: a.AppendKey(nil), Value: v}
}

func TestClickHouseHasEachAlertOnceAndTheConfirmedOne(t *testing.T) {
	b := newClickhouseBench(t)
	r := b.start(fastClickHouse())
	send := func(topic string, a event.Alert) {
		a.Confirmed = topic == event.TopicAlerts
		b.record(topic, 0, &a)
	}
	for i := range 40 {
		a := testAlert(i)
		switch i % 4 {
		case 0: // on arrival alone
			send(event.TopicAlertsFast, a)
		case 1: // then confirmed
			send(event.TopicAlertsFast, a)
			b.flush()
			send(event.TopicAlerts, a)
		case 2: // the other way round, with far greater offsets for what is provisional
			send(event.TopicAlerts, a)
			b.flush()
			for range 5 {
				send(event.TopicAlertsFast, a)
			}
		default: // confirmed alone, sent again
			send(event.TopicAlerts, a)
			send(event.TopicAlerts, a)
		}
	}
	b.raw(event.TopicAlerts, 1, []byte("no alert at all"))
	bad := testAlert(99)
	bad.AlertID = ""
	send(event.TopicAlertsFast, bad)
	b.flush()
	b.eventually("alerts in ClickHouse", func() string {
		var n, distinct, confirmed uint64
		if err := b.conn.QueryRow(t.Context(), "SELECT count(), uniqExact(alert_id), countIf(confirmed) FROM alerts FINAL").Scan(&n, &distinct, &confirmed); err != nil {
			return err.Error()
		}
		if n > 40 {
			t.Fatalf("%d rows", n)
		}
		if n != 40 || distinct != 40 || confirmed != 30 {
			return fmt.Sprintf("%d rows, %d alerts, %d confirmed", n, distinct, confirmed)
		}
		return ""
	})
	b.committed(event.TopicAlerts)
	b.committed(event.TopicAlertsFast)
	want := testAlert(6)
	var got event.Alert
	var at, found time.Time
	row := b.conn.QueryRow(t.Context(), "SELECT alert_id, toString(kind), toString(rule), rule_version, toString(tenant), toString(entity), key, toString(severity), score, reasons, trigger_event_id, occurred_at, detected_at, confirmed, details FROM alerts FINAL WHERE alert_id = ?", want.AlertID)
	if err := row.Scan(&got.AlertID, &got.Kind, &got.Rule, &got.RuleVersion, &got.Tenant, &got.Entity, &got.Key, &got.Severity, &got.Score, &got.Reasons, &got.TriggerEventID, &at, &found, &got.Confirmed, &got.Details); err != nil {
		t.Fatal(err)
	}
	got.OccurredAt, want.DetectedAt, want.Confirmed = at.UnixMicro(), got.DetectedAt, true
	if diff := cmp.Diff(want, got); diff != "" || found.Before(time.Now().Add(-time.Hour)) {
		t.Error(diff, found)
	}
	b.finish(r)
	// What is read again from the start changes nothing.
	cfg := fastClickHouse()
	cfg.Group = "millrace.sink.clickhouse.again"
	r = b.start(cfg)
	b.eventually("the topics to be read again", func() string {
		var rows dto.Metric
		if err := r.m.rows.WithLabelValues(olap.TableAlerts).Write(&rows); err != nil {
			t.Fatal(err)
		}
		if n := rows.GetCounter().GetValue(); n < 110 { // 10 + 20 + 60 + 20
			return fmt.Sprintf("%v rows were written again", n)
		}
		return ""
	})
	b.finish(r)
	var final, confirmed uint64
	if err := b.conn.QueryRow(t.Context(), "SELECT count(), countIf(confirmed) FROM alerts FINAL").Scan(&final, &confirmed); err != nil || final != 40 || confirmed != 30 {
		t.Errorf("%d alerts, %d confirmed, %v", final, confirmed, err)
	}
}

func TestRedisTellsFollowersOfEachAlertOnceAndOfItsConfirmation(t *testing.T) {
	b := newRedisBench(t)
	send := func(topic string, partition int32, a event.Alert) {
		t.Helper()
		r := alertRecord(t, b.codecs, topic, a)
		r.Partition = partition
		if err := b.cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	read := func() []live.StreamedAlert {
		got, err := live.AlertsAfter(t.Context(), b.rdb, "acme", "0", 1000)
		if err != nil {
			return nil
		}
		return got
	}
	a0, a1 := testAlert(0), testAlert(1)
	send(event.TopicAlertsFast, 0, a0)
	eventually(t, 30*time.Second, func() error {
		if n := len(read()); n != 1 {
			return fmt.Errorf("%d entries", n)
		}
		return nil
	})
	send(event.TopicAlerts, 1, a0)
	send(event.TopicAlertsFast, 0, a0) // again
	if err := b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: event.TopicAlerts, Partition: 0, Value: []byte{0, 0, 0, 0, 99, 1}}, &kgo.Record{Topic: event.TopicAlerts, Partition: 0, Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	send(event.TopicAlerts, 0, a1)
	b.produce(0, 0, 7)
	b.wait(1, 7)
	eventually(t, 30*time.Second, func() error {
		var got []string
		for _, e := range read() {
			got = append(got, fmt.Sprintf("%s %v", e.Alert.Key, e.Alert.Confirmed))
		}
		if len(got) != 3 || got[0] != "v0 false" {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	// Emptied, it is told again, of each alert as it stands or both times.
	b.server.FlushAll()
	eventually(t, 30*time.Second, func() error {
		final := map[string]bool{}
		for _, e := range read() {
			final[e.Alert.Key] = e.Alert.Confirmed
		}
		if diff := cmp.Diff(map[string]bool{"v0": true, "v1": true}, final); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}
