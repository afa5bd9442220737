package hot

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/kpi"
	"millrace/kpi/anomaly"
	"millrace/streaming"
)

// Timers of the jobs for anomalies: of the first stage, and of the second.
const (
	ownerMinute  = 23
	ownerAnomaly = 24
)

// AnomalyConfig is which KPIs are watched, and when they are too far off.
type AnomalyConfig struct {
	Enabled bool           `koanf:"enabled" desc:"watch the KPIs of each tenant by the minute and raise an alert for what is not to be expected (docs/anomalies.md)"`
	KPIs    []string       `koanf:"kpis" desc:"the measures that are watched: counts that events add to, and revenue, by currency"`
	Wait    time.Duration  `koanf:"wait" desc:"how long after its end, in event time, a minute is judged: for events of partitions that were quiet before"`
	Rule    anomaly.Config `koanf:"rule"`

	Zone func(tenant string) *time.Location `koanf:"-"` // whose days and weeks a tenant's season follows; nil: UTC
}

// DefaultAnomalyConfig watches what a shop lives by.
func DefaultAnomalyConfig() AnomalyConfig {
	return AnomalyConfig{
		Enabled: true, Wait: 10 * time.Second, Rule: anomaly.DefaultConfig(),
		KPIs: []string{kpi.PageViews.String(), kpi.CartAdds.String(), kpi.Checkouts.String(), kpi.Orders.String(), kpi.Revenue.String()},
	}
}

// Validate reports every problem.
func (c AnomalyConfig) Validate() error {
	var errs []error
	for i, name := range c.KPIs {
		if _, ok := watchable(name); !ok {
			errs = append(errs, fmt.Errorf("kpis: %.40q is none of %v", name, watched()))
		} else if slices.Contains(c.KPIs[:i], name) {
			errs = append(errs, fmt.Errorf("kpis: %s is named twice", name))
		}
	}
	if c.Wait < 0 || c.Wait > 10*time.Minute {
		errs = append(errs, fmt.Errorf("wait: %s is not between 0s and 10m", c.Wait))
	}
	return errors.Join(append(errs, prefixed("rule", c.Rule.Validate()))...)
}

// watchable finds a measure that can be watched: one that is told by events one by one.
func watchable(name string) (kpi.Measure, bool) {
	for _, m := range kpi.Measures() {
		if m.String() == name && (m == kpi.Revenue || m.Kind() == kpi.Count || m.Kind() == kpi.SoldOut) {
			return m, true
		}
	}
	return 0, false
}

// watched lists them.
func watched() []string {
	var out []string
	for _, m := range kpi.Measures() {
		if _, ok := watchable(m.String()); ok {
			out = append(out, m.String())
		}
	}
	return out
}

const minuteMicros = 60 * 1_000_000

// minuteCell is a currency of a tenant in a minute of event time.
type minuteCell struct {
	tenant, currency string
	minute           int64 // since 1970
}

// kpiMinutes sends what a task has counted to where it is added up over tasks: on topic rekey.kpi, to the task of the tenant in the second stage. It keeps nothing between
// transactions: what was counted in one is sent in it, at the latest when it ends, and before the watermark passes the minute, so that whoever is told of that watermark has it.
// What is sent adds up: a minute is sent in as many parts as there are transactions that have some of it.
type kpiMinutes struct {
	noJob
	t      *streaming.Task
	codecs *schema.Codecs
	cells  map[minuteCell]*event.KPIPartial
	last   *event.KPIPartial // the one without currency that was asked for last
	key    []byte
}

func newKPIMinutes(t *streaming.Task, codecs *schema.Codecs) *kpiMinutes {
	return &kpiMinutes{t: t, codecs: codecs, cells: map[minuteCell]*event.KPIPartial{}}
}

// event implements job.
func (k *kpiMinutes) event(e *event.Event, _ *kgo.Record) error {
	at := min(e.OccurredAt, e.IngestedAt) // a clock that is ahead counts when it is heard
	start := at - at%minuteMicros
	if at < 0 {
		return nil
	}
	p := k.last
	if p == nil || p.WindowStart != start || p.Tenant != e.Tenant || e.Currency != "" {
		p = k.cell(e, start)
	}
	p.Events++
	switch e.Name {
	case event.NamePageView:
		p.PageViews++
	case event.NameViewItem:
		p.ItemViews++
	case event.NameSearch:
		p.Searches++
	case event.NameAddToCart:
		p.CartAdds++
	case event.NameBeginCheckout:
		p.Checkouts++
	case event.NamePurchase:
		p.Orders++
		if e.Value != nil {
			p.Revenue = p.Revenue.Add(event.SumOf(*e.Value))
		}
	case event.NameRefund:
		p.Refunds++
	case event.NameInventoryChange:
		if kpi.ReachesZero(e) {
			p.StockOuts++
		}
	}
	return nil
}

// cell finds or makes the cell of an event, and sees to it that it is sent in time.
func (k *kpiMinutes) cell(e *event.Event, start int64) *event.KPIPartial {
	c := minuteCell{e.Tenant, e.Currency, start / minuteMicros}
	p := k.cells[c]
	if p == nil {
		c.tenant, c.currency = string([]byte(e.Tenant)), string([]byte(e.Currency)) // the event's are the record's
		p = &event.KPIPartial{Family: kpi.Shop.String(), Grain: "1m", Tenant: c.tenant, Currency: c.currency, WindowStart: start, KafkaPartition: k.t.Partition()}
		k.cells[c] = p
		k.t.SetTimer(ownerMinute, "", start+minuteMicros)
	}
	if c.currency == "" {
		k.last = p
	}
	return p
}

// timer implements job: the watermark passes a minute.
func (k *kpiMinutes) timer(streaming.Timer) error { return k.flush() }

// beforeCommit implements job.
func (k *kpiMinutes) beforeCommit() error { return k.flush() }

// flush sends everything.
func (k *kpiMinutes) flush() error {
	for _, p := range k.cells {
		value, err := k.codecs.Append(k.t.Buf(160), event.TopicRekeyKPI, p)
		if err != nil {
			return err
		}
		k.key = append(k.key[:0], p.Tenant...)
		streaming.Rekey(k.t, event.TopicRekeyKPI, k.t.Copy(k.key), k.t.Keep(value))
	}
	k.aborted()
	return nil
}

// aborted implements job.
func (k *kpiMinutes) aborted() {
	clear(k.cells)
	k.last = nil
}
