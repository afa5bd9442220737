package sink

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// standing shows how far a sink is behind its topics and whether they can be read at all, by asking the broker: fetches tell nothing while the store is away and
// nothing is fetched, nor while a transaction that nobody ends holds back what read_committed shows.
type standing struct {
	lag, undecided *prometheus.GaugeVec // by topic
}

func newStanding(reg prometheus.Registerer, sink string) standing {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_sink_" + name, Help: help, ConstLabels: prometheus.Labels{"sink": sink}}, []string{"topic"})
	}
	s := standing{
		lag:       gauge("lag_records", "Records of the partitions that the sink owns, up to their last stable offset, of which the group does not know that they are stored."),
		undecided: gauge("undecided_seconds", "How long the last stable offset of a partition that the sink owns has stood still with records behind it; transactions take less than a second."),
	}
	reg.MustRegister(s.lag, s.undecided)
	return s
}

const standingEvery = 5 * time.Second

// watch keeps the gauges until the function that it gives is called, which waits for it.
func (s standing) watch(ctx context.Context, cl *kgo.Client, topics ...string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		adm, still := kadm.NewClient(cl), stillness{}
		tick := time.NewTicker(standingEvery)
		defer tick.Stop()
		for {
			if stable, err := adm.ListCommittedOffsets(ctx, topics...); err == nil {
				if ends, err := adm.ListEndOffsets(ctx, topics...); err == nil {
					s.show(cl.CommittedOffsets(), stable, ends, still, time.Now())
				}
			}
			select {
			case <-ctx.Done():
				s.lag.Reset()
				s.undecided.Reset()
				return
			case <-tick.C:
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// stillness is, by topic and partition, where the last stable offset stands and since when.
type stillness map[string]map[int32]stand

type stand struct {
	at    int64
	since time.Time
}

func (s standing) show(owned map[string]map[int32]kgo.EpochOffset, stable, ends kadm.ListedOffsets, still stillness, now time.Time) {
	s.lag.Reset()
	s.undecided.Reset()
	for topic, ps := range owned {
		lag, undecided := int64(0), time.Duration(0)
		if still[topic] == nil {
			still[topic] = map[int32]stand{}
		}
		for p, at := range ps {
			decided, ok := stable.Lookup(topic, p)
			end, known := ends.Lookup(topic, p)
			if !ok || !known || decided.Err != nil || end.Err != nil {
				continue
			}
			lag += max(0, decided.Offset-max(0, at.Offset))
			if x := still[topic][p]; x.at != decided.Offset || x.since.IsZero() || end.Offset <= decided.Offset {
				still[topic][p] = stand{decided.Offset, now}
			}
			undecided = max(undecided, now.Sub(still[topic][p].since))
		}
		s.lag.WithLabelValues(topic).Set(float64(lag))
		s.undecided.WithLabelValues(topic).Set(undecided.Seconds())
	}
	for topic := range still {
		for p := range still[topic] {
			if _, ok := owned[topic][p]; !ok {
				delete(still[topic], p)
			}
		}
	}
}
