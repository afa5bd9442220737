package hot

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/streaming"
)

// Inputs of the entity stage, in their order.
const (
	inCard = iota
	inIP
	inUser
	inProduct
	inKPI
)

// EntityTopology is the second stage of the hot topology: its task for a partition has the cards, addresses, users, products and tenants whose keys belong to it, whichever visitor's
// task they came from. Its outputs are alerts and live.updates.
func EntityTopology(cfg Config, partitions int32, codecs *schema.Codecs, reg prometheus.Registerer) (streaming.Topology, error) {
	if err := errors.Join(prefixed("products", cfg.Products.Validate()), prefixed("fraud", cfg.Fraud.Validate()), prefixed("anomaly", cfg.Anomaly.Validate())); err != nil {
		return streaming.Topology{}, fmt.Errorf("entity topology: %w", err)
	}
	m := newFraudMetrics(reg, "entity")
	am := newAnomalyMetrics(reg)
	upstream := map[string]int32{event.TopicRekeyKPI: partitions}
	for _, topic := range fraudTopics() {
		upstream[topic] = partitions
	}
	return streaming.Topology{
		Name: "hot", Stage: "entity", Partitions: partitions,
		Inputs:   []string{inCard: event.TopicRekeyCard, inIP: event.TopicRekeyIP, inUser: event.TopicRekeyUser, inProduct: event.TopicRekeyProduct, inKPI: event.TopicRekeyKPI},
		Upstream: upstream, Announced: fraudTopics(), // a provisional alert does not wait for the first stage's commit
		Stores: append(append(productStores(), anomalyStores()...),
			streaming.StoreSpec{ID: storeEntityFraud, Name: "fraud.entity", Format: 1}, streaming.StoreSpec{ID: storeEntityPending, Name: "fraud.entity.pending", Format: 1},
			streaming.StoreSpec{ID: storeControl, Name: "control", Format: 1}),
		New: func(t *streaming.Task) (streaming.Operator, error) { return newEntity(t, cfg, codecs, m, am) },
	}, nil
}

// entity is one task of the stage.
type entity struct {
	t        *streaming.Task
	codecs   *schema.Codecs
	fast     func(*event.Alert)
	det      *detector
	rules    *follower
	products *products
	kpis     *anomalies
	fact     event.Rekeyed
	id       []byte
	strange  prometheus.Counter
}

func newEntity(t *streaming.Task, cfg Config, codecs *schema.Codecs, m *fraudMetrics, am *anomalyMetrics) (*entity, error) {
	rules, err := newFollower(t, cfg.Fraud.Rules, m.version(t.Partition()))
	if err != nil {
		return nil, err
	}
	e := &entity{t: t, codecs: codecs, fast: cfg.Fraud.Fast, rules: rules, strange: m.strange, det: newDetector(t, cfg.Fraud, codecs, rules, m, storeEntityFraud, storeEntityPending)}
	e.products = newProducts(t, cfg.Products, codecs, e.stock)
	e.kpis = newAnomalies(t, cfg.Anomaly, codecs, am)
	return e, nil
}

// Process implements streaming.Operator. What cannot be read is counted and left out: it is a copy of an event that is stored, and a task that stops at it would stop for
// everybody.
func (e *entity) Process(in int, r *kgo.Record) error {
	var err error
	switch in {
	case inKPI:
		err = e.kpis.record(r)
	case inProduct:
		err = e.products.record(in, r)
	default:
		err = e.fraud(in, r, e.det.take)
	}
	if errors.Is(err, errUnreadable) {
		e.strange.Inc()
		return nil
	}
	return err
}

// Previews implements streaming.Previewer.
func (e *entity) Previews(in int) bool { return in == inCard || in == inIP || in == inUser }

// Preview implements streaming.Previewer.
func (e *entity) Preview(in int, r *kgo.Record) error {
	if err := e.fraud(in, r, e.det.preview); !errors.Is(err, errUnreadable) { // that is counted when its turn comes
		return err
	}
	return nil
}

// fraud gives f what a record says of a card, an address or a user, and of the device.
func (e *entity) fraud(in int, r *kgo.Record, take func(*event.Rekeyed) error) error {
	f := &e.fact
	if err := e.codecs.DecodeRekeyed(context.Background(), r.Topic, r.Value, f); err != nil {
		return errUnreadable
	}
	if err := take(f); err != nil || in != inIP {
		return err
	}
	// A device is a browser as it shows itself at an address, so it is where its address is.
	e.id = append(append(append(e.id[:0], f.IPHash...), '.'), f.Device...)
	f.Entity, f.Key = event.EntityDevice, string(e.id)
	return take(f)
}

// Timer implements streaming.Operator.
func (e *entity) Timer(tm streaming.Timer) error {
	switch tm.Owner {
	case ownerProduct:
		return e.products.timer(tm)
	case ownerAnomaly:
		return e.kpis.timer(tm)
	}
	return e.det.timer(tm)
}

// Tick implements streaming.Operator.
func (e *entity) Tick(now time.Time) error {
	changed, err := e.rules.tick()
	if changed {
		e.det.ruled()
	}
	if err != nil {
		return err
	}
	return e.products.tick(now)
}

// BeforeCommit implements streaming.Operator.
func (e *entity) BeforeCommit() error {
	e.det.sweep()
	return e.products.beforeCommit()
}

// Restored implements streaming.Restored.
func (e *entity) Restored() error {
	if err := e.rules.restored(); err != nil {
		return err
	}
	return e.products.restored()
}

// Committed implements streaming.Committer.
func (e *entity) Committed() {
	e.det.committed()
	e.products.committed()
	e.kpis.committed()
}

// Aborted implements streaming.Committer.
func (e *entity) Aborted() {
	e.det.aborted()
	_ = e.rules.restored() // it was read before
	e.products.aborted()
	e.kpis.aborted()
}

// stock tells that the stock of a product has become low: on arrival and for good alike, since a stock is what was counted, in whatever order.
func (e *entity) stock(s *stockAlert) error {
	what, severity := "low", event.SeverityWarn
	if s.out {
		what, severity = "out", event.SeverityCritical
	}
	reason := fmt.Sprintf("%d left; sold out within %s with probability %.2f", s.stock, s.lead, s.risk)
	if s.out {
		reason = "sold out"
	}
	by := "the sales of the last days"
	if s.forecast {
		by = "its forecast"
	}
	a := event.Alert{
		Kind: event.AlertStock, Rule: "stock-" + what, RuleVersion: 1, Tenant: s.tenant, Entity: event.EntityProduct, Key: s.product, Severity: severity, Score: min(1, max(0, s.risk)),
		Reasons: []string{reason, "by " + by}, TriggerEventID: s.event, OccurredAt: s.at, DetectedAt: e.t.Now().UnixMicro(),
		Details: `{"stock":` + strconv.FormatInt(s.stock, 10) + `,"cover_hours":` + strconv.FormatFloat(s.cover, 'f', 1, 64) + `}`,
	}
	a.AlertID = event.AlertID(a.Rule, a.RuleVersion, string(a.AppendKey(nil)), a.TriggerEventID)
	if e.fast != nil {
		e.fast(&a)
	}
	a.Confirmed = true
	return emitAlert(e.t, e.codecs, &a)
}
