package sink

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// webhookMetrics are those of all destinations.
type webhookMetrics struct {
	delivered *prometheus.CounterVec
	attempts  *prometheus.CounterVec
	unnoted   *prometheus.CounterVec
	paused    *prometheus.GaugeVec
}

func newWebhookMetrics(reg prometheus.Registerer) webhookMetrics {
	m := webhookMetrics{
		delivered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_alerts_delivered_total", Help: "Alerts that a destination is done with: sent, duplicate, refused, expired, unreadable.",
		}, []string{"destination", "outcome"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_alerts_failed_attempts_total", Help: "Attempts that a destination did not take, and that are repeated."}, []string{"destination"}),
		unnoted:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_alerts_unnoted_total", Help: "Times that Redis could not be asked or told what was sent: an alert may be sent twice."}, []string{"destination"}),
		paused:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_alerts_destination_paused", Help: "1 while a destination does not take alerts and is waited for."}, []string{"destination"}),
	}
	reg.MustRegister(m.delivered, m.attempts, m.unnoted, m.paused)
	return m
}

// destinationMetrics are those of one destination.
type destinationMetrics struct {
	outcomes *prometheus.CounterVec // by outcome
	attempts prometheus.Counter
	unnoted  prometheus.Counter
	paused   prometheus.Gauge
	oldest   *oldest
	standing standing
}

func (m webhookMetrics) of(reg prometheus.Registerer, name string) destinationMetrics {
	d := destinationMetrics{
		outcomes: m.delivered.MustCurryWith(prometheus.Labels{"destination": name}), attempts: m.attempts.WithLabelValues(name), unnoted: m.unnoted.WithLabelValues(name),
		paused: m.paused.WithLabelValues(name), oldest: &oldest{held: map[place]time.Time{}},
	}
	for _, outcome := range []string{"sent", "duplicate", "refused", "expired", "unreadable"} {
		d.outcomes.WithLabelValues(outcome)
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "millrace_alerts_oldest_undelivered_seconds", Help: "Age of the oldest alert that the destination was given and has not taken; 0: there is none.", ConstLabels: prometheus.Labels{"destination": name},
	}, d.oldest.seconds))
	d.standing = newStanding(reg, "alerts."+name)
	return d
}

func (d destinationMetrics) delivered(outcome string) { d.outcomes.WithLabelValues(outcome).Inc() }

// oldest knows since when each partition's alert is under way.
type oldest struct {
	mu   sync.Mutex
	held map[place]time.Time
}

func (o *oldest) hold(topic string, partition int32, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held[place{topic, partition}] = at
}

func (o *oldest) release(topic string, partition int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.held, place{topic, partition})
}

func (o *oldest) seconds() float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	most := time.Duration(0)
	for _, at := range o.held {
		most = max(most, time.Since(at))
	}
	return most.Seconds()
}
