// Package telemetry is the traces of the data path: a span for each sampled request in the gateway, for each of its records in the hot topology and for each
// batch that a sink stores, sent to an OpenTelemetry collector. The trace travels in the record header tp. Every method works on nil, which is "no traces", so
// that code on the hot path needs no condition and pays for a comparison.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config is where traces go and how many there are.
type Config struct {
	Endpoint    string        `koanf:"endpoint" desc:"collector that takes traces by OTLP/HTTP, http(s)://host:port; /v1/traces is added; empty: $OTEL_EXPORTER_OTLP_ENDPOINT, and without that no traces"`
	Headers     string        `koanf:"headers" desc:"headers of each export, name=value,name=value" secret:"true"`
	SampleRatio float64       `koanf:"sample_ratio" desc:"share of the requests without a traceparent of their own that are traced, 0 to 1"`
	TrustParent bool          `koanf:"trust_parent" desc:"a request whose traceparent says sampled is traced, and becomes part of that trace; false: only sample_ratio decides"`
	Timeout     time.Duration `koanf:"timeout" desc:"limit of one export"`
}

// DefaultConfig has no endpoint: nothing is traced.
func DefaultConfig() Config {
	return Config{SampleRatio: 0.01, TrustParent: true, Timeout: 10 * time.Second}
}

// Validate reports every problem.
func (c Config) Validate() error {
	var errs []error
	if c.Endpoint != "" {
		if u, err := url.Parse(c.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("endpoint: %q is not http://host:port or https://host:port", c.Endpoint))
		}
	}
	if _, err := headers(c.Headers); err != nil {
		errs = append(errs, err)
	}
	if !(c.SampleRatio >= 0 && c.SampleRatio <= 1) {
		errs = append(errs, fmt.Errorf("sample_ratio: %g is not between 0 and 1", c.SampleRatio))
	}
	if c.Timeout < 100*time.Millisecond || c.Timeout > time.Minute {
		errs = append(errs, fmt.Errorf("timeout: %s is not between 100ms and 1m", c.Timeout))
	}
	return errors.Join(errs...)
}

func headers(text string) (map[string]string, error) {
	out := map[string]string{}
	if text == "" {
		return out, nil
	}
	for i, h := range strings.Split(text, ",") {
		name, value, ok := strings.Cut(h, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, fmt.Errorf("headers: entry %d is not name=value", i+1) // its text is a secret
		}
		out[name] = strings.TrimSpace(value)
	}
	return out, nil
}

// Provider sends the spans of one process. A nil Provider sends none.
type Provider struct {
	sdk *sdk.TracerProvider
	cfg Config
}

// Open makes the provider of a process that does service's work; nil if no endpoint is configured. It does not wait for the collector: spans that cannot be
// sent are dropped, and log says so at most once a minute.
func Open(ctx context.Context, cfg Config, service string, log *slog.Logger) (*Provider, error) {
	if cfg.Endpoint == "" {
		return nil, nil
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	extra, err := headers(cfg.Headers)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	opts := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(strings.TrimRight(cfg.Endpoint, "/") + "/v1/traces"), otlptracehttp.WithTimeout(cfg.Timeout)}
	if len(extra) > 0 { // without them those of the environment count
		opts = append(opts, otlptracehttp.WithHeaders(extra))
	}
	out, err := otlptracehttp.New(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	about := resource.NewSchemaless(attribute.String("service.namespace", "millrace"), attribute.String("service.name", service))
	return &Provider{cfg: cfg, sdk: sdk.NewTracerProvider(
		sdk.WithBatcher(&exporter{SpanExporter: out, log: log}, sdk.WithExportTimeout(cfg.Timeout)),
		sdk.WithResource(about), sdk.WithSampler(sampler{sdk.ParentBased(sdk.TraceIDRatioBased(cfg.SampleRatio))}),
	)}, nil
}

// Close sends what waits, as far as ctx allows.
func (p *Provider) Close(ctx context.Context) error {
	if p == nil {
		return nil
	}
	if err := p.sdk.Shutdown(ctx); err != nil {
		return fmt.Errorf("telemetry: sending the last spans: %w", err)
	}
	return nil
}

// Tracer makes the spans of one part; nil from a nil Provider.
func (p *Provider) Tracer(part string) *Tracer {
	if p == nil {
		return nil
	}
	return &Tracer{t: p.sdk.Tracer("millrace/" + part), trust: p.cfg.TrustParent}
}

// sampler also samples what is linked to something sampled: the batch of a sink has no parent.
type sampler struct{ sdk.Sampler }

// ShouldSample implements sdktrace.Sampler.
func (s sampler) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	if len(p.Links) > 0 {
		return sdk.SamplingResult{Decision: sdk.RecordAndSample}
	}
	return s.Sampler.ShouldSample(p)
}

// exporter keeps failures to itself: the library's own handler is one for the whole process and writes plain text.
type exporter struct {
	sdk.SpanExporter
	log *slog.Logger

	mu     sync.Mutex
	warned time.Time
	lost   int // since then
}

const warnEvery = time.Minute

// ExportSpans implements sdktrace.SpanExporter.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost += len(spans)
	if time.Since(e.warned) >= warnEvery {
		e.log.WarnContext(ctx, "telemetry: spans could not be sent", "spans", e.lost, "error", err)
		e.warned, e.lost = time.Now(), 0
	}
	return nil
}

// w3c reads traceparent and tracestate.
var w3c = propagation.TraceContext{}

// Tracer makes spans.
type Tracer struct {
	t     trace.Tracer
	trust bool
}
