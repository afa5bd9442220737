package lakehouse

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// commits makes n commits of each rows and gives the snapshots, oldest first.
func commits(t testing.TB, c *Catalog, from, n, each int) []int64 {
	t.Helper()
	var out []int64
	for i := range n {
		head, err := appendTest(t, c, from+i*each, from+(i+1)*each)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, head.SnapshotID)
	}
	return out
}

func publishedAt(t testing.TB, c *Catalog) int64 {
	t.Helper()
	r, err := c.Ref(t.Context(), purchases, RefPublished)
	if errors.Is(err, ErrNoRef) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.SnapshotID
}

func TestPublishedOnlyMovesForwardUnderMain(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 4, 10)
	for _, step := range []struct {
		name     string
		from, to int64
		want     error
		at       int64
	}{
		{"a first move that says the ref is there already", s[0], s[1], ErrRefMoved, 0},
		{"the first move", 0, s[0], nil, s[0]},
		{"the same call again after a lost reply", 0, s[0], nil, s[0]},
		{"a move that takes it to be absent", 0, s[1], ErrRefMoved, s[0]},
		{"over a snapshot", s[0], s[2], nil, s[2]},
		{"back", s[2], s[1], ErrBackward, s[2]},
		{"from where it was before", s[0], s[3], ErrRefMoved, s[2]},
		{"to a snapshot that is not there", s[2], 4711, ErrNoSnapshot, s[2]},
		{"to the head", s[2], s[3], nil, s[3]},
	} {
		if err := c.MoveRef(t.Context(), purchases, RefPublished, step.from, step.to); !errors.Is(err, step.want) {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := publishedAt(t, c); got != step.at {
			t.Fatalf("%s: published is at %d, not %d", step.name, got, step.at)
		}
	}
	if err := c.MoveRef(t.Context(), purchases, RefMain, s[3], s[0]); err == nil {
		t.Error("main was moved")
	}
	if err := c.DropRef(t.Context(), purchases, RefPublished); err == nil {
		t.Error("published was dropped")
	}
	wantRows(t, c, 40)
}

// What was appended before a rollback hangs on no branch; it must never be published, however new it is.
func TestAbandonedBranchIsNeverPublished(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 3, 10)
	if err := c.MoveRef(t.Context(), purchases, RefPublished, 0, s[0]); err != nil {
		t.Fatal(err)
	}
	rollback(t, c, purchases, s[0])
	again := commits(t, c, 10, 1, 25) // other boundaries
	for _, abandoned := range s[1:] {
		if err := c.MoveRef(t.Context(), purchases, RefPublished, s[0], abandoned); !errors.Is(err, ErrBackward) {
			t.Errorf("snapshot %d: %v", abandoned, err)
		}
		if _, err := c.Changes(t.Context(), purchases, abandoned, again[0]); !errors.Is(err, ErrDiverged) {
			t.Errorf("changes since %d: %v", abandoned, err)
		}
	}
	if err := c.MoveRef(t.Context(), purchases, RefPublished, s[0], again[0]); err != nil {
		t.Error(err)
	}
}

func TestOfTwoWhoMovePublishedFromOneSnapshotOneWins(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 5, 5)
	if err := c.MoveRef(t.Context(), purchases, RefPublished, 0, s[0]); err != nil {
		t.Fatal(err)
	}
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = c.MoveRef(t.Context(), purchases, RefPublished, s[0], s[i+1]) })
	}
	wg.Go(func() { commits(t, c, 25, 3, 5) }) // while main moves on
	wg.Wait()
	won := int64(0)
	for i, err := range errs {
		switch {
		case err == nil && won == 0:
			won = s[i+1]
		case !errors.Is(err, ErrRefMoved):
			t.Errorf("move to %d: %v (another had won: %t)", s[i+1], err, won != 0)
		}
	}
	if got := publishedAt(t, c); got != won || won == 0 {
		t.Errorf("published is at %d, but %d won", got, won)
	}
}

func TestPublishedMovesOnAfterTheSnapshotsBetweenHaveExpired(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 6, 10)
	if err := c.MoveRef(t.Context(), purchases, RefPublished, 0, s[0]); err != nil {
		t.Fatal(err)
	}
	if n, err := c.ExpireSnapshots(t.Context(), purchases, 0, 1); err != nil || n != 4 {
		t.Fatalf("expired %d: %v", n, err)
	}
	if _, err := c.Changes(t.Context(), purchases, s[0], s[5]); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("changes over an expired chain: %v", err)
	}
	if err := c.MoveRef(t.Context(), purchases, RefPublished, s[0], s[5]); err != nil {
		t.Error(err)
	}
}

func TestExpiredSnapshotIsNamedWithWhatIsLeft(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 4, 10)
	before, err := c.Ref(t.Context(), purchases, fmt.Sprintf("snapshot:%d", s[0]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExpireSnapshots(t.Context(), purchases, 0, 2); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"a ref": func() error { _, err := c.Ref(t.Context(), purchases, fmt.Sprintf("snapshot:%d", s[0])); return err },
		"a time before all that is known": func() error {
			_, err := c.Ref(t.Context(), purchases, "as-of:"+before.At.Add(-time.Hour).Format(time.RFC3339))
			return err
		},
		"a scan": func() error {
			return c.ScanRows(t.Context(), purchases, ScanOptions{Snapshot: s[1]}, func(arrow.RecordBatch) error { return nil })
		},
		"a tag":        func() error { return c.Tag(t.Context(), purchases, "nightly-2026-03-01", s[0], time.Hour) },
		"publishing":   func() error { return c.MoveRef(t.Context(), purchases, RefPublished, 0, s[1]) },
		"all changes":  func() error { _, err := c.Changes(t.Context(), purchases, 0, s[3]); return err },
		"some changes": func() error { _, err := c.Changes(t.Context(), purchases, s[0], s[3]); return err },
	} {
		if err := call(); !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ch, err := c.Changes(t.Context(), purchases, s[1], s[3]); err != nil || len(ch) != 2 { // s[1] has gone, but what came after it has not
		t.Errorf("%d changes: %v", len(ch), err)
	}
}

func TestTagsAreSetMovedAndDropped(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 2, 10)
	const day = "nightly-2026-03-01"
	for _, to := range []int64{s[0], s[0], s[1]} {
		if err := c.Tag(t.Context(), purchases, day, to, 48*time.Hour); err != nil {
			t.Fatal(err)
		}
		r, err := c.Ref(t.Context(), purchases, day)
		if err != nil || r.SnapshotID != to || r.Kind != "tag" || time.Until(r.Until) < 47*time.Hour || time.Until(r.Until) > 49*time.Hour {
			t.Fatalf("%+v: %v", r, err)
		}
	}
	for _, bad := range []string{"main", "published", "lease.x.y", "", "a/b", "-a", "nightly 1"} {
		if err := c.Tag(t.Context(), purchases, bad, s[0], 0); err == nil {
			t.Errorf("tag %q was set", bad)
		}
	}
	if err := c.MoveRef(t.Context(), purchases, day, s[1], s[0]); err == nil {
		t.Error("a tag was moved as a branch")
	}
	if err := c.MoveRef(t.Context(), purchases, RefPublished, 0, s[0]); err != nil {
		t.Fatal(err)
	}
	refs, err := c.Refs(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range refs {
		names = append(names, r.Name)
	}
	if d := cmp.Diff([]string{"main", "published", day}, names); d != "" {
		t.Error(d)
	}
	if err := c.DropRef(t.Context(), purchases, day); err != nil {
		t.Fatal(err)
	}
	if err := c.DropRef(t.Context(), purchases, day); !errors.Is(err, ErrNoRef) {
		t.Errorf("dropped twice: %v", err)
	}
	if _, err := c.Ref(t.Context(), purchases, day); !errors.Is(err, ErrNoRef) {
		t.Errorf("got %v", err)
	}
}

func TestATimeIsWhatMainWasThenAlsoAfterARollback(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	if r, err := c.Ref(t.Context(), purchases, RefMain); err != nil || r.SnapshotID != 0 {
		t.Fatalf("an empty table: %+v, %v", r, err)
	}
	s := commits(t, c, 0, 2, 10)
	rollback(t, c, purchases, s[0])
	now, err := c.Ref(t.Context(), purchases, "as-of:"+time.Now().Add(time.Minute).Format(time.RFC3339))
	if err != nil || now.SnapshotID != s[0] {
		t.Errorf("now it is %d, not %d: %v", now.SnapshotID, s[0], err)
	}
	for _, bad := range []string{"as-of:yesterday", "snapshot:x", "snapshot:-1", "nowhere"} {
		if _, err := c.Ref(t.Context(), purchases, bad); err == nil {
			t.Errorf("%s was found", bad)
		}
	}
}

func TestChangesNameTheFilesThatCameAndWent(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 3, 50)
	_, res := compact(t, c, small())
	last := commits(t, c, 150, 1, 50)[0]
	all, err := c.Changes(t.Context(), purchases, 0, last)
	if err != nil {
		t.Fatal(err)
	}
	type brief struct {
		ID             int64
		Kind           string
		Added, Removed int
		Rows           int64
	}
	var got []brief
	for _, ch := range all {
		got = append(got, brief{ch.SnapshotID, ch.Kind, len(ch.Added), len(ch.Removed), ch.Rows})
	}
	want := []brief{
		{s[0], KindAppend, 1, 0, 50},
		{s[1], KindAppend, 1, 0, 50},
		{s[2], KindAppend, 1, 0, 50},
		{res.SnapshotID, KindRewrite, 1, 3, 0},
		{last, KindAppend, 1, 0, 50},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	gone := map[string]bool{}
	for _, f := range all[3].Removed {
		gone[f] = true
	}
	for _, ch := range all[:3] {
		if !gone[ch.Added[0]] {
			t.Errorf("%s was rewritten, but is not named", ch.Added[0])
		}
	}
	if d := cmp.Diff(at(0, 150), all[3].Vector); d != "" {
		t.Error(d)
	}
	if some, err := c.Changes(t.Context(), purchases, s[1], res.SnapshotID); err != nil || len(some) != 2 || some[0].SnapshotID != s[2] {
		t.Errorf("%+v: %v", some, err)
	}
	if none, err := c.Changes(t.Context(), purchases, last, last); err != nil || len(none) != 0 {
		t.Errorf("%+v: %v", none, err)
	}
	if _, err := c.Changes(t.Context(), purchases, last, s[1]); !errors.Is(err, ErrDiverged) {
		t.Errorf("backwards: %v", err)
	}
	log, err := c.Log(t.Context(), purchases, RefMain, 2)
	if err != nil || len(log) != 2 || log[0].SnapshotID != last || log[1].Kind != KindRewrite {
		t.Errorf("log %+v: %v", log, err)
	}
}

// offsetsOf scans and gives partition → offsets.
func offsetsOf(t testing.TB, c *Catalog, o ScanOptions) map[int32]map[int64]int {
	t.Helper()
	out := map[int32]map[int64]int{}
	o.Columns = []string{"kafka_partition", "kafka_offset"}
	err := c.ScanRows(t.Context(), purchases, o, func(b arrow.RecordBatch) error {
		p, ok1 := b.Column(b.Schema().FieldIndices("kafka_partition")[0]).(*array.Int32)
		off, ok2 := b.Column(b.Schema().FieldIndices("kafka_offset")[0]).(*array.Int64)
		if !ok1 || !ok2 || b.NumCols() != 2 {
			return fmt.Errorf("columns %s", b.Schema())
		}
		for i := range p.Len() {
			if out[p.Value(i)] == nil {
				out[p.Value(i)] = map[int64]int{}
			}
			out[p.Value(i)][off.Value(i)]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestScansByOffsetsGiveExactlyTheirRows: any range of any partitions, over appended and rewritten files.
func TestScansByOffsetsGiveExactlyTheirRows(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	const parts, rounds, each = 3, 3, 40
	for r := range rounds {
		for p := range int32(parts) {
			w, err := c.NewWriter(t.Context(), purchases)
			if err != nil {
				t.Fatal(err)
			}
			for i := range each {
				off := r*each + i
				if err := w.WriteEvent(t.Context(), purchase(int(p)*10_000+off), Provenance{"events.purchase", p, int64(off)}); err != nil {
					t.Fatal(err)
				}
			}
			files, err := w.Finish(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Append(t.Context(), purchases, files, at(p, r*each), at(p, (r+1)*each)); err != nil {
				t.Fatal(err)
			}
		}
		if r == 1 {
			compact(t, c, small())
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		bound := rapid.Custom(func(rt *rapid.T) Vector {
			v := Vector{testTopic: {}}
			for p := range int32(parts) {
				if rapid.Bool().Draw(rt, "has") {
					v[testTopic][p] = rapid.Int64Range(0, rounds*each+5).Draw(rt, "at")
				}
			}
			return v
		})
		o := ScanOptions{From: bound.Draw(rt, "from")}
		if rapid.Bool().Draw(rt, "bounded") {
			o.To = bound.Draw(rt, "to")
		}
		want := map[int32]map[int64]int{}
		for p := range int32(parts) {
			hi := int64(rounds * each)
			if o.To != nil {
				hi = min(hi, o.To.At(testTopic, p))
			}
			for off := o.From.At(testTopic, p); off < hi; off++ {
				if want[p] == nil {
					want[p] = map[int64]int{}
				}
				want[p][off] = 1
			}
		}
		if d := cmp.Diff(want, offsetsOf(t, c, o)); d != "" {
			rt.Fatalf("from %s to %s: %s", o.From, o.To, d)
		}
	})
}

func TestScansReadOneSnapshotFilteredAndLimited(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 3, 20)
	if err := c.Tag(t.Context(), purchases, "before", s[0], time.Hour); err != nil {
		t.Fatal(err)
	}
	count := func(o ScanOptions) int {
		n := 0
		for _, offs := range offsetsOf(t, c, o) {
			n += len(offs)
		}
		return n
	}
	for name, tc := range map[string]struct {
		o    ScanOptions
		want int
	}{
		"main":              {ScanOptions{}, 60},
		"a tag":             {ScanOptions{Ref: "before"}, 20},
		"a snapshot":        {ScanOptions{Snapshot: s[1]}, 40},
		"a snapshot as ref": {ScanOptions{Ref: fmt.Sprintf("snapshot:%d", s[1])}, 40},
		"a filter":          {ScanOptions{Filter: iceberg.EqualTo(iceberg.Reference("currency"), "EUR")}, 16},
		"a filter on a column behind a list of structs": {ScanOptions{Filter: iceberg.IsNull(iceberg.Reference("tax"))}, 0},
		"another":           {ScanOptions{Filter: iceberg.NewAnd(iceberg.EqualTo(iceberg.Reference("schema_version"), int32(1)), iceberg.EqualTo(iceberg.Reference("event_id"), "e-000030"))}, 1},
		"a limit":           {ScanOptions{Limit: 7}, 7},
		"a limit over all":  {ScanOptions{Limit: 700}, 60},
		"a filter, a limit": {ScanOptions{Filter: iceberg.EqualTo(iceberg.Reference("event_id"), "e-000030"), Limit: 7}, 1},
	} {
		if got := count(tc.o); got != tc.want {
			t.Errorf("%s: %d rows, not %d", name, got, tc.want)
		}
	}
	none := func(arrow.RecordBatch) error { return nil }
	if err := c.ScanRows(t.Context(), purchases, ScanOptions{Ref: "main", Snapshot: s[0]}, none); err == nil {
		t.Error("a ref and a snapshot were taken together")
	}
	if err := c.ScanRows(t.Context(), purchases, ScanOptions{Ref: "nowhere"}, none); !errors.Is(err, ErrNoRef) {
		t.Errorf("got %v", err)
	}
	if err := c.ScanRows(t.Context(), purchases, ScanOptions{From: Vector{"a": {0: 1}}, To: Vector{"b": {0: 2}}}, none); err == nil {
		t.Error("offsets of two topics were taken")
	}
}
