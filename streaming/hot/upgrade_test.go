package hot

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
)

// During an upgrade gateways of two releases write to one topic: version 1 of a schema, and version 2 with more fields.
func TestGatewaysOfTwoReleasesShareAStream(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	versions, err := schema.Versions(event.Purchase.RawTopic())
	if err != nil || len(versions) < 2 {
		t.Fatalf("%d versions: %v", len(versions), err)
	}
	first, err := avro.Parse(versions[0])
	if err != nil {
		t.Fatal(err)
	}
	// Ids without a registry are given in the order of topics, then versions: version 1 is just before version 2.
	newest, err := schema.IDOf(r.codecs.AppendRaw(nil, event.Purchase, &event.Event{}))
	if err != nil {
		t.Fatal(err)
	}
	old := newest - uint32(len(versions)-1)
	want := map[string]string{}
	for i := range 20 {
		e := r.make(event.Event{Name: event.NamePurchase, VisitorID: "v", Value: micros(10), Tax: micros(1), Total: micros(11), Discount: micros(2), Currency: "EUR", Properties: `{"gift":true}`})
		if i%2 == 1 {
			want[e.ID] = "2"
			r.h.Produce(int(event.Purchase), &kgo.Record{Key: e.AppendKey(nil), Value: r.codecs.AppendRaw(nil, event.Purchase, &e), Timestamp: r.h.Now()})
			continue
		}
		want[e.ID] = "1"
		e.Total, e.Discount, e.Properties = nil, nil, `{"discount":2,"gift":true,"total":11}`
		value, err := first.AppendEncode(binary.BigEndian.AppendUint32([]byte{0}, old), &e)
		if err != nil {
			t.Fatal(err)
		}
		r.h.Produce(int(event.Purchase), &kgo.Record{Key: e.AppendKey(nil), Value: value, Timestamp: r.h.Now()})
	}
	r.feed()
	r.commit()
	got := map[string]string{}
	for _, e := range r.events(event.Purchase) {
		switch {
		case e.Total != nil && *e.Total == *micros(11) && *e.Discount == *micros(2) && e.Properties == `{"gift":true}`:
			got[e.ID] = "2"
		case e.Total == nil && e.Discount == nil && *e.Tax == *micros(1) && e.Properties == `{"discount":2,"gift":true,"total":11}`:
			got[e.ID] = "1"
		default:
			t.Errorf("%+v", e)
		}
		if e.RowHash != e.ComputeRowHash() || e.OrderRank != 1 {
			t.Errorf("event %s: hash %d, rank %d", e.ID, e.RowHash, e.OrderRank)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
