package streaming

import (
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func benchStore(b *testing.B) (*Task, *Store[int64]) {
	var s *Store[int64]
	top := Topology{Name: "bench", Stage: "store", Inputs: []string{"in"}, Partitions: 1, Stores: []StoreSpec{{16, "s", 1}}, New: func(t *Task) (Operator, error) {
		s = OpenStore(t, 16, Codec[int64](Int64{}))
		return &idleOp{}, nil
	}}
	cfg := Config{Group: "g", InstanceID: "i"}.Defaults()
	t, err := newTask(&top, &cfg, 0, testEpoch)
	must(b, err)
	return t, s
}

func benchKey(k []byte, i int) []byte {
	return binary.BigEndian.AppendUint64(append(k[:0], "shop-eu:visitor:"...), uint64(i)*0x9e3779b97f4a7c15)
}

// BenchmarkStore asks a store of 20,000 keys that are all in use.
func BenchmarkStore(b *testing.B) {
	const n = 20_000
	t, s := benchStore(b)
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = benchKey(nil, i)
		s.PutBytes(keys[i], int64(i))
	}
	none := benchKey(nil, n)
	t.committed()
	b.Run("get", func(b *testing.B) {
		for i := range b.N {
			if _, ok := s.GetBytes(keys[i*7919%n]); !ok {
				b.Fatal("a key is missing")
			}
		}
	})
	b.Run("get of no key", func(b *testing.B) {
		for range b.N {
			if _, ok := s.GetBytes(none); ok {
				b.Fatal("a key too many")
			}
		}
	})
	b.Run("put", func(b *testing.B) {
		for i := range b.N {
			s.PutBytes(keys[i*7919%n], int64(i))
			if i%500 == 499 {
				t.committed()
			}
		}
	})
	t.committed()
	b.Run("put and delete", func(b *testing.B) {
		for i := range b.N {
			none = benchKey(none, n+i%500)
			if s.PutBytes(none, 1); i%500 == 499 {
				t.committed()
				for k := range 500 {
					none = benchKey(none, n+k)
					s.DeleteBytes(none)
				}
				t.committed()
			}
		}
	})
}

// BenchmarkTimers sets a timer of each of 20,000 keys a minute ahead, takes back the one before every other time, and fires what is due: events of
// 10,000 a second.
func BenchmarkTimers(b *testing.B) {
	t, _ := benchStore(b)
	const keys, ahead = 20_000, 60_000_000
	last := [keys]int64{}
	name := [keys]string{}
	for i := range name {
		name[i] = string(benchKey(nil, i))
	}
	b.ReportAllocs()
	b.ResetTimer()
	fired := 0
	for i := range b.N {
		k, at := i*7919%keys, int64(i)*100
		if i&1 == 0 && last[k] != 0 {
			t.DeleteTimer(1, name[k], last[k])
		}
		last[k] = at + ahead + int64(k)
		t.SetTimer(1, name[k], last[k])
		for {
			if _, ok := t.timers.pop(at); !ok {
				break
			}
			fired++
		}
		if i%500 == 499 {
			t.committed()
		}
	}
	b.ReportMetric(float64(fired)/float64(b.N), "fired/op")
}

// BenchmarkRestAndWake brings 100,000 keys to rest, and asks for all of them.
func BenchmarkRestAndWake(b *testing.B) {
	const n = 100_000
	t, s := benchStore(b)
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = benchKey(nil, i)
		s.PutBytes(keys[i], int64(i)<<20)
	}
	t.committed()
	p := restAtOnce
	var rest, wake time.Duration
	b.ReportAllocs()
	for range b.N {
		began := time.Now()
		s.cool(&p, p.work)
		rest += time.Since(began)
		began = time.Now()
		for i := range n {
			if _, ok := s.GetBytes(keys[i*7919%n]); !ok {
				b.Fatal("a key is missing")
			}
		}
		wake += time.Since(began)
	}
	b.ReportMetric(float64(rest.Nanoseconds())/float64(b.N*n), "rest-ns/key")
	b.ReportMetric(float64(wake.Nanoseconds())/float64(b.N*n), "wake-ns/key")
}

// BenchmarkCollect is what a million keys of a store, and as many timers half an hour to a day and a half ahead, cost the garbage collector in each of its cycles, in use and at rest.
func BenchmarkCollect(b *testing.B) {
	const n = 1_000_000
	for _, c := range []struct {
		name string
		fill func(r *rested, i int)
	}{
		{"store", func(r *rested, i int) { r.put(string(benchKey(nil, i)), "a value of forty bytes or a little less") }},
		{"timers", func(r *rested, i int) {
			r.task.SetTimer(1, string(benchKey(nil, i)), 1_800_000_000+int64(i)*123_000)
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var m [3]runtime.MemStats
			cycle := func(i int) (ms float64) {
				runtime.GC()
				runtime.GC() // what was swept away in the first is gone
				runtime.ReadMemStats(&m[i])
				began := cpu(b)
				for range 3 {
					runtime.GC()
				}
				return (cpu(b) - began).Seconds() * 1000 / 3
			}
			for range b.N {
				none := cycle(0)
				r := newRested(b, restPolicy{keys: 1 << 40, each: tickEvery, pass: 1, work: 1 << 40})
				for i := range n {
					if c.fill(r, i); i%10_000 == 0 || i == n-1 {
						r.commit(b)
						r.topics = map[string][]*kgo.Record{}
					}
				}
				r.task.mem = slab{}
				cells := cycle(1) - none
				r.task.rest = restAtOnce
				for range 4 {
					r.task.touched = true
					r.commit(b)
				}
				rest := cycle(2) - none
				for i, name := range []string{"cells", "rest"} {
					b.ReportMetric(float64(m[i+1].HeapObjects-m[0].HeapObjects)/n, name+"-objects/key")
					b.ReportMetric(float64(m[i+1].HeapAlloc-m[0].HeapAlloc)/n, name+"-B/key")
				}
				b.ReportMetric(cells, "cells-gc-cpu-ms")
				b.ReportMetric(rest, "rest-gc-cpu-ms")
				b.ReportMetric(cells/max(rest, 0.1), "gc-ratio")
				runtime.KeepAlive(r)
			}
		})
	}
}
