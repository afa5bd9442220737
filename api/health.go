package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.temporal.io/sdk/client"
)

type lagEntry struct {
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Records   int64  `json:"records"`
}

type freshnessEntry struct {
	Store   string   `json:"store"`
	Table   string   `json:"table"`
	Newest  *stamp   `json:"newest_ingested_at"`
	Seconds *float64 `json:"seconds"`
}

type latencyEntry struct {
	Stage string   `json:"stage"`
	P50   *float64 `json:"p50_ms"`
	P99   *float64 `json:"p99_ms"`
}

type watermarkEntry struct {
	Partition int32    `json:"partition"`
	Delay     *float64 `json:"delay_seconds"`
}

type errorEntry struct {
	Part      string   `json:"part"`
	Name      string   `json:"name"`
	PerMinute *float64 `json:"per_minute"`
	Total     float64  `json:"total"`
}

type ingestRates struct {
	Events *float64 `json:"events_per_second"`
	Failed *float64 `json:"failed_per_second"`
}

type part struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Detail string `json:"detail"`
}

type reason struct {
	Part     string `json:"part"`
	Severity string `json:"severity"`
	Message  string `json:"message"`
	Remedy   string `json:"remedy"`
}

// healthReport is the answer of /api/v1/health.
type healthReport struct {
	AsOf      stamp            `json:"as_of"`
	State     string           `json:"state"`
	Reasons   []reason         `json:"reasons"`
	Parts     []part           `json:"parts"`
	Ingest    ingestRates      `json:"ingest"`
	Lag       []lagEntry       `json:"lag"`
	Freshness []freshnessEntry `json:"freshness"`
	Latency   []latencyEntry   `json:"latency"`
	Watermark []watermarkEntry `json:"watermark"`
	Errors    []errorEntry     `json:"errors"`

	lagKnown bool
}

// healthSummary is the health as the live stream has it.
type healthSummary struct {
	State    string   `json:"state"`
	Reasons  []reason `json:"reasons"`
	Events   *float64 `json:"events_per_second"`
	Failed   *float64 `json:"failed_per_second"`
	Lag      *int64   `json:"lag_records"`
	Freshest *float64 `json:"freshest_seconds"`
}

func (h *healthReport) summary() healthSummary {
	out := healthSummary{State: h.State, Reasons: h.Reasons, Events: h.Ingest.Events, Failed: h.Ingest.Failed}
	if h.lagKnown {
		var sum int64
		for _, l := range h.Lag {
			sum += l.Records
		}
		out.Lag = &sum
	}
	for _, f := range h.Freshness {
		if f.Store == "clickhouse" && f.Seconds != nil && (out.Freshest == nil || *f.Seconds < *out.Freshest) {
			out.Freshest = f.Seconds
		}
	}
	return out
}

const (
	rateWindow  = 10 * time.Second
	errorWindow = 5 * time.Minute
	lookTimeout = 2 * time.Second
	slowEvery   = 10 * time.Second // what costs more, or changes rarely, is looked at as often
	markerLag   = 2                // a partition whose last records are markers of transactions is this far behind without holding anything
)

// health looks at every part of the pipeline. A look is shared by all who ask within HealthInterval.
type health struct {
	a       *API
	targets []target
	client  *http.Client

	mu      sync.Mutex
	at      time.Time
	last    *healthReport
	samples []*sample // oldest first, as far back as errorWindow
	slow    slowFacts
}

// slowFacts are looked at every slowEvery.
type slowFacts struct {
	at       time.Time
	lag      []lagEntry
	lagErr   error
	lake     []freshnessEntry
	lakeErr  error
	temporal error
}

// facts are what the rules judge.
type facts struct {
	now        time.Time
	staleAfter time.Duration
	have       struct{ kafka, redis, lake, temporal bool } // configured
	sample     *sample
	recent     *sample // some rateWindow ago; nil at first
	old        *sample // the oldest, up to errorWindow ago; nil at first
	clickHouse error
	redis      error
	newest     map[string]time.Time
	slowFacts
}

func newHealth(a *API, targets []target) *health {
	return &health{a: a, targets: targets, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, Proxy: nil}}}
}

func (h *health) close() { h.client.CloseIdleConnections() }

// report gives the health as it was within the last HealthInterval.
func (h *health) report(ctx context.Context) (*healthReport, error) {
	h.mu.Lock()
	last, at := h.last, h.at
	h.mu.Unlock()
	if last != nil && time.Since(at) < h.a.cfg.HealthInterval {
		return last, nil
	}
	if _, err := h.a.flights.do(ctx, "health", func(ctx context.Context) ([]byte, error) {
		r := h.look(ctx)
		h.mu.Lock()
		h.last, h.at = r, time.Now()
		h.mu.Unlock()
		return nil, ctx.Err()
	}); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last, nil
}

// sampled gives what the roles said at the last look at which any of them exposed a metric, as far back as errors are counted; else what they said at the last one.
func (h *health) sampled(ctx context.Context, metric string) (*sample, error) {
	if _, err := h.report(ctx); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range slices.Backward(h.samples) {
		if s.has(metric) {
			return s, nil
		}
	}
	return h.samples[len(h.samples)-1], nil
}

// run keeps rates and errors current when nobody asks.
func (h *health) run(ctx context.Context) {
	tick := time.NewTicker(h.a.cfg.HealthInterval)
	defer tick.Stop()
	for {
		if _, err := h.report(ctx); err != nil && ctx.Err() == nil {
			h.a.log.WarnContext(ctx, "health not looked at", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// within ends f's context after a time without giving it a deadline: the ClickHouse driver makes a limit of the query of one.
func within(ctx context.Context, d time.Duration, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(d, cancel).Stop()
	return f(ctx)
}

// look asks every part.
func (h *health) look(ctx context.Context) *healthReport {
	a := h.a
	f := &facts{now: a.now(), staleAfter: a.cfg.StaleAfter}
	f.have.kafka, f.have.redis, f.have.lake, f.have.temporal = a.kafka != nil, a.redis != nil, a.lake != nil, a.temporal != nil
	h.mu.Lock()
	slow := h.slow
	h.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { f.sample = scrape(ctx, h.client, h.targets, f.now) })
	wg.Go(func() {
		f.clickHouse = within(ctx, lookTimeout, func(ctx context.Context) (err error) {
			f.newest, err = a.olap.Newest(ctx)
			return err
		})
	})
	if f.have.redis {
		wg.Go(func() {
			limited, cancel := context.WithTimeout(ctx, redisTimeout)
			defer cancel()
			f.redis = a.redis.Ping(limited).Err()
		})
	}
	if time.Since(slow.at) >= slowEvery {
		wg.Go(func() { slow = h.lookSlowly(ctx) })
	}
	wg.Wait()
	f.slowFacts = slow
	h.mu.Lock()
	h.slow = slow
	for len(h.samples) > 0 && f.now.Sub(h.samples[0].at) > errorWindow {
		h.samples = h.samples[1:]
	}
	for _, s := range h.samples {
		if f.recent == nil || f.now.Sub(s.at) >= rateWindow {
			f.recent = s
		}
	}
	if len(h.samples) > 0 {
		f.old = h.samples[0]
	}
	h.samples = append(h.samples, f.sample)
	h.mu.Unlock()
	return f.judge()
}

func (h *health) lookSlowly(ctx context.Context) slowFacts {
	a := h.a
	var out slowFacts
	var wg sync.WaitGroup
	if a.kafka != nil {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, lookTimeout)
			defer cancel()
			out.lag, out.lagErr = a.lag(ctx)
		})
	}
	if a.lake != nil {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, lookTimeout)
			defer cancel()
			tables, err := a.lake.Tables(ctx)
			out.lakeErr = err
			for _, t := range tables {
				out.lake = append(out.lake, freshnessEntry{Store: "iceberg", Table: t.Name, Newest: stampOf(t.Committed)})
			}
		})
	}
	if a.temporal != nil {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, lookTimeout)
			defer cancel()
			_, out.temporal = a.temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
		})
	}
	wg.Wait()
	out.at = time.Now()
	return out
}

// groups of the platform's consumers, with the role that each is.
var groups = map[string]string{"millrace.hot": "stream", "millrace.sink.clickhouse": "sink-clickhouse", "millrace.sink.redis": "sink-redis", "millrace.sink.iceberg": "sink-iceberg"}

// lag asks how far the consumer groups are behind.
func (a *API) lag(ctx context.Context) ([]lagEntry, error) {
	all, err := a.kafka.Lag(ctx, slices.Sorted(maps.Keys(groups))...)
	if err != nil {
		return nil, fmt.Errorf("asking for the lag of groups: %w", err)
	}
	var errs []error
	out := []lagEntry{}
	for _, g := range all.Sorted() {
		if err := g.Error(); err != nil {
			errs = append(errs, fmt.Errorf("lag of %s: %w", g.Group, err))
			continue
		}
		for _, l := range g.Lag.Sorted() {
			// A partition without a commit is one whose records nobody has taken yet, or an empty one.
			if l.Lag >= 0 {
				out = append(out, lagEntry{g.Group, l.Topic, l.Partition, l.Lag})
			}
		}
	}
	if len(out) > 0 { // a group that does not run yet is no failure of the broker
		return out, nil
	}
	return out, errors.Join(errs...)
}

// judge makes the report of the facts: the numbers, then what the rules say of them.
func (f *facts) judge() *healthReport {
	r := &healthReport{AsOf: stamp(f.now), Reasons: []reason{}, Lag: f.lag, lagKnown: f.have.kafka && f.lagErr == nil, Watermark: []watermarkEntry{}, Errors: []errorEntry{}}
	if r.Lag == nil {
		r.Lag = []lagEntry{}
	}
	r.Ingest = ingestRates{round(f.accepted()), round(f.failed())}
	r.Freshness = f.freshness()
	for _, l := range latencies {
		if f.sample.has(l.metric) {
			q := f.sample.quantiles(l.metric, f.recent, 0.5, 0.99)
			r.Latency = append(r.Latency, latencyEntry{l.stage, millis(q[0]), millis(q[1])})
		}
	}
	if r.Latency == nil {
		r.Latency = []latencyEntry{}
	}
	f.sample.each("millrace_stream_watermark_delay_seconds", func(_ seriesID, labels map[string]string, v float64) {
		if n, err := strconv.ParseInt(labels["partition"], 10, 32); err == nil {
			r.Watermark = append(r.Watermark, watermarkEntry{int32(n), round(&v)})
		}
	})
	slices.SortFunc(r.Watermark, func(a, b watermarkEntry) int { return cmp.Compare(a.Partition, b.Partition) })
	r.Errors = f.errors()
	r.Parts, r.Reasons = f.apply()
	r.State = stateOK
	for _, x := range r.Reasons {
		r.State = worse(r.State, x.Severity)
	}
	slices.SortStableFunc(r.Reasons, func(a, b reason) int { return cmp.Compare(severity[b.Severity], severity[a.Severity]) })
	return r
}

// latencies are the stages whose time is shown, in the order of the flow.
var latencies = [...]struct{ stage, metric string }{
	{"gateway request", "millrace_gateway_request_seconds"},
	{"gateway produce", "millrace_gateway_produce_seconds"},
	{"stream transaction", "millrace_stream_transaction_seconds"},
	{"stream commit", "millrace_stream_commit_seconds"},
	{"clickhouse insert", "millrace_sink_clickhouse_insert_seconds"},
	{"redis write", "millrace_sink_redis_write_seconds"},
	{"iceberg commit", "millrace_sink_iceberg_commit_seconds"},
}

// accepted is how many events a second the gateways took, nil where it is not known.
func (f *facts) accepted() *float64 {
	kafka := f.sample.rate("millrace_gateway_events_total", f.recent, "outcome", "kafka")
	spool := f.sample.rate("millrace_gateway_events_total", f.recent, "outcome", "spool")
	switch {
	case kafka == nil:
		return spool
	case spool != nil:
		sum := *kafka + *spool
		return &sum
	}
	return kafka
}

func (f *facts) failed() *float64 {
	return f.sample.rate("millrace_gateway_failed_events_total", f.recent)
}

func (f *facts) freshness() []freshnessEntry {
	out := []freshnessEntry{}
	age := func(t time.Time) *float64 {
		if t.IsZero() {
			return nil
		}
		s := math.Max(0, f.now.Sub(t).Seconds())
		return round(&s)
	}
	for _, name := range slices.Sorted(maps.Keys(f.newest)) {
		if !strings.HasPrefix(name, "kpi_items_") {
			out = append(out, freshnessEntry{"clickhouse", name, stampOf(f.newest[name]), age(f.newest[name])})
		}
	}
	for _, l := range f.lake {
		if l.Newest != nil {
			l.Seconds = age(time.Time(*l.Newest))
		}
		out = append(out, l)
	}
	if at, ok := f.stored("redis"); ok {
		out = append(out, freshnessEntry{"redis", "kpi.partial", stampOf(at), age(at)})
	}
	return out
}

// stored is the broker's time of the newest record that a sink has written.
func (f *facts) stored(sink string) (time.Time, bool) {
	v, ok := f.sample.greatest("millrace_sink_newest_record_timestamp_seconds", "sink", sink)
	if !ok || v <= 0 {
		return time.Time{}, false
	}
	return time.UnixMicro(int64(v * 1e6)), true
}

// errorWords mark a counter as one of errors.
var errorWords = []string{"error", "failures", "refused", "rewinds", "aborts", "unknown", "sessions", "damaged", "full_total", "problems"}

// errors lists the error counters that rose.
func (f *facts) errors() []errorEntry {
	out := []errorEntry{}
	if f.old == nil || !f.sample.at.After(f.old.at) {
		return out
	}
	minutes := f.sample.at.Sub(f.old.at).Minutes()
	for id, v := range f.sample.values {
		if f.sample.kinds[id.name] != dto.MetricType_COUNTER || !slices.ContainsFunc(errorWords, func(w string) bool { return strings.Contains(id.name, w) }) {
			continue
		}
		if d, ok := f.sample.grown(id, f.old); ok && d > 0 {
			name := id.name
			if id.labels != "" {
				name += "{" + id.labels + "}"
			}
			per := d / minutes
			out = append(out, errorEntry{id.role, name, round(&per), v})
		}
	}
	slices.SortFunc(out, func(a, b errorEntry) int { return cmp.Or(cmp.Compare(a.Part, b.Part), cmp.Compare(a.Name, b.Name)) })
	return out
}

// round keeps three decimals.
func round(v *float64) *float64 {
	if v == nil || math.IsNaN(*v) || math.IsInf(*v, 0) {
		return nil
	}
	r := math.Round(*v*1000) / 1000
	return &r
}

func millis(v *float64) *float64 {
	if v == nil {
		return nil
	}
	ms := *v * 1000
	return round(&ms)
}
