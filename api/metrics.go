package api

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type metrics struct {
	seconds  *prometheus.HistogramVec
	answers  *prometheus.CounterVec
	problems *prometheus.CounterVec
	streams  prometheus.Gauge
	dropped  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "millrace_api_request_seconds", Help: "Time from a request's headers to its whole answer, streams excepted.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"path"}),
		answers:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_api_answers_total", Help: "Answers by where they came from: cache or computed."}, []string{"from"}),
		problems: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_api_problems_total", Help: "Requests that were not answered as asked, by error id."}, []string{"id"}),
		streams:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_api_streams", Help: "Clients of server-sent events."}),
		dropped:  prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_api_streams_ended_total", Help: "Streams that the server ended: a client that did not read, or its own shutdown."}),
	}
	reg.MustRegister(m.seconds, m.answers, m.problems, m.streams, m.dropped)
	return m
}

// metricsHandler serves what is registered beside this package's metrics.
func metricsHandler(reg prometheus.Registerer) http.Handler {
	if g, ok := reg.(prometheus.Gatherer); ok {
		return promhttp.HandlerFor(g, promhttp.HandlerOpts{})
	}
	return promhttp.Handler()
}
