package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"
)

const purchases = "events_purchase"

// small is a policy for the few rows of tests.
func small() Policy {
	p := PolicyOf(purchases)
	p.TargetFileBytes, p.MaxGroupBytes, p.MinInputFiles, p.MemoryBytes = 16<<20, 16<<20, 2, 1<<20
	return p
}

// appendMany makes n commits of each rows from row from.
func appendMany(t testing.TB, c *Catalog, from, n, each int) {
	t.Helper()
	for i := range n {
		if _, err := appendTest(t, c, from+i*each, from+(i+1)*each); err != nil {
			t.Fatal(err)
		}
	}
}

// compact rewrites all groups of a plan and commits them.
func compact(t testing.TB, c *Catalog, p Policy) (Plan, CommitResult) {
	t.Helper()
	plan, err := c.PlanCompaction(t.Context(), purchases, p)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.CommitRewrite(t.Context(), plan, groups(t, c, plan))
	if err != nil {
		t.Fatal(err)
	}
	return plan, res
}

func groups(t testing.TB, c *Catalog, plan Plan) []GroupResult {
	t.Helper()
	var out []GroupResult
	for i := range plan.Groups {
		r, err := c.CompactGroup(t.Context(), plan, i, nil)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func wantRows(t testing.TB, c *Catalog, n int) {
	t.Helper()
	totals, err := c.Totals(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	want := wantTotals(n)
	if totals.Checksum != want.Checksum || totals.Distinct != int64(n) {
		t.Fatalf("the table has %+v (%d distinct), not %+v", totals.Checksum, totals.Distinct, want.Checksum)
	}
}

// dataFiles are the files of the table's data folder.
func dataFiles(t testing.TB, c *Catalog) []string {
	t.Helper()
	var out []string
	root := filepath.Join(bare(c.cfg.Warehouse), c.cfg.Namespace, purchases, "data")
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCompactionKeepsEveryRowAndTheVectorInOneFileInOrder(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	const n, each = 12, 250
	appendMany(t, c, 0, n, each)
	var rows, bytes int64
	plan, err := c.PlanCompaction(t.Context(), purchases, small())
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Groups) != 1 || plan.Files != n || plan.Rows != n*each || plan.Groups[0].Partition != "ingested_at_day=2026-03-01" {
		t.Fatalf("plan %+v", plan)
	}
	again, err := c.PlanCompaction(t.Context(), purchases, small())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(plan, again); d != "" {
		t.Errorf("the same snapshot gives another plan: %s", d)
	}
	r, err := c.CompactGroup(t.Context(), plan, 0, func(r, b int64) { rows, bytes = r, b })
	if err != nil {
		t.Fatal(err)
	}
	if rows != n*each || bytes != plan.Bytes || r.Rows != n*each || r.Files != 1 || r.FilesIn != n {
		t.Errorf("progress %d rows %d bytes, result %+v", rows, bytes, r)
	}
	if repeated, err := c.CompactGroup(t.Context(), plan, 0, nil); err != nil || repeated != r {
		t.Errorf("a repeated call gives %+v: %v", repeated, err)
	}
	if got := len(dataFiles(t, c)); got != n+1 {
		t.Errorf("%d files, not %d", got, n+1)
	}
	before, err := c.Head(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.CommitRewrite(t.Context(), plan, []GroupResult{r})
	if err != nil || res.Removed != n || res.Added != 1 {
		t.Fatalf("%+v: %v", res, err)
	}
	if repeated, err := c.CommitRewrite(t.Context(), plan, []GroupResult{r}); err != nil || !repeated.Again || repeated.SnapshotID != res.SnapshotID || repeated.Removed != n {
		t.Errorf("a repeated commit gives %+v: %v", repeated, err)
	}
	head, err := c.Head(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	if head.Files != 1 || head.Rows != n*each || !cmp.Equal(head.Vector, before.Vector) || head.SnapshotID != res.SnapshotID {
		t.Errorf("head %+v", head)
	}
	wantRows(t, c, n*each)
	inOrder(t, c)
	appendMany(t, c, n*each, 1, 10) // the stream goes on
	if plan, err := c.PlanCompaction(t.Context(), purchases, small()); err != nil || len(plan.Groups) != 1 {
		t.Errorf("%+v %v", plan, err)
	}
}

// inOrder checks the order of all rows of the table, which must be one file.
func inOrder(t testing.TB, c *Catalog) {
	t.Helper()
	var last string
	err := c.Scan(t.Context(), purchases, "", []string{"occurred_at", "visitor_id"}, func(b arrow.RecordBatch) error {
		for i := range int(b.NumRows()) {
			at := b.Column(b.Schema().FieldIndices("occurred_at")[0]).(*array.Timestamp).Value(i)
			k := fmt.Sprintf("%08d %-10s %020d", floorDiv(int64(at), 24*3600*1_000_000), b.Column(b.Schema().FieldIndices("visitor_id")[0]).(*array.String).Value(i), at)
			if k < last {
				return fmt.Errorf("%s comes after %s", k, last)
			}
			last = k
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAGroupLargerThanTheBudgetIsSortedOnDisk(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	const n, each = 8, 5000
	appendMany(t, c, 0, n, each)
	p := small()
	p.TargetFileBytes, p.MaxGroupBytes = 64<<20, 64<<20
	compact(t, c, p)
	head, err := c.Head(t.Context(), purchases)
	if err != nil || head.Files != 1 {
		t.Fatalf("%+v %v", head, err)
	}
	wantRows(t, c, n*each)
	inOrder(t, c)
	left, err := filepath.Glob(filepath.Join(bare(c.cfg.Warehouse), "_maintenance", "*", "*", "scratch", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("sorting left %v %v", left, err)
	}
}

func TestATableOfOneLargeFileIsLeftAlone(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 1, 3000)
	p := small()
	p.TargetFileBytes, p.MaxGroupBytes = 2<<10, 2<<10
	for _, p := range []Policy{p, small()} {
		plan, err := c.PlanCompaction(t.Context(), purchases, p)
		if err != nil || len(plan.Groups) != 0 {
			t.Errorf("%+v %v", plan, err)
		}
	}
	if res, err := c.CommitRewrite(t.Context(), Plan{Table: purchases}, nil); err != nil || res.SnapshotID != 0 {
		t.Errorf("%+v %v", res, err)
	}
}

func TestSmallFilesOfAnOpenDayAreRewrittenByTiers(t *testing.T) {
	p := PolicyOf(purchases)
	p.MinInputFiles = 4
	part := func(sizes ...int64) *livePartition {
		out := &livePartition{}
		for i, s := range sizes {
			out.files = append(out.files, liveFile{path: fmt.Sprintf("f%02d", i), bytes: s << 10, seq: int64(i + 1), rows: 10})
			out.rows += 10
		}
		return out
	}
	for name, tc := range map[string]struct {
		part   *livePartition
		closed bool
		want   []int // sizes of groups
	}{
		"few small files wait":                           {part(10, 10, 10), false, nil},
		"as many as the policy says are taken":           {part(10, 10, 10, 10), false, []int{4}},
		"a much larger one is not written again":         {part(10, 10, 10, 10, 9000), false, []int{4}},
		"one of their size is":                           {part(10, 10, 10, 10, 100), false, []int{5}},
		"larger ones among themselves are":               {part(1, 1, 1, 1, 900, 900, 900, 900), false, []int{4, 4}},
		"a closed day takes two":                         {part(10, 9000), true, []int{2}},
		"one file is nothing to compact":                 {part(10), true, nil},
		"files of the target size are left alone":        {part(250<<10, 250<<10, 260<<10), true, nil},
		"two that would give two are left alone":         {part(150<<10, 150<<10), true, nil},
		"a group is no larger than the policy says":      {part(slices.Repeat([]int64{100 << 10}, 10)...), true, []int{5, 5}},
		"a file above the limit is by itself left alone": {part(600 << 10), true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			for _, g := range p.choose(tc.part, tc.closed) {
				got = append(got, len(g))
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAPolicySaysEverythingThatIsWrongWithIt(t *testing.T) {
	for _, name := range append(StreamTables(), "another") {
		if err := PolicyOf(name).Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := Policy{Sort: []string{"tenant(day)"}, ZOrder: []string{"tenant"}}.Validate()
	if err == nil {
		t.Fatal("an empty policy is accepted")
	}
	for _, field := range []string{"target_file_bytes", "small_file_ratio", "min_input_files", "min_closed_files", "delete_ratio", "sort[0]", "zorder", "max_groups", "memory_bytes", "min_manifests", "keep_snapshots", "orphan_age", "archive_class"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%s is missing in %v", field, err)
		}
	}
}

func TestATableIsDescribedAndSortedAsItsPolicySays(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 1, 10)
	for _, name := range StreamTables() {
		d, err := c.Describe(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		day := "day(ingested_at)"
		if name == AlertsTable {
			day = "day(detected_at)"
		}
		if !cmp.Equal(d.Partition, []string{day}) || !slices.Equal(d.Sort, d.Policy.Sort) || len(d.Columns) < 10 || d.Columns[0].ID != 1 || !d.Columns[0].Required || d.Format != 2 {
			t.Errorf("%s: %+v", name, d)
		}
		if name == purchases && (d.Rows != 10 || d.SnapshotID == 0 || d.Offsets.At(testTopic, 0) != 10) {
			t.Errorf("%+v", d)
		}
	}
}

// deleteIDs deletes rows as any engine would.
func deleteIDs(t testing.TB, c *Catalog, mode string, ids ...string) {
	t.Helper()
	tbl, err := c.LoadForMaintenance(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	tx := tbl.NewTransaction()
	if tbl.Properties()[table.WriteDeleteModeKey] != mode {
		if err := tx.SetProperties(iceberg.Properties{table.WriteDeleteModeKey: mode}); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		deleteIDs(t, c, mode, ids...)
		return
	}
	props, err := CarryOffsets(tbl)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Delete(t.Context(), iceberg.IsIn(iceberg.Reference("event_id"), ids...), props); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestDeletedRowsAreNeverBroughtBack(t *testing.T) {
	ids := make([]string, 0, 60)
	for i := 100; i < 160; i++ {
		ids = append(ids, fmt.Sprintf("e-%06d", i))
	}
	for _, mode := range []string{table.WriteModeCopyOnWrite, table.WriteModeMergeOnRead} {
		t.Run(mode, func(t *testing.T) {
			t.Run("before the plan", func(t *testing.T) {
				c := ensureTest(t)
				appendMany(t, c, 0, 6, 100)
				deleteIDs(t, c, mode, ids...)
				compact(t, c, small())
				wantWithout(t, c, 600, 100, 160)
				if plan, err := c.PlanCompaction(t.Context(), purchases, small()); err != nil || len(plan.Groups) != 0 {
					t.Errorf("deletes that were applied are planned again: %+v %v", plan, err)
				}
				head, err := c.Head(t.Context(), purchases)
				if err != nil || head.Files != 1 {
					t.Errorf("%+v %v", head, err)
				}
			})
			t.Run("between plan and commit", func(t *testing.T) {
				c := ensureTest(t)
				appendMany(t, c, 0, 6, 100)
				plan, err := c.PlanCompaction(t.Context(), purchases, small())
				if err != nil {
					t.Fatal(err)
				}
				results := groups(t, c, plan)
				deleteIDs(t, c, mode, ids...)
				if _, err := c.CommitRewrite(t.Context(), plan, results); !errors.Is(err, ErrConflict) {
					t.Errorf("committed over a delete: %v", err)
				}
				wantWithout(t, c, 600, 100, 160)
				compact(t, c, small())
				wantWithout(t, c, 600, 100, 160)
			})
			t.Run("and rolled back after the plan", func(t *testing.T) {
				c := ensureTest(t)
				appendMany(t, c, 0, 6, 100)
				first, err := c.Head(t.Context(), purchases)
				if err != nil {
					t.Fatal(err)
				}
				deleteIDs(t, c, mode, ids...)
				plan, err := c.PlanCompaction(t.Context(), purchases, small())
				if err != nil {
					t.Fatal(err)
				}
				results := groups(t, c, plan)
				rollback(t, c, purchases, first.SnapshotID)
				if _, err := c.CommitRewrite(t.Context(), plan, results); !errors.Is(err, ErrConflict) {
					t.Errorf("committed over a rollback: %v", err)
				}
				wantRows(t, c, 600)
			})
		})
	}
}

// wantWithout checks that the table has the first n purchases but those of [from, to).
func wantWithout(t testing.TB, c *Catalog, n, from, to int) {
	t.Helper()
	totals, err := c.Totals(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	var want Totals
	for i := range n {
		if i < from || i >= to {
			want.Add(purchase(i).RowHash)
		}
	}
	if totals.Checksum != want.Checksum {
		t.Fatalf("the table has %+v, not %+v", totals.Checksum, want.Checksum)
	}
}

func TestARewriteThatWasRolledBackIsNotCommittedAgain(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 4, 100)
	before, err := c.Head(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := c.PlanCompaction(t.Context(), purchases, small())
	if err != nil {
		t.Fatal(err)
	}
	results := groups(t, c, plan)
	if _, err := c.CommitRewrite(t.Context(), plan, results); err != nil {
		t.Fatal(err)
	}
	rollback(t, c, purchases, before.SnapshotID)
	if _, err := c.CommitRewrite(t.Context(), plan, results); !errors.Is(err, ErrConflict) {
		t.Errorf("committed again: %v", err)
	}
	later, err := c.PlanCompaction(t.Context(), purchases, small())
	if err != nil || later.ID == plan.ID {
		t.Errorf("plan %s has the id of the one before the rollback: %v", later.ID, err)
	}
	compact(t, c, small())
	wantRows(t, c, 400)
}

func TestAppendsBetweenPlanAndCommitAreNoConflictAndTheirOffsetsAreCarried(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 5, 100)
	plan, err := c.PlanCompaction(t.Context(), purchases, small())
	if err != nil {
		t.Fatal(err)
	}
	results := groups(t, c, plan)
	appendMany(t, c, 500, 3, 100)
	if _, err := c.CommitRewrite(t.Context(), plan, results); err != nil {
		t.Fatal(err)
	}
	head, err := c.Head(t.Context(), purchases)
	if err != nil || head.Vector.At(testTopic, 0) != 800 || head.Files != 4 {
		t.Fatalf("%+v %v", head, err)
	}
	appendMany(t, c, 800, 1, 100)
	wantRows(t, c, 900)
}

func TestManifestsAreClusteredByPartitionAndKeepTheVector(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	const day = 24 * 3600 * 1000 // purchases are a millisecond apart
	w, err := c.NewWriter(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 12 { // each commit has rows of three days
		for d := range 3 {
			e := purchase(n*3 + d)
			e.IngestedAt = baseTime + int64(d)*day*1000
			e.RowHash = e.ComputeRowHash()
			if err := w.WriteEvent(t.Context(), e, Provenance{"events.purchase", 0, int64(n*3 + d)}); err != nil {
				t.Fatal(err)
			}
		}
		files, err := w.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Append(t.Context(), purchases, files, at(0, n*3), at(0, n*3+3)); err != nil {
			t.Fatal(err)
		}
	}
	res, err := c.RewriteManifests(t.Context(), purchases)
	if err != nil || res.Before != 12 || res.After != 3 || res.Entries != 36 {
		t.Fatalf("%+v %v", res, err)
	}
	head, err := c.Head(t.Context(), purchases)
	if err != nil || head.Vector.At(testTopic, 0) != 36 || head.SnapshotID != res.SnapshotID || head.Files != 36 || head.Rows != 36 {
		t.Fatalf("%+v %v", head, err)
	}
	tbl, err := c.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	store, err := tbl.FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := tbl.CurrentSnapshot().Manifests(store)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range manifests {
		if p := m.Partitions()[0]; string(*p.LowerBound) != string(*p.UpperBound) {
			t.Errorf("manifest %s has several days", m.FilePath())
		}
	}
	again, err := c.RewriteManifests(t.Context(), purchases)
	if err != nil || again.Entries != 0 || again.SnapshotID != head.SnapshotID {
		t.Errorf("what is in order was rewritten: %+v %v", again, err)
	}
	compact(t, c, small())
	wantRows(t, c, 36)
}

func TestALeaseKeepsASnapshotUntilItIsReleased(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	ctx := t.Context()
	appendMany(t, c, 0, 3, 10)
	leased, err := c.Head(ctx, purchases)
	if err != nil {
		t.Fatal(err)
	}
	release, err := c.Lease(ctx, purchases, "rewrite", "maintain/events_purchase:1", leased.SnapshotID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Lease(ctx, purchases, "rewrite", "maintain/events_purchase:1", leased.SnapshotID, 2*time.Hour); err != nil {
		t.Errorf("prolonging: %v", err)
	}
	appendMany(t, c, 30, 5, 10)
	if n, err := c.ExpireSnapshots(ctx, purchases, 0, 1); err != nil || n != 6 {
		t.Fatalf("expired %d: %v", n, err)
	}
	tbl, err := c.Load(ctx, purchases)
	if err != nil {
		t.Fatal(err)
	}
	if tbl.SnapshotByName("lease.rewrite.maintain-events_purchase-1") == nil || tbl.SnapshotByID(leased.SnapshotID) == nil {
		t.Fatal("the leased snapshot has gone")
	}
	// The age of a ref counts from its snapshot: what is left of it now is the lease.
	for ref, r := range tbl.Metadata().Refs() {
		if strings.HasPrefix(ref, LeasePrefix) {
			left := time.Duration(tbl.SnapshotByID(leased.SnapshotID).TimestampMs+*r.MaxRefAgeMs-time.Now().UnixMilli()) * time.Millisecond
			if left > 2*time.Hour || left < time.Hour {
				t.Errorf("%s of the lease are left", left)
			}
		}
	}
	if err := release(ctx); err != nil {
		t.Fatal(err)
	}
	if err := release(ctx); err != nil {
		t.Errorf("releasing twice: %v", err)
	}
	if n, err := c.ExpireSnapshots(ctx, purchases, 0, 1); err != nil || n != 1 {
		t.Errorf("expired %d: %v", n, err)
	}
	if _, err := c.Lease(ctx, purchases, "rewrite", "late", leased.SnapshotID, time.Hour); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("a lease on what has gone: %v", err)
	}
}

func TestALeaseTakenWhileExpiryIsPlannedStopsIt(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	ctx := t.Context()
	appendMany(t, c, 0, 4, 10)
	stale, err := c.Load(ctx, purchases)
	if err != nil {
		t.Fatal(err)
	}
	snaps, refs := expirable(stale, time.Now().Add(time.Second), 0, 1)
	if len(snaps) != 3 || len(refs) != 0 {
		t.Fatalf("%v %v", snaps, refs)
	}
	if _, err := c.Lease(ctx, purchases, "reader", "1", snaps[0], time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := c.expireOnce(ctx, purchases, stale, snaps, refs); !isStale(err) {
		t.Fatalf("the leased snapshot was expired: %v", err)
	}
	if n, err := c.ExpireSnapshots(ctx, purchases, 0, 1); err != nil || n != 2 {
		t.Errorf("expired %d: %v", n, err)
	}
}

func TestFilesOfExpiredSnapshotsAreDeletedAfterTheGrace(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	ctx := t.Context()
	appendMany(t, c, 0, 6, 100)
	compact(t, c, small())
	appendMany(t, c, 600, 1, 100)
	if n, err := c.ExpireSnapshots(ctx, purchases, 0, 1); err != nil || n != 7 {
		t.Fatalf("expired %d: %v", n, err)
	}
	if got := len(dataFiles(t, c)); got != 8 {
		t.Errorf("%d files within the grace, not 8", got)
	}
	if res, err := c.Expire(ctx, purchases, small()); err != nil || res.Files != 0 {
		t.Errorf("within the grace: %+v %v", res, err)
	}
	if res, err := c.removeOrphans(ctx, purchases, time.Now().Add(time.Hour), true, nil); err != nil || res.Files != 1 { // the metadata file that fell out of the log
		t.Logf("orphans %+v %v", res, err)
	}
	res, err := c.deleteExpired(ctx, purchases, time.Now().Add(time.Hour), true)
	if err != nil || res.Files < 6 {
		t.Fatalf("%+v %v", res, err)
	}
	if got := len(dataFiles(t, c)); got != 2 {
		t.Errorf("%d files after the grace, not 2", got)
	}
	wantRows(t, c, 700)
	if res, err := c.deleteExpired(ctx, purchases, time.Now().Add(time.Hour), true); err != nil || res.Files != 0 {
		t.Errorf("a second time: %+v %v", res, err)
	}
}

func TestAListWhoseCommitNeverArrivedDeletesNothing(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	ctx := t.Context()
	appendMany(t, c, 0, 4, 10)
	tbl, err := c.Load(ctx, purchases)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.shelf(ctx, purchases, tbl)
	if err != nil {
		t.Fatal(err)
	}
	snaps, _ := expirable(tbl, time.Now().Add(time.Second), 0, 1)
	list, err := unreachable(ctx, tbl, s.fs, snaps)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.put("expired/1", list); err != nil {
		t.Fatal(err)
	}
	if res, err := c.deleteExpired(ctx, purchases, time.Now().Add(time.Hour), true); err != nil || res.Files != 0 {
		t.Errorf("%+v %v", res, err)
	}
	rollback(t, c, purchases, snaps[0])
	wantRows(t, c, 10)
}

func TestOrphansAreRemovedAndNothingElse(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	ctx := t.Context()
	appendMany(t, c, 0, 4, 100)
	if _, err := c.RemoveOrphans(ctx, purchases, LeastOrphanAge-time.Second, true, nil); err == nil {
		t.Error("an age at which files may be on their way is accepted")
	}
	// A group that waits for its commit, files of a writer that died, and a file that someone left there.
	plan, err := c.PlanCompaction(ctx, purchases, small())
	if err != nil {
		t.Fatal(err)
	}
	results := groups(t, c, plan)
	w, err := c.NewWriter(ctx, purchases)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, w, 400, 500)
	lost, err := w.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(bare(c.cfg.Warehouse), c.cfg.Namespace, purchases, "data", "stray.parquet")
	if err := os.WriteFile(stray, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if res, err := c.RemoveOrphans(ctx, purchases, LeastOrphanAge, false, nil); err != nil || res.Files != 0 {
		t.Errorf("young files: %+v %v", res, err)
	}
	tomorrow := time.Now().Add(LeastOrphanAge)
	var seen int64
	dry, err := c.removeOrphans(ctx, purchases, tomorrow, true, func(n int64) { seen = n })
	if err != nil || dry.Files != len(lost)+1 || seen == 0 {
		t.Fatalf("%+v %v, seen %d", dry, err, seen)
	}
	if _, err := os.Stat(stray); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	if res, err := c.removeOrphans(ctx, purchases, tomorrow, false, nil); err != nil || res.Files != len(lost)+1 {
		t.Errorf("%+v %v", res, err)
	}
	for _, f := range append(dry.Paths, stray) {
		if _, err := os.Stat(f); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", f, err)
		}
	}
	if _, err := c.CommitRewrite(ctx, plan, results); err != nil {
		t.Fatal(err)
	}
	if res, err := c.removeOrphans(ctx, purchases, tomorrow, false, nil); err != nil || res.Files != 0 {
		t.Errorf("after the commit: %+v %v", res, err)
	}
	wantRows(t, c, 400)
}

func TestMaintenanceStopsWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 4, 100)
	plan, err := c.PlanCompaction(t.Context(), purchases, small())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.CompactGroup(ctx, plan, 0, func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("rewriting: %v", err)
	}
	if got := len(dataFiles(t, c)); got != 4 {
		t.Errorf("%d files, not 4: an attempt that failed left its own", got)
	}
	for name, f := range map[string]func() error{
		"plan":      func() error { _, err := c.PlanCompaction(ctx, purchases, small()); return err },
		"manifests": func() error { _, err := c.RewriteManifests(ctx, purchases); return err },
		"expire":    func() error { _, err := c.ExpireSnapshots(ctx, purchases, 0, 1); return err },
		"orphans":   func() error { _, err := c.RemoveOrphans(ctx, purchases, LeastOrphanAge, false, nil); return err },
	} {
		if err := f(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantRows(t, c, 400)
}
