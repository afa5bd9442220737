package streaming

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"millrace/internal/fault"
)

func harness(t testing.TB, cfg Config, top Topology) *Harness {
	t.Helper()
	h, err := NewHarness(cfg, top, 0, testEpoch)
	must(t, err)
	return h
}

// order notes what it is given.
type order struct {
	idleOp
	t     *Task
	got   []string
	timed bool
	fired []string
	ticks int
}

func (o *order) Process(in int, r *kgo.Record) error {
	o.got = append(o.got, fmt.Sprintf("%d@%d", in, r.Offset))
	if o.timed {
		at, _, err := parseInput(r.Value)
		if err != nil {
			return err
		}
		o.t.Observe(in, LaneLive, at)
	}
	return nil
}

func (o *order) Timer(tm Timer) error {
	o.fired = append(o.fired, fmt.Sprintf("%d/%s@%d", tm.Owner, tm.Key, tm.At))
	return nil
}

func (o *order) Tick(time.Time) error { o.ticks++; return nil }

func orderTopology(o **order, inputs ...string) Topology {
	return Topology{Name: "test", Stage: "order", Inputs: inputs, Partitions: 1, New: func(t *Task) (Operator, error) {
		*o = &order{t: t}
		return *o, nil
	}}
}

func at(ms int) time.Time { return testEpoch.Add(time.Duration(ms) * time.Millisecond) }

func TestInputsMergeByTimestampTopicOffset(t *testing.T) {
	t.Parallel()
	var o *order
	h := harness(t, Config{MergeWait: 50 * time.Millisecond}, orderTopology(&o, "b", "a"))
	for _, ms := range []int{1, 3, 3, 9} {
		h.Produce(0, &kgo.Record{Timestamp: at(ms)})
	}
	for _, ms := range []int{2, 3, 10} {
		h.Produce(1, &kgo.Record{Timestamp: at(ms)})
	}
	must(t, h.Feed())
	want := []string{"0@0", "1@0", "1@1", "0@1", "0@2", "0@3", "1@2"} // of equal times topic a comes first
	if diff := cmp.Diff(want, o.got); diff != "" {
		t.Fatal(diff)
	}
}

func TestTheMergeWaitsForAnInput(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		lag    int // records of the other input that exist and are not read
		after  time.Duration
		passes bool
	}{
		{"with nothing to read until merge.wait has passed", 0, 49 * time.Millisecond, false},
		{"with nothing to read no longer than merge.wait", 0, 50 * time.Millisecond, true},
		{"with lag as long as it takes", 1, time.Minute, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var o *order
			h := harness(t, Config{MergeWait: 50 * time.Millisecond}, orderTopology(&o, "a", "b"))
			h.Produce(0, &kgo.Record{Timestamp: at(5)})
			for range c.lag {
				h.Produce(1, &kgo.Record{Timestamp: at(1)})
			}
			h.Poll(1, 0)
			h.Poll(0, 1)
			h.now = h.now.Add(c.after)
			must(t, h.Run())
			if (len(o.got) == 1) != c.passes {
				t.Fatalf("processed %v", o.got)
			}
			if c.lag > 0 {
				h.Poll(1, 1)
				must(t, h.Run())
				if diff := cmp.Diff([]string{"1@0", "0@0"}, o.got); diff != "" {
					t.Fatal(diff)
				}
			}
		})
	}
}

// TestTheMergeWaitsAsLongAsProducersLinger: an input that nobody holds back for long is not waited for as long as another.
func TestTheMergeWaitsAsLongAsProducersLinger(t *testing.T) {
	t.Parallel()
	var o *order
	top := orderTopology(&o, "a", "b", "c")
	top.Linger = map[string]time.Duration{"a": 0, "b": 7 * time.Millisecond, "c": time.Hour}
	h := harness(t, Config{MergeWait: 50 * time.Millisecond}, top)
	took := func(in ...int) (ms int) {
		t.Helper()
		for _, i := range in {
			h.Produce(i, &kgo.Record{Timestamp: at(0)})
			h.Poll(i, 1)
		}
		for n := len(o.got); len(o.got) < n+len(in); ms++ {
			must(t, h.Run())
			if h.now = h.now.Add(time.Millisecond); ms > 1000 {
				t.Fatalf("processed %v", o.got)
			}
		}
		return ms - 1
	}
	if ms := took(0, 2); ms != 12 { // nothing of b
		t.Errorf("b was waited for %d ms, want 7 and 5", ms)
	}
	if ms := took(0, 1); ms != 50 { // nothing of c
		t.Errorf("c was waited for %d ms, want 50 at most", ms)
	}
}

// TestTheMergeSaysWhenToComeBack: while records wait for time alone, wake is the moment at which the first of them may be processed, never one that is over.
func TestTheMergeSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var o *order
		top := orderTopology(&o, "a", "b", "c")
		top.Linger = map[string]time.Duration{"b": 7 * time.Millisecond}
		h := harness(t, Config{MergeWait: 20 * time.Millisecond}, top)
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			in := rapid.IntRange(0, 2).Draw(rt, "in")
			h.Produce(in, &kgo.Record{Timestamp: at(rapid.IntRange(0, 30).Draw(rt, "ms"))})
			h.Poll(in, 1)
			h.now = h.now.Add(time.Duration(rapid.IntRange(0, 9).Draw(rt, "later")) * time.Millisecond)
			must(t, h.Run())
			if h.task.merge.buffered == 0 {
				continue
			}
			at, ok := h.task.merge.wake()
			if !ok || !at.After(h.now) {
				rt.Fatalf("%d records wait, until %v (%v) at %v", h.task.merge.buffered, at, ok, h.now)
			}
			done := len(o.got)
			if h.now = at; rapid.Bool().Draw(rt, "come") {
				if must(t, h.Run()); len(o.got) == done {
					rt.Fatal("nothing was processed when wake said so")
				}
			}
		}
	})
}

func TestTheMergeIsASortWhateverTheBatches(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var o *order
		h := harness(t, Config{MergeWait: -1}, orderTopology(&o, "a", "b", "c"))
		type rec struct{ ms, in, off int }
		var all []rec
		for in := range 3 {
			ms := 0
			for off := range rapid.IntRange(0, 30).Draw(rt, "n") {
				ms += rapid.IntRange(0, 3).Draw(rt, "gap")
				h.Produce(in, &kgo.Record{Timestamp: at(ms)})
				all = append(all, rec{ms, in, off})
			}
			h.Poll(in, 0)
		}
		slices.SortFunc(all, func(a, b rec) int {
			if a.ms != b.ms {
				return a.ms - b.ms
			}
			if a.in != b.in {
				return a.in - b.in
			}
			return a.off - b.off
		})
		want := []string{}
		for _, r := range all {
			want = append(want, fmt.Sprintf("%d@%d", r.in, r.off))
		}
		for len(o.got) < len(want) {
			h.Poll(rapid.IntRange(0, 2).Draw(rt, "in"), rapid.IntRange(1, 20).Draw(rt, "size"))
			must(t, h.Run())
		}
		if !slices.Equal(want, o.got) {
			rt.Fatal(cmp.Diff(want, o.got))
		}
		if h.task.merge.buffered != 0 {
			rt.Fatalf("%d records are held", h.task.merge.buffered)
		}
	})
}

func TestTheWatermarkIsTheMinimumOfInputsThatAreNotIdle(t *testing.T) {
	t.Parallel()
	var o *order
	top := orderTopology(&o, "a", "b", "c")
	top.Untimed = []string{"c"}
	h := harness(t, Config{MergeWait: -1, Disorder: 2 * time.Second, IdleAfter: time.Second}, top)
	o.timed = true
	mark := func() int64 {
		if w := h.Task().Watermark(); w != noTime {
			return w / 1_000_000
		}
		return -1
	}
	feed := func(in int, sec int64) {
		h.Produce(in, record("k", sec*1_000_000, "x"))
		must(t, h.Feed())
	}
	step := func(want int64, why string) {
		t.Helper()
		if got := mark(); got != want {
			t.Fatalf("watermark %d, want %d: %s", got, want, why)
		}
	}
	step(-1, "nothing has come")
	feed(0, 100)
	step(-1, "input b has said nothing yet")
	feed(1, 90)
	step(88, "b is behind, less 2 s of disorder")
	feed(1, 70)
	step(88, "it never goes back")
	feed(1, 120)
	step(98, "now a is behind")
	must(t, h.Advance(900*time.Millisecond))
	step(98, "nobody is idle yet")
	feed(1, 130)
	must(t, h.Advance(500*time.Millisecond))
	step(128, "a is idle: b alone counts")
	feed(0, 110)
	step(128, "a is back, and behind: the watermark stays")
	feed(1, 150)
	step(128, "it waits for a again")
	feed(0, 140)
	step(138, "both have come")
	must(t, h.Advance(3*time.Second))
	step(148, "all are idle: the latest input counts")
	_, err := h.Commit()
	must(t, err)
	feed(0, 200)
	must(t, h.Abort())
	step(148, "an abort takes it back")
	if got := h.Task().water.in[0].max[LaneLive]; got != 140_000_000 {
		t.Fatalf("after an abort the latest event of a is %d", got)
	}
	must(t, h.Crash())
	o.timed = true
	step(148, "it is restored")
	if !h.Task().water.in[1].idle {
		t.Fatal("the idle decision is not restored")
	}
	feed(0, 200)
	step(198, "b is idle since before the restore")
}

func TestReplayedEventsMoveNoLiveWatermark(t *testing.T) {
	t.Parallel()
	var o *order
	h := harness(t, Config{Disorder: time.Second}, orderTopology(&o, "a"))
	h.task.Observe(0, LaneReplay, 5_000_000)
	must(t, h.task.advance())
	if h.task.Watermark() != noTime || h.task.water.now[LaneReplay] != 4_000_000 {
		t.Fatalf("watermarks %v", h.task.water.now)
	}
}

func TestTimersFireInOrderOnceAndSurviveAborts(t *testing.T) {
	t.Parallel()
	var o *order
	h := harness(t, Config{Disorder: -0, MergeWait: -1}, orderTopology(&o, "a"))
	o.timed = true
	commit := func() {
		t.Helper()
		_, err := h.Commit()
		must(t, err)
	}
	tk := h.Task()
	tk.SetTimer(2, "b", 10)
	tk.SetTimer(1, "z", 10)
	tk.SetTimer(1, "a", 10)
	tk.SetTimer(1, "a", 10) // again: the same
	tk.SetTimer(1, "neg", -5)
	tk.SetTimer(1, "later", 5_000_000)
	tk.SetTimer(1, "gone", 7)
	tk.DeleteTimer(1, "gone", 7)
	commit()
	feed := func(us int64) {
		h.Produce(0, record("k", us, "x"))
		must(t, h.Feed())
	}
	want := []string{"1/neg@-5", "1/a@10", "1/z@10", "2/b@10"}
	feed(2_000_010) // disorder is 2 s by default
	if diff := cmp.Diff(want, o.fired); diff != "" {
		t.Fatal(diff)
	}
	must(t, h.Abort())
	o.fired = nil
	must(t, h.Feed())
	if diff := cmp.Diff(want, o.fired); diff != "" {
		t.Fatalf("after an abort they fire again: %s", diff)
	}
	commit()
	must(t, h.Crash())
	o.timed = true
	feed(7_000_000)
	if diff := cmp.Diff([]string{"1/later@5000000"}, o.fired); diff != "" {
		t.Fatalf("after a restore: %s", diff)
	}
}

func TestATimerSetInThePastFiresAfterTheRecord(t *testing.T) {
	t.Parallel()
	var o *order
	h := harness(t, Config{MergeWait: -1}, orderTopology(&o, "a"))
	o.timed = true
	h.Produce(0, record("k", 9_000_000, "x"))
	must(t, h.Feed())
	h.Task().SetTimer(0, "past", 1)
	h.Produce(0, record("k", 1_000_000, "x")) // moves nothing
	must(t, h.Feed())
	if diff := cmp.Diff([]string{"0/past@1"}, o.fired); diff != "" {
		t.Fatal(diff)
	}
}

func TestFailuresOfAnOperatorNameTheRecord(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		fail func(*kgo.Record) error
		says string
	}{
		{"an error", func(*kgo.Record) error { return errors.New("no luck") }, "in.a/0@1: no luck"},
		{"a panic", func(*kgo.Record) error { panic("no luck") }, "in.a/0@1: panic: no luck"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := harness(t, Config{MergeWait: -1}, testTopology(4))
			h.task.op.(*testOp).fail = func(r *kgo.Record) error {
				if r.Offset == 1 {
					return c.fail(r)
				}
				return nil
			}
			h.Produce(0, record("k", 1, "a"))
			h.Produce(0, record("k", 1, "b"))
			err := h.Feed()
			if id, _ := fault.IDOf(err); id != "MR-STR-006" || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v", err)
			}
		})
	}
}

func TestMistakesOfATopologyAreRefused(t *testing.T) {
	t.Parallel()
	good := testTopology(4)
	for _, c := range []struct {
		name   string
		change func(*Topology)
		says   string
	}{
		{"no name", func(x *Topology) { x.Name = "" }, "name and stage"},
		{"no inputs", func(x *Topology) { x.Inputs = nil }, "0 inputs"},
		{"an input twice", func(x *Topology) { x.Inputs = []string{"a", "a"} }, "named twice"},
		{"an untimed input that is none", func(x *Topology) { x.Untimed = []string{"nope"} }, "is no input"},
		{"no partitions", func(x *Topology) { x.Partitions = 0 }, "partitions 0"},
		{"an engine's id", func(x *Topology) { x.Stores = []StoreSpec{{3, "x", 1}} }, "engine's own"},
		{"an id twice", func(x *Topology) { x.Stores = []StoreSpec{{20, "x", 1}, {20, "y", 1}} }, "given twice"},
		{"a log that keeps nothing", func(x *Topology) { x.Logs = []LogSpec{{"l", 0}} }, "retention"},
		{"a store that is not opened", func(x *Topology) { x.Stores = append(slices.Clone(x.Stores), StoreSpec{99, "x", 1}) }, "not opened"},
		{"a store that is not declared", func(x *Topology) { x.Stores = x.Stores[:1] }, "not declared"},
		{"a log that nobody restores", func(x *Topology) { x.New = func(*Task) (Operator, error) { return &idleOp{}, nil }; x.Stores = nil }, "no RestoreLog"},
		{"a New that fails", func(x *Topology) { x.New = func(*Task) (Operator, error) { return nil, errors.New("no luck") } }, "no luck"},
		{"a New that panics", func(x *Topology) { x.New = func(*Task) (Operator, error) { panic("no luck") } }, "no luck"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			top := good
			c.change(&top)
			if _, err := NewHarness(Config{}, top, 0, testEpoch); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v, want %q", err, c.says)
			}
		})
	}
}

func TestEveryProblemOfAConfigIsReported(t *testing.T) {
	t.Parallel()
	c := Config{Generation: 40_000, CommitInterval: time.Hour, MergeWait: -5, SessionTimeout: time.Second}.Defaults()
	err := c.Validate()
	for _, field := range []string{"Group", "InstanceID", "Generation", "CommitInterval", "MergeWait", "SessionTimeout", "TransactionTimeout"} {
		if err == nil || !strings.Contains(err.Error(), "streaming: "+field+" is ") {
			t.Errorf("%s is not reported in: %v", field, err)
		}
	}
	if err := (Config{Group: "g", InstanceID: "i"}).Defaults().Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}

func TestTasksMoveAsLittleAsTheyCan(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(rt, "partitions")
		m := rapid.IntRange(1, 6).Draw(rt, "members")
		owns, gens := make([][]int32, m), make([]int32, m)
		for p := range n {
			for range rapid.IntRange(0, 2).Draw(rt, "claims") {
				who := rapid.IntRange(0, m-1).Draw(rt, "owner")
				owns[who] = append(owns[who], int32(p))
			}
		}
		for i := range gens {
			gens[i] = int32(rapid.IntRange(0, 3).Draw(rt, "generation"))
		}
		got := balanceTasks(owns, gens, int32(n))
		seen := map[int32]bool{}
		for _, ps := range got {
			if len(ps) < n/m || len(ps) > (n+m-1)/m {
				rt.Fatalf("shares are not even: %v", got)
			}
			for _, p := range ps {
				if seen[p] {
					rt.Fatalf("%d has two owners: %v", p, got)
				}
				seen[p] = true
			}
		}
		if len(seen) != n {
			rt.Fatalf("%d of %d have an owner", len(seen), n)
		}
		if again := balanceTasks(got, make([]int32, m), int32(n)); !cmp.Equal(got, again) {
			rt.Fatalf("a settled assignment moves: %v, then %v", got, again)
		}
	})
}

func TestALogThatIsLargeIsWrittenInRecordsThatFit(t *testing.T) {
	t.Parallel()
	h := harness(t, Config{}, testTopology(4))
	var want []string
	for i := range 300 {
		v := fmt.Sprintf("%d-%s", i, strings.Repeat("x", 10_000))
		h.Task().AppendLog("ids", []byte(v))
		want = append(want, v)
	}
	_, err := h.Commit()
	must(t, err)
	recs := h.Outputs("state.ids.test.one")
	if len(recs) < 3 {
		t.Fatalf("%d records", len(recs))
	}
	for _, r := range recs {
		if len(r.Value) > maxLogRecord {
			t.Fatalf("a record of %d bytes", len(r.Value))
		}
	}
	must(t, h.Crash())
	for _, v := range want {
		if !h.task.op.(*testOp).seen[v] {
			t.Fatalf("%.10s is not restored", v)
		}
	}
	h.now = h.now.Add(25 * time.Hour)
	must(t, h.Crash())
	if n := len(h.task.op.(*testOp).seen); n != 0 {
		t.Fatalf("%d values are restored beyond retention", n)
	}
}

func TestStateThatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, key, value string }{
		{"a store that is not known", "\x00\x63k", "\x01v"},
		{"a format that is not known", "\x00\x10k", "\x02\x02"},
		{"a value that is cut off", "\x00\x10k", "\x01"},
		{"a key that is cut off", "\x00", "\x01"},
		{"a window key that is cut off", "\x00\x11\x00", "\x01"},
		{"a window of a grain that is not there", "\x00\x11\x09\x80\x00\x00\x00\x00\x00\x00\x00k", "\x01\x00\x02\x00"},
		{"a window that is cut off", "\x00\x11\x00\x80\x00\x00\x00\x00\x00\x00\x00k", "\x01\x01\x02\x05\x00"},
		{"a timer whose key is cut off", "\x00\x02\x80", "\x01"},
		{"watermarks that are cut off", "\x00\x01", "\x01\x00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := harness(t, Config{}, testTopology(4))
			h.topics["state.test.one"] = append(h.topics["state.test.one"], &kgo.Record{Key: []byte(c.key), Value: []byte(c.value)})
			if id, _ := fault.IDOf(h.Crash()); id != "MR-STR-005" {
				t.Fatalf("error %v", h.Crash())
			}
		})
	}
}

func TestClosedWindowsGoColdAndAreReleased(t *testing.T) {
	t.Parallel()
	h := harness(t, Config{MergeWait: -1, Disorder: time.Second, IdleAfter: time.Hour}, testTopology(4, "in"))
	feed := func(key string, us int64, id string) {
		t.Helper()
		h.Produce(0, record(key, us, id))
		must(t, h.Feed())
		must(t, h.Advance(1100*time.Millisecond))
		_, err := h.Commit()
		must(t, err)
	}
	w := func() *Windows[string, *sum] { return h.task.op.(*testOp).windows }
	feed("a", 10_500_000, "1")
	feed("b", 10_600_000, "2")
	feed("a", 25_000_000, "3")
	first := w().panes[paneID{0, 10_000_000, 11_000_000}]
	if first.cold == nil || first.n != 2 || w().size() != 6 {
		t.Fatalf("pane %+v, %d entries", first, w().size())
	}
	feed("a", 10_700_000, "4") // a correction thaws it, and it cools again
	if got := resultOf(h).Rows["0/10000000/a"]; got != "2 0" || first.cold == nil {
		t.Fatalf("row %q, cold %v", got, first.cold != nil)
	}
	must(t, h.Crash())
	feed("b", 10_800_000, "5")
	if got := resultOf(h).Rows["0/10000000/b"]; got != "2 0" {
		t.Fatalf("row after a restore %q", got)
	}
	h.Produce(0, record("a", 60_000_000, "6"))
	must(t, h.Feed())
	must(t, h.Abort()) // a release taken back
	if w().size() != 6 {
		t.Fatalf("%d entries after an abort", w().size())
	}
	feed("a", 61_000_000, "7")
	must(t, h.Crash())
	if w().size() != 3 { // 60 s and 61 s, and their 10 s
		t.Fatalf("%d entries, panes %v", w().size(), w().panes)
	}
	for k := range resultOf(h).State {
		if strings.HasPrefix(k, "\x00\x11\x00\x80\x00\x00\x00\x00\xa0") { // 10 s
			t.Fatalf("state holds %x", k)
		}
	}
}

// FuzzState: whatever the changelog holds, a restore gives an error or a task that works.
func FuzzState(f *testing.F) {
	for _, s := range [][2]string{
		{"\x00\x01", "\x01" + strings.Repeat("\x00", 16) + "\x04in.a" + strings.Repeat("\x01", 16)},
		{"\x00\x02\x80\x06K\xf55\xfb[@\x00\ak0", "\x01"},
		{"\x00\x03in.a", "\x01\x02"},
		{"\x00\x10k", "\x01\x02"},
		{"\x00\x11\x00\x80\x06K\xf55\xbeR@key", "\x01\x06\x80\x89z\x00\x04\x00"},
		{"\x00\x11\x01\x80\x06K\xf55\xbeR@key", "\x01\x01\x80\x89z\x02\x04\x00"},
	} {
		f.Add([]byte(s[0]), []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		h := harness(t, Config{IdleAfter: time.Second}, testTopology(4))
		h.topics["state.test.one"] = append(h.topics["state.test.one"], &kgo.Record{Key: key, Value: value})
		if err := h.Crash(); err != nil {
			return
		}
		h.Produce(0, record("key", testEpoch.UnixMicro(), "id"))
		_, err := h.Commit()
		if err = errors.Join(h.Feed(), h.Advance(2*time.Second), err); err != nil && strings.Contains(err.Error(), "panic") {
			t.Fatal(err)
		}
	})
}

func TestAnAbortLeavesThePendingDeltaOfTheLastCommit(t *testing.T) {
	t.Parallel()
	h := harness(t, Config{MergeWait: -1}, testTopology(4, "in"))
	for i, abort := range []bool{false, true, false} {
		h.Produce(0, record("a", 10_000_000, strconv.Itoa(i)))
		must(t, h.Feed())
		if abort {
			must(t, h.Abort())
			must(t, h.Feed())
		}
		_, err := h.Commit()
		must(t, err)
	}
	must(t, h.Advance(1100*time.Millisecond))
	_, err := h.Commit()
	must(t, err)
	if got := resultOf(h).Rows["0/10000000/a"]; got != "3 0" {
		t.Fatalf("row %q", got)
	}
}
