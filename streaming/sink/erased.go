package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/fault"
	"millrace/live"
	"millrace/olap"
)

// erasures is the ledger of erasures as a sink follows it, from the topic erasures: a sink that reads its topics again, from wherever, does not bring back who was
// erased. It is read to its end before anything is stored; what comes later is known within the time of a poll.
//
// Rows below the cut of an erasure are dropped. Fresh ones cost a comparison of offsets.
type erasures struct {
	codecs  *schema.Codecs
	log     *slog.Logger
	cl      *kgo.Client
	next    int64 // offset
	current atomic.Pointer[event.Erased]
	failed  atomic.Pointer[error]

	subjects prometheus.Gauge
	read     prometheus.Gauge
	dropped  *prometheus.CounterVec // by table
}

// followErasures reads the topic to its end, waiting for the broker if need be, and then follows it until the function that it gives is called. Without a key there is no
// ledger: nil, which drops nothing.
func followErasures(ctx context.Context, key *event.SubjectKey, codecs *schema.Codecs, opts []kgo.Opt, m erasureMetrics, log *slog.Logger) (*erasures, func(), error) {
	if key == nil {
		return nil, func() {}, nil
	}
	cl, err := kgo.NewClient(append(slices.Clone(opts),
		kgo.ConsumeTopics(event.TopicErasures), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.KeepControlRecords())...) // a topic that ends in a transaction's marker ends there
	if err != nil {
		return nil, nil, fmt.Errorf("reading topic %s: %w", event.TopicErasures, err)
	}
	f := &erasures{codecs: codecs, log: log, cl: cl, subjects: m.subjects, read: m.read, dropped: m.dropped}
	f.current.Store(event.NewErased(*key))
	if err := f.load(ctx); err != nil {
		cl.Close()
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := f.poll(ctx); err != nil {
				f.failed.Store(&err)
				return
			}
		}
	})
	return f, func() { cancel(); wg.Wait(); cl.Close() }, nil
}

// erasureMetrics are those of one sink.
type erasureMetrics struct {
	subjects prometheus.Gauge
	read     prometheus.Gauge
	dropped  *prometheus.CounterVec
}

func newErasureMetrics(reg prometheus.Registerer, sink string) erasureMetrics {
	labels := prometheus.Labels{"sink": sink}
	m := erasureMetrics{
		subjects: prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_sink_erased_subjects", Help: "Subjects in the ledger of erasures, as the sink knows it.", ConstLabels: labels}),
		read:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_sink_erasures_read_timestamp_seconds", Help: "When the sink last heard from the topic erasures.", ConstLabels: labels}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_sink_erased_rows_total", Help: "Rows of erased subjects that came again and were not stored.", ConstLabels: labels,
		}, []string{"table"}),
	}
	reg.MustRegister(m.subjects, m.read, m.dropped)
	return m
}

// load reads up to where the topic ends now. A topic that is not there has no entries.
func (f *erasures) load(ctx context.Context) error {
	adm := kadm.NewClient(f.cl)
	for {
		ends, err := adm.ListEndOffsets(ctx, event.TopicErasures)
		if err == nil {
			end, ok := ends.Lookup(event.TopicErasures, 0)
			switch {
			case !ok, errors.Is(end.Err, kerr.UnknownTopicOrPartition):
				return nil
			case end.Err == nil:
				for f.next < end.Offset {
					if err := f.poll(ctx); err != nil {
						return err
					}
					if ctx.Err() != nil {
						return fmt.Errorf("reading topic %s: %w", event.TopicErasures, ctx.Err())
					}
				}
				return nil
			}
			err = end.Err
		}
		f.log.WarnContext(ctx, "sink: the topic erasures cannot be read yet", "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("reading topic %s: %w", event.TopicErasures, ctx.Err())
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// poll takes what comes next. An error is one that waiting does not mend: nothing may be stored then.
func (f *erasures) poll(ctx context.Context) error {
	fetches := f.cl.PollFetches(ctx)
	failed := false
	fetches.EachError(func(_ string, _ int32, err error) {
		if ctx.Err() == nil {
			failed = true
			f.log.WarnContext(ctx, "sink: reading the topic erasures failed and is tried again", "error", err)
		}
	})
	next := f.current.Load()
	var bad error
	entries := 0
	fetches.EachRecord(func(r *kgo.Record) {
		if bad != nil {
			return
		}
		if f.next = r.Offset + 1; r.Attrs.IsControl() {
			return
		}
		var entry event.Erasure
		if bad = f.codecs.Decode(ctx, event.TopicErasures, r.Value, &entry); bad != nil {
			bad = fmt.Errorf("topic %s@%d: %w", event.TopicErasures, r.Offset, bad)
			return
		}
		if entries == 0 {
			next = next.Clone()
		}
		entries++
		if bad = next.Add(entry); errors.Is(bad, event.ErrSubjectKey) {
			bad = fault.New("MR-ERA-001", bad)
		}
	})
	if bad != nil {
		return bad
	}
	if entries > 0 {
		f.current.Store(next)
		f.subjects.Set(float64(next.Len()))
	}
	if !failed && ctx.Err() == nil {
		f.read.SetToCurrentTime()
		return nil
	}
	select { // a client that fails at once is not asked at once again
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
	return nil
}

// err is why nothing may be stored; nil: all is well.
func (f *erasures) err() error {
	if f == nil {
		return nil
	}
	if e := f.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// dropsEvent says whether a row is not to be stored, and counts it.
func (f *erasures) dropsEvent(e *event.Event) bool {
	if f == nil || !f.current.Load().DropsEvent(e) {
		return false
	}
	f.dropped.WithLabelValues(e.Category().Table()).Inc()
	return true
}

func (f *erasures) dropsFailed(e *event.Failed) bool {
	if f == nil || !f.current.Load().DropsFailed(e) {
		return false
	}
	f.dropped.WithLabelValues("failed_events").Inc()
	return true
}

func (f *erasures) dropsUpdate(u *event.LiveUpdate, at time.Time) bool {
	if f == nil || !live.ErasedUpdate(u, at, f.current.Load()) {
		return false
	}
	f.dropped.WithLabelValues("live_updates").Inc()
	return true
}

func (f *erasures) dropsAlert(a *event.Alert) bool {
	if f == nil || !f.current.Load().DropsAlert(a) {
		return false
	}
	f.dropped.WithLabelValues(olap.TableAlerts).Inc()
	return true
}
