package streaming

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

func TestKeysGoWhereKafkasClientsPutThem(t *testing.T) {
	t.Parallel()
	clients := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	rapid.Check(t, func(rt *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(rt, "key")
		n := rapid.IntRange(1, 100).Draw(rt, "partitions")
		if got, want := PartitionOf(key, int32(n)), clients.Partition(&kgo.Record{Key: key}, n); int(got) != want {
			rt.Fatalf("%x of %d goes to %d, Kafka's clients put it to %d", key, n, got, want)
		}
	})
}

// rekeyOp is the first stage: it gives each record to the entity of its id.
type rekeyOp struct {
	t     *Task
	topic string
}

func entityOf(id string) string { return fmt.Sprintf("entity-%c", id[len(id)-1]) }

func (o *rekeyOp) Process(in int, r *kgo.Record) error {
	at, id, err := parseInput(r.Value)
	if err != nil {
		return err
	}
	o.t.Observe(in, LaneLive, at)
	Rekey(o.t, o.topic, o.t.Copy([]byte(entityOf(id))), r.Value, kgo.RecordHeader{Key: "kind", Value: []byte("test")})
	return nil
}

func (o *rekeyOp) Timer(Timer) error    { return nil }
func (o *rekeyOp) Tick(time.Time) error { return nil }
func (o *rekeyOp) BeforeCommit() error  { return nil }
func (o *rekeyOp) Committed()           {}
func (o *rekeyOp) Aborted()             {}

// entityOp is the second stage: it puts the events of an entity in order and numbers them.
type entityOp struct {
	t      *Task
	prefix string
	counts *Store[int64]
	buf    *Ordered[string]
	crash  func() error
}

func newEntityOp(t *Task, prefix string, crash func() error) *entityOp {
	o := &entityOp{t: t, prefix: prefix, crash: crash, counts: OpenStore(t, storeCounts, Codec[int64](Int64{}))}
	o.buf = OpenOrdered(t, OrderedSpec[string]{Store: 18, Codec: strs{}, Each: func(key string, at int64, id string) error {
		n, _ := o.counts.Get(key)
		o.counts.Put(key, n+1)
		out := o.t.Record()
		out.Topic, out.Key, out.Value = prefix+outTopic, []byte(key), fmt.Appendf(nil, "%d %d %s", n, at, id)
		o.t.Emit(out)
		return nil
	}})
	return o
}

func (o *entityOp) Process(_ int, r *kgo.Record) error {
	at, id, err := parseInput(r.Value)
	if err != nil {
		return err
	}
	if r.Headers[0].Key != "kind" {
		return fmt.Errorf("headers %v", r.Headers)
	}
	return o.buf.Add(string(r.Key), at, 0, r.Offset, id)
}

func (o *entityOp) Timer(Timer) error    { return nil }
func (o *entityOp) Tick(time.Time) error { return nil }
func (o *entityOp) BeforeCommit() error  { return o.crash() }
func (o *entityOp) Committed()           {}
func (o *entityOp) Aborted()             {}

// TestASecondStageSeesEachRecordOnceAndInOrder kills workers of both stages in the middle of transactions whose records are with the broker already.
func TestASecondStageSeesEachRecordOnceAndInOrder(t *testing.T) {
	t.Parallel()
	b := newBed(t, kfakeBrokers(t), "rk", 4, true)
	topic := b.prefix + "rekey.x"
	b.create(topic, nil)
	forever := map[string]*string{"cleanup.policy": ptr("delete"), "retention.ms": ptr("-1")}
	for _, stage := range []string{"first", "second"} {
		b.create("state."+b.prefix+"rekey."+stage, forever)
	}
	stage := func(name, instance string, kills int64) *running {
		var left atomic.Int64
		left.Store(kills)
		crash := func() error {
			if kills > 0 && left.Add(-1) <= 0 {
				return errCrash
			}
			return nil
		}
		return b.start(instance, func(c *Config, top *Topology, _ *Worker) {
			c.Group, c.TransactionalID = b.prefix+name, b.prefix+name+instance
			c.IdleAfter = time.Hour // or what a slow task still has to say would be late behind the others
			c.CommitRecords, c.PollRecords, c.CommitInterval = 100, 50, 2*time.Millisecond
			*top = Topology{Name: b.prefix + "rekey", Stage: name, Partitions: b.parts}
			if name == "first" {
				top.Inputs, top.Rekeys = []string{b.prefix + "in.a", b.prefix + "in.b"}, []string{topic}
				top.New = func(t *Task) (Operator, error) {
					return &crashingRekey{rekeyOp{t, topic}, crash}, nil
				}
				return
			}
			top.Inputs, top.Upstream = []string{topic}, map[string]int32{topic: b.parts}
			top.Stores = []StoreSpec{{storeCounts, "counts", 1}, {18, "ordered", 1}}
			top.New = func(t *Task) (Operator, error) { return newEntityOp(t, b.prefix, crash), nil }
		})
	}

	const each = 300
	b.feed("x", each, 1_000_000_000)
	crashes := 0
	for i := range int64(5) {
		first, second := stage("first", "w0", 1+3*i), stage("second", "w0", 2+3*i)
		for _, w := range []*running{first, second} {
			select {
			case <-w.done:
			case <-time.After(3 * time.Second): // it had too little to do to crash
			}
			if errors.Is(w.stop(), errCrash) {
				crashes++
			}
		}
	}
	if crashes < 5 {
		t.Fatalf("only %d workers crashed", crashes)
	}
	b.feed("y", each, 2_000_000_000)
	end := int64(3_000_000_000)
	first, second := stage("first", "w0", 0), stage("second", "w0", 0)
	b.ready(first, second)
	want := 2 * each * int(b.parts)
	eventually(t, patience, func() string {
		// what moves event time on until the last of the others has had its turn
		b.feed(fmt.Sprintf("end%d", end), 10, end)
		end += 1_000_000_000
		if n := len(b.rekeyed(t)); n < want {
			return fmt.Sprintf("%d of %d", n, want)
		}
		return ""
	})
	must(t, first.stop())
	must(t, second.stop())

	seen, numbers, last := map[string]int{}, map[string]int{}, map[string]int64{}
	for _, x := range b.rekeyed(t) {
		seen[x.id]++
		if x.partition != PartitionOf([]byte(x.key), b.parts) || x.key != entityOf(x.id) {
			t.Fatalf("%s of %s is in partition %d", x.id, x.key, x.partition)
		}
		if x.n != numbers[x.key] || x.at < last[x.key] {
			t.Fatalf("%s has number %d, want %d; its time is %d after %d", x.id, x.n, numbers[x.key], x.at, last[x.key])
		}
		numbers[x.key]++
		last[x.key] = x.at
	}
	wrong := map[string]int{}
	for _, tag := range []string{"x", "y"} {
		for p := range b.parts {
			for i := range each {
				if id := fmt.Sprintf("%s-%d-%d", tag, p, i); seen[id] != 1 {
					wrong[id] = seen[id]
				}
			}
		}
	}
	if diff := cmp.Diff(map[string]int{}, wrong); diff != "" {
		t.Fatalf("records not seen once:\n%s", diff)
	}
}

type crashingRekey struct {
	rekeyOp
	crash func() error
}

func (c *crashingRekey) BeforeCommit() error { return c.crash() }

type rekeyed struct {
	key, id   string
	n         int
	at        int64
	partition int32
}

// rekeyed are the second stage's outputs, without those that only move time.
func (b *bed) rekeyed(t testing.TB) (out []rekeyed) {
	t.Helper()
	for _, r := range b.all(outTopic) {
		f := strings.Fields(string(r.Value))
		n, err := strconv.Atoi(f[0])
		must(t, err)
		at, err := strconv.ParseInt(f[1], 10, 64)
		must(t, err)
		if !strings.HasPrefix(f[2], "end") {
			out = append(out, rekeyed{string(r.Key), f[2], n, at, r.Partition})
		}
	}
	return out
}
