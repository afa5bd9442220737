package streaming

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// withLocal gives the worker a local state of little memory.
func withLocal(dir string, more func(*Config, *Topology, *Worker)) func(*Config, *Topology, *Worker) {
	return func(c *Config, top *Topology, w *Worker) {
		c.StateDir, c.StateBytes = dir, 1<<20
		if more != nil {
			more(c, top, w)
		}
	}
}

// localState: a worker with a local state goes on from its snapshot, a killed one too, and one that finds another topic does not.
func localState(b *bed) {
	dir := b.t.TempDir()
	w := b.start("w0", withLocal(dir, nil))
	b.ready(w)
	b.feed("x", 200, 1_000_000_000)
	b.count(800)
	must(b.t, w.stop())
	if used, _ := w.metric(b.t, "snapshots_used_total"); used != 0 {
		b.t.Errorf("%g snapshots were used at first", used)
	}
	w = b.start("w0", withLocal(dir, nil))
	b.ready(w)
	if used, _ := w.metric(b.t, "snapshots_used_total"); used != float64(b.parts) {
		b.t.Errorf("%g snapshots were used after a clean stop, want %d", used, b.parts)
	}
	b.feed("y", 100, 1_002_000_000)
	b.count(1200)
	b.stateIsOne(w)
	changelog := len(b.read(ChangelogTopic(b.topology())))
	w = b.start("w0", withLocal(dir, nil))
	b.ready(w)
	if read, _ := w.metric(b.t, "restore_records_total"); read > float64(changelog)/2+1200 { // the log of ids is read whole
		b.t.Errorf("%g records were read to restore, the changelog has %d", read, changelog)
	}
	must(b.t, w.stop())
	// The same state in a directory that says it is of another changelog.
	w = b.start("w0", withLocal(dir, func(_ *Config, _ *Topology, w *Worker) {
		if w != nil {
			w.afterEnd = func(bool) error { w.stateID = topicID{1}; return nil }
		}
	}))
	b.ready(w)
	b.feed("z", 10, 1_003_000_000)
	b.count(1240)
	must(b.t, w.stop())
	must(b.t, os.RemoveAll(filepath.Join(dir, "nothing")))
	b.stateIsOneAfter(1240)
}

// localCrashes: sessions end with unknown outcomes while snapshots are written, on little memory.
func localCrashes(b *bed) {
	dir := b.t.TempDir()
	var ends atomic.Int64
	w := b.start("w0", withLocal(dir, func(c *Config, _ *Topology, w *Worker) {
		c.CommitRecords, c.PollRecords = 100, 50
		if w != nil {
			w.afterEnd = func(committed bool) error {
				if n := ends.Add(1); committed && n%4 == 1 && n < 30 {
					return errCrash
				}
				return nil
			}
		}
	}))
	for i := range 4 {
		b.feed(fmt.Sprintf("x%d", i), 300, 1_000_000_000+int64(i)*3_000_000)
	}
	b.count(4800)
	b.stateIsOne(w)
	if used, _ := w.metric(b.t, "snapshots_used_total"); used == 0 {
		b.t.Error("no session went on from a snapshot")
	}
}

// TestALocalStateThatFailsIsMadeAnew: a store meets a disk that cannot be read; the worker goes on from the changelog.
func TestALocalStateThatFailsIsMadeAnew(t *testing.T) {
	t.Parallel()
	b := newBed(t, kfakeBrokers(t), "fails", 4, true)
	var failed atomic.Bool
	w := b.start("w0", withLocal(t.TempDir(), func(_ *Config, top *Topology, _ *Worker) {
		top.New = func(t *Task) (Operator, error) {
			op := newTestOp(t, b.prefix)
			op.fail = func(r *kgo.Record) error {
				if string(r.Value[len(r.Value)-3:]) == "-50" && failed.CompareAndSwap(false, true) {
					panic(localError{errEmptyTopic})
				}
				return nil
			}
			return op, nil
		}
	}))
	b.ready(w)
	b.feed("x", 100, 1_000_000_000)
	b.count(400)
	b.feed("y", 100, 1_001_000_000)
	b.count(800)
	if n, _ := w.metric(t, "local_state_errors_total"); n != 1 {
		t.Errorf("%g failures are counted", n)
	}
	b.stateIsOne(w)
}

// visitors is a topology whose working set is larger than its memory: a count for each key, many keys.
func visitorsTopology(b *bed) Topology {
	top := Topology{Name: b.prefix + "test", Stage: "one", Inputs: []string{b.prefix + "in.a", b.prefix + "in.b"}, Untimed: []string{b.prefix + "in.a", b.prefix + "in.b"}, Partitions: b.parts, Stores: []StoreSpec{{16, "visits", 1}}}
	top.New = func(t *Task) (Operator, error) {
		return &visitsOp{t: t, s: OpenStore(t, 16, Codec[int64](Int64{}))}, nil
	}
	return top
}

type visitsOp struct {
	idleOp
	t *Task
	s *Store[int64]
}

func (o *visitsOp) Process(_ int, r *kgo.Record) error {
	n, _ := o.s.GetBytes(r.Key)
	o.s.PutBytes(r.Key, n+1)
	return nil
}

// TestAWorkingSetLargerThanMemory counts 40,000 keys several times in a megabyte, moves half of the tasks to a second worker meanwhile,
// and compares with the input.
func TestAWorkingSetLargerThanMemory(t *testing.T) {
	t.Parallel()
	b := newBed(t, kfakeBrokers(t), "large", 4, true)
	change := func(dir string) func(*Config, *Topology, *Worker) {
		return withLocal(dir, func(c *Config, top *Topology, _ *Worker) { *top = visitorsTopology(b); c.LeaveOnStop = true })
	}
	const keys = 40_000
	want := map[string]int64{}
	feed := func(round int) {
		t.Helper()
		for i := range keys {
			k := fmt.Sprintf("visitor-%d", (i*7919+round)%keys)
			p := int32(i % int(b.parts))
			want[fmt.Sprintf("%d/%s", p, k)]++
			b.cl.Produce(t.Context(), &kgo.Record{Topic: b.prefix + []string{"in.a", "in.b"}[i/int(b.parts)%2], Partition: p, Key: []byte(k), Value: []byte("x")}, nil)
		}
		must(t, b.cl.Flush(t.Context()))
	}
	dirs := [2]string{t.TempDir(), t.TempDir()}
	w0 := b.start("w0", change(dirs[0]))
	b.ready(w0)
	feed(0)
	feed(0)
	var w1 *running
	for round := range 4 {
		feed(round)
		switch round {
		case 0:
			b.ready(w0)
			eventually(t, patience, func() string {
				if n, _ := w0.metric(t, "state_disk_keys"); n == 0 {
					return "all keys are in memory"
				}
				return ""
			})
		case 1:
			w1 = b.start("w1", change(dirs[1]))
			b.ready(w1)
		case 2:
			must(t, w0.stop())
		case 3:
			w0 = b.start("w0", change(dirs[0]))
		}
	}
	done := func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		ends, err := b.adm.ListEndOffsets(ctx, b.prefix+"in.a", b.prefix+"in.b")
		if err != nil {
			return err.Error()
		}
		offsets, err := b.adm.FetchOffsets(ctx, b.prefix+"g")
		if err != nil {
			return err.Error()
		}
		for topic, ps := range ends {
			for p, e := range ps {
				if o, ok := offsets.Lookup(topic, p); !ok || o.At != e.Offset {
					return fmt.Sprintf("%s/%d stands at %d of %d", topic, p, o.At, e.Offset)
				}
			}
		}
		return ""
	}
	eventually(t, patience, done)
	eventually(t, patience, func() string {
		if n, _ := w1.metric(t, "state_bytes"); n > 1.25*(1<<20) {
			return fmt.Sprintf("%g bytes are in the memory of one worker, bound is %d", n, 1<<20)
		}
		return ""
	})
	must(t, w0.stop())
	must(t, w1.stop())
	if used, _ := w0.metric(t, "snapshots_used_total"); used == 0 {
		t.Error("the worker that came back used no snapshot")
	}
	got := map[string]int64{}
	for _, r := range b.read(ChangelogTopic(b.topology())) {
		if string(r.Key[:2]) == "\x00\x10" {
			v, err := Int64{}.Decode(r.Value[1:])
			must(t, err)
			got[fmt.Sprintf("%d/%s", r.Partition, r.Key[2:])] = v
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d keys, want %d", len(got), len(want))
	}
	wrong := 0
	for k, n := range want {
		if got[k] != n {
			wrong++
		}
	}
	if wrong > 0 {
		t.Fatalf("%d of %d counts are wrong", wrong, len(want))
	}
}
