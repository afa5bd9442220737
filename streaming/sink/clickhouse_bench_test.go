package sink

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/shopspring/decimal"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
)

// BenchmarkClickHouse compares, in one run, the CPU time of this process for storing the same events: by the sink (fetching and decoding included), by plain
// native inserts of rows that are already in memory (what a program does that has no Kafka: batch.Append, all columns), and by the sink's own blocks already
// decoded, which is the floor for any use of this driver. Broker and server are processes of their own.
func BenchmarkClickHouse(b *testing.B) {
	const rows, partitions = 100_000, clickhouseTestPartitions
	own, err := embeddedtest.Start(b.Context(), "", "kfake", embedded.ClickHouseChild, embedded.KafkaChild)
	if err != nil {
		b.Fatal(err)
	}
	defer own.Stop()
	bench := newClickhouseBenchAt(b, own.Endpoints().Kafka, own.Endpoints().ClickHouse, embeddedtest.Name("millrace_test"))
	events := make([]*event.Event, rows)
	for i := range events {
		events[i] = clickhouseShopEvent(int64(i))
		bench.produce(event.Page, int32(i%partitions), events[i])
	}
	bench.flush()
	var sink, raw, floor float64
	for b.Loop() {
		bench.emptyPages()
		sink = clickhouseCPU(func() { bench.sinkAll(rows) })
		bench.emptyPages()
		raw = clickhouseCPU(func() { bench.insertRows(events) })
		bench.emptyPages()
		floor = bench.insertBlocks(events)
	}
	b.ReportMetric(rows/sink, "sink-rows/cpu-s")
	b.ReportMetric(rows/raw, "raw-rows/cpu-s")
	b.ReportMetric(rows/floor, "blocks-rows/cpu-s")
	b.ReportMetric(raw/sink, "sink/raw")
	b.ReportMetric(floor/sink, "sink/blocks")
	b.ReportMetric(0, "ns/op")
}

// clickhouseCPU is the CPU time of the process while f runs, in seconds.
func clickhouseCPU(f func()) float64 {
	at := func() float64 {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for the own process
		return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
	}
	before := at()
	f()
	return at() - before
}

func clickhouseShopEvent(i int64) *event.Event {
	price := (i%400 + 1) * 990_000
	e := &event.Event{
		Enriched: event.Enriched{IngestedAt: clickhouseEpoch + i*700, SessionID: fmt.Sprintf("s-%08d", i/9), RawTopic: "raw.page", RawPartition: int32(i % 4), RawOffset: i},
		ID:       fmt.Sprintf("%08x-7c1d-4b1e-9d0f-%012x", i*2654435761%(1<<32), i), Tenant: "acme", Name: "page_view", VisitorID: fmt.Sprintf("visitor-%07d", i*7919%50_000),
		OccurredAt: clickhouseEpoch + i*700, ReceivedAt: clickhouseEpoch + i*700 + 40_000, Source: "web", SchemaVersion: 1, Country: []string{"DE", "FR", "US", "AT"}[i%4], DeviceType: "mobile",
		IP: "203.0.113.0", IPHash: fmt.Sprintf("%016x", i*2654435761), PageURL: fmt.Sprintf("https://shop.example/products/%d?ref=home", i%2000), PagePath: fmt.Sprintf("/products/%d", i%2000),
		PageTitle: "A product", PageReferrer: "https://shop.example/", DeviceOS: "Android", DeviceBrowser: "Chrome", UserAgent: "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/142.0 Mobile Safari/537.36",
		City: "Berlin", Locale: "de-DE", TimeZone: "Europe/Berlin", Properties: `{"theme":"dark","ab":"x1"}`,
	}
	if i%3 == 0 {
		e.Name, e.Value, e.Currency = "view_item", &price, "EUR"
		e.Items = []event.Item{{ItemID: fmt.Sprintf("sku-%05d", i%2000), ItemName: "A product", ItemCategory: "shoes", ItemBrand: "acme", Price: &price, Quantity: 1}}
	}
	e.RowHash = e.ComputeRowHash()
	return e
}

func (b *clickhouseBench) emptyPages() {
	b.t.Helper()
	for _, sql := range []string{"TRUNCATE TABLE events_page", "TRUNCATE TABLE sink_topics"} {
		if err := b.conn.Exec(b.t.Context(), sql); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *clickhouseBench) pages() uint64 {
	var n uint64
	if err := b.conn.QueryRow(b.t.Context(), "SELECT count() FROM events_page").Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// sinkAll runs a sink from the start of the topic to its end.
func (b *clickhouseBench) sinkAll(rows int) {
	cfg := DefaultClickHouseConfig()
	cfg.Group = embeddedtest.Name("bench")
	s := b.start(cfg)
	for b.pages() < uint64(rows) {
		select {
		case err := <-s.err:
			b.t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	b.finish(s)
}

// insertRows is the plain native insert.
func (b *clickhouseBench) insertRows(events []*event.Event) {
	const blockRows = 20_000 // what 8 MB of these records are
	null := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	amount := func(v *int64) *decimal.Decimal {
		if v == nil {
			return nil
		}
		d := decimal.New(*v, -6)
		return &d
	}
	items := func(e *event.Event, f func(*event.Item) *string) []*string {
		out := make([]*string, len(e.Items))
		for i := range e.Items {
			out[i] = f(&e.Items[i])
		}
		return out
	}
	for from := 0; from < len(events); from += blockRows {
		batch := b.prepare("INSERT INTO events_page")
		for i, e := range events[from:min(len(events), from+blockRows)] {
			ids := make([]string, len(e.Items))
			prices, discounts, counts, positions := make([]*decimal.Decimal, len(e.Items)), make([]*decimal.Decimal, len(e.Items)), make([]int64, len(e.Items)), make([]*int64, len(e.Items))
			for j := range e.Items {
				item := &e.Items[j]
				ids[j], prices[j], discounts[j], counts[j], positions[j] = item.ItemID, amount(item.Price), amount(item.Discount), item.Quantity, item.Position
			}
			err := batch.Append(e.ID, e.Tenant, e.Name, "page", e.VisitorID, null(e.UserID), null(e.SessionID), event.Time(e.OccurredAt), event.Time(e.ReceivedAt), event.Time(e.IngestedAt),
				e.Source, amount(e.Value), null(e.Currency), null(e.OrderID), e.ProductIDs(nil), e.Properties, "events.page", int32(0), int64(from+i), e.RawTopic, e.RawPartition, e.RawOffset, e.RowHash,
				e.LaneCode, null(e.Country), null(e.DeviceType), ids, items(e, func(i *event.Item) *string { return null(i.ItemName) }), items(e, func(i *event.Item) *string { return null(i.ItemCategory) }),
				items(e, func(i *event.Item) *string { return null(i.ItemBrand) }), items(e, func(i *event.Item) *string { return null(i.ItemVariant) }), prices, counts, discounts,
				items(e, func(i *event.Item) *string { return null(i.Coupon) }), positions, null(e.ClientSessionID), e.SchemaVersion, null(e.IP), null(e.IPHash), null(e.PaymentMethod),
				null(e.CardFingerprint), null(e.CardBIN), null(e.CardLast4), null(e.PageURL), null(e.PagePath), null(e.PageTitle), null(e.PageReferrer), null(e.CampaignSource), null(e.CampaignMedium),
				null(e.CampaignName), null(e.CampaignTerm), null(e.CampaignContent), null(e.DeviceOS), null(e.DeviceBrowser), null(e.UserAgent), null(e.Region), null(e.City), null(e.Locale), null(e.TimeZone),
				null(e.ItemListID), null(e.ItemListName), null(e.PromotionID), null(e.PromotionName), null(e.CreativeName), null(e.CreativeSlot), null(e.SearchTerm))
			if err != nil {
				b.t.Fatal(err)
			}
		}
		if err := batch.Send(); err != nil {
			b.t.Fatal(err)
		}
	}
	if n := b.pages(); n != uint64(len(events)) {
		b.t.Fatalf("%d rows inserted", n)
	}
}

func (b *clickhouseBench) prepare(sql string) driver.Batch {
	ctx := clickhouse.Context(b.t.Context(), clickhouse.WithSettings(clickhouse.Settings{"async_insert": 0, "low_cardinality_allow_in_native_format": 0}))
	batch, err := b.conn.PrepareBatch(ctx, sql)
	if err != nil {
		b.t.Fatal(err)
	}
	return batch
}

// insertBlocks inserts the sink's blocks and gives the CPU time of filling and sending them, without fetching and decoding.
func (b *clickhouseBench) insertBlocks(events []*event.Event) float64 {
	const blockRows = 20_000
	topics, err := clickhouseTopics()
	if err != nil {
		b.t.Fatal(err)
	}
	var cpu float64
	for from := 0; from < len(events); from += blockRows {
		var records []*kgo.Record
		for i, e := range events[from:min(len(events), from+blockRows)] {
			records = append(records, &kgo.Record{Offset: int64(from + i), Value: b.codecs.AppendEnriched(nil, event.Page, e, nil)})
		}
		rows, err := topics[0].decode(context.Background(), b.codecs, records, nil, 0)
		if err != nil {
			b.t.Fatal(err)
		}
		cpu += clickhouseCPU(func() {
			block := rows.blocks[0]
			used := block.used()
			batch := b.prepare(block.insertInto("events_page", used))
			if err := block.fill(batch, used); err != nil {
				b.t.Fatal(err)
			}
			if err := batch.Send(); err != nil {
				b.t.Fatal(err)
			}
		})
		rows.release()
	}
	if n := b.pages(); n != uint64(len(events)) {
		b.t.Fatalf("%d rows inserted", n)
	}
	return cpu
}
