package lakehouse

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/event"
)

// controlRanges are the control totals of purchases [0, n) in ranges of each.
func controlRanges(n, each int) []ControlRange {
	var out []ControlRange
	for from := 0; from < n; from += each {
		r := ControlRange{RawPartition: RawPartition{"raw.purchase", 0}, From: int64(from), To: int64(min(n, from+each))}
		for i := from; i < int(r.To); i++ {
			r.Want.Add(purchase(i).RowHash)
		}
		out = append(out, r)
	}
	return out
}

func checked(t testing.TB, c *Catalog, o CheckOptions) CheckResult {
	t.Helper()
	o.RawTopic, o.Scratch = "raw.purchase", t.TempDir()
	if o.Window == 0 {
		o.Window = 24 * time.Hour
	}
	all := o.Ranges
	if o.Since != 0 {
		var open []ControlRange
		for _, r := range all {
			if r.To > o.Covered[r.RawPartition] {
				open = append(open, r)
			}
		}
		o.Ranges = open
	}
	res, err := c.CheckSnapshot(t.Context(), purchases, o, func(context.Context) ([]ControlRange, error) { return all, nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// numbers are those of a check that must be so; absent is 0.
func wantNumbers(t testing.TB, res CheckResult, want map[string]int64) {
	t.Helper()
	for _, n := range []string{CheckRows, CheckNew, CheckProven, CheckOpen, CheckBefore, CheckUntold, CheckMissing, CheckSurplus, CheckDiffer, CheckDuplicates, CheckNulls, CheckEmpty, CheckOutside} {
		if res.Numbers[n] != want[n] {
			t.Errorf("%s is %d, not %d", n, res.Numbers[n], want[n])
		}
	}
}

func TestASnapshotThatHoldsWhatTheControlTotalsSayIsProvenUpToItsOpenRange(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	commits(t, c, 0, 3, 35) // 105 rows; ranges of 20 end at 100, 120
	s := commits(t, c, 105, 1, 5)[0]
	res := checked(t, c, CheckOptions{Snapshot: s, Ranges: controlRanges(200, 20)})
	wantNumbers(t, res, map[string]int64{CheckRows: 110, CheckNew: 110, CheckProven: 100, CheckOpen: 10})
	if d := cmp.Diff(map[RawPartition]int64{{"raw.purchase", 0}: 100}, res.Covered); d != "" || !res.Full {
		t.Errorf("full %t, covered %s", res.Full, d)
	}
	// The next snapshot is compared from there on.
	next := commits(t, c, 110, 1, 50)[0]
	res = checked(t, c, CheckOptions{Snapshot: next, Since: s, Covered: res.Covered, Ranges: controlRanges(200, 20), From: event.Time(baseTime + 100_000)})
	wantNumbers(t, res, map[string]int64{CheckRows: 160, CheckNew: 60, CheckProven: 60})
	if res.Full || res.Covered[RawPartition{"raw.purchase", 0}] != 160 || res.Numbers[CheckWindowRows] != 100 {
		t.Errorf("%+v", res)
	}
	// A rewrite in between changes nothing.
	compact(t, c, small())
	last := commits(t, c, 160, 1, 1)[0]
	res = checked(t, c, CheckOptions{Snapshot: last, Since: next, Covered: res.Covered, Ranges: controlRanges(200, 20)})
	if res.Full || len(res.Differ) > 0 || res.Numbers[CheckNew] != 1 || res.Numbers[CheckOutside] != 0 {
		t.Errorf("%+v", res)
	}
}

func TestARowTooFewOrTooManyAndEveryKindOfDefectIsCounted(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		rows   func(i int) []*event.Event // what is stored of purchase i
		lag    time.Duration
		totals int
		want   map[string]int64
	}{
		"a row that is missing": {
			rows: func(i int) []*event.Event {
				if i == 33 {
					return nil
				}
				return []*event.Event{purchase(i)}
			},
			want: map[string]int64{CheckRows: 99, CheckNew: 99, CheckProven: 80, CheckMissing: 1, CheckDiffer: 1},
		},
		"a row that is there twice": {
			rows: func(i int) []*event.Event {
				if i == 33 {
					return []*event.Event{purchase(i), purchase(i)}
				}
				return []*event.Event{purchase(i)}
			},
			want: map[string]int64{CheckRows: 101, CheckNew: 101, CheckProven: 80, CheckSurplus: 1, CheckDiffer: 1, CheckDuplicates: 1},
		},
		"a row with other contents": {
			rows: func(i int) []*event.Event {
				e := purchase(i)
				if i == 33 {
					e.Value = ptr(7)
					e.RowHash = e.ComputeRowHash()
				}
				return []*event.Event{e}
			},
			want: map[string]int64{CheckRows: 100, CheckNew: 100, CheckProven: 80, CheckDiffer: 1},
		},
		"the id of another row": {
			rows: func(i int) []*event.Event {
				e := purchase(i)
				if i == 33 {
					e.ID = purchase(90).ID
				}
				return []*event.Event{e}
			},
			want: map[string]int64{CheckRows: 100, CheckNew: 100, CheckProven: 100, CheckDuplicates: 1},
		},
		"rows for which there are no control totals yet": {
			rows: func(i int) []*event.Event { return []*event.Event{purchase(i)} }, totals: 60, lag: 100 * 365 * 24 * time.Hour,
			want: map[string]int64{CheckRows: 100, CheckNew: 100, CheckProven: 60, CheckOpen: 40},
		},
		"rows for which there should be control totals": {
			rows: func(i int) []*event.Event { return []*event.Event{purchase(i)} }, totals: 60, lag: time.Hour,
			want: map[string]int64{CheckRows: 100, CheckNew: 100, CheckProven: 60, CheckUntold: 40},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := ensureTest(t)
			w, err := c.NewWriter(t.Context(), purchases)
			if err != nil {
				t.Fatal(err)
			}
			n := int64(0)
			for i := range 100 {
				for _, e := range tc.rows(i) {
					if err := w.WriteEvent(t.Context(), e, Provenance{"events.purchase", 0, n}); err != nil {
						t.Fatal(err)
					}
					n++
				}
			}
			files, err := w.Finish(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			head, err := c.Append(t.Context(), purchases, files, Vector{}, at(0, int(n)))
			if err != nil {
				t.Fatal(err)
			}
			if tc.totals == 0 {
				tc.totals = 100
			}
			wantNumbers(t, checked(t, c, CheckOptions{Snapshot: head.SnapshotID, Ranges: controlRanges(tc.totals, 20), Lag: tc.lag}), tc.want)
		})
	}
}

func TestATableThatBeganLaterIsComparedFromThereOn(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	w, err := c.NewWriter(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, w, 50, 150)
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	head, err := c.Append(t.Context(), purchases, files, Vector{}, at(0, 150))
	if err != nil {
		t.Fatal(err)
	}
	res := checked(t, c, CheckOptions{Snapshot: head.SnapshotID, Ranges: controlRanges(200, 20)})
	wantNumbers(t, res, map[string]int64{CheckRows: 100, CheckNew: 100, CheckBefore: 10, CheckProven: 80, CheckOpen: 10})
}

// TestRowsThatWentWithoutAReasonLeadToAFullCheck: a snapshot whose number of rows is not that of what was checked before and what is new is read as a whole, and so is one after
// anything but appends and rewrites.
func TestRowsThatWentWithoutAReasonLeadToAFullCheck(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	s := commits(t, c, 0, 2, 50)
	res := checked(t, c, CheckOptions{Snapshot: s[1], Ranges: controlRanges(200, 20)})
	rollback(t, c, purchases, s[0])
	// The offsets go on from 100 as if nothing had happened: rows [50, 100) are lost.
	w, err := c.NewWriter(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, w, 100, 160)
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	head, err := c.Append(t.Context(), purchases, files, at(0, 50), at(0, 160))
	if err != nil {
		t.Fatal(err)
	}
	res = checked(t, c, CheckOptions{Snapshot: head.SnapshotID, Since: s[1], Covered: res.Covered, Ranges: controlRanges(200, 20)})
	if !res.Full || res.Numbers[CheckMissing] != 50 || res.Numbers[CheckDiffer] != 3 {
		t.Errorf("%+v", res)
	}
}

func TestIdsAreCountedAlikeInMemoryAndOnDisk(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		type row struct {
			ID    int
			Fresh bool
		}
		rows := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) row {
			return row{rapid.IntRange(0, 40).Draw(rt, "id"), rapid.Bool().Draw(rt, "fresh")}
		}), 0, 200).Draw(rt, "rows")
		fresh, old := map[int]int64{}, map[int]bool{}
		for _, r := range rows {
			if r.Fresh {
				fresh[r.ID]++
			} else {
				old[r.ID] = true
			}
		}
		want := int64(0)
		for id, n := range fresh {
			if want += n - 1; old[id] {
				want++
			}
		}
		for _, limit := range []int{1 << 20, 7} {
			c := newIDCounter(folder, limit)
			for _, r := range rows {
				if err := c.add(event.Fingerprint("t", "s", fmt.Sprint(r.ID)), r.Fresh); err != nil {
					rt.Fatal(err)
				}
			}
			got, err := c.duplicates(t.Context())
			c.close()
			if err != nil || got != want {
				rt.Fatalf("limit %d: %d duplicates, not %d: %v", limit, got, want, err)
			}
		}
	})
}
