package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"millrace/event/schema"
	"millrace/internal/fault"
	"millrace/kpi"
	"millrace/lakehouse"
	"millrace/olap"
)

// shutdownGrace is how long requests may take to end when the API is stopped.
const shutdownGrace = 5 * time.Second

// Deps are what the API asks. They stay the caller's, and may be closed once Run has returned.
type Deps struct {
	ClickHouse driver.Conn
	// Redis holds the live KPIs, and cached answers; without it ClickHouse is asked.
	Redis redis.UniversalClient
	// Codecs read the records in Redis; registered with the platform's schema registry.
	Codecs *schema.Codecs
	// Definitions have the tenants' time zones.
	Definitions kpi.Definitions
	// Kafka is asked for the lag of the consumer groups; may be nil.
	Kafka *kadm.Client
	// Lake is asked for its tables; may be nil.
	Lake *lakehouse.Catalog
	// Temporal is asked for runs and schedules; may be nil.
	Temporal client.Client
	// Namespace is Temporal's, for links.
	Namespace string
	// Metrics are the addresses of the roles' /metrics, each as role=url, beside those of the configuration.
	Metrics []string
	// UI serves everything that is no path of the API; may be nil.
	UI http.Handler
	// Now is the clock; nil is the machine's.
	Now func() time.Time
}

// API answers questions. It is made by New and served by Run, or by Handler and Close.
type API struct {
	cfg         Config
	log         *slog.Logger
	m           *metrics
	olap        *olap.Reader
	redis       redis.UniversalClient
	codecs      *schema.Codecs
	definitions kpi.Definitions
	kafka       *kadm.Client
	lake        *lakehouse.Catalog
	temporal    client.Client
	namespace   string
	clock       func() time.Time

	away    away
	marks   marks
	flights *flights
	hub     *hub
	health  *health
	handler http.Handler
	serving atomic.Bool
}

// New makes the API. reg's metrics are served at /metrics if it is also a Gatherer.
func New(cfg Config, deps Deps, reg prometheus.Registerer, log *slog.Logger) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fault.Newf("MR-CFG-001", "api: %w", err)
	}
	var targets []target
	for _, m := range append(append([]string(nil), deps.Metrics...), cfg.Metrics...) {
		t, err := parseTarget(m)
		if err != nil {
			return nil, fault.Newf("MR-CFG-001", "api: metrics: %w", err)
		}
		targets = append(targets, t)
	}
	a := &API{
		cfg: cfg, log: log, m: newMetrics(reg), redis: deps.Redis, codecs: deps.Codecs, definitions: deps.Definitions, kafka: deps.Kafka, lake: deps.Lake, temporal: deps.Temporal,
		namespace: deps.Namespace, clock: deps.Now, flights: newFlights(cfg), hub: newHub(cfg.MaxStreams),
	}
	if a.clock == nil {
		a.clock = time.Now
	}
	limits := olap.DefaultReadLimits()
	limits.Time, limits.Rows, limits.RowsRead, limits.Memory = cfg.QueryTimeout, uint64(cfg.MaxRows), uint64(cfg.MaxRowsRead), uint64(cfg.MaxMemory)
	a.olap = olap.NewReader(deps.ClickHouse, limits)
	a.health = newHealth(a, targets)
	spec, err := openapiJSON()
	if err != nil {
		return nil, err
	}
	if a.handler, err = a.routes(deps.UI, spec, metricsHandler(reg)); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *API) now() time.Time { return a.clock().UTC() }

// Handler serves everything that Run serves.
func (a *API) Handler() http.Handler { return a.handler }

// Ready says why the API does not serve. The state of the stores is no reason: /api/v1/health tells it, and live values come from whichever store answers.
func (a *API) Ready() error {
	if !a.serving.Load() {
		return errors.New("not listening")
	}
	return nil
}

// Close ends streams and questions under way. It is only to be called without Run.
func (a *API) Close() {
	a.hub.close()
	a.flights.close()
	a.health.close()
}

// Run serves until ctx ends; then it ends streams, lets requests end, and closes.
func (a *API) Run(ctx context.Context) error {
	defer a.Close()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.cfg.Listen)
	if err != nil {
		return fault.Newf("MR-CFG-004", "api.listen %s: %w", a.cfg.Listen, err)
	}
	srv := &http.Server{
		Handler: a.handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		a.serving.Store(true)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving the API: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		a.health.run(ctx)
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		a.serving.Store(false)
		a.hub.close() // streams end only by this
		graceful, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if err := srv.Shutdown(graceful); err != nil {
			return srv.Close()
		}
		return nil
	})
	return g.Wait()
}

// encode makes JSON of an answer.
func encode(v any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, defectError{fmt.Errorf("encoding an answer: %w", err)}
	}
	return b, nil
}
