package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/test/drills/drill"
	"millrace/test/drills/hotrun"
)

const (
	warmUp      = 2 * time.Second // at its begin a measurement is none
	probeEvery  = 250 * time.Millisecond
	probeTenant = "probe-" // tenants of one event each, whose first row of KPIs tells how long that took
)

// watch follows what the topology writes.
type watch struct {
	cl     *kgo.Client
	codecs *schema.Codecs
	from   int64 // µs: earlier triggers are of the warm-up
	done   chan struct{}

	mu        sync.Mutex
	due       map[string]int64 // µs, of each event by its id
	probes    map[string]int64 // µs, of each probe by its tenant; 0: it has been seen
	waits     map[string][]time.Duration
	seconds   map[string]map[int64]time.Duration // the longest wait of what was due in a second
	fast      map[string]string                  // rules by the id of their alert
	confirmed map[string]string
	failed    error
}

// Kinds of latencies.
const (
	fastVisitor = "event to alerts.fast, rules keyed by visitor"
	fastRekeyed = "event to alerts.fast, rules keyed by card, address, user or device"
	slow        = "event to alerts"
	toKPI       = "event to its KPI row"
)

func startWatch(ctx context.Context, brokers string) (*watch, error) {
	codecs, err := hotrun.Codecs()
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.ConsumeTopics(event.TopicAlertsFast, event.TopicAlerts, event.TopicKPIPartial),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return nil, fmt.Errorf("following the alerts: %w", err)
	}
	w := &watch{
		cl: cl, codecs: codecs, from: time.Now().Add(warmUp).UnixMicro(), done: make(chan struct{}), due: map[string]int64{}, probes: map[string]int64{},
		waits: map[string][]time.Duration{}, seconds: map[string]map[int64]time.Duration{}, fast: map[string]string{}, confirmed: map[string]string{},
	}
	go func() {
		defer close(w.done)
		for {
			f := cl.PollFetches(ctx)
			if f.IsClientClosed() || ctx.Err() != nil {
				return
			}
			now := time.Now()
			w.mu.Lock()
			f.EachRecord(func(r *kgo.Record) {
				if err := w.saw(ctx, r, now); err != nil && w.failed == nil {
					w.failed = err
				}
			})
			w.mu.Unlock()
		}
	}()
	return w, nil
}

// saw takes a record that a reader has at a time.
func (w *watch) saw(ctx context.Context, r *kgo.Record, now time.Time) error {
	if r.Topic == event.TopicKPIPartial {
		if !bytes.Contains(r.Key, []byte(probeTenant)) {
			return nil
		}
		var p event.KPIPartial
		if err := w.codecs.Decode(ctx, r.Topic, r.Value, &p); err != nil {
			return fmt.Errorf("reading a row of KPIs: %w", err)
		}
		if due := w.probes[p.Tenant]; due != 0 {
			w.probes[p.Tenant] = 0
			w.add(toKPI, due, now)
		}
		return nil
	}
	var a event.Alert
	if err := w.codecs.Decode(ctx, r.Topic, r.Value, &a); err != nil {
		return fmt.Errorf("reading an alert: %w", err)
	}
	due, known := w.due[a.TriggerEventID]
	if a.Kind != event.AlertFraud || !known {
		return nil // of a time before
	}
	id := strings.Clone(a.AlertID)
	if a.Confirmed {
		w.confirmed[id] = strings.Clone(a.Rule)
		w.add(slow, due, now)
		return nil
	}
	w.fast[id] = strings.Clone(a.Rule)
	kind := fastRekeyed
	if a.Entity == event.EntityVisitor {
		kind = fastVisitor
	}
	w.add(kind, due, now)
	return nil
}

func (w *watch) add(kind string, due int64, now time.Time) {
	if due < w.from {
		return
	}
	wait, second := now.Sub(time.UnixMicro(due)), due/1e6
	w.waits[kind] = append(w.waits[kind], wait)
	if w.seconds[kind] == nil {
		w.seconds[kind] = map[int64]time.Duration{}
	}
	w.seconds[kind][second] = max(w.seconds[kind][second], wait)
}

// sent is told of each event that is written.
func (w *watch) sent(id string, due, _ int64) {
	w.mu.Lock()
	w.due[id] = due
	w.mu.Unlock()
}

func (w *watch) stop() {
	w.cl.Close()
	<-w.done
}

// probe writes an event of a tenant of its own at each tick. It says to have happened a shift earlier, as all others do.
func (w *watch) probe(ctx context.Context, brokers string, run uint64, partitions int32, shift time.Duration) error {
	cl, err := hotrun.Writer(brokers)
	if err != nil {
		return err
	}
	defer cl.Close()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var mu sync.Mutex
	var refused error
	for n := uint64(1); ; n++ {
		select {
		case <-ctx.Done():
			flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err := cl.Flush(flush)
			mu.Lock()
			defer mu.Unlock()
			return errors.Join(err, refused)
		case due := <-tick.C:
			tenant, at := probeTenant+strconv.FormatUint(run, 10)+"-"+strconv.FormatUint(n, 10), due.UnixMicro()
			w.mu.Lock()
			w.probes[tenant] = at
			w.mu.Unlock()
			said := due.Add(-shift).UnixMicro()
			e := event.Event{ID: tenant, Name: event.NamePageView, Tenant: tenant, VisitorID: tenant, Source: "web", OccurredAt: said, ReceivedAt: said, SchemaVersion: 1}
			cl.Produce(context.WithoutCancel(ctx), hotrun.RawRecord(w.codecs, &e, 1<<40+n, partitions), func(_ *kgo.Record, err error) {
				if err != nil {
					mu.Lock()
					refused = err
					mu.Unlock()
				}
			})
		}
	}
}

// measure runs traffic at a rate and tells how long things took.
func (m *meter) measure(ctx context.Context, d *drill.Drill, rate, disorder float64) error {
	if err := m.idle(ctx); err != nil {
		return err
	}
	m.runs++
	shop := &hotrun.Shop{Seed: m.seed<<16 + m.runs, Rate: rate, For: m.time, Disorder: disorder, Partitions: int32(m.partitions)}
	if err := shop.Render(ctx); err != nil {
		return err
	}
	w, err := startWatch(ctx, m.b.Addr)
	if err != nil {
		return err
	}
	defer w.stop()
	shop.Sent = w.sent
	probing, stopProbes := context.WithCancel(ctx)
	defer stopProbes()
	probed := make(chan error, 1)
	go func() { probed <- w.probe(probing, m.b.Addr, m.runs, int32(m.partitions), shop.Shift) }()
	err = shop.Run(ctx, m.b.Addr)
	stopProbes()
	if err = errors.Join(err, <-probed); err != nil {
		return err
	}
	if err := m.b.Quiet(ctx, m.spec, 5*time.Minute); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil {
		return w.failed
	}
	fmt.Printf("disorder %.0f %%: %d events, %.0f a second, handed over at most %s late\n", 100*disorder, shop.Count.Load(), float64(shop.Count.Load())/shop.Duration.Seconds(), shop.Behind.Round(time.Millisecond))
	for _, x := range []struct {
		kind  string
		bound time.Duration // 0: it is told
	}{{fastVisitor, boundVisitor}, {fastRekeyed, boundRekeyed}, {slow, 0}, {toKPI, 0}} {
		waits := w.waits[x.kind]
		slices.Sort(waits)
		if len(waits) == 0 {
			d.Check(false, "%s: none was seen", x.kind)
			continue
		}
		p50, p99 := at(waits, 0.50), at(waits, 0.99)
		if x.bound == 0 {
			fmt.Printf("     %s: p50 %s, p99 %s, max %s of %d\n", x.kind, p50, p99, at(waits, 1), len(waits))
			continue
		}
		beyond := 0
		for _, longest := range w.seconds[x.kind] {
			if longest >= x.bound {
				beyond++
			}
		}
		d.Check(p99 < x.bound, "%s: p50 %s, p99 %s (below %s), max %s of %d; beyond the bound in %d of %d seconds", x.kind, p50, p99, x.bound, at(waits, 1), len(waits), beyond, len(w.seconds[x.kind]))
	}
	rules := map[string]*struct{ fast, confirmed, both int }{}
	of := func(rule string) *struct{ fast, confirmed, both int } {
		if rules[rule] == nil {
			rules[rule] = &struct{ fast, confirmed, both int }{}
		}
		return rules[rule]
	}
	both := 0
	for id, rule := range w.fast {
		n := of(rule)
		n.fast++
		if _, ok := w.confirmed[id]; ok {
			n.both++
			both++
		}
	}
	for _, rule := range w.confirmed {
		of(rule).confirmed++
	}
	for _, rule := range slices.Sorted(maps.Keys(rules)) {
		fmt.Printf("     rule %s: %d on arrival, %d confirmed, %d of them the same\n", rule, rules[rule].fast, rules[rule].confirmed, rules[rule].both)
	}
	share := func(n, of int) float64 { return 100 * float64(n) / float64(max(1, of)) }
	d.Check(both > 0, "of %d alerts told on arrival %.1f %% are confirmed and %.1f %% are not; %.1f %% of %d confirmed ones were not told before", len(w.fast), share(both, len(w.fast)), share(len(w.fast)-both, len(w.fast)),
		share(len(w.confirmed)-both, len(w.confirmed)), len(w.confirmed))
	return nil
}

// at gives a percentile of what is sorted.
func at(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(100 * time.Microsecond)
}
