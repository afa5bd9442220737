package streaming

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// bed is a broker with the topics of a test.
type bed struct {
	t       testing.TB
	brokers []string
	cl      *kgo.Client
	adm     *kadm.Client
	prefix  string // topics of this test
	parts   int32
	kfake   bool
}

func kfakeBrokers(t testing.TB) []string {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

func newBed(t testing.TB, brokers []string, name string, parts int32, onKfake bool) *bed {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	b := &bed{t: t, brokers: brokers, cl: cl, adm: kadm.NewClient(cl), prefix: name + ".", parts: parts, kfake: onKfake}
	top := b.topology()
	for _, x := range append(top.Inputs, b.prefix+outTopic, b.prefix+rowTopic, b.prefix+firedTopic, b.prefix+lateTopic) {
		b.create(x, nil)
	}
	for _, s := range top.RequiredTopics() {
		cfg := map[string]*string{"cleanup.policy": ptr("delete"), "retention.ms": ptr("-1")}
		if s.Compacted && !onKfake {
			cfg = map[string]*string{"cleanup.policy": ptr("compact")}
		}
		b.create(s.Name, cfg)
	}
	return b
}

func newAdmin(cl *kgo.Client) *kadm.Client { return kadm.NewClient(cl) }

func ptr[T any](v T) *T { return &v }

func (b *bed) create(topic string, cfg map[string]*string) {
	b.t.Helper()
	if _, err := b.adm.CreateTopic(b.t.Context(), b.parts, 1, cfg, topic); err != nil {
		b.t.Fatalf("creating %s: %v", topic, err)
	}
}

// topology is the test topology with this bed's topics.
func (b *bed) topology() Topology {
	top := testTopology(b.parts, b.prefix+"in.a", b.prefix+"in.b")
	top.Name = b.prefix + "test"
	top.New = func(t *Task) (Operator, error) { return newTestOp(t, b.prefix), nil }
	return top
}

// testLog keeps what a worker says, and shows it if the test fails.
func testLog(t testing.TB) *slog.Logger {
	if os.Getenv("STREAM_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	said := &lockedBuffer{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the worker said:\n%s", said.String())
		}
	})
	return slog.New(slog.NewTextHandler(said, nil))
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// running is a worker under test.
type running struct {
	*Worker
	reg  *prometheus.Registry
	stop func() error    // asks it to end, and waits
	done <-chan struct{} // it has ended
	err  func() error    // with this, once done
}

func (b *bed) config(instance string) Config {
	return Config{Group: b.prefix + "g", InstanceID: instance, TransactionalID: b.prefix + instance, CommitInterval: 20 * time.Millisecond, MergeWait: 5 * time.Millisecond, Disorder: time.Second, IdleAfter: 200 * time.Millisecond, SessionTimeout: 6 * time.Second, TransactionTimeout: 3 * time.Second}
}

func (b *bed) start(instance string, change func(*Config, *Topology, *Worker)) *running {
	b.t.Helper()
	cfg, top := b.config(instance), b.topology()
	if change != nil {
		change(&cfg, &top, nil)
	}
	reg, log := prometheus.NewRegistry(), testLog(b.t)
	w, err := NewWorker(cfg, top, []kgo.Opt{kgo.SeedBrokers(b.brokers...)}, reg, log)
	if err != nil {
		b.t.Fatal(err)
	}
	if change != nil {
		change(&cfg, &top, w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var res error
	go func() {
		defer close(done)
		res = w.Run(ctx)
		log.Info("the worker has ended", "err", res)
	}()
	r := &running{Worker: w, reg: reg, done: done, err: func() error { <-done; return res }}
	r.stop = func() error { cancel(); <-done; return res }
	b.t.Cleanup(func() { _ = r.stop() })
	return r
}

// patience is how long a test waits for what must come: a machine may be busy with other tests.
const patience = 2 * time.Minute

func (b *bed) ready(ws ...*running) {
	b.t.Helper()
	for _, w := range ws {
		eventually(b.t, patience, func() string {
			select {
			case <-w.done:
				b.t.Fatalf("the worker has ended: %v", w.err())
			default:
			}
			if err := w.Ready(); err != nil {
				return err.Error()
			}
			return ""
		})
	}
}

// feed writes n records for each partition, ids prefix-0…
func (b *bed) feed(tag string, n int, from int64) {
	b.t.Helper()
	var recs []*kgo.Record
	for p := range b.parts {
		for i := range n {
			r := record(fmt.Sprintf("k%d", i%3), from+int64(i)*10_000, fmt.Sprintf("%s-%d-%d", tag, p, i))
			r.Topic, r.Partition = b.prefix+[]string{"in.a", "in.b"}[i%2], p
			recs = append(recs, r)
		}
	}
	if err := b.cl.ProduceSync(b.t.Context(), recs...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// all reads what is committed in an output topic.
func (b *bed) all(topic string) []*kgo.Record { return b.read(b.prefix + topic) }

func (b *bed) read(topic string) []*kgo.Record {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	ends, err := b.adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		b.t.Fatal(err)
	}
	from := map[int32]kgo.Offset{}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			from[o.Partition] = kgo.NewOffset().AtStart()
			left[o.Partition] = o.Offset
		}
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	var out []*kgo.Record
	for len(left) > 0 {
		f := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			b.t.Fatalf("reading %s: %v left", topic, left)
		}
		f.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out = append(out, r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return out
}

// eventually waits until f gives "", or fails with what it gave last.
func eventually(t testing.TB, within time.Duration, f func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		why := f()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %s", within, why)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(why)
		}
	}
}

// count waits for n distinct values in the out topic and requires that none is twice.
func (b *bed) count(n int) {
	b.t.Helper()
	eventually(b.t, patience, func() string {
		if got := len(b.all(outTopic)); got < n {
			return fmt.Sprintf("%d of %d outputs", got, n)
		}
		return ""
	})
	seen := map[string]int{}
	for _, r := range b.all(outTopic) {
		seen[string(r.Value)]++
	}
	var twice []string
	for v, c := range seen {
		if c > 1 {
			twice = append(twice, v)
		}
	}
	if len(seen) != n || len(twice) > 0 {
		b.t.Fatalf("%d distinct outputs, want %d; twice: %s", len(seen), n, strings.Join(twice, " "))
	}
}

// metric is the sum over all labels of a counter or gauge, and how many there are.
func (r *running) metric(t testing.TB, name string) (sum float64, n int) {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "millrace_stream_"+name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				n++
			}
		}
	}
	return sum, n
}
