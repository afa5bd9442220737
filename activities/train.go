package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"

	"millrace/features/recommend"
	"millrace/internal/failpoint"
	"millrace/lakehouse"
	"millrace/live"
	"millrace/workflows/name"
)

// Failpoints of a training, for drills.
const (
	FailModelWritten   = "activities.train.written"   // the model's file is there, its result is not noted
	FailModelStored    = "activities.train.stored"    // the model is in Redis and not published
	FailModelPublished = "activities.train.published" // it is served, nothing is noted
)

// The lease of the snapshots that a training reads.
const (
	trainLease     = "train"
	trainLeaseTime = 24 * time.Hour
)

// States of a trained model, in the table models and in results.
const (
	modelTrained    = "trained"    // measured only
	modelPublished  = "published"  // served, or was
	modelRefused    = "refused"    // not better than popularity
	modelSuperseded = "superseded" // a model of newer events is served
	modelWithdrawn  = "withdrawn"  // somebody has rolled back from it
)

// TrainLake is what a training asks of the lakehouse.
type TrainLake interface {
	Ref(ctx context.Context, table, ref string) (lakehouse.RefState, error)
	Lease(ctx context.Context, table, kind, run string, snapshot int64, d time.Duration) (release func(context.Context) error, err error)
	ScanRows(ctx context.Context, table string, o lakehouse.ScanOptions, each func(arrow.RecordBatch) error) error
}

// Train is the training of recommendations.
type Train struct {
	lake   TrainLake
	runs   *Runs
	conn   driver.Conn
	rdb    redis.UniversalClient
	erased ErasedSource
	dir    string
	log    *slog.Logger
	m      trainMetrics
	now    func() time.Time
}

type trainMetrics struct {
	done    *prometheus.CounterVec
	quality *prometheus.GaugeVec
	rows    prometheus.Counter
	seconds prometheus.Histogram
}

// NewTrain makes the activities. dir is for plans and models; erased may be nil on a platform without erasures.
func NewTrain(lake TrainLake, runs *Runs, conn driver.Conn, rdb redis.UniversalClient, erased ErasedSource, dir string, reg prometheus.Registerer, log *slog.Logger) *Train {
	return &Train{lake: lake, runs: runs, conn: conn, rdb: rdb, erased: erased, dir: dir, log: log, now: time.Now, m: trainMetrics{
		done:    register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_train_models_total", Help: "Trained models by what became of them: published, refused, superseded, withdrawn, trained."}, []string{"model", "state"})),
		quality: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_train_quality_ratio", Help: "Measured on held-back events: recall and coverage of the model trained last, and of the most popular items."}, []string{"model", "metric"})),
		rows:    register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_train_rows_total", Help: "Rows of events read for training."})),
		seconds: register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "millrace_train_seconds", Help: "Time of one training, measurement included.", Buckets: prometheus.ExponentialBuckets(0.1, 3, 10)})),
	}}
}

// Register adds what runs on the queue "millrace".
func (t *Train) Register(w worker.ActivityRegistry) {
	for n, f := range map[string]any{name.TrainPlan: t.Plan, name.TrainPublish: t.Publish, name.TrainDrop: t.Drop} {
		w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: n})
	}
}

// RegisterHeavy adds what runs on the queue "millrace-heavy".
func (t *Train) RegisterHeavy(w worker.ActivityRegistry) {
	w.RegisterActivityWithOptions(t.Model, activity.RegisterOptions{Name: name.TrainModel})
}

// TrainPlanInput names a plan to be made: once for a run, however often the activity runs.
type TrainPlanInput struct {
	Input name.TrainRecommendationsInput `json:"input"`
	Run   string                         `json:"run"`
}

// TrainPlanOutput names a plan.
type TrainPlanOutput struct {
	Key     string `json:"key"`
	Version string `json:"version"`
}

// TrainInput names what a plan has planned.
type TrainInput struct {
	Input name.TrainRecommendationsInput `json:"input"`
	Key   string                         `json:"key"`
}

// TrainOutput says what was trained.
type TrainOutput struct {
	Version      string             `json:"version"`
	Rows         int64              `json:"rows"`
	Erased       int64              `json:"erased"` // rows of erased people, left out
	Interactions int64              `json:"interactions"`
	Items        int                `json:"items"`
	Better       bool               `json:"better"`
	Why          string             `json:"why,omitempty"` // it is not
	Metrics      map[string]float64 `json:"metrics"`
	TrainedAt    time.Time          `json:"trained_at"`
}

// TrainPublished says what became of a model.
type TrainPublished struct {
	TrainOutput
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	Keys   int64  `json:"keys"` // of Redis that it is in
}

// trainFailure is failure for errors of a training.
func trainFailure(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lakehouse.ErrNoRef):
		return failure(ctx, fmt.Errorf("%w; `millrace lake publish TABLE --wait` publishes it now", err), name.NotPublished, false)
	case errors.Is(err, recommend.ErrTooManyItems):
		return failure(ctx, err, name.TooManyItems, false)
	case errors.Is(err, errModelLost):
		return failure(ctx, err, name.ModelLost, false)
	}
	return lakeFailure(ctx, err)
}

// Plan decides which snapshots are read, and keeps them from expiring.
func (t *Train) Plan(ctx context.Context, in TrainPlanInput) (TrainPlanOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	p, key, err := t.plan(ctx, in)
	return TrainPlanOutput{key, p.Version}, trainFailure(ctx, err)
}

// Model reads the events, measures and fits the model, and writes it to a file. What a file says is not done again.
func (t *Train) Model(ctx context.Context, in TrainInput) (TrainOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	out, err := t.model(ctx, in, func(rows int64) { b.note(Progress{Rows: rows}) })
	return out, trainFailure(ctx, err)
}

// Publish brings the model into Redis and has it served if it may be. Repeated, it does the same again, which changes nothing.
func (t *Train) Publish(ctx context.Context, in TrainInput) (TrainPublished, error) {
	b := startBeats(ctx)
	defer b.end()
	out, err := t.publish(ctx, in)
	return out, trainFailure(ctx, err)
}

// Drop ends the leases and removes the files.
func (t *Train) Drop(ctx context.Context, in TrainInput) error {
	return trainFailure(ctx, t.drop(ctx, in))
}

func (t *Train) publish(ctx context.Context, in TrainInput) (TrainPublished, error) {
	f, err := openTrain(t.dir, in.Input.Model, in.Key)
	if err != nil {
		return TrainPublished{}, err
	}
	p, r, err := f.trained()
	if err != nil {
		return TrainPublished{}, err
	}
	out := TrainPublished{TrainOutput: r, State: modelTrained}
	switch {
	case in.Input.Publish == name.PublishNever:
		out.Reason = "publish is never"
	case r.Items == 0:
		out.State, out.Reason = modelRefused, r.Why
	case in.Input.Publish == name.PublishBetter && !r.Better:
		out.State, out.Reason = modelRefused, r.Why
	default:
		if out.Keys, out.State, out.Reason, err = t.serve(ctx, f, in.Input, p, r); err != nil {
			return out, err
		}
	}
	if out.State == modelRefused {
		t.log.WarnContext(ctx, "training: the model is not published; the version before is served", "model", in.Input.Model, "version", r.Version, "reason", out.Reason)
	}
	if err := t.note(ctx, in.Input, p, out); err != nil {
		return out, err
	}
	t.m.done.WithLabelValues(in.Input.Model, out.State).Inc()
	return out, nil
}

// serve writes the model to Redis and swaps the version that is served.
func (t *Train) serve(ctx context.Context, f trainFolder, in name.TrainRecommendationsInput, p trainPlan, r TrainOutput) (keys int64, state, reason string, err error) {
	m := live.RecommendationModel{Tenant: in.Tenant, Model: in.Model}
	v := live.ModelVersion{Version: r.Version, InputAt: p.InputAt, TrainedAt: r.TrainedAt, Items: r.Items, Buckets: live.Buckets(r.Items), Metrics: r.Metrics}
	popular, lists, err := f.openModel()
	if err != nil {
		return 0, "", "", err
	}
	defer lists.close()
	if err := live.StoreModel(ctx, t.rdb, m, v, popular, lists.each); err != nil {
		return 0, "", "", err
	}
	failpoint.Hit(FailModelStored)
	err = live.PublishModel(ctx, t.rdb, m, v, in.Keep, in.Publish == name.PublishAlways)
	switch {
	case errors.Is(err, live.ErrSuperseded):
		return 0, modelSuperseded, "a version trained on newer events is served", nil
	case errors.Is(err, live.ErrWithdrawn):
		return 0, modelWithdrawn, `somebody has rolled back from this version; "publish": "always" publishes it again`, nil
	case err != nil:
		return 0, "", "", err
	}
	failpoint.Hit(FailModelPublished)
	return int64(v.Buckets) + 1, modelPublished, "", nil
}

// note writes the row of the table models.
func (t *Train) note(ctx context.Context, in name.TrainRecommendationsInput, p trainPlan, out TrainPublished) error {
	snapshots := map[string]int64{}
	for _, s := range p.Snapshots {
		snapshots[s.Table] = s.Snapshot
	}
	now := t.now()
	err := t.runs.insert(ctx, "models", in.Model, in.Tenant, out.Version, out.State, out.Reason, p.InputAt, out.TrainedAt, now, snapshots, out.Metrics, out.Rows, int64(out.Items), out.Keys, uint64(now.UnixMicro()))
	if err != nil {
		return fmt.Errorf("noting version %s of model %s in models: %w", out.Version, in.Model, err)
	}
	return nil
}
