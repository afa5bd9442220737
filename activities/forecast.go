package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"

	"millrace/event"
	"millrace/internal/failpoint"
	"millrace/lakehouse"
	"millrace/workflows/name"
)

// Failpoints of a forecast, for drills.
const (
	FailForecastFitted = "activities.forecast.fitted" // the files are there, the result is not noted
	FailForecastSent   = "activities.forecast.sent"   // the models are with the stream, the tables are not written
)

const forecastLease = "forecast"

// ProductTopic is where forecasts go: to the tasks of their products.
type ProductTopic interface {
	Send(ctx context.Context, changes []event.ProductChange) error
}

// Forecast is the forecast of demand.
type Forecast struct {
	lake   TrainLake
	runs   *Runs
	conn   driver.Conn
	topic  ProductTopic
	erased ErasedSource
	dir    string
	log    *slog.Logger
	m      forecastMetrics
	now    func() time.Time
}

type forecastMetrics struct {
	products *prometheus.GaugeVec
	quality  *prometheus.GaugeVec
	seconds  prometheus.Histogram
}

// NewForecast makes the activities. dir is for plans and results; erased may be nil on a platform without erasures.
func NewForecast(lake TrainLake, runs *Runs, conn driver.Conn, topic ProductTopic, erased ErasedSource, dir string, reg prometheus.Registerer, log *slog.Logger) *Forecast {
	return &Forecast{lake: lake, runs: runs, conn: conn, topic: topic, erased: erased, dir: dir, log: log, now: time.Now, m: forecastMetrics{
		products: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_forecast_products", Help: "Products of the last fit by what came of it: fitted, history (too short), priced."}, []string{"tenant", "state"})),
		quality:  register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_forecast_mase_ratio", Help: "Mean absolute scaled error on held-back days over the products of the last fit: median, p90, and share below 1."}, []string{"tenant", "statistic"})),
		seconds:  register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "millrace_forecast_fit_seconds", Help: "Time of one fit of all products.", Buckets: prometheus.ExponentialBuckets(0.1, 3, 10)})),
	}}
}

// Register adds what runs on the queue "millrace".
func (t *Forecast) Register(w worker.ActivityRegistry) {
	for n, f := range map[string]any{name.ForecastPlan: t.Plan, name.ForecastPublish: t.Publish, name.ForecastDrop: t.Drop} {
		w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: n})
	}
}

// RegisterHeavy adds what runs on the queue "millrace-heavy".
func (t *Forecast) RegisterHeavy(w worker.ActivityRegistry) {
	w.RegisterActivityWithOptions(t.Fit, activity.RegisterOptions{Name: name.ForecastFit})
}

// ForecastPlanInput names a plan to be made: once for a run, however often the activity runs.
type ForecastPlanInput struct {
	Input name.ForecastDemandInput `json:"input"`
	Run   string                   `json:"run"`
}

// ForecastPlanOutput names a plan.
type ForecastPlanOutput struct {
	Key     string `json:"key"`
	Version string `json:"version"`
}

// ForecastInput names what a plan has planned.
type ForecastInput struct {
	Input name.ForecastDemandInput `json:"input"`
	Key   string                   `json:"key"`
}

// ForecastOutput says what was fitted.
type ForecastOutput struct {
	Version  string             `json:"version"`
	Rows     int64              `json:"rows"`
	Erased   int64              `json:"erased"` // rows of erased people, left out
	Products int                `json:"products"`
	Fitted   int                `json:"fitted"`
	Metrics  map[string]float64 `json:"metrics"`
	FittedAt time.Time          `json:"fitted_at"`
}

// ForecastPublished says where it went.
type ForecastPublished struct {
	ForecastOutput
	Sent  int64 `json:"sent"`  // records to the stream
	Hours int64 `json:"hours"` // rows of demand_hourly
}

// forecastFailure is failure for errors of a forecast.
func forecastFailure(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lakehouse.ErrNoRef):
		return failure(ctx, fmt.Errorf("%w; `millrace lake publish TABLE --wait` publishes it now", err), name.NotPublished, false)
	case errors.Is(err, errTooManyProducts):
		return failure(ctx, err, name.TooManyProducts, false)
	case errors.Is(err, errForecastLost):
		return failure(ctx, err, name.ForecastLost, false)
	}
	return lakeFailure(ctx, err)
}

// Plan decides which snapshot is read, and keeps it from expiring.
func (t *Forecast) Plan(ctx context.Context, in ForecastPlanInput) (ForecastPlanOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	p, key, err := t.plan(ctx, in)
	return ForecastPlanOutput{key, p.Version}, forecastFailure(ctx, err)
}

// Fit reads the orders and fits each product. What a file says is not done again.
func (t *Forecast) Fit(ctx context.Context, in ForecastInput) (ForecastOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	out, err := t.fit(ctx, in, func(rows int64) { b.note(Progress{Rows: rows}) })
	return out, forecastFailure(ctx, err)
}

// Publish hands the models to the stream and writes the tables. Repeated, it does the same again, which changes nothing.
func (t *Forecast) Publish(ctx context.Context, in ForecastInput) (ForecastPublished, error) {
	b := startBeats(ctx)
	defer b.end()
	out, err := t.publish(ctx, in, func(rows int64) { b.note(Progress{Rows: rows}) })
	return out, forecastFailure(ctx, err)
}

// Drop ends the lease and removes the files.
func (t *Forecast) Drop(ctx context.Context, in ForecastInput) error {
	f, err := openForecast(t.dir, in.Input.Tenant, in.Key)
	if err != nil {
		return forecastFailure(ctx, err)
	}
	var p forecastPlan
	if _, err := f.read("plan.json", &p); err != nil {
		return forecastFailure(ctx, err)
	}
	if p.Snapshot != 0 {
		release, err := t.lake.Lease(ctx, event.Purchase.Table(), forecastLease, in.Key, p.Snapshot, trainLeaseTime)
		if err == nil {
			err = release(ctx)
		}
		if err != nil { // it ends by itself
			t.log.WarnContext(ctx, "forecast: the lease is left to its time", "error", err)
		}
	}
	return forecastFailure(ctx, f.drop())
}

// forecastPlan is plan.json.
type forecastPlan struct {
	Made     time.Time `json:"made"`
	InputAt  time.Time `json:"input_at"` // of the snapshot
	From     time.Time `json:"from"`     // of the oldest order that counts, a full hour
	Snapshot int64     `json:"snapshot"`
	Version  string    `json:"version"`
}

func (t *Forecast) plan(ctx context.Context, in ForecastPlanInput) (forecastPlan, string, error) {
	text, err := json.Marshal(in.Input)
	if err != nil {
		return forecastPlan{}, "", fmt.Errorf("planning a forecast: %w", err)
	}
	key := digestOf(in.Run, string(text))
	f, err := openForecast(t.dir, in.Input.Tenant, key)
	if err != nil {
		return forecastPlan{}, "", err
	}
	if err := dropOld(t.dir, forecastFolderName(in.Input.Tenant), t.now().Add(-oldPlan)); err != nil {
		return forecastPlan{}, "", err
	}
	var p forecastPlan
	if there, err := f.read("plan.json", &p); err != nil || there {
		return p, key, err
	}
	p = forecastPlan{Made: t.now().UTC()}
	ref, err := readFrom(ctx, t.lake, event.Purchase.Table(), in.Input.Ref)
	if err != nil {
		return p, "", err
	}
	if ref.SnapshotID != 0 {
		if _, err := t.lake.Lease(ctx, event.Purchase.Table(), forecastLease, key, ref.SnapshotID, trainLeaseTime); err != nil {
			return p, "", err
		}
		p.Snapshot, p.InputAt = ref.SnapshotID, ref.At.UTC()
		p.From = p.InputAt.Add(-time.Duration(in.Input.LookBack)).Truncate(time.Hour)
	}
	what := in.Input
	what.Run, what.Ref = "", ""
	about, err := json.Marshal(struct {
		Input    name.ForecastDemandInput
		Snapshot int64
	}{what, p.Snapshot})
	if err != nil {
		return p, "", fmt.Errorf("planning a forecast: %w", err)
	}
	p.Version = p.InputAt.Format("20060102T150405Z") + "-" + digestOf(string(about))[:8]
	return p, key, f.write("plan.json", p)
}

func (t *Forecast) fit(ctx context.Context, in ForecastInput, progress func(rows int64)) (ForecastOutput, error) {
	f, err := openForecast(t.dir, in.Input.Tenant, in.Key)
	if err != nil {
		return ForecastOutput{}, err
	}
	var out ForecastOutput
	if there, err := f.read("result.json", &out); err != nil || there {
		return out, err
	}
	p, err := f.planned()
	if err != nil {
		return out, err
	}
	start := time.Now()
	out = ForecastOutput{Version: p.Version, FittedAt: t.now().UTC()}
	sold, err := t.read(ctx, in.Input, p, &out, progress)
	if err != nil {
		return out, err
	}
	products, err := sold.fit(ctx, in.Input, p)
	if err != nil {
		return out, err
	}
	out.Products = len(products)
	out.Metrics, out.Fitted = summary(products)
	if err := f.writeProducts(products); err != nil {
		return out, err
	}
	failpoint.Hit(FailForecastFitted)
	if err := f.write("result.json", out); err != nil {
		return out, err
	}
	t.m.seconds.Observe(time.Since(start).Seconds())
	t.show(in.Input.Tenant, out)
	t.log.InfoContext(ctx, "forecast: products are fitted", "tenant", in.Input.Tenant, "version", p.Version, "rows", out.Rows, "products", out.Products, "fitted", out.Fitted,
		"mase_median", out.Metrics["mase_median"], "share_below_1", out.Metrics["share_below_1"])
	return out, nil
}

func (t *Forecast) show(tenant string, out ForecastOutput) {
	t.m.products.WithLabelValues(tenant, "fitted").Set(float64(out.Fitted))
	t.m.products.WithLabelValues(tenant, "history").Set(float64(out.Products - out.Fitted))
	t.m.products.WithLabelValues(tenant, "priced").Set(out.Metrics["priced"])
	for statistic, metric := range map[string]string{"median": "mase_median", "p90": "mase_p90", "share_below_1": "share_below_1"} {
		t.m.quality.WithLabelValues(tenant, statistic).Set(out.Metrics[metric])
	}
}
