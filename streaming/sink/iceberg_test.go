package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/fault"
	"millrace/lakehouse"
)

// icebergBench is a broker, a lakehouse and what was sent.
type icebergBench struct {
	t       *testing.T
	cluster *kfake.Cluster
	opts    []kgo.Opt
	codecs  *schema.Codecs
	cl      *kgo.Client // transactional producer
	dir     string
	cat     *lakehouse.Catalog
	sent    map[string]*lakehouse.Totals // by table: what must be there
	alerts  map[string]int64             // confirmed alerts that were sent, by id, with their times
	next    int
	txns    int
}

const icebergPartitions = 3

// newIcebergBench makes the test a parallel one: each has a broker and a lakehouse of its own, and most of its time is waiting.
func newIcebergBench(t *testing.T) *icebergBench {
	t.Helper()
	t.Parallel()
	topics := []string{event.TopicEventsFailed, event.TopicRawFailed, event.TopicAlerts}
	for _, c := range event.Categories() {
		topics = append(topics, c.EventsTopic())
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(icebergPartitions, topics...), kfake.SeedTopics(1, event.TopicErasures))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	b := &icebergBench{t: t, cluster: cluster, opts: []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, dir: t.TempDir(), codecs: icebergCodecs(t), sent: map[string]*lakehouse.Totals{}, alerts: map[string]int64{}}
	b.cl, err = kgo.NewClient(append(b.opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("hot"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.cl.Close)
	b.cat = icebergOpen(t, b.dir)
	return b
}

func icebergCodecs(t *testing.T) *schema.Codecs {
	t.Helper()
	codecs, err := schema.NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	return codecs.AssignLocal()
}

func icebergOpen(t *testing.T, dir string) *lakehouse.Catalog {
	t.Helper()
	cfg := lakehouse.DefaultConfig()
	cfg.CatalogURI = "sqlite:///" + filepath.Join(dir, "catalog.db")
	cfg.Warehouse = "file://" + filepath.Join(dir, "warehouse")
	cfg.BusyTimeout = 200 * time.Millisecond
	cat, err := lakehouse.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cat.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := lakehouse.EnsureTables(t.Context(), cat); err != nil {
		t.Fatal(err)
	}
	return cat
}

func icebergFast() IcebergConfig {
	cfg := DefaultIcebergConfig()
	cfg.SessionTimeout, cfg.CommitInterval, cfg.CheckInterval, cfg.RetryMax = 6*time.Second, 100*time.Millisecond, 300*time.Millisecond, 500*time.Millisecond
	return cfg
}

var icebergNames = map[event.Category]string{
	event.Page: event.NamePageView, event.Cart: event.NameAddToCart, event.Purchase: event.NamePurchase, event.Inventory: event.NameInventoryChange,
	event.Exposure: event.NameExperimentExposure, event.Identity: event.NameIdentify, event.Custom: "quiz_done",
}

// icebergBase is 2026-03-01T00:00:00Z in µs.
const icebergBase = 1_772_323_200_000_000

func icebergEvent(cat event.Category, i int) *event.Event {
	value := int64(i) * 1_000_003
	e := &event.Event{
		ID: fmt.Sprintf("%s-%d", cat, i), Tenant: "default", Name: icebergNames[cat], VisitorID: fmt.Sprintf("v%d", i%50), Source: "web", SchemaVersion: 1,
		OccurredAt: icebergBase + int64(i), ReceivedAt: icebergBase + int64(i), Value: &value, Currency: []string{"USD", "EUR"}[i%2], ItemID: "p",
	}
	e.IngestedAt, e.RawTopic, e.RawOffset = icebergBase+int64(i)*int64(time.Hour/time.Microsecond)/100, cat.RawTopic(), int64(i)
	e.RowHash = e.ComputeRowHash()
	return e
}

// send writes n events to one partition in transactions, of which every third is aborted, so that offsets have gaps.
func (b *icebergBench) send(cat event.Category, partition int32, n int) {
	b.t.Helper()
	sent := b.sent[cat.Table()]
	if sent == nil {
		sent = &lakehouse.Totals{Values: map[string]event.Sum{}}
		b.sent[cat.Table()] = sent
	}
	for done := 0; done < n; {
		if err := b.cl.BeginTransaction(); err != nil {
			b.t.Fatal(err)
		}
		b.txns++
		abort := b.txns%3 == 1
		for range min(40, n-done) {
			e := icebergEvent(cat, b.next)
			b.next++
			b.cl.Produce(b.t.Context(), &kgo.Record{Topic: cat.EventsTopic(), Partition: partition, Value: b.codecs.AppendEnriched(nil, cat, e, nil)}, nil)
			if !abort {
				done++
				sent.Add(e.RowHash)
				sent.Distinct++
				sent.Values[e.Currency] = sent.Values[e.Currency].AddMicros(*e.Value)
			}
		}
		if err := b.cl.Flush(b.t.Context()); err != nil {
			b.t.Fatal(err)
		}
		if err := b.cl.EndTransaction(b.t.Context(), kgo.TransactionEndTry(!abort)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// all sends to every partition of some topics.
func (b *icebergBench) all(n int, cats ...event.Category) {
	b.t.Helper()
	for _, c := range cats {
		for p := range int32(icebergPartitions) {
			b.send(c, p, n)
		}
	}
}

// raw writes one record outside any event.
func (b *icebergBench) raw(topic string, partition int32, value []byte) {
	b.t.Helper()
	if err := b.cl.BeginTransaction(); err != nil {
		b.t.Fatal(err)
	}
	if err := b.cl.ProduceSync(b.t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: value}).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
	if err := b.cl.EndTransaction(b.t.Context(), kgo.TryCommit); err != nil {
		b.t.Fatal(err)
	}
}

type runningIceberg struct {
	*Iceberg
	reg  *prometheus.Registry
	stop context.CancelFunc
	done chan error
}

func (b *icebergBench) start(cfg IcebergConfig) *runningIceberg {
	b.t.Helper()
	r := &runningIceberg{reg: prometheus.NewRegistry(), done: make(chan error, 1)}
	var err error
	if r.Iceberg, err = NewIceberg(cfg, b.cat, b.codecs, b.opts, r.reg, slog.New(slog.NewTextHandler(b.t.Output(), nil))); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	r.stop = cancel
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- r.Run(ctx)
	}()
	b.t.Cleanup(func() { cancel(); <-ended })
	return r
}

// end stops the sink, which must end cleanly.
func (b *icebergBench) end(r *runningIceberg) {
	b.t.Helper()
	r.stop()
	if err := b.wait(r); err != nil {
		b.t.Error(err)
	}
}

func (b *icebergBench) wait(r *runningIceberg) error {
	b.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(30 * time.Second):
		b.t.Fatal("the sink did not end")
		return nil
	}
}

// leave takes a static member out of the group for good.
func (b *icebergBench) leave(group, instance string) {
	b.t.Helper()
	if _, err := kadm.NewClient(b.cl).LeaveGroup(b.t.Context(), kadm.LeaveGroup(group).InstanceIDs(instance)); err != nil {
		b.t.Fatal(err)
	}
}

// icebergValue is the value of a counter.
func icebergValue(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue()
}

func icebergEventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline, tick := time.After(40*time.Second), time.NewTicker(30*time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

// difference says how the tables differ from what was sent, once.
func (b *icebergBench) difference() error {
	for name, want := range b.sent {
		head, err := b.cat.Head(b.t.Context(), name)
		if err != nil {
			return err
		}
		if head.Rows != want.Count {
			return fmt.Errorf("table %s has %d rows of %d", name, head.Rows, want.Count)
		}
		got, err := b.cat.Totals(b.t.Context(), name)
		if err != nil {
			return err
		}
		got.IDHash = 0
		if d := cmp.Diff(*want, got); d != "" {
			return fmt.Errorf("table %s (-want +got):\n%s", name, d)
		}
	}
	return b.alertsDifference()
}

func (b *icebergBench) exact() {
	b.t.Helper()
	icebergEventually(b.t, "tables equal what was sent", b.difference)
}

func TestIcebergEventsOfAllCategoriesAreStoredOnceAndTheGroupShowsIt(t *testing.T) {
	b := newIcebergBench(t)
	r := b.start(icebergFast())
	b.all(60, event.Categories()...)
	failed := &event.Failed{ID: "f", FailedAt: icebergBase, ReceivedAt: icebergBase, IngestedAt: icebergBase, Reason: event.ReasonSchema}
	value, err := b.codecs.Append(nil, event.TopicEventsFailed, failed)
	if err != nil {
		t.Fatal(err)
	}
	b.raw(event.TopicEventsFailed, 1, value)
	b.exact()
	icebergEventually(t, "the failed event is stored", func() error {
		head, err := b.cat.Head(t.Context(), lakehouse.FailedTable)
		if err == nil && head.Rows != 1 {
			err = fmt.Errorf("%d rows", head.Rows)
		}
		return err
	})
	b.all(20, event.Purchase)
	b.exact()
	icebergEventually(t, "the sink is ready", r.Ready)
	b.end(r)
	if got, want := icebergValue(t, r.m.rows.WithLabelValues("events_purchase")), float64(3*80); got != want {
		t.Errorf("%v rows counted, want %v", got, want)
	}
	// The group's offsets are the vector's.
	offsets, err := kadm.NewClient(b.cl).FetchOffsets(t.Context(), icebergFast().Group)
	if err != nil {
		t.Fatal(err)
	}
	head, err := b.cat.Head(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	if len(head.Vector) != 1 {
		t.Fatalf("vector %s", head.Vector)
	}
	for id := range head.Vector {
		for p := range int32(icebergPartitions) {
			if o, ok := offsets.Lookup("events.purchase", p); !ok || o.At != head.Vector.At(id, p) || o.At == 0 {
				t.Errorf("partition %d: group at %d, head at %d", p, o.At, head.Vector.At(id, p))
			}
		}
	}
}

func TestIcebergARestartGoesOnFromTheHeadWhateverTheGroupSays(t *testing.T) {
	b := newIcebergBench(t)
	r := b.start(icebergFast())
	b.all(100, event.Purchase, event.Page)
	b.exact()
	b.end(r)
	adm := kadm.NewClient(b.cl)
	b.leave(icebergFast().Group, icebergFast().InstanceID)
	for _, at := range []int64{0, 200} { // behind and ahead of the truth
		var o kadm.Offsets
		for p := range int32(icebergPartitions) {
			o.AddOffset("events.purchase", p, at, -1)
		}
		if err := adm.CommitAllOffsets(t.Context(), icebergFast().Group, o); err != nil {
			t.Fatal(err)
		}
		b.all(300, event.Purchase)
		r = b.start(icebergFast())
		b.exact()
		b.end(r)
		b.leave(icebergFast().Group, icebergFast().InstanceID)
	}
}

func TestIcebergARollbackIsFollowedWithAndWithoutNewRows(t *testing.T) {
	b := newIcebergBench(t)
	r := b.start(icebergFast())
	b.all(60, event.Purchase)
	b.exact()
	first, err := b.cat.Head(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		b.all(60, event.Purchase)
		if i != 1 {
			b.exact()
		}
		b.rollback("events_purchase", first.SnapshotID)
		b.exact()
	}
	if icebergValue(t, r.m.rewinds.WithLabelValues("events_purchase")) < 1 {
		t.Error("no rewind was counted")
	}
	b.end(r)
}

// rollback takes main of a table back, however often the sink commits meanwhile.
func (b *icebergBench) rollback(name string, snapshot int64) {
	b.t.Helper()
	icebergEventually(b.t, "rolling back", func() error {
		tbl, err := b.cat.LoadForMaintenance(b.t.Context(), name)
		if err != nil {
			return err
		}
		tx := tbl.NewTransaction()
		if err := tx.RollbackToSnapshot(snapshot); err != nil {
			return err
		}
		_, err = tx.Commit(b.t.Context())
		return err
	})
}

func TestIcebergTwoMembersShareTopicsThroughRebalances(t *testing.T) {
	b := newIcebergBench(t)
	one, two := icebergFast(), icebergFast()
	one.InstanceID, two.InstanceID = "one", "two"
	r1 := b.start(one)
	b.all(100, event.Purchase, event.Page)
	b.exact()
	r2 := b.start(two)
	for range 8 { // commits of both race while partitions move
		b.all(10, event.Purchase, event.Page)
	}
	icebergEventually(t, "the second member has work", r2.Ready)
	b.exact()
	b.all(50, event.Purchase, event.Page)
	b.exact()
	b.end(r1)
	b.leave(one.Group, "one")
	b.all(50, event.Purchase, event.Page)
	b.exact()
	b.end(r2)
	if n := icebergValue(t, r2.m.rows.WithLabelValues("events_purchase")); n == 0 {
		t.Error("the second member committed nothing")
	}
}

func TestIcebergRowsThatCannotBeStoredGoToRawFailedAndTheOthersAreStored(t *testing.T) {
	b := newIcebergBench(t)
	b.all(30, event.Purchase)
	bad := icebergEvent(event.Purchase, 1_000_001)
	bad.PageTitle = "broken \xff"
	b.raw("events.purchase", 0, b.codecs.AppendEnriched(nil, event.Purchase, bad, nil))
	b.raw("events.purchase", 1, append(b.codecs.AppendEnriched(nil, event.Purchase, icebergEvent(event.Purchase, 1_000_002), nil)[:40], 0xff))
	b.raw("events.purchase", 2, []byte("no schema id"))
	b.all(30, event.Purchase)
	r := b.start(icebergFast())
	b.exact()
	b.end(r)
	if n := icebergValue(t, r.m.refused.WithLabelValues("events_purchase")); n != 3 {
		t.Errorf("%v rows refused", n)
	}
	got := map[string]string{}
	cl, err := kgo.NewClient(append(b.opts, kgo.ConsumeTopics(event.TopicRawFailed), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(got) < 3 && ctx.Err() == nil {
		for _, rec := range cl.PollFetches(ctx).Records() {
			var f event.Failed
			if err := b.codecs.Decode(ctx, event.TopicRawFailed, rec.Value, &f); err != nil {
				t.Fatal(err)
			}
			if f.Reason != event.ReasonStore || f.Payload == "" || f.ID == "" {
				t.Errorf("failed event %+v", f)
			}
			where, _, _ := strings.Cut(f.Error, "@")
			got[where] = f.ErrorPath + " " + f.ContentType
		}
	}
	if d := cmp.Diff(map[string]string{
		"events.purchase/0": "page_title application/json", "events.purchase/1": " avro/binary;base64", "events.purchase/2": " avro/binary;base64",
	}, got); d != "" {
		t.Error(d)
	}
}

func TestIcebergWhatNoWaitingMendsStopsTheSinkAndIsNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		id    fault.ID
		named string
		spoil func(b *icebergBench)
	}{
		"a topic made anew": {"MR-ICE-005", "events.purchase", func(b *icebergBench) {
			if err := errors.Join(b.cluster.DeleteTopic("events.purchase"), b.cluster.CreateTopic("events.purchase", icebergPartitions, nil)); err != nil {
				b.t.Fatal(err)
			}
		}},
		"rows that Kafka no longer holds": {"MR-ICE-004", "events.purchase/1", func(b *icebergBench) {
			b.send(event.Purchase, 1, 50)
			info := b.cluster.PartitionInfo("events.purchase", 1)
			if err := b.cluster.DeleteRecords("events.purchase", 1, info.HighWatermark-1); err != nil {
				b.t.Fatal(err)
			}
		}},
		"a head that another program made": {"MR-ICE-003", "events_purchase", func(b *icebergBench) {
			tbl, err := b.cat.LoadForMaintenance(b.t.Context(), "events_purchase")
			if err != nil {
				b.t.Fatal(err)
			}
			tx := tbl.NewTransaction()
			files, err := icebergFiles(b)
			if err == nil {
				err = tx.AddDataFiles(b.t.Context(), files, nil)
			}
			if err == nil {
				_, err = tx.Commit(b.t.Context())
			}
			if err != nil {
				b.t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newIcebergBench(t)
			r := b.start(icebergFast())
			b.all(40, event.Purchase)
			b.exact()
			b.end(r)
			tc.spoil(b)
			r = b.start(icebergFast())
			err := b.wait(r)
			if id, _ := fault.IDOf(err); id != tc.id || !strings.Contains(err.Error(), tc.named) {
				t.Errorf("got %v", err)
			}
			if r.Ready() == nil {
				t.Error("a stopped sink says it is ready")
			}
		})
	}
}

func TestIcebergAColumnAddedWhileTheSinkRunsIsWrittenFromThenOn(t *testing.T) {
	b := newIcebergBench(t)
	r := b.start(icebergFast())
	b.all(40, event.Purchase)
	b.exact()
	if err := icebergAddColumn(b, "events_purchase", "gift_note"); err != nil {
		t.Fatal(err)
	}
	b.all(40, event.Purchase)
	b.exact()
	b.all(40, event.Purchase)
	b.exact()
	b.end(r)
	head, err := b.cat.Head(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	if id := r.tables["events.purchase"].expire; head.SchemaID == 0 || id == 0 {
		t.Errorf("schema %d, expiry at %d", head.SchemaID, id)
	}
}

func TestIcebergSnapshotsStayBounded(t *testing.T) {
	b := newIcebergBench(t)
	cfg := icebergFast()
	cfg.CommitInterval, cfg.ExpireEvery, cfg.KeepSnapshots, cfg.KeepAge = time.Millisecond, 10, 5, 0
	r := b.start(cfg)
	for range 30 {
		b.send(event.Page, 0, 1)
		icebergEventually(t, "the row is stored", func() error {
			if h, err := b.cat.Head(t.Context(), "events_page"); err != nil || h.Rows != b.sent["events_page"].Count {
				return fmt.Errorf("%d rows: %w", h.Rows, err)
			}
			return nil
		})
	}
	icebergEventually(t, "snapshots are expired", func() error {
		if n := icebergValue(t, r.m.expired.WithLabelValues("events_page")); n < 15 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	b.exact()
	b.end(r)
}

func TestIcebergEveryProblemOfAConfigIsReported(t *testing.T) {
	_, err := NewIceberg(IcebergConfig{KeepAge: -1}, nil, icebergCodecs(t), nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err == nil {
		t.Fatal("an empty config was accepted")
	}
	for _, key := range []string{"group:", "instance_id:", "session_timeout:", "commit_interval:", "commit_bytes:", "commit_timeout:", "check_interval:", "retry_max:", "expire_every:", "keep_snapshots:", "keep_age:"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not in %v", key, err)
		}
	}
	if err := DefaultIcebergConfig().Validate(); err != nil {
		t.Error(err)
	}
}
