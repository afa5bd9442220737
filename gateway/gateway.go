package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"millrace/event"
	"millrace/event/schema"
	"millrace/event/wire"
	"millrace/gateway/spool"
	"millrace/internal/fault"
)

// Gateway takes events over HTTP. Make it with New, and either Run it or, having used its Handler, Close it.
type Gateway struct {
	cfg     Config
	codecs  *schema.Codecs
	log     *slog.Logger
	m       *metrics
	brokers *brokers
	spool   *spool.Spool

	sources   map[string]*source
	nobody    *source
	strangers strangers
	table     []wire.Format
	formats   map[string]*wire.Format // by path, of those without names of the client's own
	settings  []wire.Setting

	topics      []topic // by category
	failedTopic topic
	instance    uint32
	sequence    uint64

	budget  budget
	slots   *semaphore.Weighted
	workers sync.Pool
	batches sync.Pool

	now            func() time.Time
	metricsHandler http.Handler
	started        time.Time
	ready          atomic.Bool
	stopping       atomic.Bool
}

// New makes a gateway: it reads or makes the tenants' keys, opens the spool and adopts what ended processes left in it. opts are the broker's addresses and
// credentials; codecs must know their schema ids.
func New(cfg Config, codecs *schema.Codecs, opts []kgo.Opt, reg prometheus.Registerer, log *slog.Logger) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fault.Newf("MR-CFG-001", "gateway: %w", err)
	}
	tenants := []string{}
	for _, s := range cfg.Sources {
		if !slices.Contains(tenants, s.Tenant) {
			tenants = append(tenants, s.Tenant)
		}
	}
	secrets, err := loadKeys(cfg.DataDir, append(tenants, ""))
	if err != nil {
		return nil, err
	}
	id := uuid.New()
	g := &Gateway{
		cfg: cfg, codecs: codecs, log: log, sources: map[string]*source{}, nobody: nobody(secrets[""]), formats: map[string]*wire.Format{},
		strangers: strangers{rate: rate.Limit(cfg.UnknownKeyRate), by: map[string]*rate.Limiter{}}, instance: binary.BigEndian.Uint32(id[:4]),
		budget: budget{max: cfg.MaxInFlightBytes}, slots: semaphore.NewWeighted(cfg.MaxInFlightRequests), now: time.Now, metricsHandler: metricsHandler(reg), started: time.Now(),
	}
	for _, s := range cfg.Sources {
		if !s.Disabled {
			g.sources[s.Key] = newSource(s, secrets[s.Tenant])
		}
	}
	g.table, g.settings = wire.Formats(), wire.Settings()
	for _, f := range g.table {
		for _, path := range f.Paths {
			if g.formats[path] == nil {
				g.formats[path] = &f
			}
		}
	}
	if g.brokers, err = newBrokers(cfg, opts, log); err != nil {
		return nil, err
	}
	if g.spool, err = spool.Open(cfg.spool(), reg, log); err != nil {
		g.brokers.close()
		return nil, fault.New("MR-GW-003", err)
	}
	for _, c := range event.Categories() {
		g.topics = append(g.topics, topic{name: c.RawTopic(), category: []byte(c.String()), class: g.brokers.classes[c.RawTopic()]})
	}
	g.failedTopic = topic{name: event.TopicRawFailed, category: []byte("failed"), class: g.brokers.classes[event.TopicRawFailed]}
	g.m = newMetrics(reg, g)
	g.workers.New = func() any { return newWorker() }
	g.batches.New = func() any { return newBatch(&g.batches, &g.budget) }
	return g, nil
}

// Handler is the gateway's HTTP handler.
func (g *Gateway) Handler() http.Handler { return g }

// Close ends the producers and the spool, without waiting for anything.
func (g *Gateway) Close() error {
	g.brokers.close()
	return g.spool.Close()
}

// Run serves until ctx ends, then shuts down with the stream: not ready, grace, no more connections, requests in flight ended, producers flushed, spool
// drained as far as DrainTimeout allows, all closed. What is left in the spool is adopted by the next process.
func (g *Gateway) Run(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", g.cfg.Listen)
	if err != nil {
		err = fmt.Errorf("gateway listening on %s: %w", g.cfg.Listen, err)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fault.New("MR-GW-001", err)
		}
		return errors.Join(err, g.Close())
	}
	server := &http.Server{
		Handler: g, ReadHeaderTimeout: g.cfg.HeaderTimeout, ReadTimeout: g.cfg.ReadTimeout, IdleTimeout: g.cfg.IdleTimeout,
		WriteTimeout: g.cfg.ReadTimeout + g.cfg.AckTimeout + 10*time.Second, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}

	drainCtx, stopDrain := context.WithCancel(context.WithoutCancel(ctx))
	defer stopDrain()
	var group errgroup.Group
	failed := make(chan struct{})
	group.Go(func() error {
		if err := server.Serve(&limitListener{Listener: l, free: make(chan struct{}, g.cfg.MaxConnections)}); !errors.Is(err, http.ErrServerClosed) {
			close(failed)
			return fmt.Errorf("gateway serving: %w", err)
		}
		return nil
	})
	group.Go(func() error { return g.spool.Run(drainCtx, g.brokers.deliver) })
	g.log.Info("gateway listening", "address", l.Addr().String(), "sources", len(g.sources))

	select {
	case <-ctx.Done():
	case <-failed:
	}
	g.stopping.Store(true)
	if g.cfg.ShutdownGrace > 0 {
		grace := time.NewTimer(g.cfg.ShutdownGrace)
		<-grace.C
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.DrainTimeout)
	defer cancel()
	var errs []error
	if err := server.Shutdown(end); err != nil {
		errs = append(errs, fmt.Errorf("ending requests: %w", err), server.Close())
	}
	// Every answer has been given, so what is still in the producers is in the spool too.
	flushed, stop := context.WithTimeout(end, g.cfg.AckTimeout)
	if err := g.brokers.flush(flushed); err != nil {
		g.log.Warn("producers not flushed: what they held is in the spool", "error", err)
	}
	stop()
	g.awaitEmpty(end)
	stopDrain()
	errs = append(errs, group.Wait(), g.Close())
	g.log.Info("gateway stopped")
	return errors.Join(errs...)
}

// awaitEmpty waits for the drainer while it gets on.
func (g *Gateway) awaitEmpty(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last, since := int64(-1), time.Now()
	for {
		st := g.spool.Status()
		if st.Empty() {
			return
		}
		if st.Bytes != last {
			last, since = st.Bytes, time.Now()
		}
		if time.Since(since) > 2*g.cfg.AckTimeout {
			g.log.Warn("spool left for the next process: the broker is away", "bytes", st.Bytes)
			return
		}
		select {
		case <-ctx.Done():
			g.log.Warn("spool left for the next process", "bytes", st.Bytes)
			return
		case <-tick.C:
		}
	}
}

// limitListener accepts at most cap(free) connections at once; others wait in the kernel's queue.
type limitListener struct {
	net.Listener
	free chan struct{}
}

// Accept implements net.Listener.
func (l *limitListener) Accept() (net.Conn, error) {
	l.free <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: c, l: l}, nil
}

type limitedConn struct {
	net.Conn
	l    *limitListener
	once sync.Once
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.once.Do(func() { <-c.l.free })
	return c.Conn.Close()
}
