package streaming

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/internal/fault"
)

// send produces what t has emitted so far in the open transaction.
func (w *Worker) send(ctx context.Context, s *session, t *Task) {
	s.produce(ctx, t.out[t.sent:])
	t.sent = len(t.out)
}

// commit ends the open transaction, if anything is in it, and begins the next.
func (w *Worker) commit(ctx context.Context, s *session, now time.Time) error {
	err := w.each(w.sorted, func(t *Task) error {
		dirty, err := t.seal(now)
		if err == nil && dirty && s.txn != nil {
			w.send(ctx, s, t)
		}
		return err
	})
	if err != nil {
		return err
	}
	offsets := w.offsets()
	if len(offsets) == 0 {
		return nil
	}
	began := time.Now()
	ok := true
	if s.txn != nil {
		ok, err = w.commitReading(ctx, s, func() (bool, error) { return s.commit(ctx, offsets) })
	} else {
		err = w.deliver(ctx, s, offsets)
	}
	if err != nil {
		w.metrics.unknown.Inc()
		return err
	}
	if !ok {
		w.rewind(s)
		return nil
	}
	w.metrics.lastCommit.SetToCurrentTime()
	w.metrics.commitSeconds.Observe(time.Since(began).Seconds())
	latency := time.Since(w.touchedOr(began))
	w.metrics.transactionSeconds.Observe(latency.Seconds())
	for _, t := range w.sorted {
		if t.touched {
			t.latency = latency
			if t.stats.refused > 0 {
				w.log.Warn("records left out", "error", fault.Newf("MR-STR-021", "%d records, the last one %s/%d@%d with a key of %d bytes", t.stats.refused, t.refusedTopic, t.part, t.refused, t.refusedBytes))
			}
			w.metrics.observe(t)
			t.committed()
		}
	}
	w.touchedAt = time.Time{}
	return w.maintain(now)
}

func (w *Worker) touchedOr(t time.Time) time.Time {
	if w.touchedAt.IsZero() {
		return t
	}
	return w.touchedAt
}

// offsets are the positions that the transaction commits: for every task that is part of it what has moved, and if nothing has, one
// position again. It is the offsets that fence: a transaction without any of a task would let a stale owner's outputs through.
func (w *Worker) offsets() []kmsg.TxnOffsetCommitRequestTopic {
	topics := make([]kmsg.TxnOffsetCommitRequestTopic, len(w.top.Inputs))
	for _, t := range w.sorted {
		if !t.touched {
			continue
		}
		none := true
		for i := len(t.in) - 1; i >= 0; i-- {
			x := &t.in[i]
			if x.next == x.committed && !x.fresh && !(i == 0 && none) {
				continue
			}
			none = false
			p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch = t.part, x.next, -1
			topics[i].Partitions = append(topics[i].Partitions, p)
		}
	}
	out := topics[:0]
	for i, topic := range w.top.Inputs {
		if ps := topics[i].Partitions; len(ps) > 0 {
			x := kmsg.NewTxnOffsetCommitRequestTopic()
			x.Topic, x.TopicID, x.Partitions = topic, w.ids[topic], ps // name and id: brokers differ in which they take
			out = append(out, x)
		}
	}
	return out
}

// abort drops the open transaction and sets every task back to its last commit.
func (w *Worker) abort(ctx context.Context, s *session) error {
	if err := s.abort(ctx); err != nil {
		return err
	}
	w.rewind(s)
	return nil
}

// rewind sets tasks and consumer back to the last commit. The session has set the consumer to what it believes is committed, which is
// what was polled: the merge holds records that were polled and not processed.
func (w *Worker) rewind(s *session) {
	w.metrics.aborts.Inc()
	w.touchedAt = time.Time{}
	positions := map[string]map[int32]kgo.EpochOffset{}
	pause, resume := map[string][]int32{}, map[string][]int32{}
	again := map[int32][]inputStart{} // an operator that is no Committer cannot go back: its task is restored
	for _, t := range w.sorted {
		w.metrics.replayed.Add(float64(t.inTxn))
		goesOn := t.aborted()
		for i := range t.in {
			x := &t.in[i]
			if positions[x.topic] == nil {
				positions[x.topic] = map[int32]kgo.EpochOffset{}
			}
			positions[x.topic][t.part] = kgo.EpochOffset{Epoch: -1, Offset: x.committed}
			switch {
			case !goesOn:
				again[t.part] = append(again[t.part], inputStart{in: i, offset: x.committed, fresh: x.fresh})
				pause[x.topic] = append(pause[x.topic], t.part)
			case x.paused:
				x.paused = false
				resume[x.topic] = append(resume[x.topic], t.part)
			}
		}
	}
	s.cl.PauseFetchPartitions(pause)
	s.cl.SetOffsets(positions)
	s.cl.ResumeFetchPartitions(resume)
	w.log.Info("transaction aborted", "tasks", len(w.sorted), "to_restore", len(again))
	if len(again) > 0 {
		for p := range again {
			w.drop(w.tasks[p])
			delete(w.tasks, p)
		}
		w.sort()
		w.start(again)
	}
}
