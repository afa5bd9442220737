package streaming

import (
	"fmt"
	"sync"
	"time"
)

// rebalanced: workers come one by one, are restarted in turn, and go one by one, under load. What other tasks than those that move do again is at most the transaction
// that was open.
func rebalanced(b *bed) {
	const records, poll = 300, 100
	change := func(leave bool) func(*Config, *Topology, *Worker) {
		return func(c *Config, _ *Topology, _ *Worker) {
			c.LeaveOnStop, c.CommitInterval, c.CommitRecords, c.PollRecords = leave, 50*time.Millisecond, records, poll
		}
	}
	n := 0
	feed := func() {
		b.feed(fmt.Sprintf("x%d", n), 40, 1_000_000_000+int64(n)*400_000)
		n++
	}
	under := func(ws ...*running) {
		for _, w := range ws {
			eventually(b.t, patience, func() string {
				feed()
				if err := w.Ready(); err != nil {
					return err.Error()
				}
				return ""
			})
		}
	}
	// Replays and restores are of the life of a worker: each is counted when it ends.
	var mu sync.Mutex
	var replayed, aborts, restores float64
	tally := func(w *running) {
		mu.Lock()
		defer mu.Unlock()
		r, _ := w.metric(b.t, "replayed_records_total")
		a, _ := w.metric(b.t, "aborts_total")
		s, _ := w.metric(b.t, "restores_total")
		replayed, aborts, restores = replayed+r, aborts+a, restores+s
	}
	slots := make([]*running, 4)
	for i := range slots { // scale out
		slots[i] = b.start(fmt.Sprintf("w%d", i), change(false))
		under(slots[:i+1]...)
	}
	eventually(b.t, patience, func() string {
		feed()
		for i, w := range slots {
			if got := len(w.Status()); got != 1 {
				return fmt.Sprintf("worker %d has %d tasks of %d", i, got, b.parts)
			}
		}
		return ""
	})
	under(slots...)
	before := make([]float64, len(slots))
	for i, w := range slots {
		before[i], _ = w.metric(b.t, "restores_total")
	}
	for i := range slots { // rolling restart: a static member's tasks wait for it
		feed()
		must(b.t, slots[i].stop())
		tally(slots[i])
		slots[i] = b.start(fmt.Sprintf("w%d", i), change(false))
		before[i] = -1
		under(slots...)
		for k, w := range slots {
			if got, _ := w.metric(b.t, "restores_total"); before[k] >= 0 && got != before[k] {
				b.t.Errorf("worker %d restored %g tasks because worker %d was restarted", k, got-before[k], i)
			}
		}
	}
	for i := range slots { // scale in: the next life leaves when it stops
		must(b.t, slots[i].stop())
		tally(slots[i])
		slots[i] = b.start(fmt.Sprintf("w%d", i), change(true))
		under(slots...)
	}
	for i := range slots[:3] {
		feed()
		must(b.t, slots[i].stop())
		tally(slots[i])
		under(slots[i+1:]...)
	}
	b.count(n * 40 * int(b.parts))
	tally(slots[3])
	// A transaction ends with the poll that reaches CommitRecords.
	if most := aborts * (records + poll); replayed > most {
		b.t.Errorf("%g records were processed again in %g aborted transactions, want at most %g", replayed, aborts, most)
	}
	b.t.Logf("%d records in, %g processed again in %g aborted transactions, %g restores", n*40*int(b.parts), replayed, aborts, restores)
	b.stateIsOne(slots[3])
}
