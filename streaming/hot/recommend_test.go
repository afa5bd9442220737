package hot

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"millrace/event"
	"millrace/features/recommend"
	"millrace/streaming"
)

// shownLive is what Redis holds of recommendations in the end.
type shownLive struct {
	lists   map[string]map[string]recommend.List // by field's beginning and item
	popular map[string]recommend.Ranked          // by key
	recent  map[string][]string                  // by key
}

func (r *rig) shown() shownLive {
	r.Helper()
	out := shownLive{map[string]map[string]recommend.List{event.TogetherViews: {}, event.TogetherOrders: {}}, map[string]recommend.Ranked{}, map[string][]string{}}
	for _, u := range decodeAll[event.LiveUpdate](r, event.TopicLiveUpdates) {
		kind, name, _ := strings.Cut(u.Key, ":{"+u.Tenant+"|")
		name = strings.TrimSuffix(name, "}")
		switch kind {
		case "rl":
			field := u.Field[:strings.IndexByte(u.Field, ':')+1]
			if u.Field != field+strconv.Itoa(testPartition) {
				r.Fatalf("field %s", u.Field)
			}
			l, err := recommend.DecodeList(u.Value)
			r.ok(err)
			out.lists[field][name] = l
		case "rp":
			v, rest, err := recommend.DecodeRanked(u.Value)
			r.ok(err)
			if len(rest) > 0 || u.Field != strconv.Itoa(testPartition) {
				r.Fatalf("%d bytes too many in field %s", len(rest), u.Field)
			}
			out.popular[name] = v
		case "rv":
			items, err := event.DecodeRecent(u.Value)
			r.ok(err)
			out.recent[name] = nil
			for _, x := range items {
				out.recent[name] = append(out.recent[name], x.Item)
			}
		}
	}
	return out
}

func (r *rig) view(visitor, item string, at time.Time) {
	arrival := r.h.Now()
	if at.After(arrival) {
		arrival = at
	}
	r.sendAt(arrival, event.Event{Name: event.NameViewItem, VisitorID: visitor, Country: "DE", OccurredAt: at.UnixMicro(), Items: []event.Item{{ItemID: item, ItemCategory: "Kitchen", Quantity: 1}}})
}

func TestTheItemsOfAVisitorsSessionAreServed(t *testing.T) {
	r := newRig(t, option{})
	for i, item := range []string{"a", "b", "a", "c"} {
		r.view("v", item, t0.Add(time.Duration(i)*time.Second))
	}
	r.view("v", "old", t0.Add(-time.Hour)) // of a session that is over
	for i := range 12 {
		r.view("w", fmt.Sprintf("i%d", i), t0.Add(time.Duration(i)*time.Second))
	}
	r.settle()
	got := r.shown().recent
	want := map[string][]string{"v": {"c", "a", "b"}, "w": {"i11", "i10", "i9", "i8", "i7", "i6", "i5", "i4"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	r.view("v", "x", t0.Add(2*time.Hour)) // another session; that of w is over
	r.settle()
	r.view("other", "y", t0.Add(2*time.Hour+time.Minute))
	r.settle()
	if got := r.shown().recent["v"]; !slices.Equal(got, []string{"x"}) {
		t.Errorf("%v", got)
	}
	state := map[string]bool{}
	for _, rec := range r.h.Outputs("state.hot.visitor") {
		if rec.Key[1] == storeRecent {
			state[string(rec.Key[2:])] = rec.Value != nil
		}
	}
	if d := cmp.Diff(map[string]bool{"default\x1fv": true, "default\x1fw": false, "default\x1fother": true}, state); d != "" {
		t.Errorf("state of visitors: %s", d)
	}
}

func TestAShareOfTheVisitorsIsLearntFrom(t *testing.T) {
	r := newRig(t, option{cfg: func(c *Config) { c.Recommend.Share = 0.25 }})
	for i := range 400 {
		r.view("v"+strconv.Itoa(i), "a", t0)
	}
	r.feed()
	r.advance(30 * time.Second)
	r.commit()
	shown := r.shown()
	all := shown.popular["all|"]
	if n := all.Top(1, all.Newest(), 72*time.Hour)[0].Score; n < 60 || n > 140 || len(shown.recent) != 400 {
		t.Errorf("%g of 400 looks are learnt from, the sessions of %d visitors are served", n, len(shown.recent))
	}
}

func TestWhatIsPopularIsKnownByCategoryAndCountry(t *testing.T) {
	r := newRig(t, option{})
	buy := func(item, category, country string, n int) {
		for range n {
			r.send(event.Event{Name: event.NamePurchase, VisitorID: "v", Country: country, Items: []event.Item{{ItemID: item, ItemCategory: category, Quantity: 1}}})
		}
	}
	buy("mug", "Kitchen", "DE", 3)
	buy("pan", "Kitchen", "FR", 5)
	buy("ball", "Toys", "DE", 4)
	r.view("w", "mug", t0)
	r.feed()
	r.advance(30 * time.Second)
	r.commit()
	got := map[string][]string{}
	for k, v := range r.shown().popular {
		for _, n := range v.Top(5, v.Newest(), 72*time.Hour) {
			got[k] = append(got[k], fmt.Sprintf("%s %.0f", n.Item, n.Score))
		}
	}
	want := map[string][]string{
		"all|": {"pan 25", "ball 20", "mug 16"}, "category|Kitchen": {"pan 25", "mug 16"}, "category|Toys": {"ball 20"}, "country|DE": {"ball 20", "mug 16"}, "country|FR": {"pan 25"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestItemsOfOneOrderGoTogether(t *testing.T) {
	r := newRig(t, option{})
	for i := range 20 {
		items := []event.Item{{ItemID: "phone", Quantity: 1}, {ItemID: "case", Quantity: 1}}
		if i%4 == 0 {
			items = append(items, event.Item{ItemID: "bag", Quantity: 1})
		}
		r.send(event.Event{Name: event.NamePurchase, VisitorID: "v" + strconv.Itoa(i), Items: items})
		r.send(event.Event{Name: event.NamePurchase, VisitorID: "w" + strconv.Itoa(i), Items: []event.Item{{ItemID: "bag", Quantity: 1}, {ItemID: fmt.Sprintf("x%d", i), Quantity: 1}}})
	}
	r.feed()
	r.advance(30 * time.Second)
	r.commit()
	l := r.shown().lists[event.TogetherOrders]["phone"]
	got := recommend.Merge([]recommend.List{l}, l.At, recommend.DefaultOnline())
	// 40 orders, 20 of phones, 20 of cases: together twice as often as by chance. The bag comes with everything: 5·40/(20·25) is less than by chance.
	if len(got) != 1 || got[0].Item != "case" || got[0].Lift < 1.99 || got[0].Lift > 2.01 || got[0].Score < 0.86 || got[0].Score > 0.88 {
		t.Errorf("%+v of %+v", got, l)
	}
}

// plantedSession is what one visitor looks at, one item after the other.
type plantedSession struct{ items []string }

// planted makes sessions of a shop whose items come in sets of five: who looks at one of a set looks at others of it, and else at what sells best. The sets of the last
// share of the catalogue are new: they appear with day fresh.
func planted(seed uint64, sessions, items int, fresh bool) []plantedSession {
	r := rand.New(rand.NewPCG(seed, 4))
	known := items * 4 / 5
	pick := func() int {
		if fresh && r.Float64() < 0.3 {
			return known + r.IntN(items-known)
		}
		u := r.Float64()
		return int(u * u * float64(known))
	}
	out := make([]plantedSession, sessions)
	for i := range out {
		set := pick() / 5 * 5
		for range 4 + r.IntN(4) {
			item := set + r.IntN(5)
			if r.Float64() < 0.3 {
				item = pick()
			}
			out[i].items = append(out[i].items, fmt.Sprintf("sku-%04d", item))
		}
	}
	return out
}

// What the night knows, what the stream has learnt since, and both, against what is popular, on sessions that neither has seen: two items are given, the others are asked
// for.
func TestRecommendationsFindMoreThanWhatIsPopularOnHeldBackSessions(t *testing.T) {
	const items = 2000
	before, today, heldBack := planted(1, 3000, items, false), planted(2, 4000, items, true), planted(3, 1000, items, true)
	params := recommend.DefaultParams()
	c := recommend.NewCollector(params)
	for i, s := range before {
		for n, item := range s.items {
			if err := c.Add("v"+strconv.Itoa(i), item, recommend.View, t0.Add(-24*time.Hour).UnixMicro()+int64(i*1000+n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	model, _, err := c.Train(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	night := map[string][]recommend.Neighbour{}
	if err := model.Each(func(item string, ns []recommend.Neighbour) error { night[item] = ns; return nil }); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, option{})
	for i, s := range today {
		for n, item := range s.items {
			r.view("t"+strconv.Itoa(i), item, t0.Add(time.Duration(i)*20*time.Millisecond+time.Duration(n)*time.Second))
		}
		if i%200 == 199 {
			r.feed()
			r.advance(4 * time.Second)
			r.commit()
		}
	}
	r.feed()
	r.advance(time.Minute)
	r.commit()
	shown := r.shown()
	popular := shown.popular["all|"]
	most := popular.Top(100, popular.Newest(), recommend.DefaultOnline().HalfLife)
	nightly := func(item string) []recommend.Neighbour { return night[item] }
	merged := map[string][]recommend.Neighbour{}
	for item, l := range shown.lists[event.TogetherViews] {
		for _, s := range recommend.Merge([]recommend.List{l}, l.At, recommend.DefaultOnline()) {
			merged[item] = append(merged[item], recommend.Neighbour{Item: s.Item, Score: s.Score})
		}
	}
	streamed := func(item string) []recommend.Neighbour { return merged[item] }
	top := params.Top
	fill := func(have []recommend.Neighbour, list []recommend.Neighbour) []recommend.Neighbour {
		for _, p := range most {
			same := func(n recommend.Neighbour) bool { return n.Item == p.Item }
			if len(list) < top && !slices.ContainsFunc(list, same) && !slices.ContainsFunc(have, same) {
				list = append(list, p)
			}
		}
		return list
	}
	recall, coverage := map[string]float64{}, map[string]float64{}
	for name, sources := range map[string][]func(string) []recommend.Neighbour{"popular": nil, "night": {nightly}, "stream": {streamed}, "both": {nightly, streamed}} {
		seen, tested := map[string]bool{}, 0.0
		for _, s := range heldBack {
			have := []recommend.Neighbour{{Item: s.items[1], Score: 1}, {Item: s.items[0], Score: 0.5}}
			want := map[string]bool{}
			for _, item := range s.items[2:] {
				want[item] = item != s.items[0] && item != s.items[1]
			}
			found, asked := 0, 0
			for _, n := range fill(have, recommend.Blend(have, top, sources...)) {
				seen[n.Item] = true
				if want[n.Item] {
					found++
				}
			}
			for _, w := range want {
				if w {
					asked++
				}
			}
			if asked > 0 {
				tested++
				recall[name] += float64(found) / float64(min(asked, top))
			}
		}
		recall[name] /= tested
		coverage[name] = float64(len(seen)) / items
	}
	for _, name := range []string{"popular", "night", "stream", "both"} {
		t.Logf("%-8s recall@%d %.4f, coverage %.4f", name, top, recall[name], coverage[name])
	}
	if recall["both"] < 5*recall["popular"] || recall["both"] < recall["night"]*1.1 || recall["both"] < recall["stream"] || coverage["both"] < 10*coverage["popular"] {
		t.Errorf("recall %v, coverage %v", recall, coverage)
	}
}

// Whatever aborts and crashes there are, what is known in the end is the same.
func TestRecommendationsEndTheSameWhateverHappensOnTheWay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		play := func(faults bool) map[string]string {
			rng := rand.New(rand.NewPCG(seed, 2))
			r := newRig(t, option{})
			for i := range 60 {
				at := t0.Add(time.Duration(i) * time.Second)
				if item := fmt.Sprintf("i%d", rng.IntN(6)); rng.IntN(6) == 0 {
					r.sendAt(at, event.Event{ID: fmt.Sprintf("e%d", i), Name: event.NamePurchase, VisitorID: "v", OccurredAt: at.UnixMicro(), Items: []event.Item{{ItemID: item, Quantity: 1}, {ItemID: "z", Quantity: 1}}})
				} else {
					r.sendAt(at, event.Event{ID: fmt.Sprintf("e%d", i), Name: event.NameViewItem, VisitorID: fmt.Sprintf("v%d", rng.IntN(3)), OccurredAt: at.UnixMicro(), Items: []event.Item{{ItemID: item, ItemCategory: "c", Quantity: 1}}})
				}
				if !faults {
					continue
				}
				switch rapid.IntRange(0, 11).Draw(rt, "what") {
				case 0:
					r.feed()
					r.commit()
				case 1:
					r.feed()
					r.advance(11 * time.Second)
					r.ok(r.h.Abort())
				case 2:
					r.feed()
					r.ok(r.h.Crash())
				case 3:
					r.feed()
					r.advance(11 * time.Second)
				}
			}
			r.feed()
			r.advance(30 * time.Second)
			r.commit()
			state := map[string]string{}
			for _, rec := range r.h.Outputs("state.hot.visitor") {
				if id := rec.Key[1]; rec.Key[0] == 0 && id >= storeTogether && id <= storeRecent {
					state[string(rec.Key)] = string(rec.Value)
				}
			}
			shown := r.shown()
			if len(shown.lists[event.TogetherOrders]) == 0 || len(shown.recent) != 3 || len(shown.popular) == 0 {
				rt.Fatalf("little is served: %+v", shown)
			}
			return state
		}
		if d := cmp.Diff(play(false), play(true)); d != "" {
			rt.Fatal(d)
		}
	})
}

// jobOperator runs one job alone.
type jobOperator struct{ job }

func (jobOperator) Process(int, *kgo.Record) error   { return nil }
func (o jobOperator) Timer(tm streaming.Timer) error { return o.timer(tm) }
func (o jobOperator) Tick(now time.Time) error       { return o.tick(now) }
func (o jobOperator) BeforeCommit() error            { return o.beforeCommit() }
func (o jobOperator) Committed()                     { o.committed() }
func (o jobOperator) Aborted()                       { o.aborted() }

// What learning costs for each event of a shop's traffic, a transaction for each thousand, and for each look at an item.
func BenchmarkTogether(b *testing.B) {
	codecs, err := testCodecs()
	if err != nil {
		b.Fatal(err)
	}
	for _, looks := range []bool{false, true} {
		b.Run(map[bool]string{false: "traffic", true: "looks alone"}[looks], func(b *testing.B) {
			g := newTraffic(codecs)
			dec := codecs.NewEventDecoder()
			var events []event.Event
			for len(events) < 50_000 {
				in, rec := g.next()
				var e event.Event
				if _, err := dec.DecodeRaw(b.Context(), event.Category(in), rec.Value, &e); err != nil {
					b.Fatal(err)
				}
				e.IngestedAt = e.OccurredAt
				if !looks || e.Name == event.NameViewItem {
					events = append(events, e)
				}
			}
			var g2 *together
			top := streaming.Topology{Name: "hot", Stage: "bench", Inputs: []string{"in"}, Partitions: 1, Stores: recommendStores(), New: func(t *streaming.Task) (streaming.Operator, error) {
				g2 = newTogether(t, DefaultRecommendConfig(), codecs)
				return jobOperator{g2}, nil
			}}
			h, err := streaming.NewHarness(streaming.Config{}, top, 0, t0)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			n, start := 0, cpu(b)
			defer func() { b.ReportMetric(float64((cpu(b)-start).Nanoseconds())/float64(n), "cpu-ns/event") }()
			for b.Loop() {
				if err := g2.event(&events[n%len(events)], nil); err != nil {
					b.Fatal(err)
				}
				if n++; n%1000 == 0 {
					if err := h.Advance(100 * time.Millisecond); err != nil {
						b.Fatal(err)
					}
					if _, err := h.Commit(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
