package hot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"millrace/event"
	"millrace/event/schema"
	"millrace/features/demand"
	"millrace/streaming"
)

// productRig is the second stage with products alone.
type productRig struct {
	t      rapid.TB
	h      *streaming.Harness
	codecs *schema.Codecs
	alerts *[]stockAlert
	n      int

	strange int
}

// productOperator is the part of the second stage that products need.
type productOperator struct {
	*products
	strange *int
}

func (o productOperator) Process(in int, r *kgo.Record) error {
	if err := o.record(in, r); !errors.Is(err, errUnreadable) {
		return err
	}
	*o.strange++
	return nil
}
func (o productOperator) Timer(tm streaming.Timer) error { return o.timer(tm) }
func (o productOperator) Tick(now time.Time) error       { return o.tick(now) }
func (o productOperator) BeforeCommit() error            { return o.beforeCommit() }
func (o productOperator) Committed()                     { o.committed() }
func (o productOperator) Aborted()                       { o.aborted() }
func (o productOperator) Restored() error                { return o.restored() }

func newProductRig(t rapid.TB) *productRig {
	t.Helper()
	codecs, err := testCodecs()
	if err != nil {
		t.Fatal(err)
	}
	r := &productRig{t: t, codecs: codecs, alerts: &[]stockAlert{}}
	top := streaming.Topology{Name: "hot", Stage: "entity", Inputs: []string{event.TopicRekeyProduct}, Partitions: 4, Stores: productStores(), New: func(task *streaming.Task) (streaming.Operator, error) {
		return productOperator{newProducts(task, DefaultProductsConfig(), codecs, func(a *stockAlert) error {
			*r.alerts = append(*r.alerts, *a)
			return nil
		}), &r.strange}, nil
	}}
	r.h, err = streaming.NewHarness(streaming.Config{}, top, testPartition, t0)
	r.ok(err)
	return r
}

func (r *productRig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *productRig) send(c event.ProductChange) {
	r.t.Helper()
	r.n++
	c.Tenant, c.EventID = "default", fmt.Sprintf("e%d", r.n)
	v, err := r.codecs.Append(nil, event.TopicRekeyProduct, &c)
	r.ok(err)
	r.h.Produce(0, &kgo.Record{Key: c.AppendKey(nil), Value: v})
}

func (r *productRig) sale(item string, at time.Time, units int64) {
	r.send(event.ProductChange{ItemID: item, Kind: event.ProductSale, OccurredAt: at.UnixMicro(), Quantity: units})
}

func (r *productRig) count(item, warehouse string, at time.Time, level int64) {
	r.send(event.ProductChange{ItemID: item, Kind: event.ProductStock, OccurredAt: at.UnixMicro(), WarehouseID: warehouse, Level: &level})
}

func (r *productRig) forecast(item string, f demand.Published) {
	body, err := json.Marshal(f)
	r.ok(err)
	r.send(event.ProductChange{ItemID: item, Kind: event.ProductForecast, OccurredAt: t0.UnixMicro(), Body: body})
}

func (r *productRig) commit() {
	r.t.Helper()
	r.ok(r.h.Feed())
	_, err := r.h.Commit()
	r.ok(err)
}

// live is what Redis holds in the end.
func (r *productRig) live(item string) (stock event.ProductLive, forecast demand.Published) {
	r.t.Helper()
	for _, rec := range r.h.Outputs(event.TopicLiveUpdates) {
		var u event.LiveUpdate
		r.ok(r.codecs.Decode(context.Background(), event.TopicLiveUpdates, rec.Value, &u))
		if !bytes.Equal(rec.Key, u.AppendKey(nil)) || u.Tenant != "default" || u.ExpiresAt <= r.h.Now().UnixMicro() {
			r.t.Fatalf("%+v under %q", u, rec.Key)
		}
		if u.Key != event.ProductLiveKey("default", item) {
			continue
		}
		switch u.Field {
		case event.ProductLiveStock:
			stock = event.ProductLive{}
			r.ok(json.Unmarshal(u.Value, &stock))
		case event.ProductLiveForecast:
			forecast = demand.Published{}
			r.ok(json.Unmarshal(u.Value, &forecast))
		}
	}
	return stock, forecast
}

func flatModel(perHour float64, hour int64) demand.Model {
	season := make([]float32, demand.Week)
	for i := range season {
		season[i] = 1
	}
	return demand.Model{Kind: demand.Multiplicative, Alpha: 0.1, Level: perHour, Season: season, Hour: hour, Dispersion: 1}
}

func TestLinesOfOrdersAndChangesOfStockGoToTheTaskOfTheirProduct(t *testing.T) {
	r := newRig(t, option{})
	two, three := int64(2), int64(3)
	r.send(event.Event{ID: "o1", Name: event.NamePurchase, VisitorID: "v", OrderID: "1", Items: []event.Item{{ItemID: "a", Quantity: 2}, {ItemID: "b", Quantity: 1}, {ItemID: "", Quantity: 1}}})
	r.send(event.Event{ID: "o1-copy", Name: event.NamePurchase, VisitorID: "v", OrderID: "1", Items: []event.Item{{ItemID: "a", Quantity: 2}}})
	r.send(event.Event{ID: "r1", Name: event.NameRefund, VisitorID: "v", OrderID: "1", Items: []event.Item{{ItemID: "a", Quantity: 2}}})
	r.send(event.Event{ID: "s1", Name: event.NameInventoryChange, ItemID: "a", WarehouseID: "w", QuantityDelta: &two, StockLevel: &three})
	r.send(event.Event{ID: "s2", Name: event.NameInventoryChange, ItemID: "a", WarehouseID: "w"}) // says nothing
	r.send(event.Event{ID: "p1", Name: event.NamePageView, VisitorID: "v"})
	r.settle()
	var got []string
	for _, rec := range r.h.Outputs(event.TopicRekeyProduct) {
		var c event.ProductChange
		r.ok(r.codecs.Decode(t.Context(), event.TopicRekeyProduct, rec.Value, &c))
		if !bytes.Equal(rec.Key, c.AppendKey(nil)) || rec.Partition != event.Partition(rec.Key, 4) {
			t.Errorf("%+v is in partition %d under %q", c, rec.Partition, rec.Key)
		}
		text := fmt.Sprintf("%s %s %s %d", c.Kind, c.EventID, c.ItemID, c.Quantity)
		if c.Kind == event.ProductStock {
			text += fmt.Sprintf(" %s %d %d", c.WarehouseID, *c.Delta, *c.Level)
		}
		got = append(got, text)
	}
	slices.Sort(got)
	if d := cmp.Diff([]string{"sale o1 a 2", "sale o1 b 1", "stock s1 a 0 w 2 3"}, got); d != "" {
		t.Error(d)
	}
	// A product's changes of stock and its sales meet in one partition: that of the events about its stock.
	stock := event.Event{Tenant: "default", Name: event.NameInventoryChange, ItemID: "a"}
	if c := (event.ProductChange{Tenant: "default", ItemID: "a"}); !bytes.Equal(c.AppendKey(nil), stock.AppendKey(nil)) {
		t.Errorf("key %q, that of events is %q", c.AppendKey(nil), stock.AppendKey(nil))
	}
}

func TestStockAndSalesOfAProductAreServed(t *testing.T) {
	r := newProductRig(t)
	r.count("a", "ams", t0, 40)
	r.count("a", "reno", t0.Add(time.Minute), 7)
	r.count("a", "ams", t0.Add(-time.Minute), 99) // older than the last count
	r.sale("a", t0.Add(time.Minute), 2)
	r.sale("a", t0.Add(2*time.Minute), 3)
	r.sale("a", t0.Add(-90*time.Minute), 1)
	five := int64(-5)
	r.send(event.ProductChange{ItemID: "a", Kind: event.ProductStock, OccurredAt: t0.Add(time.Minute).UnixMicro(), WarehouseID: "ams", Delta: &five})
	r.commit()
	stock, _ := r.live("a")
	hour := hourOf(t0.UnixMicro())
	want := event.ProductLive{
		Stock:  []event.WarehouseStock{{Warehouse: "ams", Level: 35, At: t0.UnixMicro()}, {Warehouse: "reno", Level: 7, At: t0.Add(time.Minute).UnixMicro()}},
		Sales:  []event.HourSales{{Hour: hour - 2, Units: 1}, {Hour: hour, Units: 5}},
		Closed: hour - 1, LeadHours: 72,
	}
	if d := cmp.Diff(want, stock); d != "" {
		t.Error(d)
	}
}

func TestTheForecastLearnsEachHourThatIsOver(t *testing.T) {
	r := newProductRig(t)
	hour := hourOf(t0.UnixMicro())
	sold := map[int64]int64{-3: 4, -1: 2, 0: 7, 2: 1, 5: 9} // by hour from t0 on
	for h := int64(-4); h < 0; h++ {
		if n := sold[h]; n > 0 {
			r.sale("a", t0.Add(time.Duration(h)*time.Hour+time.Minute), n)
		}
	}
	fitted := flatModel(3, hour-4) // the night knew the hours up to then
	r.forecast("a", demand.Published{Version: "v1", Model: fitted})
	r.commit()
	for h := range int64(8) {
		r.sale("other", t0.Add(time.Duration(h)*time.Hour), 1) // moves the watermark
		if n := sold[h]; n > 0 {
			r.sale("a", t0.Add(time.Duration(h)*time.Hour+time.Minute), n)
		}
		r.commit()
		if h == 3 {
			r.ok(r.h.Crash())
		}
	}
	want := fitted
	_, got := r.live("a")
	for want.Hour < got.Model.Hour {
		want = want.Step(float64(sold[want.Hour+1-hour]))
	}
	if got.Model.Hour < hour+5 || got.Version != "v1" {
		t.Fatalf("the forecast has learned up to hour %+d, version %q", got.Model.Hour-hour, got.Version)
	}
	if d := cmp.Diff(want, got.Model); d != "" {
		t.Error(d)
	}
	r.forecast("a", demand.Published{Version: "v2"}) // its history is too short by now
	r.commit()
	if _, got = r.live("a"); got.Model.Kind != "" {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsNoChangeOfAProductIsLeftOut(t *testing.T) {
	r := newProductRig(t)
	bad := flatModel(1, 1)
	bad.Season = bad.Season[:5]
	r.count("a", "w", t0, 5)
	r.h.Produce(0, &kgo.Record{Key: []byte("k"), Value: []byte("garbage")})
	r.h.Produce(0, &kgo.Record{Key: []byte("k"), Value: []byte{0, 0, 1, 2, 3, 4}}) // of a schema that there is not
	r.forecast("a", demand.Published{Version: "v", Model: bad})
	r.send(event.ProductChange{ItemID: "a", Kind: event.ProductForecast, OccurredAt: 1, Body: []byte("{")})
	r.send(event.ProductChange{ItemID: "a", Kind: "other", OccurredAt: t0.UnixMicro()})
	r.sale("a", t0, 1<<62)
	r.sale("a", t0, 1<<62)
	level := int64(-1 << 63)
	r.send(event.ProductChange{ItemID: "a", Kind: event.ProductStock, OccurredAt: t0.UnixMicro(), Level: &level, WarehouseID: "x"})
	r.sale("a", t0, 1)
	r.commit()
	stock, forecast := r.live("a")
	if r.strange != 5 || forecast.Model.Kind != "" || len(stock.Sales) != 1 || stock.Sales[0].Units != 2*maxSold+1 || stock.Stock[1].Level != -maxStock {
		t.Errorf("%d left out; %+v", r.strange, stock)
	}
}

func TestLowStockIsToldOnceUntilItIsNoLonger(t *testing.T) {
	r := newProductRig(t)
	hour := hourOf(t0.UnixMicro())
	r.forecast("a", demand.Published{Version: "v1", Model: flatModel(1, hour-1)}) // 72 units in the lead time
	r.count("a", "w", t0, 500)
	r.commit()
	if len(*r.alerts) != 0 {
		t.Fatalf("%+v", *r.alerts)
	}
	for i, level := range []int64{120, 80, 75, 70, 60, 20} {
		r.count("a", "w", t0.Add(time.Duration(i+1)*time.Second), level)
	}
	r.commit()
	if len(*r.alerts) != 1 {
		t.Fatalf("%d alerts: %+v", len(*r.alerts), *r.alerts)
	}
	a := (*r.alerts)[0]
	if a.stock != 80 && a.stock != 75 || a.product != "a" || a.tenant != "default" || !a.forecast || a.risk < 0.2 || a.out || a.cover < 70 || a.event == "" {
		t.Errorf("%+v", a)
	}
	if stock, _ := r.live("a"); !stock.Low {
		t.Error("it is not served as low")
	}
	r.count("a", "w", t0.Add(time.Minute), 400)
	r.count("a", "w", t0.Add(2*time.Minute), 0)
	r.count("a", "w", t0.Add(3*time.Minute), -1)
	r.commit()
	if len(*r.alerts) != 2 || !(*r.alerts)[1].out || (*r.alerts)[1].risk < 0.99 {
		t.Errorf("%+v", *r.alerts)
	}
	// Without a forecast the sales of the last hours stand for it.
	r.count("b", "w", t0, 30)
	for h := range 10 {
		r.sale("b", t0.Add(time.Duration(h)*time.Minute), 3)
	}
	r.commit()
	if last := (*r.alerts)[len(*r.alerts)-1]; len(*r.alerts) != 3 || last.product != "b" || last.forecast {
		t.Errorf("%+v", *r.alerts)
	}
}

func TestAProductOfWhichNothingIsHeardIsForgotten(t *testing.T) {
	r := newProductRig(t)
	r.count("a", "w", t0, 5)
	r.sale("b", t0, 5)
	r.commit()
	written := 0
	for d := 1; d <= 200; d++ {
		r.sale("z", t0.Add(time.Duration(d)*24*time.Hour), 1)
		r.commit()
		for _, rec := range r.h.Outputs(event.TopicLiveUpdates)[written:] {
			if bytes.HasPrefix(rec.Key, []byte("inv:{default|a}")) && d > 183 {
				t.Fatalf("a is still written after %d days", d)
			}
		}
		seen := slices.ContainsFunc(r.h.Outputs(event.TopicLiveUpdates)[written:], func(rec *kgo.Record) bool { return bytes.HasPrefix(rec.Key, []byte("inv:{default|a}")) })
		if d > 2 && d < 179 && d%3 == 0 {
			if !seen {
				t.Fatalf("a was not written again on the days up to %d", d)
			}
		}
		if d%3 == 0 {
			written = len(r.h.Outputs(event.TopicLiveUpdates))
		}
	}
	r.ok(r.h.Crash())
	p := r.h.Task()
	if p == nil {
		t.Fatal("no task")
	}
}

// Whatever aborts and crashes there are, and however records are batched, what is served in the end is the same.
func TestProductsEndTheSameWhateverHappensOnTheWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		play := func(faults bool) string {
			rng := rand.New(rand.NewPCG(seed, 2))
			r := newProductRig(t)
			hour := hourOf(t0.UnixMicro())
			for i := range 120 {
				at := t0.Add(time.Duration(i)*4*time.Minute - time.Duration(rng.IntN(600))*time.Second)
				item := string(rune('a' + rng.IntN(3)))
				switch rng.IntN(10) {
				case 0, 1:
					r.count(item, fmt.Sprintf("w%d", rng.IntN(2)), at, rng.Int64N(60))
				case 2:
					r.forecast(item, demand.Published{Version: fmt.Sprintf("v%d", i), Model: flatModel(rng.Float64()*3, hour-rng.Int64N(80))})
				default:
					r.sale(item, at, 1+rng.Int64N(3))
				}
				if !faults {
					continue
				}
				switch rapid.IntRange(0, 9).Draw(t, "what") {
				case 0:
					r.commit()
				case 1:
					r.ok(r.h.Feed())
					r.ok(r.h.Abort())
				case 2:
					r.ok(r.h.Feed())
					r.ok(r.h.Crash())
				}
			}
			r.commit()
			var out bytes.Buffer
			for _, item := range []string{"a", "b", "c"} {
				stock, forecast := r.live(item)
				text, err := json.Marshal([]any{stock, forecast})
				r.ok(err)
				out.Write(append(text, '\n'))
			}
			return out.String()
		}
		if d := cmp.Diff(play(false), play(true)); d != "" {
			t.Fatal(d)
		}
	})
}

func TestStatesOfProductsComeBackAsTheyWere(t *testing.T) {
	p := productState{
		stock: []warehouse{{"", -3, -1 << 63}, {"ams", 1 << 40, t0.UnixMicro()}}, sales: []soldHour{{490_000, 3}, {490_001, 1}}, closed: 490_000, seen: t0.UnixMicro(), low: true, timer: 7,
	}
	got, err := productCodec{}.Decode(productCodec{}.Append(nil, p))
	if d := cmp.Diff(p, got, cmp.AllowUnexported(productState{}, warehouse{}, soldHour{})); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	m := modelState{flatModel(1.25, 490_000), "v"}
	m.Trend, m.Phi = -0.001, 0.99
	text := modelCodec{}.Append(nil, m)
	back, err := modelCodec{}.Decode(text)
	if d := cmp.Diff(m, back, cmp.AllowUnexported(modelState{})); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	t.Logf("state of a product: %d bytes, of its forecast %d", len(productCodec{}.Append(nil, p)), len(text))
	for i := range text {
		if _, err := (modelCodec{}).Decode(text[:i]); err == nil {
			t.Fatalf("%d bytes of %d are a forecast", i, len(text))
		}
	}
}

func FuzzStatesOfProducts(f *testing.F) {
	f.Add(productCodec{}.Append(nil, productState{stock: []warehouse{{"w", 1, 2}}, sales: []soldHour{{3, 4}}}))
	f.Add(modelCodec{}.Append(nil, modelState{flatModel(1, 2), "v"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := (productCodec{}).Decode(data); err == nil {
			if again, err := (productCodec{}).Decode(productCodec{}.Append(nil, p)); err != nil || !cmp.Equal(p, again, cmp.AllowUnexported(productState{}, warehouse{}, soldHour{})) {
				t.Errorf("%v: %+v is not %+v", err, again, p)
			}
		}
		if m, err := (modelCodec{}).Decode(data); err == nil {
			if _, err := (modelCodec{}).Decode(modelCodec{}.Append(nil, m)); err != nil {
				t.Error(err)
			}
		}
	})
}
