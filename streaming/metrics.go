package streaming

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	records, emitted, changes, timers, commits, aborts, unknown, sessions prometheus.Counter
	restores, restoreRecords, restoreSeconds                              prometheus.Counter
	snapshotsUsed, snapshotsRefused, localErrors                          prometheus.Counter
	commitSeconds, transactionSeconds                                     prometheus.Histogram
	tasks, restoring, lastCommit                                          prometheus.Gauge
	lag, delay, buffered, keys                                            *prometheus.GaugeVec
	stateBytes, diskKeys, latency, restoredShare, restoreTook, hotKey     *prometheus.GaugeVec
	localBytes, exactlyOnce                                               prometheus.Gauge
	refused                                                               prometheus.Counter
	replayed, unannounced                                                 prometheus.Counter
	windows, taskRecords                                                  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, top Topology) (*metrics, error) {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	labels := prometheus.Labels{"topology": top.Name, "stage": top.Stage}
	var errs []error
	add := func(c prometheus.Collector) { errs = append(errs, reg.Register(c)) }
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_stream_" + name, Help: help, ConstLabels: labels})
		add(c)
		return c
	}
	histogram := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "millrace_stream_" + name, Help: help, ConstLabels: labels, Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16)})
		add(h)
		return h
	}
	one := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_stream_" + name, Help: help, ConstLabels: labels})
		add(g)
		return g
	}
	gauge := func(name, help string, by ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_stream_" + name, Help: help, ConstLabels: labels}, append([]string{"partition"}, by...))
		add(g)
		return g
	}
	m := &metrics{
		records:            counter("records_total", "Input records of committed transactions."),
		emitted:            counter("emitted_total", "Output records of committed transactions."),
		changes:            counter("changelog_records_total", "Changelog records of committed transactions."),
		timers:             counter("timers_total", "Event-time timers fired in committed transactions."),
		commits:            counter("commits_total", "Tasks that were part of a committed transaction."),
		aborts:             counter("aborts_total", "Transactions that were aborted and replayed."),
		unknown:            counter("unknown_total", "Transactions whose outcome was not known: the tasks were discarded and restored."),
		sessions:           counter("sessions_total", "Sessions that ended with an error and were made anew."),
		restores:           counter("restores_total", "Tasks restored."),
		restoreRecords:     counter("restore_records_total", "Records read to restore tasks."),
		restoreSeconds:     counter("restore_seconds_total", "Time spent to restore tasks."),
		snapshotsUsed:      counter("snapshots_used_total", "Tasks restored from a local snapshot and the changelog behind it."),
		snapshotsRefused:   counter("snapshots_refused_total", "Tasks restored from the whole changelog although the worker has a local state: there was no snapshot that could be used."),
		localErrors:        counter("local_state_errors_total", "Failures of the local state: it was made anew from the changelog."),
		commitSeconds:      histogram("commit_seconds", "From flush to the end of a transaction."),
		transactionSeconds: histogram("transaction_seconds", "From the first change in a transaction to its end."),
		tasks:              one("tasks", "Tasks that the worker runs."),
		restoring:          one("restoring_tasks", "Tasks that are the worker's and whose state is being restored."),
		lastCommit:         one("last_commit_timestamp_seconds", "When the worker's last transaction was committed, or the worker started."),
		lag:                gauge("lag_records", "Records of a task's input, up to its last stable offset, that are not processed.", "topic"),
		delay:              gauge("watermark_delay_seconds", "How far a task's watermark, in the live lane, is behind the clock. It grows while no events come."),
		buffered:           gauge("buffered_records", "Records of a task that were read and wait in the merge for another input."),
		keys:               gauge("state_keys", "Keys in a store of a task's state.", "store"),
		stateBytes:         gauge("state_bytes", "About what the stores of a task's state take in memory."),
		diskKeys:           gauge("state_disk_keys", "Keys of a task's state that are on the local disk alone."),
		latency:            gauge("task_commit_seconds", "From the first change to the end of the transaction that a task was part of last."),
		restoredShare:      gauge("restored_share", "How much of a task's state has been read while it is restored, 0 to 1."),
		restoreTook:        gauge("task_restore_seconds", "How long it took to restore a task."),
		hotKey:             gauge("hot_key_share", "Share of a task's records of the last seconds that had the same key, at least, by a sample."),
		exactlyOnce:        one("exactly_once_workers", "1 if the worker's outputs, state and offsets are one transaction; 0 if it promises at least once."),
		localBytes:         one("local_state_bytes", "What the worker's local state takes on disk."),
		unannounced:        counter("announcements_lost_total", "Records that could not be announced to a later stage: what it would have said at once is said when it is certain."),
		replayed:           counter("replayed_records_total", "Input records of aborted transactions: they are processed again."),
		refused:            counter("refused_records_total", "Input records that were left out, their key being longer than stream.max_key_bytes."),
		taskRecords:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_stream_task_records_total", Help: "Input records of a task in committed transactions.", ConstLabels: labels}, []string{"partition"}),
		windows:            prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_stream_window_events_total", Help: "Events at windows by outcome.", ConstLabels: labels}, []string{"store", "outcome"}),
	}
	add(m.windows)
	add(m.taskRecords)
	m.lastCommit.SetToCurrentTime()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("registering stream metrics: %w", err)
	}
	return m, nil
}

// observe takes over what a task counted in a transaction that has just committed.
func (m *metrics) observe(t *Task) {
	s := t.stats
	t.stats = taskStats{}
	m.records.Add(float64(s.records))
	m.taskRecords.WithLabelValues(strconv.Itoa(int(t.part))).Add(float64(s.records))
	m.emitted.Add(float64(s.emitted))
	m.changes.Add(float64(s.changes))
	m.timers.Add(float64(s.timers))
	m.refused.Add(float64(s.refused))
	m.commits.Inc()
	for _, w := range t.windows {
		c, store := w.counts(), strconv.Itoa(int(w.store().ID))
		m.windows.WithLabelValues(store, "on_time").Add(float64(c.OnTime))
		m.windows.WithLabelValues(store, "late").Add(float64(c.Late))
		m.windows.WithLabelValues(store, "dropped").Add(float64(c.Dropped))
	}
}

// gauge shows where a task stands. ends are the inputs' ends by index as they were asked for last; what was fetched since may reach further.
func (m *metrics) gauge(t *Task, s TaskStatus, ends []int64, now time.Time) {
	p := strconv.Itoa(int(t.part))
	for i := range t.in {
		m.lag.WithLabelValues(p, t.in[i].topic).Set(float64(t.lag(i, ends)))
	}
	m.hotKey.WithLabelValues(p).Set(s.HotKeyShare)
	m.stateBytes.WithLabelValues(p).Set(float64(s.StateBytes))
	m.latency.WithLabelValues(p).Set(s.CommitLatency.Seconds())
	if t.local != nil {
		n := 0
		for _, x := range t.local.pagers {
			n += x.onDiskAlone()
		}
		m.diskKeys.WithLabelValues(p).Set(float64(n))
	}
	for _, x := range t.tables {
		if id := x.store().ID; id >= FirstStoreID || id == storeTimers {
			m.keys.WithLabelValues(p, x.store().Name).Set(float64(x.size()))
		}
	}
	m.buffered.WithLabelValues(p).Set(float64(t.merge.buffered))
	if wm := t.Watermark(); wm != noTime {
		m.delay.WithLabelValues(p).Set(now.Sub(time.UnixMicro(wm)).Seconds())
	}
}

// forget takes a task's gauges away: it is another worker's now.
func (m *metrics) forget(part int32) {
	p := prometheus.Labels{"partition": strconv.Itoa(int(part))}
	for _, v := range []*prometheus.GaugeVec{m.lag, m.delay, m.buffered, m.keys, m.stateBytes, m.diskKeys, m.latency, m.hotKey, m.restoreTook, m.restoredShare} {
		v.DeletePartialMatch(p)
	}
	m.taskRecords.DeletePartialMatch(p)
}
