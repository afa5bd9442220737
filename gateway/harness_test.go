package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"millrace/event"
	"millrace/event/schema"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	webKey    = "web-key-0001"
	importKey = "import-key-0001"
	slowKey   = "slow-key-0001"
	pageKey   = "page-key-0001"
	goneKey   = "gone-key-0001"
)

func testConfig(t testing.TB) Config {
	cfg := DefaultConfig()
	cfg.Listen, cfg.DataDir = freePort(t), t.TempDir()
	cfg.Partitions = 3
	cfg.AckTimeout = 400 * time.Millisecond
	cfg.BreakerFailures, cfg.BreakerOpen = 2, 200*time.Millisecond
	cfg.DrainTimeout = 10 * time.Second
	cfg.Sources = []Source{
		{Key: webKey, Name: "web", Tenant: "default", PII: []Rule{{Key: "email", Action: "hash"}}},
		{Key: importKey, Name: "import", Tenant: "default", AllowReplay: true},
		{Key: slowKey, Name: "slow", Tenant: "default", Rate: 0.001, Burst: 2},
		{Key: pageKey, Name: "pages", Tenant: "other", Categories: []string{"page"}},
		{Key: goneKey, Name: "gone", Tenant: "default", Disabled: true},
	}
	return cfg
}

func freePort(t testing.TB) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return addr
}

// broker starts kfake with all hot topics.
func broker(t testing.TB, partitions int32, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for _, topic := range event.Topics() {
		if topic.HotInput && c.TopicInfo(topic.Name) == nil {
			if err := c.CreateTopic(topic.Name, partitions, map[string]string{"message.timestamp.type": "LogAppendTime"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c
}

func testCodecs(t testing.TB) *schema.Codecs {
	t.Helper()
	c, err := schema.NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	return c.AssignLocal()
}

// running is a gateway that runs.
type running struct {
	*Gateway
	t      testing.TB
	url    string
	reg    *prometheus.Registry
	client *http.Client
	stop   func() error
}

func start(t testing.TB, cfg Config, seeds []string) *running {
	t.Helper()
	reg := prometheus.NewRegistry()
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() && os.Getenv("GATEWAY_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	g, err := New(cfg, testCodecs(t), []kgo.Opt{kgo.SeedBrokers(seeds...)}, reg, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	r := &running{Gateway: g, t: t, url: "http://" + cfg.Listen, reg: reg, client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	r.stop = sync.OnceValue(func() error {
		transport.CloseIdleConnections()
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the gateway to be ready", func() bool {
		code, _ := r.get("/readyz")
		return code == http.StatusOK
	})
	return r
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30 s for %s", what)
		}
		<-tick.C
	}
}

func (r *running) do(method, path string, body io.Reader, header ...string) (int, http.Header, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, r.url+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer func() { _ = resp.Body.Close() }() // read to the end already
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err.Error()
	}
	return resp.StatusCode, resp.Header, string(text)
}

func (r *running) get(path string) (int, string) {
	r.t.Helper()
	code, _, text := r.do(http.MethodGet, path, nil)
	return code, text
}

// post sends a body with the web key, unless headers say otherwise.
func (r *running) post(body string, header ...string) (int, string) {
	r.t.Helper()
	code, _, text := r.do(http.MethodPost, "/v1/events", strings.NewReader(body), append([]string{"X-Write-Key", webKey}, header...)...)
	return code, text
}

// got is one record that reached Kafka.
type got struct {
	*kgo.Record
	event  event.Event  // of raw.<category>
	failed event.Failed // of raw.failed
}

func (r got) header(key string) []byte {
	for _, h := range r.Headers {
		if h.Key == key {
			return h.Value
		}
	}
	return nil
}

// consumer reads all hot topics.
type consumer struct {
	t      testing.TB
	cl     *kgo.Client
	codecs *schema.Codecs
	all    []got
}

func consume(t testing.TB, seeds []string) *consumer {
	t.Helper()
	var topics []string
	for _, one := range event.Topics() {
		if one.HotInput {
			topics = append(topics, one.Name)
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &consumer{t: t, cl: cl, codecs: testCodecs(t)}
}

func (c *consumer) poll(ctx context.Context) {
	c.t.Helper()
	fetches := c.cl.PollFetches(ctx)
	fetches.EachRecord(func(r *kgo.Record) {
		one := got{Record: r}
		if r.Topic == event.TopicRawFailed {
			if err := c.codecs.Decode(ctx, r.Topic, r.Value, &one.failed); err != nil {
				c.t.Fatalf("failed event: %v", err)
			}
		} else {
			cat, ok := event.ParseCategory(strings.TrimPrefix(r.Topic, "raw."))
			if !ok {
				c.t.Fatalf("topic %s", r.Topic)
			}
			if _, err := c.codecs.NewEventDecoder().DecodeRaw(ctx, cat, r.Value, &one.event); err != nil {
				c.t.Fatalf("event: %v", err)
			}
		}
		c.all = append(c.all, one)
	})
}

// until polls until ok holds of what was read.
func (c *consumer) until(what string, ok func([]got) bool) []got {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for !ok(c.all) {
		if ctx.Err() != nil {
			c.t.Fatalf("waited 30 s for %s, have %d records", what, len(c.all))
		}
		c.poll(ctx)
	}
	return c.all
}

func (c *consumer) records(n int) []got {
	c.t.Helper()
	return c.until(fmt.Sprint(n, " records"), func(all []got) bool { return len(all) >= n })
}

// ids are the distinct ids of the events read, with how often each came.
func (c *consumer) ids() map[string]int {
	out := map[string]int{}
	for _, r := range c.all {
		if r.Topic != event.TopicRawFailed {
			out[r.event.ID]++
		}
	}
	return out
}

func counts(t testing.TB, answer string) (accepted, failed int) {
	t.Helper()
	var a struct {
		Success          bool
		Accepted, Failed int
	}
	if err := json.Unmarshal([]byte(answer), &a); err != nil || !a.Success {
		t.Fatalf("answer %q: %v", answer, err)
	}
	return a.Accepted, a.Failed
}

// pages is a batch of page views with ids prefix-from … prefix-(to-1) in an array.
func pages(prefix string, from, to int) string {
	var b bytes.Buffer
	b.WriteByte('[')
	for i := from; i < to; i++ {
		if i > from {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"name":"page_view","event_id":"%s-%d","visitor_id":"v%d"}`, prefix, i, i%7)
	}
	b.WriteByte(']')
	return b.String()
}
