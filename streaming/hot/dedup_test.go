package hot

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func hashed(n uint64) id {
	var b [idBytes]byte
	src := rand.NewPCG(n, 7)
	binary.BigEndian.PutUint64(b[:8], src.Uint64())
	binary.BigEndian.PutUint64(b[8:], src.Uint64())
	return idOf(b)
}

func TestASetOfIDsBehavesLikeAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, model := newIDSet(0), map[id]bool{}
		// few homes, at the end of the slots, so that clusters are long and wrap around
		draw := rapid.Custom(func(t *rapid.T) id {
			return id{rapid.SampledFrom([]uint64{0, 1, 1 << 63, 0xffffffffffffffff, 0xfffffffffffffffe, 0xfffe000000000000, 0xff00000000000000}).Draw(t, "hi"), rapid.Uint64Range(1, 40).Draw(t, "lo")}
		})
		for range rapid.IntRange(0, 400).Draw(t, "steps") {
			x := draw.Draw(t, "id")
			slot, found := s.find(x)
			if found != model[x] {
				t.Fatalf("%v is found: %v, want %v", x, found, model[x])
			}
			switch {
			case rapid.Bool().Draw(t, "remove"):
				s.remove(x)
				delete(model, x)
			case !found:
				s.add(x, slot)
				model[x] = true
			}
		}
		if s.n != len(model) {
			t.Fatalf("%d ids, want %d", s.n, len(model))
		}
		all := s.sorted()
		if !slices.IsSortedFunc(all, compareIDs) || len(all) != len(model) {
			t.Fatalf("sorted gives %d ids, want %d in order: %v", len(all), len(model), all)
		}
		for _, x := range all {
			if !model[x] {
				t.Fatalf("%v was never added", x)
			}
		}
	})
}

func TestAFilterNeverDeniesWhatItHas(t *testing.T) {
	const n = 100_000
	f := newFilter(n, bitsPerID)
	for i := range uint64(n) {
		f.add(hashed(i))
	}
	wrong := 0
	for i := range uint64(n) {
		if !f.has(hashed(i)) {
			t.Fatalf("id %d is denied", i)
		}
		if f.has(hashed(n + i)) {
			wrong++
		}
	}
	if wrong > n/200 {
		t.Errorf("%d of %d others are false positives, want at most 0.5 %%", wrong, n)
	}
}

func TestARunFindsItsIDsInMemoryAndOnDisk(t *testing.T) {
	for _, n := range []int{1, blockIDs, inMemoryTo, inMemoryTo + 1, 10_000} {
		dir := t.TempDir()
		set := newIDSet(n)
		for i := range uint64(n) {
			x := hashed(i)
			slot, _ := set.find(x)
			set.add(x, slot)
		}
		r, err := newRun(dir, 1, set)
		if err != nil {
			t.Fatal(err)
		}
		if onDisk := r.file != nil; onDisk != (n > inMemoryTo) {
			t.Errorf("%d ids are on disk: %v", n, onDisk)
		}
		var buf [blockIDs * idBytes]byte
		for i := range uint64(2 * n) {
			found, err := r.has(hashed(i), &buf)
			if err != nil {
				t.Fatal(err)
			}
			if found != (i < uint64(n)) {
				t.Fatalf("id %d of %d is found: %v", i, n, found)
			}
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("the folder holds %v (%v): a file with a name would outlive a crash", left, err)
		}
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestARunThatCannotBeWrittenStaysInMemory(t *testing.T) {
	set := newIDSet(0)
	for i := range uint64(inMemoryTo + 1) {
		slot, _ := set.find(hashed(i))
		set.add(hashed(i), slot)
	}
	r, err := newRun(filepath.Join(t.TempDir(), "missing"), 1, set)
	if err == nil {
		t.Fatal("no error")
	}
	var buf [blockIDs * idBytes]byte
	for i := range uint64(inMemoryTo + 1) {
		if found, err := r.has(hashed(i), &buf); err != nil || !found {
			t.Fatalf("id %d is found: %v, %v", i, found, err)
		}
	}
}

// model is the index as a map: the bucket each id was added in.
type model struct {
	window, bucket int64
	ids            map[id]int64
}

func (m *model) clone() model {
	c := *m
	c.ids = map[id]int64{}
	for k, v := range m.ids {
		c.ids[k] = v
	}
	return c
}

func (m *model) first(x id) bool {
	if b, ok := m.ids[x]; ok && b >= m.bucket-m.window {
		return false
	}
	m.ids[x] = m.bucket
	return true
}

func TestTheIndexBehavesLikeAMapOverAbortsRestartsAndTime(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		const window = time.Hour
		d := newDedup(dir, window)
		m := model{window: 6, bucket: noBucket, ids: map[id]int64{}}
		committed := m.clone()
		var log [][]byte
		at := int64(1_000_000) * bucketSize.Microseconds()
		commit := func() {
			d.flush(nil, func(v []byte) { log = append(log, slices.Clone(v)) })
			if err := d.commit(); err != nil {
				t.Fatal(err)
			}
			committed = m.clone()
		}
		big := uint64(1 << 40)
		defer func() {
			if err := d.close(); err != nil {
				t.Fatal(err)
			}
		}()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"add", "add", "add", "bulk", "time", "far", "commit", "abort", "restart"}).Draw(t, "step") {
			case "add":
				d.advance(at)
				m.bucket = max(m.bucket, at/bucketSize.Microseconds())
				for range rapid.IntRange(1, 20).Draw(t, "n") {
					x := hashed(rapid.Uint64Range(0, 60).Draw(t, "id"))
					got, err := d.first(x)
					if err != nil {
						t.Fatal(err)
					}
					if want := m.first(x); got != want {
						t.Fatalf("id %v in bucket %d is first: %v, want %v (it was added in %d)", x, m.bucket, got, want, m.ids[x])
					}
				}
			case "bulk": // enough for a file
				d.advance(at)
				m.bucket = max(m.bucket, at/bucketSize.Microseconds())
				for range inMemoryTo + 100 {
					big++
					got, err := d.first(hashed(big))
					if err != nil {
						t.Fatal(err)
					}
					if !got || !m.first(hashed(big)) {
						t.Fatal("a new id is said to be known")
					}
				}
			case "time":
				at += rapid.Int64Range(0, 2*bucketSize.Microseconds()).Draw(t, "µs")
			case "far":
				at += rapid.Int64Range(0, 2*window.Microseconds()).Draw(t, "µs")
			case "commit":
				commit()
			case "abort":
				d.abort()
				m = committed.clone()
			case "restart":
				if err := d.close(); err != nil {
					t.Fatal(err)
				}
				d = newDedup(dir, window)
				for _, v := range log {
					if err := d.restore(v); err != nil {
						t.Fatal(err)
					}
					if err := d.commit(); err != nil {
						t.Fatal(err)
					}
				}
				m = committed.clone()
				// the log says which bucket was open last by the last id only
				m.bucket = d.bucket
				committed = m.clone()
			}
		}
	})
}

func TestALogThatIsCutOffIsAnError(t *testing.T) {
	d := newDedup(t.TempDir(), time.Hour)
	d.advance(1 << 50)
	for i := range uint64(3) {
		if _, err := d.first(hashed(i)); err != nil {
			t.Fatal(err)
		}
	}
	var value []byte
	d.flush(nil, func(v []byte) { value = slices.Clone(v) })
	for n := range len(value) {
		if err := newDedup(t.TempDir(), time.Hour).restore(value[:n]); err == nil && n != 1 {
			t.Errorf("%d of %d bytes are accepted", n, len(value))
		}
	}
	if err := newDedup(t.TempDir(), time.Hour).restore(value); err != nil {
		t.Error(err)
	}
}

func TestRanksGrowByOneHoweverManyCopies(t *testing.T) {
	d := newDedup(t.TempDir(), time.Hour)
	d.advance(1)
	x := hashed(1)
	for want := int32(1); want <= 1500; want++ {
		got, err := d.rank(x)
		if err != nil || got != want {
			t.Fatalf("copy %d has rank %d, %v", want, got, err)
		}
		if want%250 == 0 {
			if err := d.commit(); err != nil {
				t.Fatal(err)
			}
			d.advance(int64(want) * 1_200_000)
		}
	}
}

func TestWhatTheIndexCosts(t *testing.T) {
	const n = 50_000
	d := newDedup(t.TempDir(), 24*time.Hour)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	next := uint64(0)
	for bucket := range int64(4) {
		d.advance(bucket * bucketSize.Microseconds())
		for range n {
			next++
			if first, err := d.first(hashed(next)); err != nil || !first {
				t.Fatal(first, err)
			}
			if next%10_000 == 0 {
				if err := d.commit(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	ids, memory, disk := d.size()
	open := d.open.bytes()
	runtime.GC()
	runtime.ReadMemStats(&after)
	closed := memory - open
	t.Logf("%d ids: open bucket %.1f bytes an id, closed %.1f bytes of memory an id (front %.1f) and %d of disk; the heap grew by %d, size says %d",
		ids, float64(open)/n, float64(closed)/(3*n), float64(d.front.bytes())/float64(ids), disk/(3*n), int64(after.HeapAlloc)-int64(before.HeapAlloc), memory)
	if ids != 4*n || disk != 3*n*idBytes {
		t.Errorf("%d ids, %d bytes on disk", ids, disk)
	}
	if float64(closed)/(3*n) > 8 || float64(open)/n > 54 {
		t.Errorf("closed buckets take %.1f bytes an id, the open one %.1f", float64(closed)/(3*n), float64(open)/n)
	}
	if grew := int64(after.HeapAlloc) - int64(before.HeapAlloc); grew > int64(memory)*5/4+1<<20 {
		t.Errorf("the heap grew by %d bytes, size says %d", grew, memory)
	}
	runtime.KeepAlive(d)
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkDedup(b *testing.B) {
	for _, buckets := range []int{1, 24} {
		b.Run(map[int]string{1: "first buckets", 24: "with 24 closed buckets and more"}[buckets], func(b *testing.B) {
			d := newDedup(b.TempDir(), 24*time.Hour)
			next := uint64(0)
			for bucket := range int64(buckets) {
				d.advance(bucket * bucketSize.Microseconds())
				for range 100_000 {
					next++
					if _, err := d.first(hashed(next)); err != nil {
						b.Fatal(err)
					}
				}
				if err := d.commit(); err != nil {
					b.Fatal(err)
				}
			}
			src := rand.NewPCG(1, 2)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if _, err := d.first(id{src.Uint64(), src.Uint64()}); err != nil {
					b.Fatal(err)
				}
				if n++; n%100_000 == 0 {
					d.advance(int64(buckets+n/100_000) * bucketSize.Microseconds())
				}
				if n%1000 == 0 {
					if err := d.commit(); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := d.close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
