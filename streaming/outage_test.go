package streaming

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// TestTheWorkerRidesOutABrokerThatGoesAway stops the broker under load and starts it again on the same data and address.
func TestTheWorkerRidesOutABrokerThatGoesAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir))
	must(t, err)
	_, p, err := net.SplitHostPort(c.ListenAddrs()[0])
	must(t, err)
	port, err := strconv.Atoi(p)
	must(t, err)
	b := newBed(t, c.ListenAddrs(), "away", 4, true)
	w := b.start("w0", nil)
	b.ready(w)
	n := 0
	for i := range 3 {
		b.feed(fmt.Sprintf("x%d", i), 100, 1_000_000_000+int64(i)*1_000_000)
		n += 400
		c.Close()
		eventually(t, 10*time.Second, func() string { // the port must be free
			c, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), kfake.Ports(port))
			if err != nil {
				return err.Error()
			}
			return ""
		})
		b.feed(fmt.Sprintf("y%d", i), 50, 1_000_500_000+int64(i)*1_000_000)
		n += 200
		b.count(n)
	}
	b.stateIsOne(w)
	c.Close()
}

// TestWorkersThatComeGoCrashAndStallLoseNothing is a run of random events in a group of up to three workers, from a seed that a
// failure names.
func TestWorkersThatComeGoCrashAndStallLoseNothing(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	b := newBed(t, kfakeBrokers(t), "chaos", 8, true)
	slots := map[string]*running{}
	n := 0
	for i := range 25 {
		b.feed(fmt.Sprintf("x%d", i), 20, 1_000_000_000+int64(i)*300_000)
		n += 160
		slot := fmt.Sprintf("w%d", rnd.IntN(3))
		w := slots[slot]
		switch {
		case w == nil:
			crash := rnd.IntN(2) == 0
			after := rnd.IntN(20)
			slots[slot] = b.start(slot, func(c *Config, _ *Topology, w *Worker) {
				c.LeaveOnStop = true
				c.CommitInterval = time.Duration(1+rnd.IntN(30)) * time.Millisecond
				c.PollRecords = 1 + rnd.IntN(200)
				c.Parallel = 1 + rnd.IntN(3)
				if w != nil && crash {
					w.afterEnd = func(bool) error { // ends the session with an outcome that it does not know
						if after--; after == 0 {
							return errCrash
						}
						return nil
					}
				}
			})
		case rnd.IntN(3) == 0:
			must(t, w.stop())
			delete(slots, slot)
		case rnd.IntN(2) == 0:
			b.ready(w)
		}
	}
	if len(slots) == 0 {
		slots["w0"] = b.start("w0", nil)
	}
	b.count(n)
	var last *running
	for _, w := range slots {
		must(t, w.stop())
		last = w
	}
	b.stateIsOne(last)
}

func TestAWorkerCountsWhatItDoes(t *testing.T) {
	t.Parallel()
	b := newBed(t, kfakeBrokers(t), "counts", 2, true)
	w := b.start("w0", nil)
	if w.Ready() == nil {
		t.Fatal("ready before the group was joined")
	}
	b.ready(w)
	b.feed("x", 50, 1_000_000_000)
	b.count(100)
	eventually(t, 10*time.Second, func() string { // counted after the commit that made the outputs visible
		if got, _ := w.metric(t, "records_total"); got != 100 {
			return fmt.Sprintf("%v records", got)
		}
		return ""
	})
	eventually(t, 10*time.Second, func() string { // tasks are measured each second
		if _, n := w.metric(t, "lag_records"); n != 4 {
			return fmt.Sprintf("%d lag gauges of 2 tasks with 2 inputs", n)
		}
		return ""
	})
	must(t, w.stop())
	if w.Ready() == nil {
		t.Fatal("ready although it has stopped")
	}
	if got, n := w.metric(t, "window_events_total"); got != 100 || n != 3 {
		t.Errorf("%v window events of %d outcomes", got, n)
	}
	if got, _ := w.metric(t, "restores_total"); got != 2 {
		t.Errorf("%v restores", got)
	}
	for _, name := range []string{"changelog_records_total", "emitted_total", "commits_total"} {
		if got, _ := w.metric(t, name); got == 0 {
			t.Errorf("%s is 0", name)
		}
	}
	if _, n := w.metric(t, "lag_records"); n != 0 {
		t.Errorf("%d lag gauges of tasks that are given up", n)
	}
}
