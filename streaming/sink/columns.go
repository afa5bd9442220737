package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
)

// promotions follows the topic control: which properties of events have become columns. A sink reads it to its end before it stores anything, so that a restart
// knows what ran before it, and goes on reading while it stores.
//
// While the topic cannot be read, the sink goes on with the columns it knows; the value of a column it has not heard of is in the row's properties.
type promotions struct {
	log     *slog.Logger
	m       promotionMetrics
	cl      *kgo.Client
	mu      sync.Mutex
	set     schema.Promotions
	version int
	next    int64 // offset
}

type promotionMetrics struct {
	columns prometheus.Gauge
	refused prometheus.Gauge
	pending prometheus.Gauge
	read    prometheus.Gauge
	unfit   *prometheus.CounterVec // by table, column
}

func newPromotionMetrics(reg prometheus.Registerer, sink string) promotionMetrics {
	labels := prometheus.Labels{"sink": sink}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_sink_" + name, Help: help, ConstLabels: labels})
	}
	m := promotionMetrics{
		columns: gauge("promoted_columns", "Properties that are columns of their own, as the sink knows them."),
		refused: gauge("refused_promotions", "Promotions of properties on the topic control that the sink cannot follow."),
		pending: gauge("pending_promotions", "Promoted columns that a table of the store does not have, since it could not be changed."),
		read:    gauge("control_read_timestamp_seconds", "When the sink last heard from the topic control."),
		unfit: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_sink_promoted_unfit_total", Help: "Values of a promoted property that do not fit the column's type and are only among the properties.", ConstLabels: labels,
		}, []string{"table", "column"}),
	}
	reg.MustRegister(m.columns, m.refused, m.pending, m.read, m.unfit)
	return m
}

// followPromotions reads the topic to its end, waiting for the broker if need be, and then follows it until the function that it gives is called.
func followPromotions(ctx context.Context, opts []kgo.Opt, m promotionMetrics, log *slog.Logger) (*promotions, func(), error) {
	cl, err := kgo.NewClient(append(slices.Clone(opts),
		kgo.ConsumeTopics(event.TopicControl), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(1<<20))...)
	if err != nil {
		return nil, nil, fmt.Errorf("reading topic %s: %w", event.TopicControl, err)
	}
	f := &promotions{log: log, m: m, cl: cl}
	if err := f.load(ctx); err != nil {
		cl.Close()
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			f.poll(ctx)
		}
	})
	return f, func() { cancel(); wg.Wait(); cl.Close() }, nil
}

// load reads up to where the topic ends now. A topic that is not there has no promotions.
func (f *promotions) load(ctx context.Context) error {
	adm := kadm.NewClient(f.cl)
	for {
		ends, err := adm.ListEndOffsets(ctx, event.TopicControl)
		if err == nil {
			end, ok := ends.Lookup(event.TopicControl, 0)
			switch {
			case !ok, errors.Is(end.Err, kerr.UnknownTopicOrPartition):
				f.heard()
				return nil
			case end.Err == nil:
				return f.readTo(ctx, end.Offset)
			}
			err = end.Err
		}
		f.log.WarnContext(ctx, "sink: the topic control cannot be read yet", "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("reading topic %s: %w", event.TopicControl, ctx.Err())
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// promoteRetry is after how long a table that could not be given a column is asked again.
const promoteRetry = 10 * time.Second

// silence is how long nothing comes before the end that was asked for counts as reached: compaction may have removed the last record.
const silence = 5 * time.Second

func (f *promotions) readTo(ctx context.Context, end int64) error {
	for f.next < end {
		before := f.next
		wait, cancel := context.WithTimeout(ctx, silence)
		f.poll(wait)
		cancel()
		if ctx.Err() != nil {
			return fmt.Errorf("reading topic %s: %w", event.TopicControl, ctx.Err())
		}
		if f.next == before {
			break
		}
	}
	f.heard()
	return nil
}

// poll takes what comes next.
func (f *promotions) poll(ctx context.Context) {
	fetches := f.cl.PollFetches(ctx)
	failed := false
	fetches.EachError(func(_ string, _ int32, err error) {
		if ctx.Err() != nil {
			return
		}
		failed = true
		f.log.WarnContext(ctx, "sink: reading the topic control failed and is tried again", "error", err)
	})
	f.mu.Lock()
	fetches.EachRecord(func(r *kgo.Record) {
		f.next = r.Offset + 1
		if f.set.Apply(r.Key, r.Value) {
			f.version++
			f.log.InfoContext(ctx, "sink: a property is a column from now on", "record", string(r.Key))
		} else if err := f.set.Refused()[string(r.Key)]; err != nil {
			f.log.WarnContext(ctx, "sink: a promotion cannot be followed", "record", string(r.Key), "error", err)
		}
	})
	f.mu.Unlock()
	if !failed && ctx.Err() == nil {
		f.heard()
		return
	}
	select { // a client that fails at once is not asked at once again
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
}

func (f *promotions) heard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m.read.SetToCurrentTime()
	f.m.columns.Set(float64(len(f.set.All())))
	f.m.refused.Set(float64(len(f.set.Refused())))
}

// since gives the promotions by category if there are others than at version, and the version they are.
func (f *promotions) since(version int) (map[event.Category][]schema.Promotion, int, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.version == version {
		return nil, version, false
	}
	out := map[event.Category][]schema.Promotion{}
	for _, c := range event.Categories() {
		out[c] = f.set.Of(c)
	}
	return out, f.version, true
}

// countUnfit moves what an extractor has counted to the metric.
func (m promotionMetrics) countUnfit(table string, ps []schema.Promotion, x *schema.Extractor) {
	for i, n := range x.Unfit {
		if n > 0 {
			m.unfit.WithLabelValues(table, ps[i].Name).Add(float64(n))
			x.Unfit[i] = 0
		}
	}
}
