package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/shopspring/decimal"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/embedded/embeddedtest"
	"millrace/kpi"
	"millrace/live"
	"millrace/olap"
)

// now is the clock of all tests: a Sunday noon, an hour into no change of clocks anywhere.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// shop is a platform's stores with the API on them.
type shop struct {
	conn   driver.Conn
	redis  redis.UniversalClient
	codecs *schema.Codecs
	tenant string
	events []event.Event
	api    *API
	server *httptest.Server
	clock  *clock
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// database is an empty database with all tables.
func database(t testing.TB) driver.Conn {
	t.Helper()
	at := servers.Database(t)
	cfg := olap.DefaultConfig()
	cfg.Addr, cfg.User, cfg.Password, cfg.Database = []string{at.Native}, at.User, at.Password, at.Database
	conn, err := olap.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := olap.Migrate(t.Context(), conn, olap.Options{}); err != nil {
		t.Fatal(err)
	}
	return conn
}

// shared is a database that tests tell apart by tenants: making all tables takes its time. It ends with the server.
var shared = sync.OnceValues(func() (olap.Config, error) {
	ctx := context.Background() // of all tests
	at := servers.Endpoints().ClickHouse
	cfg := olap.DefaultConfig()
	cfg.Addr, cfg.User, cfg.Password, cfg.Database = []string{at.Native}, at.User, at.Password, embeddedtest.Name("millrace_shared")
	conn, err := olap.Open(ctx, cfg)
	if err != nil {
		return cfg, err
	}
	return cfg, errors.Join(olap.Migrate(ctx, conn, olap.Options{}), conn.Close())
})

// open makes a shop without events, with a tenant of its own. Each may change the configuration and what the API depends on.
func open(t testing.TB, change ...func(*Config, *Deps)) *shop {
	t.Helper()
	cfg, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := olap.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return openOn(t, conn, change...)
}

// openAlone makes a shop in a database of its own.
func openAlone(t testing.TB, change ...func(*Config, *Deps)) *shop {
	t.Helper()
	return openOn(t, database(t), change...)
}

func openOn(t testing.TB, conn driver.Conn, change ...func(*Config, *Deps)) *shop {
	t.Helper()
	s := &shop{tenant: embeddedtest.Name("shop"), clock: &clock{at: now}, conn: conn}
	rdb := redis.NewClient(&redis.Options{Addr: servers.Endpoints().Redis})
	t.Cleanup(func() { _ = rdb.Close() }) // only idle connections
	s.redis = rdb
	codecs, err := schema.NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	s.codecs = codecs.AssignLocal()
	cfg := DefaultConfig()
	cfg.Tenant, cfg.Freshness = s.tenant, 0
	deps := Deps{ClickHouse: s.conn, Redis: s.redis, Codecs: s.codecs, Now: s.clock.now}
	for _, c := range change {
		c(&cfg, &deps)
	}
	s.api, err = New(cfg, deps, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
	s.server = httptest.NewServer(s.api.Handler())
	t.Cleanup(func() {
		s.api.Close()
		s.server.Close()
	})
	return s
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

var (
	countries = []string{"DE", "US", "FR", "GB", "JP", ""}
	devices   = []string{"mobile", "desktop", "tablet", ""}
	monies    = []string{"USD", "EUR", "JPY"}
)

const seedPartitions = 3

// invent makes n events of a tenant within a time before now, the same for the same seed.
func invent(tenant string, n int, within time.Duration, seed uint64) []event.Event {
	rnd := rand.New(rand.NewPCG(seed, 1))
	out := make([]event.Event, n)
	for i := range out {
		e := &out[i]
		visitor := rnd.IntN(n/5 + 1)
		at := now.Add(-time.Duration(rnd.Int64N(int64(within/time.Millisecond))) * time.Millisecond)
		e.ID, e.Tenant, e.Source, e.SchemaVersion = fmt.Sprintf("e-%d-%d", seed, i), tenant, "web", 1
		e.VisitorID = fmt.Sprintf("v-%d-%d", seed, visitor)
		e.OccurredAt, e.ReceivedAt, e.IngestedAt = at.UnixMicro(), at.Add(5*time.Millisecond).UnixMicro(), at.Add(20*time.Millisecond).UnixMicro()
		e.Country, e.DeviceType = countries[visitor%len(countries)], devices[visitor%len(devices)]
		if e.Country == "" && i%7 == 0 {
			e.VisitorID = ""
		}
		p := rnd.IntN(12)
		item := event.Item{ItemID: fmt.Sprintf("p%d", p), ItemName: fmt.Sprintf("Thing %d", p), ItemCategory: []string{"Kitchen", "Garden", "Toys"}[p%3], Quantity: int64(1 + rnd.IntN(3))}
		price := int64(1+rnd.IntN(9000)) * 10_000
		item.Price = &price
		switch r := rnd.IntN(100); {
		case r < 4: // half of them to zero
			e.Name, e.ItemID, e.StockLevel, e.QuantityDelta = event.NameInventoryChange, item.ItemID, new(int64(p%2)), new(int64(-1))
		case r < 55:
			e.Name = event.NamePageView
		case r < 75:
			e.Name, e.Items = event.NameViewItem, []event.Item{item}
		case r < 85:
			e.Name, e.Items, e.Currency = event.NameAddToCart, []event.Item{item}, monies[visitor%3]
		case r < 90:
			e.Name, e.Currency = event.NameBeginCheckout, monies[visitor%3]
		case r < 98:
			value := price * item.Quantity
			e.Name, e.Items, e.Currency, e.Value, e.OrderID, e.OrderRank = event.NamePurchase, []event.Item{item}, monies[visitor%3], &value, fmt.Sprintf("o-%d-%d", seed, i), 1
			if r == 97 { // the server's copy of an order: counts nowhere
				e.OrderRank = 2
			}
		default:
			value := -price
			e.Name, e.Currency, e.Value, e.OrderID, e.OrderRank = event.NameRefund, monies[visitor%3], &value, fmt.Sprintf("o-%d-%d", seed, i), 1
		}
	}
	return out
}

// seed stores events and their KPIs as the topology and the sinks do. zone is the tenant's.
func (s *shop) seed(t testing.TB, events []event.Event, zone string) {
	t.Helper()
	s.events = append(s.events, events...)
	s.insertEvents(t, events)
	defs, err := kpi.New(kpi.Config{TimeZones: map[string]string{s.tenant: zone}})
	if err != nil {
		t.Fatal(err)
	}
	partials := count(t, defs, events)
	s.insertKPIs(t, partials)
	s.putLive(t, partials)
}

func partitionOf(e *event.Event) int32 {
	var h uint32
	for _, c := range []byte(e.VisitorID + e.Tenant) {
		h = h*31 + uint32(c)
	}
	return int32(h % seedPartitions)
}

// count folds events into the partials of all grains.
func count(t testing.TB, defs kpi.Definitions, events []event.Event) []event.KPIPartial {
	t.Helper()
	type key struct {
		shop   kpi.ShopKey
		items  kpi.ItemsKey
		family kpi.Family
		grain  string
		start  int64
		part   int32
	}
	rows := map[key]*kpi.Values{}
	at := func(k key) *kpi.Values {
		if rows[k] == nil {
			rows[k] = &kpi.Values{}
		}
		return rows[k]
	}
	for i := range events {
		e := &events[i]
		if e.OrderRank > 1 {
			continue
		}
		for _, g := range kpi.Grains() {
			start, _ := defs.Window(g, e.Tenant, e.OccurredAt)
			k := key{shop: kpi.ShopKeyOf(e), grain: g.Name, start: start, part: partitionOf(e)}
			at(k).AddShop(e)
			if e.Name == event.NameAddToCart { // each is a cart of its own, those in EUR are abandoned
				at(k).AddCart(e.Currency == "EUR")
			}
			if !kpi.HasLines(e.Name) {
				continue
			}
			for j := range e.Items {
				k := key{family: kpi.Items, items: kpi.ItemsKey{Tenant: e.Tenant, Currency: e.Currency, ProductID: e.Items[j].ItemID, ItemCategory: e.Items[j].ItemCategory}, grain: g.Name, start: start, part: partitionOf(e)}
				at(k).AddLine(e, j, true)
				k.items.ProductID = ""
				at(k).AddLine(e, j, true)
			}
		}
	}
	var out []event.KPIPartial
	for k, v := range rows {
		p := event.KPIPartial{Family: k.family.String(), Grain: k.grain, WindowStart: k.start, KafkaPartition: k.part}
		if k.family == kpi.Items {
			p.Tenant, p.Currency, p.ProductID, p.ItemCategory = k.items.Tenant, k.items.Currency, k.items.ProductID, k.items.ItemCategory
		} else {
			p.Tenant, p.Currency, p.Country, p.Device = k.shop.Tenant, k.shop.Currency, k.shop.Country, k.shop.Device
		}
		if err := v.Fill(&p); err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func (s *shop) insertKPIs(t testing.TB, partials []event.KPIPartial) {
	t.Helper()
	by := map[string][]event.KPIPartial{}
	for _, p := range partials {
		by[olap.KPITable(p.Family, p.Grain)] = append(by[olap.KPITable(p.Family, p.Grain)], p)
	}
	for table, rows := range by {
		cols := "tenant, window_start, currency, country, device, kafka_partition, final, events, page_views, item_views, searches, cart_adds, checkouts, orders, units, revenue, refunds, refund_value, visitors, visitors_sketch, stock_outs, carts, abandoned_carts, version"
		if strings.HasPrefix(table, "kpi_items_") {
			cols += ", product_id, item_category"
		}
		// Twice, in two versions: only FINAL gives the newer one.
		for version := range uint64(2) {
			b, err := s.conn.PrepareBatch(t.Context(), "INSERT INTO "+table+" ("+cols+")")
			if err != nil {
				t.Fatal(err)
			}
			for i := range rows {
				p := &rows[i]
				orders := p.Orders
				if version == 0 {
					orders = 1_000_000
				}
				vals := []any{
					p.Tenant, time.UnixMicro(p.WindowStart), p.Currency, p.Country, p.Device, p.KafkaPartition, true, p.Events, p.PageViews, p.ItemViews, p.Searches, p.CartAdds, p.Checkouts, orders,
					p.Units, ofSum(p.Revenue), p.Refunds, ofSum(p.RefundValue), p.Visitors, string(p.VisitorsSketch), p.StockOuts, p.Carts, p.AbandonedCarts, version,
				}
				if strings.HasPrefix(table, "kpi_items_") {
					vals = append(vals, p.ProductID, p.ItemCategory)
				}
				if err := b.Append(vals...); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Send(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (s *shop) putLive(t testing.TB, partials []event.KPIPartial) {
	t.Helper()
	if s.redis == nil {
		return
	}
	var writes []live.Write
	for i := range partials {
		p := &partials[i]
		if p.Grain == "1h" || p.Grain == "1d" {
			continue
		}
		value, err := s.codecs.Append(nil, event.TopicKPIPartial, p)
		if err != nil {
			t.Fatal(err)
		}
		if w, ok := live.KPIWrite(p, live.Version{Offset: int64(i)}, value); ok {
			writes = append(writes, w)
		}
	}
	if _, err := live.Put(t.Context(), s.redis, writes); err != nil {
		t.Fatal(err)
	}
}

func (s *shop) insertEvents(t testing.TB, events []event.Event) {
	t.Helper()
	by := map[event.Category][]event.Event{}
	for _, e := range events {
		c := event.CategoryOf(e.Name)
		by[c] = append(by[c], e)
	}
	for c, list := range by {
		cols := "event_id, tenant, name, category, visitor_id, occurred_at, received_at, ingested_at, source, value, currency, order_id, product_ids, properties, kafka_topic, kafka_partition, kafka_offset, raw_topic, raw_partition, raw_offset, country, device_type" + map[bool]string{true: ", item_id, stock_level, quantity_delta", false: ", `items.item_id`, `items.item_name`, `items.quantity`, `items.item_category`, `items.item_brand`, `items.item_variant`, `items.price`, `items.discount`, `items.coupon`, `items.position`"}[c == event.Inventory]
		if c == event.Purchase {
			cols += ", order_rank"
		}
		b, err := s.conn.PrepareBatch(t.Context(), "INSERT INTO "+c.Table()+" ("+cols+")")
		if err != nil {
			t.Fatal(err)
		}
		for i := range list {
			e := &list[i]
			var ids []string
			var names, nothing, categories []*string
			var quantities []int64
			var prices, nodec []*decimal.Decimal
			var nopos []*int64
			for j := range e.Items {
				it := &e.Items[j]
				ids, names, quantities, categories = append(ids, it.ItemID), append(names, &it.ItemName), append(quantities, it.Quantity), append(categories, &it.ItemCategory)
				d := decimal.New(*it.Price, -6)
				prices, nodec, nopos, nothing = append(prices, &d), append(nodec, nil), append(nopos, nil), append(nothing, nil)
			}
			var value *decimal.Decimal
			if e.Value != nil {
				d := decimal.New(*e.Value, -6)
				value = &d
			}
			null := func(s string) *string {
				if s == "" {
					return nil
				}
				return &s
			}
			vals := []any{
				e.ID, e.Tenant, e.Name, c.String(), e.VisitorID, time.UnixMicro(e.OccurredAt), time.UnixMicro(e.ReceivedAt), time.UnixMicro(e.IngestedAt), e.Source, value, null(e.Currency), null(e.OrderID), ids,
				`{"a":1}`, c.EventsTopic(), partitionOf(e), e.IngestedAt*1000 + int64(i%1000), c.RawTopic(), partitionOf(e), int64(i), null(e.Country), null(e.DeviceType),
			}
			if c == event.Inventory {
				vals = append(vals, null(e.ItemID), e.StockLevel, e.QuantityDelta)
			} else {
				vals = append(vals, ids, names, quantities, categories, nothing, nothing, prices, nodec, nothing, nopos)
			}
			if c == event.Purchase {
				vals = append(vals, e.OrderRank)
			}
			if err := b.Append(vals...); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Send(); err != nil {
			t.Fatal(err)
		}
	}
}

// get asks a path and gives the status and the body.
func (s *shop) get(t testing.TB, path string) (int, []byte) {
	t.Helper()
	return fetchBody(t, s.server.URL+path)
}

func fetchBody(t testing.TB, address string) (int, []byte) {
	t.Helper()
	status, b, err := ask(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	return status, b
}

func ask(ctx context.Context, address string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

// answer asks a path that must be answered, and decodes what it says.
func answer[T any](t testing.TB, s *shop, path string) T {
	t.Helper()
	status, b := s.get(t, path)
	var v T
	if status != http.StatusOK {
		t.Fatalf("%s: %d %s", path, status, b)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v in %s", path, err, b)
	}
	return v
}

// eventually waits until f says nothing is missing, or gives up after a time that no healthy machine needs.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatal("waited in vain for: " + what)
		case <-tick.C:
		}
	}
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *stamp) UnmarshalJSON(b []byte) error {
	var at time.Time
	if err := json.Unmarshal(b, &at); err != nil {
		return err
	}
	*s = stamp(at)
	return nil
}

// counted are the events that KPIs count, of visitors' events before a time.
func (s *shop) counted() []event.Event {
	return slices.DeleteFunc(slices.Clone(s.events), func(e event.Event) bool { return e.OrderRank > 1 || e.Tenant != s.tenant })
}

type eventOf = event.Event

// asShown is as much of an event as filters go by.
func asShown(e *event.Event) eventJSON {
	out := eventJSON{EventID: e.ID, Name: e.Name, Category: event.CategoryOf(e.Name).String(), VisitorID: e.VisitorID}
	for i := range e.Items {
		out.ProductIDs = append(out.ProductIDs, e.Items[i].ItemID)
	}
	return out
}
