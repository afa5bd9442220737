package streaming

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// TestTimersFireAsASortedSetWouldGiveThem: by time, owner, key, each once, whatever is set, taken back, aborted and restored; one that
// is set while timers fire has its turn in the same order.
func TestTimersFireAsASortedSetWouldGiveThem(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var o *timerOp
		top := Topology{Name: "test", Stage: "timers", Inputs: []string{"a"}, Partitions: 1, New: func(t *Task) (Operator, error) {
			o = &timerOp{t: t}
			return o, nil
		}}
		h := harness(t, Config{MergeWait: -1, Disorder: time.Second}, top)
		set, committed := map[Timer]bool{}, map[Timer]bool{}
		now, before := int64(0), int64(0) // of the latest event
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			tm := Timer{uint16(rapid.IntRange(0, 2).Draw(rt, "owner")), rapid.SampledFrom([]string{"", "a", "b", "again"}).Draw(rt, "key"), now - 1_000_000 + rapid.Int64Range(-2, 6).Draw(rt, "at")}
			switch rapid.SampledFrom([]string{"set", "set", "set", "set", "delete", "event", "event", "commit", "abort", "crash"}).Draw(rt, "step") {
			case "set":
				h.Task().SetTimer(tm.Owner, tm.Key, tm.At)
				set[tm] = true
			case "delete":
				h.Task().DeleteTimer(tm.Owner, tm.Key, tm.At)
				delete(set, tm)
			case "event":
				now += rapid.Int64Range(0, 5).Draw(rt, "later")
				o.fired = nil
				h.Produce(0, record("k", now, "x"))
				must(t, h.Feed())
				want := []Timer(nil)
				for {
					due := slices.SortedFunc(maps.Keys(set), compareTimers)
					if len(due) == 0 || due[0].At > now-1_000_000 {
						break
					}
					want = append(want, due[0])
					delete(set, due[0])
					if due[0].Key == "again" {
						set[Timer{due[0].Owner, "a", due[0].At}] = true
						set[Timer{due[0].Owner + 1, "b", due[0].At + 1}] = true
					}
				}
				if diff := gocmp.Diff(want, o.fired); diff != "" {
					rt.Fatalf("fired (-set +task):\n%s", diff)
				}
			case "commit":
				_, err := h.Commit()
				must(t, err)
				committed, before = maps.Clone(set), now
			case "abort", "crash":
				// what is read again would fire them again: the inputs of the test begin anew
				if rapid.Bool().Draw(rt, "abort") {
					must(t, h.Abort())
				} else {
					must(t, h.Crash())
				}
				h.inputs[0] = h.inputs[0][:h.offsets[0]]
				h.task.merge.reset()
				set, now = maps.Clone(committed), before
			}
			if n := h.Task().timers.store.Len(); n != len(set) {
				rt.Fatalf("%d timers, want %d", n, len(set))
			}
		}
	})
}

func compareTimers(a, b Timer) int {
	return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Key, b.Key))
}

type timerOp struct {
	idleOp
	t     *Task
	fired []Timer
}

func (o *timerOp) Process(in int, r *kgo.Record) error {
	at, _, err := parseInput(r.Value)
	o.t.Observe(in, LaneLive, at)
	return err
}

func (o *timerOp) Timer(tm Timer) error {
	o.fired = append(o.fired, tm)
	if tm.Key == "again" { // at the same time, and the next
		o.t.SetTimer(tm.Owner, "a", tm.At)
		o.t.SetTimer(tm.Owner+1, "b", tm.At+1)
	}
	return nil
}

// rowsOf lists what a window bed's task has committed, but for the larger grain of the cascade.
func rowsOf(h *Harness) (out []string) {
	for _, r := range h.Outputs(rowTopic) {
		if !strings.HasPrefix(string(r.Key), "t.1") {
			out = append(out, fmt.Sprintf("%s = %s", r.Key, r.Value))
		}
	}
	return out
}

// TestAnIdleInputHoldsUpItsOwnPartitionOnlyAndForAsLongAsItMay: input b has nothing in partition 1. That closes windows of partition 1
// only once b is found idle, in the transaction that says so, and once.
func TestAnIdleInputHoldsUpItsOwnPartitionOnlyAndForAsLongAsItMay(t *testing.T) {
	t.Parallel()
	c := windowCase{disorder: time.Second, partitions: 2, hops: []hopCase{{2e6, 1e6, 0, true}}, sessions: []sessionCase{{gap: 1e6, closedOnly: true}}}
	cfg := Config{MergeWait: -1, Disorder: time.Second, IdleAfter: 5 * time.Second}
	var tasks []*Harness
	for part := range int32(2) {
		h, err := NewHarness(cfg, c.topology(), part, testEpoch)
		must(t, err)
		h.Produce(0, record("k", 10_500_000, "1x"))
		h.Produce(0, record("k", 20_000_000, "2x"))
		if part == 0 {
			h.Produce(1, record("k", 20_000_000, "3x"))
		}
		must(t, h.Feed())
		must(t, h.Advance(2*time.Second))
		_, err = h.Commit()
		must(t, err)
		tasks = append(tasks, h)
	}
	closed := func(h *Harness) (n int) {
		for _, r := range rowsOf(h) {
			if (r[0] == 'h' || r[0] == 's') && strings.HasSuffix(r, "true") {
				n++
			}
		}
		return n
	}
	if n := closed(tasks[0]); n != 3 { // two windows and a session
		t.Fatalf("the partition with both inputs has closed %d: %v", n, rowsOf(tasks[0]))
	}
	h := tasks[1]
	if n, w := closed(h), h.Task().Watermark(); n != 0 || w != noTime {
		t.Fatalf("input b has said nothing yet, and %d have closed at %d: %v", n, w, rowsOf(h))
	}
	idle := func() bool { return h.task.water.in[1].idle }
	must(t, h.Advance(4*time.Second))
	if !idle() || h.Task().Watermark() != 19_000_000 {
		t.Fatalf("idle %v, watermark %d", idle(), h.Task().Watermark())
	}
	must(t, h.Abort())
	if idle() || h.Task().Watermark() != noTime || closed(h) != 0 {
		t.Fatalf("the decision is not taken back with its transaction: idle %v, watermark %d", idle(), h.Task().Watermark())
	}
	must(t, h.Advance(time.Second)) // it is silent still
	_, err := h.Commit()
	must(t, err)
	once := rowsOf(h)
	if closed(h) != 3 {
		t.Fatalf("rows %v", once)
	}
	must(t, h.Crash())
	must(t, h.Advance(100*time.Millisecond))
	if !idle() || h.Task().Watermark() != 19_000_000 {
		t.Fatalf("the decision is not restored: idle %v, watermark %d", idle(), h.Task().Watermark())
	}
	h.Produce(0, record("k", 30_000_000, "4x"))
	must(t, h.Feed())
	if w := h.Task().Watermark(); w != 29_000_000 {
		t.Fatalf("b is idle since before the restore, and the watermark is %d", w)
	}
	h.Produce(1, record("k", 28_000_000, "5x")) // b is back: behind, and waited for
	must(t, h.Feed())
	h.Produce(0, record("k", 90_000_000, "6x"))
	must(t, h.Feed())
	if w := h.Task().Watermark(); idle() || w != 29_000_000 {
		t.Fatalf("b is back, idle %v, watermark %d", idle(), w)
	}
	_, err = h.Commit()
	must(t, err)
	must(t, h.Crash())
	if idle() {
		t.Fatal("that it is back is not restored")
	}
	if again := rowsOf(h)[:len(once)]; !slices.Equal(once, again) {
		t.Fatalf("rows changed: %v, then %v", once, again)
	}
}
