package hot

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"strings"

	"github.com/zeebo/xxh3"

	"millrace/event"
	"millrace/event/schema"
	"millrace/features/rules"
	"millrace/streaming"
)

// detector looks at each event of a key twice.
//
// On arrival (preview): with what is known of the key in the order in which events came. What rules find there is provisional and goes out at once, before the event is
// processed, and behind a change of keys before the first stage has committed it.
//
// Once the watermark has passed the event: in the order of event time. What rules find there depends neither on arrival nor on batches, is in the task's state and its
// transaction, and is written to alerts exactly once. Where both orders agree both alerts have the same trigger and so the same id.
//
// What is provisional needs no state of its own: it begins with the confirmed state of a key when an event of the key comes, and is dropped when none is waiting any more.
type detector struct {
	t       *streaming.Task
	cfg     FraudConfig
	codecs  *schema.Codecs
	rules   *follower
	m       *fraudMetrics
	states  *streaming.Store[*fraudState]
	pending *streaming.Ordered[[]byte]
	epoch   uint64 // of the open transaction

	fast    map[string]*arrivals
	came    recent           // events by key that were looked at on arrival: copies are not told apart before they are processed
	swept   int64            // watermark at which fast was last looked through
	said    map[string]int64 // provisional alerts by id, with the time of their trigger
	settled []string         // of them, those that the open transaction has confirmed or given up
	counts  fraudCounts      // of the open transaction

	key  []byte
	fact event.Rekeyed
	hits []rules.Hit
}

// fraudState is a key's. It belongs to the transaction of its epoch and is copied for another.
type fraudState struct {
	*rules.State
	epoch uint64
}

type fraudCodec struct{}

// Append implements streaming.Codec.
func (fraudCodec) Append(dst []byte, v *fraudState) []byte { return v.State.Append(dst) }

// Decode implements streaming.Codec.
func (fraudCodec) Decode(src []byte) (*fraudState, error) {
	s, err := rules.DecodeState(src)
	return &fraudState{State: s}, err
}

// arrivals is what is known of a key in the order of arrival.
type arrivals struct {
	*rules.State
	until int64 // time of the newest event: once the watermark has passed it, the confirmed state knows all of them
}

// maxFast bounds the keys of a task that have events which are not confirmed; beyond it no more are looked at on arrival until some are.
const maxFast = 100_000

// recent remembers at least the last recentSize hashes that were added, and at most twice as many.
type recent struct{ young, old map[uint64]struct{} }

const recentSize = 1 << 15

// first says whether h is not remembered, and remembers it.
func (r *recent) first(h uint64) bool {
	if _, ok := r.young[h]; ok {
		return false
	}
	if _, ok := r.old[h]; ok {
		return false
	}
	if len(r.young) >= recentSize || r.young == nil {
		r.young, r.old = make(map[uint64]struct{}, recentSize), r.young
	}
	r.young[h] = struct{}{}
	return true
}

func newDetector(t *streaming.Task, cfg FraudConfig, codecs *schema.Codecs, follow *follower, m *fraudMetrics, states, pending uint16) *detector {
	d := &detector{t: t, cfg: cfg, codecs: codecs, rules: follow, m: m, epoch: 1, fast: map[string]*arrivals{}, said: map[string]int64{}}
	d.states = streaming.OpenStore(t, states, streaming.Codec[*fraudState](fraudCodec{}))
	d.pending = streaming.OpenOrdered(t, streaming.OrderedSpec[[]byte]{
		Store: pending, Codec: streaming.Bytes{},
		Each: func(key string, at int64, body []byte) error { return d.confirm(key, body, at, false) },
		Late: func(key string, _ int64, body []byte) error {
			d.counts.late++
			return d.confirm(key, body, d.t.Watermark(), true)
		},
	})
	return d
}

// preview is given an event of the entity and key that are in it, as soon as it is read. It retains nothing of it.
func (d *detector) preview(f *event.Rekeyed) error {
	plan := d.rules.set.Plan(f.Entity)
	if !plan.Wants(f.Name) || f.At < d.t.Watermark() {
		return nil
	}
	d.key = f.AppendKey(d.key[:0])
	if !d.came.first(xxh3.Hash(d.key) ^ bits.RotateLeft64(xxh3.HashString(f.EventID), 1)) {
		return nil
	}
	a := d.fast[string(d.key)]
	if a == nil {
		if len(d.fast) >= maxFast {
			return nil
		}
		a = &arrivals{State: &rules.State{}}
		if s, ok := d.states.GetBytes(d.key); ok {
			a.State = s.Clone()
		}
		d.fast[string(d.key)] = a
	}
	a.until = max(a.until, f.At)
	d.hits = plan.Apply(a.State, f, f.At, false, d.hits[:0])
	for i := range d.hits {
		if err := d.raise(&d.hits[i], f, f.At, false); err != nil {
			return err
		}
	}
	return nil
}

// take is given an event of the entity and key that are in it. It retains nothing of it.
func (d *detector) take(f *event.Rekeyed) error {
	if !d.rules.set.Plan(f.Entity).Wants(f.Name) {
		return nil
	}
	d.key = f.AppendKey(d.key[:0])
	body := schema.AppendRekeyedBody(make([]byte, 0, 384), f)
	return d.pending.Add(string(d.key), f.At, 0, int64(xxh3.HashString(f.EventID)>>1), body)
}

// confirm looks at an event whose turn it is, or whose turn is over.
func (d *detector) confirm(key string, body []byte, at int64, late bool) error {
	if a := d.fast[key]; a != nil && !late && a.until <= at {
		delete(d.fast, key)
	}
	f := &d.fact
	if err := schema.DecodeRekeyedBody(body, f); err != nil {
		return fmt.Errorf("reading a waiting event: %w", err)
	}
	plan := d.rules.set.Plan(f.Entity)
	if !plan.Wants(f.Name) {
		return nil // the rules have changed meanwhile
	}
	s := d.own(key)
	d.hits = plan.Apply(s.State, f, at, late, d.hits[:0])
	for i := range d.hits {
		if err := d.raise(&d.hits[i], f, at, true); err != nil {
			return err
		}
	}
	if s.Timer == 0 {
		d.rearm(key, s, at)
	}
	return nil
}

// own gives the state of a key for the open transaction.
func (d *detector) own(key string) *fraudState {
	s, ok := d.states.Get(key)
	switch {
	case !ok:
		s = &fraudState{State: &rules.State{}, epoch: d.epoch}
	case s.epoch != d.epoch:
		s = &fraudState{State: s.Clone(), epoch: d.epoch}
	default:
		return s
	}
	d.states.Put(key, s)
	return s
}

// rearm drops what is over and asks for a timer at the time of what will be next.
func (d *detector) rearm(key string, s *fraudState, at int64) {
	if s.Timer = s.Expire(at); s.Timer == 0 {
		d.states.Delete(key)
		return
	}
	d.t.SetTimer(ownerFraud, key, s.Timer)
}

// timer looks at a key of which something may be over.
func (d *detector) timer(tm streaming.Timer) error {
	if s, ok := d.states.Get(tm.Key); !ok || s.Timer != tm.At {
		return nil
	}
	d.rearm(tm.Key, d.own(tm.Key), max(tm.At, d.t.Watermark()))
	return nil
}

// details is what an alert says beside its reasons. It names nobody: what an alert is about is its key.
type details struct {
	Event     string   `json:"event"`
	Measured  float64  `json:"measured"`
	Threshold float64  `json:"threshold"`
	Window    string   `json:"window"`
	Value     string   `json:"value,omitempty"`
	Currency  string   `json:"currency,omitempty"`
	Country   string   `json:"country,omitempty"`
	Together  []string `json:"together,omitempty"` // rules that the key met in the hour before
	Late      bool     `json:"late,omitempty"`     // the event came when its turn was over

	Model        string  `json:"model,omitempty"` // of a rule of kind model
	ModelVersion string  `json:"model_version,omitempty"`
	ModelScore   float64 `json:"model_score,omitempty"`
}

// raise makes an alert of what a rule found: provisional, or confirmed.
func (d *detector) raise(h *rules.Hit, f *event.Rekeyed, at int64, confirmed bool) error {
	if confirmed && !d.allowed(h.Rule.Name, at) {
		d.counts.add(h.Rule.Name, suppressed)
		return nil
	}
	info := details{Event: f.Name, Measured: h.N, Threshold: h.Rule.Threshold, Window: h.Rule.Window.String(), Country: f.Country, Together: h.Others, Late: at != f.At}
	if f.Currency != "" {
		info.Value, info.Currency = event.FormatAmount(f.Value), f.Currency
	}
	if by := d.rules.set.Scorer(); by != nil && h.Rule.Kind == rules.Model {
		info.Model, info.ModelVersion, info.ModelScore = by.Model, by.Version, h.N
	}
	text, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("writing an alert: %w", err)
	}
	a := event.Alert{
		Kind: event.AlertFraud, Rule: h.Rule.Name, RuleVersion: int32(d.rules.set.Version), Tenant: f.Tenant, Entity: f.Entity, Key: f.Key, Severity: h.Rule.Severity,
		Score: math.Round(h.Score*10_000) / 10_000, Reasons: append([]string{h.Explain()}, h.Others...), TriggerEventID: f.EventID, OccurredAt: f.OccurredAt,
		DetectedAt: d.t.Now().UnixMicro(), Confirmed: confirmed, Details: string(text),
	}
	a.AlertID = event.AlertID(a.Rule, a.RuleVersion, string(a.AppendKey(nil)), f.EventID)
	if !confirmed {
		d.provisional(&a, at)
		return nil
	}
	if _, ok := d.said[a.AlertID]; ok {
		d.counts.add(a.Rule, agreed)
		d.settled = append(d.settled, a.AlertID)
	} else {
		d.counts.add(a.Rule, unannounced)
	}
	return emitAlert(d.t, d.codecs, &a)
}

// provisional tells an alert at once.
func (d *detector) provisional(a *event.Alert, at int64) {
	id := strings.Clone(a.AlertID)
	if _, again := d.said[id]; again || len(d.said) >= maxSaid {
		return
	}
	d.said[id] = at
	d.m.said.Inc()
	if d.cfg.Fast != nil {
		d.cfg.Fast(a)
	}
}

// maxSaid bounds the provisional alerts of a task that are neither confirmed nor given up; beyond it no more are told until some are.
const maxSaid = 100_000

// allowed counts an alert of a rule against its bound. Minutes are of event time and the counts are state, so that the same alerts are let through whenever they are
// computed.
func (d *detector) allowed(rule string, at int64) bool {
	key := "minute/" + rule
	var number, n uint64
	if v, ok := d.rules.store.Get(key); ok && len(v) == 16 {
		number, n = binary.BigEndian.Uint64(v), binary.BigEndian.Uint64(v[8:])
	}
	if m := uint64(max(0, at) / 60_000_000); m > number {
		number, n = m, 0
	}
	n++
	d.rules.store.Put(key, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, number), n))
	return n <= uint64(d.cfg.PerMinute)
}

// sweep gives up provisional alerts whose trigger the watermark has passed without confirming them, and now and then what is known in the order of arrival of keys whose
// events never came to their turn: copies, or of an aborted transaction.
func (d *detector) sweep() {
	w := d.t.Watermark()
	if w-d.swept >= fastSweep {
		d.swept = w
		maps.DeleteFunc(d.fast, func(_ string, a *arrivals) bool { return a.until < w })
	}
	for id, at := range d.said {
		if at < w {
			d.settled = append(d.settled, id)
		}
	}
}

const fastSweep = 10 * 1_000_000 // µs

// ruled is called when the rules have changed: what was provisional under the old ones is computed anew.
func (d *detector) ruled() { clear(d.fast) }

func (d *detector) committed() {
	d.epoch++
	gone := 0
	for _, id := range d.settled {
		if _, ok := d.said[id]; ok {
			delete(d.said, id)
			gone++
		}
	}
	d.settled = d.settled[:0]
	d.m.add(&d.counts, gone)
	d.counts.reset()
}

// aborted drops what was derived from a transaction that never was: the same events come again.
func (d *detector) aborted() {
	d.epoch++
	clear(d.fast)
	d.came = recent{}
	d.settled = d.settled[:0]
	d.counts.reset()
}

// emitAlert writes an alert to the topic alerts, in the task's transaction.
func emitAlert(t *streaming.Task, codecs *schema.Codecs, a *event.Alert) error {
	value, err := codecs.Append(t.Buf(1024), event.TopicAlerts, a)
	if err != nil {
		return err
	}
	r := t.Record()
	r.Topic, r.Value = event.TopicAlerts, t.Keep(value)
	r.Key = t.Keep(a.AppendKey(t.Buf(len(a.Tenant) + len(a.Entity) + len(a.Key) + 2)))
	t.Emit(r)
	return nil
}
