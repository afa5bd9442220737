package sink

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/lakehouse"
)

// promoteTest puts promotions on the topic control.
func promoteTest(t *testing.T, cl *kgo.Client, ps ...schema.Promotion) {
	t.Helper()
	for _, p := range ps {
		if p.ID == 0 {
			p.ID = schema.FirstPromotedID
		}
		key, value, err := p.Record()
		if err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: event.TopicControl, Partition: 0, Key: key, Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// giftProperties are the properties of the i-th event: a whole number that every tenth event has as a word.
func giftProperties(i int64) string {
	if i%10 == 3 {
		return fmt.Sprintf(`{"points":"many","gift":%t}`, i%2 == 0)
	}
	return fmt.Sprintf(`{"points":%d,"gift":%t,"note":"n%d"}`, i, i%2 == 0, i)
}

var giftColumns = []schema.Promotion{
	{Category: "purchase", Name: "points", Type: "int", ID: schema.FirstPromotedID},
	{Category: "purchase", Name: "gift", Type: "bool", ID: schema.FirstPromotedID + 1},
	{Category: "purchase", Name: "remark", Type: "string", Property: "note", ID: schema.FirstPromotedID + 2},
}

// traffic sends purchases with properties until it is stopped, and gives the number of the last one.
func (b *clickhouseBench) traffic() (sent *atomic.Int64, stop func()) {
	b.t.Helper()
	sent = &atomic.Int64{}
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			for range 5 {
				i := sent.Load()
				e := clickhouseEvent(event.Purchase, i)
				e.Properties = giftProperties(i)
				b.produce(event.Purchase, int32(i%clickhouseTestPartitions), e)
				sent.Add(1)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	return sent, func() { cancel(); <-done; b.flush() }
}

func TestClickHousePromotesAPropertyWhileTrafficRuns(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	s := b.start(fastClickHouse())
	sent, stop := b.traffic()
	b.eventually("rows before the promotion", func() string {
		if got := b.count("(SELECT count() FROM events_purchase)"); got < 50 {
			return fmt.Sprint(got)
		}
		return ""
	})
	promoteTest(t, b.cl, giftColumns...)
	b.eventually("a filled column", func() string {
		if b.count("(SELECT count() FROM system.columns WHERE database = currentDatabase() AND table = 'events_purchase' AND name = 'remark')") == 0 {
			return "no column yet"
		}
		if b.count("(SELECT count() FROM events_purchase WHERE points IS NOT NULL AND gift IS NOT NULL AND remark IS NOT NULL)") < 50 {
			return "no values yet"
		}
		return ""
	})
	from := sent.Load()
	// The column becomes wider; rows go on.
	wide := giftColumns[0]
	wide.Type = "long"
	promoteTest(t, b.cl, wide)
	b.eventually("the wider type", func() string {
		var typ string
		if err := b.conn.QueryRow(t.Context(), "SELECT type FROM system.columns WHERE database = currentDatabase() AND table = 'events_purchase' AND name = 'points'").Scan(&typ); err != nil || typ != "Nullable(Int64)" {
			return fmt.Sprint(typ, err)
		}
		return ""
	})
	until := sent.Load() + 200
	b.eventually("traffic after it", func() string {
		if sent.Load() < until {
			return fmt.Sprint(sent.Load())
		}
		return ""
	})
	stop()
	b.exact() // 0 rows lost, 0 doubled
	for what, n := range map[string]int64{
		"values that are not those of the properties":    b.count("(SELECT count() FROM events_purchase WHERE points IS NOT NULL AND points != JSONExtractInt(properties, 'points'))"),
		"gifts that are not those of the properties":     b.count("(SELECT count() FROM events_purchase WHERE gift IS NOT NULL AND gift != JSONExtractBool(properties, 'gift'))"),
		"remarks that are not those of the properties":   b.count("(SELECT count() FROM events_purchase WHERE remark IS NOT NULL AND remark != JSONExtractString(properties, 'note'))"),
		"empty columns after the promotion":              b.count(fmt.Sprintf("(SELECT count() FROM events_purchase WHERE raw_offset >= %d AND raw_offset %% 10 != 3 AND (points IS NULL OR gift IS NULL OR remark IS NULL))", from)),
		"values that do not fit, in the column":          b.count("(SELECT count() FROM events_purchase WHERE raw_offset % 10 = 3 AND (points IS NOT NULL OR remark IS NOT NULL))"),
		"values that do not fit, not in the properties":  b.count("(SELECT count() FROM events_purchase WHERE raw_offset % 10 = 3 AND JSONExtractString(properties, 'points') != 'many')"),
		"values after the widening, empty or wrong ones": b.count(fmt.Sprintf("(SELECT count() FROM events_purchase WHERE raw_offset >= %d AND raw_offset %% 10 != 3 AND points != raw_offset)", until)),
	} {
		if n != 0 {
			t.Errorf("%d %s", n, what)
		}
	}
	if n := clickhouseMetric(t, s.m.promotion.unfit.WithLabelValues("events_purchase", "points")); n < 10 {
		t.Errorf("%v values that do not fit were counted", n)
	}
	b.committed("events.purchase")
	b.finish(s)

	// Another process starts with the columns.
	before := b.offset["purchase"]
	b.offset["purchase"] = sent.Load()
	again := b.start(fastClickHouse())
	e := clickhouseEvent(event.Purchase, b.offset["purchase"])
	e.Properties = `{"points":9007199254740993}`
	b.produce(event.Purchase, 0, e)
	b.flush()
	b.exact()
	if n := b.count("(SELECT count() FROM events_purchase WHERE points = 9007199254740993)"); n != 1 {
		t.Errorf("%d rows with the value, offset before %d", n, before)
	}
	b.finish(again)
}

func TestClickHouseGoesOnWithoutAColumnThatCannotBeAdded(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	if err := b.conn.Exec(t.Context(), "ALTER TABLE events_purchase ADD COLUMN points Array(String)"); err != nil { // by hand
		t.Fatal(err)
	}
	promoteTest(t, b.cl, giftColumns...)
	s := b.start(fastClickHouse())
	_, stop := b.traffic()
	b.eventually("rows with the columns that can be", func() string {
		if b.count("(SELECT count() FROM events_purchase WHERE notEmpty(kafka_topic))") < 100 {
			return "no rows"
		}
		return ""
	})
	stop()
	b.exact()
	if n := b.count("(SELECT count() FROM events_purchase WHERE gift IS NULL)"); n != 0 {
		t.Errorf("%d rows lack the column that could be added", n)
	}
	if got := clickhouseMetric(t, s.m.promotion.pending); got != 1 {
		t.Errorf("%v columns are said to be missing", got)
	}
	b.finish(s)
}

// icebergPoints reads the column points by offset; absent ones are not in the map.
func icebergPoints(t *testing.T, cat *lakehouse.Catalog) (rows int64, points map[int64]int64, words int64, err error) {
	t.Helper()
	points = map[int64]int64{}
	err = cat.Scan(t.Context(), "events_purchase", "", nil, func(b arrow.RecordBatch) error {
		rows += b.NumRows()
		col := map[string]arrow.Array{}
		for i, f := range b.Schema().Fields() {
			col[f.Name] = b.Column(i)
		}
		p, ok := col["points"]
		if !ok {
			return nil
		}
		offset := col["raw_offset"].(*array.Int64)
		remark, _ := col["remark"].(*array.String) // columns come one by one
		for i := range int(b.NumRows()) {
			if remark != nil && remark.IsValid(i) && strings.HasPrefix(remark.Value(i), "n") {
				words++
			}
			if p.IsNull(i) {
				continue
			}
			switch p := p.(type) {
			case *array.Int32:
				points[offset.Value(i)] = int64(p.Value(i))
			case *array.Int64:
				points[offset.Value(i)] = p.Value(i)
			default:
				return fmt.Errorf("points has type %s", p.DataType())
			}
		}
		return nil
	})
	return rows, points, words, err
}

func (b *icebergBench) sendGifts(n int) {
	b.t.Helper()
	if err := b.cl.BeginTransaction(); err != nil {
		b.t.Fatal(err)
	}
	for range n {
		e := icebergEvent(event.Purchase, b.next)
		e.Properties = giftProperties(int64(b.next))
		b.next++
		b.cl.Produce(b.t.Context(), &kgo.Record{Topic: "events.purchase", Partition: int32(b.next % icebergPartitions), Value: b.codecs.AppendEnriched(nil, event.Purchase, e, nil)}, nil)
	}
	if err := b.cl.Flush(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	if err := b.cl.EndTransaction(b.t.Context(), kgo.TryCommit); err != nil {
		b.t.Fatal(err)
	}
}

func TestIcebergPromotesAPropertyWhileTrafficRuns(t *testing.T) {
	b := newIcebergBench(t)
	plain, err := kgo.NewClient(append(b.opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plain.Close)
	if _, err := kadm.NewClient(plain).CreateTopic(t.Context(), 1, 1, nil, event.TopicControl); err != nil {
		t.Fatal(err)
	}
	r := b.start(icebergFast())
	b.sendGifts(60)
	rows := func(want int, check func(points map[int64]int64, words int64) error) func() error {
		return func() error {
			n, points, words, err := icebergPoints(t, b.cat)
			if err == nil && n != int64(want) {
				err = fmt.Errorf("%d rows of %d", n, want)
			}
			if err == nil && check != nil {
				err = check(points, words)
			}
			return err
		}
	}
	icebergEventually(t, "rows before the promotion", rows(60, nil))
	promoteTest(t, plain, giftColumns...)
	// Traffic runs meanwhile; rows are filled from some offset on, and never lost.
	sent := 60
	icebergEventually(t, "a filled column", func() error {
		b.sendGifts(20)
		sent += 20
		_, points, _, err := icebergPoints(t, b.cat)
		if err == nil && len(points) < 20 {
			err = fmt.Errorf("%d filled", len(points))
		}
		return err
	})
	from := b.next
	wide := giftColumns[0]
	wide.Type = "long"
	promoteTest(t, plain, wide)
	icebergEventually(t, "the wider type", func() error {
		b.sendGifts(5)
		sent += 5
		tbl, err := b.cat.Load(t.Context(), "events_purchase")
		if err != nil {
			return err
		}
		if f, ok := tbl.Schema().FindFieldByID(schema.FirstPromotedID); !ok || f.Type.String() != "long" {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
	b.sendGifts(100)
	sent += 100
	icebergEventually(t, "every row, filled after the promotion", rows(sent, func(points map[int64]int64, words int64) error {
		for i, p := range points {
			if p != i {
				return fmt.Errorf("row %d has %d points", i, p)
			}
		}
		for i := from; i < b.next; i++ {
			if _, ok := points[int64(i)]; ok == (i%10 == 3) {
				return fmt.Errorf("row %d: filled %t", i, ok)
			}
		}
		if words < int64(len(points)) {
			return fmt.Errorf("%d remarks, %d points", words, len(points))
		}
		return nil
	}))
	b.end(r)
	if n := icebergValue(t, r.m.promotion.unfit.WithLabelValues("events_purchase", "points")); n < 10 {
		t.Errorf("%v values that do not fit were counted", n)
	}
	// A release that starts later, whose table has columns it does not bring itself.
	if err := lakehouse.EnsureTables(t.Context(), b.cat); err != nil {
		t.Error(err)
	}
}
