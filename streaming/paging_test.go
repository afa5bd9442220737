package streaming

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/internal/fault"
)

// paged is a harness of a topology with a store and a window set whose memory is bounded.
type paged struct {
	*Harness
	s       *Store[string]
	windows *Windows[string, *sum]
}

func pagedTopology(p *paged, formats ...uint8) Topology {
	f := uint8(1)
	if len(formats) > 0 {
		f = formats[0]
	}
	return Topology{Name: "test", Stage: "paged", Inputs: []string{"in"}, Partitions: 1, Stores: []StoreSpec{{16, "s", f}, {17, "w", 1}}, New: func(t *Task) (Operator, error) {
		p.s = OpenStore(t, 16, Codec[string](strs{}))
		p.windows = OpenWindows(t, WindowsSpec[string, *sum]{Store: 17, Grains: []Grain[string]{Fixed[string]("1h", 0, time.Hour)}, Keys: strs{}, Values: sums{}, Emit: func(Window[string], *sum) error { return nil }})
		return &idleOp{}, nil
	}}
}

func newPaged(t testing.TB, dir string, share int64) *paged {
	t.Helper()
	p := &paged{}
	h, err := NewHarness(Config{StateDir: dir, StateBytes: -1}, pagedTopology(p), 0, testEpoch)
	must(t, err)
	p.Harness, h.share = h, share
	h.task.local.share = share
	t.Cleanup(func() {
		if p.Harness != nil {
			must(t, p.Close())
		}
	})
	return p
}

// settle lets a snapshot under way land, and starts another if one is due.
func (p *paged) settle(t testing.TB, d time.Duration) {
	t.Helper()
	p.now = p.now.Add(d)
	must(t, p.local.drain())
	must(t, p.task.maintain(p.now))
}

// holds compares the store with what it is to hold.
func (p *paged) holds(t interface {
	Fatalf(string, ...any)
	Helper()
}, want map[string]string,
) {
	t.Helper()
	got := map[string]string{}
	p.s.Range(func(k, v string) bool {
		if _, twice := got[k]; twice {
			t.Fatalf("Range shows %q twice", k)
		}
		got[k] = v
		return true
	})
	if diff := cmp.Diff(want, got); diff != "" || p.s.Len() != len(want) {
		t.Fatalf("the store has %d keys, want %d (-model +store):\n%s", p.s.Len(), len(want), diff)
	}
}

func TestAStoreLargerThanItsMemoryIsAMapThatCommitsAndAborts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	runs, fetched, away := 0, int64(0), 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		here := fmt.Sprintf("%s/%d", dir, runs)
		p := &paged{}
		h, err := NewHarness(Config{StateDir: here, StateBytes: -1}, pagedTopology(p), 0, testEpoch)
		must(t, err)
		p.Harness = h
		defer func() { must(t, p.Close()); must(t, os.RemoveAll(here)) }()
		h.share = int64(rapid.SampledFrom([]int{1, 600, 3000, 1 << 40}).Draw(rt, "share"))
		h.task.local.share = h.share
		committed, now := map[string]string{}, map[string]string{}
		sums, committedSums := 0, 0
		for i := range rapid.IntRange(1, 150).Draw(rt, "ops") {
			k := "k" + strconv.Itoa(rapid.IntRange(0, 30).Draw(rt, "key"))
			switch op := rapid.SampledFrom([]string{"put", "put", "put", "put", "delete", "get", "range", "window", "commit", "commit", "settle", "settle", "abort", "crash", "restart", "lost", "unknown"}).Draw(rt, "op"); op {
			case "put":
				v := fmt.Sprint(i, strings.Repeat("v", rapid.IntRange(0, 40).Draw(rt, "size")))
				p.s.Put(k, v)
				now[k] = v
			case "delete":
				p.s.Delete(k)
				delete(now, k)
			case "get":
			case "range": // with changes while it goes on
				n := 0
				p.s.Range(func(key, v string) bool {
					if want, ok := now[key]; !ok || v != want {
						rt.Fatalf("Range shows %q = %q, want %q, %v", key, v, want, ok)
					}
					if n++; n%3 == 0 {
						p.s.Delete(key)
						delete(now, key)
						p.s.Get(k)
					}
					return true
				})
			case "window":
				d, _ := p.windows.At(k, testEpoch.UnixMicro())
				(*d).n++
				sums++
			case "commit":
				_, err := h.Commit()
				must(t, err)
				committed, committedSums = maps.Clone(now), sums
			case "settle":
				h.now = h.now.Add(time.Duration(rapid.SampledFrom([]int{0, 2, 11}).Draw(rt, "seconds")) * time.Second)
				must(t, h.local.drain())
				must(t, h.task.maintain(h.now))
			case "abort":
				must(t, h.Abort())
				now, sums = maps.Clone(committed), committedSums
			case "crash": // of the task
				fetched += h.task.local.fetches
				must(t, h.Crash())
				now, sums = maps.Clone(committed), committedSums
			case "unknown": // it committed, and the worker did not learn of it: no snapshot was taken
				_, err := h.task.seal(h.now)
				must(t, err)
				_, err = h.Commit()
				must(t, err)
				committed, committedSums = maps.Clone(now), sums
				must(t, h.Crash())
			case "restart", "lost": // of the process, perhaps on another machine
				must(t, h.local.close())
				if op == "lost" {
					must(t, os.RemoveAll(here))
				}
				h.local, err = openLocal(here, 0, testLog(t))
				must(t, err)
				must(t, h.Crash())
				now, sums = maps.Clone(committed), committedSums
			}
			away = max(away, p.s.disk.away)
			if v, ok := p.s.Get(k); v != now[k] || ok != func() bool { _, ok := now[k]; return ok }() {
				rt.Fatalf("Get(%q) = %q, %v, want %q", k, v, ok, now[k])
			}
		}
		p.holds(rt, now)
		got := int64(0)
		for _, x := range p.windows.panes {
			for _, e := range x.keys {
				if e.hasBase {
					got += e.base.n
				}
				if e.hasPending {
					got += e.pending.n
				}
			}
		}
		if got != int64(sums) {
			rt.Fatalf("the windows hold %d, want %d", got, sums)
		}
		must(t, h.Abort())
		_, err = h.Commit()
		must(t, err)
		must(t, h.task.flushNow(h.now))
		must(t, h.Crash())
		p.holds(rt, committed)
	})
	if fetched == 0 || away < 10 {
		t.Errorf("%d keys came from the disk, at most %d were on disk alone: the test is too kind", fetched, away)
	}
}

func TestARestartGoesOnFromTheSnapshot(t *testing.T) {
	t.Parallel()
	const n = 5000
	p := newPaged(t, t.TempDir(), 1<<40)
	want := map[string]string{}
	put := func(k, v string) { p.s.Put(k, v); want[k] = v }
	commit := func() {
		t.Helper()
		_, err := p.Commit()
		must(t, err)
	}
	for i := range n {
		put(fmt.Sprintf("key-%d", i), "old")
	}
	commit()
	p.settle(t, time.Second)
	must(t, p.task.flushNow(p.now))
	put("key-1", "new")
	p.s.Delete("key-2")
	delete(want, "key-2")
	commit()
	behind := len(p.topics[p.task.changelog])
	must(t, p.Crash())
	if got := behind - int(p.task.local.written); got < 2 || got > 6 { // the watermarks and an idle decision besides
		t.Errorf("%d records of %d of the changelog are read again, want the two after the snapshot", got, behind)
	}
	p.holds(t, want)
	if p.s.disk.away != 0 {
		t.Errorf("%d keys are not in memory, which has room", p.s.disk.away)
	}
	p.share = 10_000 // the next life has less memory
	must(t, p.task.flushNow(p.now))
	must(t, p.Crash())
	if len(p.s.base) > 100 {
		t.Errorf("%d keys are in memory at once", len(p.s.base))
	}
	p.holds(t, want)
}

func TestASnapshotThatDoesNotFitIsNotUsed(t *testing.T) {
	t.Parallel()
	changed := func(change func(m *snapshotMeta)) func(*testing.T, *paged) {
		return func(t *testing.T, p *paged) {
			v, closer, err := p.local.db.Get(metaKey(0))
			must(t, err)
			var m snapshotMeta
			must(t, json.Unmarshal(v, &m))
			must(t, closer.Close())
			change(&m)
			v, err = json.Marshal(m)
			must(t, err)
			must(t, p.local.db.Set(metaKey(0), v, nil))
		}
	}
	for _, c := range []struct {
		name   string
		change func(*testing.T, *paged)
		span   span
		says   string
	}{
		{"of another cluster", changed(func(m *snapshotMeta) { m.Cluster = "other" }), span{end: 100}, "another cluster"},
		{"of another topic", changed(func(m *snapshotMeta) { m.Topic = strings.Repeat("0", 31) + "1" }), span{end: 100}, "another topic"},
		{"of another N", changed(func(m *snapshotMeta) { m.Partitions = 24 }), span{end: 100}, "partition count"},
		{"of another topic generation", changed(func(m *snapshotMeta) { m.Generation = 2 }), span{end: 100}, "generation"},
		{"of other formats", changed(func(m *snapshotMeta) { m.Formats = strings.Replace(m.Formats, "00016=1", "00016=2", 1) }), span{end: 100}, "formats"},
		{"from the future", changed(func(m *snapshotMeta) { m.At += time.Hour.Microseconds() }), span{end: 100}, "future"},
		{"older than tombstones are kept", changed(func(m *snapshotMeta) { m.At -= (13 * time.Hour).Microseconds() }), span{end: 100, maxAge: 12 * time.Hour}, "too old"},
		{"ahead of the changelog", func(*testing.T, *paged) {}, span{end: 1}, "ahead"},
		{"before the changelog begins", func(*testing.T, *paged) {}, span{start: 50, end: 100}, "begins after"},
		{"that is garbage", func(t *testing.T, p *paged) { must(t, p.local.db.Set(metaKey(0), []byte("{"), nil)) }, span{end: 100}, "cannot be read"},
		{"that is not there", func(t *testing.T, p *paged) { must(t, p.local.db.Delete(metaKey(0), nil)) }, span{end: 100}, "none"},
		{"that fits", func(*testing.T, *paged) {}, span{end: 100, maxAge: time.Hour}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPaged(t, t.TempDir(), 1<<40)
			p.s.Put("a", "1")
			_, err := p.Commit()
			must(t, err)
			must(t, p.task.flushNow(p.now))
			c.change(t, p)
			task, err := newTaskOn(p.local, &p.top, &p.cfg, 0, p.now)
			must(t, err)
			task.identify("harness", topicID{})
			from, refused, err := task.adopt(p.now, c.span)
			must(t, err)
			if c.says == "" {
				if refused != "" || from == 0 {
					t.Fatalf("refused: %s, from %d", refused, from)
				}
				return
			}
			if !strings.Contains(refused, c.says) || from != c.span.start {
				t.Fatalf("refused because %q, from %d; want %q, from %d", refused, from, c.says, c.span.start)
			}
			if task.tables[0].size() != 0 || p.s.Len() != 0 {
				t.Fatal("something of it was loaded")
			}
			it, err := task.local.iter(dataKey(0))
			must(t, err)
			if it.First() {
				t.Error("it is still on disk")
			}
			must(t, it.Close())
		})
	}
}

func TestAChangelogLargerThanMemoryIsRestoredThroughTheDisk(t *testing.T) {
	t.Parallel()
	p := newPaged(t, t.TempDir(), 1<<40)
	want := map[string]string{}
	for i := range 20_000 {
		k := fmt.Sprintf("key-%d", i*7919%12_000)
		if i%5 == 4 {
			p.s.Delete(k)
			delete(want, k)
		} else {
			want[k] = strconv.Itoa(i)
			p.s.Put(k, want[k])
		}
		if i%1000 == 999 {
			_, err := p.Commit()
			must(t, err)
		}
	}
	must(t, p.local.close())
	must(t, os.RemoveAll(p.local.dir))
	var err error
	p.local, err = openLocal(t.TempDir(), 0, testLog(t))
	must(t, err)
	p.share = 100_000
	must(t, p.Crash())
	if n := len(p.s.base); n > 1000 {
		t.Errorf("%d keys are in memory", n)
	}
	p.holds(t, want)
	must(t, p.task.flushNow(p.now)) // and there is a snapshot after it
	must(t, p.Crash())
	if !p.task.local.whole {
		t.Error("the snapshot was not used")
	}
	p.holds(t, want)
}

func TestADiskThatCannotBeReadEndsTheSessionNotTheWorker(t *testing.T) {
	t.Parallel()
	p := newPaged(t, t.TempDir(), 1)
	p.s.Put("a", "1")
	_, err := p.Commit()
	must(t, err)
	p.settle(t, 2*time.Second)
	p.settle(t, 2*time.Second)
	p.settle(t, 2*time.Second)
	if p.s.disk.away != 1 {
		t.Fatalf("%d keys are on disk alone", p.s.disk.away)
	}
	must(t, p.local.db.Set(append(dataKey(0), "\x00\x10a"...), nil, nil))
	p.s.codec = refuseEmpty{}
	err = p.task.call("a test", func() error { p.s.Get("a"); return nil })
	if id, is := fault.IDOf(err); is {
		t.Fatalf("error %v is %s: it would end the worker", err, id)
	}
	if _, ok := err.(localError); !ok { //nolint:errorlint // it is given as it is
		t.Fatalf("error %v", err)
	}
	must(t, p.local.reset())
	must(t, p.Crash())
	p.holds(t, map[string]string{"a": "1"})
}

type refuseEmpty struct{ strs }

func (refuseEmpty) Decode(b []byte) (string, error) {
	if len(b) == 0 {
		return "", errEmptyTopic
	}
	return string(b), nil
}

func TestASecondProcessInASlotHasADirectoryOfItsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := openLocal(dir, 1<<20, testLog(t))
	must(t, err)
	b, err := openLocal(dir, 1<<20, testLog(t))
	must(t, err)
	if a.held == b.held {
		t.Fatalf("both hold %s", a.held)
	}
	must(t, a.close())
	must(t, b.close())
	must(t, os.RemoveAll(dir))
	must(t, os.WriteFile(dir, nil, 0o600))
	if _, err := openLocal(dir, 1<<20, testLog(t)); err == nil || !isFault(err) {
		t.Fatalf("a directory that cannot be made: %v", err)
	}
}

const tornEnv = "MILLRACE_STREAM_TEST_TORN"

// TestChildSnapshots is no test: it is the process that TestASnapshotTornByAKillIsHarmless kills while it writes snapshots.
func TestChildSnapshots(t *testing.T) {
	dir := os.Getenv(tornEnv)
	if dir == "" {
		return
	}
	p := newPaged(t, dir, 200_000)
	for round := 1; ; round++ { // every key has the number of the last round
		for i := range 3000 {
			p.s.Put(fmt.Sprintf("key-%d", i), strconv.Itoa(round)+strings.Repeat("x", 100))
		}
		_, err := p.Commit()
		must(t, err)
		must(t, p.task.snapshot(p.now))
		if round%2 == 0 {
			must(t, p.task.flushNow(p.now))
			must(t, os.WriteFile(dir+"/round", []byte(strconv.Itoa(round)), 0o600))
		}
	}
}

func TestASnapshotTornByAKillIsHarmless(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 5 {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildSnapshots$", "-test.timeout=5m")
		c.Env = append(os.Environ(), tornEnv+"="+dir)
		must(t, c.Start())
		eventually(t, patience, func() string {
			if b, err := os.ReadFile(dir + "/round"); err != nil || len(b) == 0 || string(b) == "0" {
				return "no snapshot yet"
			}
			return ""
		})
		must(t, c.Process.Kill())
		_ = c.Wait()
		must(t, os.WriteFile(dir+"/round", []byte("0"), 0o600))
		base, err := openLocal(dir, 1<<20, testLog(t))
		must(t, err)
		if !strings.HasSuffix(base.held, "/0") {
			t.Errorf("the lock of a killed process is held: %s", base.held)
		}
		p := &paged{}
		top, cfg := pagedTopology(p), Config{Group: "g", InstanceID: "i"}.Defaults()
		task, err := newTaskOn(base, &top, &cfg, 0, testEpoch)
		must(t, err)
		task.identify("harness", topicID{})
		task.local.share = []int64{1 << 40, 1}[i%2]
		from, refused, err := task.adopt(testEpoch, span{end: 1 << 40})
		must(t, err)
		if refused != "" {
			t.Fatalf("after kill %d: %s", i, refused)
		}
		rounds := map[string]int{}
		p.s.Range(func(_, v string) bool { rounds[v]++; return true })
		if len(rounds) != 1 || p.s.Len() != 3000 {
			t.Fatalf("after kill %d the snapshot at offset %d has %d keys of rounds %v", i, from, p.s.Len(), rounds)
		}
		must(t, base.close())
		must(t, os.RemoveAll(base.held))
	}
}
