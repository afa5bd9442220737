package sink

import (
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
)

var erasedKey = event.SubjectKey{3}

// erasure is a record of the ledger: visitors of a tenant, cut at an offset of partition 0 of a raw topic.
func erasure(t testing.TB, codecs *schema.Codecs, key event.SubjectKey, request, tenant, raw string, cut int64, visitors ...string) *kgo.Record {
	t.Helper()
	e := event.Erasure{RequestID: request, Key: key.ID(), Cut: event.Cut{raw: {cut}}.String()}
	for _, v := range visitors {
		e.Subjects = append(e.Subjects, key.Digest(event.Subject{Tenant: tenant, Kind: event.SubjectVisitor, ID: v}).String())
	}
	value, err := codecs.Append(nil, event.TopicErasures, &e)
	if err != nil {
		t.Fatal(err)
	}
	return &kgo.Record{Topic: event.TopicErasures, Partition: 0, Key: e.AppendKey(nil), Value: value}
}

func TestClickHouseErasedRowsDoNotComeBackWithATopicReadAgain(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	enter := func(request string, cut int64, visitors ...string) {
		if err := b.cl.ProduceSync(t.Context(), erasure(t, b.codecs, erasedKey, request, "acme", "raw.page", cut, visitors...)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	is := func(what, sql string, want int64) {
		t.Helper()
		b.eventually(what, func() string {
			if got := b.count(sql); got != want {
				return fmt.Sprintf("%d, not %d", got, want)
			}
			return ""
		})
	}
	enter("r1", 150, "v3", "v7") // each has an event in fifty: 3 of 4 are below the cut
	b.send(event.Page, 0, 200)
	cfg := fastClickHouse()
	cfg.Erasures = &erasedKey
	s := b.start(cfg)
	is("rows of the others and new ones", "(SELECT count() FROM events_page)", 200-6)
	is("new rows of the erased", "(SELECT count() FROM events_page WHERE visitor_id IN ('v3', 'v7'))", 2)
	if got := clickhouseMetric(t, s.m.erasure.dropped.WithLabelValues("events_page")); got != 6 {
		t.Errorf("%v rows are counted as dropped", got)
	}

	t.Log("an erasure that comes while the sink runs counts from then on")
	enter("r2", 300, "v9")
	b.eventually("the sink to know it", func() string {
		if got := clickhouseMetric(t, s.m.erasure.subjects); got != 3 {
			return fmt.Sprintf("%v subjects", got)
		}
		return ""
	})
	b.send(event.Page, 0, 100)
	is("rows without those of the third", "(SELECT count() FROM events_page)", 200-6+100-2)
	b.committed(event.Page.EventsTopic())
	b.finish(s)

	t.Log("a sink that begins again at the first offset leaves them all out")
	if err := b.conn.Exec(t.Context(), "TRUNCATE TABLE events_page"); err != nil {
		t.Fatal(err)
	}
	b.forgetGroup()
	s = b.start(cfg)
	is("rows of nobody who was erased", "(SELECT count() FROM events_page)", 300-6-6)
	is("new rows of the erased", "(SELECT count() FROM events_page WHERE visitor_id IN ('v3', 'v7', 'v9'))", 6)
	b.committed(event.Page.EventsTopic())
	b.finish(s)
}

func TestASinkWithAnotherKeyOfTheLedgerStoresNothing(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	if err := b.cl.ProduceSync(t.Context(), erasure(t, b.codecs, event.SubjectKey{4}, "r1", "acme", "raw.page", 10, "v3")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.send(event.Page, 0, 5)
	cfg := fastClickHouse()
	cfg.Erasures = &erasedKey
	wantClickhouseFault(t, b.start(cfg).wait(), "MR-ERA-001")
	if n := b.count("(SELECT count() FROM events_page)"); n != 0 {
		t.Errorf("%d rows are stored", n)
	}
}

func TestIcebergErasedRowsDoNotComeBackWithARollback(t *testing.T) {
	b := newIcebergBench(t)
	cfg := icebergFast()
	cfg.Erasures = &erasedKey
	r := b.start(cfg)
	b.send(event.Purchase, 0, 10)
	b.exact()
	first, err := b.cat.Head(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	b.send(event.Purchase, 0, 150)
	b.exact()
	of := func(visitor string) (n, all int) {
		t.Helper()
		if err := b.cat.Scan(t.Context(), "events_purchase", "", []string{"visitor_id"}, func(batch arrow.RecordBatch) error {
			col := batch.Column(0).(*array.String)
			for i := range col.Len() {
				all++
				if col.Value(i) == visitor {
					n++
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n, all
	}
	visitor := icebergEvent(event.Purchase, b.next-5).VisitorID // of the last ones, which surely were not aborted
	before, all := of(visitor)
	if before == 0 {
		t.Fatalf("%s has no row", visitor)
	}
	if err := b.cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := b.cl.ProduceSync(t.Context(), erasure(t, b.codecs, erasedKey, "r1", "default", "raw.purchase", int64(b.next), visitor)).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := b.cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	icebergEventually(t, "the sink knows the erasure", func() error {
		if n := r.erasures.current.Load().Len(); n != 1 {
			return fmt.Errorf("%d subjects", n)
		}
		return nil
	})
	if _, err := b.cat.EraseRows(t.Context(), "events_purchase", "r1", r.erasures.current.Load(), nil); err != nil {
		t.Fatal(err)
	}
	if n, left := of(visitor); n != 0 || left != all-before {
		t.Fatalf("%d rows of %d are left, %d of the visitor", left, all, n)
	}
	b.rollback("events_purchase", first.SnapshotID)
	icebergEventually(t, "the sink has written again what was rolled back", func() error {
		if n, left := of(visitor); n != 0 || left != all-before {
			return fmt.Errorf("%d rows, %d of the visitor", left, n)
		}
		return nil
	})
	if icebergValue(t, r.m.erasure.dropped.WithLabelValues("events_purchase")) == 0 {
		t.Error("no row is counted as dropped")
	}
	b.end(r)
}
