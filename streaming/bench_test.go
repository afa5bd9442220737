package streaming

import (
	"context"
	"encoding/binary"
	"fmt"
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
	recs := benchRecords(500_000)
	cfg := Config{Group: "g", InstanceID: "i"}.Defaults()
	top := benchTopology("in", 1)
	now := testEpoch
	var t *Task
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += benchBatch {
		k := i % len(recs)
		if k == 0 {
			b.StopTimer()
			t, _ = newTask(&top, &cfg, 0, now)
			t.start(0, 0, 0, true)
			must(b, t.ready(nil, now))
			b.StartTimer()
		}
		now = now.Add(50 * time.Millisecond)
		t.merge.offer(0, recs[k:k+benchBatch], 0, now)
		must(b, t.run(now))
		_, err := t.seal(now)
		must(b, err)
		t.committed()
	}
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
