package olap

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"

	"millrace/event"
	"millrace/event/schema"
)

// baseTime is 2026-03-01T00:00:00Z in µs.
const baseTime = 1_772_323_200_000_000

func purchase(i int) event.Stored {
	e := &event.Event{
		ID: fmt.Sprintf("e-%06d", i), Tenant: "default", Name: event.NamePurchase, VisitorID: fmt.Sprintf("v-%d", i%97), Source: "web", OccurredAt: baseTime + int64(i)*1000 - 5_000_001,
		ReceivedAt: baseTime + int64(i)*1000 - 1_000_000, Value: new(int64(i)*1_000_001 + 1), Currency: "EUR", OrderID: fmt.Sprintf("o-%d", i), Country: "DE", SchemaVersion: 1,
		Properties: fmt.Sprintf(`{"a":"ü\t\"","level":%d}`, i), Tax: new(int64(i)), Items: []event.Item{
			{ItemID: "p-1", ItemName: "Mug", ItemCategory: "Kitchen", Price: new(int64(64_950_000)), Quantity: 2}, {ItemID: "p-2", Quantity: 1, Position: new(int64(3))},
		}[:i%3],
	}
	if i%3 == 0 {
		e.Items, e.Value, e.Currency = nil, nil, ""
	}
	e.IngestedAt, e.RawTopic, e.RawPartition, e.RawOffset, e.OrderRank = baseTime+int64(i)*1000, "raw.purchase", 1, int64(i), 1
	e.RowHash = e.ComputeRowHash()
	return event.Stored{Event: e, Topic: "events.purchase", Partition: 1, Offset: int64(i) + 7}
}

func purchases(from, to int) []event.Stored {
	var out []event.Stored
	for i := from; i < to; i++ {
		out = append(out, purchase(i))
	}
	return out
}

func hour() Part {
	return Part{Table: "events_purchase", RawTopic: "raw.purchase", From: event.Time(baseTime), To: event.Time(baseTime).Add(time.Hour)}
}

func checksum(rows []event.Stored) (c event.Checksum) {
	for _, s := range rows {
		c.Add(s.Event.RowHash)
	}
	return c
}

func TestRepairMendsATable(t *testing.T) {
	t.Parallel()
	_, conn := migrated(t)
	r, ctx, p := NewRepair(conn, ""), t.Context(), hour()
	all := purchases(0, 300)
	sums := func() map[int32]event.Checksum {
		t.Helper()
		s, err := r.Sums(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for again := range 2 { // under the same token once, also if the rows have gone meanwhile: that is why repairs look again
		n, err := r.Insert(ctx, p, 1, all, nil, "repair:a")
		if err != nil || n != 300-300*again {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if diff := cmp.Diff(map[int32]event.Checksum{1: checksum(all)}, sums()); diff != "" {
		t.Error(diff)
	}

	t.Log("rows are read back as they were written")
	var got []event.Stored
	if err := r.Rows(ctx, p, 1, []int64{299, 0, 7, 1000}, func(s event.Stored) error { got = append(got, s); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b event.Stored) int { return int(a.Offset - b.Offset) })
	if diff := cmp.Diff([]event.Stored{purchase(0), purchase(7), purchase(299)}, got); diff != "" {
		t.Error(diff)
	}

	t.Log("copies are told apart by where they are, within a part and across parts")
	exec(t, conn, "INSERT INTO events_purchase SELECT * FROM events_purchase WHERE raw_offset < 50")
	exec(t, conn, "INSERT INTO events_purchase SELECT * FROM (SELECT * FROM events_purchase WHERE raw_offset = 60 UNION ALL SELECT * FROM events_purchase WHERE raw_offset = 60)")
	exec(t, conn, "INSERT INTO events_purchase SELECT * REPLACE (70007 AS kafka_offset) FROM events_purchase WHERE raw_offset = 70")
	spots, err := r.Spots(ctx, p, 1, 0, 80)
	if err != nil {
		t.Fatal(err)
	}
	copies := map[int64]int{}
	for _, s := range spots {
		copies[s.Offset] += s.Copies
	}
	if copies[0] != 2 || copies[49] != 2 || copies[50] != 1 || copies[60] != 3 || copies[70] != 2 {
		t.Errorf("%v", copies)
	}
	var drops []Drop
	for _, s := range all {
		if copies[s.Event.RawOffset] > 1 {
			drops = append(drops, Drop{Offset: s.Event.RawOffset, Keep: true, Hash: s.Event.RowHash, At: s.Offset})
		}
	}
	drops = append(drops, Drop{Offset: 299})
	for again := range 2 {
		n, err := r.Delete(ctx, p, 1, drops)
		if err != nil || n != 54-54*again {
			t.Errorf("%d rows deleted, %v", n, err)
		}
	}
	if diff := cmp.Diff(map[int32]event.Checksum{1: checksum(all[:299])}, sums()); diff != "" {
		t.Error(diff)
	}

	t.Log("what is missing comes back under another token, with its promoted column")
	promotion := schema.Promotion{Category: "purchase", Name: "level_no", Type: "long", Property: "level", ID: schema.FirstPromotedID}
	if err := AddPromoted(ctx, conn, p.Table, []schema.Promotion{promotion}, ""); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "DELETE FROM events_purchase WHERE raw_offset >= 100 AND raw_offset < 150 SETTINGS lightweight_deletes_sync = 2")
	if n, err := r.Insert(ctx, p, 1, all, []schema.Promotion{promotion}, "repair:b"); err != nil || n != 51 {
		t.Errorf("%d, %v", n, err)
	}
	if diff := cmp.Diff(map[int32]event.Checksum{1: checksum(all)}, sums()); diff != "" {
		t.Error(diff)
	}
	var promoted, levels int64
	if err := conn.QueryRow(ctx, "SELECT toInt64(count()), sum(assumeNotNull(level_no)) FROM events_purchase WHERE level_no IS NOT NULL").Scan(&promoted, &levels); err != nil || promoted != 51 || levels != 299+50*(100+149)/2 {
		t.Errorf("%d rows have the promoted column, sum %d, %v", promoted, levels, err)
	}

	ranges, err := r.RangeSums(ctx, p, 1, []int64{0, 100, 150, 1000})
	want := map[int64]event.Checksum{0: checksum(all[:100]), 100: checksum(all[100:150]), 150: checksum(all[150:])}
	if diff := cmp.Diff(want, ranges); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	at, err := r.Positions(ctx, p.Table, p.From)
	if diff := cmp.Diff(map[int32]int64{1: 307}, at); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestFailedEventsAreReadAndInserted(t *testing.T) {
	t.Parallel()
	_, conn := migrated(t)
	r, ctx := NewRepair(conn, ""), t.Context()
	p := Part{Table: TableFailed, RawTopic: "raw.failed", From: event.Time(baseTime), To: event.Time(baseTime).Add(time.Hour)}
	want := event.Stored{Topic: "events.failed", Partition: 2, Offset: 9, Failed: &event.Failed{
		IngestedAt: baseTime + 1, RawTopic: "raw.failed", RawPartition: 2, RawOffset: 4, ID: "f1", FailedAt: baseTime, ReceivedAt: baseTime, Tenant: "t", Reason: "schema", Payload: "{", Source: "web", PayloadBytes: 1,
	}}
	if n, err := r.Insert(ctx, p, 2, []event.Stored{want}, nil, "repair:f"); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	var got event.Stored
	if err := r.Rows(ctx, p, 2, []int64{4}, func(s event.Stored) error { got = s; return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	sums, err := r.Sums(ctx, p)
	if err != nil || sums[2].Count != 1 {
		t.Errorf("%+v, %v", sums, err)
	}
	var hash driver.Rows
	if hash, err = conn.Query(ctx, "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if err := hash.Close(); err != nil {
		t.Error(err)
	}
}
