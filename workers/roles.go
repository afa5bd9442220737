package workers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	saslplain "github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/twmb/franz-go/pkg/sr"
	"golang.org/x/sync/errgroup"

	"millrace/event/registry"
	"millrace/event/schema"
	"millrace/gateway"
	"millrace/internal/fault"
	"millrace/internal/telemetry"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/streaming"
	"millrace/streaming/sink"
)

// Role is one job of the binary. Several may run in one process.
type Role struct {
	Name  string
	Doc   string
	Needs []string // parts that must be reachable: kafka, schema_registry, clickhouse, redis, iceberg, temporal
	// start makes the role ready to run and gives what runs it until ctx ends, and what says whether it is ready.
	start func(ctx context.Context, p *process) (run func(context.Context) error, ready func() error, err error)
}

// Roles is the table of all roles, in the order in which one machine starts them.
func Roles() []Role {
	return []Role{
		{"registry", "schema registry on a Kafka topic", []string{"kafka"}, startRegistry},
		{"gateway", "HTTP to Kafka: acknowledges what is durable", []string{"kafka", "schema_registry"}, startGateway},
		{"stream", "hot topology: deduplicate, enrich, count", []string{"kafka", "schema_registry"}, startStream},
		{"sink-clickhouse", "events, KPIs and control totals to ClickHouse", []string{"kafka", "schema_registry", "clickhouse"}, startSinkClickHouse},
		{"sink-redis", "live KPIs and alerts to Redis, alerts to their destinations", []string{"kafka", "schema_registry", "redis"}, startSinkRedis},
		{"sink-iceberg", "events to Iceberg", []string{"kafka", "schema_registry", "iceberg"}, startSinkIceberg},
		{"api", "analytics API and dashboard", []string{"schema_registry", "clickhouse"}, startAPI},
		{"batch", "workflows and their activities on Temporal", []string{"clickhouse", "iceberg", "temporal"}, startBatch},
	}
}

// RoleNames lists the names.
func RoleNames() []string {
	var out []string
	for _, r := range Roles() {
		out = append(out, r.Name)
	}
	return out
}

// process is what the roles of one process share.
type process struct {
	cfg    Config
	log    *slog.Logger
	reg    metricsRegistry
	codecs *schema.Codecs      // registered; nil where no role needs schemas
	traces *telemetry.Provider // nil without a collector
}

// Run runs roles until ctx ends or one of them fails; then the others are stopped too.
func Run(ctx context.Context, cfg Config, names []string, log *slog.Logger) error {
	if len(names) == 0 {
		return fault.Newf("MR-CLI-002", "no role named; roles are %s", strings.Join(RoleNames(), ", "))
	}
	var roles []Role
	for _, r := range Roles() {
		if slices.Contains(names, r.Name) {
			roles = append(roles, r)
		}
	}
	for _, n := range names {
		if !slices.Contains(RoleNames(), n) {
			return fault.Newf("MR-CLI-002", "unknown role %q; roles are %s", n, strings.Join(RoleNames(), ", "))
		}
	}
	cfg = cfg.complete()
	if err := cfg.Validate(names); err != nil {
		return err
	}
	p := &process{cfg: cfg, log: log, reg: prometheus.NewRegistry()}
	p.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var err error
	if p.traces, err = telemetry.Open(ctx, cfg.Telemetry, "millrace-"+strings.Join(names, "-"), log); err != nil {
		return fault.New("MR-CFG-001", err)
	}
	defer p.closeTraces(context.WithoutCancel(ctx))
	g, ctx := errgroup.WithContext(ctx)
	started := make([]string, len(roles))
	for i, r := range roles {
		started[i] = r.Name
	}
	adm := newAdmin(p.reg, started)
	g.Go(func() error { return adm.run(ctx, cfg.Admin.Listen) })
	for _, r := range roles {
		p.log = log.With("role", r.Name) // what the role logs says whose it is
		if slices.Contains(r.Needs, "schema_registry") && p.codecs == nil {
			if err := p.openCodecs(ctx); err != nil {
				return stopped(ctx, err)
			}
		}
		run, ready, err := r.start(ctx, p)
		if err != nil {
			return stopped(ctx, fmt.Errorf("starting %s: %w", r.Name, err))
		}
		adm.add(r.Name, ready)
		p.log.InfoContext(ctx, "role started")
		g.Go(func() error {
			if err := run(ctx); err != nil {
				return fmt.Errorf("%s: %w", r.Name, err)
			}
			return nil
		})
	}
	return stopped(ctx, g.Wait())
}

// closeTraces sends the last spans; a collector that does not answer does not hold the process up for long.
func (p *process) closeTraces(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := p.traces.Close(ctx); err != nil {
		p.log.WarnContext(ctx, "closing traces", "error", err)
	}
}

// stopped turns an error that comes from being stopped into none.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// startWait is how long a role waits for a part that it needs to answer.
const startWait = 2 * time.Minute

// until repeats f until it succeeds, ctx ends or startWait is over.
func (p *process) until(ctx context.Context, what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	pause := 100 * time.Millisecond
	for {
		err := f(ctx)
		var permanent interface{ Permanent() bool }
		if err == nil || errors.As(err, &permanent) && permanent.Permanent() {
			return err
		}
		if id, ok := fault.IDOf(err); ok && strings.HasPrefix(string(id), "MR-CFG-") {
			return err
		}
		p.log.DebugContext(ctx, "waiting", "for", what, "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

func (p *process) openCodecs(ctx context.Context) error {
	var opts []sr.ClientOpt
	if u := p.cfg.SchemaRegistry.Username; u != "" {
		opts = append(opts, sr.BasicAuth(u, p.cfg.SchemaRegistry.Password))
	}
	cl, err := sr.NewClient(append(opts, sr.URLs(p.cfg.SchemaRegistry.URL))...)
	if err != nil {
		return fmt.Errorf("schema registry: %w", err)
	}
	codecs, err := schema.NewCodecs()
	if err != nil {
		return err
	}
	if err := p.until(ctx, "registering schemas", func(ctx context.Context) error { return codecs.Register(ctx, cl) }); err != nil {
		return err
	}
	p.codecs = codecs
	return nil
}

// kafka gives the options of every Kafka client.
func (p *process) kafka() []kgo.Opt { return p.cfg.Kafka.Options() }

// Options are those of every client of this broker.
func (c KafkaConfig) Options() []kgo.Opt {
	opts := []kgo.Opt{kgo.SeedBrokers(c.Brokers...), kgo.ClientID(c.ClientID)}
	if c.TLS {
		opts = append(opts, kgo.DialTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	var m sasl.Mechanism
	switch c.SASLMechanism {
	case "PLAIN":
		m = saslplain.Auth{User: c.Username, Pass: c.Password}.AsMechanism()
	case "SCRAM-SHA-256":
		m = scram.Auth{User: c.Username, Pass: c.Password}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		m = scram.Auth{User: c.Username, Pass: c.Password}.AsSha512Mechanism()
	default:
		return opts
	}
	return append(opts, kgo.SASL(m))
}

// ensureTopics makes the topics of the platform.
func (p *process) ensureTopics(ctx context.Context) error {
	tops, err := p.topologies(p.cfg.Hot, prometheus.NewRegistry()) // only for the names of their topics
	if err != nil {
		return err
	}
	var own []streaming.TopicSpec
	for _, top := range tops {
		own = append(own, top.RequiredTopics()...)
	}
	want := p.cfg.Kafka.topics(own)
	return p.until(ctx, "creating topics", func(ctx context.Context) error { return p.cfg.Kafka.ensureTopics(ctx, p.kafka(), want) })
}

func startRegistry(ctx context.Context, p *process) (func(context.Context) error, func() error, error) {
	r, err := registry.New(p.cfg.registryConfig(), p.kafka(), p.reg, p.log)
	if err != nil {
		return nil, nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.cfg.Registry.Listen)
	if err != nil {
		return nil, nil, fault.Newf("MR-CFG-004", "registry.listen %s: %w", p.cfg.Registry.Listen, err)
	}
	ready := func() error {
		if !r.Ready() {
			return errors.New("the schema topic has not been read yet")
		}
		return nil
	}
	return func(ctx context.Context) error { return r.Serve(ctx, l) }, ready, nil
}

func startGateway(ctx context.Context, p *process) (func(context.Context) error, func() error, error) {
	if err := p.ensureTopics(ctx); err != nil {
		return nil, nil, err
	}
	cfg := p.cfg.Gateway
	cfg.Tracer = p.traces.Tracer("gateway")
	g, err := gateway.New(cfg, p.codecs, p.kafka(), p.reg, p.log)
	if err != nil {
		return nil, nil, err
	}
	return g.Run, g.Ready, nil
}

func startSinkClickHouse(ctx context.Context, p *process) (func(context.Context) error, func() error, error) {
	if err := p.ensureTopics(ctx); err != nil {
		return nil, nil, err
	}
	conn, err := olap.Open(ctx, p.cfg.ClickHouse)
	if err != nil {
		return nil, nil, err
	}
	err = p.until(ctx, "migrating ClickHouse", func(ctx context.Context) error {
		return olap.Migrate(ctx, conn, olap.Options{Cluster: p.cfg.ClickHouse.Cluster})
	})
	if err != nil {
		return nil, nil, err
	}
	cfg := p.cfg.Sink.ClickHouse
	cfg.Cluster, cfg.ClusterName = p.cfg.ClickHouse.Cluster != "", p.cfg.ClickHouse.Cluster
	if cfg.Erasures, err = p.subjectKey(); err != nil {
		return nil, nil, err
	}
	cfg.Generation, cfg.Tracer = p.cfg.Kafka.Generation, p.traces.Tracer("sink")
	s, err := sink.NewClickHouse(cfg, conn, p.codecs, p.kafka(), p.reg, p.log)
	if err != nil {
		return nil, nil, err
	}
	return s.Run, s.Ready, nil
}

func startSinkRedis(ctx context.Context, p *process) (func(context.Context) error, func() error, error) {
	if err := p.ensureTopics(ctx); err != nil {
		return nil, nil, err
	}
	rdb := redis.NewUniversalClient(RedisOptions(p.cfg.Redis))
	cfg := p.cfg.Sink.Redis
	cfg.Generation, cfg.Tracer = p.cfg.Kafka.Generation, p.traces.Tracer("sink")
	key, err := p.subjectKey()
	if err != nil {
		return nil, nil, errors.Join(err, rdb.Close())
	}
	cfg.Erasures = key
	s, err := sink.NewRedis(cfg, rdb, p.codecs, p.kafka(), p.reg, p.log)
	if err != nil {
		return nil, nil, err
	}
	w, err := sink.NewWebhooks(p.cfg.Alerts, rdb, p.codecs, p.kafka(), p.reg, p.log)
	if err != nil {
		return nil, nil, errors.Join(err, rdb.Close())
	}
	run := func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return s.Run(ctx) })
		g.Go(func() error { return w.Run(ctx) })
		return errors.Join(g.Wait(), rdb.Close())
	}
	return run, func() error { return errors.Join(s.Ready(), w.Ready()) }, nil
}

// RedisOptions are those of every Redis client.
func RedisOptions(c RedisConfig) *redis.UniversalOptions {
	return &redis.UniversalOptions{Addrs: c.Addr, Username: c.Username, Password: c.Password, DB: c.DB}
}

func startSinkIceberg(ctx context.Context, p *process) (func(context.Context) error, func() error, error) {
	if err := p.ensureTopics(ctx); err != nil {
		return nil, nil, err
	}
	cat, err := lakehouse.Open(ctx, p.cfg.Iceberg)
	if err != nil {
		return nil, nil, err
	}
	if err := p.until(ctx, "creating Iceberg tables", func(ctx context.Context) error { return lakehouse.EnsureTables(ctx, cat) }); err != nil {
		return nil, nil, err
	}
	cfg := p.cfg.Sink.Iceberg
	if cfg.Erasures, err = p.subjectKey(); err != nil {
		return nil, nil, err
	}
	cfg.Tracer = p.traces.Tracer("sink")
	s, err := sink.NewIceberg(cfg, cat, p.codecs, p.kafka(), p.reg, p.log)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context) error {
		beside, end := context.WithCancel(ctx)
		var lane sync.WaitGroup
		lane.Go(func() { p.laneRun(beside, s, cat) })
		err := s.Run(ctx)
		end()
		lane.Wait()
		return errors.Join(err, cat.Close())
	}, s.Ready, nil
}
