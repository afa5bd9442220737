package hot

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/kpi"
	"millrace/kpi/anomaly"
	"millrace/streaming"
)

// Stores of the job for anomalies in the second stage.
const (
	storeMinutes = 44
	storeSeries  = 45
	storeSeasons = 46
)

func anomalyStores() []streaming.StoreSpec {
	return []streaming.StoreSpec{{ID: storeMinutes, Name: "anomaly.minutes", Format: 1}, {ID: storeSeries, Name: "anomaly.series", Format: 1}, {ID: storeSeasons, Name: "anomaly.seasons", Format: 1}}
}

const (
	anomalyVersion = 1  // of the rule: raised when what is found changes
	mostCurrencies = 16 // of a tenant: further ones are not watched
)

// anomalies adds up the KPIs of each tenant over the tasks of the first stage, and judges each minute once the watermark of all of them has passed it. One alert is raised
// for an incident, when it begins: its id follows from the KPI and the minute in which it began.
//
// A tenant of whom nothing comes is judged with zeros for as long as an incident lasts; for the watermark to go on somebody must send something.
type anomalies struct {
	noJob
	t      *streaming.Task
	cfg    AnomalyConfig
	codecs *schema.Codecs
	m      *anomalyMetrics
	counts map[anomalyCount]int // of the open transaction

	tenants *streaming.Store[tenantMinutes]
	series  *streaming.Store[anomaly.Head]
	seasons *streaming.Store[*anomaly.Day]
	kpis    []kpi.Measure
	part    event.KPIPartial
}

// tenantMinutes is what has been heard of a tenant and not judged.
type tenantMinutes struct {
	Next       int64       `json:"next"` // the minute that is judged next
	Last       int64       `json:"last"` // the last one of which something was heard
	Currencies []string    `json:"currencies"`
	Minutes    []minuteSum `json:"minutes"` // by minute; never changed in place
}

// minuteSum is the sum over the tasks of the first stage.
type minuteSum struct {
	Minute  int64              `json:"minute"`
	Counts  map[string]int64   `json:"counts"`  // by measure
	Revenue map[string]float64 `json:"revenue"` // by currency, in its units
}

type minutesCodec struct{}

// Append implements streaming.Codec.
func (minutesCodec) Append(dst []byte, v tenantMinutes) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers and texts
	}
	return append(dst, text...)
}

// Decode implements streaming.Codec.
func (minutesCodec) Decode(src []byte) (v tenantMinutes, err error) {
	return v, json.Unmarshal(src, &v)
}

type headCodec struct{}

// Append implements streaming.Codec.
func (headCodec) Append(dst []byte, v anomaly.Head) []byte { return v.Append(dst) }

// Decode implements streaming.Codec.
func (headCodec) Decode(src []byte) (anomaly.Head, error) { return anomaly.DecodeHead(src) }

type dayCodec struct{}

// Append implements streaming.Codec.
func (dayCodec) Append(dst []byte, v *anomaly.Day) []byte { return v.Append(dst) }

// Decode implements streaming.Codec.
func (dayCodec) Decode(src []byte) (*anomaly.Day, error) { return anomaly.DecodeDay(src) }

func newAnomalies(t *streaming.Task, cfg AnomalyConfig, codecs *schema.Codecs, m *anomalyMetrics) *anomalies {
	a := &anomalies{
		t: t, cfg: cfg, codecs: codecs, m: m, counts: map[anomalyCount]int{},
		tenants: streaming.OpenStore(t, storeMinutes, streaming.Codec[tenantMinutes](minutesCodec{})),
		series:  streaming.OpenStore(t, storeSeries, streaming.Codec[anomaly.Head](headCodec{})),
		seasons: streaming.OpenStore(t, storeSeasons, streaming.Codec[*anomaly.Day](dayCodec{})),
	}
	for _, name := range cfg.KPIs {
		if x, ok := watchable(name); ok {
			a.kpis = append(a.kpis, x)
		}
	}
	return a
}

// record takes a part of a minute.
func (a *anomalies) record(r *kgo.Record) error {
	if !a.cfg.Enabled {
		return nil // what was written before it was switched off
	}
	p := &a.part
	*p = event.KPIPartial{}
	if err := a.codecs.Decode(context.Background(), event.TopicRekeyKPI, r.Value, p); err != nil {
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	minute := p.WindowStart / minuteMicros
	v, known := a.tenants.Get(p.Tenant)
	asleep := !known || len(v.Minutes) == 0 && a.sleeps(&v)
	if !known || asleep && minute > v.Next {
		v.Next = minute
	}
	if minute < v.Next {
		a.counts[anomalyCount{"", "late"}]++
		return nil
	}
	v.Minutes = slices.Clone(v.Minutes)
	i, found := slices.BinarySearchFunc(v.Minutes, minute, func(s minuteSum, at int64) int { return int(s.Minute - at) })
	sum := minuteSum{Minute: minute, Counts: map[string]int64{}, Revenue: map[string]float64{}}
	if found { // the store has the old one until the transaction ends
		for k, n := range v.Minutes[i].Counts {
			sum.Counts[k] = n
		}
		for k, n := range v.Minutes[i].Revenue {
			sum.Revenue[k] = n
		}
		v.Minutes[i] = sum
	} else {
		v.Minutes = slices.Insert(v.Minutes, i, sum)
	}
	for m, n := range map[kpi.Measure]int64{
		kpi.Events: p.Events, kpi.PageViews: p.PageViews, kpi.ItemViews: p.ItemViews, kpi.Searches: p.Searches, kpi.CartAdds: p.CartAdds, kpi.Checkouts: p.Checkouts, kpi.Orders: p.Orders,
		kpi.Refunds: p.Refunds, kpi.StockOuts: p.StockOuts,
	} {
		if n != 0 {
			sum.Counts[m.String()] += n
		}
	}
	if p.Currency != "" && p.Orders > 0 && !slices.Contains(v.Currencies, p.Currency) && len(v.Currencies) < mostCurrencies {
		v.Currencies = append(slices.Clone(v.Currencies), p.Currency)
	}
	if !p.Revenue.IsZero() && slices.Contains(v.Currencies, p.Currency) {
		f, _ := new(big.Float).SetInt(p.Revenue.Big()).Float64()
		sum.Revenue[p.Currency] += f / event.MicrosPerUnit
	}
	v.Last = max(v.Last, minute)
	a.tenants.Put(p.Tenant, v)
	a.t.SetTimer(ownerAnomaly, p.Tenant, a.due(v.Next))
	return nil
}

// due is when a minute is judged.
func (a *anomalies) due(minute int64) int64 {
	return (minute+1)*minuteMicros + a.cfg.Wait.Microseconds()
}

// sleeps says whether nothing has been heard of a tenant for longer than an incident lasts.
func (a *anomalies) sleeps(v *tenantMinutes) bool {
	return v.Next > v.Last+int64(a.cfg.Rule.Longest.Minutes())
}

// timer implements job: the minutes of a tenant that are over are judged.
func (a *anomalies) timer(tm streaming.Timer) error {
	v, ok := a.tenants.Get(tm.Key)
	if !ok || a.due(v.Next) > a.t.Watermark() {
		return nil
	}
	watermark := a.t.Watermark()
	for a.due(v.Next) <= watermark {
		if len(v.Minutes) == 0 && a.sleeps(&v) {
			break
		}
		if len(v.Minutes) > 0 && v.Minutes[0].Minute > v.Next && a.sleeps(&v) {
			v.Next = v.Minutes[0].Minute
			continue
		}
		sum := minuteSum{Minute: v.Next}
		if len(v.Minutes) > 0 && v.Minutes[0].Minute == v.Next {
			sum, v.Minutes = v.Minutes[0], v.Minutes[1:]
		}
		if err := a.judge(tm.Key, &v, sum); err != nil {
			return err
		}
		v.Next++
	}
	a.tenants.Put(tm.Key, v)
	if len(v.Minutes) > 0 || !a.sleeps(&v) {
		a.t.SetTimer(ownerAnomaly, tm.Key, a.due(v.Next))
	}
	return nil
}

// judge takes a minute to all series of a tenant.
func (a *anomalies) judge(tenant string, v *tenantMinutes, sum minuteSum) error {
	a.counts[anomalyCount{"", "minutes"}]++
	for _, m := range a.kpis {
		if m != kpi.Revenue {
			if err := a.step(tenant, m.String(), "", anomaly.Counts, sum.Minute, float64(sum.Counts[m.String()])); err != nil {
				return err
			}
			continue
		}
		for _, c := range v.Currencies {
			if err := a.step(tenant, m.String(), c, anomaly.Amounts, sum.Minute, sum.Revenue[c]); err != nil {
				return err
			}
		}
	}
	return nil
}

// season is the season of a series in the store.
type season struct {
	a   *anomalies
	key []byte
}

// Day implements anomaly.Season.
func (s *season) Day(weekday int) *anomaly.Day {
	d, _ := s.a.seasons.GetBytes(s.of(weekday))
	return d
}

func (s *season) of(weekday int) []byte { return append(slices.Clip(s.key), byte('0'+weekday)) }

func (a *anomalies) step(tenant, name, currency string, kind anomaly.Kind, minute int64, x float64) error {
	key := append(append(append(append(make([]byte, 0, 64), tenant...), event.Sep), name...), event.Sep)
	key = append(key, currency...)
	h, _ := a.series.GetBytes(key)
	s := &season{a, append(slices.Clone(key), event.Sep)}
	state, weekday, learned := h.Step(a.cfg.Rule, kind, s, minute, minute+a.offset(tenant, minute), x)
	if learned != nil {
		a.seasons.Put(string(s.of(weekday)), learned)
	}
	a.series.Put(string(key), h)
	switch state {
	case anomaly.Opened:
		a.counts[anomalyCount{name, "opened"}]++
		in, _ := h.Incident()
		return a.raise(tenant, name, currency, &in)
	case anomaly.Closed:
		a.counts[anomalyCount{name, "closed"}]++
	}
	return nil
}

// offset is how far a tenant's clock is ahead of UTC, in minutes.
func (a *anomalies) offset(tenant string, minute int64) int64 {
	if a.cfg.Zone == nil {
		return 0
	}
	zone := a.cfg.Zone(tenant)
	if zone == nil {
		return 0
	}
	_, seconds := time.Unix(minute*60, 0).In(zone).Zone()
	return int64(seconds / 60)
}

// anomalyDetails is what an alert says beside its reasons.
type anomalyDetails struct {
	KPI      string  `json:"kpi"`
	Currency string  `json:"currency,omitempty"`
	Change   string  `json:"change"` // drop or rise
	Minutes  int     `json:"minutes"`
	Observed float64 `json:"observed"`
	Expected float64 `json:"expected"`
	Low      float64 `json:"low"` // what would have been no incident
	High     float64 `json:"high"`
	Z        float64 `json:"z"`
	Start    string  `json:"start"`
}

func (a *anomalies) raise(tenant, name, currency string, in *anomaly.Incident) error {
	round := func(v float64) float64 { return math.Round(v*100) / 100 }
	start := event.Time(in.Start * minuteMicros)
	info := anomalyDetails{
		KPI: name, Currency: currency, Change: "rise", Minutes: max(2, in.Window), Observed: round(in.Observed), Expected: round(in.Expected), Low: round(in.Low), High: round(in.High), Z: round(in.Z),
		Start: start.Format(time.RFC3339),
	}
	if in.Drop {
		info.Change = "drop"
	}
	text, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("writing an alert: %w", err)
	}
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	out := event.Alert{
		Kind: event.AlertAnomaly, Rule: "kpi.anomaly." + name, RuleVersion: anomalyVersion, Tenant: tenant, Entity: event.EntityKPI, Key: name, Severity: event.SeverityWarn,
		Score:          math.Round(min(1, math.Abs(in.Z)/20)*10_000) / 10_000,
		Reasons:        []string{fmt.Sprintf("%s in %d minutes, %s are expected (%s to %s)", number(info.Observed), info.Minutes, number(info.Expected), number(info.Low), number(info.High))},
		TriggerEventID: info.Change + "@" + info.Start, OccurredAt: start.UnixMicro(), DetectedAt: a.t.Now().UnixMicro(), Confirmed: true, Details: string(text),
	}
	if currency != "" {
		out.Key += "/" + currency
	}
	if in.Drop && in.Observed <= in.Expected/2 && math.Abs(in.Z) >= 2*a.cfg.Rule.Open {
		out.Severity = event.SeverityCritical
	}
	out.AlertID = event.AlertID(out.Rule, out.RuleVersion, string(out.AppendKey(nil)), out.TriggerEventID)
	return emitAlert(a.t, a.codecs, &out)
}

// anomalyCount names a counter: of a KPI, or of none.
type anomalyCount struct{ kpi, what string }

// committed implements job.
func (a *anomalies) committed() {
	for c, n := range a.counts {
		switch c.what {
		case "late":
			a.m.late.Add(float64(n))
		case "minutes":
			a.m.minutes.Add(float64(n))
		default:
			a.m.incidents.WithLabelValues(c.kpi, c.what).Add(float64(n))
		}
	}
	clear(a.counts)
}

// aborted implements job.
func (a *anomalies) aborted() { clear(a.counts) }

type anomalyMetrics struct {
	incidents     *prometheus.CounterVec
	minutes, late prometheus.Counter
}

func newAnomalyMetrics(reg prometheus.Registerer) *anomalyMetrics {
	m := &anomalyMetrics{
		incidents: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_anomaly_incidents_total", Help: "Incidents of KPIs that began and ended."}, []string{"kpi", "state"}),
		minutes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_anomaly_minutes_total", Help: "Minutes of tenants that were judged."}),
		late:      prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_anomaly_late_total", Help: "Parts of a minute that came when it had been judged, and were left out."}),
	}
	reg.MustRegister(m.incidents, m.minutes, m.late)
	return m
}
