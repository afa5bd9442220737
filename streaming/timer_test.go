package streaming

import (
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// TestTimersAgreeWithAList: whatever is set, deleted, committed, aborted and restored, they fire once each in the order of time, owner and key.
func TestTimersAgreeWithAList(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		p    restPolicy
	}{{"in use", restNormally}, {"at rest", restAtOnce}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(rt *rapid.T) {
				r := newRested(t, c.p)
				less := func(a, b Timer) int { return strings.Compare(string(appendTimer(nil, a)), string(appendTimer(nil, b))) }
				committed, now := map[Timer]bool{}, map[Timer]bool{}
				watermark, sealed := int64(noTime), int64(noTime)
				span := int64(1) << timerBits
				draw := func() Timer {
					at := rapid.SampledFrom([]int64{0, 1, span - 1, span, span + 1, 5 * span, 1000 * span, 1 << 58, math.MaxInt64, math.MinInt64 + 1, -1, -span}).Draw(rt, "at")
					if base := max(watermark, 0); at > -span && at < 1<<50 && base < 1<<50 {
						at += base + rapid.Int64Range(-span, span).Draw(rt, "near")
					}
					return Timer{uint16(rapid.IntRange(0, 1).Draw(rt, "owner")), fmt.Sprint(rapid.IntRange(0, 2).Draw(rt, "key")), at}
				}
				for range rapid.IntRange(1, 120).Draw(rt, "ops") {
					switch rapid.IntRange(0, 9).Draw(rt, "op") {
					case 0, 1, 2, 3:
						tm := draw()
						for range rapid.IntRange(1, 40).Draw(rt, "again") { // it comes and goes
							r.task.SetTimer(tm.Owner, tm.Key, tm.At)
							r.task.SetTimer(tm.Owner, tm.Key, tm.At)
							if now[tm] = true; rapid.Bool().Draw(rt, "delete") {
								r.task.DeleteTimer(tm.Owner, tm.Key, tm.At)
								delete(now, tm)
							}
						}
					case 4:
						if len(now) > 0 {
							all := slices.SortedFunc(maps.Keys(now), less)
							tm := all[rapid.IntRange(0, len(all)-1).Draw(rt, "which")]
							r.task.DeleteTimer(tm.Owner, tm.Key, tm.At)
							delete(now, tm)
						}
					case 5:
						r.commit(t)
						committed, sealed = maps.Clone(now), watermark
					case 6:
						if rapid.Bool().Draw(rt, "crash") {
							must(t, r.Crash())
						} else {
							must(t, r.Abort())
						}
						now, watermark = maps.Clone(committed), sealed
					default:
						if step := rapid.SampledFrom([]int64{0, 1000, span, 3 * span, 2000 * span, 1 << 57}).Draw(rt, "step"); watermark == noTime {
							watermark = step
						} else {
							watermark += min(step, math.MaxInt64-watermark)
						}
						var want, got []Timer
						for tm := range now {
							if tm.At <= watermark {
								want = append(want, tm)
							}
						}
						slices.SortFunc(want, less)
						for _, tm := range want {
							delete(now, tm)
						}
						again := rapid.IntRange(0, 2).Draw(rt, "again")
						for r.task.timers.due(watermark) {
							tm, ok := r.task.timers.pop(watermark)
							if !ok {
								break
							}
							if r.task.touched = true; tm.At > noTime && again == 0 && len(got) == 0 { // it sets itself, in the past, and another far ahead
								again = -1
								r.task.SetTimer(tm.Owner, tm.Key, tm.At)
								want = slices.Insert(want, 0, tm)
								if far := (Timer{9, tm.Key, math.MaxInt64 - 1}); watermark < far.At && !now[far] {
									now[far] = true
									r.task.SetTimer(far.Owner, far.Key, far.At)
								}
							}
							got = append(got, tm)
						}
						if diff := cmp.Diff(want, got); diff != "" {
							rt.Fatalf("at %d (-want +fired):\n%s", watermark, diff)
						}
					}
					r.task.timers.check(rt, now)
				}
			})
		})
	}
}

// check compares the index with the store.
func (x *timers) check(t *rapid.T, want map[Timer]bool) {
	t.Helper()
	if x.store.Len() != len(want) {
		t.Fatalf("%d timers, want %d", x.store.Len(), len(want))
	}
	seen, heap, n, stale := map[string]bool{}, map[string]bool{}, 0, 0
	for no, b := range x.later {
		in := 0
		for _, run := range b.runs {
			for len(run) > 0 {
				var k []byte
				if k, run = cutRun(run); seen[string(k)] {
					t.Fatalf("%x is in its bucket twice", k)
				}
				if seen[string(k)] = true; timeOf(string(k))>>timerBits != no {
					t.Fatalf("%x is in bucket %d", k, no)
				}
				if in++; !x.store.has(k) && !x.stale.has(k) {
					t.Fatalf("the store does not know %x, and nobody noticed", k)
				}
			}
		}
		if in != b.n || no <= x.opened {
			t.Fatalf("bucket %d of %d, %d opened, has %d", no, b.n, x.opened, in)
		}
		n, stale = n+in, stale+b.stale
	}
	for _, k := range x.heap {
		heap[k] = true
	}
	for tm := range want {
		if k := string(appendTimer(nil, tm)); !seen[k] && !heap[k] {
			t.Fatalf("%x is neither in a bucket nor in the heap", k)
		}
	}
	if n != x.waiting || stale != x.stale.n || len(x.numbers) != len(x.later)+x.gone {
		t.Fatalf("books: %d/%d waiting, %d/%d stale, %d numbers of %d buckets and %d gone", x.waiting, n, x.stale.n, stale, len(x.numbers), len(x.later), x.gone)
	}
}

// TestTimersThatComeAndGoLeaveNothing: keys that move their timer at every event, as gaps of sessions do, and such that set and delete the same one.
func TestTimersThatComeAndGoLeaveNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		at   func(i int) int64
	}{
		{"half an hour ahead", func(i int) int64 { return int64(i)*1000 + 1_800_000_000 }},
		{"at midnight", func(int) int64 { return 86_400_000_000 }},
		{"soon", func(i int) int64 { return int64(i)*1000 + 1_000_000 }},
		{"at once, of a watermark that stands", func(i int) int64 { return 1_000_000 + int64(i%10) }},
		{"anywhere", func(i int) int64 { return int64(uint64(i) * 0x9e3779b97f4a7c15 >> 2) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRested(t, restNormally)
			x := r.task.timers
			const n, keys = 200_000, 300
			last := [keys]int64{}
			for i := range n {
				k := fmt.Sprint(i % keys)
				if last[i%keys] != 0 {
					r.task.DeleteTimer(1, k, last[i%keys])
				}
				last[i%keys] = c.at(i)
				if r.task.SetTimer(1, k, last[i%keys]); strings.HasSuffix(c.name, "stands") {
					r.task.timers.pop(500_000)
				} else if strings.HasPrefix(c.name, "soon") || strings.HasPrefix(c.name, "half") {
					r.task.timers.pop(int64(i) * 1000)
				}
				if i%100 == 0 {
					r.commit(t)

					r.topics = map[string][]*kgo.Record{}
				}
			}
			for range 100 {
				x.tidy()
			}
			runs, bytes := 0, 0
			for _, b := range x.later {
				for _, run := range b.runs {
					runs, bytes = runs+1, bytes+cap(run)
				}
			}
			if len(x.heap) > 2*heapFrom || x.waiting > 20*keys+sweepFrom*256 || bytes > 1<<20 || x.stale.n > 20*keys+sweepFrom*256 || len(x.numbers) > 2*len(x.later)+sweepFrom+1 {
				t.Errorf("%d timers: %d in the heap, %d in %d buckets of %d runs with %d bytes, %d stale, %d numbers", x.store.Len(), len(x.heap), x.waiting, len(x.later), runs, bytes, x.stale.n, len(x.numbers))
			}
		})
	}
}

// TestFarTimersHaveNothingToMark: a million of them are a few thousand objects.
func TestFarTimersHaveNothingToMark(t *testing.T) {
	const n = 200_000
	r := newRested(t, restPolicy{pass: 1, work: 1 << 40, each: time.Hour})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		r.task.SetTimer(1, string(benchKey(nil, i)), int64(i)*10_000+3_600_000_000)
	}
	r.now = r.now.Add(time.Hour)
	r.commit(t)
	r.topics = map[string][]*kgo.Record{}
	r.task.mem = slab{}
	r.task.out, r.task.timers.store.dirty = nil, nil
	for range 3 {
		r.now, r.task.touched = r.now.Add(time.Hour), true
		r.commit(t)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	objects, bytes := int64(after.HeapObjects)-int64(before.HeapObjects), int64(after.HeapAlloc)-int64(before.HeapAlloc)
	t.Logf("%d objects, %d bytes a timer", objects, bytes/n)
	if objects > n/20 {
		t.Errorf("%d objects for %d timers", objects, n)
	}
	if tm, ok := r.task.timers.pop(math.MaxInt64); !ok || tm.At != 3_600_000_000 {
		t.Errorf("the first is %v, %v", tm, ok)
	}
	runtime.KeepAlive(r)
}
