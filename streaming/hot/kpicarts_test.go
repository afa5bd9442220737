package hot

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
	"unique"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"millrace/event"
	"millrace/kpi"
	"millrace/streaming"
)

// cartCounts are the carts of a minute and a row.
type cartCounts struct{ carts, abandoned int64 }

func (r *rig) cartRows() map[string]cartCounts {
	r.Helper()
	out := map[string]cartCounts{}
	for _, p := range r.find("shop", "1m", anyRow) {
		if p.Carts != 0 || p.AbandonedCarts != 0 {
			out[fmt.Sprint(time.Duration(p.WindowStart-t0.UnixMicro())*time.Microsecond, " ", p.Tenant, " ", p.Currency, " ", p.Country)] = cartCounts{p.Carts, p.AbandonedCarts}
		}
	}
	return out
}

// moveOn moves event time on with events of nobody.
func (r *rig) moveOn(at time.Time) {
	r.Helper()
	for _, name := range []string{event.NamePageView, event.NameAddToCart, event.NameRefund} {
		r.sendAt(at, event.Event{Name: name, Tenant: "clock", OccurredAt: at.UnixMicro()})
	}
	r.settle()
}

func TestACartIsOrderedOrAbandoned(t *testing.T) {
	t.Parallel()
	type step struct {
		at   time.Duration
		name string
		in   string // currency
	}
	add, buy, m := event.NameAddToCart, event.NamePurchase, time.Minute
	for _, c := range []struct {
		name  string
		steps []step
		want  map[string]cartCounts
	}{
		{"ordered within half an hour of the last thing put into it", []step{{0, add, "USD"}, {20 * m, add, "EUR"}, {45 * m, buy, "EUR"}}, map[string]cartCounts{"45m0s default EUR DE": {1, 0}}},
		{"abandoned half an hour after the last thing put into it", []step{{0, add, "EUR"}, {20 * m, add, "EUR"}}, map[string]cartCounts{"50m0s default EUR DE": {1, 1}}},
		{"bought too late", []step{{0, add, "EUR"}, {31 * m, buy, "EUR"}}, map[string]cartCounts{"30m0s default EUR DE": {1, 1}}},
		{
			"one cart after another",
			[]step{{0, add, "EUR"}, {m, buy, "EUR"}, {2 * m, add, "EUR"}, {50 * m, add, "USD"}, {51 * m, buy, "USD"}},
			map[string]cartCounts{"1m0s default EUR DE": {1, 0}, "32m0s default EUR DE": {1, 1}, "51m0s default USD DE": {1, 0}},
		},
		{"bought without a cart", []step{{0, buy, "EUR"}}, map[string]cartCounts{}},
		{
			"what came last is taken in its turn",
			[]step{{1500 * time.Millisecond, buy, "EUR"}, {2 * time.Second, add, "EUR"}, {time.Second, add, "EUR"}},
			map[string]cartCounts{"0s default EUR DE": {1, 0}, "30m0s default EUR DE": {1, 1}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, option{})
			for i, s := range c.steps {
				at := t0.Add(s.at)
				r.sendAt(at.Add(2*time.Second), event.Event{Name: s.name, VisitorID: "v", OccurredAt: at.UnixMicro(), Currency: s.in, Country: "DE", OrderID: strconv.Itoa(i)})
				if i+1 == len(c.steps) || c.steps[i+1].at > s.at+time.Minute/2 {
					r.feed()
					r.commit()
				}
				if i == 1 {
					r.ok(r.h.Crash())
				}
			}
			for i := range time.Duration(6) {
				r.moveOn(t0.Add((i + 1) * time.Hour / 2))
			}
			if d := gocmp.Diff(c.want, r.cartRows(), gocmp.AllowUnexported(cartCounts{})); d != "" {
				t.Error(d)
			}
			if n := r.h.Operator().(*operator).jobs.owners[ownerCart].(*carts).store.Len(); n != 0 {
				t.Errorf("%d carts are kept", n)
			}
		})
	}
}

func TestACartThatEndedWithinALongSilenceIsCountedBehindIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	r.sendAt(t0, event.Event{Name: event.NameAddToCart, VisitorID: "v", OccurredAt: t0.UnixMicro(), Currency: "EUR", Country: "DE"})
	r.feed()
	r.commit()
	end := t0.Add(3*time.Hour + 30*time.Second)
	r.moveOn(end)
	r.sendAt(end, event.Event{Name: event.NameAddToCart, VisitorID: "too late", OccurredAt: t0.UnixMicro(), Currency: "EUR", Country: "DE"})
	r.moveOn(end.Add(30 * time.Minute))
	if d := gocmp.Diff(map[string]cartCounts{"3h0m0s default EUR DE": {1, 1}}, r.cartRows(), gocmp.AllowUnexported(cartCounts{})); d != "" {
		t.Error(d)
	}
}

// cartsByHand counts the carts of one visitor's steps.
func cartsByHand(steps []cartStep, after int64, count func(last cartStep, at int64, abandoned bool)) {
	slices.SortStableFunc(steps, func(a, b cartStep) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(strconv.FormatBool(a.purchase), strconv.FormatBool(b.purchase)))
	})
	for i, s := range steps {
		switch {
		case s.purchase:
		case i+1 < len(steps) && steps[i+1].at <= s.at+after && steps[i+1].purchase:
			count(s, steps[i+1].at, false)
		case i+1 < len(steps) && steps[i+1].at <= s.at+after: // the cart goes on
		default:
			count(s, s.at+after, true)
		}
	}
}

func TestCartsDependOnWhatHappenedOnly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		const after = 3 * time.Minute
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		r := newRig(t, option{cfg: func(c *Config) { c.Carts.AbandonedAfter = after }})
		type sent struct {
			e       event.Event
			arrival time.Time
		}
		var all []sent
		by := map[string][]cartStep{}
		for i := range rapid.IntRange(1, 120).Draw(rt, "steps") {
			// Times of a visitor are all different: which of two at a time came first is nobody's to know.
			at := t0.Add(time.Duration(rng.IntN(1200))*time.Second + time.Duration(i)*time.Millisecond)
			e := event.Event{ID: "s" + strconv.Itoa(i), Name: event.NameAddToCart, VisitorID: strconv.Itoa(rng.IntN(4)), OccurredAt: at.UnixMicro(), Currency: []string{"EUR", "USD"}[rng.IntN(2)], Country: "DE"}
			s := cartStep{at: e.OccurredAt, row: unique.Make(kpi.ShopKey{Tenant: "default", Currency: e.Currency, Country: e.Country})}
			if rng.IntN(3) == 0 {
				e.Name, e.OrderID, s.purchase = event.NamePurchase, e.ID, true
			}
			by[e.VisitorID] = append(by[e.VisitorID], s)
			all = append(all, sent{e, at.Add(time.Duration(rng.IntN(1900)) * time.Millisecond)})
		}
		slices.SortFunc(all, func(a, b sent) int { return a.arrival.Compare(b.arrival) })
		for _, s := range all {
			r.sendAt(s.arrival, s.e)
			switch rng.IntN(20) {
			case 0:
				r.feed()
				r.commit()
			case 1:
				r.feed()
				r.ok(r.h.Abort())
			case 2:
				r.ok(r.h.Crash())
			}
		}
		r.feed()
		r.moveOn(t0.Add(time.Hour))
		want := map[string]cartCounts{}
		for _, steps := range by {
			cartsByHand(steps, after.Microseconds(), func(last cartStep, at int64, abandoned bool) {
				k := last.row.Value()
				key := fmt.Sprint(event.Time(at).Truncate(time.Minute).Sub(t0), " ", k.Tenant, " ", k.Currency, " ", k.Country)
				n := want[key]
				n.carts++
				if abandoned {
					n.abandoned++
				}
				want[key] = n
			})
		}
		if d := gocmp.Diff(want, r.cartRows(), gocmp.AllowUnexported(cartCounts{})); d != "" {
			rt.Fatal(d)
		}
	})
}

func TestStockOutsAreCountedInTheirMinute(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	for i, level := range []int64{1, 0, 0} {
		r.send(event.Event{ID: strconv.Itoa(i), Name: event.NameInventoryChange, ItemID: "a", WarehouseID: "w", StockLevel: &level, QuantityDelta: new([]int64{-1, -1, 0}[i])})
	}
	r.settle()
	rows := r.find("shop", "1m", anyRow)
	if len(rows) != 1 || rows[0].StockOuts != 1 || rows[0].Events != 3 {
		t.Errorf("%+v", rows)
	}
}

func FuzzCarts(f *testing.F) {
	row := unique.Make(kpi.ShopKey{Tenant: "t", Currency: "EUR", Country: "DE", Device: "mobile"})
	f.Add(cartCodec{}.Append(nil, cart{first: 5, last: 9, row: row, timer: 70, waiting: []cartStep{{at: 10, row: row}, {at: 11, purchase: true}}}))
	f.Add(cartCodec{}.Append(nil, cart{waiting: []cartStep{{at: 11, purchase: true}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := cartCodec{}.Decode(data)
		if err != nil {
			return
		}
		text := cartCodec{}.Append(nil, v)
		again, err := cartCodec{}.Decode(text)
		if err != nil || !bytes.Equal(text, cartCodec{}.Append(nil, again)) {
			t.Errorf("%+v: %v", v, err)
		}
	})
}

// BenchmarkCarts is what a job over all events costs beside the rest: a put into a cart or a purchase in seven events.
func BenchmarkCarts(b *testing.B) {
	codecs, err := testCodecs()
	if err != nil {
		b.Fatal(err)
	}
	defs, err := kpi.New(kpi.Config{})
	if err != nil {
		b.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Dir = b.TempDir()
	top, err := Topology(cfg, 4, codecs, defs, prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	h, err := streaming.NewHarness(streaming.Config{}, top, testPartition, t0)
	if err != nil {
		b.Fatal(err)
	}
	job := h.Operator().(*operator).jobs.owners[ownerCart].(*carts)
	g := newTraffic(codecs)
	dec := codecs.NewEventDecoder()
	events := make([]event.Event, 20_000)
	for i := range events {
		in, r := g.next()
		if _, err := dec.DecodeRaw(b.Context(), event.Category(in), r.Value, &events[i]); err != nil {
			b.Fatal(err)
		}
		events[i].Items, events[i].IngestedAt = nil, events[i].OccurredAt
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if err := job.event(&events[n%len(events)], nil); err != nil {
			b.Fatal(err)
		}
		n++
		if n%5000 == 0 {
			b.StopTimer()
			if _, err := h.Commit(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	}
}
