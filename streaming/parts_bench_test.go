package streaming

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// benchPart feeds n events of 20,000 keys to a part, 10,000 a second of event time in the given disorder, a transaction each 500 (50 ms).
func benchPart(b *testing.B, make func(o *partOp), stores ...StoreSpec) {
	top := partTopology(make, stores...)
	cfg := Config{Group: "g", InstanceID: "i", Disorder: 2 * time.Second}.Defaults()
	task, err := newTask(&top, &cfg, 0, testEpoch)
	must(b, err)
	for in := range task.in {
		task.start(in, 0, 0, true)
	}
	must(b, task.ready(nil, testEpoch))
	op := task.op.(*partOp)
	keys := [20_000]string{}
	for i := range keys {
		keys[i] = fmt.Sprintf("shop-eu\x1fv\x1fvisitor-%d", i)
	}
	r := &kgo.Record{}
	now := testEpoch
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		at := 1_700_000_000_000_000 + int64(i)*100
		if i%10 == 7 {
			at -= int64(i*7919%1000) * 1000 // a tenth is up to a second behind
		}
		r.Offset = int64(i)
		task.Observe(i&1, LaneLive, at)
		if err := op.process(i&1, keys[i*7919%len(keys)], at, "", r); err != nil {
			b.Fatal(err)
		}
		if err := task.advance(); err != nil {
			b.Fatal(err)
		}
		if i%500 == 499 {
			now = now.Add(50 * time.Millisecond)
			_, err := task.seal(now)
			must(b, err)
			task.committed()
		}
	}
}

type benchItem struct {
	at, n int64
	name  string
}

type benchItems struct{}

func (benchItems) Append(b []byte, v benchItem) []byte {
	return append(Int64{}.Append(Int64{}.Append(b, v.at), v.n), v.name...)
}

func (benchItems) Decode([]byte) (benchItem, error) { return benchItem{}, nil }

// BenchmarkEventLoop is the loop that the others run in: an event that moves the watermark, and nothing else.
func BenchmarkEventLoop(b *testing.B) {
	benchPart(b, func(o *partOp) {
		o.process = func(int, string, int64, string, *kgo.Record) error { o.t.touched = true; return nil }
	})
}

// BenchmarkOrdered adds an event and gives it back two seconds later: it is committed meanwhile, and taken back.
func BenchmarkOrdered(b *testing.B) {
	benchPart(b, func(o *partOp) {
		n := 0
		buf := OpenOrdered(o.t, OrderedSpec[benchItem]{Store: 16, Codec: benchItems{}, Each: func(string, int64, benchItem) error { n++; return nil }})
		o.process = func(in int, key string, at int64, _ string, r *kgo.Record) error {
			return buf.Add(key, at, uint8(in), r.Offset, benchItem{at, r.Offset, "page_view"})
		}
	}, StoreSpec{16, "ordered", 1})
}

// BenchmarkIntervalJoin joins two streams of 5,000 events a second each within two seconds.
func BenchmarkIntervalJoin(b *testing.B) {
	benchPart(b, func(o *partOp) {
		n := 0
		j := OpenInterval(o.t, IntervalSpec[benchItem, benchItem]{
			Store: 16, Lower: -time.Second, Upper: time.Second, Left: benchItems{}, Right: benchItems{},
			Match: func(Pair[benchItem, benchItem]) error { n++; return nil },
		})
		o.process = func(in int, key string, at int64, _ string, r *kgo.Record) error {
			v := benchItem{at, r.Offset, "page_view"}
			if in == 0 {
				return j.AddLeft(key, at, v)
			}
			return j.AddRight(key, at, v)
		}
	}, StoreSpec{16, "join", 1})
}

// BenchmarkTableLookup asks a table of 20,000 keys; one event in ten changes it.
func BenchmarkTableLookup(b *testing.B) {
	benchPart(b, func(o *partOp) {
		tab := OpenTable(o.t, TableSpec[benchItem]{Store: 16, Codec: benchItems{}})
		o.process = func(_ int, key string, at int64, _ string, r *kgo.Record) error {
			if r.Offset%10 == 0 || r.Offset < 20_000 {
				tab.Put(key, at, benchItem{at, r.Offset, "item"})
				return nil
			}
			tab.AsOf(key, at)
			return nil
		}
	}, StoreSpec{16, "table", 1})
}

// BenchmarkRekey writes an event on to the task of another key.
func BenchmarkRekey(b *testing.B) {
	value := make([]byte, 120)
	benchPart(b, func(o *partOp) {
		o.process = func(_ int, key string, _ int64, _ string, _ *kgo.Record) error {
			Rekey(o.t, "rekey.x", unsafeBytes(key), value)
			return nil
		}
	})
}
