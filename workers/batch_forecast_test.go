package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"go.temporal.io/sdk/temporal"

	"millrace/activities"
	"millrace/event"
	"millrace/event/schema"
	"millrace/features/demand"
	"millrace/internal/embedded"
	"millrace/internal/failpoint"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workflows/name"
)

// forecastTest is a batchTest with Kafka and a shop's orders in the lake.
type forecastTest struct {
	*batchTest
	kafka  *kgo.Client
	offset int64
	sold   map[string]float64
}

// orders writes the orders of a product up to the hour end: as many an hour as rate says, from a Poisson process.
func (b *forecastTest) orders(t *testing.T, w *lakehouse.Writer, product string, end time.Time, days int, price func(day int) float64, rate func(hour int) float64) {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(len(product)), uint64(days)))
	for h := range days * 24 {
		limit, p := math.Exp(-rate(h)), 1.0
		for {
			if p *= r.Float64(); p <= limit {
				break
			}
			at := end.Add(-time.Duration(days*24-h) * time.Hour).Add(time.Duration(r.IntN(3600)) * time.Second).UnixMicro()
			micros := int64(math.Round(price(h/24)*100)) * 10_000
			e := &event.Event{
				ID: fmt.Sprintf("%s-%d", product, b.offset), Tenant: "default", Name: event.NamePurchase, VisitorID: "v" + fmt.Sprint(b.offset), Source: "web", SchemaVersion: 1, OccurredAt: at, ReceivedAt: at, Currency: "EUR",
				OrderID: fmt.Sprint(b.offset), Value: &micros, Items: []event.Item{{ItemID: product, Quantity: 1, Price: &micros}},
			}
			e.IngestedAt, e.RawTopic, e.RawOffset, e.OrderRank = at, event.Purchase.RawTopic(), b.offset, 1
			if b.offset%50 == 0 {
				e.OrderRank = 2 // a copy, which counts nowhere
			} else {
				b.sold[product]++
			}
			e.RowHash = e.ComputeRowHash()
			if err := w.WriteEvent(t.Context(), e, lakehouse.Provenance{Topic: event.Purchase.EventsTopic(), Offset: b.offset}); err != nil {
				t.Fatal(err)
			}
			b.offset++
		}
	}
}

func (b *forecastTest) forecast(t *testing.T, input string) (activities.Started, name.ForecastDemandResult, error) {
	t.Helper()
	run, s, err := activities.Start(t.Context(), b.client, activities.StartRequest{Type: name.ForecastDemand, Input: json.RawMessage(input), Trigger: name.Manual})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var r name.ForecastDemandResult
	return s, r, run.Get(ctx, &r)
}

// sent reads all forecasts on the topic, the last of each product.
func (b *forecastTest) sent(t *testing.T) map[string]demand.Published {
	t.Helper()
	codecs, err := schema.NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(b.cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	registry, err := sr.NewClient(sr.URLs(cfg.SchemaRegistry.URL))
	if err == nil {
		err = codecs.Register(t.Context(), registry)
	}
	if err != nil {
		t.Fatal(err)
	}
	ends, err := kadm.NewClient(b.kafka).ListEndOffsets(t.Context(), event.TopicRekeyProduct)
	if err != nil {
		t.Fatal(err)
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.servers.Endpoints().Kafka), kgo.ConsumeTopics(event.TopicRekeyProduct), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	out := map[string]demand.Published{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			left--
			var c event.ProductChange
			if err := codecs.Decode(ctx, r.Topic, r.Value, &c); err != nil {
				t.Fatal(err)
			}
			if r.Partition != event.Partition(r.Key, 2) || c.Kind != event.ProductForecast || c.Tenant != "default" {
				t.Errorf("%+v in partition %d", c, r.Partition)
			}
			var p demand.Published
			if err := json.Unmarshal(c.Body, &p); err != nil {
				t.Fatal(err)
			}
			out[c.ItemID] = p
		})
	}
	return out
}

// One test, because the servers take seconds to start.
func TestForecastsOnARealTemporal(t *testing.T) {
	t.Parallel()
	b := &forecastTest{batchTest: newBatchTest(t, embedded.KafkaChild), sold: map[string]float64{}}
	b.kafka = b.batchTest.kafka(t)
	read := olap.NewReader(b.clickhouse(t), olap.DefaultReadLimits())
	w, err := b.cat.NewWriter(t.Context(), event.Purchase.Table())
	if err != nil {
		t.Fatal(err)
	}
	r := b.start(t)
	eventuallySo(t, "the role is ready", func() bool { return b.ready(t) == "" })
	t.Run("a shop without orders has nothing to forecast", func(t *testing.T) {
		if _, got, err := b.forecast(t, `{"run": "first-night"}`); err != nil || got.Products != 0 || got.Rows != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})

	end := time.Now().UTC().Truncate(time.Hour)
	steady := func(int) float64 { return 20 }
	curve := func(rate float64) func(int) float64 {
		return func(h int) float64 {
			return rate * (1 + 0.8*math.Sin(float64(h%24)/24*2*math.Pi)) * []float64{0.7, 0.8, 0.9, 1, 1.2, 1.5, 0.9}[h/24%7]
		}
	}
	for i := range 6 {
		b.orders(t, w, fmt.Sprintf("usual-%d", i), end, 56, steady, curve(0.5+0.4*float64(i)))
	}
	changing := func(day int) float64 { return 20 * math.Pow(1.08, float64(day/5%5)-2) }
	b.orders(t, w, "priced", end, 56, changing, func(h int) float64 { return 2 * math.Pow(changing(h/24)/20, -2) })
	b.orders(t, w, "new", end, 6, steady, curve(2))
	b.orders(t, w, "seldom", end, 56, steady, func(int) float64 { return 0.02 })
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.cat.Append(t.Context(), event.Purchase.Table(), files, lakehouse.Vector{"topic": {0: 0}}, lakehouse.Vector{"topic": {0: b.offset}}); err != nil {
		t.Fatal(err)
	}

	t.Run("nothing is forecast from what was never published", func(t *testing.T) {
		s, _, err := b.forecast(t, `{}`)
		var app *temporal.ApplicationError
		if !errors.As(err, &app) || !strings.Contains(err.Error(), name.NotPublished) {
			t.Errorf("got %v", err)
		}
		b.keep(t, "forecast-refused", s.ID, s.RunID)
	})
	head, err := b.cat.Ref(t.Context(), event.Purchase.Table(), lakehouse.RefMain)
	if err == nil {
		err = b.cat.MoveRef(t.Context(), event.Purchase.Table(), lakehouse.RefPublished, 0, head.SnapshotID)
	}
	if err != nil {
		t.Fatal(err)
	}
	var first name.ForecastDemandResult
	t.Run("products are fitted, measured and handed out", func(t *testing.T) {
		s, got, err := b.forecast(t, `{"run": "night-1", "cost_share": 0.5}`)
		if err != nil {
			t.Fatal(err)
		}
		first = got
		t.Logf("%+v", got)
		if got.Products != 9 || got.Fitted != 8 || got.Metrics["priced"] != 1 || got.Metrics["share_better_than_naive"] < 0.6 || got.Metrics["mase_median"] >= 1 {
			t.Errorf("%+v", got)
		}
		sent := b.sent(t)
		if len(sent) != 9 || sent["new"].Model.Kind != "" || sent["seldom"].Model.Kind == "" {
			t.Errorf("%d products were sent: %+v", len(sent), sent)
		}
		for product, p := range sent {
			if p.Version != got.Version {
				t.Errorf("%s has version %s", product, p.Version)
			}
			if p.Model.Kind == "" {
				continue
			}
			if err := p.Model.Valid(); err != nil {
				t.Error(err)
			}
			if week, want := p.Model.Lead(demand.Week).Mean, b.sold[product]/8; strings.HasPrefix(product, "usual") && math.Abs(week-want) > 0.35*want {
				t.Errorf("%s: %.1f a week are forecast, %.1f were sold", product, week, want)
			}
		}
		rows, err := read.Forecasts(t.Context(), "default", nil, 100)
		if err != nil || len(rows) != 9 {
			t.Fatalf("%d rows: %v", len(rows), err)
		}
		for _, f := range rows {
			if f.Version != got.Version || f.Units != b.sold[f.Product] && f.Product != "new" || (f.State == "history") != (f.Product == "new") || (f.PriceState == "band") != (f.Product == "priced") || f.Currency != "EUR" {
				t.Errorf("%+v; %g were sold", f, b.sold[f.Product])
			}
			half := (f.ElasticityHigh - f.ElasticityLow) / 2 // one sample in twenty lies outside of the interval, and prices are looked at by whole days: which orders make a day depends on the hour at which the test runs
			if f.Product == "priced" && (math.Abs(f.Elasticity+2) > 2*half || half > 0.6 || f.PriceLow > f.PriceHigh || f.PriceFloor <= 0) {
				t.Errorf("%+v", f)
			}
		}
		hours, err := read.DemandHours(t.Context(), "default", "usual-5", end.Add(-72*time.Hour), end)
		if err != nil || len(hours) < 24 {
			t.Errorf("%d hours: %v", len(hours), err)
		}
		b.keep(t, "forecast-published", s.ID, s.RunID)
	})
	t.Run("the same run again does nothing, another run makes the same version", func(t *testing.T) {
		_, again, err := b.forecast(t, `{"run": "night-1", "cost_share": 0.5}`)
		if err != nil || len(again.Steps) != 2 || again.Steps[0].Outcome != name.Skipped || again.Steps[1].Outcome != name.Skipped {
			t.Errorf("%+v: %v", again, err)
		}
		_, other, err := b.forecast(t, `{"run": "night-1b", "cost_share": 0.5}`)
		if err != nil || other.Version != first.Version || !cmp.Equal(first.Metrics, other.Metrics) {
			t.Errorf("%+v after %+v: %v", other, first, err)
		}
	})
	r.stop()
	for i, at := range []string{activities.FailForecastFitted, activities.FailForecastSent} {
		t.Run("killed at "+at+" a forecast goes on and ends the same", func(t *testing.T) {
			dying := b.start(t, failpoint.Env+"="+at+"=kill@1")
			eventuallySo(t, "the role is ready", func() bool { return b.ready(t) == "" })
			run, s, err := activities.Start(t.Context(), b.client, activities.StartRequest{Type: name.ForecastDemand, Input: json.RawMessage(fmt.Sprintf(`{"run": "killed-%d", "cost_share": 0.5}`, i)), Trigger: name.Manual})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-dying.ended:
			case <-time.After(time.Minute):
				t.Fatal("the role was not killed")
			}
			next := b.start(t)
			defer next.stop()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			var got name.ForecastDemandResult
			if err := run.Get(ctx, &got); err != nil || got.Version != first.Version || !cmp.Equal(got.Metrics, first.Metrics) {
				t.Fatalf("%+v: %v", got, err)
			}
			if rows, err := read.Forecasts(t.Context(), "default", nil, 100); err != nil || len(rows) != 9 {
				t.Errorf("%d rows: %v", len(rows), err)
			}
			if i == 0 {
				b.keep(t, "forecast-killed", s.ID, s.RunID)
			}
		})
	}
}
