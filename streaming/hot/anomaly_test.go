package hot

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/kpi"
	"millrace/streaming"
)

func TestWhatATaskCountedIsSentBeforeTheWatermarkPassesIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	rng := rand.New(rand.NewPCG(3, 3))
	want := map[string]int64{}
	note := func(tenant, what string, at time.Time, n int64) {
		want[fmt.Sprint(tenant, " ", at.Truncate(time.Minute).Sub(t0), " ", what)] += n
	}
	for i := range 400 {
		at := t0.Add(time.Duration(i)*time.Second + time.Duration(rng.IntN(1500))*time.Millisecond)
		tenant := []string{"a", "b"}[rng.IntN(2)]
		e := event.Event{ID: fmt.Sprint(i), Tenant: tenant, VisitorID: fmt.Sprint("v", i%7), OccurredAt: at.UnixMicro()}
		switch rng.IntN(3) {
		case 0:
			e.Name = event.NamePageView
			note(tenant, "page views ", at, 1)
		case 1:
			e.Name, e.Currency, e.Value, e.OrderID = event.NamePurchase, []string{"EUR", "USD"}[rng.IntN(2)], micros(2), e.ID
			note(tenant, "orders "+e.Currency, at, 1)
			note(tenant, "revenue "+e.Currency, at, 2)
		default:
			e.Name, e.ItemID, e.StockLevel = event.NameInventoryChange, "i", new(int64(0))
			note(tenant, "stock-outs ", at, 1)
		}
		r.sendAt(at.Add(1500*time.Millisecond), e)
		switch rng.IntN(30) {
		case 0:
			r.feed()
			r.commit()
		case 1:
			r.feed()
			r.ok(r.h.Abort())
		case 2:
			r.ok(r.h.Crash())
		}
	}
	r.settle()
	got := map[string]int64{}
	passed := int64(math.MinInt64)
	for _, rec := range r.h.Outputs(event.TopicRekeyKPI) {
		for _, h := range rec.Headers {
			if h.Key == streaming.HeaderWatermark {
				passed = max(passed, int64(binary.BigEndian.Uint64(h.Value[4:])))
			}
		}
		if rec.Key == nil {
			continue // how far the task is
		}
		var p event.KPIPartial
		r.ok(r.codecs.Decode(t.Context(), event.TopicRekeyKPI, rec.Value, &p))
		if string(rec.Key) != p.Tenant || rec.Partition != streaming.PartitionOf(rec.Key, 4) {
			t.Errorf("%+v is in partition %d under %q", p, rec.Partition, rec.Key)
		}
		if p.WindowStart+minuteMicros <= passed {
			t.Errorf("what was counted at %s is sent when the watermark is at %s", event.Time(p.WindowStart), event.Time(passed))
		}
		revenue, _ := p.Revenue.Int64()
		for what, n := range map[string]int64{"page views ": p.PageViews, "orders " + p.Currency: p.Orders, "revenue " + p.Currency: revenue / event.MicrosPerUnit, "stock-outs ": p.StockOuts} {
			if n != 0 {
				got[fmt.Sprint(p.Tenant, " ", event.Time(p.WindowStart).Sub(t0), " ", what)] += n
			}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestAnIncidentIsOneAlertWhateverHappensToTheWorker gives five days of what two tasks counted to the second stage over a broker, and stops its worker on the way, also within
// incidents. There is a drop on the fourth day and a rise on the fifth.
func TestAnIncidentIsOneAlertWhateverHappensToTheWorker(t *testing.T) {
	t.Parallel()
	const partitions, tasks, group = 2, 2, "entity"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	codecs, err := testCodecs()
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Anomaly.KPIs = []string{kpi.PageViews.String(), kpi.Revenue.String()}
	newTopology := func(reg prometheus.Registerer) streaming.Topology {
		top, err := EntityTopology(cfg, partitions, codecs, reg)
		if err != nil {
			t.Fatal(err)
		}
		for topic := range top.Upstream { // those of the test are all there are
			top.Upstream[topic] = tasks
		}
		return top
	}
	brokers := kgo.SeedBrokers(cluster.ListenAddrs()...)
	cl, err := kgo.NewClient(brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	for _, topic := range append(newTopology(prometheus.NewRegistry()).Inputs, event.TopicAlerts, event.TopicLiveUpdates, "state.hot.entity") {
		if _, err := adm.CreateTopic(t.Context(), partitions, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
	}
	start := func() (stop func()) {
		w, err := streaming.NewWorker(streaming.Config{Group: group, InstanceID: "0", CommitInterval: 20 * time.Millisecond, MergeWait: time.Millisecond, SessionTimeout: 6 * time.Second, TransactionTimeout: 3 * time.Second},
			newTopology(prometheus.NewRegistry()), []kgo.Opt{brokers}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		return func() {
			t.Helper()
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	const day = 1440
	first := t0.Unix() / 60
	drop, rise := first+4*day-300, first+5*day-400
	rng := rand.New(rand.NewPCG(1, 2))
	// part is what a task says of a minute, and how far it is then.
	part := func(task int32, minute int64) *kgo.Record {
		factor := 1 + 0.5*math.Sin(2*math.Pi*float64(minute%day)/day)
		switch {
		case minute >= drop && minute < drop+25:
			factor = 0
		case minute >= rise && minute < rise+25:
			factor *= 3
		}
		n := int64(factor * (80 + 9*rng.NormFloat64()))
		p := event.KPIPartial{Family: "shop", Grain: "1m", Tenant: "shop", WindowStart: minute * minuteMicros, Currency: "", KafkaPartition: task, Events: n, PageViews: n}
		value, err := codecs.Append(nil, event.TopicRekeyKPI, &p)
		if err != nil {
			t.Fatal(err)
		}
		wm := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(task)), uint64(p.WindowStart+minuteMicros-1))
		key := []byte("shop")
		return &kgo.Record{Topic: event.TopicRekeyKPI, Partition: streaming.PartitionOf(key, partitions), Key: key, Value: value, Headers: []kgo.RecordHeader{{Key: streaming.HeaderWatermark, Value: append(wm, 0)}}}
	}
	// beats say of the other topics how far their tasks are.
	beats := func(minute int64) (out []*kgo.Record) {
		for in, topic := range newTopology(prometheus.NewRegistry()).Inputs {
			if in == inKPI || in == inProduct {
				continue
			}
			for p := range int32(partitions) {
				for task := range uint32(tasks) {
					wm := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, task), uint64(minute*minuteMicros))
					out = append(out, &kgo.Record{Topic: topic, Partition: p, Headers: []kgo.RecordHeader{{Key: streaming.HeaderWatermark, Value: append(wm, 1)}}})
				}
			}
		}
		return out
	}
	next := first
	send := func(to int64) {
		t.Helper()
		recs := beats(to)
		for ; next < to; next++ {
			for task := range int32(tasks) {
				recs = append(recs, part(task, next))
			}
		}
		if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	caughtUp := func() {
		t.Helper()
		deadline := time.Now().Add(90 * time.Second)
		for {
			ends, err := adm.ListEndOffsets(t.Context(), event.TopicRekeyKPI)
			if err != nil {
				t.Fatal(err)
			}
			done, err := adm.FetchOffsets(t.Context(), group)
			left := int64(0)
			ends.Each(func(o kadm.ListedOffset) {
				at, _ := done.Lookup(o.Topic, o.Partition)
				left += o.Offset - max(0, at.At)
			})
			if err == nil && left == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("after 90 s %d records are not handled (%v)", left, err)
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-t.Context().Done():
				t.Fatal("the test was ended")
			}
		}
	}
	for _, to := range []int64{drop - 200, drop + 5, drop + 12, drop + 100, rise + 8, rise + 300} {
		stop := start()
		send(to)
		caughtUp()
		// The inputs that are silent hold the watermark until they are idle; what comes twice would be there by the time the last worker has stopped.
		for deadline := time.Now().Add(30 * time.Second); to == rise+300 && len(readCommitted(t, adm, brokers, event.TopicAlerts)) < 2 && time.Now().Before(deadline); {
			<-time.After(50 * time.Millisecond)
		}
		stop()
	}
	var found []string
	ids := map[string]bool{}
	for _, rec := range readCommitted(t, adm, brokers, event.TopicAlerts) {
		var a event.Alert
		if err := codecs.Decode(t.Context(), event.TopicAlerts, rec.Value, &a); err != nil {
			t.Fatal(err)
		}
		var d anomalyDetails
		if err := json.Unmarshal([]byte(a.Details), &d); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s %s %v %s", a.Rule, a.Severity, a.Reasons, a.Details)
		found = append(found, fmt.Sprint(a.Kind, " ", a.Rule, " ", a.Entity, " ", a.Key, " ", a.Tenant, " ", d.Change, " ", a.Confirmed, " ", a.RuleVersion))
		begins := drop
		if d.Change == "rise" {
			begins = rise
		}
		if off := a.OccurredAt/minuteMicros - begins; off < -2 || off > 2 {
			t.Errorf("%s begins %d minutes after the incident", a.Details, off)
		}
		if d.Low > d.Expected || d.Expected > d.High || (d.Observed < d.Low) != (d.Change == "drop") {
			t.Errorf("%s is not outside of its range", a.Details)
		}
		if want := event.AlertID(a.Rule, a.RuleVersion, string(a.AppendKey(nil)), a.TriggerEventID); a.AlertID != want || ids[a.AlertID] {
			t.Errorf("id %s, want %s and once", a.AlertID, want)
		}
		ids[a.AlertID] = true
	}
	slices.Sort(found)
	want := []string{"anomaly kpi.anomaly.page_views kpi page_views shop drop true 1", "anomaly kpi.anomaly.page_views kpi page_views shop rise true 1"}
	if d := cmp.Diff(want, found); d != "" {
		t.Error(d)
	}
}

func TestEveryProblemOfWhatIsWatchedIsReported(t *testing.T) {
	t.Parallel()
	cfg := DefaultAnomalyConfig()
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	cfg.KPIs, cfg.Wait, cfg.Rule.Calm = []string{"orders", "visitors", "orders"}, -1, 0
	err := fmt.Sprint(cfg.Validate())
	for _, want := range []string{`kpis: "visitors" is none of [events page_views`, "kpis: orders is named twice", "wait: -1ns", "rule: calm: 0s"} {
		if !strings.Contains(err, want) {
			t.Errorf("%s\ndoes not say %s", err, want)
		}
	}
}

// BenchmarkKPIMinutes is what the first stage pays for each event.
func BenchmarkKPIMinutes(b *testing.B) {
	codecs, err := testCodecs()
	if err != nil {
		b.Fatal(err)
	}
	r := newRig(b, option{})
	job := r.h.Operator().(*operator).jobs.owners[ownerMinute].(*kpiMinutes)
	g := newTraffic(codecs)
	dec := codecs.NewEventDecoder()
	events := make([]event.Event, 20_000)
	for i := range events {
		in, rec := g.next()
		if _, err := dec.DecodeRaw(b.Context(), event.Category(in), rec.Value, &events[i]); err != nil {
			b.Fatal(err)
		}
		events[i].Items, events[i].IngestedAt = nil, events[i].OccurredAt
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if err := job.event(&events[n%len(events)], nil); err != nil {
			b.Fatal(err)
		}
		n++
	}
}
