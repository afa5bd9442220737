package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"millrace/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink is a collector whose answer can be chosen.
type sink struct {
	*httptest.Server
	mu    sync.Mutex
	code  int
	calls int
	spans []*otlp.Span
}

func newSink(t *testing.T, code int) *sink {
	s := &sink{code: code}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		var m collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(b, &m)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls++
		if err != nil || s.code != http.StatusOK {
			w.WriteHeader(s.code)
			return
		}
		for _, rs := range m.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				s.spans = append(s.spans, ss.GetSpans()...)
			}
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func open(t *testing.T, cfg Config, log *slog.Logger) *Provider {
	t.Helper()
	p, err := Open(t.Context(), cfg, "test", log)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func config(endpoint string, ratio float64) Config {
	c := DefaultConfig()
	c.Endpoint, c.SampleRatio = endpoint, ratio
	return c
}

func request(t *testing.T, traceparent string) *http.Request {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://gateway/v1/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if traceparent != "" {
		r.Header.Set("traceparent", traceparent)
	}
	return r
}

func TestWithoutAnEndpointNothingIsMadeOrAllocated(t *testing.T) {
	p, err := Open(t.Context(), DefaultConfig(), "test", nil)
	if err != nil || p != nil {
		t.Fatalf("%v, %v", p, err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	tr := p.Tracer("gateway")
	r := request(t, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	rec := &kgo.Record{Headers: []kgo.RecordHeader{{Key: "tp", Value: bytes.Repeat([]byte{1}, HeaderSize)}}}
	var l Links
	if n := testing.AllocsPerRun(100, func() {
		s := tr.Request(r, "native")
		if s.Header() != nil {
			t.Fatal("there is a header")
		}
		s.EndRequest(200, 1, 0)
		x := tr.Record(rec, "process")
		if len(x.Headers(rec.Headers)) != 1 {
			t.Fatal("the headers are others")
		}
		x.Set()
		x.End("")
		tr.Add(&l, rec)
		tr.Batch(&l, "insert").End("")
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

func TestWhoIsTraced(t *testing.T) {
	t.Parallel()
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, c := range []struct {
		name, traceparent string
		ratio             float64
		trust             bool
		traced, theirs    bool
	}{
		{"nobody at ratio 0", "", 0, true, false, false},
		{"everybody at ratio 1", "", 1, true, true, false},
		{"a request that is sampled already", "00-" + id + "-00f067aa0ba902b7-01", 0, true, true, true},
		{"not one that its caller does not sample", "00-" + id + "-00f067aa0ba902b7-00", 1, true, false, false},
		{"not one whose caller is not trusted", "00-" + id + "-00f067aa0ba902b7-01", 0, false, false, false},
		{"an untrusted one by ratio, in a trace of its own", "00-" + id + "-00f067aa0ba902b7-01", 1, false, true, false},
		{"one with a damaged traceparent by ratio", "00-" + id + "-zz-01", 1, true, true, false},
	} {
		s := newSink(t, http.StatusOK)
		cfg := config(s.URL, c.ratio)
		cfg.TrustParent = c.trust
		p := open(t, cfg, slog.New(slog.DiscardHandler))
		span := p.Tracer("gateway").Request(request(t, c.traceparent), "native")
		if (span != nil) != c.traced {
			t.Errorf("%s: traced is %v", c.name, span != nil)
		}
		if h := span.Header(); c.traced && (len(h) != HeaderSize || h[24] != 1 || (fmt.Sprintf("%x", h[:16]) == id) != c.theirs) {
			t.Errorf("%s: header %x", c.name, h)
		}
		span.EndRequest(http.StatusOK, 1, 0)
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if got := len(s.spans); (got == 1) != c.traced || got > 1 {
			t.Errorf("%s: %d spans arrived", c.name, got)
		}
	}
}

func TestATraceGoesOnInARecordAndEndsInABatch(t *testing.T) {
	t.Parallel()
	s := newSink(t, http.StatusOK)
	p := open(t, config(s.URL, 0), slog.New(slog.DiscardHandler))
	tr := p.Tracer("hot")
	valid := append(bytes.Repeat([]byte{7}, 24), 1)
	for name, value := range map[string][]byte{
		"too short": valid[:24], "too long": append(bytes.Clone(valid), 0), "not sampled": append(bytes.Repeat([]byte{7}, 24), 0),
		"without a trace id": append(append(make([]byte, 16), valid[16:24]...), 1), "empty": nil,
	} {
		if tr.Record(&kgo.Record{Headers: []kgo.RecordHeader{{Key: "tp", Value: value}}}, "process") != nil {
			t.Errorf("a header that is %s begins a span", name)
		}
	}
	in := &kgo.Record{Topic: "raw.page", Headers: []kgo.RecordHeader{{Key: "tn", Value: []byte("default")}, {Key: "tp", Value: valid}}}
	span := tr.Record(in, "process")
	out := &kgo.Record{Headers: span.Headers(in.Headers)}
	if !bytes.Equal(in.Headers[1].Value, valid) {
		t.Error("the record's own header has changed")
	}
	if got := out.Headers[1].Value; !bytes.Equal(got[:16], valid[:16]) || bytes.Equal(got[16:24], valid[16:24]) || string(out.Headers[0].Value) != "default" {
		t.Errorf("the output's headers are %v", out.Headers)
	}
	span.End("")
	if tr.BatchOf([]*kgo.Record{{}}, "insert") != nil {
		t.Error("a batch without sampled records is traced at ratio 0")
	}
	var many []*kgo.Record
	for range 3 * maxLinks {
		many = append(many, out)
	}
	batch := tr.BatchOf(many, "insert")
	batch.End(Failure(fault.New("MR-CH-005", errors.New("greta@mail.example is not the topic's id"))))
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.spans) != 2 {
		t.Fatalf("%d spans", len(s.spans))
	}
	process, insert := s.spans[0], s.spans[1]
	if !bytes.Equal(process.GetParentSpanId(), valid[16:24]) || len(insert.GetParentSpanId()) != 0 || len(insert.GetLinks()) != maxLinks || !bytes.Equal(insert.GetLinks()[0].GetSpanId(), process.GetSpanId()) {
		t.Errorf("%v\n%v", process, insert)
	}
	if got := insert.GetStatus().GetMessage(); got != "MR-CH-005" {
		t.Errorf("the batch failed with %q", got)
	}
}

func TestACollectorThatFailsIsNamedOnceAndHoldsNothingUp(t *testing.T) {
	t.Parallel()
	s := newSink(t, http.StatusBadRequest)
	var log bytes.Buffer
	p := open(t, config(s.URL, 1), slog.New(slog.NewJSONHandler(&log, nil)))
	for range 3 {
		p.Tracer("gateway").Request(request(t, ""), "native").EndRequest(http.StatusOK, 1, 0)
		if err := p.sdk.ForceFlush(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if s.calls != 3 || strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), `"msg":"telemetry: spans could not be sent","spans":1`) {
		t.Errorf("%d calls, log %s", s.calls, log.String())
	}
	gone := open(t, config("http://127.0.0.1:1", 1), slog.New(slog.DiscardHandler))
	gone.Tracer("gateway").Request(request(t, ""), "native").EndRequest(http.StatusOK, 1, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_ = gone.Close(ctx) // that it gives up is what counts
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("closing took %s", took)
	}
}

func TestEveryProblemOfAConfigIsReported(t *testing.T) {
	err := Config{Endpoint: "collector:4318", Headers: "authorization", SampleRatio: 2, Timeout: time.Hour}.Validate()
	for _, want := range []string{`endpoint: "collector:4318" is not`, "headers: entry 1 is not name=value", "sample_ratio: 2 is not between 0 and 1", "timeout: 1h0m0s is not between"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "authorization") {
		t.Errorf("%v shows a header", err)
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	if err := config("https://collector.example:4318/otlp", 0.5).Validate(); err != nil {
		t.Error(err)
	}
	if _, err := Open(t.Context(), config("ftp://x", 0), "test", nil); err == nil {
		t.Error("a provider was made for ftp")
	}
}

func TestAFailureIsItsIdAndNeverItsText(t *testing.T) {
	if got := Failure(errors.New("user 7 is unknown")); got != "failed" {
		t.Errorf("%q", got)
	}
	if got := Failure(nil); got != "" {
		t.Errorf("%q", got)
	}
	var s *Span
	s.Set()
	s.End("x")
	if trace.SpanContextFromContext(t.Context()).IsValid() {
		t.Error("a span came from nowhere")
	}
}
