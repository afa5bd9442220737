package streaming

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

var testEpoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// script is an input: for each of two topics records with arrival times, event times out of order, duplicates, and some far too late.
type script struct{ in [2][]*kgo.Record }

func drawScript(rt *rapid.T) script {
	var s script
	n := rapid.IntRange(1, 150).Draw(rt, "records")
	arrival := testEpoch
	gap := rapid.SampledFrom([]int{20, 100, 400}).Draw(rt, "most") // several transactions in a window, or several windows in one
	keys := rapid.IntRange(0, 3).Draw(rt, "keys")
	ids := 0
	for range n {
		arrival = arrival.Add(time.Duration(rapid.IntRange(0, gap).Draw(rt, "gap")) * time.Millisecond)
		behind := rapid.SampledFrom([]int{0, 0, 0, 100, 900, 1500, 5000, 19000, 23000, 60000}).Draw(rt, "behind")
		at := arrival.Add(-time.Duration(behind) * time.Millisecond).UnixMicro()
		id := strconv.Itoa(ids)
		if ids > 0 && rapid.IntRange(0, 9).Draw(rt, "dup") == 0 {
			id = strconv.Itoa(rapid.IntRange(0, ids-1).Draw(rt, "of"))
		} else {
			ids++
		}
		r := record("k"+strconv.Itoa(rapid.IntRange(0, keys).Draw(rt, "key")), at, id)
		r.Timestamp = arrival
		in := rapid.IntRange(0, 1).Draw(rt, "in")
		s.in[in] = append(s.in[in], r)
	}
	return s
}

func clone(r *kgo.Record) *kgo.Record { c := *r; return &c }

func newScripted(rt testing.TB, s script) *Harness {
	h, err := NewHarness(Config{MergeWait: 50 * time.Millisecond, Disorder: time.Second, IdleAfter: time.Hour}, testTopology(4), 1, testEpoch.Add(time.Hour))
	if err != nil {
		rt.Fatal(err)
	}
	for in := range s.in {
		for _, r := range s.in[in] {
			h.Produce(in, clone(r))
		}
		h.Poll(in, 0) // learn how far it reaches
	}
	return h
}

// rest lets everything in the stores rest between two transactions.
func (h *Harness) rest(rt testing.TB) {
	open := h.top.New
	h.top.New = func(t *Task) (Operator, error) {
		t.rest = restAtOnce
		return open(t)
	}
	must(rt, h.Crash())
}

// result is what must not depend on how the input was cut, aborted and restored.
type result struct {
	Out, Late, Fired []string
	Rows             map[string]string
	State            map[string]string
}

func resultOf(h *Harness) result {
	values := func(topic string, key bool) []string {
		out := []string{}
		for _, r := range h.Outputs(topic) {
			if key {
				out = append(out, string(r.Key))
			} else {
				out = append(out, string(r.Value))
			}
		}
		slices.Sort(out)
		return out
	}
	res := result{Out: values(outTopic, false), Late: values(lateTopic, false), Fired: values(firedTopic, true), Rows: map[string]string{}, State: map[string]string{}}
	for _, r := range h.Outputs(rowTopic) {
		res.Rows[string(r.Key)] = string(r.Value)
	}
	for _, r := range h.Outputs("state.test.one") {
		if r.Value == nil {
			delete(res.State, string(r.Key))
		} else {
			res.State[string(r.Key)] = string(r.Value)
		}
	}
	return res
}

func must(rt testing.TB, err error) {
	rt.Helper()
	if err != nil {
		rt.Fatal(err)
	}
}

func finish(rt testing.TB, h *Harness) {
	must(rt, h.Feed())
	must(rt, h.Advance(100*time.Millisecond))
	_, err := h.Commit()
	must(rt, err)
	must(rt, h.Advance(time.Hour+time.Second)) // every input is idle: the watermark reaches the latest event
	_, err = h.Commit()
	must(rt, err)
}

func TestAnyBatchingCrashOrAbortGivesTheSameResult(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScript(rt)
		plain := newScripted(t, s)
		finish(t, plain)
		want := resultOf(plain)

		h := newScripted(t, s)
		if rapid.Bool().Draw(rt, "rest") {
			h.rest(t)
		}
		for range rapid.IntRange(0, 60).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"poll", "poll", "poll", "run", "run", "run", "commit", "commit", "abort", "crash", "unknown", "advance"}).Draw(rt, "step") {
			case "poll":
				h.Poll(rapid.IntRange(0, 1).Draw(rt, "input"), rapid.IntRange(1, 40).Draw(rt, "n"))
			case "run":
				must(t, h.Run())
			case "commit":
				_, err := h.Commit()
				must(t, err)
			case "abort":
				must(t, h.Abort())
			case "crash":
				must(t, h.Crash())
			case "unknown": // it committed, and the worker did not learn of it
				_, err := h.Commit()
				must(t, err)
				must(t, h.Crash())
			case "advance":
				must(t, h.Advance(time.Duration(rapid.IntRange(1, 1500).Draw(rt, "ms"))*time.Millisecond))
			}
		}
		finish(t, h)
		if diff := cmp.Diff(want, resultOf(h)); diff != "" {
			rt.Fatalf("result differs (-plain +cut):\n%s", diff)
		}
	})
}

// oracle computes the result from the input, by definition and without the engine.
func oracle(s script, disorder, lateness int64) (rows map[string]string, out, late []string) {
	type item struct {
		r  *kgo.Record
		in int
	}
	var all []item
	for in := range s.in {
		for _, r := range s.in[in] {
			all = append(all, item{r, in})
		}
	}
	slices.SortStableFunc(all, func(a, b item) int {
		if c := a.r.Timestamp.Compare(b.r.Timestamp); c != 0 {
			return c
		}
		return a.in - b.in
	})
	latest := map[int]int64{}
	watermark := int64(noTime)
	seen := map[string]bool{}
	sumOf := map[string]*sum{}
	for _, x := range all {
		at, id, _ := parseInput(x.r.Value)
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
			if end := at - at%1e6 + 1e6; watermark != noTime && end+lateness <= watermark {
				late = append(late, id)
			} else {
				for g, size := range []int64{1e6, 1e7} {
					k := fmt.Sprintf("%d/%d/%s", g, at-at%size, x.r.Key)
					if sumOf[k] == nil {
						sumOf[k] = &sum{}
					}
					sumOf[k].n++
					sumOf[k].total += at % 1000
				}
			}
		}
		if m, ok := latest[x.in]; !ok || at > m {
			latest[x.in] = at
		}
		if len(latest) == 2 {
			watermark = max(watermark, min(latest[0], latest[1])-disorder)
		}
	}
	rows = map[string]string{}
	for k, v := range sumOf {
		rows[k] = fmt.Sprintf("%d %d", v.n, v.total)
	}
	slices.Sort(out)
	slices.Sort(late)
	return rows, out, late
}

func TestWindowsAgreeWithTheirDefinition(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScript(rt)
		h := newScripted(t, s)
		finish(t, h)
		rows, out, late := oracle(s, 1e6, 20e6)
		got := resultOf(h)
		if diff := cmp.Diff(rows, got.Rows); diff != "" {
			rt.Fatalf("rows differ (-oracle +engine):\n%s", diff)
		}
		if !slices.Equal(out, got.Out) || !slices.Equal(late, got.Late) {
			rt.Fatalf("outputs %v, want %v; late %v, want %v", got.Out, out, got.Late, late)
		}
		c := h.task.op.(*testOp).windows.Counts()
		if int(c.OnTime+c.Late+c.Dropped) != len(out) || int(c.Dropped) != len(late) {
			rt.Fatalf("in %d is not on time %d + late %d + dropped %d", len(out), c.OnTime, c.Late, c.Dropped)
		}
	})
}

func TestAStoreIsAMapThatCommitsAndAborts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var s *Store[int64]
		top := Topology{Name: "test", Stage: "store", Inputs: []string{"in"}, Partitions: 1, Stores: []StoreSpec{{16, "s", 1}}, New: func(t *Task) (Operator, error) {
			s = OpenStore(t, 16, Codec[int64](Int64{}))
			return &idleOp{}, nil
		}}
		h, err := NewHarness(Config{}, top, 0, testEpoch)
		must(t, err)
		committed, now := map[string]int64{}, map[string]int64{}
		for range rapid.IntRange(1, 80).Draw(rt, "ops") {
			k := rapid.SampledFrom([]string{"", "a", "b", "c", "d"}).Draw(rt, "key")
			switch rapid.IntRange(0, 7).Draw(rt, "op") {
			case 0, 1, 2:
				v := rapid.Int64().Draw(rt, "value")
				s.Put(k, v)
				now[k] = v
			case 3, 4:
				s.Delete(k)
				delete(now, k)
			case 5:
				_, err := h.Commit()
				must(t, err)
				committed = maps.Clone(now)
			case 6:
				must(t, h.Abort())
				now = maps.Clone(committed)
			case 7:
				must(t, h.Crash())
				now = maps.Clone(committed)
			}
			got := map[string]int64{}
			s.Range(func(k string, v int64) bool { got[k] = v; return true })
			if diff := cmp.Diff(now, got); diff != "" || s.Len() != len(now) {
				rt.Fatalf("store has %d keys (-map +store):\n%s", s.Len(), diff)
			}
			if v, ok := s.Get(k); v != now[k] || ok != func() bool { _, ok := now[k]; return ok }() {
				rt.Fatalf("Get(%q) = %d, %v", k, v, ok)
			}
		}
	})
}

type idleOp struct{}

func (*idleOp) Process(int, *kgo.Record) error { return nil }
func (*idleOp) Timer(Timer) error              { return nil }
func (*idleOp) Tick(time.Time) error           { return nil }
func (*idleOp) BeforeCommit() error            { return nil }
func (*idleOp) Committed()                     {}
func (*idleOp) Aborted()                       {}
