package streaming

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

func TestAnIntervalJoinGivesEveryPairOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScript(rt)
		lower := time.Duration(rapid.SampledFrom([]int{-3000, -500, 0, 400, 2000}).Draw(rt, "lower")) * time.Millisecond
		upper := lower + time.Duration(rapid.SampledFrom([]int{0, 100, 900, 4000}).Draw(rt, "width"))*time.Millisecond
		top := partTopology(func(o *partOp) {
			j := OpenInterval(o.t, IntervalSpec[string, int64]{
				Store: 16, Lower: lower, Upper: upper, Left: strs{}, Right: Int64{},
				Match: func(p Pair[string, int64]) error {
					o.say("pairs", "%s %s@%d %d@%d", p.Key, p.Left, p.LeftAt, p.Right, p.RightAt)
					return nil
				},
				Late: func(key string, side Side, at int64) error {
					o.say("late", "%s %d %d", key, side, at)
					return nil
				},
			})
			o.process = func(in int, key string, at int64, id string, r *kgo.Record) error {
				if in == 0 {
					return j.AddLeft(key, at, id)
				}
				return j.AddRight(key, at, r.Offset)
			}
		}, StoreSpec{16, "join", 1})

		var sides [2][]arrived
		late, pairs := []string{}, []string{}
		for _, a := range arrivals(s, 1e6) {
			if a.at < a.watermark {
				late = append(late, fmt.Sprintf("%s %d %d", a.key, a.in, a.at))
			} else {
				sides[a.in] = append(sides[a.in], a)
			}
		}
		for _, l := range sides[0] {
			for _, r := range sides[1] {
				if d := time.Duration(r.at-l.at) * time.Microsecond; l.key == r.key && d >= lower && d <= upper {
					pairs = append(pairs, fmt.Sprintf("%s %s@%d %d@%d", l.key, l.id, l.at, r.offset, r.at))
				}
			}
		}
		slices.Sort(pairs)
		for _, how := range []func(testing.TB, *Harness){finishPart, func(tb testing.TB, h *Harness) { cut(rt, tb, h) }} {
			h := newPart(t, top, s)
			how(t, h)
			got := values(h, "pairs")
			slices.Sort(got)
			if diff := cmp.Diff(pairs, got); diff != "" {
				rt.Fatalf("pairs of [%s, %s] (-definition +join):\n%s", lower, upper, diff)
			}
			if diff := cmp.Diff(late, values(h, "late")); diff != "" {
				rt.Fatalf("late (-definition +join):\n%s", diff)
			}
			j := h.task.windows[0].(*Interval[string, int64])
			if n := leftOf(h); n != 0 || j.Len() != 0 || len(j.keys) != 0 {
				rt.Fatalf("left: %d changelog entries, %d events, %d keys", n, j.Len(), len(j.keys))
			}
		}
	})
}

// TestATableGivesWhatHistorySays: input 0 are events, input 1 changes of a table; a change whose id is even deletes. Both go through an ordered buffer or only the events.
func TestATableGivesWhatHistorySays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScript(rt)
		onArrival := rapid.Bool().Draw(rt, "changes are put on arrival")
		deletes := func(offset int64) bool { return offset%3 == 2 }
		top := partTopology(func(o *partOp) {
			var tab *Table[int64]
			put := func(key string, at, n int64) {
				if deletes(n) {
					tab.Delete(key, at)
				} else {
					tab.Put(key, at, n)
				}
			}
			open := func() { tab = OpenTable(o.t, TableSpec[int64]{Store: 17, Codec: Int64{}}) }
			if onArrival { // it does not matter which is opened first
				open()
			}
			buf := OpenOrdered(o.t, OrderedSpec[int64]{Store: 16, Codec: Int64{}, Each: func(key string, at int64, n int64) error {
				if n < 0 {
					put(key, at, -n-1)
				} else if v, ok := tab.AsOf(key, at); ok {
					o.say("out", "%s %d: %d", key, n, v)
				} else {
					o.say("out", "%s %d: none", key, n)
				}
				return nil
			}})
			if !onArrival {
				open()
			}
			o.process = func(in int, key string, at int64, _ string, r *kgo.Record) error {
				switch {
				case in == 0:
					return buf.Add(key, at, 9, r.Offset, r.Offset) // behind the changes of its time
				case !onArrival:
					return buf.Add(key, at, 0, r.Offset, -r.Offset-1)
				case at >= o.t.Watermark():
					put(key, at, r.Offset)
				}
				return nil
			}
		}, StoreSpec{16, "ordered", 1}, StoreSpec{17, "table", 1})

		var events, changes []arrived
		for _, a := range arrivals(s, 1e6) {
			if a.at >= a.watermark {
				if a.in == 0 {
					events = append(events, a)
				} else {
					changes = append(changes, a)
				}
			}
		}
		want := []string{}
		for _, e := range events {
			var last *arrived
			for i := range changes {
				if c := &changes[i]; c.key == e.key && c.at <= e.at && (last == nil || c.at > last.at || c.at == last.at && c.offset > last.offset) {
					last = c
				}
			}
			if last == nil || deletes(int64(last.offset)) {
				want = append(want, fmt.Sprintf("%s %d: none", e.key, e.offset))
			} else {
				want = append(want, fmt.Sprintf("%s %d: %d", e.key, e.offset, last.offset))
			}
		}
		slices.Sort(want)
		final := map[string]int64{}
		slices.SortFunc(changes, func(a, b arrived) int {
			if a.at != b.at {
				return int(max(-1, min(1, a.at-b.at)))
			}
			return a.offset - b.offset
		})
		for _, c := range changes {
			final[c.key] = int64(c.offset)
		}
		maps.DeleteFunc(final, func(_ string, n int64) bool { return deletes(n) })

		for _, how := range []func(testing.TB, *Harness){finishPart, func(tb testing.TB, h *Harness) { cut(rt, tb, h) }} {
			h := newPart(t, top, s)
			how(t, h)
			got := values(h, "out")
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Fatalf("what events saw (-history +table):\n%s", diff)
			}
			i := slices.IndexFunc(h.task.windows, func(w engineWindow) bool { return w.store().ID == 17 })
			tab := h.task.windows[i].(*Table[int64])
			rest := map[string]int64{}
			tab.base.Range(func(key string, list []version[int64]) bool {
				if len(list) != 1 {
					rt.Fatalf("%s has %d versions long after", key, len(list))
				}
				rest[key] = list[0].v
				return true
			})
			if diff := cmp.Diff(final, rest); diff != "" {
				rt.Fatalf("what is left (-history +table):\n%s", diff)
			}
			if n := leftOf(h); n != len(final) {
				rt.Fatalf("%d entries are left in the changelog, want %d", n, len(final))
			}
			for key, n := range final {
				if v, ok := tab.Latest(key); !ok || v != n {
					rt.Fatalf("Latest(%s) = %d, %v, want %d", key, v, ok, n)
				}
			}
		}
	})
}

func FuzzStoredVersionsNeverPanic(f *testing.F) {
	c := versionsCodec[[]byte]{Bytes{}}
	f.Add(c.Append(nil, []version[[]byte]{{at: 1, v: []byte("one")}, {at: 5, deleted: true}, {at: 9, v: make([]byte, 200)}}))
	f.Add([]byte{2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := c.Decode(b)
		if err != nil {
			return
		}
		w, err := c.Decode(c.Append(nil, v))
		if err != nil || len(v) != len(w) {
			t.Fatalf("%d versions came back as %d: %v", len(v), len(w), err)
		}
		for i := range v {
			if v[i].at != w[i].at || v[i].deleted != w[i].deleted || string(v[i].v) != string(w[i].v) {
				t.Fatalf("version %d came back otherwise", i)
			}
		}
	})
}

func FuzzStoredTimelinesNeverPanic(f *testing.F) {
	f.Add([]byte("01234567"), []byte("\x02\x00\x02\x03key\x05\x00left\x02\x01\x02\x03key\x02\x01\x08"))
	f.Add([]byte{}, []byte("01234567"))
	f.Fuzz(func(_ *testing.T, k, v []byte) {
		t := &Task{top: &Topology{Stores: []StoreSpec{{16, "join", 1}}}, byID: map[uint16]table{}}
		j := OpenInterval(t, IntervalSpec[[]byte, int64]{Store: 16, Left: Bytes{}, Right: Int64{}, Match: func(Pair[[]byte, int64]) error { return nil }})
		if err := j.load(k, v); err == nil {
			j.settle(noTime)
			j.reindex()
			if err := j.load(k, nil); err != nil {
				panic(err)
			}
			if j.settle(noTime); j.n != 0 || len(j.segments) != 0 {
				panic("deleted items are still there")
			}
		}
	})
}
