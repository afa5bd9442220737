package lakehouse

import (
	"fmt"
	"path/filepath"
	"testing"

	"millrace/event"
)

const testTopic = "topic-id-1"

func testConfig(dir string) Config {
	cfg := DefaultConfig()
	cfg.CatalogURI = "sqlite:///" + filepath.Join(dir, "catalog.db")
	cfg.Warehouse = "file://" + filepath.Join(dir, "warehouse")
	return cfg
}

func openTest(t testing.TB, dir string) *Catalog {
	t.Helper()
	return openConfig(t, testConfig(dir))
}

func ensureTest(t testing.TB) *Catalog {
	t.Helper()
	c := openTest(t, t.TempDir())
	if err := EnsureTables(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c
}

func ptr(v int64) *int64 { return &v }

// baseTime is 2026-03-01T00:00:00Z in µs.
const baseTime = 1_772_323_200_000_000

// purchase makes the i-th purchase, with values in every kind of column.
func purchase(i int) *event.Event {
	e := &event.Event{
		ID: fmt.Sprintf("e-%06d", i), Tenant: "default", Name: event.NamePurchase, VisitorID: fmt.Sprintf("v-%d", i%97), Source: "web",
		OccurredAt: baseTime + int64(i)*1000 - 5_000_000, ReceivedAt: baseTime + int64(i)*1000 - 1_000_000,
		Value: ptr(int64(i)*1_000_001 + 1), Currency: []string{"USD", "EUR", "JPY"}[i%3], OrderID: fmt.Sprintf("o-%d", i), Country: "DE", DeviceType: "mobile", SchemaVersion: 1,
		Properties: `{"a":"ü"}`, Tax: ptr(int64(i)),
		Items: []event.Item{
			{ItemID: fmt.Sprintf("p-%d", i%11), ItemName: "Mug", ItemCategory: "Kitchen", Price: ptr(64_950_000), Quantity: 2},
			{ItemID: fmt.Sprintf("p-%d", i%7+20), Quantity: 1, Position: ptr(3)},
		}[:1+i%2],
	}
	if i%5 == 0 {
		e.Value, e.Currency, e.Items = nil, "", nil
	}
	e.IngestedAt, e.RawTopic, e.RawOffset, e.OrderRank = baseTime+int64(i)*1000, "raw.purchase", int64(i), 1
	e.RowHash = e.ComputeRowHash()
	return e
}

// write puts purchases [from, to) of partition 0 into files.
func write(t testing.TB, c *Catalog, w *Writer, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := w.WriteEvent(t.Context(), purchase(i), Provenance{Topic: "events.purchase", Partition: 0, Offset: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
}

// appendTest writes and appends [from, to).
func appendTest(t testing.TB, c *Catalog, from, to int) (Head, error) {
	t.Helper()
	w, err := c.NewWriter(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, w, from, to)
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.Append(t.Context(), "events_purchase", files, at(0, from), at(0, to))
}

func at(partition int32, next int) Vector { return Vector{testTopic: {partition: int64(next)}} }

func wantTotals(n int) Totals {
	w := Totals{Values: map[string]event.Sum{}}
	for i := range n {
		e := purchase(i)
		w.Add(e.RowHash)
		if e.Value != nil {
			w.Values[e.Currency] = w.Values[e.Currency].AddMicros(*e.Value)
		}
	}
	w.Distinct = int64(n)
	return w
}
