package sink

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"millrace/event"
	"millrace/internal/fault"
	"millrace/lakehouse"
)

// What the committer meets in its life, by the names under which it is looked for. The rest of them is in package lakehouse.

func (b *icebergBench) head(name string) lakehouse.Head {
	b.t.Helper()
	h, err := b.cat.Head(b.t.Context(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	return h
}

// rolled sets main back as an operator does.
func (b *icebergBench) rolled(name string, o lakehouse.RollbackOptions) lakehouse.RollbackResult {
	b.t.Helper()
	res, err := b.cat.Rollback(b.t.Context(), name, o)
	if err != nil {
		b.t.Fatal(err)
	}
	return res
}

// count gives the rows of a table with offsets of some ranges.
func (b *icebergBench) count(name string, ranges ...lakehouse.OffsetRange) int64 {
	b.t.Helper()
	n := int64(0)
	for _, r := range ranges {
		from, to := lakehouse.Vector{}, lakehouse.Vector{}
		from.Set(r.TopicID, r.Partition, r.From)
		to.Set(r.TopicID, r.Partition, r.To)
		err := b.cat.ScanRows(b.t.Context(), name, lakehouse.ScanOptions{Columns: []string{"kafka_offset"}, From: from, To: to}, func(batch arrow.RecordBatch) error {
			n += batch.NumRows()
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return n
}

func TestRollbackMakesTheSinkWriteTheRowsAgain(t *testing.T) {
	b := newIcebergBench(t)
	r := b.start(icebergFast())
	b.all(60, event.Purchase)
	b.exact()
	first := b.head("events_purchase")
	b.all(60, event.Purchase)
	b.exact()
	b.rolled("events_purchase", lakehouse.RollbackOptions{To: first.SnapshotID})
	b.exact() // by itself
	b.end(r)
}

func TestRollbackWithSkipKeepsTheRowsAwayFromARunningSink(t *testing.T) {
	b := newIcebergBench(t)
	r := b.start(icebergFast())
	b.all(60, event.Purchase)
	b.exact()
	first := b.head("events_purchase")
	b.all(60, event.Purchase)
	b.exact()
	skipped := b.rolled("events_purchase", lakehouse.RollbackOptions{To: first.SnapshotID, Skip: true}).Offsets
	b.all(20, event.Purchase)
	icebergEventually(t, "the sink goes on", func() error {
		if h, err := b.cat.Head(t.Context(), "events_purchase"); err != nil || h.Rows < first.Rows+3*20 {
			return errors.Join(err, errors.New("not yet"))
		}
		return nil
	})
	b.end(r)
	if h := b.head("events_purchase"); h.Rows != first.Rows+3*20 {
		t.Errorf("%d rows, not %d", h.Rows, first.Rows+3*20)
	}
	if len(skipped) != icebergPartitions || b.count("events_purchase", skipped...) != 0 {
		t.Errorf("%d rows of the skipped ranges %+v are there", b.count("events_purchase", skipped...), skipped)
	}
}

// TestRollbackOverRowsThatKafkaNoLongerHoldsStopsAndIsResumed: the sink says which rows are lost, and goes on when somebody has accepted that.
func TestRollbackOverRowsThatKafkaNoLongerHoldsStopsAndIsResumed(t *testing.T) {
	b := newIcebergBench(t)
	r := b.start(icebergFast())
	b.all(60, event.Purchase)
	b.exact()
	first := b.head("events_purchase")
	b.all(60, event.Purchase)
	b.exact()
	b.end(r)
	all := b.head("events_purchase")
	cut := b.cluster.PartitionInfo("events.purchase", 1).HighWatermark - 10
	if err := b.cluster.DeleteRecords("events.purchase", 1, cut); err != nil {
		t.Fatal(err)
	}
	kept := lakehouse.Vector{}
	for id := range all.Vector {
		kept.Set(id, 1, cut)
	}
	before := b.head("events_purchase")
	res := b.rolled("events_purchase", lakehouse.RollbackOptions{To: first.SnapshotID, DryRun: true})
	var lost []lakehouse.OffsetRange
	for _, o := range res.Offsets {
		if o.Partition == 1 {
			lost = append(lost, lakehouse.OffsetRange{TopicID: o.TopicID, Partition: 1, From: o.From, To: cut})
		}
	}
	gone := b.count("events_purchase", lost...)
	b.rolled("events_purchase", lakehouse.RollbackOptions{To: first.SnapshotID})

	r = b.start(icebergFast())
	err := b.wait(r)
	if id, _ := fault.IDOf(err); id != "MR-ICE-004" || !strings.Contains(err.Error(), "events.purchase/1") {
		t.Fatalf("got %v", err)
	}
	if e, _ := fault.Lookup("MR-ICE-004"); !strings.Contains(e.Remedy, "millrace lake resume") {
		t.Errorf("the remedy says %q", e.Remedy)
	}
	skipped, err := b.cat.SkipTo(t.Context(), "events_purchase", kept, "r1")
	if err != nil || len(skipped) != 1 || skipped[0] != lost[0] {
		t.Fatalf("skipped %+v, not %+v: %v", skipped, lost, err)
	}
	r = b.start(icebergFast())
	icebergEventually(t, "the rest is back", func() error {
		if h, err := b.cat.Head(t.Context(), "events_purchase"); err != nil || h.Rows != before.Rows-gone {
			return errors.Join(err, errors.New("not yet"))
		}
		return nil
	})
	b.end(r)
	if gone == 0 || b.count("events_purchase", lost...) != 0 {
		t.Errorf("%d rows were lost, and %d of them are there", gone, b.count("events_purchase", lost...))
	}
}

// TestZombieAfterRebalanceCommitsNothing: a member that stood still while its partitions went to another one wakes with rows in its hands.
func TestZombieAfterRebalanceCommitsNothing(t *testing.T) {
	b := newIcebergBench(t)
	one, two := icebergFast(), icebergFast()
	one.InstanceID, two.InstanceID = "one", "two"
	r1 := b.start(one)
	b.all(40, event.Purchase)
	b.exact()
	zombie := r1.tables["events.purchase"]
	icebergEventually(t, "the first member has rows in its hands", func() error {
		b.send(event.Purchase, 0, 5)
		r1.mu.Lock() // it stands still from here on, unless it has just committed
		if zombie.w != nil && zombie.w.Rows() > 0 && zombie.pending == nil {
			return nil
		}
		r1.mu.Unlock()
		return errors.New("it has committed them")
	})
	b.leave(one.Group, "one")
	r2 := b.start(two)
	b.all(20, event.Purchase) // so that the new owner's commits have other boundaries
	b.exact()
	head := b.head("events_purchase")
	zombie.flush(t.Context())
	if !zombie.rewind || zombie.pending != nil {
		t.Error("the zombie does not know that its rows are another's")
	}
	if h := b.head("events_purchase"); h.Rows != head.Rows {
		t.Errorf("the zombie has committed: %d rows became %d", head.Rows, h.Rows)
	}
	r1.mu.Unlock()
	b.exact()
	b.all(30, event.Purchase)
	b.exact()
	b.end(r1)
	b.end(r2)
}

func TestRecreatedTopicStopsTheSinkWithItsRemedy(t *testing.T) {
	b := newIcebergBench(t)
	r := b.start(icebergFast())
	b.all(40, event.Purchase)
	b.exact()
	b.end(r)
	before := b.head("events_purchase")
	if err := errors.Join(b.cluster.DeleteTopic("events.purchase"), b.cluster.CreateTopic("events.purchase", icebergPartitions, nil)); err != nil {
		t.Fatal(err)
	}
	b.all(10, event.Purchase)
	r = b.start(icebergFast())
	err := b.wait(r)
	id, _ := fault.IDOf(err)
	e, _ := fault.Lookup(id)
	if id != "MR-ICE-005" || !strings.Contains(err.Error(), "events.purchase") || e.Remedy == "" {
		t.Errorf("got %v", err)
	}
	if after := b.head("events_purchase"); after.SnapshotID != before.SnapshotID {
		t.Error("rows of the new topic were stored")
	}
}

// TestTwoLiveCommittersNeverStoreARowTwice: two sinks that each believe to own everything, as when a group is split.
func TestTwoLiveCommittersNeverStoreARowTwice(t *testing.T) {
	b := newIcebergBench(t)
	one, two := icebergFast(), icebergFast()
	two.Group, two.CommitInterval = "another", 70*time.Millisecond
	r1, r2 := b.start(one), b.start(two)
	for range 6 {
		b.all(25, event.Purchase)
	}
	b.exact()
	if n := icebergValue(t, r1.m.rewinds.WithLabelValues("events_purchase")) + icebergValue(t, r2.m.rewinds.WithLabelValues("events_purchase")); n == 0 {
		t.Log("the two never met") // the timing decides; what is stored is right in any case
	}
	b.end(r1)
	b.all(25, event.Purchase)
	b.exact()
	b.end(r2)
}
