package spool

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	fsync       prometheus.Histogram
	errors      prometheus.Counter
	full        prometheus.Counter
	drained     prometheus.Counter
	drainErrors prometheus.Counter
	damaged     prometheus.Counter
	refused     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Spool) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string, value func(Status) float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(s.Status()) }))
	}
	gauge("millrace_gateway_spool_bytes", "Bytes that wait in the spool.", func(st Status) float64 { return float64(st.Bytes) })
	gauge("millrace_gateway_spool_max_bytes", "Bound of the spool.", func(st Status) float64 { return float64(st.MaxBytes) })
	gauge("millrace_gateway_spool_records", "Records of this process that wait in the spool.", func(st Status) float64 { return float64(st.Records) })
	gauge("millrace_gateway_spool_adopted_folders", "Folders of ended processes that are not drained.", func(st Status) float64 { return float64(st.Adopted) })
	gauge("millrace_gateway_spool_oldest_age_seconds", "Age of the oldest record that waits in the spool.", func(st Status) float64 { return st.Oldest.Seconds() })
	gauge("millrace_gateway_spool_overdue", "1 while the oldest record is older than spool.max_age.", func(st Status) float64 {
		if st.Oldest > s.cfg.MaxAge {
			return 1
		}
		return 0
	})
	m := &metrics{
		fsync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "millrace_gateway_spool_fsync_seconds", Help: "Time to write and fsync one group of appends.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		errors:      counter("millrace_gateway_spool_errors_total", "Writes or fsyncs of the spool that failed."),
		full:        counter("millrace_gateway_spool_full_total", "Appends refused because the spool was full."),
		drained:     counter("millrace_gateway_spool_drained_total", "Records delivered out of the spool."),
		drainErrors: counter("millrace_gateway_spool_drain_errors_total", "Attempts to drain that failed."),
		damaged:     counter("millrace_gateway_spool_damaged_bytes_total", "Bytes of segments that held no valid frame."),
		refused:     counter("millrace_gateway_spool_refused_total", "Records put aside because no broker takes them."),
	}
	reg.MustRegister(m.fsync)
	return m
}
