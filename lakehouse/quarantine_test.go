package lakehouse

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"

	"millrace/event"
)

var yen = iceberg.EqualTo(iceberg.Reference("currency"), "JPY")

// sumOf is the checksum of a table at main.
func sumOf(t testing.TB, c *Catalog, name string) event.Checksum {
	t.Helper()
	var s sum
	if err := c.ScanRows(t.Context(), name, ScanOptions{Columns: []string{"row_hash"}}, func(b arrow.RecordBatch) error { return s.add(b) }); err != nil {
		t.Fatal(err)
	}
	return s.Checksum
}

// yens is the checksum of the purchases below n that are, or are not, in yen.
func yens(n int, yes bool) event.Checksum {
	var out event.Checksum
	for i := range n {
		if e := purchase(i); (e.Currency == "JPY") == yes {
			out.Add(e.RowHash)
		}
	}
	return out
}

func TestRowsGoIntoQuarantineAndComeBackByRelease(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	commits(t, c, 0, 3, 40)
	if runs, err := c.Quarantined(t.Context(), purchases); err != nil || len(runs) != 0 {
		t.Fatalf("%v, %v", runs, err)
	}
	in := yens(120, true)
	for again := range 2 { // the same run again does nothing
		res, err := c.Quarantine(t.Context(), purchases, "q1", "no yen", yen)
		if err != nil {
			t.Fatal(err)
		}
		if res.Rows != in.Count || again == 0 && res.Removed != in.Count || again == 1 && res.Removed != 0 {
			t.Errorf("%+v", res)
		}
	}
	if d := cmp.Diff(yens(120, false), sumOf(t, c, purchases)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(in, sumOf(t, c, QuarantineTable(purchases))); d != "" {
		t.Error(d)
	}
	head, err := c.Head(t.Context(), purchases)
	if err != nil || head.Vector.At(testTopic, 0) != 120 {
		t.Errorf("head %+v: %v", head, err)
	}
	log, err := c.Log(t.Context(), purchases, RefMain, 1)
	if err != nil || log[0].Kind != KindQuarantine || log[0].Operation != string(table.OpOverwrite) || log[0].Rows != -in.Count {
		t.Errorf("log %+v: %v", log, err)
	}
	runs, err := c.Quarantined(t.Context(), purchases)
	if err != nil || len(runs) != 1 || runs[0].Run != "q1" || runs[0].Reason != "no yen" || runs[0].Rows != in.Count || runs[0].At.IsZero() {
		t.Errorf("%+v: %v", runs, err)
	}
	ranges := []RangeResult{{ControlRange: ControlRange{RawPartition: RawPartition{"raw.purchase", 0}, From: 0, To: 60}}, {ControlRange: ControlRange{RawPartition: RawPartition{"raw.purchase", 0}, From: 60, To: 120}}}
	if n, err := c.AddQuarantined(t.Context(), purchases, ranges); err != nil || n != in.Count || ranges[0].Found != yens(60, true) {
		t.Errorf("%d, %+v: %v", n, ranges, err)
	}

	commits(t, c, 120, 1, 40) // the stream goes on, with yen
	for again := range 2 {
		res, err := c.Release(t.Context(), purchases, "q1", "r1", nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := []int64{in.Count, 0}[again]; res.Rows != want || res.Removed != want {
			t.Errorf("%+v", res)
		}
	}
	wantRows(t, c, 160)
	if left := sumOf(t, c, QuarantineTable(purchases)); left.Count != 0 {
		t.Errorf("%d rows are still in quarantine", left.Count)
	}
	if log, err = c.Log(t.Context(), purchases, RefMain, 1); err != nil || log[0].Kind != KindRelease {
		t.Errorf("log %+v: %v", log, err)
	}
}

// TestARunThatEndedBetweenQuarantineAndTableIsMendedByAnother: the rows are in both, and never in none.
func TestARunThatEndedBetweenQuarantineAndTableIsMendedByAnother(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	commits(t, c, 0, 2, 60)
	if err := c.ensureQuarantine(t.Context(), purchases); err != nil {
		t.Fatal(err)
	}
	stored := func() {
		_, err := c.copyRows(t.Context(), rowCopy{
			from: purchases, to: QuarantineTable(purchases), scan: ScanOptions{Filter: yen}, key: QuarantineKey, run: "q1",
			add: map[string]func(int) arrow.Array{quarantineReason: texts("x"), quarantineRun: texts("q1"), quarantineAt: stamps(event.Time(baseTime))},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	stored()
	stored() // two processes at once: one commit
	wantRows(t, c, 120)
	commits(t, c, 120, 1, 30) // rows that the filter names as well, but the run has not taken
	res, err := c.Quarantine(t.Context(), purchases, "q1", "no yen", yen)
	if in := yens(120, true); err != nil || res.Rows != in.Count || res.Removed != in.Count {
		t.Errorf("%+v: %v", res, err)
	}
	want := yens(150, false)
	for i := 120; i < 150; i++ {
		if e := purchase(i); e.Currency == "JPY" {
			want.Add(e.RowHash)
		}
	}
	if d := cmp.Diff(want, sumOf(t, c, purchases)); d != "" {
		t.Error(d)
	}
	// A release that ended before the rows left the quarantine: another release finds them in the table.
	if _, err := c.Release(t.Context(), purchases, "q1", "r1", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.copyRows(t.Context(), rowCopy{
		from: purchases, to: QuarantineTable(purchases), scan: ScanOptions{Filter: yen}, key: QuarantineKey, run: "q2",
		add: map[string]func(int) arrow.Array{quarantineReason: texts("x"), quarantineRun: texts("q2"), quarantineAt: stamps(event.Time(baseTime))},
	}); err != nil {
		t.Fatal(err)
	}
	if res, err = c.Release(t.Context(), purchases, "q2", "r2", nil); err != nil || res.Rows != 0 || res.Present == 0 || res.Removed != res.Present {
		t.Errorf("%+v: %v", res, err)
	}
	wantRows(t, c, 150)
}

func TestWhatWasErasedInTheMeantimeIsNotReleased(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	commits(t, c, 0, 1, 60)
	if _, err := c.Quarantine(t.Context(), purchases, "q1", "no yen", yen); err != nil {
		t.Fatal(err)
	}
	key := event.SubjectKey{1}
	erased := event.NewErased(key)
	digest := key.Digest(event.Subject{Tenant: "default", Kind: event.SubjectVisitor, ID: purchase(2).VisitorID})
	if err := erased.Add(event.Erasure{RequestID: "e1", Key: key.ID(), Cut: event.Cut{"raw.purchase": {1000}}.String(), Subjects: []string{digest.String()}}); err != nil {
		t.Fatal(err)
	}
	res, err := c.Release(t.Context(), purchases, "q1", "r1", erased)
	if in := yens(60, true); err != nil || res.Dropped != 1 || res.Rows != in.Count-1 || res.Removed != in.Count {
		t.Errorf("%+v: %v", res, err)
	}
	if n := sumOf(t, c, purchases).Count; n != 59 {
		t.Errorf("%d rows", n)
	}
}

func TestRowsThatAnotherEngineDeletedDoNotComeBackWithAQuarantine(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	commits(t, c, 0, 1, 60)
	tbl, err := c.LoadForMaintenance(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	tx := tbl.NewTransaction()
	if err := tx.SetProperties(iceberg.Properties{table.WriteDeleteModeKey: table.WriteModeMergeOnRead}); err != nil {
		t.Fatal(err)
	}
	props, err := CarryOffsets(tbl)
	if err == nil {
		err = tx.Delete(t.Context(), iceberg.EqualTo(iceberg.Reference("event_id"), purchase(7).ID), props)
	}
	if err == nil {
		_, err = tx.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := sumOf(t, c, purchases).Count; n != 59 {
		t.Fatalf("%d rows after the delete", n)
	}
	if _, err := c.Quarantine(t.Context(), purchases, "q1", "no yen", yen); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Release(t.Context(), purchases, "q1", "r1", nil); err != nil {
		t.Fatal(err)
	}
	rows := rowIDs(t, c)
	if len(rows) != 59 || slices.Contains(rows, purchase(7).ID) {
		t.Errorf("%d rows", len(rows))
	}
}

func rowIDs(t testing.TB, c *Catalog) []string {
	t.Helper()
	var out []string
	if err := c.ScanRows(t.Context(), purchases, ScanOptions{Columns: []string{"event_id"}}, func(b arrow.RecordBatch) error {
		col, ok := b.Column(0).(*array.String)
		if !ok {
			return fmt.Errorf("event_id is %s", b.Column(0).DataType())
		}
		for i := range col.Len() {
			out = append(out, col.Value(i))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestQuarantineAndTheStreamCommitBesideEachOther(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	commits(t, c, 0, 4, 50)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 6 {
			if _, err := appendTest(t, c, 200+i*20, 220+i*20); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := range 3 {
		run := fmt.Sprint("q", i)
		filter := iceberg.NewAnd(yen, iceberg.LessThan(iceberg.Reference("kafka_offset"), int64(50*(i+1))))
		if _, err := c.Quarantine(t.Context(), purchases, run, "no yen", filter); err != nil && !errors.Is(err, ErrConflict) {
			t.Fatal(err)
		}
	}
	<-done
	for i := range 3 {
		if _, err := c.Release(t.Context(), purchases, fmt.Sprint("q", i), fmt.Sprint("r", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	wantRows(t, c, 320)
}
