package streaming

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

// stageTopology is a second stage that three tasks write for; its operator notes what it gets.
func stageTopology(seen *[]string) Topology {
	return Topology{
		Name: "stage", Stage: "two", Inputs: []string{"rekey.x"}, Upstream: map[string]int32{"rekey.x": 3}, Rekeys: []string{"rekey.y"}, Partitions: 2,
		New: func(t *Task) (Operator, error) { return &stageOperator{t: t, seen: seen}, nil },
	}
}

type stageOperator struct {
	t    *Task
	seen *[]string
}

func (o *stageOperator) Process(in int, r *kgo.Record) error {
	*o.seen = append(*o.seen, string(r.Value))
	o.t.Observe(in, LaneLive, testEpoch.Add(1000*time.Hour).UnixMicro()) // what an operator says of such an input counts for nothing
	out := o.t.Record()
	out.Topic, out.Key, out.Value = "rekey.y", r.Key, r.Value
	out.Headers = []kgo.RecordHeader{o.t.down.header("rekey.y", 1)}
	o.t.EmitTo(1, out)
	return nil
}
func (o *stageOperator) Timer(Timer) error    { return nil }
func (o *stageOperator) Tick(time.Time) error { return nil }
func (o *stageOperator) BeforeCommit() error  { return nil }
func (o *stageOperator) Committed()           {}
func (o *stageOperator) Aborted()             {}

// from is a record that an upstream task wrote when its watermark was the given seconds; an empty value is a heartbeat, "idle" one that says so.
func from(task uint32, seconds int64, value string) *kgo.Record {
	idle := byte(0)
	if value == "idle" {
		idle, value = 1, ""
	}
	b := binary.BigEndian.AppendUint32(nil, task)
	b = binary.BigEndian.AppendUint64(b, uint64(testEpoch.Add(time.Duration(seconds)*time.Second).UnixMicro()))
	b = append(b, idle)
	r := &kgo.Record{Headers: []kgo.RecordHeader{{Key: HeaderWatermark, Value: b}}}
	if value != "" {
		r.Key, r.Value = []byte("k"), []byte(value)
	}
	return r
}

func TestALaterStageIsAsFarAsTheLastOfTheTasksThatWriteForIt(t *testing.T) {
	t.Parallel()
	var seen []string
	h, err := NewHarness(Config{Disorder: 2 * time.Second, IdleAfter: time.Second, UpstreamGone: 5 * time.Second}, stageTopology(&seen), 0, testEpoch)
	must(t, err)
	at := func(what string, seconds int64) {
		t.Helper()
		want := int64(noTime)
		if seconds >= 0 {
			want = testEpoch.Add(time.Duration(seconds) * time.Second).UnixMicro()
		}
		if got := h.Task().Watermark(); got != want {
			t.Fatalf("%s: watermark %v, want %v", what, time.UnixMicro(got).UTC(), time.UnixMicro(want).UTC())
		}
	}
	feed := func(recs ...*kgo.Record) {
		t.Helper()
		for _, r := range recs {
			h.Produce(0, r)
		}
		must(t, h.Feed())
	}
	feed(from(0, 100, "a"), from(1, 10, "b"))
	at("one task has not been heard of", -1)
	feed(from(2, 50, ""))
	at("all are there", 10)
	_, err = h.Commit()
	must(t, err)
	feed(from(1, 70, "c"))
	at("the last went on", 50)
	must(t, h.Abort())
	at("and did not", 10)
	must(t, h.Crash())
	at("after a crash", 10)
	must(t, h.Feed())
	at("read again", 50)
	_, err = h.Commit()
	must(t, err)
	must(t, h.Advance(2*time.Second))
	at("silence is not idleness", 50)
	feed(from(0, 120, ""), from(1, 80, ""), from(2, 50, "idle"))
	at("the task that was last is idle", 80)
	feed(from(2, 60, "late"))
	at("it never goes back", 80)
	feed(from(2, 90, ""), from(7, 1, "of no task"))
	at("and counts again", 80)
	must(t, h.Advance(6*time.Second))
	at("nothing is heard of any", 120)
	if diff := cmp.Diff([]string{"a", "b", "c", "c", "late", "of no task"}, seen); diff != "" {
		t.Errorf("the operator got (-want +got)\n%s", diff)
	}
	_, err = h.Commit()
	must(t, err)
	told := map[int64]int{} // of the partition that no record went to
	for _, r := range h.Outputs("rekey.y") {
		if len(r.Headers) != 1 || len(r.Headers[0].Value) != watermarkBytes || binary.BigEndian.Uint32(r.Headers[0].Value) != 0 {
			t.Fatalf("headers %v", r.Headers)
		}
		if r.Key == nil && r.Partition == 0 {
			told[time.UnixMicro(int64(binary.BigEndian.Uint64(r.Headers[0].Value[4:]))).Unix()-testEpoch.Unix()]++
		}
	}
	if told[120] != 1 || len(told) < 3 {
		t.Errorf("heartbeats by watermark: %v", told)
	}
}

// beats is what a task with many partitions to tell writes while its watermark goes on at every step: heartbeats by second, and how long the partition that waited longest
// heard nothing.
func beats(t *testing.T, partitions int32, busy bool) (bySecond map[int]int, silence time.Duration) { // seconds are of the harness's clock
	t.Helper()
	var seen []string
	top := stageTopology(&seen)
	top.Partitions = partitions
	if busy {
		top.New = func(t *Task) (Operator, error) { return &busyOperator{stageOperator{t: t, seen: &seen}}, nil }
	}
	h, err := NewHarness(Config{Disorder: 2 * time.Second, IdleAfter: time.Second, UpstreamGone: time.Minute}, top, 0, testEpoch)
	must(t, err)
	const steps = 300
	bySecond = map[int]int{}
	heard, read := make([]time.Time, partitions), 0
	for p := range heard {
		heard[p] = testEpoch
	}
	for n := range steps {
		for task := range uint32(3) {
			h.Produce(0, from(task, int64(n), fmt.Sprint(n)))
		}
		must(t, h.Feed())
		must(t, h.Advance(100*time.Millisecond))
		_, err = h.Commit()
		must(t, err)
		all := h.Outputs("rekey.y")
		for _, r := range all[read:] {
			if r.Key == nil {
				bySecond[int(h.Now().Sub(testEpoch)/time.Second)]++
			}
			heard[r.Partition] = h.Now()
		}
		read = len(all)
		for _, last := range heard {
			silence = max(silence, h.Now().Sub(last))
		}
	}
	return bySecond, silence
}

// busyOperator writes to every partition at each record.
type busyOperator struct{ stageOperator }

func (o *busyOperator) Process(_ int, r *kgo.Record) error {
	for p := range o.t.top.Partitions {
		out := o.t.Record()
		out.Topic, out.Key, out.Value = "rekey.y", r.Key, r.Value
		out.Headers = []kgo.RecordHeader{o.t.down.header("rekey.y", p)}
		o.t.EmitTo(p, out)
	}
	return nil
}

func TestHeartbeatsAreBoundedHoweverManyPartitionsThereAre(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		partitions int32
		silence    time.Duration // at most, with a step or two for ticks
	}{{4, 500 * time.Millisecond}, {96, 2 * time.Second}, {512, 8500 * time.Millisecond}} {
		n, silence := beats(t, c.partitions, false)
		all, last := 0, 0
		for second, x := range n {
			all, last = all+x, max(last, second)
		}
		if perSecond := (all - int(c.partitions)) / (last + 1); perSecond > heartbeatsPerSecond || all < 3*int(c.partitions)/2 || silence > c.silence {
			t.Errorf("%d partitions: %d heartbeats a second, one heard nothing for %s", c.partitions, perSecond, silence)
		}
	}
	n, _ := beats(t, 96, true)
	delete(n, 0) // before the first record
	if len(n) > 0 {
		t.Errorf("partitions that get records are told besides: %v", n)
	}
}
