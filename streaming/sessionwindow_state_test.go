package streaming

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/fault"
)

// bed of one session window set and one hopping window set; what they emit is noted.
type windowBed struct {
	*Harness
	c windowCase
}

func newWindowBed(t testing.TB, hops []hopCase, sessions []sessionCase) windowBed {
	b := windowBed{c: windowCase{disorder: time.Second, partitions: 1, hops: hops, sessions: sessions}}
	h, err := NewHarness(Config{MergeWait: -1, Disorder: time.Second, IdleAfter: time.Hour}, b.c.oneInput(), 0, testEpoch)
	must(t, err)
	b.Harness = h
	return b
}

func (c *windowCase) oneInput() Topology {
	top := c.topology()
	top.Inputs = []string{"in"}
	return top
}

// feed gives events as `key ms id`, then lets windows emit and commits; it returns the rows that came out, but for the cascade's.
func (b windowBed) feed(t testing.TB, events ...string) []string {
	t.Helper()
	before := len(b.Outputs(rowTopic))
	for _, e := range events {
		var key, id string
		var ms int64
		_, err := fmt.Sscan(e, &key, &ms, &id)
		must(t, err)
		b.Produce(0, record(key, ms*1000, id))
	}
	must(t, b.Feed())
	must(t, b.Advance(1100*time.Millisecond))
	_, err := b.Commit()
	must(t, err)
	var out []string
	for _, r := range b.Outputs(rowTopic)[before:] {
		if !strings.HasPrefix(string(r.Key), "t.") {
			out = append(out, strings.ReplaceAll(fmt.Sprintf("%s = %s", r.Key, r.Value), "000 ", " "))
		}
	}
	return out
}

func TestALateEventThatBridgesTwoClosedSessionsRetractsTheLaterOne(t *testing.T) {
	t.Parallel()
	b := newWindowBed(t, nil, []sessionCase{{gap: 2e6, lateness: 60e6, closedOnly: true}})
	expect := func(got []string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	}
	expect(b.feed(t, "a 10000 1x", "a 13500 2x", "a 13000 3x"), "s0/10000000/a = 1 1 from 10000 to 10000 end 12000 closed true")
	expect(b.feed(t, "z 20000 0x"),
		"s0/13500000/a = 2 5 from 13000 to 13500 end 15500 closed true") // its first event to arrive names it
	expect(b.feed(t, "a 11500 4x"),
		"s0/13500000/a = retracted",
		"s0/10000000/a = 4 10 from 10000 to 13500 end 15500 closed true")
	must(t, b.Crash())
	expect(b.feed(t, "a 14000 5x"), "s0/10000000/a = 5 15 from 10000 to 14000 end 16000 closed true")
	expect(b.feed(t, "a 18500 6x")) // behind no more than the watermark, and open
	expect(b.feed(t, "a 16200 7x"), // 2.2 s and 2.3 s away: of its own, closed at once
		"s0/16200000/a = 1 7 from 16200 to 16200 end 18200 closed true")
}

func TestASessionIsSplitInTheOrderOfEventTime(t *testing.T) {
	t.Parallel()
	b := newWindowBed(t, nil, []sessionCase{{gap: 5e6, lateness: 60e6, closedOnly: true, split: true}})
	b.feed(t, "a 10900 1y", "a 10000 2x", "a 10500 3x", "a 11000 4y", "a 11200 5x") // by time: x x y y x
	got := b.feed(t, "z 30000 0x")
	want := []string{
		"s0/10000000/a = 2 5 from 10000 to 10500 end 10900 closed true",
		"s0/10900000/a = 2 5 from 10900 to 11000 end 11200 closed true",
		"s0/11200000/a = 1 5 from 11200 to 11200 end 16200 closed true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	// behind the watermark: within a session it is of that session, between two it is of the one that it does not split
	got = b.feed(t, "a 10950 6x", "a 10700 7y")
	want = []string{
		"s0/10900000/a = 4 18 from 10700 to 11000 end 11200 closed true",
		"s0/10000000/a = 2 5 from 10000 to 10500 end 10700 closed true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestNothingIsLeftOfWindowsThatHaveExpired(t *testing.T) {
	t.Parallel()
	b := newWindowBed(t, []hopCase{{10e6, 1e6, 5e6, false}, {7e6, 3e6, 0, true}}, []sessionCase{{gap: 2e6, lateness: 5e6}, {gap: 2e6, split: true}})
	var events []string
	for i := range 5000 {
		events = append(events, fmt.Sprintf("k%d %d %dx", i, 10_000+i*7%1000, i))
	}
	b.feed(t, events...)
	o := func() *windowOp { return b.Task().op.(*windowOp) }
	if o().hops[0].size() != 5000 || o().sessions[1].size() != 5000 {
		t.Fatalf("%d slices, %d sessions", o().hops[0].size(), o().sessions[1].size())
	}
	b.feed(t, "k1 60000 1x")
	if err := b.Abort(); err != nil {
		t.Fatal(err)
	}
	b.feed(t, "k1 600000 1x")
	for range 2 {
		x := o()
		for i, w := range x.hops {
			if w.size() != 1 || len(w.keys) != 1 || len(w.panes) != 1 || len(w.expiring) != 1 || len(w.closings) != len(w.ends) || len(w.closings) != 1 || len(w.dropped)+len(w.late)+len(w.fresh) > 1 {
				t.Errorf("hopping %d: %d slices, %d keys, %d panes, %d expiring, %d closings", i, w.size(), len(w.keys), len(w.panes), len(w.expiring), len(w.closings))
			}
		}
		for i, w := range x.sessions {
			if w.size() != 1 || len(w.keys) != 1 || len(w.owed) != 0 || len(w.heap) > 1 {
				t.Errorf("sessions %d: %d entries, %d keys, %d in the heap", i, w.size(), len(w.keys), len(w.heap))
			}
		}
		must(t, b.Crash())
	}
	live := map[string]bool{}
	for _, r := range b.Outputs("state.test.windows") {
		if live[string(r.Key)] = true; r.Value == nil {
			delete(live, string(r.Key))
		}
	}
	n := 0
	for k := range live {
		if k[1] >= storeTestHop {
			n++
		}
	}
	if n != 4 {
		t.Fatalf("the changelog holds %d entries", n)
	}
}

func TestEachHoppingWindowClosesOnce(t *testing.T) {
	t.Parallel()
	b := newWindowBed(t, []hopCase{{10e6, 2e6, 30e6, true}}, nil)
	got := b.feed(t, "a 11000 1x", "a 11500 2x", "a 13000 3x", "a 14500 4x")
	if len(got) != 1 { // [2 s, 12 s)
		t.Fatal(got)
	}
	got = append(got, b.feed(t, "a 20000 5x")...)
	got = append(got, b.feed(t, "a 60000 6x")...)
	want := []string{}
	for end := 12; end <= 30; end += 2 {
		n, total := 0, 0
		for i, at := range []float64{11, 11.5, 13, 14.5, 20} {
			if at >= float64(end-10) && at < float64(end) {
				n++
				total += i + 1
			}
		}
		want = append(want, fmt.Sprintf("h0.0/%d-%d/a = %d %d true", (end-10)*1000000, end*1000000, n, total))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	// a correction names each closed window that holds the event and has not expired, and only those
	got = b.feed(t, "a 29000 7x", "a 21000 8x") // the watermark is at 59 s: those up to 29 s have expired
	want = []string{"h0.0/20000000-30000000/a = 3 20 true", "h0.0/22000000-32000000/a = 1 7 true", "h0.0/24000000-34000000/a = 1 7 true", "h0.0/26000000-36000000/a = 1 7 true", "h0.0/28000000-38000000/a = 1 7 true"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestEventTimesBeyondAllBoundsAreDropped(t *testing.T) {
	t.Parallel()
	b := newWindowBed(t, []hopCase{{10e6, 1e6, 5e6, false}}, []sessionCase{{gap: 2e6}})
	b.Produce(0, record("a", 1<<62, "1x"))
	b.Produce(0, record("a", -1<<63, "2x"))
	must(t, b.Feed())
	_, err := b.Commit()
	must(t, err)
	o := b.Task().op.(*windowOp)
	if n := o.hops[0].Counts().Dropped + o.sessions[0].Counts().Dropped; n != 4 {
		t.Fatalf("%d dropped", n)
	}
}

func TestMistakesOfWindowSpecsAreRefused(t *testing.T) {
	t.Parallel()
	hop := HoppingSpec[string, *sum]{Store: 16, Size: 4 * time.Second, Slide: time.Second, Keys: strs{}, Values: sums{}, Emit: func(Window[string], *sum) error { return nil }}
	session := SessionsSpec[string, *sum]{Store: 16, Gap: time.Second, Keys: strs{}, Values: sums{}, Emit: func(Session[string], *sum) error { return nil }}
	for _, c := range []struct {
		name string
		open func(t *Task)
		says string
	}{
		{"no slide", func(t *Task) { x := hop; x.Slide = 0; OpenHopping(t, x) }, "slide 0s"},
		{"a slide beyond the size", func(t *Task) { x := hop; x.Slide = 5 * time.Second; OpenHopping(t, x) }, "slide 5s"},
		{"a size in nanoseconds", func(t *Task) { x := hop; x.Size++; OpenHopping(t, x) }, "whole microseconds"},
		{"negative lateness", func(t *Task) { x := hop; x.Lateness = -1; OpenHopping(t, x) }, "lateness"},
		{"no emit", func(t *Task) { x := hop; x.Emit = nil; OpenHopping(t, x) }, "Emit"},
		{"no gap", func(t *Task) { x := session; x.Gap = 0; OpenSessions(t, x) }, "gap"},
		{"sessions without values", func(t *Task) { x := session; x.Values = nil; OpenSessions(t, x) }, "Values"},
		{"sessions of a store that is not declared", func(t *Task) { x := session; x.Store = 17; OpenSessions(t, x) }, "not declared"},
	} {
		top := Topology{Name: "test", Stage: "spec", Inputs: []string{"in"}, Partitions: 1, Stores: []StoreSpec{{16, "w", 1}}, New: func(t *Task) (Operator, error) { c.open(t); return &idleOp{}, nil }}
		if _, err := NewHarness(Config{}, top, 0, testEpoch); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.says)
		}
	}
}

func stateBed(t testing.TB, key, value []byte) (windowBed, error) {
	b := newWindowBed(t, []hopCase{{10e6, 1e6, 5e6, false}}, []sessionCase{{gap: 2e6, lateness: 5e6}, {gap: 2e6, split: true}})
	b.topics["state.test.windows"] = append(b.topics["state.test.windows"], &kgo.Record{Key: key, Value: value})
	return b, b.Crash()
}

func TestWindowStateThatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	at := func(us int64) string { return string(appendTime(nil, us)) }
	for _, c := range []struct{ name, key, value string }{
		{"a slice whose key is cut off", "\x00\x14\x80", "\x01\x00"},
		{"a slice of another size", "\x00\x14" + at(5) + "k", "\x01\x00\x02\x02"},
		{"a slice beyond all bounds", "\x00\x14" + at(-1<<62) + "k", "\x01\x00\x02\x02"},
		{"a slice without flags", "\x00\x14" + at(1e6) + "k", "\x01"},
		{"a slice without its correction", "\x00\x14" + at(1e6) + "k", "\x01\x02"},
		{"a slice without a value", "\x00\x14" + at(1e6) + "k", "\x01\x00"},
		{"a session whose key is cut off", "\x00\x1e\x00\x80", "\x01\x00"},
		{"an entry of a kind that is not known", "\x00\x1e\x02" + at(5) + "k", "\x01\x00"},
		{"a session without bounds", "\x00\x1e\x00" + at(5) + "k", "\x01\x00"},
		{"a session with a flag that is not known", "\x00\x1e\x00" + at(5) + "k", "\x01\x20\x00\x00\x02\x02\x02\x02\x02\x02\x02\x02"},
		{"a session that ends before it begins", "\x00\x1e\x00" + at(5) + "k", "\x01\x00\x04\x02\x02\x02\x02\x02\x02\x02\x02\x02"},
		{"a session beyond all bounds", "\x00\x1e\x00" + at(-1<<63) + "k", "\x01\x00\x00\x00\x02\x02\x02\x02\x02\x02\x02\x02"},
		{"a point without a number", "\x00\x1f\x01" + at(5), "\x01\x02\x02\x02\x02\x02\x02\x02\x02"},
		{"a point without a value", "\x00\x1f\x01" + at(5) + "\x00\x00\x00\x00k", "\x01"},
	} {
		if _, err := stateBed(t, []byte(c.key), []byte(c.value)); err == nil {
			t.Errorf("%s is read", c.name)
		} else if id, _ := fault.IDOf(err); id != "MR-STR-005" {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
}

// FuzzWindowState: whatever the changelog holds, a restore gives an error or a task that works.
func FuzzWindowState(f *testing.F) {
	at := string(appendTime(nil, testEpoch.UnixMicro()))
	for _, s := range [][2]string{
		{"\x00\x14" + at + "key", "\x01\x01\x02\x02"},
		{"\x00\x14" + at + "key", "\x01\x03\x80\x01\x02\x02"},
		{"\x00\x1e\x00" + at + "key", "\x01\x1c\x00\x02\x02\x02\x02\x02\x02\x02\x02\x02"},
		{"\x00\x1e\x00" + at + "key", "\x01\x06\x00\x00"},
		{"\x00\x1f\x00" + at + "key", "\x01\x01\x00\x00\x02\x02\x02\x02\x02\x02\x02\x02\x02"},
		{"\x00\x1f\x01" + at + "\x00\x00\x00\x01key", "\x01\x02\x02\x02\x02\x02\x02\x02\x02"},
	} {
		f.Add([]byte(s[0]), []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		b, err := stateBed(t, key, value)
		if err != nil {
			return
		}
		b.Produce(0, record("key", testEpoch.UnixMicro(), "1x"))
		b.Produce(0, record("key", testEpoch.UnixMicro()+60e6, "2x"))
		_, err = b.Commit()
		if err = errors.Join(b.Feed(), b.Advance(2*time.Second), err); err != nil && strings.Contains(err.Error(), "panic") {
			t.Fatal(err)
		}
	})
}

// TestTheFormatOfWindowStateIsForEver holds every kind of changelog record of hopping windows and sessions, byte by byte.
func TestTheFormatOfWindowStateIsForEver(t *testing.T) {
	t.Parallel()
	b := newWindowBed(t, []hopCase{{4e6, 2e6, 20e6, false}}, []sessionCase{{gap: 2e6, lateness: 20e6}, {gap: 4e6, lateness: 20e6, split: true}})
	commit := func(events ...string) {
		for _, e := range events {
			var ms int64
			var id string
			_, err := fmt.Sscan(e, &ms, &id)
			must(t, err)
			b.Produce(0, record("key", ms*1000, id))
		}
		must(t, b.Feed())
		_, err := b.Commit()
		must(t, err)
	}
	commit("10000 1x", "13000 2y") // a session and points
	b.feed(t, "key 20000 3x")
	commit("11500 4x") // a correction that is owed, a session that is absorbed
	b.feed(t, "key 90000 5x")
	var out strings.Builder
	for _, r := range b.Outputs("state.test.windows") {
		if r.Key[1] >= storeTestHop {
			v := "deleted"
			if r.Value != nil {
				v = fmt.Sprintf("%x", r.Value)
			}
			fmt.Fprintf(&out, "%x = %s\n", r.Key, v)
		}
	}
	path := filepath.Join("testdata", "windows.golden")
	if *update {
		must(t, os.WriteFile(path, []byte(out.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Fatalf("the format of state has changed (-golden +now); state in the field would not be read:\n%s", diff)
	}
}
