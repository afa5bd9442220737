package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"millrace/workers"
)

// config is the configuration that a command on this platform has.
func (p *platform) config() (workers.Config, error) {
	cfg, err := workers.Load("", map[string]any{"data": p.dir})
	if err != nil {
		return cfg, err
	}
	e, err := p.endpoints()
	if err != nil {
		return cfg, err
	}
	cfg.Fill(e)
	return cfg, nil
}

// series sums the samples of a metric of the gateway whose labels contain all of want.
func (p *platform) series(ctx context.Context, name string, want func(map[string]string) bool) (float64, error) {
	e, err := p.endpoints()
	if err != nil {
		return 0, err
	}
	if e.Gateway == "" {
		return 0, fmt.Errorf("the gateway does not run")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(e.Gateway, "/")+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, m := range families[name].GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if want(labels) {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum, nil
}

func acceptedEvents(ctx context.Context, p *platform) (uint64, error) {
	n, err := p.series(ctx, "millrace_gateway_events_total", func(map[string]string) bool { return true })
	return uint64(n), err
}

// noServerErrors: producers never saw a 5xx.
func (p *platform) noServerErrors(ctx context.Context) error {
	n, err := p.series(ctx, "millrace_gateway_requests_total", func(l map[string]string) bool { return strings.HasPrefix(l["code"], "5") })
	if err == nil && n > 0 {
		err = fmt.Errorf("%.0f requests were answered 5xx", n)
	}
	return err
}
