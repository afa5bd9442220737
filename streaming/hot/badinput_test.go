package hot

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
)

// TestARecordWithAKeyOfAMegabyteIsAFailedEvent: whichever topic it is in and whatever its value is, even a good event, it is kept without its key and its siblings go on.
func TestARecordWithAKeyOfAMegabyteIsAFailedEvent(t *testing.T) {
	r := newRig(t, option{})
	large := bytes.Repeat([]byte("k"), 1<<20)
	r.send(event.Event{ID: "before"})
	e := r.make(event.Event{ID: "large", Tenant: "other"})
	value := r.codecs.AppendRaw(nil, event.Page, &e)
	failedInput := len(event.Categories()) // raw.failed is the last of the inputs
	for _, in := range []int{int(event.Page), failedInput} {
		r.h.Produce(in, &kgo.Record{Key: large, Value: value, Headers: []kgo.RecordHeader{{Key: event.HeaderTenant, Value: []byte("default")}}})
	}
	r.send(event.Event{ID: "after"})
	r.settle()
	var ids []string
	for _, e := range r.events(event.Page) {
		ids = append(ids, e.ID)
	}
	if d := cmp.Diff([]string{"before", "after"}, ids); d != "" {
		t.Error(d)
	}
	// The same bytes in two topics are one row, and one record each in what is counted.
	all := decodeAll[event.Failed](r, event.TopicEventsFailed)
	if len(all) != 1 || all[0].Reason != event.ReasonSize || all[0].Tenant != "default" || all[0].EventID != "" || all[0].PayloadBytes != int64(len(value)) {
		t.Fatalf("%+v, want one failed event for its size", all)
	}
	if a, b := r.counter("page", "failed"), r.counter("failed", "failed"); a != 1 || b != 1 {
		t.Errorf("%v and %v are counted as failed, want 1 and 1", a, b)
	}
	for _, rec := range r.h.Outputs(event.TopicEventsFailed) {
		if len(rec.Key) > 1<<10 {
			t.Errorf("it is written with a key of %d bytes", len(rec.Key))
		}
	}
	for _, l := range decodeAll[event.LedgerEntry](r, event.TopicLedger) {
		if l.RawTopic == "raw.page" && (l.RawTo-l.RawFrom != 3 || l.Count != 2 || l.Failed != 1) {
			t.Errorf("control totals %+v, want 2 rows and 1 failed of 3", l)
		}
	}
}

// TestClocksAYearOffAreKeptOutOfEventTime: a year ahead is no time an event can have; a year behind is the past, which no live number waits for.
func TestClocksAYearOffAreKeptOutOfEventTime(t *testing.T) {
	const year = 365 * 24 * time.Hour
	r := newRig(t, option{})
	received := t0.UnixMicro()
	r.send(event.Event{ID: "before", OccurredAt: received})
	r.feed()
	r.advance(2 * time.Second) // the other inputs are found to be idle
	was := r.h.Task().Watermark()
	r.send(event.Event{ID: "behind", OccurredAt: t0.Add(-year).UnixMicro(), ReceivedAt: received})
	r.send(event.Event{ID: "ahead", OccurredAt: t0.Add(year).UnixMicro(), ReceivedAt: received})
	r.feed()
	if w := r.h.Task().Watermark(); w != was {
		t.Errorf("the watermark went from %s to %s", event.Time(was), event.Time(w))
	}
	r.send(event.Event{ID: "after", OccurredAt: received})
	r.settle()
	lanes := map[string]event.Lane{}
	for _, e := range r.events(event.Page) {
		lanes[e.ID] = e.Lane()
	}
	if d := cmp.Diff(map[string]event.Lane{"before": event.Live, "behind": event.Replay, "after": event.Live}, lanes); d != "" {
		t.Error(d)
	}
	all := decodeAll[event.Failed](r, event.TopicEventsFailed)
	if len(all) != 1 || all[0].Reason != event.ReasonBadTime || all[0].EventID != "ahead" {
		t.Errorf("%+v, want the one that is ahead", all)
	}
	if failed, late := r.counter("page", "failed"), r.counter("page", "late"); failed != 1 || late != 0 {
		t.Errorf("%v failed and %v late are counted, want 1 and 0", failed, late)
	}
	var n int64
	for _, p := range r.find("shop", "1h", anyRow) {
		n += p.Events
	}
	if n != 2 {
		t.Errorf("%d events are in the live KPIs, want the 2 with a good clock", n)
	}
}
