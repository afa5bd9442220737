package hot

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/event"
)

// outcome is what became of a record that was read.
type outcome uint8

const (
	accepted  outcome = iota
	duplicate         // seen before
	failed            // no event: kept in events.failed
	late              // accepted, but in no KPI yet
	outcomes
)

var outcomeNames = [outcomes]string{"accepted", "duplicate", "failed", "late"}

type metrics struct {
	events      *prometheus.CounterVec
	ids         *prometheus.GaugeVec
	memory      *prometheus.GaugeVec
	disk        *prometheus.GaugeVec
	spillErrors prometheus.Counter
	by          [][outcomes]prometheus.Counter // by input
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		events:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_hot_events_total", Help: "Records read, by category and outcome; late ones are also accepted."}, []string{"category", "outcome"}),
		ids:         prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_hot_dedup_ids", Help: "Ids remembered within the dedup window."}, []string{"partition"}),
		memory:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_hot_dedup_memory_bytes", Help: "Memory of the dedup index."}, []string{"partition"}),
		disk:        prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_hot_dedup_disk_bytes", Help: "Local files of the dedup index."}, []string{"partition"}),
		spillErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_hot_dedup_file_errors_total", Help: "Closed dedup buckets that could not be written to a local file and stay in memory, or whose file could not be closed."}),
	}
	reg.MustRegister(m.events, m.ids, m.memory, m.disk, m.spillErrors)
	names := []string{}
	for _, c := range event.Categories() {
		names = append(names, c.String())
	}
	for _, name := range append(names, "failed") {
		var row [outcomes]prometheus.Counter
		for o := range row {
			row[o] = m.events.WithLabelValues(name, outcomeNames[o])
		}
		m.by = append(m.by, row)
	}
	return m
}

// taskMetrics counts within the transaction of one task; what is aborted is not counted.
type taskMetrics struct {
	m         *metrics
	partition string
	counts    [][outcomes]uint64 // by input
}

func (m *metrics) task(partition int32) *taskMetrics {
	return &taskMetrics{m: m, partition: strconv.Itoa(int(partition)), counts: make([][outcomes]uint64, len(m.by))}
}

func (t *taskMetrics) count(in int, o outcome) { t.counts[in][o]++ }

func (t *taskMetrics) commit(d *dedup) {
	for in := range t.counts {
		for o, n := range t.counts[in] {
			if n > 0 {
				t.m.by[in][o].Add(float64(n))
			}
		}
	}
	t.abort()
	t.sizes(d)
}

func (t *taskMetrics) abort() { clear(t.counts) }

func (t *taskMetrics) sizes(d *dedup) {
	ids, memory, disk := d.size()
	t.m.ids.WithLabelValues(t.partition).Set(float64(ids))
	t.m.memory.WithLabelValues(t.partition).Set(float64(memory))
	t.m.disk.WithLabelValues(t.partition).Set(float64(disk))
}

func (t *taskMetrics) close() {
	for _, v := range []*prometheus.GaugeVec{t.m.ids, t.m.memory, t.m.disk} {
		v.DeleteLabelValues(t.partition)
	}
}
