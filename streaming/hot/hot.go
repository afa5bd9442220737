package hot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/kpi"
	"millrace/streaming"
)

// Stores and logs of the topology. Ids are for ever.
const (
	storeLedger = streaming.FirstStoreID + iota
	storeShop
	storeItems

	logDedup = "dedup"
)

// Topology is the hot topology over the platform's number of partitions. Its task for a partition reads that partition of every raw topic and writes the same one of its
// outputs: events.*, events.failed, events.ledger, kpi.partial, kpi.late.
func Topology(cfg Config, partitions int32, codecs *schema.Codecs, defs kpi.Definitions, reg prometheus.Registerer) (streaming.Topology, error) {
	if err := cfg.Validate(); err != nil {
		return streaming.Topology{}, fmt.Errorf("hot topology: %w", err)
	}
	if cfg.Dir == "" {
		return streaming.Topology{}, errors.New("hot topology: dir is empty, a local folder for the dedup index is needed")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return streaming.Topology{}, fmt.Errorf("hot topology: making the folder of the dedup index: %w", err)
	}
	m := newMetrics(reg)
	var fm *fraudMetrics
	if cfg.Fraud.Enabled {
		fm = newFraudMetrics(reg, "visitor")
	}
	top := streaming.Topology{
		Name: "hot", Stage: "visitor", Partitions: partitions,
		Untimed: []string{event.TopicRawFailed},
		Stores:  []streaming.StoreSpec{{ID: storeLedger, Name: "ledger", Format: 1}, {ID: storeShop, Name: "kpi.shop", Format: 1}, {ID: storeItems, Name: "kpi.items", Format: 1}, {ID: storeSessions, Name: "sessions", Format: 1}, {ID: storeCart, Name: "carts", Format: 1}},
		Logs:    []streaming.LogSpec{{Name: logDedup, Retention: cfg.DedupWindow + bucketSize}},
		New: func(t *streaming.Task) (streaming.Operator, error) {
			return newOperator(t, cfg, codecs, defs, m.task(t.Partition()), fm)
		},
	}
	top.Stores = append(top.Stores, recommendStores()...)
	top.Rekeys = append(top.Rekeys, event.TopicRekeyKPI) // also with nothing to say: the second stage waits for the watermarks of all
	if cfg.Fraud.Enabled {
		top.Stores, top.Rekeys, top.Announces = append(top.Stores, fraudStores()...), append(top.Rekeys, fraudTopics()...), fraudTopics()
	}
	for _, c := range event.Categories() {
		top.Inputs = append(top.Inputs, c.RawTopic())
	}
	top.Inputs = append(top.Inputs, event.TopicRawFailed)
	top.Linger = map[string]time.Duration{}
	for _, t := range event.Topics() {
		if slices.Contains(top.Inputs, t.Name) {
			top.Linger[t.Name] = t.Linger
		}
	}
	return top, nil
}

// operator is one task.
type operator struct {
	t      *streaming.Task
	codecs *schema.Codecs
	dec    *schema.EventDecoder
	dedup  *dedup
	ledger *ledger
	kpis   *kpis
	jobs   jobs

	sessions *sessions
	stats    *taskMetrics
	spans    spans

	fraud    *fraud // nil: not looked for
	earlyDec *schema.EventDecoder
	early    event.Event // of the record that is shown

	in     []source
	e      event.Event // of the record in hand
	failed event.Failed
	log    []byte
}

// source is one input.
type source struct {
	raw, out string // topics
	cat      event.Category
	failed   bool // raw.failed
}

func newOperator(t *streaming.Task, cfg Config, codecs *schema.Codecs, defs kpi.Definitions, stats *taskMetrics, fm *fraudMetrics) (*operator, error) {
	o := &operator{t: t, codecs: codecs, dec: codecs.NewAliasingDecoder(), dedup: newDedup(cfg.Dir, cfg.DedupWindow), stats: stats, spans: spans{tracer: cfg.Tracer}}
	for _, c := range event.Categories() {
		o.in = append(o.in, source{raw: c.RawTopic(), out: c.EventsTopic(), cat: c})
	}
	o.in = append(o.in, source{raw: event.TopicRawFailed, out: event.TopicEventsFailed, failed: true})
	o.ledger = newLedger(t, codecs, o.in, cfg.LedgerIdle)
	o.kpis = newKPIs(t, cfg, codecs, defs)
	o.sessions = newSessions(t, cfg.Sessions, codecs)
	o.jobs.add(o.sessions, ownerSession)
	o.jobs.add(newCarts(t, cfg, o.kpis), ownerCart)
	if cfg.Anomaly.Enabled {
		o.jobs.add(newKPIMinutes(t, codecs), ownerMinute)
	}
	o.jobs.add(newProductChanges(t, codecs))
	o.jobs.add(newTogether(t, cfg.Recommend, codecs), ownerRecent, ownerSweep)
	if cfg.Fraud.Enabled {
		f, err := newFraud(t, cfg.Fraud, codecs, fm)
		if err != nil {
			return nil, err
		}
		o.fraud, o.earlyDec = f, codecs.NewAliasingDecoder()
		o.jobs.add(f, ownerFraud)
	}
	return o, nil
}

// begin is what is done of every record, whether it can be read or not: its place in event time, and in the control totals.
func (o *operator) begin(in int, r *kgo.Record) (at int64, total *totals, err error) {
	at = r.Timestamp.UnixMicro()
	o.spans.begin(r)
	o.dedup.advance(at)
	total, err = o.ledger.count(in, r.Offset, at)
	return at, total, err
}

// Process implements streaming.Operator.
func (o *operator) Process(in int, r *kgo.Record) error {
	at, total, err := o.begin(in, r)
	if err != nil {
		return err
	}
	if o.in[in].failed {
		return o.takeFailed(in, r, at, total)
	}
	return o.takeEvent(in, r, at, total)
}

// Previews implements streaming.Previewer.
func (o *operator) Previews(in int) bool {
	return o.fraud != nil && !o.in[in].failed && o.fraud.previews(o.in[in].cat)
}

// Preview implements streaming.Previewer: rules look at an event before it is processed. What is wrong with a record is said when it is.
func (o *operator) Preview(in int, r *kgo.Record) error {
	e := &o.early
	if _, err := o.earlyDec.DecodeRaw(context.Background(), o.in[in].cat, r.Value, e); err != nil || e.ID == "" || !event.TimeOK(e.OccurredAt, e.ReceivedAt) || laneOf(r, e) != event.Live {
		return nil //nolint:nilerr // see above
	}
	if known, err := o.dedup.seen(eventID(e)); known || err != nil {
		return err
	}
	e.Enriched = event.Enriched{IngestedAt: r.Timestamp.UnixMicro()}
	return o.fraud.preview(e)
}

// Refused implements streaming.Refuser: a record whose key is too long is read like any other, so that control totals agree, and kept as a failed event.
func (o *operator) Refused(in int, r *kgo.Record) error {
	at, total, err := o.begin(in, r)
	if err != nil {
		return err
	}
	return o.refuse(in, r, at, total, event.ReasonSize, "", fmt.Errorf("the record's key has %d bytes: more than stream.max_key_bytes", len(r.Key)))
}

// Timer implements streaming.Operator.
func (o *operator) Timer(tm streaming.Timer) error {
	if j := o.jobs.owners[tm.Owner]; j != nil {
		return j.timer(tm)
	}
	return nil // of a job that is no longer
}

// Tick implements streaming.Operator.
func (o *operator) Tick(now time.Time) error {
	if err := o.ledger.tick(now); err != nil {
		return err
	}
	return o.jobs.each(func(j job) error { return j.tick(now) })
}

// BeforeCommit implements streaming.Operator.
func (o *operator) BeforeCommit() error {
	if err := o.jobs.each(job.beforeCommit); err != nil {
		return err
	}
	o.ledger.save()
	o.log = o.dedup.flush(o.log, func(v []byte) { o.t.AppendLog(logDedup, v) })
	return nil
}

// RestoreLog implements streaming.LogRestorer.
func (o *operator) RestoreLog(_ string, value []byte, _ time.Time) error {
	if err := o.dedup.restore(value); err != nil {
		return err
	}
	o.spilled(o.dedup.commit())
	return nil
}

// Restored implements streaming.Restored.
func (o *operator) Restored() error {
	o.ledger.load()
	o.stats.sizes(o.dedup)
	return o.jobs.each(job.restored)
}

// Committed implements streaming.Committer.
func (o *operator) Committed() {
	o.spilled(o.dedup.commit())
	o.stats.commit(o.dedup)
	for _, j := range o.jobs.all {
		j.committed()
	}
	o.spans.end("")
}

// Aborted implements streaming.Committer.
func (o *operator) Aborted() {
	o.dedup.abort()
	o.ledger.load()
	o.stats.abort()
	for _, j := range o.jobs.all {
		j.aborted()
	}
	o.spans.end("aborted")
}

// Close gives the local files of the task back.
func (o *operator) Close() error {
	o.stats.close()
	o.spans.end("given up")
	return o.dedup.close()
}

// spilled counts local files that could not be written. Nothing else is to be done: their ids stay in memory.
func (o *operator) spilled(err error) {
	if err != nil {
		o.stats.m.spillErrors.Inc()
	}
}

// emit writes a record to the task's partition of a topic. value has been kept.
func (o *operator) emit(topic string, key, value []byte, r *kgo.Record) {
	out := o.t.Record()
	out.Topic, out.Key, out.Value = topic, key, value
	out.Headers = o.spans.now.Headers(r.Headers)
	o.t.Emit(out)
}

// note counts what became of the record in hand.
func (o *operator) note(in int, what outcome) {
	o.stats.count(in, what)
	o.spans.became(what)
}
