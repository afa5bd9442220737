package model

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"millrace/internal/fault"
)

// The protocols that model servers are asked with.
const (
	TFServing = "tfserving" // TensorFlow Serving's REST: POST /v1/models/M:predict, instances → predictions
	KServeV1  = "kserve-v1" // KServe's V1: the same form
	KServeV2  = "kserve-v2" // KServe's V2, the Open Inference Protocol: POST /v2/models/M/infer (KServe, MLServer, Triton)
)

// ServerConfig is how a model server is asked. See DefaultServerConfig.
type ServerConfig struct {
	URL           string        `koanf:"url" desc:"address of the model server, such as http://models:8501"`
	Protocol      string        `koanf:"protocol" desc:"tfserving, kserve-v1 or kserve-v2"`
	Model         string        `koanf:"model" desc:"name of the model on the server"`
	Version       string        `koanf:"version" desc:"version of the model; empty: the server's default"`
	Signature     string        `koanf:"signature" desc:"signature_name of TensorFlow Serving; empty: its default"`
	Input         string        `koanf:"input" desc:"name of the input tensor of kserve-v2; of the feature vector in an instance of tfserving, empty: an instance is the vector"`
	Output        string        `koanf:"output" desc:"name of the output that holds the score; empty: the first, or the only one"`
	Class         int           `koanf:"class" desc:"index of the score where an answer is a list; -1: the last"`
	Missing       string        `koanf:"missing" desc:"how a feature that is not known is written: null, NaN or a number; empty: NaN for tfserving, else null"`
	Timeout       time.Duration `koanf:"timeout" desc:"time until the fallback score is taken"`
	MaxConcurrent int           `koanf:"max_concurrent" desc:"requests at the same time; more take the fallback score at once"`
	MaxBytes      int64         `koanf:"max_bytes" desc:"bytes of an answer at most"`
	Failures      uint32        `koanf:"failures" desc:"failures in a row after which the server is left alone"`
	OpenFor       time.Duration `koanf:"open_for" desc:"how long it is left alone before one request tries it"`
	Fallback      float64       `koanf:"fallback" desc:"score where the server gives none"`
	BatchRows     int           `koanf:"batch_rows" desc:"rows of one request; 1: each score is a request of its own"`
	BatchWait     time.Duration `koanf:"batch_wait" desc:"how long a request waits for more rows"`
}

// DefaultServerConfig suits a server in the same rack.
func DefaultServerConfig() ServerConfig {
	return ServerConfig{
		Protocol: TFServing, Class: -1, Timeout: 50 * time.Millisecond, MaxConcurrent: 16, MaxBytes: 1 << 20, Failures: 5, OpenFor: 5 * time.Second, BatchRows: 1, BatchWait: time.Millisecond,
	}
}

// Validate reports every problem.
func (c ServerConfig) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if u, err := url.Parse(c.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		bad("url: %q is no http or https address", c.URL)
	}
	if !slices.Contains([]string{TFServing, KServeV1, KServeV2}, c.Protocol) {
		bad("protocol: %q is not one of %s, %s, %s", c.Protocol, TFServing, KServeV1, KServeV2)
	}
	if c.Model == "" || strings.ContainsAny(c.Model, "/?#%:") {
		bad("model: %q is no name of a model", c.Model)
	}
	if strings.ContainsAny(c.Version, "/?#%:") {
		bad("version: %q is no version of a model", c.Version)
	}
	if c.Class < -1 {
		bad("class: %d is below -1", c.Class)
	}
	if c.Missing != "" && c.Missing != "null" && c.Missing != "NaN" {
		if _, err := strconv.ParseFloat(c.Missing, 64); err != nil {
			bad("missing: %q is not null, NaN or a number", c.Missing)
		}
	}
	for _, d := range []struct {
		name      string
		v         time.Duration
		low, high time.Duration
	}{{"timeout", c.Timeout, time.Millisecond, time.Minute}, {"open_for", c.OpenFor, 10 * time.Millisecond, time.Hour}, {"batch_wait", c.BatchWait, 0, time.Second}} {
		if d.v < d.low || d.v > d.high {
			bad("%s: %s is not between %s and %s", d.name, d.v, d.low, d.high)
		}
	}
	for _, n := range []struct {
		name         string
		v, low, high int64
	}{{"max_concurrent", int64(c.MaxConcurrent), 1, 4096}, {"max_bytes", c.MaxBytes, 256, 64 << 20}, {"failures", int64(c.Failures), 1, 1000}, {"batch_rows", int64(c.BatchRows), 1, 4096}} {
		if n.v < n.low || n.v > n.high {
			bad("%s: %d is not between %d and %d", n.name, n.v, n.low, n.high)
		}
	}
	if c.Fallback-c.Fallback != 0 {
		bad("fallback: %v is no finite number", c.Fallback)
	}
	return errors.Join(errs...)
}

// Why a score is the fallback. They are values of the label outcome, and a promise.
const (
	ReasonTimeout = "timeout" // no answer in time
	ReasonBusy    = "busy"    // as many requests as may are under way
	ReasonOpen    = "open"    // the breaker leaves the server alone
	ReasonAway    = "away"    // no connection
	ReasonStatus  = "status"  // an answer that is an error
	ReasonAnswer  = "answer"  // an answer that holds no score: other JSON, another number of rows, no finite number, too many bytes
	ReasonRequest = "request" // the server, or this client, does not take the features
)

// Answer is a score, or the fallback and why it is.
type Answer struct {
	Score  float64
	Reason string // "" if the server gave the score
	Err    error  // what happened, for a log; carries MR-MOD-005
}

// Server asks a model server. A score never waits longer than the configured time and never fails: what the server does not give is the fallback with its reason.
// It is safe for concurrent use.
type Server struct {
	cfg     ServerConfig
	wire    wire
	client  *http.Client
	places  chan struct{}
	breaker *gobreaker.CircuitBreaker[[]float64]
	batches batches

	requests *prometheus.CounterVec
	seconds  prometheus.Histogram
	rows     prometheus.Counter
}

// NewServer makes the client of a server. transport may be nil.
func NewServer(cfg ServerConfig, transport http.RoundTripper, reg prometheus.Registerer) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fault.New("MR-MOD-006", err)
	}
	if transport == nil {
		transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConns: cfg.MaxConcurrent, MaxIdleConnsPerHost: cfg.MaxConcurrent, MaxConnsPerHost: cfg.MaxConcurrent, IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: 32 << 10,
		}
	}
	labels := prometheus.Labels{"model": cfg.Model}
	s := &Server{
		cfg: cfg, wire: newWire(cfg), places: make(chan struct{}, cfg.MaxConcurrent),
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_model_server_requests_total", Help: "Requests to the model server by outcome: ok, or why the fallback score was taken.", ConstLabels: labels,
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "millrace_model_server_seconds", Help: "Time of a request to the model server.", ConstLabels: labels, Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		rows:    prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_model_server_rows_total", Help: "Rows that the model server was asked for.", ConstLabels: labels}),
	}
	s.breaker = gobreaker.NewCircuitBreaker[[]float64](gobreaker.Settings{
		Name: cfg.Model, MaxRequests: 1, Timeout: cfg.OpenFor,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= cfg.Failures },
		// Features that the server does not take say nothing about the server.
		IsSuccessful: func(err error) bool { return err == nil || reasonOf(err) == ReasonRequest },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
	})
	reg.MustRegister(s.requests, s.seconds, s.rows)
	return s, nil
}

// Score asks for one row. With batching it may share a request with others.
func (s *Server) Score(ctx context.Context, features []float64) Answer {
	if s.cfg.BatchRows > 1 {
		return s.batched(ctx, features)
	}
	scores, err := s.Scores(ctx, [][]float64{features})
	if err != nil {
		return s.fallback(err)
	}
	return Answer{Score: scores[0]}
}

func (s *Server) fallback(err error) Answer {
	return Answer{Score: s.cfg.Fallback, Reason: reasonOf(err), Err: err}
}

// Scores asks for several rows at once. There is no fallback: an error says why, and carries MR-MOD-005.
func (s *Server) Scores(ctx context.Context, rows [][]float64) ([]float64, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	scores, err := s.guarded(ctx, rows)
	if err == nil {
		s.requests.WithLabelValues("ok").Inc()
		return scores, nil
	}
	reason := reasonOf(err)
	s.requests.WithLabelValues(reason).Inc()
	return nil, fault.Newf("MR-MOD-005", "model %s at %s (%s): %w", s.cfg.Model, s.wire.host, reason, err)
}

func (s *Server) guarded(ctx context.Context, rows [][]float64) ([]float64, error) {
	body, err := s.wire.request(rows)
	if err != nil {
		return nil, &reasoned{ReasonRequest, err}
	}
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	default:
		return nil, &reasoned{ReasonBusy, fmt.Errorf("%d requests are under way", s.cfg.MaxConcurrent)}
	}
	return s.breaker.Execute(func() ([]float64, error) {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		started := time.Now()
		defer func() { s.seconds.Observe(time.Since(started).Seconds()) }()
		s.rows.Add(float64(len(rows)))
		return s.ask(ctx, body, len(rows))
	})
}

// reasoned is an error with its reason.
type reasoned struct {
	reason string
	err    error
}

func (e *reasoned) Error() string { return e.err.Error() }
func (e *reasoned) Unwrap() error { return e.err }

func reasonOf(err error) string {
	var r *reasoned
	switch {
	case err == nil:
		return ""
	case errors.As(err, &r):
		return r.reason
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		return ReasonOpen
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return ReasonTimeout
	}
	return ReasonAway
}
