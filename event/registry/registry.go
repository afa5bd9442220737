package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"millrace/internal/fault"
)

// Registry serves the REST API (it is an http.Handler) from the view that Run keeps. Before Run has read the topic, and after
// it ended, every request is answered 503. It is safe for concurrent use.
type Registry struct {
	cfg     Config
	conn    []kgo.Opt
	log     *slog.Logger
	metrics *metrics
	writes  chan *write

	mu    sync.RWMutex
	state *state
	next  int64         // offset of the record that is read next
	moved chan struct{} // closed when next moves
	ready bool
}

// New makes a Registry. conn are the options that reach Kafka (seed brokers, TLS, SASL); the client itself is made by Run.
func New(cfg Config, conn []kgo.Opt, reg prometheus.Registerer, log *slog.Logger) (*Registry, error) {
	cfg = cfg.Defaults()
	if err := cfg.Validate(); err != nil {
		return nil, fault.New("MR-REG-001", err)
	}
	if err := kgo.ValidateOpts(cfg.clientOpts(conn)...); err != nil {
		return nil, fault.Newf("MR-REG-001", "the options that reach Kafka: %w", err)
	}
	r := &Registry{
		cfg:    cfg,
		conn:   conn,
		log:    log,
		writes: make(chan *write),
		state:  newState(),
		moved:  make(chan struct{}),
	}
	r.metrics = newMetrics(reg, r)
	return r, nil
}

// Ready tells whether the topic has been read and requests are served.
func (r *Registry) Ready() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ready
}

// Run reads the topic (and makes it if it is missing), then keeps the view current and performs the writes until ctx is done;
// then it returns nil. It returns an error when the topic cannot be used or was lost under it; a new Run starts from nothing.
// One Run at a time.
func (r *Registry) Run(ctx context.Context) error {
	if err := r.ensureTopic(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	client, err := kgo.NewClient(r.cfg.clientOpts(r.conn)...)
	if err != nil {
		return fmt.Errorf("making the schema registry's Kafka client: %w", err)
	}
	defer client.Close()
	r.mu.Lock()
	r.state, r.next = newState(), 0
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.ready = false
		r.mu.Unlock()
	}()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.read(ctx, client) })
	g.Go(func() error { return r.write(ctx, client) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Serve runs the registry and answers HTTP on ln until ctx is done; then it lets running requests end and returns nil.
func (r *Registry) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           r,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30*time.Second + r.cfg.WriteTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(r.log.Handler(), slog.LevelWarn),
	}
	// Requests in flight still need the store, so it ends after the server.
	storeCtx, stopStore := context.WithCancel(context.WithoutCancel(ctx))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.Run(storeCtx) })
	g.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving the schema registry: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		defer stopStore()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*r.cfg.WriteTimeout)
		defer cancel()
		if err := srv.Shutdown(grace); err != nil {
			return errors.Join(fmt.Errorf("ending the schema registry's server: %w", err), srv.Close())
		}
		return nil
	})
	return g.Wait()
}

// ensureTopic makes the topic if it is missing and refuses one whose order is not total. It has a client of its own, so that
// the consumer's never learns that the topic was missing.
func (r *Registry) ensureTopic(ctx context.Context) error {
	client, err := kgo.NewClient(append(slices.Clone(r.conn), kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		return fmt.Errorf("making the schema registry's Kafka client: %w", err)
	}
	defer client.Close()
	configs := map[string]*string{}
	for k, v := range r.cfg.TopicConfigs {
		configs[k] = &v
	}
	adm := kadm.NewClient(client)
	if _, err := adm.CreateTopic(ctx, 1, r.cfg.ReplicationFactor, configs, r.cfg.Topic); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fault.Newf("MR-REG-002", "creating the schema topic %s: %w", r.cfg.Topic, err)
	}
	for {
		topics, err := adm.ListTopics(ctx, r.cfg.Topic)
		if err == nil {
			err = topics.Error()
		}
		if err == nil {
			if n := len(topics[r.cfg.Topic].Partitions); n > 1 {
				return fault.Newf("MR-REG-003", "the schema topic %s has %d partitions, it must have 1", r.cfg.Topic, n)
			}
			return nil
		}
		// A topic just made takes a moment to be known by every broker.
		if !errors.Is(err, kerr.UnknownTopicOrPartition) && !errors.Is(err, kerr.LeaderNotAvailable) {
			return fault.Newf("MR-REG-002", "looking at the schema topic %s: %w", r.cfg.Topic, err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read applies the topic's records as they come.
func (r *Registry) read(ctx context.Context, client *kgo.Client) error {
	failing := false
	for {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fetches.Err(); err != nil {
			if lost(err) {
				return fault.Newf("MR-REG-004", "reading the schema topic %s: %w", r.cfg.Topic, err)
			}
			if !failing { // the client goes on by itself; reads are served from the view meanwhile
				r.log.Warn("schema topic cannot be read; retrying", "topic", r.cfg.Topic, "error", err)
			}
			failing = true
		} else {
			failing = false
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		r.mu.Lock()
		fetches.EachRecord(func(rec *kgo.Record) {
			if err := r.state.apply(rec.Key, rec.Value, rec.Timestamp); err != nil {
				r.metrics.skipped.Inc()
				r.log.Warn("record of the schema topic skipped", "topic", rec.Topic, "offset", rec.Offset, "error", err)
			}
			r.next = rec.Offset + 1
		})
		close(r.moved)
		r.moved = make(chan struct{})
		r.mu.Unlock()
	}
}

// lost tells errors after which the view may not be what the topic says.
func lost(err error) bool {
	var loss *kgo.ErrDataLoss
	return errors.As(err, &loss) || errors.Is(err, kerr.OffsetOutOfRange) || errors.Is(err, kerr.UnknownTopicOrPartition) ||
		errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.InconsistentTopicID) || errors.Is(err, kerr.TopicAuthorizationFailed)
}

// reached waits until the record at offset has been applied.
func (r *Registry) reached(ctx context.Context, offset int64) error {
	for {
		r.mu.RLock()
		next, moved := r.next, r.moved
		r.mu.RUnlock()
		if next > offset {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// put appends records and waits until they are durable and applied.
func (r *Registry) put(ctx context.Context, client *kgo.Client, changes []change) error {
	records := make([]*kgo.Record, len(changes))
	for i, c := range changes {
		var err error
		if records[i], err = newRecord(r.cfg.Topic, c.key, c.value); err != nil {
			return err
		}
	}
	// Not ProduceSync: once a record is under way, that waits for the broker even when ctx is done.
	acks := make(chan error, len(records))
	for _, rec := range records {
		client.Produce(ctx, rec, func(_ *kgo.Record, err error) { acks <- err })
	}
	var failed error
	for range records {
		select {
		case err := <-acks:
			failed = errors.Join(failed, err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if failed != nil {
		return fmt.Errorf("writing to the schema topic %s: %w", r.cfg.Topic, failed)
	}
	return r.reached(ctx, records[len(records)-1].Offset)
}

// repairAfter is how long a rejected record of another instance is left to that instance, which normally mends it at once.
const repairAfter = time.Minute

// repair writes what the view holds for keys whose latest record was rejected, so that compaction keeps the winner: own keys,
// and those that whoever wrote them has left behind.
func (r *Registry) repair(ctx context.Context, client *kgo.Client, own []change) error {
	r.mu.RLock()
	var changes []change
	for key, at := range r.state.rejected {
		mine := slices.ContainsFunc(own, func(c change) bool { return c.key == key })
		if !mine && time.Since(at) < repairAfter {
			continue
		}
		c := change{key: key}
		if e := r.state.entry(key.Subject, key.Version); e != nil {
			c.value = e.value(key.Subject)
		}
		changes = append(changes, c)
	}
	r.mu.RUnlock()
	if len(changes) == 0 {
		return nil
	}
	r.metrics.conflicts.Add(float64(len(changes)))
	r.log.Warn("another instance wrote to the schema topic at the same time; the first record of each key stands", "keys", len(changes))
	return r.put(ctx, client, changes)
}

// value is the record of a version as the view has it.
func (e *entry) value(subject string) *schemaValue {
	v := e.schemaValue
	v.Subject, v.Version, v.Deleted = subject, e.version, e.deleted
	return &v
}
