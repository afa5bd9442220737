package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// said makes a sample of what roles expose.
func said(t *testing.T, at time.Time, text string) *sample {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		say(w, text)
	}))
	defer srv.Close()
	s := scrape(t.Context(), srv.Client(), []target{{"gateway", srv.URL}}, at)
	if err := s.up["gateway"]; err != nil {
		t.Fatal(err)
	}
	return s
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func waits(group string, n int64) []lagEntry { return []lagEntry{{group, "events.page", 0, n}} }

func TestTheRulesTellAnIdleShopFromAStandingPipeline(t *testing.T) {
	stored := func(sink string, ago time.Duration) string {
		return "# TYPE millrace_sink_newest_record_timestamp_seconds gauge\nmillrace_sink_newest_record_timestamp_seconds{sink=\"" + sink + "\"} " +
			itoa(now.Add(-ago).Unix()) + "\n"
	}
	delay := func(s int64) string {
		return "# TYPE millrace_stream_watermark_delay_seconds gauge\nmillrace_stream_watermark_delay_seconds{partition=\"0\"} " + itoa(s) + "\n"
	}
	rates := func(events, failed int64) string {
		return "# TYPE millrace_gateway_events_total counter\nmillrace_gateway_events_total{category=\"page\",outcome=\"kafka\"} " + itoa(events) +
			"\n# TYPE millrace_gateway_failed_events_total counter\nmillrace_gateway_failed_events_total{reason=\"schema\"} " + itoa(failed) + "\n"
	}
	for _, c := range []struct {
		name   string
		before string // ten seconds ago
		text   string
		facts  func(f *facts)
		state  string
		part   string
		words  string
	}{
		{name: "an idle shop whose last event is hours old", text: stored("clickhouse", 5*time.Hour) + stored("redis", 5*time.Hour)[len("# TYPE millrace_sink_newest_record_timestamp_seconds gauge\n"):] + delay(18_000), facts: func(f *facts) {
			f.newest = map[string]time.Time{"events_page": now.Add(-5 * time.Hour)}
			f.lag = append(waits("millrace.sink.clickhouse", 1), waits("millrace.hot", 2)...)
		}, state: stateOK},
		{name: "nothing was ever stored and nothing waits", state: stateOK},
		{name: "a busy pipeline that keeps up", text: stored("clickhouse", time.Second) + delay(2), facts: func(f *facts) {
			f.lag = append(waits("millrace.sink.clickhouse", 5000), waits("millrace.hot", 2000)...)
		}, state: stateOK},
		{
			name: "a sink that stands while records wait", text: stored("clickhouse", 3*time.Minute), facts: func(f *facts) { f.lag = waits("millrace.sink.clickhouse", 12_345) },
			state: stateDegraded, part: "sink-clickhouse", words: "12345 records wait to be stored, the newest stored is 3m old",
		},
		{name: "a sink that has stood for long", text: stored("iceberg", time.Hour), facts: func(f *facts) { f.lag = waits("millrace.sink.iceberg", 500) }, state: stateDown, part: "sink-iceberg", words: "1h"},
		{name: "a sink of which nothing is known while records wait", facts: func(f *facts) { f.lag = waits("millrace.sink.redis", 101) }, state: stateDegraded, part: "sink-redis", words: "101 records wait"},
		{name: "a stream that falls behind", text: delay(300), facts: func(f *facts) { f.lag = waits("millrace.hot", 9000) }, state: stateDegraded, part: "stream", words: "event time is 5m behind"},
		{name: "a stream that stands", text: delay(3600), facts: func(f *facts) { f.lag = waits("millrace.hot", 9000) }, state: stateDown, part: "stream"},
		{name: "ClickHouse is away", facts: func(f *facts) { f.clickHouse = errors.New("refused") }, state: stateDown, part: "clickhouse"},
		{name: "Redis is away", facts: func(f *facts) { f.redis = errors.New("refused") }, state: stateDegraded, part: "redis"},
		{name: "Kafka is away", facts: func(f *facts) { f.lagErr = errors.New("refused") }, state: stateDown, part: "kafka"},
		{name: "Temporal is away", facts: func(f *facts) { f.temporal = errors.New("refused") }, state: stateDegraded, part: "temporal"},
		{name: "the catalog is away", facts: func(f *facts) { f.lakeErr = errors.New("refused") }, state: stateDegraded, part: "iceberg"},
		{name: "the gateway does not answer", facts: func(f *facts) { f.sample.up["gateway"] = errors.New("refused") }, state: stateDown, part: "gateway"},
		{name: "a sink's role does not answer", facts: func(f *facts) { f.sample.up["sink-redis"] = errors.New("refused") }, state: stateDegraded, part: "sink-redis"},
		{name: "the breaker is open", text: "# TYPE millrace_gateway_breaker_state gauge\nmillrace_gateway_breaker_state 2\n", state: stateDegraded, part: "gateway", words: "breaker"},
		{
			name: "the spool fills up", text: "# TYPE millrace_gateway_spool_bytes gauge\nmillrace_gateway_spool_bytes 80\n# TYPE millrace_gateway_spool_max_bytes gauge\nmillrace_gateway_spool_max_bytes 100\n",
			state: stateDegraded, part: "gateway", words: "80 % full",
		},
		{name: "many events fail", before: rates(1000, 10), text: rates(1500, 110), state: stateDegraded, part: "gateway", words: "10.0 events a second fail, 17 % of all"},
		{name: "few events fail", before: rates(1000, 10), text: rates(2000, 12), state: stateOK},
		{name: "a gateway that started again", before: rates(100_000, 9000), text: rates(500, 1), state: stateOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &facts{now: now, staleAfter: time.Minute, sample: said(t, now, c.text)}
			f.have.kafka, f.have.redis, f.have.lake, f.have.temporal = true, true, true, true
			if c.before != "" {
				f.recent = said(t, now.Add(-10*time.Second), c.before)
				f.old = f.recent
			}
			if c.facts != nil {
				c.facts(f)
			}
			r := f.judge()
			if r.State != c.state || len(r.Reasons) > 0 != (c.state != stateOK) {
				t.Fatalf("%s, because %+v", r.State, r.Reasons)
			}
			if c.state == stateOK {
				return
			}
			x := r.Reasons[0]
			if x.Part != c.part || x.Remedy == "" || !strings.Contains(x.Message, c.words) {
				t.Errorf("%+v", x)
			}
			for _, p := range r.Parts {
				if (p.State != stateOK) != (p.Name == c.part) {
					t.Errorf("part %s is %s: %s", p.Name, p.State, p.Detail)
				}
			}
		})
	}
}

func TestHealthIsReadFromTheRoles(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	events := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_gateway_events_total"}, []string{"category", "outcome"})
	seconds := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "millrace_gateway_request_seconds", Buckets: prometheus.ExponentialBuckets(0.001, 2, 10)})
	failures := prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_sink_clickhouse_insert_errors_total"})
	delay := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_stream_watermark_delay_seconds"}, []string{"partition"})
	reg.MustRegister(events, seconds, failures, delay)
	events.WithLabelValues("page", "kafka").Add(100)
	delay.WithLabelValues("1").Set(2.5)
	delay.WithLabelValues("0").Set(1.5)
	var mu sync.Mutex
	broken := false
	metrics := promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			say(w, "<html>not metrics</html>{")
			return
		}
		metrics.ServeHTTP(w, r)
	}))
	defer srv.Close()
	s := openAlone(t, func(c *Config, d *Deps) {
		c.HealthInterval, d.Metrics = 200*time.Millisecond, []string{"gateway=" + srv.URL + "/metrics"}
	})
	s.seed(t, invent(s.tenant, 100, time.Minute, 80), "UTC")
	first := answer[healthReport](t, s, "/api/v1/health")
	if first.State != stateOK || first.Ingest.Events != nil || len(first.Watermark) != 2 || first.Watermark[0].Partition != 0 || *first.Watermark[1].Delay != 2.5 {
		t.Fatalf("%+v", first)
	}
	s.clock.advance(10 * time.Second)
	events.WithLabelValues("page", "kafka").Add(150)
	events.WithLabelValues("cart", "spool").Add(50)
	failures.Add(3)
	for range 100 {
		seconds.Observe(0.003)
	}
	var second healthReport
	eventually(t, "rates", func() bool {
		second = answer[healthReport](t, s, "/api/v1/health")
		return second.Ingest.Events != nil
	})
	if *second.Ingest.Events != 20 {
		t.Errorf("%v events a second, want 20", *second.Ingest.Events)
	}
	if len(second.Latency) != 1 || second.Latency[0].P50 == nil || *second.Latency[0].P50 < 2 || *second.Latency[0].P99 > 4 {
		t.Errorf("latency %+v", second.Latency)
	}
	if len(second.Errors) != 1 || second.Errors[0].Total != 3 || second.Errors[0].Part != "gateway" {
		t.Errorf("errors %+v", second.Errors)
	}
	fresh := false
	for _, f := range second.Freshness {
		fresh = fresh || f.Store == "clickhouse" && f.Table == "events_page" && f.Seconds != nil && *f.Seconds > 8 && *f.Seconds < 30
	}
	if !fresh {
		t.Errorf("freshness %+v", second.Freshness)
	}
	mu.Lock()
	broken = true
	mu.Unlock()
	eventually(t, "the gateway that tells nothing", func() bool {
		r := answer[healthReport](t, s, "/api/v1/health")
		return r.State == stateDown && r.Reasons[0].Part == "gateway"
	})
}

func TestQuantilesAreOfWhatCameSince(t *testing.T) {
	hist := func(a, b, c string) string {
		return "# TYPE millrace_x_seconds histogram\nmillrace_x_seconds_bucket{le=\"1\"} " + a + "\nmillrace_x_seconds_bucket{le=\"2\"} " + b + "\nmillrace_x_seconds_bucket{le=\"+Inf\"} " + c + "\nmillrace_x_seconds_sum 1\nmillrace_x_seconds_count " + c + "\n"
	}
	before, after := said(t, now, hist("100", "100", "100")), said(t, now.Add(time.Second), hist("100", "200", "200"))
	if q := after.quantiles("millrace_x_seconds", before, 0.5)[0]; q == nil || *q != 1.5 {
		t.Errorf("the median since is %v, want 1.5", q)
	}
	if q := after.quantiles("millrace_x_seconds", nil, 0.25)[0]; q == nil || *q != 0.5 {
		t.Errorf("the first quartile of all is %v, want 0.5", q)
	}
	if q := after.quantiles("millrace_x_seconds", after, 1)[0]; q == nil || *q != 2 {
		t.Errorf("with nothing new it is %v, want that of all", q)
	}
	if q := after.quantiles("millrace_none_seconds", before, 0.5)[0]; q != nil {
		t.Errorf("without observations it is %v", *q)
	}
}
