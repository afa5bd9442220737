package lakehouse

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"

	"millrace/event"
)

func partTest() Part {
	return Part{RawTopic: "raw.purchase", From: event.Time(baseTime), To: event.Time(baseTime).Add(time.Hour)}
}

func spotsTest(t testing.TB, c *Catalog, snapshot int64) map[int64]int {
	t.Helper()
	out := map[int64]int{}
	if err := c.Spots(t.Context(), "events_purchase", snapshot, partTest(), nil, func(s Spot) error {
		if want := purchase(int(s.RawOffset)); s.Hash != want.RowHash || s.At != s.RawOffset || s.Partition != 0 {
			return fmt.Errorf("spot %+v", s)
		}
		out[s.RawOffset]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func storedTest(from, to int) []event.Stored {
	var out []event.Stored
	for i := from; i < to; i++ {
		out = append(out, event.Stored{Event: purchase(i), Topic: "events.purchase", Offset: int64(i)})
	}
	return out
}

func TestRowsAreReadBackAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	h, err := appendTest(t, c, 0, 50)
	if err != nil {
		t.Fatal(err)
	}
	got := map[int64]event.Stored{}
	offsets := []int64{0, 3, 49, 77}
	if err := c.StoredRows(t.Context(), "events_purchase", h.SnapshotID, partTest(), 0, offsets, func(s event.Stored) error {
		got[s.Offset] = s
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := map[int64]event.Stored{}
	for _, i := range []int{0, 3, 49} {
		want[int64(i)] = storedTest(i, i+1)[0]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := len(spotsTest(t, c, h.SnapshotID)); n != 50 {
		t.Errorf("%d spots", n)
	}
	n := 0
	within := &Within{Partition: 0, From: 10, To: 20}
	if err := c.Spots(t.Context(), "events_purchase", h.SnapshotID, partTest(), within, func(s Spot) error { n++; return nil }); err != nil || n != 10 {
		t.Errorf("%d spots within, %v", n, err)
	}
	later := partTest()
	later.From = event.Time(purchase(40).IngestedAt)
	n = 0
	if err := c.Spots(t.Context(), "events_purchase", h.SnapshotID, later, nil, func(s Spot) error { n++; return nil }); err != nil || n != 10 {
		t.Errorf("%d spots of the part's end, %v", n, err)
	}
}

func TestARepairAddsRowsOnceAndCarriesTheOffsets(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	for _, r := range [][2]int{{0, 10}, {20, 30}} { // the offsets between are passed over, as after a rollback that skips
		w, err := c.NewWriter(t.Context(), "events_purchase")
		if err != nil {
			t.Fatal(err)
		}
		write(t, c, w, r[0], r[1])
		files, err := w.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Append(t.Context(), "events_purchase", files, at(0, r[0]/20*10), at(0, r[1])); err != nil {
			t.Fatal(err)
		}
	}
	for again := range 2 {
		out, err := c.AppendRows(t.Context(), "events_purchase", testTopic, "repair:1", storedTest(10, 20))
		if err != nil || out.Rows != 10 || out.Again != (again == 1) || out.SnapshotID == 0 {
			t.Errorf("%+v, %v", out, err)
		}
	}
	h, err := c.Head(t.Context(), "events_purchase")
	if err != nil || h.Rows != 30 || h.Vector.At(testTopic, 0) != 30 {
		t.Errorf("%+v, %v", h, err)
	}
	log, err := c.Log(t.Context(), "events_purchase", RefMain, 1)
	if err != nil || log[0].Kind != KindRepair {
		t.Errorf("%+v, %v", log, err)
	}
	for o, n := range spotsTest(t, c, h.SnapshotID) {
		if n != 1 {
			t.Errorf("offset %d is there %d times", o, n)
		}
	}
	if _, err := c.AppendRows(t.Context(), "events_purchase", testTopic, "repair:2", storedTest(30, 31)); !errors.Is(err, ErrConflict) {
		t.Errorf("a row beyond the head's offsets: %v", err)
	}
	if h, _ := appendTest(t, c, 30, 40); h.Rows != 40 {
		t.Errorf("the stream goes on: %+v", h)
	}
}

func TestARepairDropsSurplusRowsAndKeepsOneOfCopies(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	if _, err := appendTest(t, c, 0, 100); err != nil {
		t.Fatal(err)
	}
	// Copies of 10 to 19 in another file, of 20 to 24 twice more, and one row of an offset that nobody knows.
	extra := append(append(storedTest(10, 25), storedTest(20, 25)...), storedTest(99, 100)...)
	bogus := storedTest(50, 51)[0]
	bogus.Event.RawOffset = 5000
	if _, err := c.AppendRows(t.Context(), "events_purchase", testTopic, "copies", append(extra, bogus)); err != nil {
		t.Fatal(err)
	}
	drop := map[int64]bool{5000: false}
	for _, s := range extra {
		drop[s.Offset] = true
	}
	for again := range 2 {
		out, err := c.DropRows(t.Context(), "events_purchase", "repair:1", partTest(), 0, drop)
		if err != nil || out.Again != (again == 1) || out.Rows != 22 {
			t.Errorf("%+v, %v", out, err)
		}
	}
	h, err := c.Head(t.Context(), "events_purchase")
	if err != nil || h.Rows != 100 || h.Vector.At(testTopic, 0) != 100 {
		t.Errorf("%+v, %v", h, err)
	}
	got := spotsTest(t, c, h.SnapshotID)
	for i := range 100 {
		if got[int64(i)] != 1 {
			t.Errorf("offset %d is there %d times", i, got[int64(i)])
		}
	}
	have, err := c.Totals(t.Context(), "events_purchase")
	if want := wantTotals(100); err != nil || have.Checksum != want.Checksum {
		t.Errorf("%+v, %v", have.Checksum, err)
	}
}

func TestAFileThatAPlanSplitsIsTakenOnceAndAsAWhole(t *testing.T) {
	t.Parallel()
	file := func(path string) iceberg.DataFile {
		b, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, iceberg.EntryContentData, path, iceberg.ParquetFile, nil, nil, nil, 10, 300)
		if err != nil {
			t.Fatal(err)
		}
		return b.Build()
	}
	left := iceberg.EqualTo(iceberg.Reference("name"), "purchase")
	got := wholeFiles([]table.FileScanTask{{File: file("b"), Start: 100, Length: 200, Residual: left}, {File: file("a"), Length: 300}, {File: file("b"), Length: 100, Residual: left}})
	var text []string
	for _, task := range got {
		text = append(text, fmt.Sprint(task.File.FilePath(), task.Start, task.Length, task.Residual))
	}
	if diff := cmp.Diff([]string{"a0 300 <nil>", "b0 300 <nil>"}, text); diff != "" {
		t.Error(diff)
	}
}
