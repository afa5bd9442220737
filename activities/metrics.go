package activities

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of maintenance.
type metrics struct {
	groups  *prometheus.CounterVec
	bytes   *prometheus.CounterVec
	rows    *prometheus.CounterVec
	commits *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	budget  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) metrics {
	counter := func(n, help string, labels ...string) *prometheus.CounterVec {
		return register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: n, Help: help}, labels))
	}
	return metrics{
		groups:  counter("millrace_maintain_groups_total", "Groups of files rewritten by this process.", "table"),
		bytes:   counter("millrace_maintain_read_bytes_total", "Bytes of data files rewritten by this process.", "table"),
		rows:    counter("millrace_maintain_rows_total", "Rows rewritten by this process.", "table"),
		commits: counter("millrace_maintain_commits_total", "Commits of rewritten files, by who made them (lane: the stream's committer; direct: a batch worker) and their outcome.", "table", "by", "outcome"),
		seconds: register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "millrace_maintain_step_seconds", Help: "Time of one activity of maintenance.", Buckets: prometheus.ExponentialBuckets(0.01, 4, 9),
		}, []string{"activity"})),
		budget: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_batch_budget_used_bytes", Help: "Bytes that heavy activities of this process hold of its budget."})),
	}
}

// register adds a collector, or gives the one that another role of the same process has added.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	err := reg.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if have, ok := already.ExistingCollector.(C); ok {
			return have
		}
	}
	if err != nil {
		panic(err) // two metrics of one name: a mistake in the code
	}
	return c
}
