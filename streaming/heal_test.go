package streaming

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/internal/fault"
)

// TestWhatABrokerLeavesOpenIsEndedAsItWasDecided stops and kills a broker in the middle of many transactions. Some of them it ends without telling their partitions; whoever
// takes the slots over makes each of them whole.
func TestWhatABrokerLeavesOpenIsEndedAsItWasDecided(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a JVM: run without -short")
	}
	t.Parallel()
	const topic, partitions, slots = "outputs", 8, 24
	dir := t.TempDir()
	left, said := 0, map[string]bool{} // of transactions whose end was acknowledged
	newest := make([]string, slots)
	for round := range 3 {
		s, err := embeddedtest.Start(t.Context(), dir, embedded.BrokerApache, embedded.KafkaChild)
		if id, _ := fault.IDOf(err); id == "MR-EMB-003" {
			t.Skipf("no Java, so no Apache Kafka: %v", err)
		}
		must(t, err)
		stopped := false
		t.Cleanup(func() {
			if !stopped {
				s.Stop()
			}
		})
		opts := []kgo.Opt{kgo.SeedBrokers(s.Endpoints().Kafka)}
		cl, err := kgo.NewClient(opts...)
		must(t, err)
		adm := kadm.NewClient(cl)
		if round == 0 {
			_, err := adm.CreateTopic(t.Context(), partitions, 1, nil, topic)
			must(t, err)
		}
		transactional := func(i int) *kgo.Client {
			c, err := kgo.NewClient(append(opts[:1:1], kgo.TransactionalID("slot-"+strconv.Itoa(i)), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
			must(t, err)
			return c
		}
		for i := range slots {
			c := transactional(i)
			w := &Worker{cfg: Config{TransactionalID: "slot-" + strconv.Itoa(i), Group: "nobody"}, opts: opts, log: testLog(t)}
			must(t, w.decided(t.Context(), adm))
			if w.last != "CompleteCommit" && w.last != "PrepareCommit" { // the broker may have ended it together with one that was begun behind it
				delete(said, newest[i])
			}
			id, epoch, err := c.ProducerID(t.Context())
			must(t, err)
			open, _, err := unended(t.Context(), adm, id)
			must(t, err)
			left += len(open[topic])
			must(t, w.heal(t.Context(), adm, id, epoch))
			c.Close()
		}
		eventually(t, patience, func() string {
			ends, err := adm.ListEndOffsets(t.Context(), topic)
			must(t, err)
			stable, err := adm.ListCommittedOffsets(t.Context(), topic)
			must(t, err)
			for p, end := range ends[topic] {
				if stable[topic][p].Offset < end.Offset {
					return fmt.Sprintf("partition %d can be read up to %d of %d", p, stable[topic][p].Offset, end.Offset)
				}
			}
			return ""
		})
		whole(t, opts, topic, partitions, said)
		if round == 2 {
			cl.Close()
			break
		}
		ctx, stop := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		var mu sync.Mutex
		var ended atomic.Int64
		for i := range slots {
			c := transactional(i)
			writers.Go(func() {
				defer c.Close()
				for n := 0; ctx.Err() == nil && c.BeginTransaction() == nil; n++ {
					name := fmt.Sprintf("%d.%d.%d", round, i, n)
					for p := range int32(partitions) {
						c.Produce(ctx, &kgo.Record{Topic: topic, Partition: p, Value: []byte(name)}, nil)
					}
					if c.Flush(ctx) != nil || c.EndTransaction(ctx, kgo.TryCommit) != nil {
						return
					}
					mu.Lock()
					said[name], newest[i] = true, name
					mu.Unlock()
					ended.Add(1)
				}
			})
		}
		eventually(t, patience, func() string {
			if ended.Load() < 200 {
				return "transactions are slow"
			}
			return ""
		})
		if round%2 == 0 {
			must(t, s.Kill(t.Context(), embedded.KafkaChild))
		}
		cl.Close()
		s.Stop()
		stopped = true
		stop()
		writers.Wait()
	}
	t.Logf("%d partitions were left open, %d transactions were acknowledged", left, len(said))
}

// whole checks that each transaction is in all partitions once or in none, and those that were acknowledged are there.
func whole(t *testing.T, opts []kgo.Opt, topic string, partitions int, said map[string]bool) {
	t.Helper()
	cl, err := kgo.NewClient(append(opts[:1:1], kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())...)
	must(t, err)
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(t.Context(), topic)
	must(t, err)
	seen := map[string]int{}
	at := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) { at[o.Partition] = o.Offset })
	for p, end := range at {
		if end == 0 {
			delete(at, p)
		}
	}
	for len(at) > 0 {
		f := cl.PollFetches(t.Context())
		must(t, f.Err())
		f.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				seen[string(r.Value)]++
			}
			if r.Offset+1 >= at[r.Partition] {
				delete(at, r.Partition)
			}
		})
	}
	for name, n := range seen {
		if n != partitions {
			t.Fatalf("transaction %s is in %d of %d partitions", name, n, partitions)
		}
	}
	for name := range said {
		if seen[name] == 0 {
			t.Fatalf("transaction %s was acknowledged and is gone", name)
		}
	}
}
