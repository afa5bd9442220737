package hot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/features/rules"
	"millrace/internal/fault"
	"millrace/streaming"
)

// RulesKey is the key of the rules on the topic control.
const RulesKey = "rules/fraud"

// RulesRecord is their value: JSON.
type RulesRecord struct {
	Version   int       `json:"version"`
	Hash      string    `json:"hash"`
	YAML      string    `json:"yaml"`
	AppliedAt time.Time `json:"applied_at"`
	Forced    bool      `json:"forced,omitempty"`
}

// Rules is the newest usable set of rules that the topic control has. It follows the topic; tasks take over what it has between two records (see follower). A set that
// cannot be read, or is no newer than the one there is, stays out: the old one stays in force, the counter and Status say why.
type Rules struct {
	current atomic.Pointer[rules.Set]
	models  *Models
	log     *slog.Logger

	mu      sync.Mutex
	problem string

	offered  prometheus.Gauge
	rejected prometheus.Counter
	refused  *prometheus.GaugeVec
	model    *prometheus.GaugeVec
	next     int64
}

// NewRules begins with the default set. models are asked by rules of kind model; nil: they are never met.
func NewRules(reg prometheus.Registerer, models *Models, log *slog.Logger) (*Rules, error) {
	r := &Rules{
		models: models, log: log,
		refused:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_rules_refused_version", Help: "Version of the last set of rules on the topic control, while it is one that cannot be used, with the reason (0: the version could not be read)."}, []string{"reason"}),
		model:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_rules_model_state", Help: "1 for the model that the newest usable set of rules asks."}, []string{"model", "version"}),
		offered:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_rules_offered_version", Help: "Version of the newest usable set of rules on the topic control; tasks apply it at their next tick."}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_rules_rejected_total", Help: "Sets of rules on the topic control that cannot be used. The one before stays in force."}),
	}
	set, err := rules.Default()
	if err != nil {
		return nil, fmt.Errorf("reading the default rules: %w", err)
	}
	reg.MustRegister(r.offered, r.rejected, r.refused, r.model)
	r.set(set)
	return r, nil
}

// set offers a set that has its model.
func (r *Rules) set(s *rules.Set) {
	r.current.Store(s)
	r.offered.Set(float64(s.Version))
	r.model.Reset()
	if by := s.Scorer(); by != nil {
		r.model.WithLabelValues(by.Model, by.Version).Set(1)
	}
}

// bind gives a set what its rules of kind model ask.
func (r *Rules) bind(s *rules.Set) error {
	by, err := r.models.For(s)
	if err == nil {
		s.SetScorer(by)
	}
	return err
}

// refuse notes why a set stays out.
func (r *Rules) refuse(version int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problem = err.Error()
	r.rejected.Inc()
	r.refused.Reset()
	reason := strings.ToValidUTF8(strings.ReplaceAll(r.problem, "\n", "; "), "?")
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	r.refused.WithLabelValues(reason).Set(float64(version))
	r.log.Error("rules: a set of rules cannot be used, the one before stays in force", "error", err)
}

const maxReason = 400

// Status is the version that is offered, and what is wrong with a newer one.
func (r *Rules) Status() (version int, problem string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current.Load().Version, r.problem
}

// Offer takes a record of the topic control. Those of others are no affair of it.
func (r *Rules) Offer(key, value []byte) {
	if string(key) != RulesKey || value == nil {
		return
	}
	set, err := ReadRules(value)
	if err == nil && set.Version <= r.current.Load().Version {
		if set.Hash == r.current.Load().Hash {
			return
		}
		err = fault.Newf("MR-RUL-003", "version %d is not above %d, which is in force", set.Version, r.current.Load().Version)
	}
	if err == nil {
		err = r.bind(set)
	}
	if err != nil {
		var rec struct {
			Version int `json:"version"`
		}
		_ = json.Unmarshal(value, &rec) // 0 if it cannot be read
		r.refuse(rec.Version, err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problem = ""
	r.refused.Reset()
	r.set(set)
	r.log.Info("rules: a set of rules was read", "version", set.Version, "hash", set.Hash, "rules", len(set.Rules))
}

// ReadRules reads the value of RulesKey.
func ReadRules(value []byte) (*rules.Set, error) {
	var rec RulesRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return nil, fault.Newf("MR-RUL-001", "the record is no JSON: %w", err)
	}
	set, err := rules.Parse([]byte(rec.YAML))
	if err != nil {
		return nil, fault.New("MR-RUL-001", err)
	}
	if set.Version != rec.Version || set.Hash != rec.Hash {
		return nil, fault.Newf("MR-RUL-001", "the record says version %d with hash %s, its text is version %d with hash %s: write it with `millrace rules apply`", rec.Version, rec.Hash, set.Version, set.Hash)
	}
	return set, nil
}

// Run follows the topic until ctx ends. caughtUp is called once what the topic held at the start has been read; a worker that starts its tasks after it begins with the
// newest rules.
func (r *Rules) Run(ctx context.Context, opts []kgo.Opt, caughtUp func()) error {
	cl, err := kgo.NewClient(append(slices.Clone(opts), kgo.ConsumeTopics(event.TopicControl), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(4<<20))...)
	if err != nil {
		return fmt.Errorf("reading topic %s: %w", event.TopicControl, err)
	}
	defer cl.Close()
	end := r.end(ctx, cl)
	for deadline := time.Now().Add(rulesPatience); ctx.Err() == nil && r.next < end && time.Now().Before(deadline); {
		before := r.next
		wait, cancel := context.WithTimeout(ctx, rulesSilence)
		r.poll(wait, cl)
		cancel()
		if r.next == before {
			break // compaction may have removed the last record
		}
	}
	if caughtUp != nil {
		caughtUp()
	}
	for ctx.Err() == nil {
		r.poll(ctx, cl)
	}
	return nil
}

const (
	rulesSilence  = 5 * time.Second
	rulesPatience = time.Minute // after it tasks start with the rules they have: their own state knows the version that was in force
)

// end is where the topic ends now, 0 of a topic that is not there.
func (r *Rules) end(ctx context.Context, cl *kgo.Client) int64 {
	for deadline := time.Now().Add(rulesPatience); ctx.Err() == nil && time.Now().Before(deadline); {
		ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, event.TopicControl)
		if err == nil {
			end, ok := ends.Lookup(event.TopicControl, 0)
			if !ok || errors.Is(end.Err, kerr.UnknownTopicOrPartition) {
				return 0
			}
			if end.Err == nil {
				return end.Offset
			}
			err = end.Err
		}
		r.log.WarnContext(ctx, "rules: the topic control cannot be read yet", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
	return 0
}

func (r *Rules) poll(ctx context.Context, cl *kgo.Client) {
	fetches := cl.PollFetches(ctx)
	failed := false
	fetches.EachError(func(_ string, _ int32, err error) {
		if ctx.Err() == nil {
			failed = true
			r.log.WarnContext(ctx, "rules: reading the topic control failed and is tried again", "error", err)
		}
	})
	fetches.EachRecord(func(rec *kgo.Record) {
		r.next = rec.Offset + 1
		r.Offer(rec.Key, rec.Value)
	})
	if failed {
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

const storeControl = 30

// follower is the set of rules in force in one task. The set, with its text, is in a store: what a task reads again after a crash it reads under the rules under which it
// read it first, and the commit that has the first results of a version has the version.
type follower struct {
	t      *streaming.Task
	source *Rules // nil: the default rules
	store  *streaming.Store[[]byte]
	set    *rules.Set
	inUse  prometheus.Gauge
}

func newFollower(t *streaming.Task, source *Rules, inUse prometheus.Gauge) (*follower, error) {
	f := &follower{t: t, source: source, store: streaming.OpenStore(t, storeControl, streaming.Codec[[]byte](streaming.Bytes{})), inUse: inUse}
	return f, f.restored()
}

// restored takes the set that is in the store, the newest that there is without one.
func (f *follower) restored() error {
	if v, ok := f.store.Get(RulesKey); ok {
		set, err := ReadRules(v)
		if err == nil {
			if f.set == nil || f.set.Hash != set.Hash {
				f.own(set)
				f.use(set)
			}
			return nil
		}
		if f.source == nil {
			return fmt.Errorf("reading the rules that were in force: %w", err)
		}
		f.source.rejected.Inc() // of a newer version of this program: what there is now is applied
	}
	if f.source != nil {
		f.use(f.source.current.Load())
		return nil
	}
	set, err := rules.Default()
	if err == nil {
		f.use(set)
	}
	return err
}

// own gives a set that was read from the store, and is this task's alone, its model. Without it the set is in force all the same, since what it found before it must find
// again, but for its rules of kind model.
func (f *follower) own(set *rules.Set) {
	if f.source == nil {
		return
	}
	err := f.source.bind(set)
	switch {
	case err == nil:
	case set.Version >= f.source.current.Load().Version:
		f.source.refuse(set.Version, fmt.Errorf("the rules in force in task %d: %w", f.t.Partition(), err))
	default: // the next tick brings a newer set
		f.source.log.Warn("rules: a task begins without the model of its rules", "partition", f.t.Partition(), "error", err)
	}
}

func (f *follower) use(set *rules.Set) {
	f.set = set
	f.inUse.Set(float64(set.Version))
}

// tick takes over a newer set, if there is one. It is called between records.
func (f *follower) tick() (changed bool, err error) {
	if f.source == nil {
		return false, nil
	}
	_, recorded := f.store.Get(RulesKey)
	set := f.source.current.Load()
	if recorded && (set.Hash == f.set.Hash || set.Version <= f.set.Version) {
		return false, nil
	}
	v, err := json.Marshal(RulesRecord{Version: set.Version, Hash: set.Hash, YAML: string(set.Source()), AppliedAt: f.t.Now().UTC()})
	if err != nil {
		return false, fmt.Errorf("recording rules: %w", err)
	}
	f.store.Put(RulesKey, v)
	f.use(set)
	return true, nil
}
