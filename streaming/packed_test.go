package streaming

import (
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// check compares a table with a map, and its books with what it holds.
func (p *packed) check(t *rapid.T, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	p.each(func(_ uint64, k, v []byte) bool {
		if _, ok := got[string(k)]; ok {
			t.Fatalf("key %q is there twice", k)
		}
		got[string(k)] = string(v)
		return true
	})
	if !maps.Equal(want, got) || p.n != len(want) {
		t.Fatalf("%d of %d entries, or others", p.n, len(want))
	}
	n, slots, used, live, held := 0, 0, 0, 0, 0
	for i := range p.shards {
		n, slots = n+p.shards[i].n, slots+len(p.shards[i].slots)
	}
	for _, x := range p.pages {
		used, live, held = used+len(x.b), live+x.live, held+cap(x.b)
	}
	for _, b := range p.spare {
		held += cap(b)
	}
	if n != p.n || slots != p.slots || used != p.used || used-live != p.gaps || held != p.held {
		t.Fatalf("books: %d/%d entries, %d/%d slots, %d/%d bytes, %d/%d of gaps, %d/%d held", p.n, n, p.slots, slots, p.used, used, p.gaps, used-live, p.held, held)
	}
}

func TestAPackedTableIsAMap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		mask uint64
	}{{"hashes as they are", 0}, {"one shard", 1<<58 - 1}, {"one tag", 0xfc00_0000_0000_0001}, {"eight hashes", 7 << 36}, {"one hash", 1}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(rt *rapid.T) {
				p, want := &packed{mask: c.mask}, map[string]string{}
				keys := rapid.SampledFrom([]int{3, 40, 400}).Draw(rt, "keys")
				size := rapid.SampledFrom([]int{0, 9, 300, 20_000}).Draw(rt, "size")
				for i := range rapid.IntRange(1, 600).Draw(rt, "ops") {
					k := strings.Repeat("k", rapid.SampledFrom([]int{0, 1, 130}).Draw(rt, "long")) + fmt.Sprint(rapid.IntRange(0, keys).Draw(rt, "key"))
					_, had := want[k]
					switch rapid.IntRange(0, 9).Draw(rt, "op") {
					case 0, 1, 2, 3, 4:
						want[k] = strings.Repeat(fmt.Sprint(i), rapid.IntRange(0, size).Draw(rt, "n"))
						if added, ok := p.put([]byte(k), []byte(want[k])); !ok || added == had {
							rt.Fatalf("put: %v, %v", added, ok)
						}
					case 5, 6, 7:
						delete(want, k)
						if p.remove([]byte(k)) != had {
							rt.Fatalf("remove of %q, which is there: %v", k, had)
						}
					case 8:
						if len(p.pages) > 1 { // whether it needs it or not
							if no := uint64(rapid.IntRange(1, len(p.pages)-1).Draw(rt, "page")); no != p.open {
								p.empty(no)
							}
						}
					default:
						p.tidy()
					}
					v, _, ok := p.get([]byte(k))
					if w, had := want[k]; ok != had || p.has([]byte(k)) != had || string(v) != w {
						rt.Fatalf("%q is %d bytes, %v; want %d, %v", k, len(v), ok, len(w), had)
					}
				}
				p.check(rt, want)
			})
		})
	}
}

func TestAPackedTableHasEntriesOfAnySize(t *testing.T) {
	t.Parallel()
	p := &packed{}
	sizes := []int{0, 1, 127, 128, 129, 16383, 16384, packedBytes - 10, packedBytes - 1, packedBytes, packedBytes + 1, 3 << 20}
	for round := range 3 {
		for _, n := range sizes {
			p.put(fmt.Appendf(nil, "%d", n), []byte(strings.Repeat("x", n)))
		}
		for _, n := range sizes {
			if v, _, ok := p.get(fmt.Appendf(nil, "%d", n)); !ok || len(v) != n {
				t.Fatalf("round %d: %d bytes of %d, %v", round, len(v), n, ok)
			}
		}
		if p.held > 6<<20 {
			t.Fatalf("%d bytes are held", p.held)
		}
	}
	for _, n := range sizes {
		p.remove(fmt.Appendf(nil, "%d", n))
	}
	if p.n != 0 || p.used != 0 || p.held > (packedSpare+1)*packedBytes {
		t.Fatalf("%d entries, %d bytes used, %d held", p.n, p.used, p.held)
	}
}

func TestAPackedTableGivesMemoryBack(t *testing.T) {
	t.Parallel()
	const n = 200_000
	p := &packed{}
	key := func(i int) []byte { return benchKey(nil, i) }
	value := make([]byte, 40)
	for i := range n {
		p.put(key(i), value)
	}
	full := p.bytes()
	if each := full / n; each > 100 { // 66 of them key, value and their lengths
		t.Errorf("%d bytes a key", each)
	}
	for i := range n {
		if i%10 != 0 { // every page keeps some
			p.remove(key(i))
		}
	}
	steps := 0
	for p.tidy() {
		steps++
	}
	if got := p.bytes(); got > full/4 {
		t.Errorf("%d bytes of %d are left of a tenth of the keys, after %d steps", got, full, steps)
	}
	for i := range n { // in a steady state it does not grow
		p.put(key(n+i), value)
		p.remove(key(n + max(0, i-1000)))
		p.tidy()
	}
	if got := p.bytes(); got > full/4 {
		t.Errorf("%d bytes of %d after as many changes", got, full)
	}
	for i := range n / 10 {
		if _, _, ok := p.get(key(10 * i)); !ok {
			t.Fatalf("key %d is lost", 10*i)
		}
	}
}

func TestAPackedTableHasNothingToMark(t *testing.T) {
	const n = 300_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p := &packed{}
	for i := range n {
		p.put(benchKey(nil, i), []byte("a value"))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if d := int64(after.HeapObjects) - int64(before.HeapObjects); d > n/100 {
		t.Errorf("%d objects for %d keys", d, n)
	}
	runtime.KeepAlive(p)
}
