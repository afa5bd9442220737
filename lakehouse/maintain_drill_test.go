package lakehouse

import (
	"errors"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"millrace/internal/failpoint"
)

// TestMaintainChild is the process that a drill kills: it compacts, rewrites manifests and expires.
func TestMaintainChild(t *testing.T) {
	dir := os.Getenv("MILLRACE_TEST_MAINTAIN")
	if dir == "" {
		return // not a drill
	}
	c := openTest(t, dir)
	compact(t, c, small())
	if _, err := c.rewriteManifests(t.Context(), purchases, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExpireSnapshots(t.Context(), purchases, 0, 1); err != nil {
		t.Fatal(err)
	}
}

func TestKilledAnywhereMaintenanceLosesNothingAndLeavesOnlyOrphans(t *testing.T) {
	for _, point := range []string{FailRewrite, FailRewriteBefore, FailRewriteAfter, FailManifestsBefore, FailManifestsAfter, FailExpireBefore, FailExpireAfter} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := openTest(t, dir)
			if err := EnsureTables(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			appendMany(t, c, 0, 2, 50)
			deleteIDs(t, c, "copy-on-write", "e-000000")
			appendMany(t, c, 100, 3, 50)
			life := func(points string) error {
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMaintainChild$")
				cmd.Env = append(os.Environ(), "MILLRACE_TEST_MAINTAIN="+dir, failpoint.Env+"="+points)
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != -1) {
					t.Fatalf("child: %v\n%s", err, out)
				}
				return err
			}
			appendMany(t, c, 250, 4, 25)
			if err := life(point + "=kill@1"); err == nil {
				t.Fatal("the child was not killed")
			}
			wantWithout(t, c, 350, 0, 1)
			appendMany(t, c, 350, 2, 25) // the stream goes on
			if err := life("none=kill"); err != nil {
				t.Fatal(err)
			}
			wantWithout(t, c, 400, 0, 1)
			tomorrow := time.Now().Add(LeastOrphanAge)
			if _, err := c.deleteExpired(t.Context(), purchases, tomorrow, true); err != nil {
				t.Fatal(err)
			}
			tbl, err := c.Load(t.Context(), purchases)
			if err != nil {
				t.Fatal(err)
			}
			s, err := c.shelf(t.Context(), purchases, tbl)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.sweep(s, time.Now().Add(2*planAge), false); err != nil { // a plan that nobody goes on with
				t.Fatal(err)
			}
			if _, err := c.removeOrphans(t.Context(), purchases, tomorrow, false, nil); err != nil {
				t.Fatal(err)
			}
			head, err := c.Head(t.Context(), purchases)
			if err != nil {
				t.Fatal(err)
			}
			if files := dataFiles(t, c); int64(len(files)) != head.Files {
				t.Errorf("%d files are in the folder, %d in the table", len(files), head.Files)
			}
			wantWithout(t, c, 400, 0, 1)
		})
	}
}

// TestCompactionKeepsUpWithAStreamThatCommitsAllTheTime has no lane: the compare-and-swap alone keeps both right.
func TestCompactionKeepsUpWithAStreamThatCommitsAllTheTime(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	const commits, each = 25, 10
	done := make(chan struct{})
	var wg sync.WaitGroup
	passes, most := 0, int64(0)
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			plan, err := c.PlanCompaction(t.Context(), purchases, small())
			if err != nil {
				t.Error(err)
				return
			}
			if len(plan.Groups) == 0 {
				continue
			}
			r, err := c.CompactGroup(t.Context(), plan, 0, nil)
			if err == nil {
				_, err = c.CommitRewrite(t.Context(), plan, []GroupResult{r})
			}
			if err != nil {
				t.Errorf("pass %d: %v", passes, err)
				return
			}
			passes++
		}
	})
	for i := range commits {
		h, err := appendTest(t, c, i*each, (i+1)*each)
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, h.Files)
	}
	close(done)
	wg.Wait()
	wantRows(t, c, commits*each)
	t.Logf("%d passes during %d commits, at most %d files", passes, commits, most)
	if passes == 0 {
		t.Error("no pass succeeded")
	}
}
