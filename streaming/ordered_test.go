package streaming

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// partOp is an operator of one part under test: process takes the records of testEpoch's scripts (`time id`), except those of the key "end", which only move time.
type partOp struct {
	t       *Task
	process func(in int, key string, at int64, id string, r *kgo.Record) error
	timer   func(Timer) error
}

const endKey = "end"

func (o *partOp) Process(in int, r *kgo.Record) error {
	at, id, err := parseInput(r.Value)
	if err != nil {
		return err
	}
	o.t.Observe(in, LaneLive, at)
	if string(r.Key) == endKey {
		return nil
	}
	return o.process(in, string(r.Key), at, id, r)
}

func (o *partOp) Timer(tm Timer) error {
	if o.timer != nil {
		return o.timer(tm)
	}
	return nil
}

func (o *partOp) Tick(time.Time) error { return nil }
func (o *partOp) BeforeCommit() error  { return nil }
func (o *partOp) Committed()           {}
func (o *partOp) Aborted()             {}

func (o *partOp) say(topic, format string, a ...any) {
	r := o.t.Record()
	r.Topic, r.Value = topic, fmt.Appendf(nil, format, a...)
	o.t.Emit(r)
}

func partTopology(make func(o *partOp), stores ...StoreSpec) Topology {
	return Topology{Name: "test", Stage: "part", Inputs: []string{"in.b", "in.a"}, Partitions: 1, Stores: stores, New: func(t *Task) (Operator, error) {
		o := &partOp{t: t}
		make(o)
		return o, nil
	}}
}

// newPart makes a harness of a part over a script, with an end that moves time far on.
func newPart(tb testing.TB, top Topology, s script) *Harness {
	h, err := NewHarness(Config{MergeWait: 50 * time.Millisecond, Disorder: time.Second, IdleAfter: time.Hour}, top, 0, testEpoch.Add(time.Hour))
	must(tb, err)
	for in := range s.in {
		for _, r := range s.in[in] {
			h.Produce(in, clone(r))
		}
	}
	for i := range 2 * len(s.in) { // two steps, so that what goes a step later goes too
		end := record(endKey, testEpoch.Add(time.Duration(10+i/2)*time.Hour).UnixMicro(), "end")
		end.Timestamp = testEpoch.Add(24 * time.Hour)
		h.Produce(i%2, end)
	}
	for in := range s.in {
		h.Poll(in, 0)
	}
	return h
}

// cut runs a harness in steps as a worker might, crashes included.
func cut(rt *rapid.T, tb testing.TB, h *Harness) {
	for range rapid.IntRange(0, 60).Draw(rt, "steps") {
		switch rapid.SampledFrom([]string{"poll", "poll", "poll", "run", "run", "run", "commit", "commit", "abort", "crash", "unknown"}).Draw(rt, "step") {
		case "poll":
			h.Poll(rapid.IntRange(0, 1).Draw(rt, "input"), rapid.IntRange(1, 40).Draw(rt, "n"))
		case "run":
			must(tb, h.Run())
		case "commit":
			_, err := h.Commit()
			must(tb, err)
		case "abort":
			must(tb, h.Abort())
		case "crash":
			must(tb, h.Crash())
		case "unknown":
			_, err := h.Commit()
			must(tb, err)
			must(tb, h.Crash())
		}
	}
	finishPart(tb, h)
}

func finishPart(tb testing.TB, h *Harness) {
	must(tb, h.Feed())
	_, err := h.Commit()
	must(tb, err)
}

func values(h *Harness, topic string) []string {
	out := []string{}
	for _, r := range h.Outputs(topic) {
		out = append(out, string(r.Value))
	}
	return out
}

// leftOf counts what the compacted changelog holds of the topology's own stores and of timers.
func leftOf(h *Harness) int {
	state := map[string]bool{}
	for _, r := range h.Outputs(ChangelogTopic(h.top)) {
		if id := binary.BigEndian.Uint16(r.Key); id < FirstStoreID && id != storeTimers {
			continue
		}
		if r.Value == nil {
			delete(state, string(r.Key))
		} else {
			state[string(r.Key)] = true
		}
	}
	return len(state)
}

// arrived is a record of a script as a task sees it: in merged order, with the watermark that it meets.
type arrived struct {
	in        int
	key, id   string
	at        int64
	rank      int
	offset    int
	watermark int64
}

// arrivals are the records of a script in merged order.
func arrivals(s script, disorder int64) []arrived {
	type item struct {
		a arrived
		t time.Time
	}
	var items []item
	for in := range s.in {
		for off, r := range s.in[in] {
			at, id, _ := parseInput(r.Value)
			items = append(items, item{arrived{in: in, key: string(r.Key), id: id, at: at, rank: 1 - in, offset: off}, r.Timestamp}) // in.b is input 0
		}
	}
	slices.SortStableFunc(items, func(a, b item) int {
		if c := a.t.Compare(b.t); c != 0 {
			return c
		}
		if a.a.rank != b.a.rank {
			return a.a.rank - b.a.rank
		}
		return a.a.offset - b.a.offset
	})
	var all []arrived
	latest := map[int]int64{}
	watermark := int64(noTime)
	for _, x := range items {
		x.a.watermark = watermark
		all = append(all, x.a)
		if m, ok := latest[x.a.in]; !ok || x.a.at > m {
			latest[x.a.in] = x.a.at
		}
		if len(latest) == 2 {
			watermark = max(watermark, min(latest[0], latest[1])-disorder)
		}
	}
	return all
}

func orderedTopology(lateness time.Duration) Topology {
	return partTopology(func(o *partOp) {
		buf := OpenOrdered(o.t, OrderedSpec[string]{
			Store: 16, Codec: strs{}, Lateness: lateness,
			Each: func(key string, at int64, v string) error {
				o.say("each", "%s %d %s", key, at, v)
				o.t.SetTimer(1, key, at)
				return nil
			},
			Late: func(key string, at int64, v string) error {
				o.say("late", "%s %d %s", key, at, v)
				return nil
			},
		})
		o.process = func(_ int, key string, at int64, id string, r *kgo.Record) error {
			return buf.Add(key, at, o.t.Rank(r.Topic), r.Offset, id)
		}
	}, StoreSpec{16, "ordered", 1})
}

func TestAnOrderedBufferGivesItemsBackInTheirOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScript(rt)
		lateness := time.Duration(rapid.SampledFrom([]int{0, 0, 5000}).Draw(rt, "lateness")) * time.Millisecond
		var kept []arrived
		late := []string{}
		for _, a := range arrivals(s, 1e6) {
			if a.watermark != noTime && a.at < a.watermark-lateness.Microseconds() {
				late = append(late, fmt.Sprintf("%s %d %s", a.key, a.at, a.id))
			} else {
				kept = append(kept, a)
			}
		}
		slices.SortFunc(kept, func(a, b arrived) int {
			for _, d := range []int64{a.at - b.at, int64(a.rank - b.rank), int64(a.offset - b.offset)} {
				if d != 0 {
					return int(max(-1, min(1, d)))
				}
			}
			return 0
		})
		each := []string{}
		for _, a := range kept {
			each = append(each, fmt.Sprintf("%s %d %s", a.key, a.at, a.id))
		}
		for _, how := range []func(testing.TB, *Harness){finishPart, func(tb testing.TB, h *Harness) { cut(rt, tb, h) }} {
			h := newPart(t, orderedTopology(lateness), s)
			how(t, h)
			if diff := cmp.Diff(each, values(h, "each")); diff != "" {
				rt.Fatalf("order (-sorted +buffer):\n%s", diff)
			}
			if diff := cmp.Diff(late, values(h, "late")); diff != "" {
				rt.Fatalf("late (-definition +buffer):\n%s", diff)
			}
			if n := leftOf(h); n != 0 {
				rt.Fatalf("%d entries are left in the changelog", n)
			}
			w := h.task.windows[0].(*Ordered[string])
			if w.Len() != 0 || len(w.buckets) != 0 || len(w.order) != 0 {
				rt.Fatalf("%d items and %d buckets are left", w.Len(), len(w.buckets))
			}
		}
	})
}

func TestAnOrderedBufferCountsWhatIsLate(t *testing.T) {
	t.Parallel()
	s := script{}
	at := testEpoch.UnixMicro()
	for i, x := range []int64{0, 5_000_000, 1_000_000, 4_500_000} {
		s.in[0] = append(s.in[0], record("k", at+x, fmt.Sprint(i)))
		s.in[0][i].Timestamp = testEpoch.Add(time.Duration(i) * time.Second)
	}
	r := record("k", at+5_000_000, "other")
	r.Timestamp = testEpoch
	s.in[1] = append(s.in[1], r)
	h := newPart(t, orderedTopology(0), s)
	finishPart(t, h)
	if diff := cmp.Diff(WindowCounts{OnTime: 4, Dropped: 1}, h.task.windows[0].(*Ordered[string]).Counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if got := strings.Join(values(h, "late"), ","); !strings.HasSuffix(got, " 2") {
		t.Errorf("late: %s, want item 2", got)
	}
}

// One that comes and goes in a transaction costs no changelog, and one that stays is written once.
func TestAnItemIsWrittenOnlyIfACommitFindsIt(t *testing.T) {
	t.Parallel()
	h, err := NewHarness(Config{MergeWait: -1, Disorder: time.Second, IdleAfter: time.Hour}, partTopology(orderedIn, StoreSpec{16, "ordered", 1}), 0, testEpoch)
	must(t, err)
	at := testEpoch.UnixMicro()
	count := func() (n int) {
		for _, r := range h.Outputs(ChangelogTopic(h.top)) {
			if binary.BigEndian.Uint16(r.Key) == 16 {
				n++
			}
		}
		return n
	}
	feed := func(commit bool, times ...int64) {
		for _, x := range times {
			for in := range 2 {
				h.Produce(in, record("k", at+x, "x"))
			}
		}
		must(t, h.Feed())
		if commit {
			_, err := h.Commit()
			must(t, err)
		}
	}
	feed(true, 0, 1000, 2000, 9_000_000) // three pairs go, one stays
	if n := count(); n != 2 {
		t.Fatalf("%d changelog records, want 2", n)
	}
	feed(true, 9_500_000) // two more stay
	feed(true, 9_600_000)
	if n := count(); n != 6 {
		t.Fatalf("%d changelog records, want 6: an item is written once", n)
	}
}

func orderedIn(o *partOp) {
	buf := OpenOrdered(o.t, OrderedSpec[string]{Store: 16, Codec: strs{}, Each: func(string, int64, string) error { return nil }})
	o.process = func(_ int, key string, at int64, id string, r *kgo.Record) error {
		return buf.Add(key, at, o.t.Rank(r.Topic), r.Offset, id)
	}
}

// TestAnAbortBringsBackWhatHadItsTurn, and a crash does not take for new what is late although nothing was held when it came.
func TestAnAbortBringsBackWhatHadItsTurn(t *testing.T) {
	t.Parallel()
	h, err := NewHarness(Config{MergeWait: -1, Disorder: time.Second, IdleAfter: time.Hour}, orderedTopology(0), 0, testEpoch)
	must(t, err)
	at := testEpoch.UnixMicro()
	feed := func(key string, seconds int64) {
		for in := range 2 {
			h.Produce(in, record(key, at+seconds*1e6, "x"))
		}
		must(t, h.Feed())
	}
	commit := func(each, late int) {
		t.Helper()
		_, err := h.Commit()
		must(t, err)
		if e, l := len(values(h, "each")), len(values(h, "late")); e != each || l != late {
			t.Fatalf("%d items had their turn and %d were late, want %d and %d", e, l, each, late)
		}
	}
	feed("k", 1)
	commit(0, 0)
	feed(endKey, 10)
	w := h.task.windows[0].(*Ordered[string])
	if w.Len() != 0 {
		t.Fatalf("%d items are held", w.Len())
	}
	must(t, h.Abort())
	if w = h.task.windows[0].(*Ordered[string]); w.Len() != 2 {
		t.Fatalf("%d items are held after an abort, want 2", w.Len())
	}
	must(t, h.Feed())
	commit(2, 0)
	feed(endKey, 20)
	commit(2, 0)
	must(t, h.Crash())
	feed("k", 12) // both are late: the watermark is at 19
	commit(2, 2)
}

// TestTheFormatOfTimelinesIsForEver holds what an ordered buffer, a join and a table write.
func TestTheFormatOfTimelinesIsForEver(t *testing.T) {
	t.Parallel()
	h, err := NewHarness(Config{MergeWait: -1, Disorder: time.Second, IdleAfter: time.Hour}, partTopology(func(o *partOp) {
		buf := OpenOrdered(o.t, OrderedSpec[string]{Store: 16, Codec: strs{}, Each: func(string, int64, string) error { return nil }})
		join := OpenInterval(o.t, IntervalSpec[string, int64]{Store: 17, Upper: time.Second, Left: strs{}, Right: Int64{}, Match: func(Pair[string, int64]) error { return nil }})
		tab := OpenTable(o.t, TableSpec[string]{Store: 18, Codec: strs{}, Keep: time.Second})
		o.process = func(in int, key string, at int64, id string, r *kgo.Record) error {
			if err := buf.Add(key, at, o.t.Rank(r.Topic), r.Offset, id); err != nil {
				return err
			}
			if in == 0 {
				tab.Put(key, at, id)
				return join.AddLeft(key, at, id)
			}
			tab.Delete(key, at)
			return join.AddRight(key, at, r.Offset)
		}
	}, StoreSpec{16, "ordered", 1}, StoreSpec{17, "join", 1}, StoreSpec{18, "table", 1}), 0, testEpoch)
	must(t, err)
	at := testEpoch.UnixMicro()
	for i, x := range []int64{0, 1_500_000, 90_000_000} {
		for in := range 2 {
			h.Produce(in, record("key", at+x+int64(in)*100_000, fmt.Sprintf("%c%d", 'a'+in, i)))
		}
		must(t, h.Feed())
		_, err := h.Commit()
		must(t, err)
	}
	var b strings.Builder
	for _, r := range h.Outputs(ChangelogTopic(h.top)) {
		if id := binary.BigEndian.Uint16(r.Key); id >= FirstStoreID {
			v := "deleted"
			if r.Value != nil {
				v = fmt.Sprintf("%x", r.Value)
			}
			fmt.Fprintf(&b, "%x = %s\n", r.Key, v)
		}
	}
	path := filepath.Join("testdata", "timelines.golden")
	if *update {
		must(t, os.WriteFile(path, []byte(b.String()), 0o600))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("what is written has changed (-%s +now):\n%s", path, diff)
	}
}
