package activities

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"millrace/event"
	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/kpi"
	"millrace/olap"
	"millrace/workflows/name"
)

// kpiWorld is events of some days, as the stream has stored and counted them.
type kpiWorld struct {
	defs   kpi.Definitions
	repair *olap.Repair
	events []event.Stored
	live   map[int]bool // index of those that live KPIs count
	gone   map[int]bool // index of those that were deleted since
}

const kpiTenant = "shop-in"

func (k *kpiWorld) event(r *rand.Rand, i int, from time.Time) event.Stored {
	names := []string{event.NamePageView, event.NameViewItem, event.NameAddToCart, event.NamePurchase, event.NameRefund, event.NameSearch, event.NameInventoryChange, "wish"}
	e := &event.Event{
		ID: fmt.Sprintf("e%05d", i), Tenant: kpiTenant, Name: names[r.IntN(len(names))], VisitorID: fmt.Sprintf("v%d-%d", i%2, r.IntN(20)), Source: "web", Country: []string{"IN", ""}[r.IntN(2)], DeviceType: "mobile",
		OccurredAt: from.Add([]time.Duration{2, 3, 12, 26, 27}[r.IntN(5)]*time.Hour).UnixMicro() + r.Int64N(3600)*1_000_000 + r.Int64N(1000), Properties: "{}", SchemaVersion: 1,
	}
	if i%19 == 0 {
		e.VisitorID = ""
	}
	if e.Name == event.NamePurchase || e.Name == event.NameRefund || e.Name == event.NameAddToCart || e.Name == event.NameViewItem {
		e.Currency = []string{"INR", "USD"}[r.IntN(2)]
		for range r.IntN(3) {
			e.Items = append(e.Items, event.Item{ItemID: []string{"p1", "p2", ""}[r.IntN(3)], ItemCategory: []string{"a", "b"}[r.IntN(2)], Price: new(r.Int64N(100_000_000)), Quantity: 1 + r.Int64N(3)})
		}
	}
	switch e.Name {
	case event.NamePurchase:
		e.Value, e.OrderID, e.OrderRank = new(r.Int64N(900_000_000)), fmt.Sprintf("o%d", i), 1
		if r.IntN(5) == 0 {
			e.OrderRank = 2
		}
	case event.NameRefund:
		e.Value = new(-r.Int64N(900_000_000))
	case event.NameInventoryChange:
		e.ItemID, e.StockLevel = "p1", new(r.Int64N(2))
		if r.IntN(2) == 0 {
			e.QuantityDelta = new(-r.Int64N(2))
		}
	}
	// The platform knew all of it two days later.
	e.IngestedAt = from.Add(60*time.Hour).UnixMicro() + int64(i)
	e.ReceivedAt, e.RawTopic, e.RawPartition, e.RawOffset = e.IngestedAt, e.Category().RawTopic(), int32(i%2), int64(i)
	e.RowHash = e.ComputeRowHash()
	return event.Stored{Event: e, Topic: e.Category().EventsTopic(), Partition: int32(i % 2), Offset: int64(i)}
}

// fold counts events as the stream does, by row.
func (k *kpiWorld) fold(take func(i int) bool) map[cell]*kpi.Values {
	out := map[cell]*kpi.Values{}
	at := func(c cell) *kpi.Values {
		if out[c] == nil {
			out[c] = &kpi.Values{}
		}
		return out[c]
	}
	for i, s := range k.events {
		e := s.Event
		if !take(i) || e.OrderRank > 1 || k.gone[i] {
			continue
		}
		for grain, g := range kpi.Grains() {
			start, _ := k.defs.Window(g, e.Tenant, e.OccurredAt)
			at(cell{family: kpi.Shop, grain: grain, start: start, shop: kpi.ShopKeyOf(e)}).AddShop(e)
			if !kpi.HasLines(e.Name) {
				continue
			}
			seen := map[cell]bool{}
			for n, item := range e.Items {
				for _, product := range slices.Compact([]string{item.ItemID, ""}) {
					c := cell{family: kpi.Items, grain: grain, start: start, items: kpi.ItemsKey{Tenant: e.Tenant, Currency: e.Currency, ProductID: product, ItemCategory: item.ItemCategory}}
					at(c).AddLine(e, n, !seen[c])
					seen[c] = true
				}
			}
		}
	}
	return out
}

// sums adds the partials of a row up over partitions, as queries do.
func (k *kpiWorld) sums(t *testing.T, from, to int64) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, f := range kpi.Families() {
		for _, g := range kpi.Grains() {
			total := map[string]event.KPIPartial{}
			for p := int32(-1); p < 2; p++ {
				rows := k.partials(t, f, g, p, from, to)
				for _, row := range rows {
					row.KafkaPartition = 0
					key := string(kpi.AppendRecordKey(nil, &row))
					sum := total[key]
					row.Events += sum.Events
					row.PageViews += sum.PageViews
					row.ItemViews += sum.ItemViews
					row.Searches += sum.Searches
					row.CartAdds += sum.CartAdds
					row.Orders += sum.Orders
					row.Units += sum.Units
					row.Refunds += sum.Refunds
					row.Visitors += sum.Visitors
					row.StockOuts += sum.StockOuts
					row.Revenue, row.RefundValue = row.Revenue.Add(sum.Revenue), row.RefundValue.Add(sum.RefundValue)
					total[key] = row
				}
			}
			for key, row := range total {
				if row.Events != 0 {
					out[key] = numbersOf(&row)
				}
			}
		}
	}
	return out
}

func numbersOf(p *event.KPIPartial) string {
	return fmt.Sprintf("%s %s %s events %d views %d/%d searches %d adds %d orders %d units %d revenue %s refunds %d %s visitors %d stock-outs %d carts %d/%d", p.Family, p.Grain, event.Time(p.WindowStart).Format(time.RFC3339),
		p.Events, p.PageViews, p.ItemViews, p.Searches, p.CartAdds, p.Orders, p.Units, p.Revenue.Big(), p.Refunds, p.RefundValue.Big(), p.Visitors, p.StockOuts, p.Carts, p.AbandonedCarts)
}

func (k *kpiWorld) partials(t *testing.T, f kpi.Family, g kpi.Grain, partition int32, from, to int64) []event.KPIPartial {
	t.Helper()
	rows, err := k.repair.Partials(t.Context(), f.String(), g.Name, kpiTenant, partition, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// want is the recomputation from all events of rows whose windows begin in [from, to); of days only one.
func (k *kpiWorld) want(t *testing.T, from, to, day int64) map[string]string {
	t.Helper()
	out := map[string]string{}
	for c, v := range k.fold(func(int) bool { return true }) {
		if c.start < from || c.start >= to || kpi.Grains()[c.grain].Size == 0 && c.start != day {
			continue
		}
		p, err := partialOf(c, &visitTally{values: *v})
		if err != nil {
			t.Fatal(err)
		}
		p.KafkaPartition, p.Visitors = 0, v.Count(kpi.Visitors)
		out[string(kpi.AppendRecordKey(nil, &p))] = numbersOf(&p)
	}
	return out
}

func TestRecomputedKPIsAreThoseOfAllEvents(t *testing.T) {
	t.Parallel()
	servers, err := embeddedtest.Start(t.Context(), "", embedded.BrokerKfake, embedded.ClickHouseChild)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(servers.Stop)
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
	defs, err := kpi.New(kpi.Config{TimeZones: map[string]string{kpiTenant: "Asia/Kolkata"}}) // whose midnight is at half past six, UTC
	if err != nil {
		t.Fatal(err)
	}
	k := &kpiWorld{defs: defs, repair: olap.NewRepair(conn, ""), live: map[int]bool{}, gone: map[int]bool{}}
	from := time.Date(2026, 2, 28, 16, 0, 0, 0, time.UTC) // 1 March begins there at 18:30
	dice := rand.New(rand.NewPCG(1, 2))
	tables := map[string][]event.Stored{}
	late, err := conn.PrepareBatch(t.Context(), "INSERT INTO kpi_late")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 600 {
		s := k.event(dice, i, from)
		switch e := s.Event; dice.IntN(6) {
		case 0:
			e.LaneCode = int32(event.Replay)
		case 1:
			if e.OrderRank <= 1 {
				if err := late.Append(e.Tenant, e.ID, e.Source, e.Name, event.Time(e.OccurredAt), event.Time(e.IngestedAt), event.Time(e.IngestedAt), e.RawTopic, e.RawPartition, e.RawOffset, uint64(i)); err != nil {
					t.Fatal(err)
				}
			}
		default:
			k.live[i] = true
		}
		k.events = append(k.events, s)
		tables[s.Event.Category().Table()] = append(tables[s.Event.Category().Table()], s)
	}
	if err := late.Send(); err != nil {
		t.Fatal(err)
	}
	for table, rows := range tables {
		for p := range int32(2) {
			mine := slices.DeleteFunc(slices.Clone(rows), func(s event.Stored) bool { return s.Partition != p })
			part := olap.Part{Table: table, RawTopic: mine[0].Event.RawTopic, From: from, To: from.Add(100 * time.Hour)}
			if _, err := k.repair.Insert(t.Context(), part, p, mine, nil, "sink"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for p := range int32(2) { // what the stream has counted
		byTable := map[[2]string][]event.KPIPartial{}
		for c, v := range k.fold(func(i int) bool { return k.live[i] && k.events[i].Partition == p }) {
			row, err := partialOf(c, &visitTally{values: *v})
			if err != nil {
				t.Fatal(err)
			}
			row.KafkaPartition, row.Visitors = p, v.Count(kpi.Visitors)
			byTable[[2]string{row.Family, row.Grain}] = append(byTable[[2]string{row.Family, row.Grain}], row)
		}
		for table, rows := range byTable {
			if err := k.repair.WriteRecomputed(t.Context(), table[0], table[1], rows, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := NewRecompute(conn, "", defs, nil, prometheus.NewRegistry())
	start, end := defs.Window(kpi.Grains()[3], kpiTenant, from.Add(12*time.Hour).UnixMicro())
	const hour = int64(3600 * 1_000_000)
	lo, hi := floorTo(start, hour), floorTo(end+hour-1, hour)
	check := func(what string) {
		t.Helper()
		have, want := k.sums(t, lo, hi), k.want(t, lo, hi, start)
		maps.DeleteFunc(have, func(key, _ string) bool { _, ok := want[key]; return !ok && isOtherDay(have[key], start) })
		if diff := cmp.Diff(want, have); diff != "" || len(want) < 500 {
			t.Errorf("%s: of %d rows:\n%.3000s", what, len(want), diff)
		}
	}
	recompute := func() map[string]int64 {
		t.Helper()
		out, err := perform[StepOutput](r.Day, name.RecomputeKPIsInput{Day: "2026-03-01"})
		if err != nil {
			t.Fatal(err)
		}
		return out.Numbers
	}
	first := recompute()
	if first["rows"] == 0 || first["events"] == 0 || first["days"] != 1 {
		t.Errorf("%v", first)
	}
	check("after the first run")
	if again := recompute(); again["rows"] != 0 || again["unchanged"] != first["rows"] || again["events"] != first["events"] {
		t.Errorf("the second run: %v", again)
	}

	t.Log("events that are there no more are taken back")
	gone := map[string][]string{}
	for i, s := range k.events {
		if !k.live[i] && i%5 == 0 {
			k.gone[i] = true
			gone[s.Event.Category().Table()] = append(gone[s.Event.Category().Table()], fmt.Sprint(s.Event.RawOffset)) // which are of one partition each
		}
	}
	for table, offsets := range gone {
		if err := conn.Exec(t.Context(), "DELETE FROM "+table+" WHERE raw_offset IN ("+strings.Join(offsets, ", ")+") SETTINGS lightweight_deletes_sync = 2"); err != nil {
			t.Fatal(err)
		}
	}
	if third := recompute(); third["rows"] == 0 || third["rows"] >= first["rows"] {
		t.Errorf("the third run: %v", third)
	}
	check("after events have gone")

	t.Log("what came on a day reaches the days that it is of")
	out, err := perform[StepOutput](r.Day, name.RecomputeKPIsInput{Day: from.Add(60 * time.Hour).Format(time.DateOnly)})
	if err != nil || out.Numbers["days"] != 3 {
		t.Errorf("%v, %v", out, err)
	}
}

// isOtherDay says whether a row is a day's that was not recomputed.
func isOtherDay(numbers string, day int64) bool {
	return grainOf(numbers) == "1d" && startOf(numbers) != event.Time(day).Format(time.RFC3339)
}

func grainOf(numbers string) string {
	var family, grain string
	_, _ = fmt.Sscan(numbers, &family, &grain) // of numbersOf
	return grain
}

func startOf(numbers string) string {
	var family, grain, start string
	_, _ = fmt.Sscan(numbers, &family, &grain, &start) // of numbersOf
	return start
}
