package streaming

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestErrorsOfATransactionAreRiddenOut lets the broker answer a request of a transaction with an error, once each: whatever it is, the worker goes on and nothing is lost or
// doubled.
func TestErrorsOfATransactionAreRiddenOut(t *testing.T) {
	t.Parallel()
	endTxn := func(code int16) func(kmsg.Request) (kmsg.Response, error, bool) {
		return func(r kmsg.Request) (kmsg.Response, error, bool) {
			res := r.(*kmsg.EndTxnRequest).ResponseKind().(*kmsg.EndTxnResponse)
			res.ErrorCode = code
			return res, nil, true
		}
	}
	commitOffsets := func(code int16) func(kmsg.Request) (kmsg.Response, error, bool) {
		return func(r kmsg.Request) (kmsg.Response, error, bool) {
			req := r.(*kmsg.TxnOffsetCommitRequest)
			res := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
			for _, x := range req.Topics {
				rt := kmsg.NewTxnOffsetCommitResponseTopic()
				rt.Topic, rt.TopicID = x.Topic, x.TopicID
				for _, p := range x.Partitions {
					rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
					rp.Partition, rp.ErrorCode = p.Partition, code
					rt.Partitions = append(rt.Partitions, rp)
				}
				res.Topics = append(res.Topics, rt)
			}
			return res, nil, true
		}
	}
	for _, c := range []struct {
		name   string
		key    int16
		answer func(kmsg.Request) (kmsg.Response, error, bool)
	}{
		{"EndTxn: INVALID_TXN_STATE", int16(kmsg.EndTxn), endTxn(kerr.InvalidTxnState.Code)},
		{"EndTxn: INVALID_PRODUCER_EPOCH", int16(kmsg.EndTxn), endTxn(kerr.InvalidProducerEpoch.Code)},
		{"EndTxn: INVALID_PRODUCER_ID_MAPPING", int16(kmsg.EndTxn), endTxn(kerr.InvalidProducerIDMapping.Code)},
		{"EndTxn: PRODUCER_FENCED by nobody", int16(kmsg.EndTxn), endTxn(kerr.ProducerFenced.Code)},
		{"EndTxn: UNKNOWN_SERVER_ERROR", int16(kmsg.EndTxn), endTxn(kerr.UnknownServerError.Code)},
		{"EndTxn: COORDINATOR_NOT_AVAILABLE", int16(kmsg.EndTxn), endTxn(kerr.CoordinatorNotAvailable.Code)},
		{"TxnOffsetCommit: ILLEGAL_GENERATION", int16(kmsg.TxnOffsetCommit), commitOffsets(kerr.IllegalGeneration.Code)},
		{"TxnOffsetCommit: UNKNOWN_MEMBER_ID", int16(kmsg.TxnOffsetCommit), commitOffsets(kerr.UnknownMemberID.Code)},
		{"TxnOffsetCommit: REBALANCE_IN_PROGRESS", int16(kmsg.TxnOffsetCommit), commitOffsets(kerr.RebalanceInProgress.Code)},
		{"TxnOffsetCommit: INVALID_TXN_STATE", int16(kmsg.TxnOffsetCommit), commitOffsets(kerr.InvalidTxnState.Code)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
			must(t, err)
			t.Cleanup(cluster.Close)
			b := newBed(t, cluster.ListenAddrs(), "answers", 4, true)
			w := b.start("w0", nil)
			b.ready(w)
			b.feed("x", 50, 1_000_000_000)
			b.count(200)
			var hit atomic.Int64
			cluster.ControlKey(c.key, func(r kmsg.Request) (kmsg.Response, error, bool) {
				hit.Add(1)
				return c.answer(r)
			})
			b.feed("y", 50, 1_001_000_000)
			b.count(400)
			if hit.Load() != 1 {
				t.Errorf("the error was given %d times", hit.Load())
			}
			b.feed("z", 50, 1_002_000_000)
			b.count(600)
			b.stateIsOne(w)
		})
	}
}

// TestATransactionOlderThanItsTimeoutIsDoneAgain: an operator takes longer than the broker lets a transaction be open, with outputs written.
func TestATransactionOlderThanItsTimeoutIsDoneAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t, kfakeBrokers(t), "slow", 2, true)
	var slow atomic.Int64
	w := b.start("w0", func(c *Config, top *Topology, _ *Worker) {
		c.TransactionTimeout, c.PollRecords, c.CommitInterval = 1200*time.Millisecond, 20, 200*time.Millisecond
		top.New = func(t *Task) (Operator, error) {
			op := newTestOp(t, b.prefix)
			op.fail = func(r *kgo.Record) error {
				if string(r.Value[len(r.Value)-3:]) == "-70" && slow.Add(1) == 1 {
					ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
					defer cancel()
					<-ctx.Done()
				}
				return nil
			}
			return op, nil
		}
	})
	b.ready(w)
	b.feed("x", 100, 1_000_000_000)
	b.count(200)
	if slow.Load() < 2 {
		t.Errorf("the record was processed %d times: its transaction was not done again", slow.Load())
	}
	b.feed("y", 100, 1_001_000_000)
	b.count(400)
	b.stateIsOne(w)
}

// TestASlowTaskHoldsUpItselfAlone: a task that stands still is paused, holds few records, and the other tasks of its worker go on once it does.
func TestASlowTaskIsPausedAndTheOthersCatchUp(t *testing.T) {
	t.Parallel()
	b := newBed(t, kfakeBrokers(t), "pressure", 4, true)
	var most atomic.Int64
	w := b.start("w0", func(c *Config, top *Topology, _ *Worker) {
		c.BufferRecords, c.PollRecords, c.CommitRecords, c.Parallel = 200, 100, 400, 2
		top.New = func(t *Task) (Operator, error) {
			op := newTestOp(t, b.prefix)
			op.fail = func(*kgo.Record) error {
				highest(&most, t.merge.buffered)
				if t.Partition() == 2 { // about 20 times slower than the others
					ctx, cancel := context.WithTimeout(context.Background(), 200*time.Microsecond)
					defer cancel()
					<-ctx.Done()
				}
				return nil
			}
			return op, nil
		}
	})
	for i := range 5 {
		b.feed(fmt.Sprintf("x%d", i), 1000, 1_000_000_000+int64(i)*10_000_000)
	}
	b.count(5 * 4000)
	if n := most.Load(); n > 2*(200+100) {
		t.Errorf("a task held %d records", n)
	}
	b.stateIsOne(w)
}

// TestAKeyOfAMegabyteIsLeftOut: the record is counted and told of, and nothing else stops.
func TestAKeyOfAMegabyteIsLeftOut(t *testing.T) {
	t.Parallel()
	b := newBed(t, kfakeBrokers(t), "large-key", 2, true)
	var refused atomic.Int64
	w := b.start("w0", func(c *Config, top *Topology, _ *Worker) {
		top.New = func(t *Task) (Operator, error) {
			return &refusing{newTestOp(t, b.prefix), &refused}, nil
		}
	})
	b.ready(w)
	b.feed("x", 50, 1_000_000_000)
	large := record(string(make([]byte, 990_000)), 1_000_000_000, "large")
	large.Topic, large.Partition = b.prefix+"in.a", 1
	must(t, b.cl.ProduceSync(t.Context(), large).FirstErr())
	b.feed("y", 50, 1_001_000_000)
	b.count(200)
	eventually(t, patience, func() string {
		if n, _ := w.metric(t, "refused_records_total"); n != 1 {
			return fmt.Sprintf("%g records are counted as left out", n)
		}
		return ""
	})
	if refused.Load() != 1 {
		t.Errorf("the operator was told of %d", refused.Load())
	}
	b.stateIsOne(w)
}

type refusing struct {
	*testOp
	n *atomic.Int64
}

func (o *refusing) Refused(_ int, r *kgo.Record) error {
	if len(r.Key) < 1<<19 {
		return errEmptyTopic
	}
	o.n.Add(1)
	return nil
}

// TestAClockAYearOffInOnePartitionMovesNoOther: what is a year ahead moves its own watermark and those of no others; what is a year behind is late by itself. Both are
// counted, and every record is processed.
func TestAClockAYearOffInOnePartitionMovesNoOther(t *testing.T) {
	t.Parallel()
	year := (365 * 24 * time.Hour).Microseconds()
	for _, c := range []struct {
		name string
		off  int64
	}{{"ahead", year}, {"behind", -year}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, kfakeBrokers(t), "clock-"+c.name, 3, true)
			w := b.start("w0", nil)
			b.ready(w)
			now := time.Now().UnixMicro()
			b.feed("x", 20, now)
			b.count(60)
			off := record("k0", now+c.off, "off")
			off.Topic, off.Partition = b.prefix+"in.a", 1
			must(t, b.cl.ProduceSync(t.Context(), off).FirstErr())
			b.feed("y", 20, now+1_000_000)
			b.count(121)
			rows := map[int32]int{}
			eventually(t, patience, func() string { // windows show once a second
				clear(rows)
				for _, r := range b.all(rowTopic) {
					rows[r.Partition]++
				}
				if rows[0] == 0 || rows[1] == 0 || rows[2] == 0 {
					return fmt.Sprintf("rows by partition: %v", rows)
				}
				return ""
			})
			late := 0
			eventually(t, patience, func() string { // what is late is counted as such
				late = 0
				for _, r := range b.all(lateTopic) {
					if late++; r.Partition != 1 {
						t.Errorf("a record of partition %d is late", r.Partition)
					}
				}
				if n := w.dropped(t); n != late || c.off < 0 && late == 0 {
					return fmt.Sprintf("%d records are late and %d are counted", late, n)
				}
				return ""
			})
			if c.off < 0 && late != 1 {
				t.Errorf("%d records are late, want the one that is a year behind", late)
			}
			eventually(t, patience, func() string { // so does the status show it
				for _, s := range w.Status() {
					if ahead := s.WatermarkDelay == 0; ahead != (s.Partition == 1 && c.off > 0) {
						return fmt.Sprintf("the watermark of partition %d is %s behind the clock", s.Partition, s.WatermarkDelay)
					}
				}
				return ""
			})
			must(t, w.stop())
		})
	}
}

// dropped is how many events the worker counted that came after their windows.
func (r *running) dropped(t testing.TB) (n int) {
	t.Helper()
	families, err := r.reg.Gather()
	must(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "millrace_stream_window_events_total" && l.GetName() == "outcome" && l.GetValue() == "dropped" {
					n += int(m.GetCounter().GetValue())
				}
			}
		}
	}
	return n
}
