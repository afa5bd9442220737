package lakehouse

import (
	"errors"
	"testing"
)

// Repairs and rewrites of the same files meet: one of them finds the head moved and begins again, and no row is lost, doubled or brought back by it.
func TestARepairAndACompactionAtOnceKeepEveryRowOnce(t *testing.T) {
	t.Parallel()
	const each, commits = 20, 12
	c := ensureTest(t)
	appendMany(t, c, 0, commits, each)
	n := each * commits
	// Rows 30 to 69 are lost, 100 to 139 doubled.
	lost := map[int64]bool{}
	for i := int64(30); i < 70; i++ {
		lost[i] = false
	}
	if _, err := c.DropRows(t.Context(), purchases, "spoil:1", partTest(), 0, lost); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AppendRows(t.Context(), purchases, testTopic, "spoil:2", storedTest(100, 140)); err != nil {
		t.Fatal(err)
	}

	mended := make(chan error, 1)
	go func() {
		mended <- func() error {
			for part := range 4 { // several commits, so that they fall between and into rewrites
				from := 10 * part
				drop := map[int64]bool{}
				for i := range 10 {
					drop[int64(100+from+i)] = true
				}
				steps := []func(run string) error{
					func(run string) error {
						_, err := c.AppendRows(t.Context(), purchases, testTopic, run+":add", storedTest(30+from, 40+from))
						return err
					},
					func(run string) error {
						_, err := c.DropRows(t.Context(), purchases, run+":drop", partTest(), 0, drop)
						return err
					},
				}
				for _, step := range steps {
					for {
						if err := step("repair:" + string(rune('a'+part))); err == nil {
							break
						} else if !errors.Is(err, ErrConflict) {
							return err
						}
					}
				}
			}
			return nil
		}()
	}()
	rewrites, refused := 0, 0
	for done := false; !done || rewrites == 0; {
		select {
		case err := <-mended:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		default:
		}
		plan, err := c.PlanCompaction(t.Context(), purchases, small())
		if err != nil {
			t.Fatal(err)
		}
		for g := range plan.Groups {
			r, err := c.CompactGroup(t.Context(), plan, g, nil)
			if err == nil {
				_, err = c.CommitRewrite(t.Context(), plan, []GroupResult{r})
			}
			switch {
			case err == nil:
				rewrites++
			case errors.Is(err, ErrConflict):
				refused++
			default:
				t.Fatal(err)
			}
		}
		if done && len(plan.Groups) == 0 {
			break
		}
	}
	t.Logf("%d rewrites were made, %d were refused", rewrites, refused)

	h, err := c.Head(t.Context(), purchases)
	if err != nil || h.Rows != int64(n) || h.Vector.At(testTopic, 0) != int64(n) {
		t.Errorf("%+v, %v", h, err)
	}
	got := spotsTest(t, c, h.SnapshotID)
	for i := range n {
		if got[int64(i)] != 1 {
			t.Errorf("offset %d is there %d times", i, got[int64(i)])
		}
	}
	if have, err := c.Totals(t.Context(), purchases); err != nil || have.Checksum != wantTotals(n).Checksum {
		t.Errorf("%+v, %v", have.Checksum, err)
	}
	if next, err := appendTest(t, c, n, n+10); err != nil || next.Rows != int64(n+10) {
		t.Errorf("the stream goes on: %+v, %v", next, err)
	}
}
