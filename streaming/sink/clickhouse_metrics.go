package sink

import "github.com/prometheus/client_golang/prometheus"

type clickhouseMetrics struct {
	records                               prometheus.Counter
	newest                                prometheus.Gauge
	rows, bytes, batches, errors, refused *prometheus.CounterVec // by table
	seconds                               *prometheus.HistogramVec
	presence                              *prometheus.CounterVec // by outcome
	lag                                   *prometheus.GaugeVec   // by topic
	freshness                             *prometheus.GaugeVec   // by table
	parts                                 *prometheus.GaugeVec   // by table
	buffered                              prometheus.Gauge
	standing                              standing
	promotion                             promotionMetrics
	erasure                               erasureMetrics
}

func newClickhouseMetrics(reg prometheus.Registerer) clickhouseMetrics {
	labels := prometheus.Labels{"sink": "clickhouse"}
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_sink_clickhouse_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_sink_clickhouse_" + name, Help: help}, []string{label})
	}
	m := clickhouseMetrics{
		records:  prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_sink_records_total", Help: "Records read by the sink.", ConstLabels: labels}),
		newest:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_sink_newest_record_timestamp_seconds", Help: "Broker time of the newest record written.", ConstLabels: labels}),
		rows:     counter("rows_total", "Rows that the store has taken.", "table"),
		bytes:    counter("record_bytes_total", "Bytes of the records whose rows the store has taken.", "table"),
		batches:  counter("batches_total", "Blocks that the store has taken.", "table"),
		errors:   counter("insert_errors_total", "Inserts that failed or whose outcome is unknown; each is tried again after the presence check.", "table"),
		refused:  counter("refused_rows_total", "Rows that the store refused, sent to raw.failed.", "table"),
		seconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "millrace_sink_clickhouse_insert_seconds", Help: "Time of one insert.", Buckets: prometheus.ExponentialBuckets(0.002, 2, 14)}, []string{"table"}),
		presence: counter("presence_checks_total", "Ranges in doubt, by how much of them was present: all, none, some.", "outcome"),
		lag:      gauge("lag_records", "Offsets between the last stored one and the end of the topic.", "topic"),
		freshness: gauge("newest_ingested_timestamp_seconds",
			"Greatest broker time of the records stored.", "table"),
		parts:    gauge("active_parts", "Active parts of the table's fullest partition.", "table"),
		buffered: prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_sink_clickhouse_buffered_bytes", Help: "Bytes of records waiting to be inserted."}),
	}
	reg.MustRegister(m.records, m.newest, m.rows, m.bytes, m.batches, m.errors, m.refused, m.seconds, m.presence, m.lag, m.freshness, m.parts, m.buffered)
	m.standing, m.promotion, m.erasure = newStanding(reg, "clickhouse"), newPromotionMetrics(reg, "clickhouse"), newErasureMetrics(reg, "clickhouse")
	return m
}
