package schema

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"millrace/event"
)

// order is a purchase with every amount.
func order() *event.Event {
	amount := func(v int64) *int64 { return &v }
	e := &event.Event{
		ID: "e1", Tenant: "default", Name: event.NamePurchase, VisitorID: "v1", OccurredAt: 1, ReceivedAt: 2, Source: "web", SchemaVersion: 1, Currency: "EUR", OrderID: "o1",
		Value: amount(25_000_000), Tax: amount(2_000_000), Shipping: amount(3_000_000), Discount: amount(1_500_000), Total: amount(28_500_000),
		Properties: `{"gift":true}`, Items: []event.Item{{ItemID: "p1", Quantity: 2}},
	}
	e.RowHash = e.ComputeRowHash()
	return e
}

// release1 makes codecs as a worker of the first release has them: it knows version 1 only, and its registry tells it what version 2 is.
func release1(t *testing.T, now *Codecs) *Codecs {
	t.Helper()
	c, err := NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	for topic, sub := range c.subjects {
		sub.Fields = append([]Field(nil), sub.Fields...)
		known := sub.Fields[:0]
		for _, f := range sub.Fields {
			if f.Since < 2 {
				known = append(known, f)
			}
		}
		sub.Fields = known
		latest := now.subjects[topic]
		sub.parsed, sub.byID = sub.olds[0], latest.byID
		for id, version := range latest.byID {
			if version == 0 {
				sub.id = id
			}
		}
	}
	return c
}

func TestVersion1AndVersion2WorkersShareAStream(t *testing.T) {
	now, err := NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	now.AssignLocal()
	old := release1(t, now)
	if old.subjects["raw.purchase"].id == now.subjects["raw.purchase"].id {
		t.Fatal("raw.purchase has one version only; this test is about two")
	}
	ctx := t.Context()
	sent := order()

	t.Run("what a new gateway sends goes through an old worker as properties", func(t *testing.T) {
		value := now.AppendRaw(nil, event.Purchase, sent)
		var e event.Event
		id, _ := IDOf(value)
		if err := old.decodeForeign(ctx, "raw.purchase", id, value[headerBytes:], &e); err != nil {
			t.Fatal(err)
		}
		var props map[string]json.Number
		var gift map[string]any
		if err := json.Unmarshal([]byte(e.Properties), &gift); err != nil || gift["gift"] != true {
			t.Fatalf("properties %s: %v", e.Properties, err)
		}
		delete(gift, "gift")
		text, _ := json.Marshal(gift)
		if err := json.Unmarshal(text, &props); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]json.Number{"discount": "1.5", "total": "28.5"}, props); diff != "" {
			t.Error(diff)
		}
		// The old worker writes version 1; a new sink reads it.
		out, err := old.subjects["events.purchase"].parsed.AppendEncode(old.subjects["events.purchase"].header(nil), &e)
		if err != nil {
			t.Fatal(err)
		}
		var back event.Event
		if err := now.NewEventDecoder().DecodeEnriched(ctx, event.Purchase, out, &back); err != nil {
			t.Fatal(err)
		}
		if back.Properties != e.Properties || back.Total != nil || back.Discount != nil || back.RowHash != e.RowHash || *back.Shipping != 3_000_000 {
			t.Errorf("%+v", back)
		}
		if back.ComputeRowHash() != sent.RowHash {
			t.Error("the row's hash depends on the version")
		}
	})
	t.Run("what an old gateway sends goes through a new worker, whose columns are empty", func(t *testing.T) {
		first := *sent
		first.Discount, first.Total, first.Properties = nil, nil, `{"discount":1.5,"total":28.5}`
		value, err := old.subjects["raw.purchase"].parsed.AppendEncode(old.subjects["raw.purchase"].header(nil), &first)
		if err != nil {
			t.Fatal(err)
		}
		var e, back event.Event
		body, err := now.NewEventDecoder().DecodeRaw(ctx, event.Purchase, value, &e)
		if err != nil || body != nil {
			t.Fatalf("body %v, error %v; want none, so that the event is encoded anew", body, err)
		}
		if err := now.NewEventDecoder().DecodeEnriched(ctx, event.Purchase, now.AppendEnriched(nil, event.Purchase, &e, body), &back); err != nil {
			t.Fatal(err)
		}
		first.Enriched = event.Enriched{}
		if diff := cmp.Diff(first, back, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("both versions of the enriched topic decode side by side", func(t *testing.T) {
		d := now.NewEventDecoder()
		for i := range 10 {
			var value []byte
			want := order()
			if i%2 == 0 {
				want.Discount, want.Total = nil, nil
				if value, err = old.subjects["events.purchase"].parsed.AppendEncode(old.subjects["events.purchase"].header(nil), want); err != nil {
					t.Fatal(err)
				}
			} else {
				value = now.AppendEnriched(nil, event.Purchase, want, nil)
			}
			var got event.Event
			if err := d.DecodeEnriched(ctx, event.Purchase, value, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(*want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("record %d: %s", i, diff)
			}
		}
	})
}

func TestTheNewFieldsAreTheLastOfBothTopics(t *testing.T) {
	var raw, enriched []string
	for _, s := range Subjects() {
		for _, f := range s.Fields {
			switch s.Topic {
			case event.Purchase.RawTopic():
				raw = append(raw, f.Name)
			case event.Purchase.EventsTopic():
				enriched = append(enriched, f.Name)
			}
		}
	}
	want := []string{"discount", "total"}
	if diff := cmp.Diff(want, raw[len(raw)-2:]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(raw, enriched[len(enriched)-len(raw):]); diff != "" {
		t.Errorf("events.purchase does not end with raw.purchase: %s", diff)
	}
}

func TestWhatIsDerivedFromABodyDoesNotDependOnTheVersion(t *testing.T) {
	now, err := NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	now.AssignLocal()
	old := release1(t, now)
	zero := int64(0)
	seen := map[string]string{}
	for what, change := range map[string]func(*event.Event){
		"no amount of version 2": func(e *event.Event) { e.Discount, e.Total = nil, nil },
		"nor tax and shipping":   func(e *event.Event) { e.Discount, e.Total, e.Tax, e.Shipping = nil, nil, nil, nil },
		"both":                   func(*event.Event) {},
		"a total of nothing":     func(e *event.Event) { e.Discount, e.Total = nil, &zero },
		"a discount of nothing":  func(e *event.Event) { e.Discount, e.Total = &zero, nil },
		"both nothing":           func(e *event.Event) { e.Discount, e.Total = &zero, &zero },
	} {
		e := order()
		change(e)
		body := Original(event.Purchase, now.AppendRaw(nil, event.Purchase, e)[headerBytes:])
		if other, dup := seen[string(body)]; dup {
			t.Errorf("%s and %s are the same", what, other)
		}
		seen[string(body)] = what
		if e.Discount != nil || e.Total != nil {
			continue
		}
		want, err := old.subjects["raw.purchase"].parsed.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, body); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	if got := Original(event.Page, []byte{1, 0, 0}); len(got) != 3 {
		t.Error("fields of a category without later ones were cut")
	}
}
