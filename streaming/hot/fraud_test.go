package hot

import (
	"encoding/json"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"millrace/event"
	"millrace/features/rules"
	"millrace/streaming"
)

// watch gives a rig whose provisional alerts are collected.
func watch(t testing.TB, source *Rules, out *[]event.Alert) *rig {
	return newRig(t, option{cfg: func(c *Config) {
		c.Fraud.Rules = source
		c.Fraud.Fast = func(a *event.Alert) {
			b := *a
			b.Key, b.Tenant, b.TriggerEventID, b.Details = strings.Clone(a.Key), strings.Clone(a.Tenant), strings.Clone(a.TriggerEventID), strings.Clone(a.Details)
			*out = append(*out, b)
		}
	}})
}

// pay is a payment with a card.
func pay(id, visitor, card string, at time.Time) event.Event {
	return event.Event{ID: id, Name: event.NameAddPaymentInfo, VisitorID: visitor, CardFingerprint: card, Currency: "EUR", Value: micros(3), OccurredAt: at.UnixMicro(), Country: "DE", IPHash: "ip", Properties: `{"declined":true}`}
}

// pass lets the watermark pass everything up to now: time goes on, and somebody else does something.
func (r *rig) pass() {
	r.Helper()
	r.settle()
	r.advance(30 * time.Second)
	r.send(event.Event{VisitorID: "somebody else", OccurredAt: r.h.Now().UnixMicro()})
	r.settle()
}

// arrive sends an event at the time at which it happens.
func (r *rig) arrive(e event.Event) {
	e.ReceivedAt = e.OccurredAt
	r.sendAt(event.Time(e.OccurredAt), e)
}

func (r *rig) alerts() []event.Alert { return decodeAll[event.Alert](r, event.TopicAlerts) }

func ids(alerts []event.Alert) (out []string) {
	for _, a := range alerts {
		out = append(out, a.AlertID)
	}
	slices.Sort(out)
	return out
}

func TestCardTestingIsToldOnArrivalAndOnceTheWatermarkHasPassed(t *testing.T) {
	t.Parallel()
	var fast []event.Alert
	r := watch(t, nil, &fast)
	for i := range 6 {
		r.arrive(pay("p"+strconv.Itoa(i), "v", "card"+strconv.Itoa(i), t0.Add(time.Duration(i)*time.Second)))
	}
	r.feed()
	r.commit()
	if len(fast) != 1 || fast[0].Rule != "card-testing" || fast[0].TriggerEventID != "p3" || fast[0].Confirmed {
		t.Fatalf("on arrival: %+v, want card-testing at the fourth card", fast)
	}
	if got := r.alerts(); len(got) != 0 && r.h.Task().Watermark() <= t0.Add(3*time.Second).UnixMicro() {
		t.Errorf("confirmed before the watermark: %+v", got)
	}
	r.pass()
	got := r.alerts()
	if len(got) != 1 || got[0].AlertID != fast[0].AlertID || !got[0].Confirmed || got[0].Entity != event.EntityVisitor || got[0].Key != "v" || got[0].Severity != event.SeverityCritical {
		t.Fatalf("confirmed: %+v, want the one told on arrival", got)
	}
	if len(got[0].Reasons) == 0 || got[0].Reasons[0] != "4 cards or refusals within 30m by one visitor" {
		t.Errorf("reasons %q", got[0].Reasons)
	}
	if n := r.metric("millrace_fraud_alerts_total"); n != 1 {
		t.Errorf("%v alerts are counted as confirmed, want 1", n)
	}
}

func TestWhatOnlyArrivalShowsIsNotConfirmed(t *testing.T) {
	t.Parallel()
	var fast []event.Alert
	r := watch(t, nil, &fast)
	sent := func(id string, after time.Duration, name string) {
		e := event.Event{ID: id, Name: name, VisitorID: "v", OccurredAt: t0.Add(after).UnixMicro(), Currency: "EUR", Value: micros(1)}
		e.ReceivedAt = t0.Add(3 * time.Second).UnixMicro()
		r.sendAt(t0.Add(3*time.Second), e)
		r.feed()
	}
	sent("cart", 2*time.Second, event.NameAddToCart)
	sent("order", 3*time.Second, event.NamePurchase)
	sent("earlier cart", time.Second-time.Millisecond*600, event.NameAddToCart) // the first one: the order came 2.6 s after it
	r.pass()
	if len(fast) != 1 || fast[0].Rule != "instant-checkout" || fast[0].TriggerEventID != "order" {
		t.Fatalf("on arrival: %+v", fast)
	}
	if got := r.alerts(); len(got) != 0 {
		t.Errorf("confirmed: %+v, though it took 2.6 s from the first cart to the order", got)
	}
	if n := r.metric("millrace_fraud_unconfirmed_total"); n != 1 {
		t.Errorf("%v are counted as unconfirmed, want 1", n)
	}
}

// TestTheSameAlertsWhateverTheBatchesAndCrashes: the set of confirmed alerts is that of an undisturbed run.
func TestTheSameAlertsWhateverTheBatchesAndCrashes(t *testing.T) {
	t.Parallel()
	var want []string
	run := func(t testing.TB, step func() int, disturb func() int) []string {
		var fast []event.Alert
		r := watch(t, nil, &fast)
		n := 0
		for i := 0; i < 120; {
			for k := step(); k > 0 && i < 120; k-- {
				visitor := "v" + strconv.Itoa(i*7%5)
				r.sendAt(t0.Add(time.Duration(i)*100*time.Millisecond), pay("p"+strconv.Itoa(i), visitor, "c"+strconv.Itoa(i), t0.Add(time.Duration(i*100-i*37%9*90)*time.Millisecond)))
				i++
			}
			r.feed()
			switch disturb() {
			case 1:
				r.ok(r.h.Abort())
				r.feed()
			case 2:
				r.commit()
			case 3:
				r.commit()
				r.ok(r.h.Crash())
			}
			n++
		}
		r.settle()
		r.settle()
		got := ids(r.alerts())
		if len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("an alert was raised twice: %v", got)
		}
		return got
	}
	want = run(t, func() int { return 120 }, func() int { return 0 })
	if len(want) != 5 {
		t.Fatalf("%d alerts, want one for each visitor", len(want))
	}
	rapid.Check(t, func(rt *rapid.T) {
		got := run(t, func() int { return rapid.IntRange(1, 40).Draw(rt, "batch") }, func() int { return rapid.IntRange(0, 3).Draw(rt, "disturb") })
		if d := cmp.Diff(want, got); d != "" {
			rt.Fatal(d)
		}
	})
}

func TestWhatRulesRememberIsGoneWhenTheirWindowIsOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	for v := range 50 {
		for i := range 5 {
			r.send(pay("p"+strconv.Itoa(v)+"-"+strconv.Itoa(i), "v"+strconv.Itoa(v), "c"+strconv.Itoa(i), t0))
		}
	}
	r.pass()
	op := r.h.Operator().(*operator)
	fr := op.jobs.owners[ownerFraud].(*fraud)
	if n := fr.det.states.Len(); n != 50 {
		t.Fatalf("%d keys, want 50", n)
	}
	r.ok(r.h.Advance(3 * time.Hour))
	for range 2 {
		r.send(event.Event{VisitorID: "other", OccurredAt: r.h.Now().UnixMicro()})
		r.settle()
	}
	if n, p := fr.det.states.Len(), fr.det.pending.Len(); n != 0 || p != 0 || len(fr.det.fast) != 0 {
		t.Errorf("%d keys, %d waiting events and %d orders of arrival are left", n, p, len(fr.det.fast))
	}
}

func TestNewRulesAreAppliedBetweenRecordsAndABadSetStaysOut(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	source, err := NewRules(reg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var fast []event.Alert
	r := watch(t, source, &fast)
	offer := func(version int, text string) {
		rec := RulesRecord{Version: version, YAML: text}
		if set, err := rules.Parse([]byte(text)); err == nil {
			rec.Hash = set.Hash
		}
		b, err := json.Marshal(rec)
		r.ok(err)
		source.Offer([]byte(RulesKey), b)
	}
	text := "version: 7\nrules:\n  - {name: two-payments, kind: velocity, entity: visitor, on: [add_payment_info], window: 10m, threshold: 2, severity: info, score: 0.2, reason: '{n} payments'}\n"
	offer(7, text)
	offer(8, strings.Replace(text, "threshold: 2", "threshold: 0", 1))
	version, problem := source.Status()
	if version != 7 || !strings.Contains(problem, "MR-RUL-001") || !strings.Contains(problem, "threshold") {
		t.Errorf("version %d, problem %q: want 7, and what is wrong with 8", version, problem)
	}
	if v, reason := refusal(t, reg); v != 8 || !strings.Contains(reason, "MR-RUL-001") || !strings.Contains(reason, "threshold") {
		t.Errorf("the metric says of %v: %q", v, reason)
	}
	offer(6, strings.Replace(text, "version: 7", "version: 6", 1))
	if version, problem = source.Status(); version != 7 || !strings.Contains(problem, "MR-RUL-003") {
		t.Errorf("version %d, problem %q: an older version is to stay out", version, problem)
	}
	r.advance(200 * time.Millisecond)
	for i := range 2 {
		r.send(pay("p"+strconv.Itoa(i), "v", "c", r.h.Now()))
	}
	r.pass()
	got := r.alerts()
	if len(got) != 1 || got[0].RuleVersion != 7 || got[0].Rule != "two-payments" {
		t.Fatalf("%+v, want one alert of version 7", got)
	}
	r.ok(r.h.Crash())
	op := r.h.Operator().(*operator)
	if f := op.jobs.owners[ownerFraud].(*fraud); f.rules.set.Version != 7 {
		t.Errorf("version %d after a crash, want that of the state", f.rules.set.Version)
	}
}

func TestARuleThatIsMetByEverythingDrownsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{cfg: func(c *Config) { c.Fraud.PerMinute = 3 }})
	for v := range 20 {
		for i := range 4 {
			r.send(pay("p"+strconv.Itoa(v)+"-"+strconv.Itoa(i), "v"+strconv.Itoa(v), "c"+strconv.Itoa(i), t0.Add(time.Duration(i)*time.Millisecond)))
		}
	}
	r.pass()
	if got := r.alerts(); len(got) != 3 {
		t.Errorf("%d alerts within a minute, want the 3 that are allowed", len(got))
	}
	if n := len(r.events(event.Cart)); n != 80 {
		t.Errorf("%d events came through, want all 80", n)
	}
	suppressed := 0.0
	families, err := r.reg.Gather()
	r.ok(err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "millrace_fraud_alerts_total" && l.GetName() == "outcome" && l.GetValue() == "suppressed" {
					suppressed += m.GetCounter().GetValue()
				}
			}
		}
	}
	if suppressed != 17 {
		t.Errorf("%v alerts are counted as suppressed, want the other 17", suppressed)
	}
}

// TestCardsAddressesAndUsersAreWatchedInTheEntityStage: what the visitor stage sends on is what the rules about others want.
func TestCardsAddressesAndUsersAreWatchedInTheEntityStage(t *testing.T) {
	t.Parallel()
	v := newRig(t, option{})
	for i := range 12 { // one address, many visitors
		v.arrive(pay("a"+strconv.Itoa(i), "v"+strconv.Itoa(i), "c"+strconv.Itoa(i), t0.Add(time.Duration(i)*time.Second)))
	}
	home := func(id string, at time.Time, country, agent string, name string) {
		v.arrive(event.Event{ID: id, Name: name, VisitorID: "w" + country, UserID: "u", OccurredAt: at.UnixMicro(), Country: country, UserAgent: agent, Currency: "EUR", Value: micros(20)})
	}
	for i := range 4 {
		home("u"+strconv.Itoa(i), t0.Add(time.Duration(i)*time.Second), "DE", "mine", event.NamePurchase)
	}
	home("stolen", t0.Add(10*time.Second), "BR", "theirs", event.NamePurchase)
	v.pass()

	codecs := v.codecs
	top, err := EntityTopology(DefaultConfig(), 4, codecs, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for part := range int32(4) {
		h, err := streaming.NewHarness(streaming.Config{UpstreamGone: 2 * time.Second}, top, part, t0) // only one task of the first stage is there
		if err != nil {
			t.Fatal(err)
		}
		for in, topic := range top.Inputs[:inProduct] {
			for _, rec := range v.h.Outputs(topic) {
				if rec.Partition == part {
					h.Produce(in, &kgo.Record{Key: rec.Key, Value: rec.Value, Headers: rec.Headers})
				}
			}
		}
		v.ok(h.Feed())
		for range 3 {
			v.ok(h.Advance(3 * time.Second))
		}
		_, err = h.Commit()
		v.ok(err)
		t.Logf("partition %d: watermark %s, %d keys, %d waiting", part, event.Time(h.Task().Watermark()), h.Operator().(*entity).det.states.Len(), h.Operator().(*entity).det.pending.Len())
		for _, rec := range h.Outputs(event.TopicAlerts) {
			var a event.Alert
			v.ok(codecs.Decode(t.Context(), event.TopicAlerts, rec.Value, &a))
			found[a.Rule] = a.Key
		}
	}
	for rule, key := range map[string]string{"card-testing-address": "ip", "visitors-by-address": "ip", "impossible-travel": "u", "new-device-and-country": "u"} {
		if found[rule] != key {
			t.Errorf("rule %s: key %q, want %q", rule, found[rule], key)
		}
	}
	t.Logf("found: %v", found)
}

// metric sums the series of a counter.
func (r *rig) metric(name string) (sum float64) {
	r.Helper()
	families, err := r.reg.Gather()
	r.ok(err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}
