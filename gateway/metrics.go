package gateway

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"millrace/event"
)

// What became of an event.
const (
	outKafka  = "kafka"
	outSpool  = "spool"
	outFailed = "failed"
)

type metrics struct {
	requests *prometheus.CounterVec
	events   map[string]map[string]prometheus.Counter // category, outcome
	failed   *prometheus.CounterVec
	seconds  prometheus.Histogram
	produce  prometheus.Histogram
	bytes    prometheus.Counter
	formats  *prometheus.CounterVec
	retries  *prometheus.CounterVec

	shedMemory, shedBehind, shedBroker prometheus.Counter // events not given to the broker directly
}

func newMetrics(reg prometheus.Registerer, g *Gateway) *metrics {
	events := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_gateway_events_total", Help: "Events by category and where they were made durable."}, []string{"category", "outcome"})
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_gateway_requests_total", Help: "Requests by status code."}, []string{"code"}),
		events:   map[string]map[string]prometheus.Counter{},
		failed:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_gateway_failed_events_total", Help: "Failed events by reason."}, []string{"reason"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "millrace_gateway_request_seconds", Help: "Time from a request's headers to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		produce: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "millrace_gateway_produce_seconds", Help: "Time until the broker acknowledged the records of a request.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		bytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_gateway_body_bytes_total", Help: "Decoded bytes of request bodies."}),
		formats: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_gateway_format_requests_total", Help: "Requests by the format of their path."}, []string{"format"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_gateway_retries_total", Help: "Requests that their client says it sends again (X-Retry-Count)."}, []string{"format"}),
	}
	shed := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_gateway_shed_total", Help: "Events not given to the broker directly: short memory, older ones in the spool, breaker open."}, []string{"cause"})
	m.shedMemory, m.shedBehind, m.shedBroker = shed.WithLabelValues("memory"), shed.WithLabelValues("behind"), shed.WithLabelValues("broker")
	reg.MustRegister(events, m.requests, m.failed, m.seconds, m.produce, m.bytes, m.formats, m.retries, shed,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "millrace_gateway_in_flight_bytes", Help: "Memory of requests in flight."}, func() float64 { return float64(g.budget.used.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "millrace_gateway_breaker_state", Help: "Breaker of the broker: 0 closed, 1 half open, 2 open."}, func() float64 {
			switch g.brokers.breaker.State() {
			case gobreaker.StateOpen:
				return 2
			case gobreaker.StateHalfOpen:
				return 1
			default:
				return 0
			}
		}),
	)
	names := []string{outFailed}
	for _, c := range event.Categories() {
		names = append(names, c.String())
	}
	for _, n := range names {
		m.events[n] = map[string]prometheus.Counter{}
		for _, o := range []string{outKafka, outSpool} {
			m.events[n][o] = events.WithLabelValues(n, o)
		}
	}
	return m
}

func (m *metrics) request(code int, start time.Time) {
	m.requests.WithLabelValues(strconv.Itoa(code)).Inc()
	m.seconds.Observe(time.Since(start).Seconds())
}

// format counts a request by its format; retry is what its client says of earlier attempts.
func (m *metrics) format(name, retry string) {
	m.formats.WithLabelValues(name).Inc()
	if n, err := strconv.Atoi(retry); err == nil && n > 0 {
		m.retries.WithLabelValues(name).Inc()
	}
}
