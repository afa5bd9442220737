package hot

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"millrace/event"
	"millrace/kpi"
)

// row identifies a KPI row, and count is its measures, computed here by other means than package kpi's.
type row struct {
	Family, Grain, Tenant     string
	Start                     int64
	Currency, Country, Device string
	Product, Category         string
}

type measures struct {
	Events, PageViews, ItemViews, Searches, CartAdds, Checkouts, Orders, Units, Refunds, Visitors int64
	Revenue, RefundValue                                                                          string
}

type adding struct {
	measures
	revenue, refund big.Int
	visitors        map[string]bool
}

func (a *adding) add(e *event.Event) {
	a.Events++
	if e.VisitorID != "" {
		a.visitors[e.VisitorID] = true
	}
	switch e.Name {
	case "page_view":
		a.PageViews++
	case "view_item":
		a.ItemViews++
	case "search":
		a.Searches++
	case "add_to_cart":
		a.CartAdds++
	case "begin_checkout":
		a.Checkouts++
	case "purchase":
		a.Orders++
	case "refund":
		a.Refunds++
	}
}

// recompute computes every KPI row from events.* less kpi.late.
func recompute(r *rig, zones map[string]*time.Location) map[row]measures {
	late := map[string]bool{}
	for _, l := range decodeAll[event.KPILate](r, event.TopicKPILate) {
		late[fmt.Sprint(l.RawTopic, l.RawOffset)] = true
	}
	rows := map[row]*adding{}
	at := func(k row) *adding {
		if rows[k] == nil {
			rows[k] = &adding{visitors: map[string]bool{}}
		}
		return rows[k]
	}
	for _, c := range event.Categories() {
		for _, e := range r.events(c) {
			if e.Lane() != event.Live || e.OrderRank > 1 || late[fmt.Sprint(e.RawTopic, e.RawOffset)] {
				continue
			}
			for grain, size := range map[string]time.Duration{"1s": time.Second, "1m": time.Minute, "1h": time.Hour, "1d": 0} {
				when := event.Time(e.OccurredAt)
				start := when.Truncate(max(size, 1))
				if size == 0 {
					zone := zones[e.Tenant]
					if zone == nil {
						zone = time.UTC
					}
					y, m, d := when.In(zone).Date()
					start = time.Date(y, m, d, 0, 0, 0, 0, zone)
				}
				shop := at(row{Family: "shop", Grain: grain, Tenant: e.Tenant, Start: start.UnixMicro(), Currency: e.Currency, Country: e.Country, Device: e.DeviceType})
				shop.add(&e)
				for _, item := range e.Items {
					if e.Name == "purchase" {
						shop.Units += item.Quantity
					}
				}
				if e.Value != nil && e.Name == "purchase" {
					shop.revenue.Add(&shop.revenue, big.NewInt(*e.Value))
				}
				if e.Value != nil && e.Name == "refund" {
					shop.refund.Add(&shop.refund, big.NewInt(*e.Value))
				}
				if !slices.Contains([]string{"view_item", "add_to_cart", "begin_checkout", "purchase", "refund"}, e.Name) {
					continue
				}
				counted := map[row]bool{}
				for _, item := range e.Items {
					keys := map[row]bool{}
					for _, product := range []string{item.ItemID, ""} {
						keys[row{Family: "items", Grain: grain, Tenant: e.Tenant, Start: start.UnixMicro(), Currency: e.Currency, Product: product, Category: item.ItemCategory}] = true
					}
					for k := range keys {
						a := at(k)
						if !counted[k] {
							counted[k] = true
							a.add(&e)
						}
						if item.Price == nil {
							item.Price = new(int64)
						}
						line := new(big.Int).Mul(big.NewInt(*item.Price), big.NewInt(item.Quantity))
						switch e.Name {
						case "purchase":
							a.Units += item.Quantity
							a.revenue.Add(&a.revenue, line)
						case "refund":
							a.refund.Sub(&a.refund, line)
						}
					}
				}
			}
		}
	}
	out := map[row]measures{}
	for k, a := range rows {
		a.Visitors, a.Revenue, a.RefundValue = int64(len(a.visitors)), a.revenue.String(), a.refund.String()
		out[k] = a.measures
	}
	return out
}

func emittedRows(r *rig) map[row]measures {
	out := map[row]measures{}
	for _, p := range r.partials() {
		if p.Events == 0 && p.Carts > 0 {
			continue // carts are counted when they are decided, which need not be a time of events
		}
		if n, err := kpi.MergeSketches(p.VisitorsSketch); err != nil || n != p.Visitors {
			r.Fatalf("the sketch says %d visitors (%v), the row %d", n, err, p.Visitors)
		}
		if p.KafkaPartition != testPartition {
			r.Fatalf("a partial of partition %d", p.KafkaPartition)
		}
		out[row{p.Family, p.Grain, p.Tenant, p.WindowStart, p.Currency, p.Country, p.Device, p.ProductID, p.ItemCategory}] = measures{
			p.Events, p.PageViews, p.ItemViews, p.Searches, p.CartAdds, p.Checkouts, p.Orders, p.Units, p.Refunds, p.Visitors, p.Revenue.Big().String(), p.RefundValue.Big().String(),
		}
	}
	return out
}

// checkLedger compares the control totals of every raw topic with what was sent and what was written.
func checkLedger(r *rig, sent map[string]int64) {
	type sum struct {
		rows       event.Checksum
		duplicates int64
		failed     int64
	}
	totals, next := map[string]*sum{}, map[string]int64{}
	for topic := range sent {
		totals[topic] = &sum{}
	}
	for _, l := range decodeAll[event.LedgerEntry](r, event.TopicLedger) {
		if l.RawFrom != next[l.RawTopic] || l.RawTo <= l.RawFrom || l.RawPartition != testPartition {
			r.Fatalf("the range [%d, %d) of %s/%d follows on %d", l.RawFrom, l.RawTo, l.RawTopic, l.RawPartition, next[l.RawTopic])
		}
		next[l.RawTopic] = l.RawTo
		if got := l.Count + l.Duplicates + l.Failed + l.Erased; got != l.RawTo-l.RawFrom {
			r.Fatalf("%s [%d, %d) accounts for %d records", l.RawTopic, l.RawFrom, l.RawTo, got)
		}
		if l.IngestedTo-l.IngestedFrom >= minute || l.IngestedFrom/minute != l.IngestedTo/minute {
			r.Fatalf("the range of %s lasts from %d to %d", l.RawTopic, l.IngestedFrom, l.IngestedTo)
		}
		t := totals[l.RawTopic]
		t.rows.Count += l.Count
		t.rows.HashLo += l.HashLo
		t.rows.HashHi += l.HashHi
		t.duplicates += l.Duplicates
		t.failed += l.Failed
	}
	if d := cmp.Diff(sent, next); d != "" {
		r.Fatalf("records sent and accounted for: %s", d)
	}
	seen := map[string]bool{}
	once := func(topic string, offset int64) {
		at := fmt.Sprint(topic, "@", offset)
		if seen[at] {
			r.Fatalf("%s was written twice", at)
		}
		seen[at] = true
	}
	for _, c := range event.Categories() {
		var rows event.Checksum
		for _, e := range r.events(c) {
			once(e.RawTopic, e.RawOffset)
			rows.Add(e.RowHash)
		}
		if t := totals[c.RawTopic()]; t != nil && t.rows != rows {
			r.Fatalf("%s: control totals %+v, written %+v", c, t.rows, rows)
		}
	}
	var rows event.Checksum
	refused := map[string]int64{}
	for _, f := range decodeAll[event.Failed](r, event.TopicEventsFailed) {
		once(f.RawTopic, f.RawOffset)
		if f.RawTopic == event.TopicRawFailed && f.Reason != event.ReasonMalformed {
			rows.Add(failedHash(f.ID))
		} else {
			refused[f.RawTopic]++
		}
	}
	if t := totals[event.TopicRawFailed]; t != nil && t.rows != rows {
		r.Fatalf("raw.failed: control totals %+v, written %+v", t.rows, rows)
	}
	for topic, n := range refused {
		if totals[topic].failed < n {
			r.Fatalf("%s: %d refused, control totals say %d", topic, n, totals[topic].failed)
		}
	}
}

func draw[T any](t *rapid.T, of ...T) T { return of[rapid.IntRange(0, len(of)-1).Draw(t, "choice")] }

func drawEvent(t *rapid.T, now int64) event.Event {
	e := event.Event{
		ID:     "e" + strconv.Itoa(rapid.IntRange(0, 60).Draw(t, "id")),
		Name:   draw(t, event.NamePageView, event.NameViewItem, event.NameSearch, event.NameAddToCart, event.NameBeginCheckout, event.NamePurchase, event.NamePurchase, event.NameRefund, "spun", event.NameInventoryChange),
		Tenant: draw(t, "default", "sp"), VisitorID: draw(t, "", "v1", "v2", "v3"), Country: draw(t, "", "DE", "US"), DeviceType: draw(t, "mobile", "desktop"),
		OccurredAt: now - int64(draw(t, 0, time.Second, time.Minute, 20*time.Minute, 3*time.Hour, 30*time.Hour, -time.Hour))/1000, ReceivedAt: now,
	}
	if c := e.Category(); c == event.Purchase || c == event.Cart {
		e.Currency, e.Value, e.OrderID = draw(t, "USD", "EUR"), micros(rapid.Int64Range(0, 1000).Draw(t, "value")), draw(t, "", "o1", "o2", "o3")
		for range rapid.IntRange(0, 3).Draw(t, "lines") {
			e.Items = append(e.Items, event.Item{ItemID: draw(t, "", "p1", "p2"), ItemCategory: draw(t, "", "k"), Price: micros(rapid.Int64Range(0, 9).Draw(t, "price")), Quantity: rapid.Int64Range(0, 4).Draw(t, "quantity")})
		}
	}
	return e
}

func TestAnyBatchingAbortAndCrashGivesTheSameNumbers(t *testing.T) {
	saoPaulo, err := time.LoadLocation("America/Sao_Paulo")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, option{dir: dir, zones: map[string]string{"sp": "America/Sao_Paulo"}})
		sent := map[string]int64{}
		distinct := map[string]bool{}
		for range rapid.IntRange(1, 50).Draw(rt, "steps") {
			switch draw(rt, "send", "send", "send", "send", "garbage", "failed", "feed", "feed", "poll", "time", "commit", "commit", "abort", "crash") {
			case "send":
				for range rapid.IntRange(1, 8).Draw(rt, "n") {
					e := drawEvent(rt, r.h.Now().UnixMicro())
					sent[e.Category().RawTopic()]++
					distinct[e.Tenant+e.ID] = true
					r.send(e)
				}
			case "garbage":
				c := draw(rt, event.Page, event.Purchase)
				sent[c.RawTopic()]++
				r.h.Produce(int(c), &kgo.Record{Value: []byte(draw(rt, "a", "b"))})
			case "failed":
				f := event.Failed{ID: draw(rt, "f1", "f2"), Reason: event.ReasonSchema}
				b, err := r.codecs.Append(nil, event.TopicRawFailed, &f)
				r.ok(err)
				sent[event.TopicRawFailed]++
				r.h.Produce(len(event.Categories()), &kgo.Record{Value: b})
			case "feed":
				r.feed()
			case "poll":
				r.h.Poll(rapid.IntRange(0, len(event.Categories())).Draw(rt, "in"), rapid.IntRange(1, 5).Draw(rt, "n"))
				r.ok(r.h.Run())
			case "time":
				r.advance(draw(rt, 100*time.Millisecond, 2*time.Second, time.Minute, 15*time.Minute))
			case "commit":
				r.commit()
			case "abort":
				r.ok(r.h.Abort())
			case "crash":
				r.ok(r.h.Crash())
			}
		}
		r.settle()
		r.settle()
		checkLedger(r, sent)
		if d := cmp.Diff(recompute(r, map[string]*time.Location{"sp": saoPaulo}), emittedRows(r)); d != "" {
			rt.Fatal("recomputed from events (-), emitted (+):\n" + d)
		}
		written := map[string]bool{}
		for _, c := range event.Categories() {
			for _, e := range r.events(c) {
				if written[e.Tenant+e.ID] {
					rt.Fatalf("%s was written twice", e.ID)
				}
				written[e.Tenant+e.ID] = true
			}
		}
		if d := cmp.Diff(slices.Sorted(maps.Keys(distinct)), slices.Sorted(maps.Keys(written))); d != "" {
			rt.Fatal("sent (-) and written (+): " + d)
		}
	})
}

func TestCopiesAreFoundAcrossCommitsAbortsAndRestarts(t *testing.T) {
	for name, between := range map[string]func(*rig){
		"in one transaction":         func(*rig) {},
		"after a commit":             func(r *rig) { r.commit() },
		"after an abort":             func(r *rig) { r.ok(r.h.Abort()) },
		"after a crash":              func(r *rig) { r.ok(r.h.Crash()) },
		"after a commit and a crash": func(r *rig) { r.commit(); r.ok(r.h.Crash()) },
		"a bucket later":             func(r *rig) { r.commit(); r.advance(bucketSize) },
		"a bucket later, restarted":  func(r *rig) { r.commit(); r.advance(bucketSize); r.commit(); r.ok(r.h.Crash()) },
		"at the end of the window":   func(r *rig) { r.commit(); r.advance(2 * time.Hour) },
		"a bucket later in one transaction, then aborted": func(r *rig) {
			r.advance(bucketSize)
			r.send(event.Event{ID: "other"})
			r.feed()
			r.ok(r.h.Abort())
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, option{cfg: func(c *Config) { c.DedupWindow, c.SpoolMaxAge = 2*time.Hour, time.Hour }})
			e := event.Event{ID: "twice", Name: event.NamePurchase, OrderID: "o", VisitorID: "v"}
			r.send(e)
			r.feed()
			between(r)
			r.send(e)
			e.ID = "copy of the order"
			r.send(e)
			r.settle()
			got := []string{}
			for _, e := range r.events(event.Purchase) {
				got = append(got, fmt.Sprint(e.ID, " ", e.OrderRank))
			}
			if d := cmp.Diff([]string{"twice 1", "copy of the order 2"}, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAfterTheWindowAnIDIsForgotten(t *testing.T) {
	r := newRig(t, option{cfg: func(c *Config) { c.DedupWindow, c.SpoolMaxAge = 2*time.Hour, time.Hour }})
	r.send(event.Event{ID: "a"})
	r.feed()
	r.commit()
	r.advance(2*time.Hour + bucketSize)
	r.send(event.Event{ID: "a"})
	r.settle()
	if n := len(r.events(event.Page)); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
	for _, p := range r.find("shop", "1d", anyRow) {
		if p.Events != 2 {
			t.Errorf("the day has %d events", p.Events)
		}
	}
}
