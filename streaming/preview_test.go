package streaming

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

// previewing is the operator of the tests, and notes what it is shown and what it is given.
type previewing struct {
	*testOp
	mu   *sync.Mutex
	said *[]string
}

func (o previewing) say(what string, r *kgo.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	*o.said = append(*o.said, fmt.Sprintf("%s %s/%d", what, r.Key, r.Offset))
}

func (o previewing) Previews(int) bool { return true }

func (o previewing) Preview(_ int, r *kgo.Record) error {
	o.say("shown", r)
	return nil
}

func (o previewing) Process(in int, r *kgo.Record) error {
	o.say("done", r)
	return o.testOp.Process(in, r)
}

func TestARecordIsShownOnceAsSoonAsItIsReadOrElseInItsTurn(t *testing.T) {
	t.Parallel()
	var said []string
	top := testTopology(1)
	top.New = func(t *Task) (Operator, error) { return previewing{newTestOp(t, ""), &sync.Mutex{}, &said}, nil }
	h, err := NewHarness(Config{MergeWait: 25 * time.Millisecond}, top, 0, testEpoch)
	must(t, err)
	expect := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, said); diff != "" {
			t.Fatalf("%s (-want +got)\n%s", what, diff)
		}
		said = nil
	}
	put := func(in int, key string, age time.Duration) {
		r := record(key, 1_000_000_000, fmt.Sprintf("%s-%d", key, len(h.inputs[in])))
		r.Timestamp = h.now.Add(-age)
		h.Produce(in, r)
	}
	read := func(in int) {
		from := max(h.task.merge.q[in].next, 0)
		h.task.offer(in, h.inputs[in][from:], int64(len(h.inputs[in])), h.now)
	}
	put(0, "a", time.Millisecond)
	put(0, "b", 3*time.Millisecond)
	put(1, "c", 2*time.Millisecond)
	read(0)
	read(1)
	must(t, h.task.show(h.now))
	expect("of one poll, by their timestamps", "shown b/1", "shown c/0", "shown a/0")
	h.now = h.now.Add(h.cfg.MergeWait)
	must(t, h.Run())
	expect("in their turn", "done c/0", "done a/0", "done b/1")
	must(t, h.task.show(h.now))
	expect("again")

	_, err = h.Commit()
	must(t, err)
	put(0, "old", 2*previewAge)
	put(0, "new", 0)
	read(0)
	must(t, h.task.show(h.now))
	expect("of a task that is behind")
	put(0, "newer", 0)
	read(0)
	must(t, h.task.show(h.now))
	expect("before one that was not shown")
	h.now = h.now.Add(h.cfg.MergeWait)
	must(t, h.Run())
	expect("in its turn", "shown old/2", "done old/2", "shown new/3", "done new/3", "shown newer/4", "done newer/4")
	put(0, "z", 0)
	read(0)
	must(t, h.task.show(h.now))
	expect("once it is up with them", "shown z/5")

	must(t, h.Abort())
	must(t, h.Feed())
	expect("after an abort", "shown old/2", "done old/2", "shown new/3", "done new/3", "shown newer/4", "done newer/4", "shown z/5", "done z/5")
}

// previews: a record is shown while the transaction before it ends.
func previews(b *bed) {
	var mu sync.Mutex
	var said []string
	var hold atomic.Bool
	held := make(chan struct{})
	w := b.start("w0", func(c *Config, top *Topology, w *Worker) {
		top.New = func(t *Task) (Operator, error) { return previewing{newTestOp(t, b.prefix), &mu, &said}, nil }
		if w != nil {
			w.afterEnd = func(bool) error {
				if hold.CompareAndSwap(true, false) {
					held <- struct{}{}
					<-held
				}
				return nil
			}
		}
	})
	b.ready(w)
	b.feed("x", 10, 1_000_000_000)
	b.count(40)
	put := func(key string) {
		b.t.Helper()
		r := record(key, 2_000_000_000, key)
		r.Topic, r.Partition = b.prefix+"in.a", 0
		must(b.t, b.cl.ProduceSync(b.t.Context(), r).FirstErr())
	}
	offset := func(what, key string) int {
		mu.Lock()
		defer mu.Unlock()
		return slices.IndexFunc(said, func(s string) bool { return len(s) > len(what+key)+1 && s[:len(what+key)+2] == what+" "+key+"/" })
	}
	hold.Store(true)
	put("first")
	select {
	case <-held:
	case <-time.After(patience):
		b.t.Fatal("nothing was committed")
	}
	put("second")
	eventually(b.t, patience, func() string {
		if offset("shown", "second") < 0 {
			return "the record has not been shown while the transaction ends"
		}
		return ""
	})
	if offset("done", "second") >= 0 {
		b.t.Error("the record was processed before the outcome was known")
	}
	held <- struct{}{}
	b.count(42)
	b.stateIsOne(w)
}

// uncommitted: a record of an earlier stage is shown before it is committed, and processed after, if it is.
func uncommitted(b *bed) {
	var mu sync.Mutex
	var said []string
	w := b.start("w0", func(c *Config, top *Topology, _ *Worker) {
		top.Uncommitted = top.Inputs[:1]
		top.New = func(t *Task) (Operator, error) { return previewing{newTestOp(t, b.prefix), &mu, &said}, nil }
	})
	b.ready(w)
	ctx := b.t.Context()
	stage, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(b.prefix+"earlier"))
	must(b.t, err)
	defer stage.Close()
	wait := func(what string) {
		b.t.Helper()
		eventually(b.t, patience, func() string {
			mu.Lock()
			defer mu.Unlock()
			if !slices.Contains(said, what) {
				return fmt.Sprintf("%q is not among %q", what, said)
			}
			return ""
		})
	}
	offsets := map[string]int64{}
	for _, x := range []struct {
		key string
		end kgo.TransactionEndTry
	}{{"kept", kgo.TryCommit}, {"dropped", kgo.TryAbort}, {"kept too", kgo.TryCommit}} {
		must(b.t, stage.BeginTransaction())
		r := record(x.key, 1_000_000_000, x.key)
		r.Topic, r.Partition = b.prefix+"in.a", 1
		must(b.t, stage.ProduceSync(ctx, r).FirstErr())
		offsets[x.key] = r.Offset
		wait(fmt.Sprintf("shown %s/%d", x.key, r.Offset))
		mu.Lock()
		if slices.Contains(said, fmt.Sprintf("done %s/%d", x.key, r.Offset)) {
			b.t.Errorf("%s was processed before it was committed", x.key)
		}
		mu.Unlock()
		must(b.t, stage.EndTransaction(context.WithoutCancel(ctx), x.end))
		if x.end {
			wait(fmt.Sprintf("done %s/%d", x.key, r.Offset))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	shown := map[string]int{}
	for _, s := range said {
		shown[s]++
	}
	for key, at := range offsets {
		if n := shown[fmt.Sprintf("shown %s/%d", key, at)]; n != 1 {
			b.t.Errorf("%s was shown %d times", key, n)
		}
	}
	if shown[fmt.Sprintf("done dropped/%d", offsets["dropped"])] > 0 {
		b.t.Error("a record of an aborted transaction was processed")
	}
}
