package live

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/event"
)

var alertNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testAlert(id string, confirmed bool) event.Alert {
	return event.Alert{
		AlertID: id, Kind: event.AlertFraud, Rule: "card_testing", RuleVersion: 3, Tenant: "t", Entity: event.EntityVisitor, Key: "v1", Severity: event.SeverityWarn, Score: 0.9,
		Reasons: []string{"5 cards in 60 s"}, TriggerEventID: "e-1", OccurredAt: alertNow.UnixMicro() - 5e6, DetectedAt: alertNow.UnixMicro(), Confirmed: confirmed, Details: `{"cards":5}`,
	}
}

func TestAnAlertIsNewOnceAndConfirmedOnceInAnyOrderAndHoweverOften(t *testing.T) {
	rdb := client(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		tenant := fmt.Sprintf("t%d", run)
		var all []event.Alert
		confirmed := map[string]bool{}
		for i := range rapid.IntRange(1, 8).Draw(rt, "alerts") {
			a := testAlert(fmt.Sprintf("a%d", i), false)
			a.Tenant = tenant
			confirmed[a.AlertID] = rapid.Bool().Draw(rt, "confirmed")
			all = append(all, a, a)
			if confirmed[a.AlertID] {
				a.Confirmed = true
				all = append(all, a, a)
			}
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for len(all) > 0 {
			n := rapid.IntRange(1, len(all)).Draw(rt, "batch")
			if _, _, err := PutAlerts(t.Context(), rdb, all[:n], alertNow); err != nil {
				rt.Fatal(err)
			}
			all = all[n:]
		}
		got, err := AlertsAfter(t.Context(), rdb, tenant, "0", 1000)
		if err != nil {
			rt.Fatal(err)
		}
		last, times := map[string]bool{}, map[string]int{}
		for _, e := range got {
			if times[e.Alert.AlertID]++; times[e.Alert.AlertID] > 2 || last[e.Alert.AlertID] {
				rt.Fatalf("%s comes again after it was confirmed, or a third time", e.Alert.AlertID)
			}
			last[e.Alert.AlertID] = e.Alert.Confirmed
		}
		if diff := cmp.Diff(confirmed, last); diff != "" {
			rt.Fatalf("what followers know at the end: %s", diff)
		}
		for id, want := range confirmed {
			a, ok, err := Alert(t.Context(), rdb, tenant, id)
			if err != nil || !ok || a.Confirmed != want {
				rt.Fatalf("%s as it stands: %+v %v %v", id, a, ok, err)
			}
		}
	})
}

func TestAnAlertComesBackAsItWasPut(t *testing.T) {
	rdb := client(t)
	want := testAlert("a1", true)
	if n, c, err := PutAlerts(t.Context(), rdb, []event.Alert{want}, alertNow); err != nil || n != 1 || c != 0 {
		t.Fatal(n, c, err)
	}
	got, ok, err := Alert(t.Context(), rdb, "t", "a1")
	if err != nil || !ok || !cmp.Equal(want, got) {
		t.Error(ok, err, cmp.Diff(want, got))
	}
	newest, err := NewestAlerts(t.Context(), rdb, "t", 10)
	if err != nil || len(newest) != 1 || !cmp.Equal(want, newest[0].Alert) {
		t.Errorf("%+v %v", newest, err)
	}
	if after, err := AlertsAfter(t.Context(), rdb, "t", newest[0].Entry, 10); err != nil || len(after) != 0 {
		t.Errorf("behind the last: %+v %v", after, err)
	}
	if _, ok, err := Alert(t.Context(), rdb, "other", "a1"); ok || err != nil {
		t.Error("another tenant sees it", err)
	}
	if got, err := NewestAlerts(t.Context(), rdb, "other", 10); err != nil || len(got) != 0 {
		t.Errorf("%+v %v", got, err)
	}
}

func TestAlertsAreKeptForTheirTimeAndInTheirNumber(t *testing.T) {
	rdb := client(t)
	old := testAlert("old", true)
	old.DetectedAt = alertNow.Add(-AlertsKept).UnixMicro()
	if n, _, err := PutAlerts(t.Context(), rdb, []event.Alert{old}, alertNow); err != nil || n != 0 {
		t.Errorf("an old alert is new: %d %v", n, err)
	}
	var many []event.Alert
	for i := range AlertsStreamed + 300 {
		many = append(many, testAlert(fmt.Sprintf("a%d", i), false))
	}
	if _, _, err := PutAlerts(t.Context(), rdb, many, alertNow); err != nil {
		t.Fatal(err)
	}
	n, err := rdb.XLen(t.Context(), alertStream("t")).Result()
	if err != nil || n < AlertsStreamed || n > AlertsStreamed+200 {
		t.Errorf("%d entries, %v", n, err)
	}
	for _, key := range []string{alertStream("t"), alertKey("t", "a0")} {
		if ttl, err := rdb.PTTL(t.Context(), key).Result(); err != nil || ttl <= 0 || ttl > AlertsKept {
			t.Errorf("%s is kept for %s, %v", key, ttl, err)
		}
	}
}

func TestWhatADestinationHasTakenIsKnown(t *testing.T) {
	rdb := client(t)
	d := Deliveries{Destination: "pager", Keep: time.Hour}
	fast, final := testAlert("a1", false), testAlert("a1", true)
	taken := func(a event.Alert) bool {
		t.Helper()
		ok, err := d.Taken(t.Context(), rdb, &a)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if taken(fast) || taken(final) {
		t.Error("nothing was sent")
	}
	if err := d.Note(t.Context(), rdb, &fast); err != nil || !taken(fast) || taken(final) {
		t.Error("the provisional one was sent", err)
	}
	if err := d.Note(t.Context(), rdb, &final); err != nil || !taken(fast) || !taken(final) {
		t.Error("the confirmed one was sent", err)
	}
	if ok, err := (Deliveries{Destination: "chat", Keep: time.Hour}).Taken(t.Context(), rdb, &fast); ok || err != nil {
		t.Error("another destination has it", err)
	}
}
