package schema

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/avro"
	"pgregory.net/rapid"

	"millrace/event"
)

// anyEvent draws an event that holds only the fields its category has.
func anyEvent(t *rapid.T, c event.Category) event.Event {
	text := rapid.StringN(0, 12, 40)
	// Filled through Avro's generic form, so that a field added to the table is drawn without a change here.
	rec := map[string]any{}
	for _, f := range append(EventFields(c, FromHot), EventFields(c, FromProducer)...) {
		if f.Null && rapid.Bool().Draw(t, f.Name+" is null") {
			rec[f.Name] = nil
			continue
		}
		switch f.Type {
		case String, JSON:
			s := text.Draw(t, f.Name)
			if f.Null && s == "" {
				s = "x" // absent and empty are the same in Go
			}
			rec[f.Name] = s
		case Int:
			rec[f.Name] = rapid.Int32().Draw(t, f.Name)
		case ItemList:
			n := rapid.IntRange(0, 4).Draw(t, "items")
			items := make([]any, n)
			for i := range items {
				items[i] = map[string]any{
					"item_id": text.Draw(t, "id"), "item_name": "n", "item_category": nil, "item_brand": nil, "item_variant": nil,
					"price": rapid.Int64().Draw(t, "price"), "quantity": rapid.Int64().Draw(t, "quantity"), "discount": nil, "coupon": nil, "position": int64(i),
				}
			}
			rec[f.Name] = items
		default:
			rec[f.Name] = rapid.Int64().Draw(t, f.Name)
		}
	}
	s := currentAvro(c.EventsTopic())
	b, err := s.Encode(rec)
	if err != nil {
		t.Fatalf("encoding the generic record: %v", err)
	}
	var e event.Event
	if _, err := s.Decode(b, &e); err != nil {
		t.Fatalf("decoding into the struct: %v", err)
	}
	return e
}

func currentAvro(topic string) *avro.Schema {
	for _, s := range Subjects() {
		if s.Topic == topic {
			return avro.MustParse(string(s.AVSC()))
		}
	}
	panic("no topic " + topic)
}

func TestGeneratedCodecAgreesWithTheAvroLibraryByteForByte(t *testing.T) {
	c, err := NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	c.AssignLocal()
	d := c.NewEventDecoder()
	ctx := t.Context()
	rapid.Check(t, func(t *rapid.T) {
		cat := rapid.SampledFrom(event.Categories()).Draw(t, "category")
		e := anyEvent(t, cat)

		raw := c.AppendRaw(nil, cat, &e)
		want, err := currentAvro(cat.RawTopic()).Encode(&e)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, raw[headerBytes:]); diff != "" {
			t.Fatalf("raw encoding differs from the library's: %s", diff)
		}
		full := c.AppendEnriched(nil, cat, &e, raw[headerBytes:])
		if want, err = currentAvro(cat.EventsTopic()).Encode(&e); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, full[headerBytes:]); diff != "" {
			t.Fatalf("prefix and body differ from the library's encoding of the whole record: %s", diff)
		}
		var back event.Event
		if err := d.DecodeEnriched(ctx, cat, full, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, back, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("round trip: %s", diff)
		}
		for n := range full { // every truncation is an error, never a panic
			if n >= headerBytes {
				if err := d.DecodeEnriched(ctx, cat, full[:n], &back); err == nil {
					t.Fatalf("a value cut to %d of %d bytes was accepted", n, len(full))
				}
			}
		}
	})
}

func FuzzEventDecoder(f *testing.F) {
	c, err := NewCodecs()
	if err != nil {
		f.Fatal(err)
	}
	c.AssignLocal()
	v := int64(5)
	for _, cat := range event.Categories() {
		f.Add(uint8(cat), c.AppendRaw(nil, cat, &event.Event{ID: "e", Value: &v, Items: []event.Item{{ItemID: "i", Quantity: 2}}})[headerBytes:])
	}
	d := c.NewEventDecoder()
	f.Fuzz(func(t *testing.T, cat uint8, body []byte) {
		k := event.Category(cat % 7)
		value := append(c.raw[k].header(nil), body...)
		var e event.Event
		got, err := d.DecodeRaw(context.Background(), k, value, &e)
		if err != nil {
			return
		}
		again := c.AppendRaw(nil, k, &e)
		var f event.Event
		if _, err := d.DecodeRaw(context.Background(), k, again, &f); err != nil {
			t.Fatalf("a decoded event does not encode again: %v", err)
		}
		_ = got
	})
}

func TestAFieldOfANewerSchemaTravelsAsAProperty(t *testing.T) {
	c, err := NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	c.AssignLocal()
	newer := EventFields(event.Custom, FromProducer)
	newer = append(newer[:len(newer):len(newer)], Field{Name: "loyalty_tier", Type: String, Null: true}, Field{Name: "points", Type: Long, Null: true})
	s := avro.MustParse(string(Subject{event.Custom.RawTopic(), "raw_custom", newer}.AVSC()))
	rec := map[string]any{}
	for _, f := range newer {
		switch {
		case f.Null:
			rec[f.Name] = nil
		case f.Type == String || f.Type == JSON:
			rec[f.Name] = f.Name
		default:
			rec[f.Name] = int64(7)
		}
	}
	rec["properties"], rec["loyalty_tier"], rec["points"], rec["schema_version"] = `{"a":1}`, "gold", int64(12), int32(1)
	body, err := s.Encode(rec)
	if err != nil {
		t.Fatal(err)
	}
	const id = 9999
	c.foreign[id] = &foreign{schema: s, unknown: []string{"loyalty_tier", "points"}}
	var e event.Event
	got, err := c.NewEventDecoder().DecodeRaw(t.Context(), event.Custom, append(binary.BigEndian.AppendUint32([]byte{0}, id), body...), &e)
	if err != nil || got != nil {
		t.Fatalf("body %v, error %v; want a nil body, so that the event is encoded anew", got, err)
	}
	var props map[string]any
	if err := json.Unmarshal([]byte(e.Properties), &props); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"a": 1.0, "loyalty_tier": "gold", "points": 12.0}, props); diff != "" {
		t.Error(diff)
	}
	if e.ID != "event_id" || e.OccurredAt != 7 {
		t.Errorf("known fields: %+v", e)
	}
}

func TestSmallTopicsRoundTrip(t *testing.T) {
	c, err := NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	c.AssignLocal()
	for topic, pair := range map[string][2]any{
		event.TopicRawFailed:    {&event.Failed{ID: "f", Reason: event.ReasonSchema, Payload: "{"}, &event.Failed{}},
		event.TopicEventsFailed: {&event.Failed{ID: "f", EventID: "e", RawTopic: "raw.failed", RawOffset: 5}, &event.Failed{}},
		event.TopicLedger:       {&event.LedgerEntry{RawTopic: "raw.page", Count: 3, HashLo: 9}, &event.LedgerEntry{}},
		event.TopicKPILate:      {&event.KPILate{EventID: "e"}, &event.KPILate{}},
		event.TopicErasures:     {&event.Erasure{RequestID: "r", Part: 1, RequestedAt: 5, Cut: "{}", Key: "k", Subjects: []string{"00"}}, &event.Erasure{}},
		event.TopicKPIPartial:   {&event.KPIPartial{Family: "shop", Revenue: event.SumOf(-7), VisitorsSketch: []byte{1}}, &event.KPIPartial{}},
	} {
		b, err := c.Append(nil, topic, pair[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Decode(t.Context(), topic, b, pair[1]); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
			t.Errorf("%s: %s", topic, diff)
		}
	}
}

func TestNoColumnHasAReservedName(t *testing.T) {
	reserved := map[string]bool{
		"_partition": true, "_file": true, "_pos": true, "_deleted": true, "_spec_id": true, "partition": true, "table": true,
		"_table_suffix": true, "_file_name": true, "_row_timestamp": true, "__root__": true, "_colidentifier": true,
	}
	for _, tab := range LakeTables() {
		for _, c := range tab.Columns {
			if reserved[c.Name] || c.Name[0] == '_' {
				t.Errorf("%s.%s is reserved by Iceberg, Spark or BigQuery", tab.Name, c.Name)
			}
		}
	}
}

func BenchmarkCodec(b *testing.B) {
	c, err := NewCodecs()
	if err != nil {
		b.Fatal(err)
	}
	c.AssignLocal()
	v := int64(129_900_000)
	e := event.Event{
		ID: "0190a0b0-1111-7222-8333-444455556666", Tenant: "default", Name: "purchase", VisitorID: "v123456", OccurredAt: 1760000000000000,
		ReceivedAt: 1760000000100000, Source: "web", Value: &v, Currency: "USD", OrderID: "o-1", Country: "DE", DeviceType: "mobile", SchemaVersion: 1,
		Items: []event.Item{{ItemID: "a", Quantity: 1, Price: &v, ItemName: "Mug", ItemCategory: "Kitchen"}}, PageURL: "https://shop.example.com/checkout/thanks",
	}
	raw := c.AppendRaw(nil, event.Purchase, &e)
	lib := currentAvro(event.Purchase.RawTopic())
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf = c.AppendRaw(buf[:0], event.Purchase, &e)
		}
	})
	b.Run("encode-library", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			var err error
			if buf, err = lib.AppendEncode(buf[:0], &e); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		d := c.NewEventDecoder()
		var out event.Event
		for b.Loop() {
			if _, err := d.DecodeRaw(b.Context(), event.Purchase, raw, &out); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode-library", func(b *testing.B) {
		b.ReportAllocs()
		var out event.Event
		for b.Loop() {
			if _, err := lib.Decode(raw[headerBytes:], &out); err != nil {
				b.Fatal(err)
			}
		}
	})
}
