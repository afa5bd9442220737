package sink

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestWhereASinkStands(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	s, still := newStanding(reg, "test"), stillness{}
	offsets := func(p0, p1 int64) kadm.ListedOffsets {
		return kadm.ListedOffsets{"events.page": {0: {Topic: "events.page", Partition: 0, Offset: p0}, 1: {Topic: "events.page", Partition: 1, Offset: p1}}}
	}
	owned := func(p0, p1 int64) map[string]map[int32]kgo.EpochOffset {
		return map[string]map[int32]kgo.EpochOffset{"events.page": {0: {Offset: p0}, 1: {Offset: p1}}}
	}
	now := time.Unix(1_772_366_400, 0)
	for _, c := range []struct {
		name           string
		after          time.Duration
		owned          map[string]map[int32]kgo.EpochOffset
		stable, ends   kadm.ListedOffsets
		lag, undecided float64
		series         int
	}{
		{"a partition that was never committed lags by all of it", 0, owned(-1, 40), offsets(100, 50), offsets(100, 50), 110, 0, 1},
		{"an open transaction does not count as lag, and is young", time.Second, owned(100, 50), offsets(100, 50), offsets(120, 50), 0, 1, 1},
		{"nobody ends it", time.Minute, owned(100, 50), offsets(100, 50), offsets(150, 50), 0, 61, 1},
		{"the other partition goes on", time.Minute, owned(100, 70), offsets(100, 70), offsets(150, 90), 0, 121, 1},
		{"it is ended", time.Second, owned(100, 90), offsets(160, 90), offsets(170, 90), 60, 0, 1},
		{"an idle partition is not held back by anything", time.Hour, owned(170, 90), offsets(170, 90), offsets(170, 90), 0, 0, 1},
		{"a partition whose end is not known is left out", time.Second, owned(170, 90), kadm.ListedOffsets{}, offsets(170, 90), 0, 0, 1},
		{"what is another member's is not shown", time.Second, nil, offsets(170, 90), offsets(170, 90), 0, 0, 0},
		{"and begins anew when it comes back", time.Hour, owned(170, 90), offsets(170, 90), offsets(180, 90), 0, 0, 1},
	} {
		now = now.Add(c.after)
		s.show(c.owned, c.stable, c.ends, still, now)
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got, series := map[string]float64{}, 0
		for _, f := range families {
			for _, m := range f.GetMetric() {
				got[f.GetName()] += gauge(m)
				series++
			}
		}
		if got["millrace_sink_lag_records"] != c.lag || got["millrace_sink_undecided_seconds"] != c.undecided || series != 2*c.series {
			t.Errorf("%s: %v in %d series, want lag %g, undecided %g", c.name, got, series, c.lag, c.undecided)
		}
	}
}

func gauge(m *dto.Metric) float64 { return m.GetGauge().GetValue() }
