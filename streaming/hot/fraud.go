package hot

import (
	"fmt"
	"time"

	"github.com/go-faster/jx"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/features/rules"
	"millrace/streaming"
)

// Stores and timers of fraud detection, in both stages.
const (
	storeVisitorFraud   = 20
	storeVisitorPending = 21
	storeEntityFraud    = 22
	storeEntityPending  = 23

	ownerFraud = 1
)

// FraudConfig is how fraud is looked for.
type FraudConfig struct {
	Enabled   bool `koanf:"enabled" desc:"look for fraud by the rules in force (docs/fraud.md)"`
	PerMinute int  `koanf:"alerts_per_minute" desc:"most alerts of one rule in a minute of event time and a partition; those beyond are counted and not raised, so that a rule that matches everything drowns nothing"`

	Rules *Rules             `koanf:"-"` // nil: the default rules
	Fast  func(*event.Alert) `koanf:"-"` // is given each provisional alert at once, and must not block; nil: nobody is. The alert is valid during the call
}

// DefaultFraudConfig looks for it.
func DefaultFraudConfig() FraudConfig { return FraudConfig{Enabled: true, PerMinute: 1000} }

// Validate reports every problem.
func (c FraudConfig) Validate() error {
	if c.PerMinute < 1 || c.PerMinute > 1_000_000 {
		return fmt.Errorf("alerts_per_minute: %d is not between 1 and 1000000", c.PerMinute)
	}
	return nil
}

// fraudStores declares what the visitor stage holds of it.
func fraudStores() []streaming.StoreSpec {
	return []streaming.StoreSpec{{ID: storeVisitorFraud, Name: "fraud.visitor", Format: 1}, {ID: storeVisitorPending, Name: "fraud.visitor.pending", Format: 1}, {ID: storeControl, Name: "control", Format: 1}}
}

// fraudTopics are what the visitor stage writes for the entity stage.
func fraudTopics() []string {
	return []string{event.TopicRekeyCard, event.TopicRekeyIP, event.TopicRekeyUser}
}

// fraud is the visitor stage's part: rules about visitors are looked at here, and events that rules about cards, addresses, devices and users want are sent to the tasks
// of those.
type fraud struct {
	t      *streaming.Task
	codecs *schema.Codecs
	det    *detector
	rules  *follower

	wants map[string]entities // by name of event
	early map[event.Category]bool
	fact  event.Rekeyed
}

// entities is a set of them.
type entities uint8

const (
	ofVisitor entities = 1 << iota
	ofCard
	ofIP
	ofUser
	ofDevice
)

func newFraud(t *streaming.Task, cfg FraudConfig, codecs *schema.Codecs, m *fraudMetrics) (*fraud, error) {
	follow, err := newFollower(t, cfg.Rules, m.version(t.Partition()))
	if err != nil {
		return nil, err
	}
	f := &fraud{t: t, codecs: codecs, rules: follow, det: newDetector(t, cfg, codecs, follow, m, storeVisitorFraud, storeVisitorPending)}
	f.learn()
	return f, nil
}

// learn notes which events the rules in force want.
func (f *fraud) learn() {
	f.wants, f.early = map[string]entities{}, map[event.Category]bool{}
	for _, x := range []struct {
		entity string
		bit    entities
	}{{event.EntityVisitor, ofVisitor}, {event.EntityCard, ofCard}, {event.EntityIP, ofIP}, {event.EntityUser, ofUser}, {event.EntityDevice, ofDevice}} {
		for _, name := range f.rules.set.Names(x.entity) {
			f.wants[name] |= x.bit
			f.early[event.CategoryOf(name)] = true
		}
	}
}

// event implements job.
func (f *fraud) event(e *event.Event, _ *kgo.Record) error {
	want := f.wanted(e)
	if want == 0 {
		return nil
	}
	f.take(e)
	if want&ofVisitor != 0 {
		f.fact.Entity, f.fact.Key = event.EntityVisitor, e.VisitorID
		if err := f.det.take(&f.fact); err != nil {
			return err
		}
	}
	f.rekey(want, e, f.send)
	return nil
}

// previews says whether rules want events of a category.
func (f *fraud) previews(c event.Category) bool { return f.early[c] }

// preview looks at an event before its turn, and at its copies too: rules about visitors here, and others in the second stage.
func (f *fraud) preview(e *event.Event) error {
	want := f.wanted(e)
	if want == 0 {
		return nil
	}
	f.take(e)
	if want&ofVisitor != 0 {
		f.fact.Entity, f.fact.Key = event.EntityVisitor, e.VisitorID
		if err := f.det.preview(&f.fact); err != nil {
			return err
		}
	}
	f.rekey(want, e, func(topic string) {
		streaming.Announce(f.t, topic, f.fact.AppendKey(nil), f.codecs.AppendRekeyed(make([]byte, 0, 512), topic, &f.fact))
	})
	return nil
}

// rekey gives the fact for each of the entities that have tasks of their own.
func (f *fraud) rekey(want entities, e *event.Event, send func(topic string)) {
	if want&ofCard != 0 {
		f.fact.Entity, f.fact.Key = event.EntityCard, e.CardFingerprint
		send(event.TopicRekeyCard)
	}
	if want&(ofIP|ofDevice) != 0 {
		f.fact.Entity, f.fact.Key = event.EntityIP, e.IPHash
		send(event.TopicRekeyIP)
	}
	if want&ofUser != 0 {
		f.fact.Entity, f.fact.Key = event.EntityUser, e.UserID
		send(event.TopicRekeyUser)
	}
}

// wanted is for which of its entities rules want an event.
func (f *fraud) wanted(e *event.Event) entities {
	want := f.wants[e.Name]
	if e.VisitorID == "" {
		want &^= ofVisitor
	}
	if e.CardFingerprint == "" {
		want &^= ofCard
	}
	if e.IPHash == "" {
		want &^= ofIP | ofDevice
	}
	if e.UserID == "" {
		want &^= ofUser
	}
	return want
}

// take makes the fact of an event. Its texts are the event's own.
func (f *fraud) take(e *event.Event) {
	units := int64(0)
	for i := range e.Items {
		if q := e.Items[i].Quantity; q > 0 && q < 1<<40 {
			units += q
		}
	}
	value := int64(0)
	if e.Value != nil {
		value = *e.Value
	}
	f.fact = event.Rekeyed{
		Tenant: e.Tenant, EventID: e.ID, Name: e.Name, At: min(e.OccurredAt, e.ReceivedAt, e.IngestedAt), OccurredAt: e.OccurredAt, ReceivedAt: e.ReceivedAt, IngestedAt: e.IngestedAt,
		VisitorID: e.VisitorID, UserID: e.UserID, SessionID: e.SessionID, OrderID: e.OrderID, Source: e.Source, Value: value, Currency: e.Currency, Units: units,
		Country: e.Country, Region: e.Region, City: e.City, Device: rules.Device(e.UserAgent, e.DeviceOS, e.DeviceBrowser, e.Locale, e.TimeZone), DeviceType: e.DeviceType, DeviceOS: e.DeviceOS, DeviceBrowser: e.DeviceBrowser,
		IPHash: e.IPHash, CardFingerprint: e.CardFingerprint, CardBIN: e.CardBIN, PaymentMethod: e.PaymentMethod, Declined: declined(e),
	}
}

// declined says whether a payment was refused: the property "declined" is true.
func declined(e *event.Event) (yes bool) {
	if e.Properties == "" || e.Name != event.NameAddPaymentInfo && e.Name != event.NamePurchase {
		return false
	}
	err := jx.DecodeStr(e.Properties).ObjBytes(func(d *jx.Decoder, key []byte) error {
		if string(key) != "declined" || d.Next() != jx.Bool {
			return d.Skip()
		}
		v, err := d.Bool()
		yes = v
		return err
	})
	return yes && err == nil
}

// send writes the fact to the task of its entity.
func (f *fraud) send(topic string) {
	value := f.t.Keep(f.codecs.AppendRekeyed(f.t.Buf(512), topic, &f.fact))
	streaming.Rekey(f.t, topic, f.t.Keep(f.fact.AppendKey(f.t.Buf(len(f.fact.Tenant)+len(f.fact.Key)+3))), value)
}

// timer implements job.
func (f *fraud) timer(tm streaming.Timer) error { return f.det.timer(tm) }

// tick implements job: newer rules are taken over between two records.
func (f *fraud) tick(time.Time) error {
	changed, err := f.rules.tick()
	if changed {
		f.learn()
		f.det.ruled()
	}
	return err
}

// beforeCommit implements job.
func (f *fraud) beforeCommit() error {
	f.det.sweep()
	return nil
}

func (f *fraud) committed() { f.det.committed() }

// aborted implements job.
func (f *fraud) aborted() {
	f.det.aborted()
	if err := f.rules.restored(); err == nil { // it was read before
		f.learn()
	}
}

func (f *fraud) restored() error {
	if err := f.rules.restored(); err != nil {
		return err
	}
	f.learn()
	return nil
}
