package kpi

import (
	"bytes"
	"encoding/hex"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/axiomhq/hyperloglog"
	"github.com/google/go-cmp/cmp"
	"github.com/zeebo/xxh3"
	"pgregory.net/rapid"

	"millrace/event"
)

func TestTheTableAndTheSwitchSayTheSame(t *testing.T) {
	for _, m := range Measures() {
		if m.Kind() != Count || m.On() == "" {
			continue
		}
		if got, ok := counted(m.On()); !ok || got != m {
			t.Errorf("%s: %q counts as %s", m, m.On(), got)
		}
	}
	if _, ok := counted("anything_else"); ok {
		t.Error("a custom event is counted beyond events")
	}
}

func TestColumnsAreThoseOfThePartial(t *testing.T) {
	want := "events page_views item_views searches cart_adds checkouts orders units revenue refunds refund_value visitors stock_outs carts abandoned_carts"
	if got := strings.Join(Shop.Columns(), " "); got != want {
		t.Errorf("shop has %s, want %s", got, want)
	}
	want = "events item_views cart_adds checkouts orders units revenue refunds refund_value visitors"
	if got := strings.Join(Items.Columns(), " "); got != want {
		t.Errorf("items has %s, want %s", got, want)
	}
	if got := Items.Table(Grains()[3]); got != "kpi_items_1d" {
		t.Error(got)
	}
}

func micros(units int64) *int64 {
	v := units * event.MicrosPerUnit
	return &v
}

func TestWhatAnEventAdds(t *testing.T) {
	items := []event.Item{{ItemID: "p1", Price: micros(3), Quantity: 2}, {ItemID: "p2", Price: micros(5), Quantity: 1}, {ItemID: "p3", Quantity: 4}}
	for _, c := range []struct {
		name string
		want map[Measure]int64
	}{
		{event.NamePageView, map[Measure]int64{Events: 1, PageViews: 1, Visitors: 1}},
		{event.NameScreenView, map[Measure]int64{Events: 1, Visitors: 1}},
		{event.NameViewItem, map[Measure]int64{Events: 1, ItemViews: 1, Visitors: 1}},
		{event.NameSearch, map[Measure]int64{Events: 1, Searches: 1, Visitors: 1}},
		{event.NameAddToCart, map[Measure]int64{Events: 1, CartAdds: 1, Visitors: 1}},
		{event.NameBeginCheckout, map[Measure]int64{Events: 1, Checkouts: 1, Visitors: 1}},
		{event.NamePurchase, map[Measure]int64{Events: 1, Orders: 1, Units: 7, Revenue: 11_000_000, Visitors: 1}},
		{event.NameRefund, map[Measure]int64{Events: 1, Refunds: 1, RefundValue: -11_000_000, Visitors: 1}},
		{"wheel_spun", map[Measure]int64{Events: 1, Visitors: 1}},
	} {
		value := micros(11)
		if c.name == event.NameRefund {
			value = micros(-11)
		}
		var v Values
		v.AddShop(&event.Event{Name: c.name, VisitorID: "v1", Value: value, Items: items})
		for _, m := range Measures() {
			got := v.Count(m)
			if m.Kind() == Amount {
				got, _ = v.Total(m).Int64()
			}
			if got != c.want[m] {
				t.Errorf("%s adds %d to %s, want %d", c.name, got, m, c.want[m])
			}
		}
	}
}

func TestALineAddsPriceTimesQuantity(t *testing.T) {
	e := &event.Event{Name: event.NamePurchase, VisitorID: "v", Items: []event.Item{
		{ItemID: "p", Price: micros(3), Quantity: 2},
		{ItemID: "p", Price: micros(4), Quantity: 1},
		{ItemID: "p", Price: ptr(event.MaxAmount - 1), Quantity: 1_000_000_000},
	}}
	var v Values
	for i := range e.Items {
		v.AddLine(e, i, i == 0)
	}
	if v.Count(Orders) != 1 || v.Count(Events) != 1 || v.Count(Units) != 1_000_000_003 || v.Count(Visitors) != 1 {
		t.Errorf("orders %d, events %d, units %d, visitors %d", v.Count(Orders), v.Count(Events), v.Count(Units), v.Count(Visitors))
	}
	want, _ := new(big.Int).SetString("999999999999999999000000000", 10)
	want.Add(want, big.NewInt(10_000_000))
	if got := v.Total(Revenue).Big(); got.Cmp(want) != 0 {
		t.Errorf("revenue %s, want %s", got, want)
	}
	e.Name = event.NameRefund
	var r Values
	r.AddLine(e, 0, true)
	if got, _ := r.Total(RefundValue).Int64(); got != -6_000_000 || r.Count(Refunds) != 1 || r.Count(Units) != 0 {
		t.Errorf("a refunded line adds %d, refunds %d", got, r.Count(Refunds))
	}
}

func ptr(v int64) *int64 { return &v }

func TestTotalsAreExactUpToTheBoundsOfDecimal38(t *testing.T) {
	bound := new(big.Int).Sub(new(big.Int).Exp(big.NewInt(10), big.NewInt(38), nil), big.NewInt(1))
	clamp := func(x *big.Int) *big.Int {
		switch {
		case x.Cmp(bound) > 0:
			return bound
		case x.CmpAbs(bound) > 0:
			return new(big.Int).Neg(bound)
		}
		return x
	}
	anyInt := rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{0, 1, -1, 1<<63 - 1, -1 << 63, event.MaxAmount}))
	rapid.Check(t, func(t *rapid.T) {
		var sum event.Sum
		want := new(big.Int)
		for range rapid.IntRange(1, 30).Draw(t, "lines") {
			p, q, neg := anyInt.Draw(t, "price"), anyInt.Draw(t, "quantity"), rapid.Bool().Draw(t, "negate")
			line := new(big.Int).Mul(big.NewInt(p), big.NewInt(q))
			if neg {
				line.Neg(line)
			}
			got := lineAmount(p, q, neg)
			if got.Big().Cmp(clamp(line)) != 0 {
				t.Fatalf("%d × %d, negated %v, is %s, want %s", p, q, neg, got.Big(), line)
			}
			sum = addSum(sum, got)
			want = clamp(want.Add(want, clamp(line)))
			want = new(big.Int).Set(want)
			if sum.Big().Cmp(want) != 0 {
				t.Fatalf("the sum is %s, want %s", sum.Big(), want)
			}
		}
		a, b := anyInt.Draw(t, "a"), anyInt.Draw(t, "b")
		exact := new(big.Int).Add(big.NewInt(a), big.NewInt(b))
		if got := addCount(a, b); exact.IsInt64() && got != exact.Int64() || !exact.IsInt64() && (got > 0) != (exact.Sign() > 0) {
			t.Fatalf("%d + %d counts as %d", a, b, got)
		}
	})
}

// sketchOf is the library's own sketch of a set, in its canonical form.
func sketchOf(t *rapid.T, ids []string) ([]byte, int64) {
	sk := hyperloglog.New14()
	for _, id := range ids {
		sk.InsertHash(xxh3.HashString(id))
	}
	n := sk.Estimate()
	b, err := sk.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b, int64(n)
}

func TestVisitorsDependOnTheSetOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{1, 2, 3, 70, 500, ExactVisitors, ExactVisitors + 1, 5_000, 9_000}).Draw(t, "visitors")
		seed := rapid.Uint64().Draw(t, "seed")
		rng := rand.New(rand.NewPCG(seed, 1))
		ids := make([]string, n)
		for i := range ids {
			ids[i] = "visitor-" + strconv.FormatUint(rng.Uint64(), 36)
		}
		build := func() *VisitorSet {
			// Each visitor comes at least once, in any order, in any of some parts, which go through their state form now and then.
			parts := make([]VisitorSet, 1+rng.IntN(6))
			for _, i := range rng.Perm(n) {
				for range 1 + rng.IntN(2) {
					parts[rng.IntN(len(parts))].Add(ids[i])
				}
			}
			for len(parts) > 1 {
				i := rng.IntN(len(parts) - 1)
				if rng.IntN(2) == 0 {
					parts[i].Count()
				}
				if rng.IntN(2) == 0 {
					var back VisitorSet
					if err := back.decode(parts[i].append(nil)); err != nil {
						t.Fatal(err)
					}
					parts[i] = back
				}
				if err := parts[i].Merge(&parts[len(parts)-1]); err != nil {
					t.Fatal(err)
				}
				parts = parts[:len(parts)-1]
			}
			return &parts[0]
		}
		a, b := build(), build()
		if !bytes.Equal(a.append(nil), b.append(nil)) {
			t.Fatal("the state of the same visitors differs")
		}
		sa, err := a.AppendSketch(nil)
		if err != nil {
			t.Fatal(err)
		}
		sb, err := b.AppendSketch(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(sa, sb) {
			t.Fatal("the sketches of the same visitors differ")
		}
		if a.Count() != b.Count() {
			t.Fatalf("the same visitors count %d and %d", a.Count(), b.Count())
		}
		want, estimate := sketchOf(t, ids)
		if !bytes.Equal(sa, want) {
			t.Fatalf("the sketch is not the library's: %d and %d bytes", len(sa), len(want))
		}
		switch {
		case n <= ExactVisitors && a.Count() != int64(n):
			t.Fatalf("%d visitors count %d", n, a.Count())
		case n > ExactVisitors && a.Count() != estimate:
			t.Fatalf("%d visitors count %d, the library says %d", n, a.Count(), estimate)
		}
		if off := float64(a.Count()-int64(n)) / float64(n); off > 0.04 || off < -0.04 {
			t.Fatalf("%d visitors are estimated as %d", n, a.Count())
		}
		half, err := MergeSketches(sa, nil, sb)
		if err != nil || half != estimate {
			t.Fatalf("merging a sketch with itself gives %d, %v, want %d", half, err, estimate)
		}
	})
}

func TestSparseKeysWithTrailingZerosAreTheLibrarys(t *testing.T) {
	// one visitor in 2,048 has a register number whose low 11 bits are zero; these are written otherwise
	rapid.Check(t, func(t *rapid.T) {
		var s VisitorSet
		sk := hyperloglog.New14()
		for range rapid.IntRange(1, 100).Draw(t, "n") {
			h := rapid.Uint64().Draw(t, "h")
			if rapid.Bool().Draw(t, "zeros") {
				h &^= (1<<11 - 1) << 39
			}
			s.add(h)
			sk.InsertHash(h)
		}
		sk.Estimate()
		want, err := sk.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.AppendSketch(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("got  %x\nwant %x", got, want)
		}
	})
}

func TestValuesSurviveTheirStateFormAndAddUpInAnyGrouping(t *testing.T) {
	names := []string{event.NamePageView, event.NameViewItem, event.NameSearch, event.NameAddToCart, event.NameBeginCheckout, event.NamePurchase, event.NameRefund, event.NameInventoryChange, "x"}
	rapid.Check(t, func(t *rapid.T) {
		var all Values
		parts := make([]Values, rapid.IntRange(1, 5).Draw(t, "parts"))
		for range rapid.IntRange(0, 40).Draw(t, "events") {
			e := &event.Event{Name: rapid.SampledFrom(names).Draw(t, "name"), VisitorID: rapid.StringMatching(`[abc]{0,2}`).Draw(t, "visitor")}
			if rapid.Bool().Draw(t, "value") {
				e.Value = ptr(rapid.Int64Range(-event.MaxAmount+1, event.MaxAmount-1).Draw(t, "micros"))
			}
			for range rapid.IntRange(0, 3).Draw(t, "lines") {
				e.Items = append(e.Items, event.Item{Price: ptr(rapid.Int64Range(0, event.MaxAmount).Draw(t, "price")), Quantity: rapid.Int64Range(-3, 1000).Draw(t, "quantity")})
			}
			if e.Name == event.NameInventoryChange {
				e.StockLevel = ptr(rapid.Int64Range(-1, 1).Draw(t, "level"))
			}
			p := &parts[rapid.IntRange(0, len(parts)-1).Draw(t, "part")]
			if rapid.Bool().Draw(t, "cart") {
				abandoned := rapid.Bool().Draw(t, "abandoned")
				all.AddCart(abandoned)
				p.AddCart(abandoned)
			}
			all.AddShop(e)
			p.AddShop(e)
			for i := range e.Items {
				all.AddLine(e, i, i == 0)
				p.AddLine(e, i, i == 0)
			}
		}
		sum := &Values{}
		for i := range parts {
			back, err := DecodeValues(parts[i].Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			if err := sum.Merge(back.Clone()); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(sum.Append(nil), all.Append(nil)) {
			t.Fatalf("parts add up to %+v, want %+v", sum, all)
		}
		var p, q event.KPIPartial
		if err := sum.Fill(&p); err != nil {
			t.Fatal(err)
		}
		if err := all.Fill(&q); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(p, q); d != "" {
			t.Fatal(d)
		}
	})
}

func TestACloneIsNotChangedWithTheOriginal(t *testing.T) {
	for _, n := range []int{3, ExactVisitors + 10} {
		var v Values
		for i := range n {
			v.AddShop(&event.Event{Name: "x", VisitorID: strconv.Itoa(i)})
		}
		c := v.Clone()
		before := c.Append(nil)
		for i := range n {
			v.AddShop(&event.Event{Name: "x", VisitorID: "other" + strconv.Itoa(i)})
		}
		if !bytes.Equal(c.Append(nil), before) {
			t.Errorf("a clone of %d visitors changed with its original", n)
		}
	}
}

func FuzzDecodeValues(f *testing.F) {
	var v Values
	v.AddShop(&event.Event{Name: event.NamePurchase, VisitorID: "v", Value: micros(2)})
	f.Add(v.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := DecodeValues(b)
		if err != nil {
			return
		}
		w, err := DecodeValues(v.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(v.Append(nil), w.Append(nil)) {
			t.Fatal("decoding what was encoded gives other values")
		}
	})
}

func TestRatios(t *testing.T) {
	var v Values
	for i := range 4 {
		v.AddShop(&event.Event{Name: event.NamePageView, VisitorID: strconv.Itoa(i)})
	}
	v.AddShop(&event.Event{Name: event.NamePurchase, VisitorID: "0", Value: ptr(129_900_000), Items: []event.Item{{Quantity: 3}}})
	v.AddShop(&event.Event{Name: event.NamePurchase, VisitorID: "1", Value: ptr(100_000_000)})
	for name, want := range map[string]float64{"aov": 114.95, "conversion": 0.5, "units_per_order": 1.5, "pages_per_visitor": 1} {
		r, ok := RatioNamed(name)
		if !ok {
			t.Fatalf("no ratio %s", name)
		}
		if got, ok := r.Of(&v); !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	r, _ := RatioNamed("aov")
	if got := r.SQL(); got != "toFloat64(sum(revenue)) / nullIf(sum(orders), 0)" {
		t.Error(got)
	}
	if _, ok := r.Of(&Values{}); ok {
		t.Error("no orders have an average value")
	}
}

func TestKeysSurviveTheirEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.SliceOfN(rapid.String(), 4, 4).Draw(t, "strings")
		k := ShopKey{s[0], s[1], s[2], s[3]}
		if got, err := DecodeShopKey(k.Append(nil)); err != nil || got != k {
			t.Fatalf("%v became %v, %v", k, got, err)
		}
		i := ItemsKey{s[0], s[1], s[2], s[3]}
		if got, err := DecodeItemsKey(i.Append(nil)); err != nil || got != i {
			t.Fatalf("%v became %v, %v", i, got, err)
		}
		if _, err := DecodeShopKey(append(k.Append(nil), 0)); err == nil {
			t.Fatal("a key with a tail was read")
		}
	})
}

func TestRowsHaveOneRecordKeyEach(t *testing.T) {
	base := event.KPIPartial{Family: "shop", Grain: "1m", Tenant: "t", WindowStart: 60, Currency: "USD", Country: "US", Device: "mobile"}
	changes := []func(*event.KPIPartial){
		func(*event.KPIPartial) {},
		func(p *event.KPIPartial) { p.Family = "items" }, func(p *event.KPIPartial) { p.Grain = "1h" }, func(p *event.KPIPartial) { p.Tenant = "u" },
		func(p *event.KPIPartial) { p.WindowStart = 120 }, func(p *event.KPIPartial) { p.Currency = "EUR" }, func(p *event.KPIPartial) { p.Country = "" },
		func(p *event.KPIPartial) { p.Device = "" }, func(p *event.KPIPartial) { p.ProductID = "p" }, func(p *event.KPIPartial) { p.ItemCategory = "p" },
		func(p *event.KPIPartial) { p.KafkaPartition = -1 },
	}
	seen := map[string]int{}
	for i, change := range changes {
		p := base
		change(&p)
		key := string(AppendRecordKey(nil, &p))
		if j, dup := seen[key]; dup {
			t.Errorf("rows %d and %d share a key", i, j)
		}
		seen[key] = i
		p.Events, p.Final = 7, true
		if string(AppendRecordKey(nil, &p)) != key {
			t.Errorf("the key of row %d depends on its values", i)
		}
	}
}

func TestConfigNamesEveryWrongZone(t *testing.T) {
	err := Config{TimeZones: map[string]string{"a": "Europe/Nowhere", "b": "Europe/Berlin", "c": "Local"}}.Validate()
	if err == nil || !strings.Contains(err.Error(), "time_zones.a") || !strings.Contains(err.Error(), "time_zones.c") || strings.Contains(err.Error(), "time_zones.b") {
		t.Error(err)
	}
}

func TestDaysOfATimeZone(t *testing.T) {
	for _, c := range []struct {
		name, zone, at, start string
		hours                 float64
	}{
		{"a plain day", "Europe/Berlin", "2026-02-10T12:00:00Z", "2026-02-09T23:00:00Z", 24},
		{"the day that loses an hour", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", 23},
		{"the day that gains an hour", "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", 25},
		{"half an hour's offset", "Asia/Kolkata", "2026-01-01T18:30:00Z", "2026-01-01T18:30:00Z", 24},
		{"midnight leapt over", "America/Sao_Paulo", "2018-11-04T05:00:00Z", "2018-11-04T03:00:00Z", 23},
		{"clocks set back at midnight to the day before", "America/Sao_Paulo", "2018-02-18T02:30:00Z", "2018-02-17T02:00:00Z", 25},
		{"midnight twice in a day", "America/Havana", "2025-11-02T05:30:00Z", "2025-11-02T04:00:00Z", 25},
		{"half an hour of daylight saving", "Australia/Lord_Howe", "2026-04-05T01:00:00Z", "2026-04-04T13:00:00Z", 24.5},
		{"set back a minute after midnight, after it", "America/St_Johns", "2006-10-29T03:00:00Z", "2006-10-29T02:30:00Z", 25},
		{"the day after a day that was left out", "Pacific/Apia", "2011-12-30T12:00:00Z", "2011-12-30T10:00:00Z", 24},
		{"UTC", "UTC", "2026-03-29T12:00:00Z", "2026-03-29T00:00:00Z", 24},
	} {
		d, err := New(Config{TimeZones: map[string]string{"t": c.zone}})
		if err != nil {
			t.Fatal(err)
		}
		at, start := instant(t, c.at), instant(t, c.start)
		gotStart, gotEnd := d.Window(Grains()[3], "t", at)
		if gotStart != start || gotEnd-gotStart != int64(c.hours*3600e6) {
			t.Errorf("%s: [%s, %s), want %s and %v h", c.name, event.Time(gotStart), event.Time(gotEnd), c.start, c.hours)
		}
	}
}

func instant(t *testing.T, s string) int64 {
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixMicro()
}

func TestDaysCoverTimeAndHoldWholeMinutes(t *testing.T) {
	zones := []string{"Europe/Berlin", "America/Sao_Paulo", "America/Havana", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo", "Asia/Kathmandu", "Pacific/Kiritimati", "UTC"}
	rapid.Check(t, func(t *rapid.T) {
		d, err := New(Config{TimeZones: map[string]string{"t": rapid.SampledFrom(zones).Draw(t, "zone")}})
		if err != nil {
			t.Fatal(err)
		}
		days := d.Days()
		at := rapid.Int64Range(event.MinOccurred, event.MinOccurred+45*365*dayUTC).Draw(t, "at")
		for range 30 {
			start, end := days.Of("t", at)
			if start > at || at >= end || start%60e6 != 0 || end%60e6 != 0 {
				t.Fatalf("%s is in [%s, %s)", event.Time(at), event.Time(start), event.Time(end))
			}
			if s, e := d.Window(Grains()[3], "t", end-1); s != start || e != end {
				t.Fatalf("the day [%s, %s) ends as [%s, %s)", event.Time(start), event.Time(end), event.Time(s), event.Time(e))
			}
			if s, _ := d.Window(Grains()[3], "t", end); s != end {
				t.Fatalf("after the day until %s comes one from %s", event.Time(end), event.Time(s))
			}
			at = end
		}
	})
}

func BenchmarkAppendSketch(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		var s VisitorSet
		for i := range n {
			s.Add(strconv.Itoa(i))
		}
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				var err error
				if buf, err = s.AppendSketch(buf[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(strconv.Itoa(n)+"/library", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sk := hyperloglog.New14()
				for _, h := range s.exact {
					sk.InsertHash(h)
				}
				sk.Estimate()
				if _, err := sk.MarshalBinary(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestAStockOutIsALevelThatReachesZero(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	for _, c := range []struct {
		name         string
		event        string
		level, delta *int64
		want         int64
	}{
		{"the last one is sold", event.NameInventoryChange, n(0), n(-1), 1},
		{"more than there were", event.NameInventoryChange, n(-2), n(-5), 1},
		{"it was so before", event.NameInventoryChange, n(-2), n(-2), 0},
		{"nothing has changed", event.NameInventoryChange, n(0), n(0), 0},
		{"a delivery that is not enough", event.NameInventoryChange, n(0), n(4), 0},
		{"a count says none", event.NameInventoryChange, n(0), nil, 1},
		{"some are left", event.NameInventoryChange, n(1), n(-1), 0},
		{"a change without a level", event.NameInventoryChange, nil, n(-1), 0},
		{"another event", "x", n(0), n(-1), 0},
	} {
		var v Values
		v.AddShop(&event.Event{Name: c.event, StockLevel: c.level, QuantityDelta: c.delta})
		if got := v.Count(StockOuts); got != c.want || v.Count(Events) != 1 {
			t.Errorf("%s: %d stock-outs, want %d", c.name, got, c.want)
		}
	}
}

func TestStateOfAnOlderVersionIsReadAsItWas(t *testing.T) {
	// Written before there were stock-outs and carts: an order of 2 units and 11.50, and a refund, of visitor v.
	old, err := hex.DecodeString("c10f0402040200000000000000000000000000af79e0fffffffffffffffffffffffffff0bdc0011407b83fe42b04f7")
	if err != nil {
		t.Fatal(err)
	}
	v, err := DecodeValues(old)
	if err != nil {
		t.Fatal(err)
	}
	var want Values
	want.AddShop(&event.Event{Name: event.NamePurchase, VisitorID: "v", Value: ptr(11_500_000), Items: []event.Item{{Quantity: 2}}})
	want.AddShop(&event.Event{Name: event.NameRefund, VisitorID: "v", Value: ptr(-1_000_000)})
	if !bytes.Equal(v.Append(nil), want.Append(nil)) || !bytes.Equal(want.Append(nil), old) {
		t.Errorf("%x is read as %x, want %x", old, v.Append(nil), want.Append(nil))
	}
	want.AddCart(true)
	want.AddCart(false)
	if want.Count(Carts) != 2 || want.Count(AbandonedCarts) != 1 || want.Count(Orders) != 1 {
		t.Errorf("%d carts, %d abandoned", want.Count(Carts), want.Count(AbandonedCarts))
	}
	now, err := DecodeValues(want.Append(nil))
	if err != nil || now.Count(Carts) != 2 || now.Count(AbandonedCarts) != 1 || now.Count(StockOuts) != 0 || now.Total(Revenue) != want.Total(Revenue) {
		t.Errorf("%+v: %v", now, err)
	}
}
