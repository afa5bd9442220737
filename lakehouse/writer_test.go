package lakehouse

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/event"
)

func TestARowThatCannotBeStoredIsRefusedAloneAndNamesItsColumn(t *testing.T) {
	c := ensureTest(t)
	w, err := c.NewWriter(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		column string
		spoil  func(*event.Event)
	}{
		"no event id":              {"event_id", func(e *event.Event) { e.ID = "" }},
		"a broken name":            {"page_url", func(e *event.Event) { e.PageURL = "a\xffb" }},
		"a broken item name":       {"items.item_name", func(e *event.Event) { e.Items[0].ItemName = "\xc3" }},
		"a broken product id":      {"items.item_id", func(e *event.Event) { e.Items[0].ItemID = "\xf0\x28" }},
		"an amount of 10^12":       {"value", func(e *event.Event) { e.Value = ptr(maxAmount) }},
		"a discount of -10^12":     {"items.discount", func(e *event.Event) { e.Items[0].Discount = ptr(-maxAmount) }},
		"a time before the year 1": {"occurred_at", func(e *event.Event) { e.OccurredAt = minTime - 1 }},
		"a time in the year 10000": {"received_at", func(e *event.Event) { e.ReceivedAt = maxTime + 1_000_000 }},
	} {
		e := purchase(3)
		tc.spoil(e)
		err := w.WriteEvent(t.Context(), e, Provenance{"events.purchase", 0, 0})
		var row *RowError
		if !errors.As(err, &row) || row.Column != tc.column {
			t.Errorf("%s: %v", name, err)
		}
		if err := w.WriteEvent(t.Context(), purchase(3), Provenance{"events.purchase", 0, 0}); err != nil {
			t.Fatal(err)
		}
	}
	if w.Rows() != 8 {
		t.Errorf("%d rows taken", w.Rows())
	}
	files, err := w.Finish(t.Context())
	if err != nil || len(files) != 1 || files[0].Count() != 8 {
		t.Errorf("%d files: %v", len(files), err)
	}
}

// failedOn makes a failed event of the i-th day after baseTime: the narrowest table is the cheapest one to open many files of.
func failedOn(day int) *event.Failed {
	return &event.Failed{ID: fmt.Sprintf("f%d", day), IngestedAt: baseTime + int64(day)*24*3600*1_000_000 - 1, FailedAt: baseTime, ReceivedAt: baseTime, Reason: event.ReasonSchema}
}

func TestRowsOfManyDaysKeepFewFilesOpenAndEachFileHoldsOneDay(t *testing.T) {
	c := ensureTest(t)
	w, err := c.NewWriter(t.Context(), FailedTable)
	if err != nil {
		t.Fatal(err)
	}
	const days = openDays + 10
	for i := range 2 * days {
		if err := w.WriteFailed(t.Context(), failedOn(i*31%days-days/2), Provenance{event.TopicEventsFailed, 0, int64(i)}); err != nil {
			t.Fatal(err)
		}
		if len(w.days) > openDays || w.streams > openFiles {
			t.Fatalf("%d days and %d files open", len(w.days), w.streams)
		}
	}
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen, rows := map[any]bool{}, int64(0)
	for _, f := range files {
		if len(f.Partition()) != 1 {
			t.Errorf("file %s has partition %v", f.FilePath(), f.Partition())
		}
		for _, d := range f.Partition() {
			seen[d] = true
		}
		rows += f.Count()
	}
	if len(seen) != days || rows != 2*days {
		t.Errorf("%d days and %d rows in %d files", len(seen), rows, len(files))
	}
	if _, err := c.Append(t.Context(), FailedTable, files, Vector{}, at(0, 2*days)); err != nil {
		t.Fatal(err)
	}
	read := int64(0)
	if err := c.Scan(t.Context(), FailedTable, "", []string{"failed_id"}, func(b arrow.RecordBatch) error {
		read += b.NumRows()
		return nil
	}); err != nil || read != rows {
		t.Errorf("%d rows read: %v", read, err)
	}
}

func TestDiscardLeavesNoFile(t *testing.T) {
	dir := t.TempDir()
	c := openTest(t, dir)
	if err := EnsureTables(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w, err := c.NewWriter(t.Context(), FailedTable)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for i := range (openFiles + 2) * batchRows { // a full batch, so a file, for more days than files may be open
			if err := w.WriteFailed(t.Context(), failedOn(i/batchRows), Provenance{event.TopicEventsFailed, 0, int64(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Discard(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.Rows() != 0 || w.Bytes() != 0 {
			t.Errorf("%d rows left", w.Rows())
		}
	}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".parquet") {
			t.Errorf("left: %s", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := appendTest(t, c, 0, 10); err != nil {
		t.Error(err)
	}
}

func TestFailedEventsAreStored(t *testing.T) {
	c := ensureTest(t)
	w, err := c.NewWriter(t.Context(), FailedTable)
	if err != nil {
		t.Fatal(err)
	}
	f := &event.Failed{ID: "f1", FailedAt: baseTime, ReceivedAt: baseTime, IngestedAt: baseTime, Reason: event.ReasonSchema, Error: "no", Payload: "{", PayloadBytes: 1, RawTopic: "raw.failed"}
	if err := w.WriteFailed(t.Context(), f, Provenance{event.TopicEventsFailed, 2, 7}); err != nil {
		t.Fatal(err)
	}
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Append(t.Context(), FailedTable, files, at(2, 7), at(2, 8)); !errors.Is(err, ErrGap) {
		t.Errorf("append from offset 7 of an empty table: %v", err)
	}
	if _, err := c.Append(t.Context(), FailedTable, files, at(2, 0), at(2, 8)); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := c.Scan(t.Context(), FailedTable, "", []string{"failed_id", "reason", "kafka_offset", "event_id"}, func(b arrow.RecordBatch) error {
		for i := range int(b.NumRows()) {
			for j := range int(b.NumCols()) {
				got = append(got, b.ColumnName(j)+"="+b.Column(j).ValueStr(i))
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("failed_id=f1 event_id=(null) reason=schema kafka_offset=7", strings.Join(got, " ")); d != "" {
		t.Error(d)
	}
}

// line is what the property below draws of a row.
type line struct {
	id       string
	value    *int64
	user     string
	items    int
	price    *int64
	occurred int64
}

func TestAnyRowIsReadBackAsItWasWritten(t *testing.T) {
	c := ensureTest(t)
	w, err := c.NewWriter(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	var want []line
	rapid.Check(t, func(r *rapid.T) {
		amount := rapid.Ptr(rapid.Int64Range(-maxAmount+1, maxAmount-1), true)
		l := line{
			rapid.StringN(1, 20, -1).Draw(r, "id"), amount.Draw(r, "value"), rapid.String().Draw(r, "user"),
			rapid.IntRange(0, 4).Draw(r, "items"), amount.Draw(r, "price"), rapid.Int64Range(minTime, maxTime).Draw(r, "occurred"),
		}
		e := purchase(1)
		e.ID, e.Value, e.UserID, e.OccurredAt, e.Items = l.id, l.value, l.user, l.occurred, nil
		for range l.items {
			e.Items = append(e.Items, event.Item{ItemID: l.id, ItemBrand: l.user, Price: l.price, Quantity: 3})
		}
		if l.items == 0 {
			l.price = nil
		}
		if err := w.WriteEvent(t.Context(), e, Provenance{"events.purchase", 9, int64(len(want))}); err != nil {
			r.Fatal(err)
		}
		want = append(want, l)
	})
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Append(t.Context(), "events_purchase", files, at(9, 0), at(9, len(want))); err != nil {
		t.Fatal(err)
	}
	got := make([]line, len(want))
	if err := c.Scan(t.Context(), "events_purchase", "", nil, func(b arrow.RecordBatch) error {
		for i := range int(b.NumRows()) {
			col := func(name string) arrow.Array { return b.Column(b.Schema().FieldIndices(name)[0]) }
			got[col("kafka_offset").(*array.Int64).Value(i)] = readLine(t, col, i)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(line{})); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
}

func readLine(t *testing.T, col func(string) arrow.Array, i int) line {
	t.Helper()
	items := col("items").(*array.List)
	inner := items.ListValues().(*array.Struct)
	field := func(name string) arrow.Array {
		k, _ := inner.DataType().(*arrow.StructType).FieldIdx(name)
		return inner.Field(k)
	}
	l := line{id: col("event_id").(*array.String).Value(i), value: micros(col("value"), i), occurred: int64(col("occurred_at").(*array.Timestamp).Value(i))}
	if u := col("user_id").(*array.String); u.IsValid(i) {
		l.user = u.Value(i)
	}
	start, end := items.ValueOffsets(i)
	l.items = int(end - start)
	for k := int(start); k < int(end); k++ {
		l.price = micros(field("price"), k)
		brand := ""
		if f := field("item_brand").(*array.String); f.IsValid(k) {
			brand = f.Value(k)
		}
		if field("item_id").(*array.String).Value(k) != l.id || brand != l.user || field("quantity").(*array.Int64).Value(k) != 3 {
			t.Errorf("row %d: item %d differs", i, k)
		}
	}
	return l
}

func micros(a arrow.Array, i int) *int64 {
	d := a.(*array.Decimal128)
	if d.IsNull(i) {
		return nil
	}
	v := int64(d.Value(i).LowBits())
	return &v
}

func TestFilesAreZstdAndHaveBloomFiltersOnIDs(t *testing.T) {
	c := ensureTest(t)
	w, err := c.NewWriter(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, w, 0, 1000)
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := file.OpenParquetFile(strings.TrimPrefix(files[0].FilePath(), "file://"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	var blooms []string
	for i := range r.MetaData().Schema.NumColumns() {
		col, err := r.MetaData().RowGroup(0).ColumnChunk(i)
		if err != nil {
			t.Fatal(err)
		}
		if col.Compression() != compress.Codecs.Zstd {
			t.Errorf("%s is %s", col.PathInSchema(), col.Compression())
		}
		if col.BloomFilterOffset() > 0 {
			blooms = append(blooms, col.PathInSchema().String())
		}
	}
	if d := cmp.Diff(bloomColumns("events_purchase"), blooms); d != "" {
		t.Errorf("bloom filters (-want +got):\n%s", d)
	}
}

func TestAFileOfFewRowsCarriesSmallBloomFilters(t *testing.T) {
	c := ensureTest(t)
	w, err := c.NewWriter(t.Context(), "events_custom")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		e := event.Event{ID: fmt.Sprintf("e-%d", i), Tenant: "t", Name: "x", VisitorID: fmt.Sprintf("v-%d", i)}
		e.OccurredAt, e.ReceivedAt, e.IngestedAt = 1_772_366_400_000_000, 1_772_366_400_000_000, 1_772_366_400_000_000
		if err := w.WriteEvent(t.Context(), &e, Provenance{Topic: "events.custom", Offset: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || files[0].FileSizeBytes() > 100_000 {
		t.Fatalf("%d files, the first of %d bytes", len(files), files[0].FileSizeBytes())
	}
}
