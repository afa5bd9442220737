package lakehouse

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"
)

// model is what a table must hold at a snapshot.
type model struct {
	rows map[int]bool
	next int
}

// TestMaintenanceInAnyOrderKeepsExactlyTheRowsAndTheVector runs appends, compactions, deletes, rollbacks, expiries and clean-ups in random order, the clean-ups as if days
// had passed, and compares the table with a model after each.
func TestMaintenanceInAnyOrderKeepsExactlyTheRowsAndTheVector(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			// One way of deleting a table: iceberg-go's copy on write forgets what delete files have taken from the files that it writes anew.
			mode := []string{table.WriteModeCopyOnWrite, table.WriteModeMergeOnRead}[seed%2]
			r := rand.New(rand.NewPCG(seed, 7))
			c := ensureTest(t)
			now := model{rows: map[int]bool{}}
			states := map[int64]model{}
			var waiting []func() error // commits of plans made earlier
			var steps []string
			for range 20 {
				step := []string{"append", "append", "append", "compact", "compact", "plan", "commit late", "delete", "rollback", "expire", "delete expired", "orphans", "manifests"}[r.IntN(13)]
				if len(now.rows) == 0 {
					step = "append"
				}
				steps = append(steps, step)
				err := randomStep(t, c, r, step, mode, &now, states, &waiting)
				if err != nil {
					t.Fatalf("%s: %v", strings.Join(steps, ", "), err)
				}
				head, err := c.Head(t.Context(), purchases)
				if err != nil {
					t.Fatal(err)
				}
				states[head.SnapshotID] = model{maps.Clone(now.rows), now.next}
				if got := head.Vector.At(testTopic, 0); got != int64(now.next) {
					t.Fatalf("%s: the vector is at %d, not %d", strings.Join(steps, ", "), got, now.next)
				}
				if d := cmp.Diff(slices.Sorted(maps.Keys(now.rows)), rowNumbers(t, c)); d != "" {
					t.Fatalf("%s: %s", strings.Join(steps, ", "), d)
				}
			}
			t.Log(strings.Join(steps, ", "))
		})
	}
}

func randomStep(t *testing.T, c *Catalog, r *rand.Rand, step, mode string, now *model, states map[int64]model, waiting *[]func() error) error {
	ctx, later := t.Context(), time.Now().Add(LeastOrphanAge)
	switch step {
	case "append":
		n := 1 + r.IntN(60)
		if _, err := appendTest(t, c, now.next, now.next+n); err != nil {
			return err
		}
		for i := range n {
			now.rows[now.next+i] = true
		}
		now.next += n
	case "compact", "plan":
		plan, err := c.PlanCompaction(ctx, purchases, anyOrder(r))
		if err != nil {
			return err
		}
		results := groups(t, c, plan)
		commit := func() error {
			_, err := c.CommitRewrite(ctx, plan, results)
			return err
		}
		if step == "compact" {
			return commit()
		}
		*waiting = append(*waiting, commit)
	case "commit late": // whatever has happened since: it conflicts, or is right
		for _, commit := range *waiting {
			if err := commit(); err != nil && !errors.Is(err, ErrConflict) {
				return err
			}
		}
		*waiting = nil
	case "delete":
		at := slices.Sorted(maps.Keys(now.rows))
		var ids []string
		for range 1 + r.IntN(5) {
			i := at[r.IntN(len(at))]
			ids = append(ids, purchase(i).ID)
			delete(now.rows, i)
		}
		deleteIDs(t, c, mode, ids...)
	case "rollback":
		tbl, err := c.Load(ctx, purchases)
		if err != nil {
			return err
		}
		line := table.AncestorsOf(tbl.CurrentSnapshot().SnapshotID, tbl.SnapshotByID)
		to := line[r.IntN(min(4, len(line)))].SnapshotID
		state, ok := states[to]
		if !ok { // between two steps
			return nil
		}
		if to != tbl.CurrentSnapshot().SnapshotID {
			rollback(t, c, purchases, to)
		}
		*now = model{maps.Clone(state.rows), state.next}
	case "expire":
		_, err := c.ExpireSnapshots(ctx, purchases, 0, 1+r.IntN(3))
		return err
	case "delete expired":
		_, err := c.deleteExpired(ctx, purchases, later, true)
		return err
	case "orphans":
		_, err := c.removeOrphans(ctx, purchases, later, false, nil)
		return err
	case "manifests":
		_, err := c.rewriteManifests(ctx, purchases, 2)
		return err
	}
	return nil
}

// anyOrder is a policy with one of the orders that rows may be put into.
func anyOrder(r *rand.Rand) Policy {
	p := small()
	switch r.IntN(4) {
	case 0:
		p = p.Ordered(nil, nil)
	case 1:
		p = p.Ordered(nil, []string{"visitor_id", "occurred_at", "value"})
	case 2:
		p = p.Ordered([]string{"currency", "hour(occurred_at)", "event_id"}, nil)
	}
	if r.IntN(3) == 0 {
		p = p.All()
	}
	return p
}

// rowNumbers are the numbers of the purchases in the table, after a look at their checksum.
func rowNumbers(t *testing.T, c *Catalog) []int {
	t.Helper()
	var out []int
	err := c.Scan(t.Context(), purchases, "", []string{"event_id", "row_hash"}, func(b arrow.RecordBatch) error {
		ids, hashes := b.Column(b.Schema().FieldIndices("event_id")[0]).(*array.String), b.Column(b.Schema().FieldIndices("row_hash")[0]).(*array.Int64)
		for i := range int(b.NumRows()) {
			var n int
			if _, err := fmt.Sscanf(ids.Value(i), "e-%d", &n); err != nil {
				return err
			}
			if hashes.Value(i) != purchase(n).RowHash {
				return fmt.Errorf("row %d has another hash", n)
			}
			out = append(out, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}
