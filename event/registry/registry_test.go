package registry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kfakeConfigs are the topic's on a broker whose compaction is not to be trusted.
func kfakeConfigs() map[string]string {
	return map[string]string{"cleanup.policy": "delete", "retention.ms": "-1"}
}

func startKafka(t testing.TB) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatalf("starting kfake: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// instance is one running registry behind HTTP.
type instance struct {
	*Registry
	url     string
	metrics *prometheus.Registry
	stop    func() error
}

func start(t testing.TB, c *kfake.Cluster, cfg Config) *instance {
	t.Helper()
	if cfg.TopicConfigs == nil {
		cfg.TopicConfigs = kfakeConfigs()
	}
	reg := prometheus.NewRegistry()
	r, err := New(cfg, []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, reg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatalf("making the registry: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	srv := httptest.NewServer(r)
	stop := sync.OnceValue(func() error {
		srv.Close()
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("registry ended with %v", err)
		}
	})
	eventually(t, "the registry is ready", r.Ready)
	return &instance{Registry: r, url: srv.URL, metrics: reg, stop: stop}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waited 30 s for: %s", what)
		case <-tick.C:
		}
	}
}

// client is franz-go's, on connections that end with the test.
func (i *instance) client(t testing.TB) *sr.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	cl, err := sr.NewClient(sr.URLs(i.url), sr.HTTPClient(&http.Client{Transport: transport, Timeout: 20 * time.Second}))
	if err != nil {
		t.Fatalf("making a client: %v", err)
	}
	return cl
}

// do sends one request and gives status and body.
func (i *instance) do(t testing.TB, method, path, body string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, i.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatalf("making a request: %v", err)
	}
	if body != "" {
		req.Header.Set("Content-Type", contentTypes[0])
	}
	for n := 0; n+1 < len(headers); n += 2 {
		req.Header.Set(headers[n], headers[n+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: reading the answer: %v", method, path, err)
	}
	return resp.StatusCode, string(raw)
}

// mustDo is do for a request that has to succeed.
func (i *instance) mustDo(t testing.TB, method, path, body string) string {
	t.Helper()
	status, answer := i.do(t, method, path, body)
	if status != http.StatusOK {
		t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	return answer
}

// envelope is the body that carries a schema.
func envelope(t testing.TB, schema string) string {
	t.Helper()
	raw, err := marshal(map[string]string{"schema": schema})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// wantCode checks that err is the registry's answer with this error code.
func wantCode(t testing.TB, what string, err error, code int) {
	t.Helper()
	var answer *sr.ResponseError
	if !errors.As(err, &answer) || answer.ErrorCode != code {
		t.Errorf("%s: got %v, want error code %d", what, err, code)
	}
}

const (
	userV1     = `{"type":"record","name":"User","namespace":"shop","fields":[{"name":"id","type":"string"}]}`
	userV2     = `{"type":"record","name":"User","namespace":"shop","fields":[{"name":"id","type":"string"},{"name":"age","type":["null","int"],"default":null}]}`
	userV3     = `{"type":"record","name":"User","namespace":"shop","fields":[{"name":"id","type":"string"},{"name":"age","type":["null","int"],"default":null},{"name":"city","type":["null","string"],"default":null}]}`
	userBroken = `{"type":"record","name":"User","namespace":"shop","fields":[{"name":"id","type":"int"}]}`
)

func wantInMessage(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
}

// metric sums the series of a metric that have all these label values.
func (i *instance) metric(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	families, err := i.metrics.Gather()
	if err != nil {
		t.Fatalf("gathering metrics: %v", err)
	}
	sum, found := 0.0, false
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		found = true
	series:
		for _, m := range f.GetMetric() {
			for _, want := range labels {
				if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetValue() == want }) {
					continue series
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	if !found {
		t.Fatalf("there is no metric %s", name)
	}
	return sum
}
