package streaming

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The benchmark's work: parse the event time, count per visitor, sum per (second, one of 60 keys), and write the record on.
const (
	benchVisitors = 20_000
	benchDims     = 60
	benchBatch    = 5_000
)

func benchRecords(n int) []*kgo.Record {
	recs := make([]*kgo.Record, n)
	for i := range recs {
		v := binary.BigEndian.AppendUint64(make([]byte, 0, 140), uint64(1_700_000_000_000_000+int64(i)*100)) // 10k a second
		v = append(v, make([]byte, 129)...)
		v[8] = byte(i % benchDims)
		recs[i] = &kgo.Record{Key: fmt.Appendf(nil, "shop-eu\x1fv\x1fvisitor-%d", (i*7919)%benchVisitors), Value: v, Offset: int64(i), Timestamp: testEpoch.Add(time.Duration(i) * 100 * time.Microsecond)}
	}
	return recs
}

type benchOp struct {
	t       *Task
	visits  *Store[int64]
	windows *Windows[string, *sum]
	dims    [benchDims]string
}

func benchTopology(in string, parts int32) Topology {
	return Topology{
		Name: "bench", Stage: "one", Inputs: []string{in}, Partitions: parts, Stores: []StoreSpec{{16, "visits", 1}, {17, "kpi", 1}},
		New: func(t *Task) (Operator, error) {
			o := &benchOp{t: t, visits: OpenStore(t, 16, Codec[int64](Int64{}))}
			for i := range o.dims {
				o.dims[i] = fmt.Sprintf("shop-eu/EUR/c%d/mobile", i)
			}
			o.windows = OpenWindows(t, WindowsSpec[string, *sum]{
				Store: 17, Lateness: time.Minute, Keys: strs{}, Values: sums{},
				Grains: []Grain[string]{Fixed[string]("1s", 0, time.Second), Fixed[string]("1m", 0, time.Minute), Fixed[string]("1h", 1, time.Hour), Fixed[string]("1d", 2, 24*time.Hour)},
				Emit: func(w Window[string], a *sum) error {
					r := t.Record()
					r.Topic = "bench.rows"
					r.Value = t.Keep(sums{}.Append(append(appendTime(t.Buf(64), w.Start), w.Key...), a))
					t.Emit(r)
					return nil
				},
			})
			return o, nil
		},
	}
}

func (o *benchOp) Process(in int, r *kgo.Record) error {
	at := int64(binary.BigEndian.Uint64(r.Value))
	o.t.Observe(in, LaneLive, at)
	n, _ := o.visits.GetBytes(r.Key)
	o.visits.PutBytes(r.Key, n+1)
	if d, _ := o.windows.At(o.dims[r.Value[8]], at); d != nil {
		(*d).n++
		(*d).total += 7
	}
	out := o.t.Record()
	out.Topic, out.Key, out.Value = "bench.out", r.Key, o.t.Copy(r.Value)
	o.t.Emit(out)
	return nil
}

func (o *benchOp) Timer(Timer) error    { return nil }
func (o *benchOp) Tick(time.Time) error { return nil }
func (o *benchOp) BeforeCommit() error  { return nil }
func (o *benchOp) Committed()           {}
func (o *benchOp) Aborted()             {}

// BenchmarkTask is the engine's work on a record without Kafka, a transaction each 5,000 records.
func BenchmarkTask(b *testing.B) {
	b.Run("memory", func(b *testing.B) { benchTask(b, nil, 0) })
	for _, c := range []struct {
		name  string
		share int64
	}{{"local state that fits", 1 << 30}, {"local state of a quarter of the keys", benchVisitors * 140 / 4}} {
		b.Run(c.name, func(b *testing.B) {
			base, err := openLocal(b.TempDir(), 64<<20, testLog(b))
			must(b, err)
			defer func() { must(b, base.close()) }()
			benchTask(b, base, c.share)
		})
	}
}

func benchTask(b *testing.B, base *localBase, share int64) {
	recs := benchRecords(500_000)
	cfg := Config{Group: "g", InstanceID: "i"}.Defaults()
	top := benchTopology("in", 1)
	now := testEpoch
	var t *Task
	b.ReportAllocs()
	b.ResetTimer()
	began := cpu(b)
	defer func() { b.ReportMetric(float64(cpu(b)-began)/float64(b.N), "cpu-ns/op") }()
	for i := 0; i < b.N; i += benchBatch {
		k := i % len(recs)
		if k == 0 {
			b.StopTimer()
			t, _ = newTaskOn(base, &top, &cfg, 0, now)
			t.start(0, 0, 0, true)
			if base != nil {
				t.local.share = share
				t.identify("bench", topicID{})
				must(b, base.remove(0))
			}
			must(b, t.ready(nil, now))
			b.StartTimer()
		}
		now = now.Add(50 * time.Millisecond)
		t.merge.offer(0, recs[k:k+benchBatch], 0, now)
		must(b, t.run(now, nil))
		_, err := t.seal(now)
		must(b, err)
		t.committed()
		must(b, t.maintain(now))
	}
}

// cpu is the time that this process has had of processors.
func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	must(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkState fills a task's store with b.N keys of 24 bytes and values of 8, in 128 MiB of memory, and restores it: from the whole
// changelog, from a snapshot, and from a snapshot in enough memory.
func BenchmarkState(b *testing.B) {
	dir := b.TempDir()
	var s *Store[int64]
	top := Topology{Name: "bench", Stage: "state", Inputs: []string{"in"}, Partitions: 1, Stores: []StoreSpec{{16, "s", 1}}, New: func(t *Task) (Operator, error) {
		s = OpenStore(t, 16, Codec[int64](Int64{}))
		return &idleOp{}, nil
	}}
	cfg := Config{Group: "g", InstanceID: "i"}.Defaults()
	base, err := openLocal(dir, 128<<20, testLog(b))
	must(b, err)
	defer func() { must(b, base.close()) }()
	now := testEpoch
	open := func(share int64) *Task {
		t, err := newTaskOn(base, &top, &cfg, 0, now)
		must(b, err)
		t.local.share = share
		t.identify("bench", topicID{})
		return t
	}
	key := func(k []byte, i int) []byte {
		return binary.BigEndian.AppendUint64(append(k[:0], "\x00\x10shop-eu:visitor:"...), uint64(i)*0x9e3779b97f4a7c15)
	}
	value := Int64{}.Append([]byte{1}, 1<<40)
	step := func(what string, n int, f func()) {
		began := cpu(b)
		f()
		b.ReportMetric((cpu(b)-began).Seconds()*1e6/float64(n), what)
	}
	var t *Task
	step("changelog-cpu-s/1M", b.N, func() {
		t = open(128 << 20)
		_, _, err := t.adopt(now, span{})
		must(b, err)
		var k []byte
		for i := range b.N {
			k = key(k, i)
			must(b, t.loadState(k, value))
			must(b, t.relieve(now, int64(i)+1))
		}
		must(b, t.restoredTo(int64(b.N)))
		must(b, t.ready(nil, now))
		if s.Len() != b.N {
			b.Fatalf("%d keys", s.Len())
		}
	})
	t.touched = false
	must(b, t.flushNow(now))
	b.ReportMetric(float64(base.usage())/float64(b.N), "disk-B/key")
	if n := len(s.base); n > 0 {
		b.ReportMetric(float64(s.bytes)/float64(n), "counted-B/key")
	}
	step("snapshot-cpu-s/1M", b.N, func() {
		t = open(128 << 20)
		_, refused, err := t.adopt(now, span{end: 1 << 40})
		must(b, err)
		if refused != "" || s.Len() != b.N {
			b.Fatalf("%d keys; refused: %s", s.Len(), refused)
		}
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	step("snapshot-into-memory-cpu-s/1M", b.N, func() {
		t = open(1 << 40)
		_, _, err := t.adopt(now, span{end: 1 << 40})
		must(b, err)
	})
	runtime.GC()
	runtime.ReadMemStats(&after)
	if len(s.base) == b.N {
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "heap-B/key")
		b.ReportMetric(float64(s.bytes)/float64(b.N), "counted-B/key")
	}
	t = open(128 << 20)
	_, _, err = t.adopt(now, span{end: 1 << 40})
	must(b, err)
	step("get-from-disk-cpu-us", min(b.N, 100_000), func() {
		var k []byte
		for i := range min(b.N, 100_000) {
			k = key(k, i*7919%b.N)
			if _, ok := s.GetBytes(k[2:]); !ok {
				b.Fatal("a key is missing")
			}
		}
	})
	step("get-of-no-key-cpu-us", min(b.N, 100_000), func() {
		var k []byte
		for i := range min(b.N, 100_000) {
			k = key(k, i+b.N)
			if _, ok := s.GetBytes(k[2:]); ok {
				b.Fatal("a key too many")
			}
		}
	})
}

// BenchmarkBareLoop does the same with maps that nobody could recover: the price of the engine is the difference.
func BenchmarkBareLoop(b *testing.B) {
	recs := benchRecords(500_000)
	type key struct {
		sec int64
		dim byte
	}
	var visits map[string]*int64
	var windows map[key]*sum
	var out []kgo.Record
	slab := make([]byte, 0, 1<<20)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%len(recs) == 0 {
			visits, windows = map[string]*int64{}, map[key]*sum{}
		}
		if i%benchBatch == 0 {
			out, slab = out[:0], slab[:0]
		}
		r := recs[i%len(recs)]
		at := int64(binary.BigEndian.Uint64(r.Value))
		n := visits[string(r.Key)]
		if n == nil {
			n = new(int64)
			visits[string(r.Key)] = n
		}
		*n++
		k := key{at / 1e6, r.Value[8]}
		w := windows[k]
		if w == nil {
			w = &sum{}
			windows[k] = w
		}
		w.n++
		w.total += 7
		m := len(slab)
		slab = append(slab, r.Value...)
		out = append(out, kgo.Record{Topic: "bench.out", Key: r.Key, Value: slab[m:len(slab):len(slab)]})
	}
}

func benchBed(b *testing.B, n int) []string {
	brokers := kfakeBrokers(b)
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(100_000))
	must(b, err)
	defer cl.Close()
	bed := &bed{t: b, brokers: brokers, parts: 4, cl: cl}
	bed.adm = newAdmin(cl)
	for _, t := range []string{"bench.in", "bench.out", "bench.rows", "state.bench.one"} {
		bed.create(t, nil)
	}
	recs := benchRecords(n)
	for i, r := range recs {
		r.Topic, r.Partition, r.Timestamp = "bench.in", int32(i%4), time.Time{}
		cl.Produce(b.Context(), r, nil)
	}
	must(b, cl.Flush(b.Context()))
	return brokers
}

// BenchmarkWorker is the whole engine on a kfake broker in this process: b.N records in, as many out, changelog and rows.
func BenchmarkWorker(b *testing.B) {
	brokers := benchBed(b, b.N)
	b.ResetTimer()
	w, err := NewWorker(Config{Group: "g", InstanceID: "i"}, benchTopology("bench.in", 4), []kgo.Opt{kgo.SeedBrokers(brokers...)}, prometheus.NewRegistry(), testLog(b))
	must(b, err)
	done := 0
	ctx, cancel := context.WithCancel(b.Context())
	w.afterEnd = func(bool) error {
		done = 0
		for _, t := range w.sorted {
			done += int(t.in[0].next)
		}
		if done >= b.N {
			cancel()
		}
		return nil
	}
	must(b, w.Run(ctx))
	b.StopTimer()
}

// BenchmarkBareTransactions reads and writes the same records with nothing but a transactional session.
func BenchmarkBareTransactions(b *testing.B) {
	brokers := benchBed(b, b.N)
	b.ResetTimer()
	s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(brokers...), kgo.TransactionalID("x"), kgo.ConsumerGroup("x"), kgo.ConsumeTopics("bench.in"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.MaxBufferedRecords(1_000_000))
	must(b, err)
	defer s.Close()
	must(b, s.Begin())
	last := time.Now()
	ctx := b.Context()
	for n := 0; n < b.N; {
		s.PollRecords(ctx, 10_000).EachRecord(func(r *kgo.Record) {
			n++
			s.Produce(ctx, &kgo.Record{Topic: "bench.out", Partition: r.Partition, Key: r.Key, Value: r.Value}, nil)
		})
		if time.Since(last) > 50*time.Millisecond || n >= b.N {
			ok, err := s.End(ctx, kgo.TryCommit)
			must(b, err)
			if !ok {
				b.Fatal("aborted")
			}
			must(b, s.Begin())
			last = time.Now()
		}
	}
	b.StopTimer()
}
