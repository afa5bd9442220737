package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"

	"millrace/workflows/name"
)

// LineageConfig is where lineage events go besides the table lineage_events.
type LineageConfig struct {
	URL       string        `koanf:"url" desc:"address of an OpenLineage receiver; events go to its /api/v1/lineage; empty: only to the table lineage_events"`
	APIKey    string        `koanf:"api_key" desc:"key that is sent to it as Authorization: Bearer" secret:"true"`
	Namespace string        `koanf:"namespace" desc:"namespace of this platform's jobs"`
	Every     time.Duration `koanf:"every" desc:"how often it is looked for events that are not sent yet"`
}

// DefaultLineageConfig sends nothing.
func DefaultLineageConfig() LineageConfig {
	return LineageConfig{Namespace: "millrace", Every: 5 * time.Second}
}

// Validate reports every problem.
func (c LineageConfig) Validate() error {
	var errs []error
	if c.URL != "" {
		if u, err := url.Parse(c.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			errs = append(errs, fmt.Errorf("url: %.200q is not http://host or https://host", c.URL))
		}
	}
	if c.Namespace == "" {
		errs = append(errs, errors.New("namespace: must not be empty"))
	}
	if c.Every < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("every: %s is below 100ms", c.Every))
	}
	return errors.Join(errs...)
}

// Lineage tells, in OpenLineage's words, which run read and wrote what. It listens to the notes of the beginning and the end of runs, so that it says what workflow_runs
// says, and puts its events into the table lineage_events, from which they are sent. It never fails or holds up a run.
type Lineage struct {
	interceptor.WorkerInterceptorBase
	cfg     LineageConfig
	conn    driver.Conn
	cluster string
	places  LineagePlaces
	http    *http.Client
	log     *slog.Logger
	now     func() time.Time
	events  *prometheus.CounterVec
	unsent  prometheus.Gauge
	failed  *prometheus.CounterVec
}

// NewLineage makes it. cluster is that of olap.Options.
func NewLineage(cfg LineageConfig, conn driver.Conn, cluster string, places LineagePlaces, reg prometheus.Registerer, log *slog.Logger) *Lineage {
	return &Lineage{
		cfg: cfg, conn: conn, cluster: cluster, places: places, http: &http.Client{Timeout: 10 * time.Second}, log: log, now: time.Now,
		events: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_lineage_events_total", Help: "Lineage events of workflow runs, by their type."}, []string{"event"})),
		unsent: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_lineage_unsent_events", Help: "Lineage events that the receiver has not taken yet, at most 100."})),
		failed: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_lineage_failures_total", Help: "Lineage events that could not be written (step write) or sent (step send); sending is tried again."}, []string{"step"})),
	}
}

// lineageWait bounds how long a note may be held up.
const lineageWait = 2 * time.Second

// InterceptActivity implements interceptor.WorkerInterceptor.
func (l *Lineage) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &lineageListener{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}, lineage: l}
}

type lineageListener struct {
	interceptor.ActivityInboundInterceptorBase
	lineage *Lineage
}

// ExecuteActivity implements interceptor.ActivityInboundInterceptor.
func (i *lineageListener) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	out, err := i.Next.ExecuteActivity(ctx, in)
	if err != nil || len(in.Args) != 1 {
		return out, err
	}
	switch activity.GetInfo(ctx).ActivityType.Name {
	case name.BeginRun:
		if r, ok := in.Args[0].(Run); ok {
			i.lineage.tell(ctx, r, nil)
		}
	case name.EndRun:
		if e, ok := in.Args[0].(RunEnd); ok {
			i.lineage.tell(ctx, e.Run, &e)
		}
	}
	return out, nil
}

// tell writes the event of a run. What fails is counted and logged: a run is worth more than what is said about it.
func (l *Lineage) tell(ctx context.Context, r Run, end *RunEnd) {
	ctx, cancel := context.WithTimeout(ctx, lineageWait)
	defer cancel()
	e := newLineage(l.cfg.Namespace, l.places, r, end, l.now())
	text, err := e.text()
	if err == nil {
		err = l.put(ctx, row{l.now(), e.EventType, e.Run.RunID, e.Job.Name, datasetNames(e.Inputs), datasetNames(e.Outputs), text, 0})
	}
	if err != nil {
		l.failed.WithLabelValues("write").Inc()
		l.log.WarnContext(ctx, "lineage event not written", "type", r.Type, "id", r.ID, "error", err)
		return
	}
	l.events.WithLabelValues(e.EventType).Inc()
}

// row is one of the table lineage_events.
type row struct {
	at      time.Time
	kind    string
	run     string
	job     string
	inputs  []string
	outputs []string
	body    string
	sent    uint8 // 0 not yet, 1 taken, 2 refused for good
}

func (l *Lineage) put(ctx context.Context, rows ...row) error {
	table := "lineage_events"
	if l.cluster != "" {
		table += "_local"
	}
	batch, err := l.conn.PrepareBatch(ctx, "INSERT INTO "+table)
	if err != nil {
		return fmt.Errorf("writing lineage_events: %w", err)
	}
	defer func() { _ = batch.Close() }() // sent, or given up
	for _, r := range rows {
		version := uint64(l.now().UnixMicro()) // the later copy of an event says whether it was sent
		if err := batch.Append(r.at, r.kind, r.run, r.job, r.inputs, r.outputs, r.body, r.sent, version); err != nil {
			return fmt.Errorf("writing lineage_events: %w", err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("writing lineage_events: %w", err)
	}
	return nil
}
