package hot

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/kpi"
	"millrace/streaming"
)

// TestOverABroker runs the topology in a real worker, stops it, starts another that has only Kafka to go by, and sends everything again.
func TestOverABroker(t *testing.T) {
	const partitions, n = 2, 600
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	codecs, err := testCodecs()
	if err != nil {
		t.Fatal(err)
	}
	brokers := kgo.SeedBrokers(cluster.ListenAddrs()...)
	newTopology := func() streaming.Topology {
		cfg := DefaultConfig()
		cfg.Dir, cfg.LedgerIdle, cfg.KPIEvery = t.TempDir(), 300*time.Millisecond, 100*time.Millisecond
		top, err := Topology(cfg, partitions, codecs, kpi.Definitions{}, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return top
	}
	cl, err := kgo.NewClient(brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	create := func(topic string, cfg map[string]string) {
		conf := map[string]*string{}
		for k, v := range cfg {
			conf[k] = &v
		}
		if _, err := adm.CreateTopic(t.Context(), partitions, 1, conf, topic); err != nil {
			t.Fatalf("creating %s: %v", topic, err)
		}
	}
	for _, topic := range event.Topics() {
		if topic.LogAppendTime {
			create(topic.Name, map[string]string{"message.timestamp.type": "LogAppendTime"})
		} else if topic.Partitioned {
			create(topic.Name, nil)
		}
	}
	for _, topic := range newTopology().RequiredTopics() {
		create(topic.Name, map[string]string{"cleanup.policy": "delete", "retention.ms": "-1"})
	}

	start := func() (stop func() error) {
		w, err := streaming.NewWorker(streaming.Config{Group: "hot", InstanceID: "0", CommitInterval: 20 * time.Millisecond, MergeWait: 5 * time.Millisecond, SessionTimeout: 6 * time.Second, TransactionTimeout: 3 * time.Second},
			newTopology(), []kgo.Opt{brokers}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		return func() error { cancel(); return <-done }
	}
	send := func(from, to int) {
		at := time.Now().UnixMicro()
		var recs []*kgo.Record
		for i := from; i < to; i++ {
			e := event.Event{ID: strconv.Itoa(i), Name: []string{event.NamePageView, event.NameAddToCart, event.NamePurchase}[i%3], Tenant: "t", VisitorID: "v" + strconv.Itoa(i%20), Source: "web", OccurredAt: at, ReceivedAt: at, SchemaVersion: 1}
			if i%3 == 2 {
				e.Value, e.Currency, e.OrderID = micros(2), "USD", "o"+strconv.Itoa(i)
			}
			key := e.AppendKey(nil)
			recs = append(recs, &kgo.Record{Topic: e.Category().RawTopic(), Partition: event.Partition(key, partitions), Key: key, Value: codecs.AppendRaw(nil, e.Category(), &e)})
		}
		if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	read := func(topic string) []*kgo.Record { return readCommitted(t, adm, brokers, topic) }
	sum := func() (total event.LedgerEntry) {
		for _, rec := range read(event.TopicLedger) {
			var l event.LedgerEntry
			if err := codecs.Decode(t.Context(), event.TopicLedger, rec.Value, &l); err != nil {
				t.Fatal(err)
			}
			total.Count += l.Count
			total.Duplicates += l.Duplicates
			total.Failed += l.Failed
		}
		return total
	}
	// await waits until the control totals account for every record.
	await := func(records int64) {
		t.Helper()
		deadline := time.Now().Add(40 * time.Second)
		for {
			l := sum()
			if l.Count+l.Duplicates+l.Failed == records {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("after 40 s the control totals account for %+v, want %d records", l, records)
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-t.Context().Done():
				t.Fatal("the test was ended")
			}
		}
	}

	stop := start()
	send(0, n)
	await(n)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	send(0, n) // all of it again, and as much that is new
	send(n, 2*n)
	stop = start()
	await(3 * n)
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	if l := sum(); l.Count != 2*n || l.Duplicates != n {
		t.Errorf("%d rows and %d duplicates, want %d and %d", l.Count, l.Duplicates, 2*n, n)
	}
	dec, seen := codecs.NewEventDecoder(), map[string]bool{}
	for _, c := range []event.Category{event.Page, event.Cart, event.Purchase} {
		arrived := map[string]int64{}
		for _, rec := range read(c.RawTopic()) {
			arrived[fmt.Sprint(rec.Partition, "@", rec.Offset)] = rec.Timestamp.UnixMicro()
		}
		for _, rec := range read(c.EventsTopic()) {
			var e event.Event
			if err := dec.DecodeEnriched(t.Context(), c, rec.Value, &e); err != nil {
				t.Fatal(err)
			}
			if seen[e.ID] {
				t.Errorf("%s was written twice", e.ID)
			}
			seen[e.ID] = true
			if at := arrived[fmt.Sprint(e.RawPartition, "@", e.RawOffset)]; e.IngestedAt != at || rec.Timestamp.UnixMicro() < at || rec.Partition != e.RawPartition {
				t.Errorf("%s arrived at %d; ingested_at is %d, the record's time %d", e.ID, at, e.IngestedAt, rec.Timestamp.UnixMicro())
			}
		}
	}
	if len(seen) != 2*n {
		t.Errorf("%d events were written, want %d", len(seen), 2*n)
	}
	checkOrders(t, codecs, read(event.TopicKPIPartial), 2*n/3)
}

// checkOrders adds up the orders and the revenue of the latest partials.
func checkOrders(t *testing.T, codecs *schema.Codecs, recs []*kgo.Record, want int64) {
	t.Helper()
	latest := map[string]event.KPIPartial{}
	for _, rec := range recs {
		var p event.KPIPartial
		if err := codecs.Decode(t.Context(), event.TopicKPIPartial, rec.Value, &p); err != nil {
			t.Fatal(err)
		}
		latest[string(rec.Key)] = p
	}
	orders, revenue := map[string]int64{}, map[string]event.Sum{}
	for _, p := range latest {
		orders[p.Grain] += p.Orders
		revenue[p.Grain] = revenue[p.Grain].Add(p.Revenue)
	}
	for _, g := range kpi.Grains() {
		if orders[g.Name] != want || revenue[g.Name] != event.SumOf(want*2*event.MicrosPerUnit) {
			t.Errorf("grain %s has %d orders and revenue %s, want %d and %d units", g.Name, orders[g.Name], revenue[g.Name].Big(), want, 2*want)
		}
	}
}

// readCommitted reads what is committed in a topic.
func readCommitted(t *testing.T, adm *kadm.Client, brokers kgo.Opt, topic string) []*kgo.Record {
	t.Helper()
	ends, err := adm.ListCommittedOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	from, left := map[int32]kgo.Offset{}, map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			from[o.Partition], left[o.Partition] = kgo.NewOffset().AtStart(), o.Offset
		}
	})
	if len(left) == 0 {
		return nil
	}
	cl, err := kgo.NewClient(brokers, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("reading %s: %v is left", topic, left)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out = append(out, r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return out
}
