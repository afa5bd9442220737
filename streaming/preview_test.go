package streaming

import (
	"context"
	"fmt"
	"slices"
	"strings"
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

// announcing announces what it is shown of its first input in its second, and notes what it is shown and given of that.
type announcing struct {
	previewing
	to string
}

func (o announcing) Preview(in int, r *kgo.Record) error {
	if in == 0 {
		Announce(o.t, o.to, slices.Clone(r.Key), slices.Clone(r.Value))
		return nil
	}
	return o.previewing.Preview(in, r)
}

// announced: what an earlier stage announces is shown before it is committed, and never processed.
func announced(b *bed) {
	var mu sync.Mutex
	var said []string
	w := b.start("w0", func(c *Config, top *Topology, _ *Worker) {
		top.Announced, top.Announces = top.Inputs[1:], top.Inputs[1:]
		top.New = func(t *Task) (Operator, error) {
			return announcing{previewing{newTestOp(t, b.prefix), &mu, &said}, top.Inputs[1]}, nil
		}
	})
	b.ready(w)
	ctx := b.t.Context()
	stage, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(b.prefix+"earlier"))
	must(b.t, err)
	defer stage.Close()
	times := func(prefix string) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range said {
			if strings.HasPrefix(s, prefix) {
				n++
			}
		}
		return n
	}
	wait := func(prefix string) {
		b.t.Helper()
		eventually(b.t, patience, func() string {
			if times(prefix) == 0 {
				return fmt.Sprintf("nothing begins with %q", prefix)
			}
			return ""
		})
	}
	put := func(cl *kgo.Client, in int, key string) {
		b.t.Helper()
		r := record(key, 1_000_000_000, fmt.Sprintf("%s-%d", key, in))
		r.Topic, r.Partition = b.prefix+[]string{"in.a", "in.b"}[in], PartitionOf([]byte(key), b.parts)
		must(b.t, cl.ProduceSync(ctx, r).FirstErr())
	}
	for i, key := range []string{"k1", "k2", "k3"} {
		must(b.t, stage.BeginTransaction())
		put(stage, 1, key) // the record itself, which stays open
		put(b.cl, 0, key)  // what makes this stage announce it
		wait("shown " + key)
		if times("done "+key+"/") > 1 { // one is of the other input
			b.t.Errorf("%s was processed before it was committed", key)
		}
		must(b.t, stage.EndTransaction(context.WithoutCancel(ctx), i != 1))
	}
	b.count(5) // three of the first input, two of the second
	for key, want := range map[string]int{"k1": 2, "k2": 1, "k3": 2} {
		if n := times("shown " + key + "/"); n != 1 {
			b.t.Errorf("%s was shown %d times, want once", key, n)
		}
		if n := times("done " + key + "/"); n != want {
			b.t.Errorf("%s was processed %d times, want %d", key, n, want)
		}
	}
	if n, _ := w.metric(b.t, "announcements_lost_total"); n != 0 {
		b.t.Errorf("%v announcements are counted as lost", n)
	}
	b.stateIsOne(w)
}
