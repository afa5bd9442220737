package registry

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests  *prometheus.CounterVec
	skipped   prometheus.Counter
	conflicts prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, r *Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_registry_requests_total",
			Help: "Requests answered, by route, method and HTTP status code.",
		}, []string{"route", "method", "code"}),
		skipped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_registry_records_skipped_total",
			Help: "Records of the schema topic that are not in the registry's format.",
		}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_registry_conflicts_total",
			Help: "Records that lost against another instance's and were written again.",
		}),
	}
	gauge := func(name, help string, value func(*state) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			r.mu.RLock()
			defer r.mu.RUnlock()
			return float64(value(r.state))
		})
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.skipped, m.conflicts,
			gauge("millrace_registry_schemas", "Schemas with an id.", func(s *state) int { return len(s.byID) }),
			gauge("millrace_registry_subjects", "Subjects, soft-deleted ones included.", func(s *state) int { return len(s.subjects) }))
	}
	return m
}
