package olap

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/event"
)

func TestPaymentsAreReadAsTheStreamSawThem(t *testing.T) {
	_, conn := migrated(t)
	at := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	insert := func(id string, seconds int, rank int) {
		t.Helper()
		err := conn.Exec(t.Context(), "INSERT INTO events_purchase (event_id, tenant, name, category, visitor_id, user_id, occurred_at, received_at, ingested_at, source, value, currency, order_id, country, card_fingerprint, ip_hash, properties, lane, order_rank, `items.item_id`, `items.quantity`, kafka_offset) "+
			"VALUES (?, 'default', 'purchase', 'purchase', 'v', 'u', ?, ?, ?, 'web', '12.5', 'EUR', 'o', 'DE', 'c', 'i', ?, 0, ?, ['a', 'b'], [2, 3], ?)",
			id, at.Add(time.Duration(seconds)*time.Second), at.Add(time.Duration(seconds)*time.Second), at.Add(time.Duration(seconds+1)*time.Second), `{"declined":true}`, rank, seconds)
		if err != nil {
			t.Fatal(err)
		}
	}
	insert("second", 5, 1)
	insert("first", 2, 1)
	insert("a copy", 6, 2)
	insert("too late", 3600, 1)
	var got []event.Rekeyed
	err := Payments(t.Context(), conn, []string{"purchase", "add_payment_info", "identify"}, at, at.Add(time.Minute), func(string, string, string, string, string) string { return "d" }, func(e *event.Rekeyed) error {
		got = append(got, *e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	us := at.UnixMicro()
	one := func(id string, seconds int64) event.Rekeyed {
		return event.Rekeyed{
			Tenant: "default", EventID: id, Name: "purchase", VisitorID: "v", UserID: "u", At: us + seconds*1e6, OccurredAt: us + seconds*1e6, ReceivedAt: us + seconds*1e6, IngestedAt: us + (seconds+1)*1e6,
			Value: 12_500_000, Currency: "EUR", Units: 5, Country: "DE", CardFingerprint: "c", IPHash: "i", Device: "d", Declined: true,
		}
	}
	if d := cmp.Diff([]event.Rekeyed{one("first", 2), one("second", 5)}, got); d != "" {
		t.Error(d)
	}
}

func TestAppliedSetsOfRulesAreKept(t *testing.T) {
	_, conn := migrated(t)
	at := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	want := RuleSet{Version: 2, Hash: "h", Text: "version: 2", AppliedAt: at, Forced: true, From: at.Add(-time.Hour), To: at, Events: 7}
	with := want
	with.Replay = "[]"
	if err := KeepRuleSet(t.Context(), conn, with); err != nil {
		t.Fatal(err)
	}
	got, err := RuleSets(t.Context(), conn, 10)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]RuleSet{want}, got); d != "" {
		t.Error(d)
	}
}
