package streaming

import (
	"context"
	"io"
	"time"
)

const (
	gaugeEvery = time.Second     // tasks are measured on their own goroutine
	endsEvery  = 5 * time.Second // the broker is asked how far the inputs reach
)

// gauges shows where every task stands, whether or not it has something to do. It tells whether it was time to.
func (w *Worker) gauges(now time.Time) bool {
	if now.Sub(w.gauged) < gaugeEvery {
		return false
	}
	w.gauged = now
	var ends map[int32][]int64
	if p := w.ends.Load(); p != nil {
		ends = *p
	}
	running := make([]TaskStatus, 0, len(w.sorted))
	for _, t := range w.sorted {
		s := t.status(ends[t.part], now)
		hot, news := t.hot.read(now)
		if s.HotKeyShare = hot.Share; news {
			w.log.Warn("a key is a large part of a partition", "partition", t.part, "share", hot.Share, "key_xxh3", hot.Hash)
		}
		running = append(running, s)
		w.metrics.gauge(t, s, ends[t.part], now)
	}
	w.status.set(running)
	if w.local != nil {
		w.metrics.localBytes.Set(float64(w.local.usage()))
	}
	w.metrics.tasks.Set(float64(len(w.tasks)))
	w.metrics.restoring.Set(float64(len(w.restoring)))
	return true
}

// watchEnds asks now and then how far the inputs reach, until ctx ends. What fetches tell is not enough: an input that is not read, because its task waits for
// another one, grows unseen.
func (w *Worker) watchEnds(ctx context.Context, s *session) {
	adm := w.admin(s)
	tick := time.NewTicker(endsEvery)
	defer tick.Stop()
	for {
		if listed, err := adm.ListCommittedOffsets(ctx, w.top.Inputs...); err == nil {
			ends := map[int32][]int64{}
			for p := range w.top.Partitions {
				row := make([]int64, len(w.top.Inputs))
				for i, topic := range w.top.Inputs {
					if o, ok := listed.Lookup(topic, p); ok && o.Err == nil {
						row[i] = o.Offset
					}
				}
				ends[p] = row
			}
			w.ends.Store(&ends)
		} else if ctx.Err() == nil {
			w.log.Debug("asking how far the inputs reach", "error", err) // the session's own requests meet it too
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// drop forgets a task: what its operator holds outside of the state is given back, and its gauges go. It must not be used afterwards.
func (w *Worker) drop(t *Task) {
	if t == nil {
		return
	}
	if c, ok := t.op.(io.Closer); ok {
		if err := c.Close(); err != nil {
			w.log.Warn("closing what a task held", "partition", t.part, "error", err)
		}
	}
	w.metrics.forget(t.part)
}

func (w *Worker) dropAll(tasks []*Task) {
	for _, t := range tasks {
		w.drop(t)
	}
}
