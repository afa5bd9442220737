package sink

import "github.com/prometheus/client_golang/prometheus"

type icebergMetrics struct {
	records, resets                          prometheus.Counter
	newest                                   prometheus.Gauge
	rows, bytes, files, fileBytes, commits   *prometheus.CounterVec // by table
	failures, rewinds, refused, expired      *prometheus.CounterVec // by table
	laneWaits                                *prometheus.CounterVec // by table
	seconds, laneSeconds                     *prometheus.HistogramVec
	lag                                      *prometheus.GaugeVec // by topic
	ingested, freshness, snapshots, buffered *prometheus.GaugeVec // by table
	standing                                 standing
	promotion                                promotionMetrics
	erasure                                  erasureMetrics
}

func newIcebergMetrics(reg prometheus.Registerer) icebergMetrics {
	labels := prometheus.Labels{"sink": "iceberg"}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_sink_iceberg_" + name, Help: help}, []string{"table"})
	}
	gauge := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_sink_iceberg_" + name, Help: help}, []string{label})
	}
	m := icebergMetrics{
		records:   prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_sink_records_total", Help: "Records read by the sink.", ConstLabels: labels}),
		newest:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_sink_newest_record_timestamp_seconds", Help: "Broker time of the newest record written.", ConstLabels: labels}),
		resets:    prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_sink_iceberg_offset_commit_errors_total", Help: "Group offsets that could not be committed; they only show lag."}),
		rows:      counter("rows_total", "Rows committed."),
		bytes:     counter("row_bytes_total", "Uncompressed bytes of the rows committed."),
		files:     counter("files_total", "Parquet files committed."),
		fileBytes: counter("file_bytes_total", "Bytes of the Parquet files committed."),
		commits:   counter("commits_total", "Commits of rows to the table."),
		failures:  counter("failures_total", "Attempts to write or commit that failed and are tried again."),
		rewinds:   counter("rewinds_total", "Times the sink went to the offsets of the table's head: a rollback, or another member's commit."),
		refused:   counter("refused_rows_total", "Rows that cannot be stored, sent to raw.failed."),
		expired:   counter("expired_snapshots_total", "Snapshots expired by the sink."),
		seconds:   prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "millrace_sink_iceberg_commit_seconds", Help: "Time of one commit.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 12)}, []string{"table"}),
		laneWaits: counter("lane_waits_total", "Commits of maintenance that an append had to wait for."),
		laneSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "millrace_sink_iceberg_lane_seconds", Help: "Time that a commit of maintenance had the table to itself.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 12),
		}, []string{"table"}),
		lag:       gauge("lag_records", "Offsets between the last committed one and the end of the topic.", "topic"),
		ingested:  gauge("newest_ingested_timestamp_seconds", "Greatest ingested_at committed (alerts: detected_at).", "table"),
		freshness: gauge("freshness_seconds", "Now less the greatest ingested_at committed (alerts: detected_at).", "table"),
		snapshots: gauge("snapshots", "Snapshots kept in the table's metadata.", "table"),
		buffered:  gauge("buffered_bytes", "Uncompressed bytes of rows that are not committed.", "table"),
	}
	reg.MustRegister(m.records, m.newest, m.resets, m.rows, m.bytes, m.files, m.fileBytes, m.commits, m.failures, m.rewinds, m.refused, m.expired, m.laneWaits, m.seconds, m.laneSeconds, m.lag,
		m.ingested, m.freshness, m.snapshots, m.buffered)
	m.standing, m.promotion, m.erasure = newStanding(reg, "iceberg"), newPromotionMetrics(reg, "iceberg"), newErasureMetrics(reg, "iceberg")
	return m
}
