package streaming

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// benchWindows runs 500,000 events, 10,000 a second over 60 keys, through one window set of a task: transactions of 5,000 events, as many
// milliseconds apart as they last. What is measured is everything: merge, windows, their emissions, changelog, commit.
func benchWindows(b *testing.B, open func(t *Task, emitted *int) func(key string, at int64)) {
	recs := benchRecords(500_000)
	cfg := Config{Group: "g", InstanceID: "i"}.Defaults()
	emitted := 0
	top := Topology{Name: "bench", Stage: "windows", Inputs: []string{"in"}, Partitions: 1, Stores: []StoreSpec{{17, "windows", 1}}}
	top.New = func(t *Task) (Operator, error) {
		o := &windowBench{t: t, add: open(t, &emitted)}
		for i := range o.dims {
			o.dims[i] = fmt.Sprintf("shop-eu/EUR/c%d/mobile", i)
		}
		return o, nil
	}
	now := testEpoch
	var t *Task
	var cpu time.Duration
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for i := 0; i < b.N; i += benchBatch {
		k := i % len(recs)
		if k == 0 {
			b.StopTimer()
			var err error
			t, err = newTask(&top, &cfg, 0, now)
			must(b, err)
			t.start(0, 0, 0, true)
			must(b, t.ready(nil, now))
			b.StartTimer()
		}
		before := cpuTime(b)
		now = now.Add(500 * time.Millisecond)
		t.merge.offer(0, recs[k:k+benchBatch], 0, now)
		must(b, t.run(now, nil))
		_, err := t.seal(now)
		must(b, err)
		t.committed()
		n += benchBatch
		cpu += cpuTime(b) - before
	}
	b.StopTimer()
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(n), "cpu-ns/event")
	b.ReportMetric(float64(emitted)/float64(n), "emissions/event")
}

// cpuTime is what the process has used: on a busy machine it says more than the clock.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type windowBench struct {
	idleOp
	t    *Task
	add  func(key string, at int64)
	dims [benchDims]string
}

func (o *windowBench) Process(in int, r *kgo.Record) error {
	at := int64(binary.BigEndian.Uint64(r.Value))
	o.t.Observe(in, LaneLive, at)
	o.add(o.dims[r.Value[8]], at)
	return nil
}

func emitBench[S any](emitted *int) func(S, *sum) error {
	return func(S, *sum) error { *emitted++; return nil }
}

// BenchmarkHopping: the slide is 1 s; the size is 1 to 600 times that.
func BenchmarkHopping(b *testing.B) {
	for _, ratio := range []int{1, 10, 60, 600} {
		b.Run(fmt.Sprintf("size-slide-%d", ratio), func(b *testing.B) {
			benchWindows(b, func(t *Task, emitted *int) func(string, int64) {
				w := OpenHopping(t, HoppingSpec[string, *sum]{
					Store: 17, Size: time.Duration(ratio) * time.Second, Slide: time.Second, Lateness: time.Second, ClosedOnly: true, Keys: strs{}, Values: sums{}, Emit: emitBench[Window[string]](emitted),
				})
				return func(key string, at int64) {
					d, _ := w.At(key, at)
					(*d).n++
				}
			})
		})
	}
}

// BenchmarkHoppingPlain adds every event to each of its windows, as windows without slices do: the price of the overlap.
func BenchmarkHoppingPlain(b *testing.B) {
	for _, ratio := range []int{1, 10, 60} {
		b.Run(fmt.Sprintf("size-slide-%d", ratio), func(b *testing.B) {
			benchWindows(b, func(t *Task, emitted *int) func(string, int64) {
				w := OpenWindows(t, WindowsSpec[string, *sum]{
					Store: 17, Lateness: time.Duration(ratio+1) * time.Second, EmitEvery: time.Hour, Keys: strs{}, Values: sums{}, Emit: emitBench[Window[string]](emitted),
					Grains: []Grain[string]{Fixed[string]("1s", 0, time.Second)},
				})
				return func(key string, at int64) {
					for i := range ratio {
						if d, _ := w.At(key, at-int64(i)*1_000_000); d != nil {
							(*d).n++
						}
					}
				}
			})
		})
	}
}

func BenchmarkTumbling(b *testing.B) {
	benchWindows(b, func(t *Task, emitted *int) func(string, int64) {
		w := OpenWindows(t, WindowsSpec[string, *sum]{
			Store: 17, Lateness: time.Second, EmitEvery: time.Hour, Keys: strs{}, Values: sums{}, Emit: emitBench[Window[string]](emitted),
			Grains: []Grain[string]{Fixed[string]("1s", 0, time.Second)},
		})
		return func(key string, at int64) {
			d, _ := w.At(key, at)
			(*d).n++
		}
	})
}

// BenchmarkSessions: 60 keys that are never silent; 50,000 with sessions that last; 50,000 of which every event is a session; and each
// event waiting for the watermark, for Split.
func BenchmarkSessions(b *testing.B) {
	for _, c := range []struct {
		name  string
		keys  int
		gap   time.Duration
		split func(a, b *sum) bool
	}{
		{"60-keys", 60, time.Second, nil},
		{"50000-keys", 50_000, 30 * time.Second, nil},
		{"one-event-each", 50_000, time.Second, nil},
		{"50000-keys-split", 50_000, 30 * time.Second, func(a, b *sum) bool { return false }},
	} {
		b.Run(c.name, func(b *testing.B) {
			keys := make([]string, c.keys)
			for i := range keys {
				keys[i] = fmt.Sprintf("shop-eu/visitor-%d", i)
			}
			benchWindows(b, func(t *Task, emitted *int) func(string, int64) {
				n := 0
				w := OpenSessions(t, SessionsSpec[string, *sum]{Store: 17, Gap: c.gap, Lateness: time.Second, ClosedOnly: true, Split: c.split, Keys: strs{}, Values: sums{}, Emit: emitBench[Session[string]](emitted)})
				return func(_ string, at int64) {
					n += 7919
					d, _, _ := w.Add(keys[n%len(keys)], at)
					(*d).n++
				}
			})
		})
	}
}
