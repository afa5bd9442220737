package lakehouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"

	"millrace/internal/failpoint"
)

func TestWhatIsAppendedIsReadBackToTheMicro(t *testing.T) {
	c := ensureTest(t)
	const n = 10_000
	head, err := appendTest(t, c, 0, n)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(at(0, n), head.Vector); d != "" || head.Rows != n {
		t.Errorf("head has %d rows at %s", head.Rows, head.Vector)
	}
	totals, err := c.Totals(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	checkTotals(t, totals, n)
}

func TestAppendRefusesEveryRangeThatDoesNotBeginAtTheHead(t *testing.T) {
	c := ensureTest(t)
	if _, err := appendTest(t, c, 0, 100); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		lo, hi int
		want   error
	}{
		"a gap":                     {150, 200, ErrGap},
		"an overlap":                {50, 200, ErrOverlap},
		"a range far behind":        {10, 20, ErrOverlap},
		"a range that ends earlier": {100, 90, ErrRegression},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := c.NewWriter(t.Context(), "events_purchase")
			if err != nil {
				t.Fatal(err)
			}
			write(t, c, w, 100, 110)
			files, err := w.Finish(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Append(t.Context(), "events_purchase", files, at(0, tc.lo), at(0, tc.hi))
			var conflict *ConflictError
			if !errors.Is(err, tc.want) || !errors.As(err, &conflict) || conflict.Head != 100 {
				t.Errorf("got %v", err)
			}
		})
	}
	totals, err := c.Totals(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	checkTotals(t, totals, 100)
}

func TestAnAppendWhoseOutcomeWasUnknownIsSettledByTheHead(t *testing.T) {
	c := ensureTest(t)
	w, err := c.NewWriter(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, w, 0, 50)
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // the same call again, as after a lost reply
		head, err := c.Append(t.Context(), "events_purchase", files, Vector{}, at(0, 50))
		if err != nil || head.Vector.At(testTopic, 0) != 50 {
			t.Fatalf("head %+v: %v", head, err)
		}
	}
	totals, err := c.Totals(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	checkTotals(t, totals, 50)
}

func TestWritersOfDifferentPartitionsAppendToOneTable(t *testing.T) {
	c := ensureTest(t)
	const writers, rounds, each = 3, 4, 25
	var wg sync.WaitGroup
	for p := range int32(writers) {
		wg.Go(func() {
			for r := range rounds {
				w, err := c.NewWriter(t.Context(), "events_purchase")
				if err != nil {
					t.Error(err)
					return
				}
				for i := range each {
					n := (int(p)*rounds+r)*each + i
					if err := w.WriteEvent(t.Context(), purchase(n), Provenance{"events.purchase", p, int64(r*each + i)}); err != nil {
						t.Error(err)
						return
					}
				}
				files, err := w.Finish(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := c.Append(t.Context(), "events_purchase", files, at(p, r*each), at(p, (r+1)*each)); err != nil {
					t.Errorf("partition %d round %d: %v", p, r, err)
					return
				}
			}
		})
	}
	wg.Wait()
	totals, err := c.Totals(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	checkTotals(t, totals, writers*rounds*each)
	head, err := c.Head(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	want := Vector{testTopic: {0: rounds * each, 1: rounds * each, 2: rounds * each}}
	if d := cmp.Diff(want, head.Vector); d != "" {
		t.Error(d)
	}
}

func TestAHeadWithoutAVectorIsAFault(t *testing.T) {
	c := ensureTest(t)
	if _, err := appendTest(t, c, 0, 10); err != nil {
		t.Fatal(err)
	}
	w, err := c.NewWriter(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, w, 10, 20)
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tbl, err := c.Load(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	tx := tbl.NewTransaction() // a foreign program
	if err := tx.AddDataFiles(t.Context(), files, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := appendTest(t, c, 20, 30); !isFault(err, "MR-ICE-003") {
		t.Errorf("append: %v", err)
	}
	info, err := c.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range info {
		if (i.Name == "events_purchase") != (i.Problem != "") {
			t.Errorf("%s: problem %q", i.Name, i.Problem)
		}
	}
}

// TestChild is the process that a drill kills: it appends ranges until a failpoint ends it.
func TestChild(t *testing.T) {
	dir := os.Getenv("MILLRACE_TEST_LAKE")
	if dir == "" {
		return // not a drill
	}
	c := openTest(t, dir)
	for {
		head, err := c.Head(t.Context(), "events_purchase")
		if err != nil {
			t.Fatal(err)
		}
		from := int(head.Vector.At(testTopic, 0))
		if from >= drillRows {
			return
		}
		if _, err := appendTest(t, c, from, min(from+drillStep, drillRows)); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	drillRows = 2000
	drillStep = 400
)

func TestKillingTheWriterAnywhereLosesAndDoublesNothing(t *testing.T) {
	for _, point := range []string{FailMidWrite, FailBeforeCommit, FailAfterCommit} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := openTest(t, dir)
			if err := EnsureTables(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			killed := 0
			for i := 0; ; i++ {
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
				cmd.Env = append(os.Environ(), "MILLRACE_TEST_LAKE="+dir, failpoint.Env+"="+point+"=kill@"+strconv.Itoa(1+i%2))
				out, err := cmd.CombinedOutput()
				if err == nil {
					break
				}
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != -1 {
					t.Fatalf("child: %v\n%s", err, out)
				}
				if killed++; killed > 20 {
					t.Fatal("no progress in 20 lives")
				}
				if i == 3 { // then let it live
					point = "none"
				}
			}
			if killed < 3 {
				t.Errorf("killed %d times", killed)
			}
			totals, err := c.Totals(t.Context(), "events_purchase")
			if err != nil {
				t.Fatal(err)
			}
			checkTotals(t, totals, drillRows)
		})
	}
}

func TestMaintenanceCarriesTheVectorAndIsRetriedWhileTheStreamAppends(t *testing.T) {
	c := ensureTest(t)
	ctx := t.Context()
	if _, err := appendTest(t, c, 0, 100); err != nil {
		t.Fatal(err)
	}
	tbl, err := c.LoadForMaintenance(ctx, "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := appendTest(t, c, 100, 200); err != nil { // now tbl is stale
		t.Fatal(err)
	}
	tx := tbl.NewTransaction()
	if err := tx.SetProperties(iceberg.Properties{"note": "kept"}); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(ctx); err != nil {
		t.Fatalf("a retried commit: %v", err)
	}
	tbl, err = c.LoadForMaintenance(ctx, "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	if tbl.Properties()["note"] != "kept" {
		t.Error("the property is lost")
	}
	props, err := CarryOffsets(tbl)
	if err != nil {
		t.Fatal(err)
	}
	tx = tbl.NewTransaction()
	if err := tx.Delete(ctx, iceberg.EqualTo(iceberg.Reference("event_id"), "e-000003"), props); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	head, err := c.Head(ctx, "events_purchase")
	if err != nil || head.Vector.At(testTopic, 0) != 200 || head.Rows != 199 {
		t.Fatalf("head after a delete: %+v %v", head, err)
	}
	if _, err := appendTest(t, c, 200, 210); err != nil {
		t.Error(err)
	}
}

func TestARollbackTakesTheVectorBack(t *testing.T) {
	c := ensureTest(t)
	ctx := t.Context()
	first, err := appendTest(t, c, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := appendTest(t, c, 100, 200); err != nil {
		t.Fatal(err)
	}
	rollback(t, c, "events_purchase", first.SnapshotID)
	head, err := c.Head(ctx, "events_purchase")
	if err != nil || head.Vector.At(testTopic, 0) != 100 {
		t.Fatalf("head after rollback: %+v %v", head, err)
	}
	if _, err := appendTest(t, c, 200, 300); !errors.Is(err, ErrGap) {
		t.Errorf("append behind a rolled-back head: %v", err)
	}
	if _, err := appendTest(t, c, 100, 200); err != nil {
		t.Error(err)
	}
	totals, err := c.Totals(ctx, "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	checkTotals(t, totals, 200)
}

func rollback(t *testing.T, c *Catalog, name string, snapshot int64) {
	t.Helper()
	tbl, err := c.LoadForMaintenance(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	tx := tbl.NewTransaction()
	if err := tx.RollbackToSnapshot(snapshot); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestExpiryRespectsRefsAndKeepsEveryRow(t *testing.T) {
	c := ensureTest(t)
	ctx := t.Context()
	var tagged Head
	for i := range 12 {
		h, err := appendTest(t, c, i*10, (i+1)*10)
		if err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			tagged = h
		}
	}
	tbl, err := c.Load(ctx, "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.retries.CommitTable(ctx, tbl.Identifier(), nil, []table.Update{
		table.NewSetSnapshotRefUpdate("lease.bigquery.1", tagged.SnapshotID, table.TagRef, 0, 0, 0),
	}); err != nil {
		t.Fatal(err)
	}
	if n, err := c.ExpireSnapshots(ctx, "events_purchase", time.Hour, 3); err != nil || n != 0 {
		t.Fatalf("expired %d young snapshots: %v", n, err)
	}
	n, err := c.ExpireSnapshots(ctx, "events_purchase", 0, 3)
	if err != nil || n != 8 {
		t.Fatalf("expired %d: %v", n, err)
	}
	info, err := c.Tables(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range info {
		if i.Name == "events_purchase" && (i.Snapshots != 4 || len(i.Refs) != 2 || i.Rows != 120 || i.Files != 12 || i.Bytes <= 0 || i.Offsets.At(testTopic, 0) != 120) {
			t.Errorf("after expiry: %+v", i)
		}
	}
	totals, err := c.Totals(ctx, "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	checkTotals(t, totals, 120)
	if _, err := appendTest(t, c, 120, 130); err != nil {
		t.Error(err)
	}
}

func TestALockedCatalogRefusesAnAppendThatSucceedsLater(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(dir)
	cfg.BusyTimeout = 50 * time.Millisecond
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := EnsureTables(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	unlock := lock(t, dir)
	w := func() error { _, err := appendTest(t, c, 0, 10); return err }
	writer, err := c.NewWriter(t.Context(), "events_purchase")
	if err != nil { // WAL: reading goes on under a writer's lock
		t.Fatal(err)
	}
	write(t, c, writer, 0, 10)
	files, err := writer.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Append(t.Context(), "events_purchase", files, Vector{}, at(0, 10)); err == nil {
		t.Error("append under an exclusive lock succeeded")
	}
	unlock()
	if _, err := c.Append(t.Context(), "events_purchase", files, Vector{}, at(0, 10)); err != nil {
		t.Error(err)
	}
	if err := w(); err != nil { // stored: another writer's equal range is taken as ours
		t.Error(err)
	}
	totals, err := c.Totals(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	checkTotals(t, totals, 10)
}

// lock takes the catalog's file for itself, as another process would.
func lock(t *testing.T, dir string) (unlock func()) {
	t.Helper()
	path, err := sqlitePath(testConfig(dir).CatalogURI)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		_, err := conn.ExecContext(context.WithoutCancel(t.Context()), "ROLLBACK")
		if err := errors.Join(err, conn.Close(), db.Close()); err != nil {
			t.Error(fmt.Errorf("unlocking: %w", err))
		}
	}
}
