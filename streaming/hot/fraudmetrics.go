package hot

import (
	"context"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
)

// what became of an alert.
type alertOutcome uint8

const (
	agreed      alertOutcome = iota // confirmed, and told on arrival under the same id
	unannounced                     // confirmed, and not told before
	suppressed                      // beyond alerts_per_minute
	alertOutcomes
)

var alertOutcomeNames = [alertOutcomes]string{"confirmed", "unannounced", "suppressed"}

// fraudCounts are those of a transaction.
type fraudCounts struct {
	late   int
	alerts map[string]*[alertOutcomes]int
}

func (c *fraudCounts) add(rule string, o alertOutcome) {
	if c.alerts == nil {
		c.alerts = map[string]*[alertOutcomes]int{}
	}
	n := c.alerts[rule]
	if n == nil {
		n = new([alertOutcomes]int)
		c.alerts[rule] = n
	}
	n[o]++
}

func (c *fraudCounts) reset() {
	c.late = 0
	clear(c.alerts)
}

type fraudMetrics struct {
	alerts      *prometheus.CounterVec
	said        prometheus.Counter
	unconfirmed prometheus.Counter
	late        prometheus.Counter
	strange     prometheus.Counter
	inUse       *prometheus.GaugeVec
}

// newFraudMetrics makes those of one stage.
func newFraudMetrics(reg prometheus.Registerer, stage string) *fraudMetrics {
	labels := prometheus.Labels{"stage": stage}
	m := &fraudMetrics{
		alerts:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_fraud_alerts_total", Help: "Alerts by rule: confirmed were told on arrival too, unannounced only after the watermark, suppressed are beyond alerts_per_minute.", ConstLabels: labels}, []string{"rule", "outcome"}),
		said:        prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_fraud_provisional_total", Help: "Alerts told on arrival.", ConstLabels: labels}),
		unconfirmed: prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_fraud_unconfirmed_total", Help: "Alerts told on arrival that the order of event time did not bear out.", ConstLabels: labels}),
		late:        prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_fraud_late_total", Help: "Events that came when their turn was over: rules that count take them, others do not.", ConstLabels: labels}),
		strange:     prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_fraud_unreadable_total", Help: "Rekeyed events that could not be read and were left out.", ConstLabels: labels}),
		inUse:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_rules_version", Help: "Version of the rules in force in a task.", ConstLabels: labels}, []string{"partition"}),
	}
	reg.MustRegister(m.alerts, m.said, m.unconfirmed, m.late, m.strange, m.inUse)
	return m
}

func (m *fraudMetrics) version(partition int32) prometheus.Gauge {
	return m.inUse.WithLabelValues(strconv.Itoa(int(partition)))
}

// add counts a committed transaction; settled is how many provisional alerts are so no longer.
func (m *fraudMetrics) add(c *fraudCounts, settled int) {
	m.late.Add(float64(c.late))
	for rule, n := range c.alerts {
		settled -= n[agreed]
		for o, v := range n {
			if v > 0 {
				m.alerts.WithLabelValues(rule, alertOutcomeNames[o]).Add(float64(v))
			}
		}
	}
	m.unconfirmed.Add(float64(max(0, settled)))
}

// FastAlerts gives a FraudConfig.Fast that writes to alerts.fast with a client of its own, outside of any transaction. The client should ask for acks=1 and no linger. An
// alert that its buffer has no room for is counted and dropped: the confirmed one follows.
func FastAlerts(cl *kgo.Client, codecs *schema.Codecs, reg prometheus.Registerer) func(*event.Alert) {
	failed := prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_fraud_fast_failed_total", Help: "Provisional alerts that could not be written to alerts.fast."})
	reg.MustRegister(failed)
	return func(a *event.Alert) {
		value, err := codecs.Append(nil, event.TopicAlertsFast, a)
		if err != nil {
			failed.Inc()
			return
		}
		cl.TryProduce(context.Background(), &kgo.Record{Topic: event.TopicAlertsFast, Key: a.AppendKey(nil), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Inc()
			}
		})
	}
}
