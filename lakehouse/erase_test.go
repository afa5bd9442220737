package lakehouse

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/google/go-cmp/cmp"

	"millrace/event"
	"millrace/internal/failpoint"
)

var eraseKey = event.SubjectKey{7}

// erasedVisitors is a ledger that names visitors, cut at an offset.
func erasedVisitors(t testing.TB, cut int64, visitors ...string) *event.Erased {
	t.Helper()
	e := event.NewErased(eraseKey)
	entry := event.Erasure{RequestID: "r1", Key: eraseKey.ID(), Cut: event.Cut{"raw.purchase": {cut}}.String()}
	for _, v := range visitors {
		entry.Subjects = append(entry.Subjects, eraseKey.Digest(event.Subject{Tenant: "default", Kind: event.SubjectVisitor, ID: v}).String())
	}
	if err := e.Add(entry); err != nil {
		t.Fatal(err)
	}
	return e
}

// idsAt reads the event ids of a ref, as any reader sees them.
func idsAt(t testing.TB, c *Catalog, ref string) map[string]int {
	t.Helper()
	out := map[string]int{}
	if err := c.Scan(t.Context(), purchases, ref, []string{"event_id"}, func(b arrow.RecordBatch) error {
		col := b.Column(0).(*array.String)
		for i := range col.Len() {
			out[col.Value(i)]++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// survivors are the ids of purchases [0, n) but for those of some visitors below a cut, and some rows.
func survivors(n int, cut int, visitors []int, rows ...int) map[string]int {
	out := map[string]int{}
next:
	for i := range n {
		for _, v := range visitors {
			if i%97 == v && i < cut {
				continue next
			}
		}
		for _, r := range rows {
			if i == r {
				continue next
			}
		}
		out[fmt.Sprintf("e-%06d", i)] = 1
	}
	return out
}

func TestErasedRowsLeaveMainAndNothingElseDoes(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 4, 250)
	before, err := c.Head(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	ledger := erasedVisitors(t, 900, "v-3", "v-10", "v-nobody")
	res, err := c.EraseRows(t.Context(), purchases, "r1", ledger, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := survivors(1000, 900, []int{3, 10})
	if diff := cmp.Diff(want, idsAt(t, c, "")); diff != "" {
		t.Error(diff)
	}
	if res.Rows != int64(1000-len(want)) || res.Removed != 4 || res.Commits != 1 {
		t.Errorf("%+v", res)
	}
	head, err := c.Head(t.Context(), purchases)
	if err != nil || head.SnapshotID != res.Snapshot || head.Rows != int64(len(want)) || !maps.Equal(head.Vector[testTopic], before.Vector[testTopic]) {
		t.Errorf("head %+v after %+v, %v", head, before, err)
	}
	log, err := c.Log(t.Context(), purchases, RefMain, 1)
	if err != nil || log[0].Kind != KindErase || log[0].Rows != -res.Rows {
		t.Errorf("%+v, %v", log, err)
	}
	again, err := c.EraseRows(t.Context(), purchases, "r1", ledger, nil)
	if err != nil || again.Rows != 0 || again.Commits != 0 || again.Snapshot != res.Snapshot {
		t.Errorf("a repeated call: %+v, %v", again, err)
	}
	// What comes later is new data, and goes into the table.
	appendMany(t, c, 1000, 1, 250)
	if diff := cmp.Diff(survivors(1250, 900, []int{3, 10}), idsAt(t, c, "")); diff != "" {
		t.Error(diff)
	}
}

func TestAFileOfWhichNothingIsLeftGoesWithoutAnother(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 3, 5) // visitors v-0 to v-14
	res, err := c.EraseRows(t.Context(), purchases, "r1", erasedVisitors(t, 1000, "v-5", "v-6", "v-7", "v-8", "v-9"), nil)
	if err != nil || res.Removed != 1 || res.Files != 0 || res.Rows != 5 {
		t.Fatalf("%+v, %v", res, err)
	}
	if diff := cmp.Diff(survivors(15, 1000, []int{5, 6, 7, 8, 9}), idsAt(t, c, "")); diff != "" {
		t.Error(diff)
	}
	if _, err := c.EraseRows(t.Context(), purchases, "r2", erasedVisitors(t, 1000, "v-0", "v-1", "v-2", "v-3", "v-4", "v-10", "v-11", "v-12", "v-13", "v-14"), nil); err != nil {
		t.Fatal(err)
	}
	if left := idsAt(t, c, ""); len(left) != 0 {
		t.Errorf("%d rows are left", len(left))
	}
}

func TestWhatAnotherEngineDeletedByPositionStaysDeleted(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 2, 200)
	deleteIDs(t, c, "merge-on-read", "e-000001", "e-000100", "e-000300")
	res, err := c.EraseRows(t.Context(), purchases, "r1", erasedVisitors(t, 1000, "v-3"), nil) // rows 3, 100, 197, 294, 391
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(survivors(400, 1000, []int{3}, 1, 100, 300), idsAt(t, c, "")); diff != "" {
		t.Error(diff)
	}
	if res.Rows != 4 { // of which one was hidden already
		t.Errorf("%+v", res)
	}
	found, err := c.FindErased(t.Context(), purchases, erasedVisitors(t, 1000, "v-3"), nil)
	if err != nil || found.Refs[RefMain] != 0 {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestRefsAndFilesFromBeforeAnErasureGoByTheirDate(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 3, 100)
	for i, tag := range []string{"nightly.2026-03-01", "nightly.2026-03-02"} {
		if err := c.Tag(t.Context(), purchases, tag, s[i], 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.MoveRef(t.Context(), purchases, RefPublished, 0, s[1]); err != nil {
		t.Fatal(err)
	}
	ledger := erasedVisitors(t, 300, "v-3", "v-4")
	res, err := c.EraseRows(t.Context(), purchases, "r1", ledger, nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := c.FindErased(t.Context(), purchases, ledger, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int64{RefMain: 0, RefPublished: 6, "nightly.2026-03-01": 3, "nightly.2026-03-02": 6}, found.Refs); diff == "" {
		t.Log(found)
	} else if found.Refs[RefMain] != 0 || found.Refs[RefPublished] == 0 || found.Refs["nightly.2026-03-01"] == 0 {
		t.Errorf("%+v", found)
	}
	dropped, held, err := c.DropErasedRefs(t.Context(), purchases, res.Sequence)
	if err != nil || !cmp.Equal(dropped, []string{"nightly.2026-03-01", "nightly.2026-03-02"}) || !cmp.Equal(held, []string{RefPublished}) {
		t.Fatalf("dropped %v, held %v, %v", dropped, held, err)
	}
	// A branch that was not moved keeps its snapshot, and the result says so.
	now := time.Now().Add(-ExpiredGrace)
	purged, err := c.PurgeErased(t.Context(), purchases, res.Sequence, now)
	if err != nil || purged.Snapshots != 2 || !cmp.Equal(purged.Held, []string{RefPublished}) || purged.Files != 0 {
		t.Fatalf("%+v, %v", purged, err)
	}
	if err := c.MoveRef(t.Context(), purchases, RefPublished, s[1], res.Snapshot); err != nil {
		t.Fatal(err)
	}
	if purged, err = c.PurgeErased(t.Context(), purchases, res.Sequence, now); err != nil || purged.Snapshots != 1 || len(purged.Held) != 0 {
		t.Fatalf("%+v, %v", purged, err)
	}
	if found, err = c.FindErased(t.Context(), purchases, ledger, nil); err != nil || found.Rows != 0 || found.Listed == 0 {
		t.Fatalf("the files should wait for readers: %+v, %v", found, err)
	}
	if purged, err = c.PurgeErased(t.Context(), purchases, res.Sequence, time.Now().Add(time.Second)); err != nil || purged.Files == 0 {
		t.Fatalf("%+v, %v", purged, err)
	}
	if found, err = c.FindErased(t.Context(), purchases, ledger, nil); err != nil || found.Rows != 0 || found.Listed != 0 || found.Nameless != 0 {
		t.Errorf("%+v, %v", found, err)
	}
	if n := len(dataFiles(t, c)); int64(n) != found.Files {
		t.Errorf("%d files are in the folder, %d were looked into", n, found.Files)
	}
	if diff := cmp.Diff(survivors(300, 300, []int{3, 4}), idsAt(t, c, RefPublished)); diff != "" {
		t.Error(diff)
	}
}

func TestAnErasureAndTheStreamCommitBesideEachOther(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	const commits, each = 20, 50
	appendMany(t, c, 0, 2, each)
	ledger := erasedVisitors(t, 500, "v-1", "v-2", "v-3")
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			if _, err := c.EraseRows(t.Context(), purchases, fmt.Sprintf("r%d", i), ledger, nil); err != nil && !errors.Is(err, ErrConflict) {
				t.Error(err)
				return
			}
		}
	})
	for i := 2; i < commits; i++ {
		if _, err := appendTest(t, c, i*each, (i+1)*each); err != nil {
			t.Error(err)
			break
		}
		if i%5 == 0 {
			plan, err := c.PlanCompaction(t.Context(), purchases, small())
			if err != nil {
				t.Error(err)
				break
			}
			for g := range plan.Groups {
				r, err := c.CompactGroup(t.Context(), plan, g, nil)
				if err == nil {
					_, err = c.CommitRewrite(t.Context(), plan, []GroupResult{r})
				}
				if err != nil && !errors.Is(err, ErrConflict) {
					t.Error(err)
				}
			}
		}
	}
	close(done)
	wg.Wait()
	if _, err := c.EraseRows(t.Context(), purchases, "last", ledger, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(survivors(commits*each, 500, []int{1, 2, 3}), idsAt(t, c, "")); diff != "" {
		t.Error(diff)
	}
}

// TestEraseChild is the process that a drill kills.
func TestEraseChild(t *testing.T) {
	dir := os.Getenv("MILLRACE_TEST_ERASE")
	if dir == "" {
		return // not a drill
	}
	c := openTest(t, dir)
	if _, err := c.EraseRows(t.Context(), purchases, "r1", erasedVisitors(t, 400, "v-3"), nil); err != nil {
		t.Fatal(err)
	}
}

func TestKilledAnywhereOrWithoutAReplyAnErasureIsMadeOnce(t *testing.T) {
	t.Parallel()
	for _, points := range []string{FailEraseBefore + "=kill@1", FailEraseAfter + "=kill@1", FailEraseAfter + "=error@1", FailEraseBefore + "=error@1"} {
		t.Run(points, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := openTest(t, dir)
			if err := EnsureTables(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			appendMany(t, c, 0, 3, 100)
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestEraseChild$")
			cmd.Env = append(os.Environ(), "MILLRACE_TEST_ERASE="+dir, failpoint.Env+"="+points)
			out, err := cmd.CombinedOutput()
			t.Logf("the child ended with %v: %s", err, out)
			appendMany(t, c, 300, 1, 100)
			if _, err := c.EraseRows(t.Context(), purchases, "r1", erasedVisitors(t, 400, "v-3"), nil); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(survivors(400, 400, []int{3}), idsAt(t, c, "")); diff != "" {
				t.Error(diff)
			}
		})
	}
}
