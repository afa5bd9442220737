package streaming

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func atLeastOnce(c *Config, _ *Topology, _ *Worker) { c.Guarantee = AtLeastOnce }

// TestAtLeastOnceOnKfake: without transactions nothing is lost, and nothing is twice without a crash.
func TestAtLeastOnceOnKfake(t *testing.T) {
	t.Parallel()
	brokers := kfakeBrokers(t)
	for _, c := range []struct {
		name string
		run  func(*bed)
	}{
		{"a clean restart loses and doubles nothing", onceWithoutTransactions},
		{"workers come and go and nothing is lost or doubled", rebalancesWithoutTransactions},
		{"a crash anywhere in what is written loses nothing", crashesWithoutTransactions},
		{"a killed worker loses nothing", killedWithoutTransactions},
		{"of two workers in one slot one ends", duelWithoutTransactions},
		{"a worker goes from one guarantee to the other", changesGuarantee},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(newBed(t, brokers, fmt.Sprintf("t%x", time.Now().UnixNano()), 4, true))
		})
	}
}

func onceWithoutTransactions(b *bed) {
	for i := range 3 {
		w := b.start("w0", atLeastOnce)
		b.feed(fmt.Sprintf("x%d", i), 100, 1_000_000_000+int64(i)*1_000_000)
		b.count(400 * (i + 1))
		must(b.t, w.stop())
	}
	w := b.start("w0", atLeastOnce)
	b.ready(w)
	b.stateIsOne(w)
}

func rebalancesWithoutTransactions(b *bed) {
	change := func(c *Config, _ *Topology, _ *Worker) {
		c.Guarantee, c.LeaveOnStop = AtLeastOnce, true
		c.SessionTimeout, c.RebalanceTimeout = 2*time.Minute, 2*time.Minute // a busy machine is no crash
	}
	w0 := b.start("w0", change)
	b.ready(w0)
	n := 0
	feed := func() {
		b.feed(fmt.Sprintf("x%d", n), 50, 1_000_000_000+int64(n)*500_000)
		n++
	}
	feed()
	w1 := b.start("w1", change)
	eventually(b.t, patience, func() string {
		feed()
		if err := w1.Ready(); err != nil {
			return err.Error()
		}
		if sum, _ := w1.metric(b.t, "tasks"); sum == 0 {
			return "the second worker has no task"
		}
		return ""
	})
	b.count(200 * n)
	must(b.t, w0.stop())
	for range 5 {
		feed()
	}
	b.count(200 * n)
	b.stateIsOne(w1)
}

// nothingLost: every input came out, and is in the counts and in the final rows of windows, at least once. Each partition got as many inputs as the others.
func (b *bed) nothingLost(w *running, inputs int) {
	b.t.Helper()
	distinct := func() map[string]int {
		seen := map[string]int{}
		for _, r := range b.all(outTopic) {
			seen[fmt.Sprintf("%d/%s", r.Partition, r.Key)+" "+string(r.Value)]++
		}
		return seen
	}
	eventually(b.t, patience, func() string {
		if got := len(distinct()); got < inputs {
			return fmt.Sprintf("%d of %d outputs", got, inputs)
		}
		return ""
	})
	b.feed("end", 2, 2_000_000_000) // closes all windows
	eventually(b.t, patience, func() string {
		if got := len(distinct()); got < inputs+2*int(b.parts) {
			return "the last inputs have not come out"
		}
		return ""
	})
	must(b.t, w.stop())
	want := map[string]int64{} // by partition and key
	for k := range distinct() {
		key, _, _ := strings.Cut(k, " ")
		want[key]++
	}
	if len(distinct()) != inputs+2*int(b.parts) {
		b.t.Fatalf("%d distinct outputs of %d inputs", len(distinct()), inputs)
	}
	state := map[string]int64{}
	for _, r := range b.read(ChangelogTopic(b.topology())) {
		if k := string(r.Key); k[:2] == "\x00\x10" {
			v, err := Int64{}.Decode(r.Value[1:])
			must(b.t, err)
			state[fmt.Sprintf("%d/%s", r.Partition, k[2:])] = v
		}
	}
	for k, n := range want {
		if state[k] < n {
			b.t.Errorf("key %s is counted %d times, it came %d times", k, state[k], n)
		}
	}
	rows := map[string]int64{} // last row of each window
	for _, r := range b.all(rowTopic) {
		var n, total int64
		if _, err := fmt.Sscan(string(r.Value), &n, &total); err != nil {
			b.t.Fatal(err)
		}
		rows[fmt.Sprintf("%d/%s", r.Partition, r.Key)] = n
	}
	byKey := map[string]int64{}
	for k, n := range rows {
		if f := strings.Split(k, "/"); f[1] == "0" { // grain of a second
			byKey[f[0]+"/"+f[3]] += n
		}
	}
	late := int64(len(b.all(lateTopic)))
	for k, n := range want {
		if byKey[k]+late < n-1 { // the window of the last input may be open
			b.t.Errorf("windows of key %s hold %d of %d events, %d are late", k, byKey[k], n, late)
		}
	}
}

func crashesWithoutTransactions(b *bed) {
	var crashed [ranks + 1]atomic.Int64
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	at := -1
	change := func(c *Config, _ *Topology, w *Worker) {
		c.Guarantee, c.CommitRecords, c.PollRecords, c.CommitInterval = AtLeastOnce, 100, 50, time.Millisecond
		if w == nil {
			return
		}
		crash := func(k int) error { // of the goroutine of Run, each second time or so
			if at < 0 {
				at = []int{rankOutput, rankEngine, rankLogs, ranks}[rng.IntN(4)]
			}
			if k == at && rng.IntN(2) == 0 {
				at = -1
				crashed[k].Add(1)
				return errCrash
			}
			return nil
		}
		n := 0
		w.afterRank = crash
		w.afterEnd = func(bool) error {
			if n++; n > 25 && crashed[ranks].Load() > 0 { // enough of these
				if at == ranks {
					at = -1
				}
				return nil
			}
			return crash(ranks)
		}
	}
	b.feed("x", 600, 1_000_000_000)
	w := b.start("w0", change)
	eventually(b.t, patience, func() string {
		for _, k := range []int{rankOutput, rankEngine, rankLogs, ranks} {
			if crashed[k].Load() == 0 {
				b.feed(fmt.Sprintf("y%d", time.Now().UnixNano()), 1, 1_006_000_000)
				return fmt.Sprintf("no crash behind %d yet", k)
			}
		}
		return ""
	})
	_ = w.stop() // it may be in the midst of a crash
	ends, err := b.adm.ListEndOffsets(b.t.Context(), b.topology().Inputs...)
	must(b.t, err)
	inputs := 0
	for _, ps := range ends.Offsets() {
		for _, o := range ps {
			inputs += int(o.At)
		}
	}
	b.nothingLost(b.start("w0", atLeastOnce), inputs)
}

func killedWithoutTransactions(b *bed) {
	n := 0
	for i := range 4 {
		c := b.child("w0", AtLeastOnce)
		b.feed(fmt.Sprintf("x%d", i), 100, 1_000_000_000+int64(i)*1_000_000)
		n += 400
		eventually(b.t, patience, func() string {
			if len(b.all(outTopic)) < n/2 {
				return "nothing comes out"
			}
			return ""
		})
		must(b.t, c.Process.Kill())
		_ = c.Wait()
	}
	b.nothingLost(b.start("w0", atLeastOnce), n)
}

func duelWithoutTransactions(b *bed) {
	w0 := b.start("w0", atLeastOnce)
	b.ready(w0)
	b.feed("x", 50, 1_000_000_000)
	b.count(200)
	w1 := b.start("w0", atLeastOnce)
	b.refused(w0, "MR-STR-001")
	b.feed("y", 50, 1_001_000_000)
	b.nothingLost(w1, 400)
}

func changesGuarantee(b *bed) {
	for i, g := range []string{ExactlyOnce, AtLeastOnce, ExactlyOnce} {
		w := b.start("w0", func(c *Config, _ *Topology, _ *Worker) { c.Guarantee = g })
		b.feed(fmt.Sprintf("x%d", i), 100, 1_000_000_000+int64(i)*1_000_000)
		b.count(400 * (i + 1))
		must(b.t, w.stop())
	}
	b.stateIsOneAfter(1200)
}

func TestAGuaranteeThatDoesNotExistIsRefused(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	if c.Guarantee != ExactlyOnce {
		t.Errorf("default %q", c.Guarantee)
	}
	for g, ok := range map[string]bool{ExactlyOnce: true, AtLeastOnce: true, "at_most_once": false} {
		c.Guarantee = g
		if err := c.Validate(); (err == nil) != ok {
			t.Errorf("%s: %v", g, err)
		} else if err != nil && !strings.Contains(err.Error(), "exactly_once or at_least_once") {
			t.Error(err)
		}
	}
}
