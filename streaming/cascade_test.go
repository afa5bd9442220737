package streaming

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestEmissionsAreSpread: of a thousand windows that have changed no tick emits most; two periods later what was emitted is complete, whatever came, or was aborted, in the middle.
func TestEmissionsAreSpread(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		const keys = 1000
		h := harness(t, Config{MergeWait: -1}, testTopology(1, "in"))
		n, want, told := 0, map[string]int64{}, map[string]int64{}
		feed := func(count int) {
			for range count {
				key := fmt.Sprintf("k%d", n*7919%keys)
				h.Produce(0, record(key, 1_000_000_000, fmt.Sprintf("id%d", n)))
				want[key]++
				n++
			}
			must(t, h.Feed())
		}
		read := 0
		commit := func() (count int) { // rows of the transaction
			if _, err := h.Commit(); err != nil {
				t.Fatal(err)
			}
			for _, r := range h.Outputs(rowTopic)[read:] {
				var grain, start, total, sum int64
				var key string
				_, err := fmt.Sscanf(string(r.Key), "%d/%d/%s", &grain, &start, &key)
				must(t, err)
				_, err = fmt.Sscanf(string(r.Value), "%d %d", &total, &sum)
				must(t, err)
				if grain == 1 {
					told[key] = total
				}
				count++
			}
			read += count
			return count
		}
		feed(keys)
		commit()
		most := 0
		for range rapid.IntRange(12, 40).Draw(rt, "ticks") {
			must(t, h.Advance(tickEvery))
			if rapid.IntRange(0, 9).Draw(rt, "abort") == 0 {
				must(t, h.Abort())
				must(t, h.Feed())
				continue
			}
			if more := rapid.IntRange(0, 30).Draw(rt, "more"); more > 20 {
				feed(more)
			}
			most = max(most, commit())
		}
		if most > 2*keys/5 { // of two grains, a tenth each
			rt.Errorf("%d windows were emitted at once", most)
		}
		must(t, h.Advance(2*time.Second+tickEvery))
		commit()
		if diff := cmp.Diff(want, told); diff != "" {
			rt.Errorf("what was emitted last is not the total: %s", diff)
		}
	})
}

// TestClosedOnly: nothing is emitted of a window before it has closed, however long that takes; then its total is, once, and a correction of it.
func TestClosedOnlyEmitsAWindowWhenItHasClosed(t *testing.T) {
	t.Parallel()
	top := testTopology(1, "in")
	top.New = func(t *Task) (Operator, error) {
		o := newTestOp(t, "")
		o.windows.spec.ClosedOnly = true
		return o, nil
	}
	h := harness(t, Config{MergeWait: -1}, top)
	rows := func(what string, want ...string) {
		t.Helper()
		if _, err := h.Commit(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range h.Outputs(rowTopic) {
			got = append(got, fmt.Sprintf("%s %s", r.Key, r.Value))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s (-want +got)\n%s", what, diff)
		}
	}
	feed := func(id string, at int64) {
		h.Produce(0, record("k", at, id))
		must(t, h.Feed())
	}
	for i := range 5 {
		feed(fmt.Sprintf("e%d", i), 1_000_000_100)
		must(t, h.Advance(3*time.Second))
		rows("while the window is open")
	}
	feed("next", 1_004_500_000)
	rows("closed", "0/1000000000/k 5 500")
	feed("late", 1_000_000_200)
	must(t, h.Advance(3*time.Second))
	rows("corrected", "0/1000000000/k 5 500", "0/1000000000/k 6 700")
}
