package lakehouse

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func rollTo(t testing.TB, c *Catalog, o RollbackOptions) RollbackResult {
	t.Helper()
	res, err := c.Rollback(t.Context(), purchases, o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestRollbackTakesTheOffsetsBackSoThatTheRowsAreWrittenAgain: what a sink that goes to the head does.
func TestRollbackTakesTheOffsetsBackSoThatTheRowsAreWrittenAgain(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 4, 10)
	want := RollbackResult{
		Table: purchases, From: s[3], To: s[1], Head: s[1], Rows: 40, RowsAfter: 20, Left: 2, Offsets: []OffsetRange{{testTopic, 0, 20, 40}}, DryRun: true,
	}
	dry := rollTo(t, c, RollbackOptions{To: s[1], DryRun: true})
	dry.At = want.At
	if d := cmp.Diff(want, dry); d != "" {
		t.Error(d)
	}
	wantRows(t, c, 40)
	for range 2 { // again: it is there already
		res := rollTo(t, c, RollbackOptions{To: s[1]})
		if res.Head != s[1] {
			t.Errorf("%+v", res)
		}
		wantRows(t, c, 20)
	}
	if _, err := appendTest(t, c, 40, 50); !errors.Is(err, ErrGap) {
		t.Errorf("an append that knows nothing of it: %v", err)
	}
	commits(t, c, 20, 3, 10)
	wantRows(t, c, 50)
	if _, err := c.Rollback(t.Context(), purchases, RollbackOptions{To: s[3]}); !errors.Is(err, ErrDiverged) {
		t.Errorf("to an abandoned snapshot: %v", err)
	}
	if _, err := c.Rollback(t.Context(), purchases, RollbackOptions{To: 4711}); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("to nowhere: %v", err)
	}
}

// TestRollbackWithSkipKeepsTheRowsAway: the head says what Kafka was read to, the table does not hold it.
func TestRollbackWithSkipKeepsTheRowsAway(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 4, 10)
	compact(t, c, small())
	res := rollTo(t, c, RollbackOptions{To: s[1], Skip: true, Run: "r1"})
	head, err := c.Head(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	if head.SnapshotID != res.Head || head.Vector.At(testTopic, 0) != 40 || head.Rows != 20 || head.Files != 2 {
		t.Errorf("head %+v", head)
	}
	wantRows(t, c, 20)
	if _, err := appendTest(t, c, 20, 30); !errors.Is(err, ErrOverlap) {
		t.Errorf("the rows came back: %v", err)
	}
	commits(t, c, 40, 2, 10)
	log, err := c.Log(t.Context(), purchases, RefMain, 3)
	if err != nil || len(log) != 3 || log[2].Kind != KindRollback || log[2].SnapshotID != res.Head || log[2].ParentID != s[1] {
		t.Errorf("log %+v: %v", log, err)
	}
	// Its own list of manifests survives the expiry of the snapshot that it was made from.
	if n, err := c.ExpireSnapshots(t.Context(), purchases, 0, 3); err != nil || n == 0 {
		t.Fatalf("expired %d: %v", n, err)
	}
	if _, err := c.deleteExpired(t.Context(), purchases, log[0].At.AddDate(1, 0, 0), true); err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, offs := range offsetsOf(t, c, ScanOptions{Snapshot: res.Head}) {
		rows += len(offs)
	}
	if rows != 20 {
		t.Errorf("%d rows are left of it", rows)
	}
	commits(t, c, 60, 1, 10)
	compact(t, c, small())
	for _, offs := range offsetsOf(t, c, ScanOptions{}) {
		if len(offs) != 50 || offs[19] != 1 || offs[20] != 0 || offs[40] != 1 {
			t.Errorf("offsets %v", offs)
		}
	}
}

// TestRollbackBehindPublishedIsRefusedUnlessItGoesBackToo.
func TestRollbackBehindPublishedIsRefusedUnlessItGoesBackToo(t *testing.T) {
	t.Parallel()
	for name, skip := range map[string]bool{"rows are written again": false, "rows are skipped": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := ensureTest(t)
			s := commits(t, c, 0, 4, 10)
			if err := c.MoveRef(t.Context(), purchases, RefPublished, 0, s[2]); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Rollback(t.Context(), purchases, RollbackOptions{To: s[1], Skip: skip}); !errors.Is(err, ErrPublishedAhead) || !isFault(err, "MR-ICE-061") {
				t.Errorf("got %v", err)
			}
			wantRows(t, c, 40)
			if res := rollTo(t, c, RollbackOptions{To: s[2], Skip: skip}); res.PublishedFrom != 0 || res.Published != s[2] {
				t.Errorf("published was not ahead: %+v", res)
			}
			res := rollTo(t, c, RollbackOptions{To: s[1], Skip: skip, WithPublished: true})
			if res.PublishedFrom != s[2] || res.Published != s[1] || publishedAt(t, c) != s[1] {
				t.Errorf("%+v", res)
			}
			wantRows(t, c, 20)
			from := 20
			if skip {
				from = 40
			}
			next := commits(t, c, from, 1, 10)[0]
			if err := c.MoveRef(t.Context(), purchases, RefPublished, s[1], next); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRollbackIsOneCommitAmongThoseOfTheStream(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 3, 10)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { // a committer that goes to the head
		for next := 30; ; {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			w, err := c.NewWriter(t.Context(), purchases)
			if err != nil {
				done <- err
				return
			}
			write(t, c, w, next, next+10)
			files, err := w.Finish(t.Context())
			if err == nil {
				_, err = c.Append(t.Context(), purchases, files, at(0, next), at(0, next+10))
			}
			var conflict *ConflictError
			switch {
			case errors.As(err, &conflict):
				done <- fmt.Errorf("the committer had to go elsewhere: %w", err)
				return
			case err != nil:
				done <- err
				return
			}
			next += 10
		}
	}()
	res := rollTo(t, c, RollbackOptions{To: s[0], Skip: true})
	eventually(t, func() bool { // it goes on
		head, err := c.Head(t.Context(), purchases)
		return err == nil && head.Vector.At(testTopic, 0) >= res.Offsets[0].To+20
	})
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	head, err := c.Head(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	want := map[int64]int{}
	for off := range head.Vector.At(testTopic, 0) {
		if off < 10 || off >= res.Offsets[0].To {
			want[off] = 1
		}
	}
	if d := cmp.Diff(map[int32]map[int64]int{0: want}, offsetsOf(t, c, ScanOptions{})); d != "" || res.Offsets[0].From != 10 {
		t.Errorf("skipped %+v: %s", res.Offsets, d)
	}
}

// eventually waits for what another goroutine does.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("it did not come")
		case <-tick.C:
		}
	}
}

func TestSkippingForwardLosesOnlyWhatItNames(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	commits(t, c, 0, 2, 10)
	skipped, err := c.SkipTo(t.Context(), purchases, at(0, 25), "r1")
	if d := cmp.Diff([]OffsetRange{{testTopic, 0, 20, 25}}, skipped); d != "" || err != nil {
		t.Fatalf("%v %s", err, d)
	}
	if skipped, err = c.SkipTo(t.Context(), purchases, at(0, 5), "r2"); err != nil || len(skipped) != 0 {
		t.Errorf("backwards: %v, %v", skipped, err)
	}
	if _, err := c.SkipTo(t.Context(), purchases, Vector{"another": {0: 7}}, "r3"); err == nil {
		t.Error("a topic that the table was never fed from was taken")
	}
	if _, err := appendTest(t, c, 20, 30); !errors.Is(err, ErrOverlap) {
		t.Errorf("got %v", err)
	}
	commits(t, c, 25, 1, 10)
	head, err := c.Head(t.Context(), purchases)
	if err != nil || head.Rows != 30 || head.Vector.At(testTopic, 0) != 35 {
		t.Errorf("head %+v: %v", head, err)
	}
}

// TestTwoLiveCommittersOfOnePartitionStoreEachRowOnce: each goes to the head after a conflict, as the sink does.
func TestTwoLiveCommittersOfOnePartitionStoreEachRowOnce(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	const n = 300
	var wg sync.WaitGroup
	for _, step := range []int{20, 35} {
		wg.Go(func() {
			for {
				head, err := c.Head(t.Context(), purchases)
				if err != nil {
					t.Error(err)
					return
				}
				from := int(head.Vector.At(testTopic, 0))
				if from >= n {
					return
				}
				to := min(from+step, n)
				w, err := c.NewWriter(t.Context(), purchases)
				if err != nil {
					t.Error(err)
					return
				}
				write(t, c, w, from, to)
				files, err := w.Finish(t.Context())
				if err == nil {
					_, err = c.Append(t.Context(), purchases, files, at(0, from), at(0, to))
				}
				var conflict *ConflictError
				if err != nil && !errors.As(err, &conflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	wantRows(t, c, n)
}

// TestSameRangeTwiceIsStoredOnce: by one writer that does not know, and by two at the same time.
func TestSameRangeTwiceIsStoredOnce(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	for range 2 {
		if _, err := appendTest(t, c, 0, 50); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if head, err := appendTest(t, c, 50, 100); err != nil || head.Vector.At(testTopic, 0) != 100 {
				t.Errorf("%+v: %v", head, err)
			}
		})
	}
	wg.Wait()
	wantRows(t, c, 100)
}

// TestZombieAfterRebalanceIsRefused: it wakes with files of a range that the new owner has stored with others.
func TestZombieAfterRebalanceIsRefused(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	commits(t, c, 0, 1, 20)
	w, err := c.NewWriter(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, w, 20, 40) // then it stands still
	commits(t, c, 20, 2, 15)
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var conflict *ConflictError
	if _, err := c.Append(t.Context(), purchases, files, at(0, 20), at(0, 40)); !errors.Is(err, ErrOverlap) || !errors.As(err, &conflict) || conflict.Head != 50 {
		t.Errorf("got %v", err)
	}
	wantRows(t, c, 50)
}
