package streaming

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/internal/failpoint"
)

// At least once: without a transaction a crash leaves what was written up to it, and the records since the group's last offsets are processed again on a state that may
// hold some of them. Nothing is lost if whatever makes a record count for less the second time is written last:
//
//  1. outputs
//  2. timers that were set: one without the state it is for does nothing
//  3. the operator's stores and windows, in the order in which they were opened
//  4. timers that fired, watermarks, and what else the engine keeps: an event may be late now, but only to a state that knows it
//  5. logs, which operators pass over records by
//  6. offsets
//
// 2 to 4 are one partition of one topic, whose order the idempotent producer keeps; before 2, 5 and 6 all must be written. What a worker writes that does not know yet
// that its tasks are another's now is not refused, as it is in a transaction.
const (
	rankOutput = iota
	rankTimers
	rankStores
	rankEngine
	rankLogs
	ranks
)

// rank says when a record is to be written.
func (t *Task) rank(r *kgo.Record) int {
	if r.Topic == t.changelog {
		switch id := binary.BigEndian.Uint16(r.Key); {
		case id >= FirstStoreID:
			return rankStores
		case id == storeTimers && r.Value != nil:
			return rankTimers
		}
		return rankEngine
	}
	for i := range t.logs {
		if r.Topic == t.logs[i].topic {
			return rankLogs
		}
	}
	return rankOutput
}

// deliver ends what takes the place of a transaction.
func (w *Worker) deliver(ctx context.Context, s *session, offsets []kmsg.TxnOffsetCommitRequestTopic) error {
	// Whoever was stopped for so long may have lost its tasks to another.
	if since := time.Since(w.touchedOr(time.Now())); since > w.cfg.CommitInterval+w.cfg.SessionTimeout {
		return fmt.Errorf("what is to be committed is %s old: the worker was stopped, or has too much to do", since)
	}
	ctx, cancel := context.WithTimeout(ctx, max(w.cfg.TransactionTimeout, w.cfg.SessionTimeout)+5*time.Second)
	defer cancel()
	var by [ranks][]*kgo.Record
	for _, t := range w.sorted {
		for _, r := range t.out[t.sent:] {
			k := t.rank(r)
			by[k] = append(by[k], r)
		}
		t.sent = len(t.out)
	}
	for k, recs := range by {
		s.produce(ctx, recs)
		if k == rankTimers || k == rankStores { // before that comes the same partition
			continue
		}
		if k == rankOutput || len(recs) > 0 || k == rankEngine && len(by[rankTimers])+len(by[rankStores]) > 0 {
			if err := errors.Join(s.flush(ctx), w.afterRank(k)); err != nil {
				return err
			}
		}
	}
	failpoint.Hit("streaming.commit.before")
	err := s.commitOffsets(ctx, offsets)
	for errors.Is(err, kerr.RebalanceInProgress) && ctx.Err() == nil {
		select { // the tasks are still the worker's: it has not been asked for any
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
		err = s.commitOffsets(ctx, offsets)
	}
	if err == nil {
		err = errors.Join(failpoint.Err("streaming.commit.unknown"), w.afterEnd(true))
	}
	if err != nil {
		return fmt.Errorf("committing offsets: %w", err)
	}
	failpoint.Hit("streaming.commit.after")
	return nil
}

// commitOffsets commits as a member of the group, or not at all.
func (s *session) commitOffsets(ctx context.Context, topics []kmsg.TxnOffsetCommitRequestTopic) error {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for _, t := range topics {
		ps := map[int32]kgo.EpochOffset{}
		for _, p := range t.Partitions {
			ps[p.Partition] = kgo.EpochOffset{Epoch: -1, Offset: p.Offset}
		}
		offsets[t.Topic] = ps
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		if req.Generation < 0 || req.MemberID == "" {
			return errNotMember
		}
		return nil
	})
	var failed error
	s.cl.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if failed = err; err != nil || resp == nil {
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				failed = errors.Join(failed, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	})
	return failed
}
