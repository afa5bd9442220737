package api

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	scrapeTimeout = 1500 * time.Millisecond
	maxScrape     = 8 << 20
	ourPrefix     = "millrace_"
)

// seriesID names one time series of one role's process.
type seriesID struct {
	role, name, labels string
}

// sample is what all roles said at one time.
type sample struct {
	at     time.Time
	values map[seriesID]float64      // counters and gauges
	hists  map[seriesID]histogram    // cumulative buckets
	kinds  map[string]dto.MetricType // by name
	labels map[seriesID]map[string]string
	up     map[string]error // by role: nil is a role that answered
}

// histogram is a cumulative histogram.
type histogram struct {
	bounds []float64
	counts []uint64
	total  uint64
}

// scrape asks all roles at the same time.
func scrape(ctx context.Context, client *http.Client, targets []target, now time.Time) *sample {
	s := &sample{
		at: now, values: map[seriesID]float64{}, hists: map[seriesID]histogram{}, kinds: map[string]dto.MetricType{}, labels: map[seriesID]map[string]string{}, up: map[string]error{},
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, t := range targets {
		wg.Go(func() {
			families, err := fetch(ctx, client, t.url)
			mu.Lock()
			defer mu.Unlock()
			s.up[t.role] = err
			for _, f := range families {
				s.take(t.role, f)
			}
		})
	}
	wg.Wait()
	return s
}

func fetch(ctx context.Context, client *http.Client, address string) (map[string]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", address, err)
	}
	req.Header.Set("Accept", "text/plain; version=0.0.4")
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking for metrics: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // it was read as far as wanted
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", address, res.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(res.Body, maxScrape))
	if err != nil {
		return nil, fmt.Errorf("reading the metrics of %s: %w", address, err)
	}
	return families, nil
}

func (s *sample) take(role string, f *dto.MetricFamily) {
	name := f.GetName()
	if !strings.HasPrefix(name, ourPrefix) {
		return
	}
	s.kinds[name] = f.GetType()
	for _, m := range f.GetMetric() {
		labels := map[string]string{}
		var text []string
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
			text = append(text, l.GetName()+"="+l.GetValue())
		}
		slices.Sort(text)
		id := seriesID{role, name, strings.Join(text, ",")}
		s.labels[id] = labels
		switch f.GetType() {
		case dto.MetricType_COUNTER:
			s.values[id] = m.GetCounter().GetValue()
		case dto.MetricType_GAUGE:
			s.values[id] = m.GetGauge().GetValue()
		case dto.MetricType_HISTOGRAM:
			h := histogram{total: m.GetHistogram().GetSampleCount()}
			for _, b := range m.GetHistogram().GetBucket() {
				h.bounds = append(h.bounds, b.GetUpperBound())
				h.counts = append(h.counts, b.GetCumulativeCount())
			}
			s.hists[id] = h
		}
	}
}

// has says whether any role exposes a metric.
func (s *sample) has(name string) bool { _, ok := s.kinds[name]; return ok }

// each calls f for every series of a metric.
func (s *sample) each(name string, f func(id seriesID, labels map[string]string, v float64)) {
	for id, v := range s.values {
		if id.name == name {
			f(id, s.labels[id], v)
		}
	}
}

// greatest is the largest value of a gauge; false where nobody exposes it.
func (s *sample) greatest(name string, labels ...string) (out float64, ok bool) {
	s.each(name, func(_ seriesID, have map[string]string, v float64) {
		if matches(have, labels) && (!ok || v > out) {
			out, ok = v, true
		}
	})
	return out, ok
}

// matches says whether a series has the given labels, name and value in turn.
func matches(have map[string]string, labels []string) bool {
	for i := 0; i+1 < len(labels); i += 2 {
		if have[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// grown is by how much a counter's series rose since an earlier sample. A process that started again counts from 0; one that was not asked then is not known.
func (s *sample) grown(id seriesID, before *sample) (float64, bool) {
	if err, asked := before.up[id.role]; !asked || err != nil {
		return 0, false
	}
	d := s.values[id] - before.values[id]
	if d < 0 {
		d = s.values[id]
	}
	return d, true
}

// rate is how fast a counter rises, all series with the given labels together; nil where it is not known.
func (s *sample) rate(name string, before *sample, labels ...string) *float64 {
	if before == nil || !s.at.After(before.at) {
		return nil
	}
	var sum float64
	known := false
	s.each(name, func(id seriesID, have map[string]string, _ float64) {
		if !matches(have, labels) {
			return
		}
		if d, ok := s.grown(id, before); ok {
			sum += d
			known = true
		}
	})
	if !known {
		return nil
	}
	r := sum / s.at.Sub(before.at).Seconds()
	return &r
}

// quantiles gives quantiles of a histogram, all series together, of what came since an earlier sample, or since start if nothing came or there is none. They are
// linear within a bucket, as Prometheus has them; nil without observations.
func (s *sample) quantiles(name string, before *sample, qs ...float64) []*float64 {
	sum := func(before *sample) histogram {
		var out histogram
		for id, h := range s.hists {
			if id.name != name {
				continue
			}
			if out.bounds == nil {
				out.bounds, out.counts = h.bounds, make([]uint64, len(h.counts))
			}
			if !slices.Equal(out.bounds, h.bounds) {
				continue // another release beside this one
			}
			var old histogram
			if before != nil {
				old = before.hists[id]
			}
			if len(old.counts) != len(h.counts) || old.total > h.total {
				old = histogram{counts: make([]uint64, len(h.counts))}
			}
			for i := range h.counts {
				out.counts[i] += h.counts[i] - min(h.counts[i], old.counts[i])
			}
			out.total += h.total - old.total
		}
		return out
	}
	h := sum(before)
	if h.total == 0 && before != nil {
		h = sum(nil)
	}
	out := make([]*float64, len(qs))
	for i, q := range qs {
		out[i] = h.quantile(q)
	}
	return out
}

func (h histogram) quantile(q float64) *float64 {
	if h.total == 0 || len(h.bounds) == 0 {
		return nil
	}
	rank := q * float64(h.total)
	var below uint64
	lower := 0.0
	for i, b := range h.bounds {
		if float64(h.counts[i]) >= rank {
			v := lower
			if n := h.counts[i] - below; n > 0 && !math.IsInf(b, 1) {
				v = lower + (b-lower)*(rank-float64(below))/float64(n)
			}
			return &v
		}
		below = h.counts[i]
		if !math.IsInf(b, 1) {
			lower = b
		}
	}
	return &lower
}
