package hot

import (
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/event"
	"millrace/streaming"
)

// ids gives the session of each stored event, by event id, for all categories.
func (r *rig) sessions() map[string]string {
	r.Helper()
	out := map[string]string{}
	for _, cat := range event.Categories() {
		for _, rec := range r.h.Outputs(cat.EventsTopic()) {
			var e event.Event
			if err := r.dec.DecodeEnriched(r.Context(), cat, rec.Value, &e); err != nil {
				r.Fatal(err)
			}
			out[e.ID] = e.SessionID
		}
	}
	return out
}

// served is the last session of a visitor that was written for Redis.
func (r *rig) served(visitor string) (s Session) {
	r.Helper()
	for _, rec := range r.h.Outputs(event.TopicLiveUpdates) {
		var u event.LiveUpdate
		if err := r.codecs.Decode(r.Context(), rec.Topic, rec.Value, &u); err != nil {
			r.Fatal(err)
		}
		if u.Key == SessionKey("default", visitor) {
			if err := json.Unmarshal(u.Value, &s); err != nil {
				r.Fatal(err)
			}
		}
	}
	return s
}

func TestASessionEndsWithSilenceWithAnotherCampaignAndWithItsDay(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	at := t0.UnixMicro()
	minute := time.Minute.Microseconds()
	send := func(id string, minutes int64, change func(*event.Event)) {
		e := event.Event{ID: id, VisitorID: "v", OccurredAt: at + minutes*minute, PagePath: "/" + id}
		if change != nil {
			change(&e)
		}
		r.send(e)
	}
	from := func(campaign string) func(*event.Event) {
		return func(e *event.Event) { e.CampaignSource, e.CampaignMedium = campaign, "cpc" }
	}
	send("a", 0, from("ads"))
	send("b", 29, nil)
	send("c", 58, from("ads")) // the same campaign again
	send("d", 60, from("mail"))
	send("e", 61, nil)
	send("late", 40, nil) // within the gap of the new session: that is the visitor's now
	send("older", 5, nil) // of one that is no longer known
	send("nobody", 61, func(e *event.Event) { e.VisitorID, e.UserID = "", "u" })
	send("f", 92, nil)
	send("other", 92, func(e *event.Event) { e.VisitorID = "w" })
	r.feed()
	r.commit()
	got := r.sessions()
	for _, want := range []struct {
		a, b string
		same bool
	}{{"a", "b", true}, {"b", "c", true}, {"c", "d", false}, {"d", "e", true}, {"d", "late", true}, {"e", "f", false}, {"f", "other", false}} {
		if (got[want.a] == got[want.b]) != want.same || got[want.a] == "" {
			t.Errorf("sessions of %s and %s: %q and %q, want the same: %v", want.a, want.b, got[want.a], got[want.b], want.same)
		}
	}
	if got["older"] != "" || got["nobody"] != "" {
		t.Errorf("older %q, nobody %q", got["older"], got["nobody"])
	}
}

func TestTheCurrentSessionOfAVisitorIsWrittenForRedis(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	at := t0.UnixMicro()
	for i, name := range []string{event.NamePageView, event.NameViewItem, event.NameAddToCart} {
		r.send(event.Event{VisitorID: "v", Name: name, OccurredAt: at + int64(i)*1e6, Country: "DE", DeviceType: "mobile", PagePath: "/" + name, CampaignSource: "ads"})
	}
	r.feed()
	r.advance(2 * time.Second)
	r.commit()
	s := r.served("v")
	if s.ID == "" || s.OpenCart != true {
		t.Fatalf("served %+v", s)
	}
	id := s.ID
	r.send(event.Event{VisitorID: "v", Name: event.NamePurchase, OccurredAt: at + 5e6, OrderID: "o", Currency: "EUR", Value: micros(5)})
	r.feed()
	r.advance(2 * time.Second)
	r.ok(r.h.Abort())
	r.feed()
	r.advance(2 * time.Second)
	r.commit()
	want := Session{
		ID: id, Tenant: "default", VisitorID: "v", StartedAt: "2026-03-10T12:00:00.000000Z", LastAt: "2026-03-10T12:00:05.000000Z", EndsAt: "2026-03-10T12:30:05.000000Z",
		Events: 4, PageViews: 1, ItemViews: 1, CartAdds: 1, Orders: 1, Country: "DE", Device: "mobile", Entry: "/page_view", Path: "/add_to_cart", Source: "ads",
	}
	if diff := cmp.Diff(want, r.served("v")); diff != "" {
		t.Error(diff)
	}
}

func TestSessionsThatEndedAreForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	for i := range 200 {
		r.send(event.Event{VisitorID: "v" + string(rune('a'+i%26)) + string(rune('a'+i/26)), OccurredAt: t0.UnixMicro() + int64(i)*1e6})
	}
	r.feed()
	r.commit()
	store := func() int { return opOf(r).sessions.store.Len() }
	if store() != 200 {
		t.Fatalf("%d sessions", store())
	}
	r.ok(r.h.Crash())
	r.sendAt(t0.Add(2*time.Hour), event.Event{VisitorID: "last", OccurredAt: t0.Add(2 * time.Hour).UnixMicro()})
	r.feed()
	r.advance(2 * time.Second) // the other inputs are silent
	r.commit()
	if store() != 1 {
		t.Errorf("%d sessions are left", store())
	}
}

// Whatever is aborted, read again or restored, each event keeps the session that it has without.
func TestSessionsDoNotDependOnCrashes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		type step struct {
			visitor string
			after   int64
			source  string
			end     int
		}
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				visitor: rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "visitor"), after: rapid.Int64Range(-5, 40).Draw(rt, "minutes"),
				source: rapid.SampledFrom([]string{"", "", "ads", "mail"}).Draw(rt, "source"), end: rapid.IntRange(0, 4).Draw(rt, "end"),
			}
		}), 1, 25).Draw(rt, "steps")
		run := func(trouble bool) map[string]string {
			r := newRig(t, option{})
			at := t0.UnixMicro()
			for _, s := range steps {
				at += s.after * time.Minute.Microseconds()
				r.send(event.Event{VisitorID: s.visitor, OccurredAt: at, CampaignSource: s.source})
				r.feed()
				if !trouble {
					r.commit()
					continue
				}
				switch s.end {
				case 0:
					r.ok(r.h.Abort())
					r.feed()
				case 1:
					r.commit()
					r.ok(r.h.Crash())
				case 2:
					r.commit()
				}
			}
			r.commit()
			return r.sessions()
		}
		if diff := cmp.Diff(run(false), run(true)); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func FuzzSessionState(f *testing.F) {
	f.Add(sessionCodec{}.Append(nil, session{start: 5, last: 9, timer: 12, events: 3, country: "DE", path: "/"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := sessionCodec{}.Decode(b)
		if err != nil {
			return
		}
		again, err := sessionCodec{}.Decode(sessionCodec{}.Append(nil, v))
		if err != nil || again != v {
			t.Fatalf("%+v became %+v: %v", v, again, err)
		}
	})
}

// opOf is the operator of the task as it is now.
func opOf(r *rig) *operator { return r.h.Operator().(*operator) }

func TestAServedSessionIsWrittenAsEncodingJSONWould(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := func(name string) string {
			return rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "DE", "/a?b=1&c=<d>", "\xff\"\\\u2028"})).Draw(rt, name)
		}
		number := func(name string) uint32 { return rapid.Uint32().Draw(rt, name) }
		at := rapid.Int64Range(0, 4e15)
		v := session{
			start: at.Draw(rt, "start"), last: at.Draw(rt, "last"), events: number("events"), views: number("views"), items: number("items"), carts: number("carts"), checkouts: number("checkouts"), orders: number("orders"),
			source: text("source"), medium: text("medium"), name: text("name"), country: text("country"), device: text("device"), entry: text("entry"), path: text("path"), cart: rapid.SampledFrom([]int64{0, 1}).Draw(rt, "cart"),
		}
		copy(v.id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "id"))
		tenant, visitor, ends := text("tenant"), text("visitor"), at.Draw(rt, "ends")
		stamp := func(us int64) string { return event.Time(us).Format("2006-01-02T15:04:05.000000Z") }
		want, err := json.Marshal(Session{
			ID: hex.EncodeToString(v.id[:]), Tenant: tenant, VisitorID: visitor, StartedAt: stamp(v.start), LastAt: stamp(v.last), EndsAt: stamp(ends),
			Events: v.events, PageViews: v.views, ItemViews: v.items, CartAdds: v.carts, Checkouts: v.checkouts, Orders: v.orders, OpenCart: v.cart != 0,
			Country: v.country, Device: v.device, Entry: v.entry, Path: v.path, Source: v.source, Medium: v.medium, Campaign: v.name,
		})
		if err != nil {
			rt.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(v.appendJSON(nil, tenant, visitor, ends))); d != "" {
			rt.Fatal(d)
		}
	})
}

// What sessions cost for each event of a shop's traffic, a transaction for each thousand.
func BenchmarkSessions(b *testing.B) {
	codecs, err := testCodecs()
	if err != nil {
		b.Fatal(err)
	}
	g := newTraffic(codecs)
	dec := codecs.NewEventDecoder()
	events := make([]event.Event, 50_000)
	for i := range events {
		in, rec := g.next()
		if _, err := dec.DecodeRaw(b.Context(), event.Category(in), rec.Value, &events[i]); err != nil {
			b.Fatal(err)
		}
	}
	var s *sessions
	top := streaming.Topology{Name: "hot", Stage: "bench", Inputs: []string{"in"}, Partitions: 1, Stores: []streaming.StoreSpec{{ID: storeSessions, Name: "sessions", Format: 1}}, New: func(t *streaming.Task) (streaming.Operator, error) {
		s = newSessions(t, DefaultSessionConfig(), codecs)
		return jobOperator{s}, nil
	}}
	h, err := streaming.NewHarness(streaming.Config{}, top, 0, t0)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	n, start := 0, cpu(b)
	defer func() { b.ReportMetric(float64((cpu(b)-start).Nanoseconds())/float64(n), "cpu-ns/event") }()
	for b.Loop() {
		s.assign(&events[n%len(events)])
		if n++; n%1000 == 0 {
			if err := h.Advance(100 * time.Millisecond); err != nil {
				b.Fatal(err)
			}
			if _, err := h.Commit(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
