package sink

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/internal/fault"
	"millrace/olap"
)

const clickhouseTestPartitions = 2

// clickhouseEpoch is the time of the first test event: 2026-03-01.
const clickhouseEpoch = int64(1_772_323_200_000_000)

// clickhouseBench is a broker and a database, and sinks between them that a test starts and stops.
type clickhouseBench struct {
	t      testing.TB
	db     olap.Config
	conn   driver.Conn
	codecs *schema.Codecs
	opts   []kgo.Opt
	cl     *kgo.Client
	sent   map[string]*event.Checksum // by table
	offset map[string]int64           // next raw offset by topic
}

func newClickhouseBench(t testing.TB) *clickhouseBench {
	t.Helper()
	return newClickhouseBenchOn(t, embeddedtest.Kfake(t), sharedServers(t).Database(t).Database)
}

func newClickhouseBenchOn(t testing.TB, brokers, database string) *clickhouseBench {
	t.Helper()
	return newClickhouseBenchAt(t, brokers, sharedServers(t).Endpoints().ClickHouse, database)
}

func newClickhouseBenchAt(t testing.TB, brokers string, at embedded.ClickHouse, database string) *clickhouseBench {
	t.Helper()
	b := &clickhouseBench{t: t, db: olap.DefaultConfig(), opts: []kgo.Opt{kgo.SeedBrokers(strings.Split(brokers, ",")...)}, sent: map[string]*event.Checksum{}, offset: map[string]int64{}}
	b.db.Addr, b.db.User, b.db.Password, b.db.Database = []string{at.Native}, at.User, at.Password, database
	b.conn = b.connect(b.db)
	if err := olap.Migrate(t.Context(), b.conn, olap.Options{}); err != nil {
		t.Fatal(err)
	}
	codecs, err := schema.NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	b.codecs = codecs.AssignLocal()
	if b.cl, err = kgo.NewClient(append(b.opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.cl.Close)
	b.createTopics()
	return b
}

func (b *clickhouseBench) connect(cfg olap.Config) driver.Conn {
	b.t.Helper()
	conn, err := olap.Open(b.t.Context(), cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return conn
}

func (b *clickhouseBench) createTopics() {
	b.t.Helper()
	var names []string
	for _, topic := range event.Topics() {
		names = append(names, topic.Name)
	}
	if _, err := kadm.NewClient(b.cl).CreateTopics(b.t.Context(), clickhouseTestPartitions, 1, nil, names...); err != nil {
		b.t.Fatal(err)
	}
}

// fastClickHouse is a configuration for tests: small batches, soon.
func fastClickHouse() ClickHouseConfig {
	cfg := DefaultClickHouseConfig()
	cfg.FlushInterval, cfg.FlushRows, cfg.RetryMax, cfg.PartsEvery = 20*time.Millisecond, 1000, 200*time.Millisecond, time.Second
	return cfg
}

// runningClickhouse is a sink in this process.
type runningClickhouse struct {
	*ClickHouse
	reg  *prometheus.Registry
	stop context.CancelFunc
	err  chan error
}

func (b *clickhouseBench) start(cfg ClickHouseConfig) *runningClickhouse {
	b.t.Helper()
	reg := prometheus.NewRegistry()
	s, err := NewClickHouse(cfg, b.conn, b.codecs, b.opts, reg, slog.New(slog.DiscardHandler))
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &runningClickhouse{s, reg, cancel, make(chan error, 1)}
	go func() { r.err <- s.Run(ctx) }()
	b.t.Cleanup(func() { cancel(); _ = r.wait() }) // tests that care have waited
	return r
}

// wait gives what Run gave.
func (r *runningClickhouse) wait() error {
	err := <-r.err
	r.err <- err
	return err
}

func (b *clickhouseBench) finish(r *runningClickhouse) {
	b.t.Helper()
	r.stop()
	if err := r.wait(); err != nil {
		b.t.Fatalf("the sink ended with %v", err)
	}
}

// clickhouseEvent is the i-th event of a category.
func clickhouseEvent(cat event.Category, i int64) *event.Event {
	v := i * 10_000
	names := map[event.Category]string{
		event.Page: "page_view", event.Cart: "add_to_cart", event.Purchase: "purchase", event.Inventory: "inventory_change",
		event.Exposure: "experiment_exposure", event.Identity: "identify", event.Custom: "wiggle",
	}
	e := &event.Event{
		ID: fmt.Sprintf("e-%s-%d", cat, i), Tenant: "acme", Name: names[cat], VisitorID: fmt.Sprintf("v%d", i%50), OccurredAt: clickhouseEpoch + i*1000, ReceivedAt: clickhouseEpoch + i*1000 + 5,
		Source: "web", Value: &v, Currency: "EUR", SchemaVersion: 1, Country: "DE", DeviceType: "mobile",
		Enriched: event.Enriched{IngestedAt: clickhouseEpoch + i*1000 + 9, RawTopic: cat.RawTopic(), RawOffset: i},
	}
	if cat == event.Purchase {
		e.OrderID, e.OrderRank = fmt.Sprintf("o%d", i), 1
		price := int64(9_990_000)
		e.Items = []event.Item{{ItemID: "p1", Price: &price, Quantity: 1}, {ItemID: fmt.Sprintf("p%d", i%7), ItemBrand: "Müller", Quantity: 2}}
	}
	e.RowHash = e.ComputeRowHash()
	return e
}

// send writes n events of a category from the raw offset where the last ones ended.
func (b *clickhouseBench) send(cat event.Category, partition int32, n int) {
	b.t.Helper()
	for range n {
		key := cat.String()
		b.produce(cat, partition, clickhouseEvent(cat, b.offset[key]))
		b.offset[key]++
	}
	b.flush()
}

func (b *clickhouseBench) produce(cat event.Category, partition int32, e *event.Event) {
	sum := b.sent[cat.Table()]
	if sum == nil {
		sum = &event.Checksum{}
		b.sent[cat.Table()] = sum
	}
	sum.Add(e.RowHash)
	b.raw(cat.EventsTopic(), partition, b.codecs.AppendEnriched(nil, cat, e, nil))
}

func (b *clickhouseBench) raw(topic string, partition int32, value []byte) {
	b.cl.Produce(b.t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: value}, func(_ *kgo.Record, err error) {
		if err != nil {
			b.t.Error(err)
		}
	})
}

func (b *clickhouseBench) record(topic string, partition int32, v any) {
	b.t.Helper()
	value, err := b.codecs.Append(nil, topic, v)
	if err != nil {
		b.t.Fatal(err)
	}
	b.raw(topic, partition, value)
}

func (b *clickhouseBench) flush() {
	b.t.Helper()
	if err := b.cl.Flush(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// eventually waits until f says nothing.
func (b *clickhouseBench) eventually(what string, f func() string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 40*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		why := f()
		if why == "" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("waited for %s: %s", what, why)
		}
	}
}

// table reads the checksum of a table and how many of its (partition, offset) pairs are distinct.
func (b *clickhouseBench) table(name string) (sum event.Checksum, distinct int64, err error) {
	var count, pairs uint64
	err = b.conn.QueryRow(b.t.Context(), "SELECT count(), sum(toInt64(bitAnd(row_hash, 4294967295))), sum(toInt64(bitAnd(bitShiftRight(row_hash, 32), 4294967295))), uniqExact(kafka_partition, kafka_offset) FROM "+name).
		Scan(&count, &sum.HashLo, &sum.HashHi, &pairs)
	sum.Count = int64(count)
	return sum, int64(pairs), err
}

// exact waits until every table holds exactly what was sent to it.
func (b *clickhouseBench) exact() {
	b.t.Helper()
	b.eventually("the tables to hold what was sent", func() string {
		for name, want := range b.sent {
			got, distinct, err := b.table(name)
			if err != nil {
				return err.Error()
			}
			if got.Count > want.Count {
				b.t.Fatalf("%s has %d rows, %d were sent", name, got.Count, want.Count)
			}
			if got != *want || distinct != want.Count {
				return fmt.Sprintf("%s: %+v of %+v, %d distinct", name, got, *want, distinct)
			}
		}
		return ""
	})
}

// committed waits until the group's offsets are at the topic's ends without a note.
func (b *clickhouseBench) committed(topic string) {
	b.t.Helper()
	adm := kadm.NewClient(b.cl)
	b.eventually("the group to be at the end of "+topic, func() string {
		ends, err := adm.ListEndOffsets(b.t.Context(), topic)
		if err != nil {
			return err.Error()
		}
		offsets, err := adm.FetchOffsets(b.t.Context(), DefaultClickHouseConfig().Group)
		if err != nil {
			return err.Error()
		}
		for p := range int32(clickhouseTestPartitions) {
			end, _ := ends.Lookup(topic, p)
			got, ok := offsets.Lookup(topic, p)
			if end.Offset > 0 && (!ok || got.At != end.Offset || got.Metadata != "") {
				return fmt.Sprintf("%s/%d: %+v of %d", topic, p, got, end.Offset)
			}
		}
		return ""
	})
}

// forgetGroup makes the group as if it had never been.
func (b *clickhouseBench) forgetGroup() {
	b.t.Helper()
	adm, cfg := kadm.NewClient(b.cl), DefaultClickHouseConfig()
	if _, err := adm.LeaveGroup(b.t.Context(), kadm.LeaveGroup(cfg.Group).InstanceIDs(cfg.InstanceID)); err != nil {
		b.t.Fatal(err)
	}
	if _, err := adm.DeleteGroup(b.t.Context(), cfg.Group); err != nil {
		b.t.Fatal(err)
	}
}

func (b *clickhouseBench) count(sql string) int64 {
	b.t.Helper()
	var n int64
	if err := b.conn.QueryRow(b.t.Context(), "SELECT toInt64("+sql+")").Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// clickhouseMetric reads a counter or gauge.
func clickhouseMetric(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

func wantClickhouseFault(t *testing.T, err error, want fault.ID) {
	t.Helper()
	if id, _ := fault.IDOf(err); id != want {
		t.Errorf("the sink ended with %v, not with %s", err, want)
	}
}

func TestClickHouseEventsOfAllCategoriesAreStoredOnceWithEqualChecksums(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	s := b.start(fastClickHouse())
	for _, cat := range event.Categories() {
		for p := range int32(clickhouseTestPartitions) {
			b.send(cat, p, 300)
		}
	}
	b.exact()
	b.eventually("readiness", func() string {
		if err := s.Ready(); err != nil {
			return err.Error()
		}
		return ""
	})
	b.committed(event.Purchase.EventsTopic())
	if got := b.count("(SELECT count() FROM events)"); got != 7*2*300 {
		t.Errorf("the view events has %d rows", got)
	}
	if got := clickhouseMetric(t, s.m.rows.WithLabelValues("events_cart")); got != 600 {
		t.Errorf("rows_total of events_cart is %v", got)
	}
	b.finish(s)
}

func TestClickHouseEveryColumnHoldsItsField(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	hostile := "a'b\"c\\d\x00e\n🎉\xff; DROP TABLE events_page --"
	tax, ship, price, pos := int64(1), int64(-999_999_999_999_999_999), int64(123_456), int64(3)
	full := &event.Event{
		Enriched: event.Enriched{IngestedAt: clickhouseEpoch + 3, SessionID: "s", LaneCode: 1, RawTopic: "raw.purchase", RawPartition: 3, RawOffset: 77, OrderRank: 2},
		ID:       hostile, Tenant: "t", Name: "purchase", VisitorID: "", UserID: "u", OccurredAt: clickhouseEpoch + 1, ReceivedAt: clickhouseEpoch + 2, Source: hostile,
		Value: &ship, Currency: "EUR", OrderID: "o", Country: "DE", DeviceType: "tv", ClientSessionID: "cs", SchemaVersion: 4, IP: "1.2.3.0", IPHash: "h", PaymentMethod: "card",
		CardFingerprint: "f", CardBIN: "411111", CardLast4: "1111", PageURL: "https://x/" + strings.Repeat("y", 5000), PagePath: "/", PageTitle: hostile, PageReferrer: "r",
		CampaignSource: "1", CampaignMedium: "2", CampaignName: "3", CampaignTerm: "4", CampaignContent: "5", DeviceOS: "6", DeviceBrowser: "7", UserAgent: "8", Region: "9", City: "10",
		Locale: "11", TimeZone: "12", Properties: `{"a":1}`, Coupon: "13", ShippingTier: "14", PaymentType: "15", Affiliation: "16", Tax: &tax, Shipping: &ship, Discount: &tax, Total: &ship,
		Items: []event.Item{
			{ItemID: "p1", ItemName: "n", ItemCategory: "c", ItemBrand: "b", ItemVariant: "v", Price: &price, Quantity: 2, Discount: &tax, Coupon: "ic", Position: &pos},
			{ItemID: "p2", Quantity: 1},
			{ItemID: "p1", Quantity: 5},
		},
	}
	full.RowHash = full.ComputeRowHash()
	bare := &event.Event{ID: "bare", Tenant: "t", Name: "purchase", OccurredAt: clickhouseEpoch, ReceivedAt: clickhouseEpoch, Enriched: event.Enriched{IngestedAt: clickhouseEpoch, RawTopic: "raw.purchase"}}
	bare.RowHash = bare.ComputeRowHash()
	// Rows without values before, between and after: columns are padded.
	for _, e := range []*event.Event{bare, full, bare, full, bare} {
		b.produce(event.Purchase, 1, e)
	}
	b.flush()
	s := b.start(fastClickHouse())
	b.exact()
	cols, err := olap.Columns("events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range []*event.Event{bare, full, bare, full, bare} {
		want := clickhouseExpected(e, 1, int64(i))
		for _, c := range cols {
			var same bool
			name := "`" + c.Name + "`"
			if err := b.conn.QueryRow(t.Context(), fmt.Sprintf("SELECT toString(tuple(%s)) = toString(tuple(CAST(%s AS %s))) FROM events_purchase WHERE kafka_offset = %d", name, want[c.Name], c.Type, i)).Scan(&same); err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			if !same {
				var got string
				if err := b.conn.QueryRow(t.Context(), fmt.Sprintf("SELECT toString(tuple(%s)) FROM events_purchase WHERE kafka_offset = %d", name, i)).Scan(&got); err != nil {
					t.Fatal(err)
				}
				t.Errorf("row %d: %s is %s, not %s", i, c.Name, got, want[c.Name])
			}
		}
	}
	if n := b.count("(SELECT count() FROM (SELECT * FROM events_purchase))"); n != 5 {
		t.Errorf("SELECT * gives %d rows", n)
	}
	b.finish(s)
}

// clickhouseExpected gives a purchase's values as SQL literals, written by hand and not by way of the column table.
func clickhouseExpected(e *event.Event, partition int32, offset int64) map[string]string {
	str := func(s string) string {
		var b strings.Builder
		b.WriteByte('\'')
		for i := range len(s) {
			fmt.Fprintf(&b, "\\x%02x", s[i])
		}
		return b.String() + "'"
	}
	opt := func(s string) string {
		if s == "" {
			return "NULL"
		}
		return str(s)
	}
	amount := func(v *int64) string {
		if v == nil {
			return "NULL"
		}
		return "'" + event.FormatAmount(*v) + "'"
	}
	num := func(v *int64) string {
		if v == nil {
			return "NULL"
		}
		return fmt.Sprint(*v)
	}
	at := func(us int64) string { return fmt.Sprintf("fromUnixTimestamp64Micro(%d, 'UTC')", us) }
	items := func(f func(event.Item) string) string {
		var out []string
		for _, i := range e.Items {
			out = append(out, f(i))
		}
		return "[" + strings.Join(out, ",") + "]"
	}
	ids := e.ProductIDs(nil)
	for i := range ids {
		ids[i] = str(ids[i])
	}
	return map[string]string{
		"event_id": str(e.ID), "tenant": str(e.Tenant), "name": str(e.Name), "category": "'purchase'", "visitor_id": str(e.VisitorID), "user_id": opt(e.UserID), "session_id": opt(e.SessionID),
		"occurred_at": at(e.OccurredAt), "received_at": at(e.ReceivedAt), "ingested_at": at(e.IngestedAt), "source": str(e.Source), "value": amount(e.Value), "currency": opt(e.Currency),
		"order_id": opt(e.OrderID), "product_ids": "[" + strings.Join(ids, ",") + "]", "properties": str(e.Properties), "kafka_topic": "'events.purchase'", "kafka_partition": fmt.Sprint(partition),
		"kafka_offset": fmt.Sprint(offset), "raw_topic": str(e.RawTopic), "raw_partition": fmt.Sprint(e.RawPartition), "raw_offset": fmt.Sprint(e.RawOffset), "row_hash": fmt.Sprint(e.RowHash),
		"lane": fmt.Sprint(e.LaneCode), "order_rank": fmt.Sprint(e.OrderRank), "country": opt(e.Country), "device_type": opt(e.DeviceType), "client_session_id": opt(e.ClientSessionID),
		"schema_version": fmt.Sprint(e.SchemaVersion), "ip": opt(e.IP), "ip_hash": opt(e.IPHash), "payment_method": opt(e.PaymentMethod), "card_fingerprint": opt(e.CardFingerprint),
		"card_bin": opt(e.CardBIN), "card_last4": opt(e.CardLast4), "page_url": opt(e.PageURL), "page_path": opt(e.PagePath), "page_title": opt(e.PageTitle), "page_referrer": opt(e.PageReferrer),
		"campaign_source": opt(e.CampaignSource), "campaign_medium": opt(e.CampaignMedium), "campaign_name": opt(e.CampaignName), "campaign_term": opt(e.CampaignTerm), "campaign_content": opt(e.CampaignContent),
		"device_os": opt(e.DeviceOS), "device_browser": opt(e.DeviceBrowser), "user_agent": opt(e.UserAgent), "region": opt(e.Region), "city": opt(e.City), "locale": opt(e.Locale), "time_zone": opt(e.TimeZone),
		"coupon": opt(e.Coupon), "shipping_tier": opt(e.ShippingTier), "payment_type": opt(e.PaymentType), "affiliation": opt(e.Affiliation), "tax": amount(e.Tax), "shipping": amount(e.Shipping), "discount": amount(e.Discount), "total": amount(e.Total),
		"items.item_id":       items(func(i event.Item) string { return str(i.ItemID) }),
		"items.item_name":     items(func(i event.Item) string { return opt(i.ItemName) }),
		"items.item_category": items(func(i event.Item) string { return opt(i.ItemCategory) }),
		"items.item_brand":    items(func(i event.Item) string { return opt(i.ItemBrand) }),
		"items.item_variant":  items(func(i event.Item) string { return opt(i.ItemVariant) }),
		"items.price":         items(func(i event.Item) string { return amount(i.Price) }),
		"items.quantity":      items(func(i event.Item) string { return fmt.Sprint(i.Quantity) }),
		"items.discount":      items(func(i event.Item) string { return amount(i.Discount) }),
		"items.coupon":        items(func(i event.Item) string { return opt(i.Coupon) }),
		"items.position":      items(func(i event.Item) string { return num(i.Position) }),
	}
}

func TestClickHouseHistoryOfManyMonthsIsOneBatch(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	const month = 31 * 24 * 3600 * 1_000_000
	for i := range int64(130) {
		e := clickhouseEvent(event.Custom, i)
		e.IngestedAt = event.MinOccurred + i*month
		b.produce(event.Custom, 0, e)
	}
	for i := range int64(400) { // a day each since 1990 in event time
		e := clickhouseEvent(event.Page, i)
		e.OccurredAt = event.MinOccurred + i*24*3600*1_000_000
		e.RowHash = e.ComputeRowHash()
		b.produce(event.Page, 0, e)
	}
	b.flush()
	s := b.start(fastClickHouse())
	b.exact()
	b.committed(event.Custom.EventsTopic())
	if got := clickhouseMetric(t, s.m.batches.WithLabelValues("events_custom")); got != 1 {
		t.Errorf("%v batches", got)
	}
	b.finish(s)
}

func TestClickHouseRowsThatCannotBeStoredGoToRawFailedAndTheOthersAreStored(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	if err := b.conn.Exec(t.Context(), "ALTER TABLE events_cart ADD CONSTRAINT no_poison CHECK visitor_id != 'poison'"); err != nil {
		t.Fatal(err)
	}
	tooMuch := int64(event.MaxAmount) * 2
	for i := range int64(200) {
		e := clickhouseEvent(event.Cart, i)
		switch i {
		case 17: // the server refuses it
			e.VisitorID, e.ID = "poison", "refused-by-server"
		case 40: // no column can hold it
			e.Value, e.ID = &tooMuch, "refused-by-type"
		case 41:
			e.OccurredAt, e.ID = 1<<62, "refused-by-time"
		case 42: // no event at all
			b.raw(event.Cart.EventsTopic(), 0, append(b.codecs.AppendEnriched(nil, event.Cart, e, nil)[:5], 0xff))
			continue
		default:
			b.produce(event.Cart, 0, e)
			continue
		}
		b.raw(event.Cart.EventsTopic(), 0, b.codecs.AppendEnriched(nil, event.Cart, e, nil))
	}
	b.flush()
	s := b.start(fastClickHouse())
	b.exact()
	b.committed(event.Cart.EventsTopic())
	cl, err := kgo.NewClient(append(b.opts, kgo.ConsumeTopics(event.TopicRawFailed), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	got := map[string]event.Failed{}
	for len(got) < 4 {
		fs := cl.PollFetches(t.Context())
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			var f event.Failed
			if err := b.codecs.Decode(t.Context(), event.TopicRawFailed, r.Value, &f); err != nil {
				t.Error(err)
			}
			if f.Reason != event.ReasonStore {
				t.Errorf("reason %q", f.Reason)
			}
			if want := event.Partition(f.AppendKey(nil), clickhouseTestPartitions); r.Partition != want || string(r.Key) != string(f.AppendKey(nil)) {
				t.Errorf("key %q is on partition %d, not %d", r.Key, r.Partition, want)
			}
			got[f.EventID] = f
		})
	}
	for id, says := range map[string]string{"refused-by-server": "VIOLATED_CONSTRAINT no_poison", "refused-by-type": "Decimal(18, 6)", "refused-by-time": "DateTime64", "": "MR-EVT-002"} {
		f, ok := got[id]
		if words := strings.Fields(says); !ok || !strings.Contains(f.Error, words[len(words)-1]) {
			t.Errorf("%q: %+v does not say %s", id, f, says)
		}
		if id != "" && (f.Tenant != "acme" || !json.Valid([]byte(f.Payload))) {
			t.Errorf("%q: tenant %q, payload %q", id, f.Tenant, f.Payload)
		}
	}
	if got := clickhouseMetric(t, s.m.refused.WithLabelValues("events_cart")); got != 4 {
		t.Errorf("%v rows are counted as refused", got)
	}
	b.finish(s)
}

func TestClickHouseTheNewestPartialOfEachPartitionCounts(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	cfg := fastClickHouse()
	cfg.Generation = 2
	s := b.start(cfg)
	want := map[string]event.Sum{}
	for _, family := range []string{"shop", "items"} {
		for _, grain := range []string{"1s", "1m", "1h", "1d"} {
			for p := range int32(2) {
				for correction := range int64(5) {
					k := event.KPIPartial{
						Family: family, Grain: grain, Tenant: "acme", WindowStart: clickhouseEpoch, Currency: "EUR", KafkaPartition: p, Events: 10 * (correction + 1),
						Revenue: event.SumOf(-1_500_000 * (correction + 1)), Final: correction == 4, VisitorsSketch: []byte{1, 0, 2},
					}
					if family == "items" {
						k.ProductID = "p1"
					}
					if correction == 4 { // larger than an int64 of micros
						k.Revenue = event.SumOf(1 << 62).Add(event.SumOf(1 << 62)).Add(event.SumOf(1 << 62))
						table := olap.KPITable(family, grain)
						want[table] = want[table].Add(k.Revenue)
					}
					b.record(event.TopicKPIPartial, p, &k)
				}
			}
		}
	}
	b.flush()
	b.committed(event.TopicKPIPartial)
	for table, revenue := range want {
		var events int64
		var sum, sketches string
		var rows, versions uint64
		if err := b.conn.QueryRow(t.Context(), "SELECT count(), sum(events), toString(sum(revenue) * 1000000), min(hex(visitors_sketch)), min(bitShiftRight(version, 48)) FROM "+table+" FINAL WHERE final").
			Scan(&rows, &events, &sum, &sketches, &versions); err != nil {
			t.Fatal(err)
		}
		if rows != 2 || events != 100 || sum != revenue.Big().String() || sketches != "010002" || versions != 2 {
			t.Errorf("%s: %d rows, %d events, revenue %s (not %s), sketch %s, generation %d", table, rows, events, sum, revenue.Big(), sketches, versions)
		}
	}
	b.finish(s)
	// Everything once more, as after a crash before the commit: the same versions of the same rows.
	b.forgetGroup()
	s = b.start(cfg)
	b.committed(event.TopicKPIPartial)
	if n := b.count("(SELECT sum(events) FROM kpi_1m FINAL)"); n != 100 {
		t.Errorf("%d events after the records were read twice", n)
	}
	b.finish(s)
}

func TestClickHouseLedgerLateAndFailedRowsAreStored(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	s := b.start(fastClickHouse())
	ledger := event.LedgerEntry{RawTopic: "raw.page", RawPartition: 1, RawFrom: 10, RawTo: 20, OutTopic: "events.page", Count: 9, HashLo: 1 << 40, HashHi: 2, Duplicates: 1, IngestedFrom: clickhouseEpoch, IngestedTo: clickhouseEpoch + 5}
	b.record(event.TopicLedger, 1, &ledger)
	b.record(event.TopicKPILate, 0, &event.KPILate{Tenant: "acme", EventID: "e", Source: "web", Name: "purchase", OccurredAt: clickhouseEpoch, IngestedAt: clickhouseEpoch, RawTopic: "raw.purchase", RawOffset: 4})
	b.record(event.TopicEventsFailed, 0, &event.Failed{ID: "f", Tenant: "acme", Reason: event.ReasonSchema, Error: "no", Payload: "{", IngestedAt: clickhouseEpoch, FailedAt: clickhouseEpoch, ReceivedAt: clickhouseEpoch, RawTopic: "raw.failed"})
	b.flush()
	for _, topic := range []string{event.TopicLedger, event.TopicKPILate, event.TopicEventsFailed} {
		b.committed(topic)
	}
	for sql, want := range map[string]int64{
		"(SELECT sum(count + duplicates + failed + erased) - sum(raw_to - raw_from) FROM event_ledger FINAL)":                0,
		"(SELECT sum(hash_lo) FROM event_ledger FINAL)":                                                                      1 << 40,
		"(SELECT count() FROM kpi_late FINAL WHERE raw_offset = 4)":                                                          1,
		"(SELECT count() FROM failed_events WHERE reason = 'schema' AND event_id IS NULL AND kafka_topic = 'events.failed')": 1,
	} {
		if got := b.count(sql); got != want {
			t.Errorf("%s is %d, not %d", sql, got, want)
		}
	}
	b.finish(s)
}

func TestClickHouseATopicMadeAnewStopsTheSink(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	s := b.start(fastClickHouse())
	b.send(event.Page, 0, 10)
	b.exact()
	b.finish(s)
	adm := kadm.NewClient(b.cl)
	if _, err := adm.DeleteTopics(t.Context(), event.Page.EventsTopic()); err != nil {
		t.Fatal(err)
	}
	b.createTopics()
	s = b.start(fastClickHouse())
	err := s.wait()
	wantClickhouseFault(t, err, "MR-CH-005")
	if s.Ready() == nil {
		t.Error("it is ready")
	}
}

func TestClickHouseRecordsThatKafkaNoLongerHoldsStopTheSink(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	s := b.start(fastClickHouse())
	b.send(event.Page, 0, 10)
	b.exact()
	b.committed(event.Page.EventsTopic())
	b.finish(s)
	b.send(event.Page, 0, 10)
	var gone kadm.Offsets
	gone.AddOffset(event.Page.EventsTopic(), 0, 15, -1)
	if _, err := kadm.NewClient(b.cl).DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	s = b.start(fastClickHouse())
	err := s.wait()
	wantClickhouseFault(t, err, "MR-CH-006")
	if err == nil || !strings.Contains(err.Error(), "events.page/0@10") {
		t.Errorf("%v does not name the first lost offset", err)
	}
}

func TestClickHouseEveryProblemOfAConfigIsReported(t *testing.T) {
	t.Parallel()
	err := ClickHouseConfig{FlushBytes: 5, FlushRows: 1 << 20}.Validate()
	for _, field := range []string{"group:", "instance_id:", "session_timeout:", "flush_rows:", "flush_interval:", "slow_parts:", "parts_every:", "insert_timeout:", "inserters:", "max_buffered:", "retry_max:"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not reported in %v", field, err)
		}
	}
	if err := DefaultClickHouseConfig().Validate(); err != nil {
		t.Error(err)
	}
}

func TestClickHouseTheFlushIntervalWidensWithActiveParts(t *testing.T) {
	t.Parallel()
	for parts, want := range map[int]time.Duration{0: 2 * time.Second, 50: 2 * time.Second, 100: 4 * time.Second, 250: 10 * time.Second, 500: 20 * time.Second, 3000: 20 * time.Second} {
		got, slow := clickhouseInterval(2*time.Second, parts, 500)
		if got != want || slow != (parts >= 500) {
			t.Errorf("%d parts: %s, slow %t", parts, got, slow)
		}
	}
}

func TestClickHouseAnIntentSurvivesItsNote(t *testing.T) {
	t.Parallel()
	i := clickhouseIntent{lo: 5, hi: 1 << 60, columns: []byte{0xff, 1, 0x80}}
	text, err := i.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseClickhouseIntent(5, text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(i, *got, cmp.AllowUnexported(clickhouseIntent{})); diff != "" {
		t.Error(diff)
	}
	if got, err := parseClickhouseIntent(5, "some client's member id"); got != nil || err != nil {
		t.Errorf("foreign metadata: %v, %v", got, err)
	}
	for _, bad := range []string{"millrace2 5-6 ff", "millrace1 5-6", "millrace1 5-5 ff", "millrace1 6-7 ff", "millrace1 5-6 xx"} {
		if _, err := parseClickhouseIntent(5, bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
	if _, err := (clickhouseIntent{columns: make([]byte, 2100)}).encode(); err == nil {
		t.Error("a note is longer than the group keeps")
	}
}
