package hot

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"millrace/event"
	"millrace/event/schema"
	"millrace/kpi"
	"millrace/streaming"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// t0 is a full hour.
var t0 = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

const testPartition = 2

// testCodecs parses the schemas once.
var testCodecs = sync.OnceValues(func() (*schema.Codecs, error) {
	codecs, err := schema.NewCodecs()
	if err != nil {
		return nil, err
	}
	return codecs.AssignLocal(), nil
})

// rig is one task of the topology in the engine's harness.
type rig struct {
	testing.TB
	h      *streaming.Harness
	codecs *schema.Codecs
	dec    *schema.EventDecoder
	reg    *prometheus.Registry
	n      int
}

type option struct {
	cfg   func(*Config)
	eng   func(*streaming.Config)
	zones map[string]string
	dir   string
	with  *schema.Codecs // in place of those without a registry
}

func newRig(t testing.TB, o option) *rig {
	t.Helper()
	codecs, err := testCodecs()
	if err != nil {
		t.Fatal(err)
	}
	if o.with != nil {
		codecs = o.with
	}
	defs, err := kpi.New(kpi.Config{TimeZones: o.zones})
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	if cfg.Dir = o.dir; o.dir == "" {
		cfg.Dir = t.TempDir()
	}
	if o.cfg != nil {
		o.cfg(&cfg)
	}
	r := &rig{TB: t, codecs: codecs, dec: codecs.NewEventDecoder(), reg: prometheus.NewRegistry()}
	top, err := Topology(cfg, 4, codecs, defs, r.reg)
	if err != nil {
		t.Fatal(err)
	}
	var eng streaming.Config
	if o.eng != nil {
		o.eng(&eng)
	}
	if r.h, err = streaming.NewHarness(eng, top, testPartition, t0); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// make fills in what a test does not say of an event.
func (r *rig) make(e event.Event) event.Event {
	r.n++
	if e.ID == "" {
		e.ID = "e" + strconv.Itoa(r.n)
	}
	if e.Name == "" {
		e.Name = event.NamePageView
	}
	if e.Tenant == "" {
		e.Tenant = "default"
	}
	if e.OccurredAt == 0 {
		e.OccurredAt = r.h.Now().UnixMicro()
	}
	if e.ReceivedAt == 0 {
		e.ReceivedAt = max(e.OccurredAt, r.h.Now().UnixMicro())
	}
	e.Source, e.SchemaVersion = "web", 1
	return e
}

// send produces an event as the gateway does.
func (r *rig) send(e event.Event, headers ...kgo.RecordHeader) { r.sendAt(r.h.Now(), e, headers...) }

// sendAt produces an event that arrives at another time than now.
func (r *rig) sendAt(arrival time.Time, e event.Event, headers ...kgo.RecordHeader) {
	e = r.make(e)
	cat := e.Category()
	headers = append(headers, kgo.RecordHeader{Key: event.HeaderCategory, Value: []byte(cat.String())}, kgo.RecordHeader{Key: event.HeaderTenant, Value: []byte(e.Tenant)})
	r.h.Produce(int(cat), &kgo.Record{Key: e.AppendKey(nil), Value: r.codecs.AppendRaw(nil, cat, &e), Headers: headers, Timestamp: arrival})
}

func (r *rig) feed() { r.Helper(); r.ok(r.h.Feed()) }

func (r *rig) commit() {
	r.Helper()
	_, err := r.h.Commit()
	r.ok(err)
}

func (r *rig) advance(d time.Duration) { r.Helper(); r.ok(r.h.Advance(d)) }

// settle lets everything be emitted: windows, ranges of control totals.
func (r *rig) settle() {
	r.Helper()
	r.feed()
	r.advance(7 * time.Second)
	r.commit()
}

func (r *rig) events(c event.Category) []event.Event {
	r.Helper()
	var out []event.Event
	for _, rec := range r.h.Outputs(c.EventsTopic()) {
		var e event.Event
		r.ok(r.dec.DecodeEnriched(r.Context(), c, rec.Value, &e))
		e.Items = slices.Clone(e.Items)
		out = append(out, e)
	}
	return out
}

func decodeAll[T any](r *rig, topic string) []T {
	r.Helper()
	var out []T
	for _, rec := range r.h.Outputs(topic) {
		var v T
		r.ok(r.codecs.Decode(r.Context(), topic, rec.Value, &v))
		out = append(out, v)
	}
	return out
}

// partials are the latest partial of every row, as compaction keeps them.
func (r *rig) partials() map[string]event.KPIPartial {
	r.Helper()
	out := map[string]event.KPIPartial{}
	for _, rec := range r.h.Outputs(event.TopicKPIPartial) {
		var p event.KPIPartial
		r.ok(r.codecs.Decode(r.Context(), event.TopicKPIPartial, rec.Value, &p))
		if key := string(kpi.AppendRecordKey(nil, &p)); key != string(rec.Key) {
			r.Fatalf("record key %q, want %q", rec.Key, key)
		}
		out[string(rec.Key)] = p
	}
	return out
}

func (r *rig) find(family, grain string, match func(event.KPIPartial) bool) []event.KPIPartial {
	r.Helper()
	var out []event.KPIPartial
	for _, p := range r.partials() {
		if p.Family == family && p.Grain == grain && match(p) {
			out = append(out, p)
		}
	}
	return out
}

func anyRow(event.KPIPartial) bool { return true }

func micros(units int64) *int64 {
	v := units * event.MicrosPerUnit
	return &v
}

func TestAnEventIsWrittenWithWhatThePlatformKnowsOfIt(t *testing.T) {
	r := newRig(t, option{})
	sent := event.Event{
		ID: "id-1", Name: event.NamePurchase, VisitorID: "v1", UserID: "u1", Value: micros(130), Currency: "USD", OrderID: "o-1", Country: "DE", DeviceType: "mobile",
		Properties: `{"gift":true}`, Coupon: "SPRING", Tax: micros(3), Items: []event.Item{{ItemID: "p1", ItemName: "Mug", ItemCategory: "Kitchen", Price: micros(65), Quantity: 2}},
	}
	r.send(sent, kgo.RecordHeader{Key: event.HeaderTrace, Value: []byte("trace")})
	raw := r.make(sent)
	arrival := r.h.Now()
	r.settle()

	recs := r.h.Outputs("events.purchase")
	if len(recs) != 1 {
		t.Fatalf("%d records in events.purchase, want 1", len(recs))
	}
	rec, got := recs[0], r.events(event.Purchase)[0]
	want := raw
	want.Enriched = event.Enriched{IngestedAt: arrival.UnixMicro(), RawTopic: "raw.purchase", RawPartition: testPartition, RowHash: raw.ComputeRowHash(), OrderRank: 1, SessionID: got.SessionID}
	if len(got.SessionID) != 32 {
		t.Errorf("session %q", got.SessionID)
	}
	want.ReceivedAt, want.OccurredAt = got.ReceivedAt, got.OccurredAt
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if string(rec.Key) != "default\x1fv\x1fv1" || rec.Partition != testPartition || rec.Timestamp.Before(arrival) {
		t.Errorf("key %q, partition %d, timestamp %s", rec.Key, rec.Partition, rec.Timestamp)
	}
	var headers []string
	for _, h := range rec.Headers {
		headers = append(headers, h.Key+"="+string(h.Value))
	}
	if d := cmp.Diff([]string{"tp=trace", "ca=purchase", "tn=default"}, headers); d != "" {
		t.Error(d)
	}
}

func TestACopyIsWrittenOnce(t *testing.T) {
	r := newRig(t, option{})
	for _, e := range []event.Event{{ID: "a"}, {ID: "b"}, {ID: "a"}, {ID: "a", Tenant: "other"}, {ID: "a", Name: event.NameAddToCart}} {
		r.send(e)
	}
	r.settle()
	if n := len(r.events(event.Page)) + len(r.events(event.Cart)); n != 3 {
		t.Errorf("%d events, want a, b, and a of the other tenant", n)
	}
	if got := r.counter("page", "duplicate") + r.counter("cart", "duplicate"); got != 2 {
		t.Errorf("%v duplicates are counted, want 2", got)
	}
	if got := r.gauge("millrace_hot_dedup_ids"); got != 3 {
		t.Errorf("%v ids are remembered, want 3", got)
	}
}

// gauge reads a gauge of the rig's partition.
func (r *rig) gauge(name string) float64 {
	r.Helper()
	families, err := r.reg.Gather()
	r.ok(err)
	for _, f := range families {
		if f.GetName() == name && f.GetMetric()[0].GetLabel()[0].GetValue() == strconv.Itoa(testPartition) {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	r.Fatalf("no gauge %s", name)
	return 0
}

// counter reads a counter of events by its labels.
func (r *rig) counter(category, outcome string) float64 {
	r.Helper()
	families, err := r.reg.Gather()
	r.ok(err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if l := m.GetLabel(); f.GetName() == "millrace_hot_events_total" && l[0].GetValue() == category && l[1].GetValue() == outcome {
				return m.GetCounter().GetValue()
			}
		}
	}
	r.Fatalf("no counter of %s %s", category, outcome)
	return 0
}

func TestOrdersAreRanked(t *testing.T) {
	r := newRig(t, option{})
	purchase := func(id, order string) event.Event {
		return event.Event{ID: id, Name: event.NamePurchase, OrderID: order, Value: micros(10), Currency: "USD", VisitorID: "v"}
	}
	for i := range 30 {
		r.send(purchase("copy"+strconv.Itoa(i), "o1"))
	}
	r.send(purchase("other", "o2"))
	r.send(purchase("none1", ""))
	r.send(purchase("none2", ""))
	refund := purchase("refund", "o1")
	refund.Name, refund.Value = event.NameRefund, micros(-10)
	r.send(refund)
	r.settle()
	for i, e := range r.events(event.Purchase) {
		want := int32(i + 1)
		switch {
		case e.ID == "refund":
			want = 0
		case e.OrderID != "o1":
			want = 1
		}
		if e.OrderRank != want {
			t.Errorf("%s of order %q has rank %d, want %d", e.ID, e.OrderID, e.OrderRank, want)
		}
	}
	rows := r.find("shop", "1h", anyRow)
	if len(rows) != 1 {
		t.Fatalf("%d rows", len(rows))
	}
	if p := rows[0]; p.Orders != 4 || p.Events != 5 || p.Refunds != 1 || p.Revenue != event.SumOf(40_000_000) || p.RefundValue != event.SumOf(-10_000_000) {
		t.Errorf("%d orders, %d events, %d refunds: copies must not count", p.Orders, p.Events, p.Refunds)
	}
}

func TestWhatIsNoEventIsKept(t *testing.T) {
	good := event.Event{ID: "good", Name: event.NamePageView, Tenant: "default", OccurredAt: t0.UnixMicro(), ReceivedAt: t0.UnixMicro()}
	for _, c := range []struct {
		name   string
		value  func(*schema.Codecs) []byte
		reason string
		path   string
	}{
		{"bytes that are no Avro", func(*schema.Codecs) []byte { return []byte("hello") }, event.ReasonMalformed, ""},
		{"no bytes", func(*schema.Codecs) []byte { return nil }, event.ReasonMalformed, ""},
		{"a schema that nobody knows", func(*schema.Codecs) []byte { return []byte{0, 0, 0, 99, 99, 1} }, event.ReasonMalformed, ""},
		{"an event cut off", func(c *schema.Codecs) []byte { b := c.AppendRaw(nil, event.Page, &good); return b[:len(b)-3] }, event.ReasonMalformed, ""},
		{"an event of another topic", func(c *schema.Codecs) []byte {
			b, _ := c.Append(nil, event.TopicLedger, &event.LedgerEntry{})
			return b
		}, event.ReasonMalformed, ""},
		{"an event without an id", func(c *schema.Codecs) []byte { e := good; e.ID = ""; return c.AppendRaw(nil, event.Page, &e) }, event.ReasonSchema, "event_id"},
		{"an event of 1970", func(c *schema.Codecs) []byte { e := good; e.OccurredAt = 1; return c.AppendRaw(nil, event.Page, &e) }, event.ReasonBadTime, "occurred_at"},
		{"an event of 2100", func(c *schema.Codecs) []byte {
			e := good
			e.OccurredAt += 74 * 365 * 86400e6
			return c.AppendRaw(nil, event.Page, &e)
		}, event.ReasonBadTime, "occurred_at"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, option{})
			value := c.value(r.codecs)
			headers := []kgo.RecordHeader{{Key: event.HeaderTenant, Value: []byte("default")}, {Key: event.HeaderReceived, Value: event.AppendReceived(nil, 77)}}
			for range 2 {
				r.h.Produce(int(event.Page), &kgo.Record{Key: []byte("k"), Value: value, Headers: headers})
			}
			r.send(event.Event{ID: "sibling"})
			r.settle()
			if n := len(r.events(event.Page)); n != 1 {
				t.Errorf("%d siblings came through, want 1", n)
			}
			all := decodeAll[event.Failed](r, event.TopicEventsFailed)
			if len(all) != 1 {
				t.Fatalf("%d failed events, want 1 for the same bytes twice", len(all))
			}
			f := all[0]
			payload, err := base64.StdEncoding.DecodeString(f.Payload)
			if err != nil || string(payload) != string(value) {
				t.Errorf("payload %q, %v", f.Payload, err)
			}
			if f.Reason != c.reason || f.ErrorPath != c.path || f.RawTopic != "raw.page" || f.RawOffset != 0 || f.Tenant != "default" || f.ReceivedAt != 77 || f.PayloadBytes != int64(len(value)) {
				t.Errorf("%+v", f)
			}
			if f.ID != event.FailedID("default", "", c.reason, value) {
				t.Errorf("failed_id %s is not that of its tenant, reason and payload", f.ID)
			}
			if n := r.counter("page", "failed"); n != 2 {
				t.Errorf("%v records are counted as failed, want both", n)
			}
			l := decodeAll[event.LedgerEntry](r, event.TopicLedger)
			if len(l) != 1 || l[0].Failed != 2 || l[0].Count != 1 || l[0].RawTo != 3 {
				t.Errorf("control totals %+v, want 2 failed and 1 row of 3", l)
			}
		})
	}
}

func TestTheSameFailureIsOneRow(t *testing.T) {
	r := newRig(t, option{})
	in := len(event.Categories())
	for _, id := range []string{"f1", "f2", "f1"} {
		f := event.Failed{ID: id, Tenant: "t", Reason: event.ReasonSchema, ReceivedAt: 5, FailedAt: 6, Payload: "{}", PayloadBytes: 2}
		b, err := r.codecs.Append(nil, event.TopicRawFailed, &f)
		r.ok(err)
		r.h.Produce(in, &kgo.Record{Key: f.AppendKey(nil), Value: b})
	}
	r.h.Produce(in, &kgo.Record{Value: []byte("no failed event either")})
	r.settle()
	var ids []string
	for _, f := range decodeAll[event.Failed](r, event.TopicEventsFailed) {
		ids = append(ids, f.ID+" "+f.Reason+" "+f.RawTopic+"@"+strconv.Itoa(int(f.RawOffset)))
	}
	want := []string{"f1 schema raw.failed@0", "f2 schema raw.failed@1", event.FailedID("", "", event.ReasonMalformed, []byte("no failed event either")) + " malformed raw.failed@3"}
	if d := cmp.Diff(want, ids); d != "" {
		t.Error(d)
	}
	var sum event.Checksum
	sum.Add(failedHash("f1"))
	sum.Add(failedHash("f2"))
	l := decodeAll[event.LedgerEntry](r, event.TopicLedger)
	if len(l) != 1 || l[0].Count != 2 || l[0].Duplicates != 1 || l[0].Failed != 1 || l[0].OutTopic != event.TopicEventsFailed || l[0].HashLo != sum.HashLo || l[0].HashHi != sum.HashHi {
		t.Errorf("%+v", l)
	}
}

func TestOnlyLiveEventsCountAndLateOnesAreNamed(t *testing.T) {
	r := newRig(t, option{})
	now := t0.UnixMicro()
	hour := int64(3600e6)
	r.send(event.Event{ID: "now", OccurredAt: now})
	r.feed()
	r.advance(2 * time.Second) // the other inputs are found to be idle
	r.send(event.Event{ID: "behind", OccurredAt: now - hour/2})
	r.send(event.Event{ID: "late", OccurredAt: now - 2*hour})
	r.send(event.Event{ID: "old", OccurredAt: now - 25*hour, ReceivedAt: now})
	r.send(event.Event{ID: "imported", OccurredAt: now}, kgo.RecordHeader{Key: event.HeaderLane, Value: []byte{1}})
	r.send(event.Event{ID: "ahead", OccurredAt: now + 23*hour, ReceivedAt: now})
	r.settle()

	lanes := map[string]event.Lane{}
	for _, e := range r.events(event.Page) {
		lanes[e.ID] = e.Lane()
	}
	if d := cmp.Diff(map[string]event.Lane{"now": 0, "behind": 0, "late": 0, "old": 1, "imported": 1, "ahead": 0}, lanes); d != "" {
		t.Error(d)
	}
	lates := decodeAll[event.KPILate](r, event.TopicKPILate)
	if len(lates) != 1 || lates[0].EventID != "late" || lates[0].RawOffset != 2 || lates[0].Watermark <= now-hour {
		t.Errorf("kpi.late has %+v", lates)
	}
	var n int64
	for _, p := range r.find("shop", "1h", anyRow) {
		n += p.Events
	}
	if n != 3 {
		t.Errorf("%d events are counted, want now, behind and ahead", n)
	}
	if got := r.counter("page", "late"); got != 1 {
		t.Errorf("%v late events are counted, want 1", got)
	}
}

func TestATaskThatSeesOnlyAClockADayAheadIsNotDrivenByIt(t *testing.T) {
	r := newRig(t, option{})
	r.send(event.Event{OccurredAt: t0.Add(20 * time.Hour).UnixMicro(), ReceivedAt: t0.UnixMicro()})
	// received_at ahead of the broker's clock cannot drive it either
	r.send(event.Event{OccurredAt: t0.Add(48 * time.Hour).UnixMicro(), ReceivedAt: t0.Add(48 * time.Hour).UnixMicro()})
	r.settle()
	if w := r.h.Task().Watermark(); w < t0.Add(-time.Minute).UnixMicro() {
		t.Fatalf("the watermark is %d: it has not moved at all", w)
	}
	if w := r.h.Task().Watermark(); w > t0.UnixMicro() {
		t.Errorf("the watermark is %s", event.Time(w))
	}
}

func TestItemsAreCountedByProductAndByCategory(t *testing.T) {
	r := newRig(t, option{})
	r.send(event.Event{Name: event.NamePurchase, VisitorID: "v", Currency: "EUR", Value: micros(17), OrderID: "o", Items: []event.Item{
		{ItemID: "mug", ItemCategory: "Kitchen", Price: micros(3), Quantity: 2},
		{ItemID: "mug", ItemCategory: "Kitchen", Price: micros(3), Quantity: 1},
		{ItemID: "pan", ItemCategory: "Kitchen", Price: micros(4), Quantity: 2},
		{ItemID: "", ItemCategory: "Gift card", Price: micros(50), Quantity: 1},
	}})
	r.send(event.Event{Name: event.NamePurchase, VisitorID: "v", Currency: "EUR", Value: micros(17), OrderID: "o", Items: []event.Item{{ItemID: "mug", ItemCategory: "Kitchen", Price: micros(3), Quantity: 2}}})
	r.send(event.Event{Name: event.NameViewItem, VisitorID: "w", Currency: "EUR", Items: []event.Item{{ItemID: "mug", ItemCategory: "Kitchen", Quantity: 1}}})
	r.send(event.Event{Name: event.NameViewItemList, VisitorID: "w", Currency: "EUR", Items: []event.Item{{ItemID: "mug", ItemCategory: "Kitchen"}}})
	r.settle()
	got := map[string]string{}
	for _, p := range r.find("items", "1d", anyRow) {
		got[p.ProductID+"/"+p.ItemCategory] = strings.Join([]string{
			"orders", strconv.FormatInt(p.Orders, 10), "units", strconv.FormatInt(p.Units, 10), "revenue", p.Revenue.Big().String(),
			"views", strconv.FormatInt(p.ItemViews, 10), "visitors", strconv.FormatInt(p.Visitors, 10), "events", strconv.FormatInt(p.Events, 10),
		}, " ")
	}
	want := map[string]string{
		"mug/Kitchen": "orders 1 units 3 revenue 9000000 views 1 visitors 2 events 2",
		"pan/Kitchen": "orders 1 units 2 revenue 8000000 views 0 visitors 1 events 1",
		"/Kitchen":    "orders 1 units 5 revenue 17000000 views 1 visitors 2 events 2",
		"/Gift card":  "orders 1 units 1 revenue 50000000 views 0 visitors 1 events 1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestRevenueBeyond64BitsIsExact(t *testing.T) {
	r := newRig(t, option{})
	most := int64(event.MaxAmount - 1)
	for i := range 30 {
		r.send(event.Event{Name: event.NamePurchase, Value: &most, Currency: "IDR", OrderID: strconv.Itoa(i), Items: []event.Item{{ItemID: "p", Price: &most, Quantity: 1_000_000}}})
		if i%7 == 0 {
			r.feed()
			r.commit()
		}
	}
	r.settle()
	if rows := r.find("shop", "1d", anyRow); len(rows) != 1 || rows[0].Revenue.Big().String() != "29999999999999999970" {
		t.Errorf("%d rows, revenue %s", len(rows), rows[0].Revenue.Big())
	}
	if rows := r.find("items", "1d", func(p event.KPIPartial) bool { return p.ProductID == "p" }); len(rows) != 1 || rows[0].Revenue.Big().String() != "29999999999999999970000000" {
		t.Errorf("%d rows, revenue %s", len(rows), rows[0].Revenue.Big())
	}
}

func TestADayIsTheTenants(t *testing.T) {
	// the night in which Berlin's clocks go forward; a day there has 23 hours
	at := func(s string) int64 {
		u, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return u.UnixMicro()
	}
	r := newRig(t, option{zones: map[string]string{"berlin": "Europe/Berlin"}})
	for _, s := range []string{"2026-03-28T22:59:59Z", "2026-03-28T23:00:00Z", "2026-03-29T01:30:00Z", "2026-03-29T21:59:59Z", "2026-03-29T22:00:00Z"} {
		for _, tenant := range []string{"berlin", "elsewhere"} {
			r.sendAt(event.Time(at(s)), event.Event{Tenant: tenant, OccurredAt: at(s), ReceivedAt: at(s)})
		}
		r.feed()
	}
	r.settle()
	got := map[string]int64{}
	for _, p := range r.find("shop", "1d", anyRow) {
		got[p.Tenant+" "+event.Time(p.WindowStart).Format(time.RFC3339)] = p.Events
	}
	want := map[string]int64{
		"berlin 2026-03-27T23:00:00Z": 1, "berlin 2026-03-28T23:00:00Z": 3, "berlin 2026-03-29T22:00:00Z": 1,
		"elsewhere 2026-03-28T00:00:00Z": 2, "elsewhere 2026-03-29T00:00:00Z": 3,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestControlTotalsEndAtTheMinuteAndInSilence(t *testing.T) {
	r := newRig(t, option{})
	for range 90 {
		r.send(event.Event{ID: "e" + strconv.Itoa(r.n/3)}) // three copies each
		r.feed()
		r.advance(time.Second - streaming.Config{}.Defaults().MergeWait)
	}
	r.commit()
	before := decodeAll[event.LedgerEntry](r, event.TopicLedger)
	if len(before) != 1 || before[0].RawTo != 60 {
		t.Fatalf("after 90 s there is %+v, want one range of 60 records", before)
	}
	r.advance(6 * time.Second)
	r.commit()
	all := decodeAll[event.LedgerEntry](r, event.TopicLedger)
	if len(all) != 2 || all[1].RawFrom != 60 || all[1].RawTo != 90 || all[1].IngestedFrom/minute != all[1].IngestedTo/minute {
		t.Errorf("after silence there is %+v", all)
	}
	if all[0].Count+all[1].Count != 30 || all[0].Duplicates+all[1].Duplicates != 60 {
		t.Errorf("%+v: want 30 rows and 60 duplicates", all)
	}
}

func TestStoresAndLogsKeepTheirNames(t *testing.T) {
	r := newRig(t, option{})
	defs, err := kpi.New(kpi.DefaultConfig())
	r.ok(err)
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	top, err := Topology(cfg, 4, r.codecs, defs, prometheus.NewRegistry())
	r.ok(err)
	want := []streaming.StoreSpec{{ID: 16, Name: "ledger", Format: 1}, {ID: 17, Name: "kpi.shop", Format: 1}, {ID: 18, Name: "kpi.items", Format: 1}, {ID: 40, Name: "sessions", Format: 1}, {ID: 47, Name: "carts", Format: 1}, {ID: 34, Name: "rec.together", Format: 1}, {ID: 35, Name: "rec.popular", Format: 1}, {ID: 36, Name: "rec.recent", Format: 1}, {ID: 20, Name: "fraud.visitor", Format: 1}, {ID: 21, Name: "fraud.visitor.pending", Format: 1}, {ID: 30, Name: "control", Format: 1}}
	if d := cmp.Diff(want, top.Stores); d != "" {
		t.Error(d)
	}
	if got := streaming.ChangelogTopic(top) + " " + streaming.LogTopic(top, "dedup"); got != "state.hot.visitor state.dedup.hot.visitor" {
		t.Error(got)
	}
	inputs := "raw.page raw.cart raw.purchase raw.inventory raw.exposure raw.identity raw.custom raw.failed"
	if got := strings.Join(top.Inputs, " "); got != inputs {
		t.Error(got)
	}
}

func TestConfigReportsEveryProblem(t *testing.T) {
	c := Config{DedupWindow: time.Hour, SpoolMaxAge: 6 * time.Hour, KPILateness: -1, LedgerIdle: time.Hour}
	err := c.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, field := range []string{"dedup_window", "kpi_lateness", "kpi_every", "ledger_idle"} {
		if !strings.Contains(err.Error(), field+":") {
			t.Errorf("%s is not named in %q", field, err)
		}
	}
	c = DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if _, err := Topology(c, 4, nil, kpi.Definitions{}, prometheus.NewRegistry()); err == nil {
		t.Error("a topology without a folder is accepted")
	}
}
