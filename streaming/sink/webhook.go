package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/fault"
	"millrace/live"
)

// Webhooks sends alerts to the configured destinations. Each has a consumer group of its own, so that the topic is its queue: one that is away is waited for alone, holding a few alerts
// in memory, and goes on where it was as long as the topic holds what it missed.
//
// Delivery is at least once: a process that dies between an answer and its note sends the alert again, with the same webhook-id, by which receivers tell. Otherwise an alert is
// sent once, and once more when it is confirmed if the destination takes provisional ones. Redis remembers what was sent; without Redis the group's offsets alone do.
type Webhooks struct {
	cfg   AlertsConfig
	all   []*destination
	ready atomic.Int32
}

// destination is one place, with its consumer.
type destination struct {
	Destination
	cfg    AlertsConfig
	topics []string
	sender sender
	notes  live.Deliveries
	rdb    redis.UniversalClient
	codecs *schema.Codecs
	opts   []kgo.Opt
	log    *slog.Logger
	m      destinationMetrics
	ready  func()
}

// NewWebhooks makes the senders and reads their secrets. rdb may be nil; opts say how to reach the broker.
func NewWebhooks(cfg AlertsConfig, rdb redis.UniversalClient, codecs *schema.Codecs, opts []kgo.Opt, reg prometheus.Registerer, log *slog.Logger) (*Webhooks, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fault.Newf("MR-ALT-001", "alerts: %w", err)
	}
	w := &Webhooks{cfg: cfg}
	var errs []error
	m := newWebhookMetrics(reg)
	for i, d := range cfg.Destinations {
		s, err := newSender(d, cfg)
		if err != nil {
			errs = append(errs, fmt.Errorf("destinations[%d] %s: %w", i, d.Name, err))
			continue
		}
		topics := []string{event.TopicAlerts}
		if d.Provisional {
			topics = alertTopics()
		}
		w.all = append(w.all, &destination{
			Destination: d, cfg: cfg, topics: topics, sender: s, notes: live.Deliveries{Destination: d.Name, Keep: cfg.Keep}, rdb: rdb, codecs: codecs, opts: opts,
			log: log.With("destination", d.Name), m: m.of(reg, d.Name), ready: sync.OnceFunc(func() { w.ready.Add(1) }),
		})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fault.Newf("MR-ALT-001", "alerts: %w", err)
	}
	return w, nil
}

// Ready says which destinations do not read yet. One that does not answer is no reason: the others go on.
func (w *Webhooks) Ready() error {
	if n := int(w.ready.Load()); n < len(w.all) {
		return fmt.Errorf("alerts: %d of %d destinations read their topic", n, len(w.all))
	}
	return nil
}

// Run sends until ctx ends. It ends with an error only on what waiting cannot heal.
func (w *Webhooks) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range w.all {
		g.Go(func() error {
			if err := d.run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("alerts to %s: %w", d.Name, err)
			}
			return nil
		})
	}
	g.Go(func() error { <-ctx.Done(); return nil })
	return g.Wait()
}

// pollAlerts is how many alerts a destination holds in memory.
const pollAlerts = 64

func (d *destination) run(ctx context.Context) error {
	group := d.cfg.Group + "." + d.Name
	if err := retry(ctx, d.log, "alerts: looking where the group is", func() error { return d.begin(ctx, group) }); err != nil {
		return err
	}
	cl, err := kgo.NewClient(append(slices.Clone(d.opts),
		kgo.ConsumerGroup(group), kgo.InstanceID(d.cfg.InstanceID), kgo.SessionTimeout(d.cfg.SessionTimeout), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.ConsumeTopics(d.topics...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.DisableAutoCommit(), kgo.FetchMaxBytes(4<<20), kgo.FetchMaxPartitionBytes(1<<20),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // begin has set it; a partition that is new, or whose rest is gone, is read from its start
	)...)
	if err != nil {
		return err
	}
	defer cl.CloseAllowingRebalance()
	defer d.sender.client.CloseIdleConnections()
	defer d.m.standing.watch(ctx, cl, d.topics...)()
	for ctx.Err() == nil {
		fetches := d.poll(ctx, cl)
		var fatal error
		fetches.EachError(func(topic string, p int32, err error) {
			switch {
			case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			case errors.Is(err, kerr.FencedInstanceID):
				fatal = fmt.Errorf("another process has instance id %s: %w", d.cfg.InstanceID, err)
			default:
				d.log.WarnContext(ctx, "alerts: fetching", "topic", topic, "partition", p, "error", err)
			}
		})
		if fatal != nil {
			return fatal
		}
		d.ready()
		if err := d.deliverAll(ctx, cl, fetches); err != nil {
			return err
		}
	}
	return nil
}

// poll waits a while for alerts.
func (d *destination) poll(ctx context.Context, cl *kgo.Client) kgo.Fetches {
	ctx, cancel := context.WithTimeout(ctx, idleCheck)
	defer cancel()
	return cl.PollRecords(ctx, pollAlerts)
}

// begin has a destination that is new begin with what comes from now on, and remembers that: it is not told of what was before it, and misses nothing from then on.
func (d *destination) begin(ctx context.Context, group string) error {
	cl, err := kgo.NewClient(d.opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	have, err := adm.FetchOffsetsForTopics(ctx, group, d.topics...)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("reading the offsets of group %s: %w", group, err)
	}
	ends, err := adm.ListCommittedOffsets(ctx, d.topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("looking where the topics of alerts end: %w", err)
	}
	from := kadm.Offsets{}
	for topic, parts := range ends.Offsets() {
		if slices.ContainsFunc(have.Sorted(), func(o kadm.OffsetResponse) bool { return o.Topic == topic && o.Err == nil && o.At >= 0 }) {
			continue // not new
		}
		from[topic] = parts
	}
	if len(from) == 0 {
		return nil
	}
	got, err := adm.CommitOffsets(ctx, group, from)
	if err == nil {
		err = got.Error()
	}
	if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.RebalanceInProgress) {
		return nil // the group has a member, which has been here
	}
	if err != nil {
		return fmt.Errorf("beginning group %s: %w", group, err)
	}
	return nil
}

// deliverAll sends what was fetched, partitions side by side, and tells the group how far each is.
func (d *destination) deliverAll(ctx context.Context, cl *kgo.Client, fetches kgo.Fetches) error {
	var mu sync.Mutex
	var done []*kgo.Record
	var g errgroup.Group
	g.SetLimit(d.cfg.InFlight)
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) == 0 {
			return
		}
		d.m.oldest.hold(p.Topic, p.Partition, p.Records[0].Timestamp)
		g.Go(func() error {
			defer d.m.oldest.release(p.Topic, p.Partition)
			for _, r := range p.Records {
				d.m.oldest.hold(p.Topic, p.Partition, r.Timestamp)
				if err := d.deliver(ctx, r); err != nil {
					return err
				}
				mu.Lock()
				done = append(done, r)
				mu.Unlock()
			}
			return nil
		})
	})
	err := g.Wait()
	if len(done) > 0 {
		// Also when it was told to stop: what was sent should not be sent again.
		commit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if err := cl.CommitRecords(commit, done...); err != nil && ctx.Err() == nil {
			d.log.WarnContext(ctx, "alerts: committing offsets", "error", err)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// deliver brings one alert to its end: taken, refused for good, too old, or not for this destination. It gives an error when ctx ends, and on what is of the moment elsewhere.
func (d *destination) deliver(ctx context.Context, r *kgo.Record) error {
	var a event.Alert
	err := retry(ctx, d.log, "alerts: reading a schema", func() error {
		err := decodeAlert(ctx, d.codecs, r, &a)
		if errors.Is(err, errBadAlert) {
			d.log.WarnContext(ctx, "alerts: a record is no alert", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "error", err)
			d.m.delivered("unreadable")
			a = event.Alert{}
			return nil
		}
		return err
	})
	if err != nil || a.AlertID == "" || !d.wants(&a) {
		return err
	}
	if d.taken(ctx, &a) {
		d.m.delivered("duplicate")
		return nil
	}
	pause := d.cfg.RetryMin
	defer d.m.paused.Set(0)
	for {
		after, err := d.sender.send(ctx, &a)
		var refused *refusal
		switch {
		case err == nil:
			d.m.delivered("sent")
			d.note(ctx, &a)
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused):
			d.m.delivered("refused")
			d.log.ErrorContext(ctx, "alerts: refused for good", "alert", a.AlertID, "error", fault.New("MR-ALT-003", err))
			return nil
		case d.cfg.MaxAge > 0 && time.Since(r.Timestamp) > d.cfg.MaxAge:
			d.m.delivered("expired")
			d.log.ErrorContext(ctx, "alerts: given up, it is too old", "alert", a.AlertID, "error", fault.New("MR-ALT-002", err))
			return nil
		}
		d.m.attempts.Inc()
		d.m.paused.Set(1)
		wait := max(after, pause/2+rand.N(pause/2+1)) // jitter, so that several do not come back at once
		d.log.WarnContext(ctx, "alerts: not taken, trying again", "alert", a.AlertID, "pause", wait, "error", fault.New("MR-ALT-002", err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		pause = min(2*pause, d.cfg.RetryMax)
	}
}

func (d *destination) wants(a *event.Alert) bool {
	in := func(list []string, v string) bool { return len(list) == 0 || slices.Contains(list, v) }
	return slices.Index(severities(), a.Severity) >= slices.Index(severities(), d.MinSeverity) && in(d.Rules, a.Rule) && in(d.Kinds, a.Kind) && in(d.Tenants, a.Tenant)
}

// noteWait is how long Redis may take: an alert matters more than not sending it twice.
const noteWait = time.Second

func (d *destination) taken(ctx context.Context, a *event.Alert) bool {
	if d.rdb == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, noteWait)
	defer cancel()
	taken, err := d.notes.Taken(ctx, d.rdb, a)
	if err != nil {
		d.m.unnoted.Inc()
		d.log.WarnContext(ctx, "alerts: Redis does not say whether an alert was sent; it is sent", "error", err)
	}
	return taken
}

func (d *destination) note(ctx context.Context, a *event.Alert) {
	if d.rdb == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteWait)
	defer cancel()
	if err := d.notes.Note(ctx, d.rdb, a); err != nil {
		d.m.unnoted.Inc()
		d.log.WarnContext(ctx, "alerts: Redis does not note that an alert was sent", "error", err)
	}
}

// refusal is an answer that no retry changes.
type refusal struct{ status int }

func (r *refusal) Error() string {
	return fmt.Sprintf("it answers %d %s", r.status, http.StatusText(r.status))
}
