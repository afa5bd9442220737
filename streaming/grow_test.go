package streaming

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// growing is a bed with a topology in two generations.
type growing struct {
	old, now *bed
}

func (g growing) spec() GrowSpec {
	return GrowSpec{From: g.old.topology(), To: g.now.topology(), FromGroup: g.old.prefix + "g", Key: func(store uint16, key []byte) ([]byte, bool) {
		if store == storeWindows {
			return key[9:], true // after grain and start
		}
		return key, true
	}}
}

// put writes one record of each key to the partition that it has in a generation.
func (b *bed) put(t testing.TB, keys int, at int64, tag string) {
	t.Helper()
	for i := range keys {
		r := record(fmt.Sprintf("key-%d", i), at, fmt.Sprintf("%s-%d", tag, i))
		r.Topic, r.Partition = b.prefix+[]string{"in.a", "in.b"}[i%2], PartitionOf(r.Key, b.parts)
		b.cl.Produce(t.Context(), r, nil)
	}
	must(t, b.cl.Flush(t.Context()))
}

func growBed(t *testing.T) growing {
	brokers := kfakeBrokers(t)
	return growing{newBed(t, brokers, "g1", 12, true), newBed(t, brokers, "g2", 24, true)}
}

func growLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (b *bed) grow(t *testing.T, spec GrowSpec) (GrowReport, error) {
	return Grow(t.Context(), []kgo.Opt{kgo.SeedBrokers(b.brokers...)}, spec, growLog())
}

// TestATopologyGrowsUnderLoad doubles the partitions while events are written: none is lost, none counts twice, not even one that is sent again after the move.
func TestATopologyGrowsUnderLoad(t *testing.T) {
	t.Parallel()
	g := growBed(t)
	const keys, rounds = 200, 12
	leave := func(c *Config, _ *Topology, _ *Worker) { c.LeaveOnStop = true }
	w := g.old.start("w0", leave)
	g.old.ready(w)
	spec := g.spec()
	want := keys * rounds
	at := int64(1_000_000_000)
	for r := range rounds / 2 {
		g.old.put(t, keys, at, fmt.Sprint("r", r))
		at += 700_000
	}
	if _, err := g.old.grow(t, spec); err == nil || !isFault(err) {
		t.Fatalf("it grows while the old generation works: %v", err)
	}
	// The producers switch, and go on while the state moves.
	for r := rounds / 2; r < rounds; r++ {
		g.now.put(t, keys, at, fmt.Sprint("r", r))
		at += 700_000
		if r == rounds/2 {
			eventually(t, patience, func() string {
				why, err := spec.Undrained(t.Context(), g.old.adm)
				if err != nil {
					return err.Error()
				}
				if !strings.Contains(why, "members") {
					return why
				}
				return ""
			})
			must(t, w.stop())
		}
		if r == rounds/2+1 {
			report, err := g.old.grow(t, spec)
			must(t, err)
			if report.Entries == 0 || report.Moved < report.Entries/4 || report.Moved > report.Entries*3/4 || report.LogRecords == 0 || report.Watermark == noTime {
				t.Errorf("report %+v", report)
			}
			w = g.now.start("w1", leave)
		}
	}
	g.now.put(t, keys, at, "r2") // a client sends again what the old generation has seen
	g.now.put(t, keys, at+60_000_000, "end")
	want += keys
	eventually(t, patience, func() string {
		if got := len(g.old.all(outTopic)) + len(g.now.all(outTopic)); got < want {
			return fmt.Sprintf("%d of %d outputs", got, want)
		}
		return ""
	})
	eventually(t, patience, func() string {
		why, err := GrowSpec{From: g.now.topology(), FromGroup: g.now.prefix + "g"}.Undrained(t.Context(), g.now.adm)
		if err != nil {
			return err.Error()
		}
		if !strings.Contains(why, "members") {
			return why
		}
		return ""
	})
	must(t, w.stop())
	seen := map[string]int{}
	for _, b := range []*bed{g.old, g.now} {
		for _, r := range b.all(outTopic) {
			seen[string(r.Value)]++
		}
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s came out %d times", id, n)
		}
	}
	if len(seen) != want {
		t.Errorf("%d outputs, want %d", len(seen), want)
	}
	fired := map[string]int{}
	for _, b := range []*bed{g.old, g.now} {
		for _, r := range b.all(firedTopic) {
			fired[string(r.Key)]++
		}
	}
	for k, n := range fired {
		if n != 1 {
			t.Errorf("timer %s fired %d times", k, n)
		}
	}
	// Every count of the new generation is the key's, where it now lives.
	counts := map[string]int64{}
	for _, r := range g.now.read(ChangelogTopic(g.now.topology())) {
		if k := string(r.Key); k[:2] == "\x00\x10" {
			v, err := Int64{}.Decode(r.Value[1:])
			must(t, err)
			counts[k[2:]] = v
			if p := PartitionOf([]byte(k[2:]), 24); p != r.Partition {
				t.Errorf("the state of %s is in task %d, its records in %d", k[2:], r.Partition, p)
			}
		}
	}
	for i := range keys {
		if k := fmt.Sprintf("key-%d", i); counts[k] != rounds+1 {
			t.Errorf("%s was counted %d times, want %d", k, counts[k], rounds+1)
		}
	}
	if _, err := g.old.grow(t, spec); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("it grows into a generation that has worked: %v", err)
	}
}

// TestAMoveThatEndsHalfWayStartsNothingAndIsDoneAgain ends Grow in the middle.
func TestAMoveThatEndsHalfWayStartsNothingAndIsDoneAgain(t *testing.T) {
	t.Parallel()
	g := growBed(t)
	w := g.old.start("w0", func(c *Config, _ *Topology, _ *Worker) { c.LeaveOnStop = true })
	g.old.ready(w)
	g.old.put(t, 100, 1_000_000_000, "a")
	g.old.count(100)
	must(t, w.stop())
	spec := g.spec()
	key, n := spec.Key, 0
	ctx, cancel := context.WithCancelCause(t.Context())
	spec.Key = func(store uint16, k []byte) ([]byte, bool) {
		if n++; n == 50 {
			cancel(errCrash)
		}
		return key(store, k)
	}
	if _, err := Grow(ctx, []kgo.Opt{kgo.SeedBrokers(g.old.brokers...)}, spec, growLog()); err == nil {
		t.Fatal("it goes on without its context")
	}
	g.now.refused(g.now.start("w1", nil), "MR-STR-022")
	spec.Key = key
	_, err := g.old.grow(t, spec)
	must(t, err)
	w = g.now.start("w1", nil)
	g.now.put(t, 100, 1_000_000_000, "a") // again
	g.now.put(t, 100, 1_001_000_000, "b")
	g.now.count(100)
	must(t, w.stop())
}

func TestMistakesOfAMoveAreRefused(t *testing.T) {
	t.Parallel()
	from, to := testTopology(12, "a", "b"), testTopology(24, "c", "d")
	to.Name = "grown"
	good := GrowSpec{From: from, To: to, FromGroup: "g", Key: func(uint16, []byte) ([]byte, bool) { return nil, false }}
	must(t, good.Validate())
	for _, c := range []struct {
		name   string
		change func(*GrowSpec)
		says   string
	}{
		{"no multiple", func(g *GrowSpec) { g.To.Partitions = 18 }, "multiple"},
		{"fewer", func(g *GrowSpec) { g.To.Partitions = 6 }, "multiple"},
		{"the same changelog", func(g *GrowSpec) { g.To.Name = g.From.Name }, "changelog"},
		{"the same input", func(g *GrowSpec) { g.To.Inputs = []string{"a", "d"} }, "input of both"},
		{"another format", func(g *GrowSpec) { g.To.Stores = []StoreSpec{{16, "counts", 2}, {17, "windows", 1}} }, "formats"},
		{"no logs", func(g *GrowSpec) { g.To.Logs = nil }, "logs"},
		{"no key", func(g *GrowSpec) { g.Key = nil }, "Key"},
	} {
		g := good
		c.change(&g)
		err := g.Validate()
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.says)
		}
	}
}
