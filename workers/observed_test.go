package workers

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"millrace/gateway"
)

// receiver is a collector: it keeps the spans that are sent to it by OTLP/HTTP.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*otlp.Span
	names map[string]bool // service.name
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{names: map[string]bool{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var body io.Reader = req.Body
		if req.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			body = z
		}
		b, err := io.ReadAll(body)
		var m collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(b, &m)
		}
		if err != nil || req.URL.Path != "/v1/traces" || req.Header.Get("X-Team") != "shop" {
			http.Error(w, "not a trace", http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rs := range m.GetResourceSpans() {
			for _, a := range rs.GetResource().GetAttributes() {
				if a.GetKey() == "service.name" {
					r.names[a.GetValue().GetStringValue()] = true
				}
			}
			for _, ss := range rs.GetScopeSpans() {
				r.spans = append(r.spans, ss.GetSpans()...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// find gives the first span that fits, nil if there is none yet.
func (r *receiver) find(fits func(*otlp.Span) bool) *otlp.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if fits(s) {
			return s
		}
	}
	return nil
}

// lines is a log that other goroutines write.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func freeAddress(t *testing.T) string {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // it is only asked for a port
	return l.Addr().String()
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not seen in time: %s", what)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(what)
		}
	}
}

const (
	secretKey     = "wk-6f1c2a9be4d0"
	secretUser    = "user-77421-greta"
	secretVisitor = "visitor-a81f0c"
	secretEmail   = "greta.hofmann@mail.example"
	secretOrder   = "order-990177"
	secretIP      = "203.0.113.77"
)

// TestOneEventCanBeFollowedAndNobodyIsNamed sends one traced event through the roles of one process and looks at what an operator gets to see of it: spans, logs,
// health and metrics.
func TestOneEventCanBeFollowedAndNobodyIsNamed(t *testing.T) {
	t.Parallel()
	brokers, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(brokers.Close)
	traces, logged, dir := newReceiver(t), &lines{}, t.TempDir()

	cfg := DefaultConfig()
	cfg.Data = dir
	cfg.Admin.Listen, cfg.Gateway.Listen, cfg.Registry.Listen = freeAddress(t), freeAddress(t), freeAddress(t)
	cfg.Gateway.ClientIPHeader = "X-Forwarded-For"
	cfg.Gateway.Sources = []gateway.Source{{Key: secretKey, Name: "web", Tenant: "default"}}
	cfg.SchemaRegistry.URL = "http://" + cfg.Registry.Listen
	cfg.Kafka.Brokers, cfg.Kafka.Compaction, cfg.Kafka.Partitions = brokers.ListenAddrs(), false, 2
	cfg.Iceberg.CatalogURI, cfg.Iceberg.Warehouse = "sqlite:///"+filepath.Join(dir, "catalog.db"), "file://"+filepath.Join(dir, "warehouse")
	cfg.Sink.Iceberg.CommitInterval = 200 * time.Millisecond
	cfg.Telemetry.Endpoint, cfg.Telemetry.Headers, cfg.Telemetry.SampleRatio = traces.URL, "X-Team=shop", 0 // only what comes with a trace
	log := slog.New(slog.NewJSONHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	roles := []string{"registry", "gateway", "stream", "sink-iceberg"}

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg, roles, log) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	eventually(t, "all roles ready", func() bool { return get(t, cfg.Admin.Listen, "/readyz") == "ready\n" })

	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	send := func(traceparent, visitor string) {
		body := fmt.Sprintf(`{"name":"purchase","visitor_id":%q,"user_id":%q,"currency":"EUR","value":"10.00","transaction_id":%q,"properties":{"email":%q}}`, visitor, secretUser, secretOrder, secretEmail)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+cfg.Gateway.Listen+"/v1/events", strings.NewReader(body+"\n{\"name\":7,\"email\":\""+secretEmail+"\"}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secretKey)
		req.Header.Set("X-Forwarded-For", secretIP)
		if traceparent != "" {
			req.Header.Set("traceparent", traceparent)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }() // read below
		if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", resp.StatusCode, text)
		}
	}
	send("", "untraced")
	send("00-"+trace+"-"+parent+"-00", "not sampled")
	send("00-"+trace+"-"+parent+"-01", secretVisitor)

	named := func(name string) func(*otlp.Span) bool {
		return func(s *otlp.Span) bool { return s.GetName() == name && hex.EncodeToString(s.GetTraceId()) == trace }
	}
	var request, process, commit *otlp.Span
	eventually(t, "the request's span", func() bool {
		request = traces.find(func(s *otlp.Span) bool { return s.GetKind() == otlp.Span_SPAN_KIND_SERVER })
		return request != nil
	})
	if got := hex.EncodeToString(request.GetTraceId()) + " " + hex.EncodeToString(request.GetParentSpanId()); got != trace+" "+parent {
		t.Errorf("the request's span is of %s, want below the client's %s %s", got, trace, parent)
	}
	eventually(t, "the record's span", func() bool {
		process = traces.find(named("hot process"))
		return process != nil
	})
	if !bytes.Equal(process.GetParentSpanId(), request.GetSpanId()) {
		t.Errorf("the topology's span is below %x, want the request's %x", process.GetParentSpanId(), request.GetSpanId())
	}
	eventually(t, "a batch of the sink that is linked to the trace", func() bool {
		commit = traces.find(func(s *otlp.Span) bool {
			return s.GetName() == "iceberg commit" && len(s.GetLinks()) > 0 && hex.EncodeToString(s.GetLinks()[0].GetTraceId()) == trace
		})
		return commit != nil
	})
	linked := commit.GetLinks()[0].GetSpanId()
	if traces.find(func(s *otlp.Span) bool { return bytes.Equal(s.GetSpanId(), linked) && s.GetName() == "hot process" }) == nil {
		t.Errorf("the batch is linked to %x, which is no span of the topology", linked)
	}
	eventually(t, "metrics of the event", func() bool {
		return strings.Contains(get(t, cfg.Admin.Listen, "/metrics"), `millrace_hot_events_total{category="purchase",outcome="accepted"} 3`)
	})
	for _, role := range roles {
		if want := fmt.Sprintf("millrace_ready{role=%q} 1", role); !strings.Contains(get(t, cfg.Admin.Listen, "/metrics"), want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if got := get(t, cfg.Admin.Listen, "/healthz"); got != "ok\n" {
		t.Errorf("/healthz gives %q", got)
	}
	stop()

	traces.mu.Lock()
	defer traces.mu.Unlock()
	servers := 0
	for _, s := range traces.spans {
		if s.GetKind() == otlp.Span_SPAN_KIND_SERVER {
			servers++
		}
		nobody(t, "span "+s.GetName(), s.String())
	}
	if servers != 1 {
		t.Errorf("%d requests were traced, want the one whose traceparent says sampled", servers)
	}
	if len(traces.names) != 1 || !traces.names["millrace-"+strings.Join(roles, "-")] {
		t.Errorf("services are %v", traces.names)
	}
	logsAreJSON(t, logged.String(), roles)
	nobody(t, "the log", logged.String())
}

// nobody fails if text names a person, an order or a secret.
func nobody(t *testing.T, where, text string) {
	t.Helper()
	for _, secret := range []string{secretKey, secretUser, secretVisitor, secretEmail, secretOrder, secretIP} {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("%s has %q: …%s…", where, secret, text[max(0, i-80):min(len(text), i+80)])
		}
	}
}

// logsAreJSON holds every line to the keys that log stores index.
func logsAreJSON(t *testing.T, text string, roles []string) {
	t.Helper()
	seen := map[string]bool{}
	for in := bufio.NewScanner(strings.NewReader(text)); in.Scan(); {
		var m map[string]any
		if err := json.Unmarshal(in.Bytes(), &m); err != nil {
			t.Fatalf("the line %q is no JSON: %v", in.Text(), err)
		}
		for _, key := range []string{"time", "level", "msg"} {
			if _, ok := m[key].(string); !ok {
				t.Errorf("the line %q has no %s", in.Text(), key)
			}
		}
		if role, ok := m["role"].(string); ok {
			seen[role] = true
		} else {
			t.Errorf("the line %q does not say whose it is", in.Text())
		}
		if _, ok := m["err"]; ok {
			t.Errorf("the line %q has the key err, errors are under error", in.Text())
		}
	}
	for _, r := range roles {
		if !seen[r] {
			t.Errorf("role %s logged nothing", r)
		}
	}
}

func get(t *testing.T, addr, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "" // not up yet
	}
	defer func() { _ = resp.Body.Close() }() // read below
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return string(b)
}
