package streaming

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// rested is a task of one store of texts.
type rested struct {
	*Harness
	s *Store[*string]
}

// texts are values behind pointers.
type texts struct{}

func (texts) Append(b []byte, v *string) []byte { return append(b, *v...) }

func (texts) Decode(b []byte) (*string, error) {
	if string(b) == "not a text" {
		return nil, errors.New("not a text")
	}
	v := string(b)
	return &v, nil
}

func newRested(t testing.TB, p restPolicy) *rested {
	t.Helper()
	r := &rested{}
	top := Topology{Name: "test", Stage: "rest", Inputs: []string{"in"}, Partitions: 1, Stores: []StoreSpec{{16, "s", 1}}, New: func(t *Task) (Operator, error) {
		t.rest = p
		r.s = OpenStore(t, 16, Codec[*string](texts{}))
		return &idleOp{}, nil
	}}
	r.Harness = harness(t, Config{}, top)
	return r
}

func (r *rested) put(k, v string) { r.s.Put(k, &v) }

func (r *rested) get(k string) (string, bool) {
	v, ok := r.s.Get(k)
	if !ok {
		return "", false
	}
	return *v, true
}

func (r *rested) commit(t testing.TB) {
	t.Helper()
	r.now = r.now.Add(tickEvery)
	_, err := r.Commit()
	must(t, err)
}

// whole is what the store says it takes, and what that should be.
func (r *rested) whole() (says, is int64) {
	for _, c := range r.s.base {
		is += r.s.cost + int64(len(c.key)) + int64(c.size)
	}
	for _, c := range r.s.rest.old {
		is += r.s.cost + int64(len(c.key)) + int64(c.size)
	}
	return r.s.bytes, is
}

func TestAStoreAtRestIsAMapThatCommitsAndAborts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		p    restPolicy
	}{
		{"at once", restAtOnce},
		{"bit by bit", restPolicy{pass: 3, work: 200, used: true}},
		{"with some that stay", restPolicy{keys: 6, pass: 1, work: 1 << 40}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(rt *rapid.T) {
				r := newRested(t, c.p)
				keys := rapid.SampledFrom([]int{5, 300}).Draw(rt, "keys")
				committed, now := map[string]string{}, map[string]string{}
				key := func() string {
					if n := rapid.IntRange(0, keys).Draw(rt, "key"); n > 0 {
						return fmt.Sprint(n)
					}
					return ""
				}
				change := func(i int) {
					if k := key(); rapid.IntRange(0, 2).Draw(rt, "op") > 0 {
						now[k] = strings.Repeat("x", i%50) + fmt.Sprint(i)
						r.put(k, now[k])
					} else {
						delete(now, k)
						r.s.Delete(k)
					}
				}
				for i := range rapid.IntRange(1, 120).Draw(rt, "ops") {
					switch rapid.IntRange(0, 9).Draw(rt, "op") {
					case 0, 1, 2:
						for range rapid.IntRange(1, keys).Draw(rt, "many") {
							change(i)
						}
					case 3, 4:
						r.commit(t)
						committed = maps.Clone(now)
					case 5:
						must(t, r.Abort())
						now = maps.Clone(committed)
					case 6:
						must(t, r.Crash())
						now = maps.Clone(committed)
					case 7:
						r.now = r.now.Add(tickEvery)
						must(t, r.task.tick(r.now))
					case 8: // a Range whose function asks, changes and ranges
						seen := map[string]bool{}
						r.s.Range(func(k string, _ *string) bool {
							if seen[k] {
								rt.Fatalf("%q is shown twice", k)
							}
							seen[k] = true
							switch rapid.IntRange(0, 5).Draw(rt, "within") {
							case 0:
								r.get(key())
							case 1: // of a key that exists, so that it must be shown all the same
								if k := key(); now[k] != "" {
									now[k] = "changed"
									r.put(k, now[k])
								}
							case 2:
								n := 0
								r.s.Range(func(k string, _ *string) bool { n++; r.get(k); return n < 3 })
							}
							return true
						})
						if len(seen) != len(now) {
							rt.Fatalf("%d of %d keys are shown", len(seen), len(now))
						}
					default:
						k := key()
						v, ok := r.get(k)
						if want, had := now[k]; ok != had || v != want || r.s.has([]byte(k)) != had {
							rt.Fatalf("Get(%q) = %q, %v; want %q, %v", k, v, ok, want, had)
						}
					}
					got := map[string]string{}
					r.s.Range(func(k string, v *string) bool { got[k] = *v; return true })
					if diff := cmp.Diff(now, got); diff != "" || r.s.Len() != len(now) {
						rt.Fatalf("the store has %d keys (-map +store):\n%s", r.s.Len(), diff)
					}
					if says, is := r.whole(); says != is {
						rt.Fatalf("the cells take %d bytes, it says %d", is, says)
					}
				}
			})
		})
	}
}

// TestWhatNobodyUsesGoesToRest: keys in use stay, all others are bytes after four seconds; the cells and the map of before are given back.
func TestWhatNobodyUsesGoesToRest(t *testing.T) {
	const n, busy = 200_000, 500
	r := newRested(t, restNormally)
	r.task.rest = restPolicy{keys: 1024, pass: 20, each: tickEvery, work: 40_000, used: true}
	var before, warm, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		r.put(string(benchKey(nil, i)), "a value of some length")
	}
	r.commit(t)
	r.topics = map[string][]*kgo.Record{} // the changelog is no state of the task
	r.task.mem = slab{}
	r.task.out, r.s.dirty = nil, nil
	runtime.GC()
	runtime.ReadMemStats(&warm)
	moves := 0
	for ; len(r.s.base) > busy || r.s.rest.old != nil || r.s.rest.size() > 10*busy+8192; moves++ {
		for i := range busy {
			if _, ok := r.get(string(benchKey(nil, i*7))); !ok {
				t.Fatal("a key is missing")
			}
		}
		r.task.touched = true
		r.commit(t)
		if moves > 1000 {
			t.Fatalf("%d cells in room for %d after %d moves", len(r.s.base), r.s.rest.size(), moves)
		}
	}
	if len(r.s.base) != busy || r.s.rest.packed.n != n-busy || r.s.Len() != n {
		t.Errorf("%d keys are cells, %d at rest", len(r.s.base), r.s.rest.packed.n)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	objects := func(m *runtime.MemStats) int64 { return int64(m.HeapObjects) - int64(before.HeapObjects) }
	bytes := func(m *runtime.MemStats) int64 { return int64(m.HeapAlloc) - int64(before.HeapAlloc) }
	t.Logf("%d moves; %d objects and %d bytes a key, then %d objects and %d bytes a key; it says %d", moves, objects(&warm), bytes(&warm)/n, objects(&after), bytes(&after)/n, r.s.resident()/n)
	if objects(&after) > n/20 {
		t.Errorf("%d objects for %d keys at rest, %d before", objects(&after), n, objects(&warm))
	}
	if got, says := bytes(&after), r.s.resident(); got > 2*says || says > 2*got {
		t.Errorf("the heap has %d bytes, the store says %d", got, says)
	}
	for i := range n {
		if v, ok := r.get(string(benchKey(nil, i))); !ok || v != "a value of some length" {
			t.Fatalf("key %d: %q, %v", i, v, ok)
		}
	}
	if r.s.rest.packed.n != 0 || r.s.rest.packed.used != 0 {
		t.Errorf("%d keys are at rest still", r.s.rest.packed.n)
	}
}

func TestASmallStoreStaysAsItIs(t *testing.T) {
	t.Parallel()
	r := newRested(t, restPolicy{keys: 1024, pass: 20, each: tickEvery, work: 40_000, used: true})
	for i := range 1000 {
		r.put(fmt.Sprint(i), "x")
	}
	for range 100 {
		r.task.touched = true
		r.commit(t)
	}
	if len(r.s.base) != 1000 {
		t.Errorf("%d of 1000 keys are cells", len(r.s.base))
	}
}

// TestWhatIsRestoredIsAtRest: but for the first keys nothing of it becomes a cell, and what cannot be decoded is told then.
func TestWhatIsRestoredIsAtRest(t *testing.T) {
	t.Parallel()
	r := newRested(t, restPolicy{keys: 100, pass: 20, each: tickEvery, work: 40_000, used: true})
	want := map[string]string{}
	for i := range 20_000 {
		k := fmt.Sprint(i % 7000)
		if want[k] = fmt.Sprint(i); i%13 == 0 {
			delete(want, k)
			r.s.Delete(k)
		} else {
			r.put(k, want[k])
		}
		if i%1000 == 0 {
			r.commit(t)
		}
	}
	r.commit(t)
	must(t, r.Crash())
	if n := len(r.s.base); n > 100 || r.s.rest.packed.n != len(want)-n || r.s.Len() != len(want) {
		t.Errorf("%d keys are cells, %d at rest, %d in all, of %d", n, r.s.rest.packed.n, r.s.Len(), len(want))
	}
	got := map[string]string{}
	r.s.Range(func(k string, v *string) bool { got[k] = *v; return true })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	r.put("bad", "not a text")
	r.commit(t)
	if err := r.Crash(); err == nil || !strings.Contains(err.Error(), "decoding a value of store s: not a text") {
		t.Errorf("error %v", err)
	}
}

func TestACodecThatDoesNotKeepItsPromiseIsNamed(t *testing.T) {
	t.Parallel()
	r := newRested(t, restAtOnce)
	r.put("a", "not a text")
	r.commit(t)
	for what, f := range map[string]func(){"Get": func() { r.get("a") }, "Range": func() { r.s.Range(func(string, *string) bool { return true }) }} {
		err := r.task.call("a test", func() error { f(); return nil })
		if err == nil || !strings.Contains(err.Error(), "panic: store s: what it encoded it cannot decode: not a text") {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

// TestAMoveOfTheHandIsBounded: however much there is to do.
func TestAMoveOfTheHandIsBounded(t *testing.T) {
	t.Parallel()
	r := newRested(t, restPolicy{keys: 1024, pass: 20, each: tickEvery, work: 40_000, used: true})
	for i := range 100_000 {
		r.put(string(benchKey(nil, i)), "x")
	}
	r.commit(t)
	for range 200 {
		was := len(r.s.base)
		r.task.touched = true
		r.commit(t)
		if n := was - len(r.s.base); n > 40_000/packWork+1 {
			t.Fatalf("%d keys in one move", n)
		}
	}
	if len(r.s.base) > 0 {
		t.Errorf("%d keys are cells after 20 s", len(r.s.base))
	}
}
