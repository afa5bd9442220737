package streaming

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// holding stops a restore at a value of the log.
type holding struct {
	*testOp
	at   string
	hold <-chan struct{}
}

func (o *holding) RestoreLog(log string, v []byte, at time.Time) error {
	if string(v) == o.at {
		<-o.hold
	}
	return o.testOp.RestoreLog(log, v, at)
}

func TestTheStatusShowsEachTaskAndHowFarItsRestoreIs(t *testing.T) {
	t.Parallel()
	b := newBed(t, kfakeBrokers(t), "status", 2, true)
	w := b.start("w0", func(c *Config, _ *Topology, _ *Worker) { c.CommitRecords, c.PollRecords = 20, 10 })
	b.ready(w)
	now := time.Now().UnixMicro()
	b.feed("x", 200, now)
	b.count(400)
	eventually(t, patience, func() string {
		s := w.Status()
		if len(s) != 2 {
			return fmt.Sprintf("%d tasks", len(s))
		}
		for i, x := range s {
			if x.Partition != int32(i) || x.Restoring || x.RestoredShare != 1 || x.Lag != 0 || x.StateKeys < 3 || x.StateBytes < 100 || x.CommitLatency <= 0 || x.WatermarkDelay <= 0 {
				return fmt.Sprintf("%+v", x)
			}
		}
		return ""
	})
	must(t, w.stop())
	if s := w.Status(); len(s) != 0 {
		t.Errorf("a worker that has ended has tasks: %+v", s)
	}

	hold, once := make(chan struct{}), sync.Once{}
	free := func() { once.Do(func() { close(hold) }) }
	t.Cleanup(free)
	w = b.start("w0", func(_ *Config, top *Topology, _ *Worker) {
		top.New = func(t *Task) (Operator, error) { return &holding{newTestOp(t, b.prefix), "x-0-150", hold}, nil }
	})
	eventually(t, patience, func() string {
		for _, x := range w.Status() {
			if x.Restoring && x.Partition == 0 && x.RestoredShare > 0 && x.RestoredShare < 1 {
				return ""
			}
		}
		return fmt.Sprintf("no task is shown half-way: %+v", w.Status())
	})
	if err := w.Ready(); err == nil || !strings.Contains(err.Error(), "restored") {
		t.Errorf("ready while tasks are restored: %v", err)
	}
	free()
	b.ready(w)
	eventually(t, patience, func() string {
		for _, x := range w.Status() {
			if x.Restoring {
				return fmt.Sprintf("%+v", x)
			}
		}
		if _, n := w.metric(t, "task_restore_seconds"); n != 2 {
			return fmt.Sprintf("the restores of %d tasks are told", n)
		}
		if _, n := w.metric(t, "restored_share"); n != 0 {
			return fmt.Sprintf("%d tasks are said to be restored still", n)
		}
		return ""
	})
}

// TestAStateOfALaterVersionIsRefusedWithItsRemedy writes an entry of a format that this version does not know, to the changelog and to a snapshot's description.
func TestAStateOfALaterVersionIsRefusedWithItsRemedy(t *testing.T) {
	t.Parallel()
	b := newBed(t, kfakeBrokers(t), "later", 2, true)
	dir := t.TempDir()
	w := b.start("w0", withLocal(dir, nil))
	b.ready(w)
	b.feed("x", 10, 1_000_000_000)
	b.count(20)
	must(t, w.stop())
	later := func(c *Config, top *Topology, w *Worker) {
		top.Stores = []StoreSpec{{storeCounts, "counts", 2}, {storeWindows, "windows", 1}}
	}
	// For a version that reads format 2 only, what is there is of another one: neither snapshot nor changelog is taken for its own.
	b.refused(b.start("w0", withLocal(dir, later)), "MR-STR-005")
	w = b.start("w0", withLocal(dir, nil))
	b.ready(w)
	b.feed("y", 10, 1_001_000_000)
	b.count(40)
	b.stateIsOne(w)
}
