package sink

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/fault"
)

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// receiver takes alerts as told and keeps what it took.
type receiver struct {
	*httptest.Server
	t     *testing.T
	slack bool
	how   atomic.Pointer[func(n int64) int] // status of the n-th request; nil: 200
	asked atomic.Int64

	mu     sync.Mutex
	taken  []string          // webhook-ids in order
	keys   map[string]string // webhook-id → key of the alert
	bodies map[string]string
}

func newReceiver(t *testing.T, how func(n int64) int) *receiver {
	r := &receiver{t: t, keys: map[string]string{}, bodies: map[string]string{}}
	r.answer(how)
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answer(how func(n int64) int) { r.how.Store(&how) }

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // it was stopped
	}
	n := r.asked.Add(1)
	if how := *r.how.Load(); how != nil {
		if status := how(n); status != http.StatusOK {
			if status == http.StatusFound {
				w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
			}
			w.WriteHeader(status)
			return
		}
	}
	id := req.Header.Get("Webhook-Id")
	var m struct {
		Type string
		Data struct{ Key string }
	}
	if err := json.Unmarshal(body, &m); err != nil {
		r.t.Error(err)
	}
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(testSecret, "whsec_")) // a constant
	var at int64
	_, _ = fmt.Sscan(req.Header.Get("Webhook-Timestamp"), &at) // 0 fails below
	if got := req.Header.Get("Webhook-Signature"); !r.slack && (got != sign([][]byte{key}, id, time.Unix(at, 0), body) || time.Since(time.Unix(at, 0)).Abs() > time.Hour) {
		r.t.Errorf("signature %s at %d", got, at)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken = append(r.taken, id)
	r.keys[id], r.bodies[id] = m.Data.Key, string(body)
}

func (r *receiver) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.taken)
}

// webhookBench is a broker, a Redis, and senders that a test starts and stops.
type webhookBench struct {
	t      *testing.T
	codecs *schema.Codecs
	opts   []kgo.Opt
	cl     *kgo.Client
	rdb    *redis.Client
	server *miniredis.Miniredis
	log    bytes.Buffer
}

func newWebhookBench(t *testing.T) *webhookBench {
	t.Setenv("ALERT_TEST_SECRET", testSecret)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, alertTopics()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	b := &webhookBench{t: t, opts: []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, server: miniredis.NewMiniRedis()}
	if err := b.server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.server.Close)
	b.rdb = redis.NewClient(&redis.Options{Addr: b.server.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = b.rdb.Close() }) // the server goes anyway
	if b.codecs, err = schema.NewCodecs(); err != nil {
		t.Fatal(err)
	}
	b.codecs.AssignLocal()
	if b.cl, err = kgo.NewClient(b.opts...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.cl.Close)
	return b
}

func hook(name, at string) Destination {
	return Destination{Name: name, URL: at, Secret: "env:ALERT_TEST_SECRET", Insecure: true}
}

// run starts senders, waits until they read, and gives what stops them.
func (b *webhookBench) run(change func(*AlertsConfig), ds ...Destination) (w *Webhooks, reg *prometheus.Registry, stop func()) {
	b.t.Helper()
	cfg := DefaultAlertsConfig()
	cfg.RetryMin, cfg.RetryMax, cfg.Timeout, cfg.Destinations = 5*time.Millisecond, 50*time.Millisecond, 5*time.Second, ds
	if change != nil {
		change(&cfg)
	}
	reg = prometheus.NewRegistry()
	var mu sync.Mutex
	log := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return b.log.Write(p) }), nil))
	w, err := NewWebhooks(cfg, b.rdb, b.codecs, b.opts, reg, log)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run ended with %v", err)
		}
	})
	b.t.Cleanup(stop)
	b.t.Cleanup(func() {
		if b.t.Failed() {
			mu.Lock()
			defer mu.Unlock()
			b.t.Logf("log:\n%.4000s", b.log.String())
		}
	})
	eventually(b.t, 30*time.Second, w.Ready)
	return w, reg, stop
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (b *webhookBench) send(topic string, as ...event.Alert) {
	b.t.Helper()
	for _, a := range as {
		a.Confirmed = topic == event.TopicAlerts
		if err := b.cl.ProduceSync(b.t.Context(), alertRecord(b.t, b.codecs, topic, a)).FirstErr(); err != nil {
			b.t.Fatal(err)
		}
	}
}

func alertsOf(from, to int) (out []event.Alert) {
	for i := from; i < to; i++ {
		out = append(out, testAlert(i))
	}
	return out
}

// wait waits until a receiver has taken exactly these alerts, each once.
func (b *webhookBench) wait(r *receiver, want ...event.Alert) {
	b.t.Helper()
	ids := map[string]int{}
	for i := range want {
		want[i].Confirmed = true
		ids[messageID(&want[i])] = 1
	}
	eventually(b.t, 40*time.Second, func() error {
		got := map[string]int{}
		for _, id := range r.got() {
			got[id]++
		}
		if len(got) < len(ids) {
			return fmt.Errorf("%d of %d alerts", len(got), len(ids))
		}
		if diff := cmp.Diff(ids, got); diff != "" {
			b.t.Fatal(diff)
		}
		return nil
	})
}

// value reads a metric of a destination.
func value(t *testing.T, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() {
				have = append(have, l.GetName()+"="+l.GetValue())
			}
			if f.GetName() == name && !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(have, l) }) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s %v", name, labels)
	return 0
}

func TestADestinationThatDoesNotTakeAlertsIsWaitedForAloneAndMissesNothing(t *testing.T) {
	b := newWebhookBench(t)
	good := newReceiver(t, nil)
	failing := newReceiver(t, func(int64) int { return 500 })
	flapping := newReceiver(t, func(n int64) int { return []int{503, 200, 429, 500, 200, 404}[n%6] })
	hold := make(chan struct{})
	slow := newReceiver(t, func(int64) int { <-hold; return 200 })
	var once sync.Once
	release := func() { once.Do(func() { close(hold) }) }
	t.Cleanup(release)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // taken, and given back: nobody listens there
	if err != nil {
		t.Fatal(err)
	}
	down := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, reg, _ := b.run(func(c *AlertsConfig) { c.Timeout = 300 * time.Millisecond },
		hook("good", good.URL), hook("failing", failing.URL), hook("flapping", flapping.URL), hook("slow", slow.URL), hook("down", "http://"+down))
	all := alertsOf(0, 60)
	b.send(event.TopicAlerts, all...)
	b.wait(good, all...)
	b.wait(flapping, all...)
	for _, name := range []string{"failing", "slow", "down"} {
		eventually(t, 20*time.Second, func() error {
			if value(t, reg, "millrace_alerts_destination_paused", "destination="+name) != 1 || value(t, reg, "millrace_alerts_oldest_undelivered_seconds", "destination="+name) <= 0 {
				return fmt.Errorf("%s is not paused", name)
			}
			return nil
		})
		if n := value(t, reg, "millrace_alerts_delivered_total", "destination="+name, "outcome=sent"); n != 0 {
			t.Errorf("%s has taken %v", name, n)
		}
	}
	if len(failing.got())+len(slow.got()) != 0 {
		t.Error("a destination has taken what it refused")
	}
	failing.answer(nil)
	release()
	back := newReceiver(t, nil)
	relay, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", down)
	if err != nil {
		t.Fatalf("the address of the one that is down was taken: %v", err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(back.serve), ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(relay) }() // ends with Close
	t.Cleanup(func() { _ = srv.Close() })
	b.wait(failing, all...)
	b.wait(back, all...)
	// What a slow one took after our patience ended it took twice, under the same webhook-id.
	eventually(t, 40*time.Second, func() error {
		ids := map[string]bool{}
		for _, id := range slow.got() {
			ids[id] = true
		}
		if len(ids) != len(all) {
			return fmt.Errorf("%d of %d alerts", len(ids), len(all))
		}
		return nil
	})
	eventually(t, 20*time.Second, func() error {
		for _, name := range []string{"good", "failing", "flapping", "slow", "down"} {
			if n := value(t, reg, "millrace_alerts_delivered_total", "destination="+name, "outcome=sent"); n != float64(len(all)) {
				return fmt.Errorf("%s: %v sent", name, n)
			}
			if value(t, reg, "millrace_alerts_destination_paused", "destination="+name) != 0 || value(t, reg, "millrace_alerts_oldest_undelivered_seconds", "destination="+name) != 0 {
				return fmt.Errorf("%s is still paused", name)
			}
		}
		return nil
	})
	if strings.Contains(b.log.String(), testSecret) || strings.Contains(b.log.String(), "MfKQ9r8") {
		t.Error("the log shows the secret")
	}
}

func TestWhatWasSentIsNotSentAgainAfterARestartOrALostOffset(t *testing.T) {
	b := newWebhookBench(t)
	r := newReceiver(t, nil)
	_, _, stop := b.run(nil, hook("one", r.URL))
	all := alertsOf(0, 20)
	b.send(event.TopicAlerts, all[:10]...)
	b.wait(r, all[:10]...)
	stop()
	b.send(event.TopicAlerts, all[10:]...) // while nobody is there
	_, _, stop = b.run(nil, hook("one", r.URL))
	b.wait(r, all...)
	stop()
	// A group that knows nothing reads all again: as a process does that died before it could tell the group.
	b.send(event.TopicAlerts, all...)
	_, reg, _ := b.run(nil, hook("one", r.URL))
	eventually(t, 20*time.Second, func() error {
		if n := value(t, reg, "millrace_alerts_delivered_total", "destination=one", "outcome=duplicate"); n != 20 {
			return fmt.Errorf("%v duplicates", n)
		}
		return nil
	})
	b.wait(r, all...)
	// Without Redis alerts are sent all the same.
	b.server.Close()
	more := testAlert(50)
	b.send(event.TopicAlerts, more)
	b.wait(r, append(all, more)...)
	if n := value(t, reg, "millrace_alerts_unnoted_total", "destination=one"); n < 1 {
		t.Error("nobody counted that Redis is away")
	}
}

func TestAnAlertThatIsRefusedForGoodHoldsUpNobody(t *testing.T) {
	b := newWebhookBench(t)
	var bad atomic.Int64
	r := newReceiver(t, func(n int64) int {
		if n%5 == 1 {
			bad.Add(1)
			return 422
		}
		return 200
	})
	_, reg, _ := b.run(nil, hook("one", r.URL))
	all := alertsOf(0, 20)
	b.send(event.TopicAlerts, all...)
	if err := b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: event.TopicAlerts, Value: []byte("poison")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() error {
		sent, refused := value(t, reg, "millrace_alerts_delivered_total", "outcome=sent"), value(t, reg, "millrace_alerts_delivered_total", "outcome=refused")
		if sent+refused != 20 || refused != float64(bad.Load()) || refused != 4 || value(t, reg, "millrace_alerts_delivered_total", "outcome=unreadable") != 1 {
			return fmt.Errorf("%v sent, %v refused", sent, refused)
		}
		return nil
	})
}

func TestAnAlertThatNobodyTakesIsGivenUpInTime(t *testing.T) {
	b := newWebhookBench(t)
	r := newReceiver(t, func(int64) int { return 500 })
	_, reg, _ := b.run(func(c *AlertsConfig) { c.MaxAge = 100 * time.Millisecond }, hook("one", r.URL))
	b.send(event.TopicAlerts, alertsOf(0, 3)...)
	eventually(t, 30*time.Second, func() error {
		if n := value(t, reg, "millrace_alerts_delivered_total", "outcome=expired"); n != 3 {
			return fmt.Errorf("%v given up", n)
		}
		return nil
	})
}

func TestADestinationGetsWhatItAskedFor(t *testing.T) {
	b := newWebhookBench(t)
	names := []string{"all", "critical", "rule", "tenant", "kind", "early"}
	rs := map[string]*receiver{}
	ds := []Destination{}
	b.send(event.TopicAlerts, testAlert(90)) // before any of them is configured
	for _, n := range names {
		rs[n] = newReceiver(t, nil)
		d := hook(n, rs[n].URL)
		switch n {
		case "critical":
			d.MinSeverity = event.SeverityCritical
		case "rule":
			d.Rules = []string{"velocity"}
		case "tenant":
			d.Tenants = []string{"shop2"}
		case "kind":
			d.Kinds = []string{event.AlertStock}
		case "early":
			d.Provisional = true
		}
		ds = append(ds, d)
	}
	_, reg, _ := b.run(nil, ds...)
	a := alertsOf(0, 5)
	a[1].Severity = event.SeverityWarn
	a[2].Rule = "card_testing"
	a[3].Tenant = "shop2"
	a[4].Kind, a[4].Severity = event.AlertStock, event.SeverityInfo
	b.send(event.TopicAlertsFast, a[0], a[1])
	eventually(t, 20*time.Second, func() error {
		if n := len(rs["early"].got()); n != 2 {
			return fmt.Errorf("%d on arrival", n)
		}
		return nil
	})
	b.send(event.TopicAlerts, a...)
	b.send(event.TopicAlertsFast, a[2]) // late: it is confirmed already
	b.wait(rs["all"], a...)
	b.wait(rs["critical"], a[0], a[2], a[3])
	b.wait(rs["rule"], a[0], a[1], a[3], a[4])
	b.wait(rs["tenant"], a[3])
	b.wait(rs["kind"], a[4])
	eventually(t, 20*time.Second, func() error {
		if n := value(t, reg, "millrace_alerts_delivered_total", "destination=early", "outcome=sent") + value(t, reg, "millrace_alerts_delivered_total", "destination=early", "outcome=duplicate"); n != 8 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	seen := map[string]int{}
	for _, id := range rs["early"].got() {
		if seen[id]++; seen[id] > 1 {
			t.Errorf("%s twice", id)
		}
	}
	for i := range a {
		a[i].Confirmed = true
		if seen[messageID(&a[i])] != 1 {
			t.Errorf("alert %d is not confirmed: %v", i, seen)
		}
	}
	var body struct {
		Type, Timestamp string
		Data            map[string]any
	}
	if err := json.Unmarshal([]byte(rs["all"].bodies[messageID(&a[0])]), &body); err != nil || body.Type != "alert.confirmed" || body.Data["alert_id"] != a[0].AlertID || body.Data["occurred_at"] != "2026-03-01T00:00:00.000000Z" || !cmp.Equal(body.Data["details"], map[string]any{"n": 3.0}) {
		t.Errorf("%+v, %v", body, err)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	b := newWebhookBench(t)
	r := newReceiver(t, func(n int64) int {
		if n < 4 {
			return http.StatusFound
		}
		return 200
	})
	b.run(nil, hook("one", r.URL))
	a := testAlert(1)
	b.send(event.TopicAlerts, a)
	b.wait(r, a)
	if n := r.asked.Load(); n != 4 {
		t.Errorf("%d requests", n)
	}
}

func TestSignaturesAreThoseOfStandardWebhooks(t *testing.T) {
	keys, err := signingKeys(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	// From github.com/standard-webhooks/standard-webhooks, libraries/go/webhook_test.go (TestWebhookSign), commit 449485c; its other libraries test the same values.
	got := sign(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	two, err := signingKeys(testSecret + "\n" + strings.Repeat("k", 32))
	if err != nil || len(two) != 2 || len(strings.Fields(sign(two, "a", time.Unix(1, 0), nil))) != 2 {
		t.Errorf("%d keys, %v", len(two), err)
	}
	for _, bad := range []string{"short", "whsec_!!!!", "whsec_" + base64.StdEncoding.EncodeToString([]byte("short")), "", strings.Repeat(strings.Repeat("k", 32)+" ", 5)} {
		if _, err := signingKeys(bad); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestAMessageForSlackMentionsNobody(t *testing.T) {
	a := testAlert(1)
	a.Key, a.Reasons, a.Confirmed = "<!channel>", []string{"<http://evil|click> & more", strings.Repeat("ü", 5000)}, true
	s := sender{kind: KindSlack}
	text, err := s.body(&a)
	if err != nil {
		t.Fatal(err)
	}
	var m slackBody
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	all := m.Text
	for _, block := range m.Blocks {
		if block.Text != nil {
			all += block.Text.Text
			if n := len([]rune(block.Text.Text)); n > 3000 {
				t.Errorf("%d characters", n)
			}
		}
	}
	if strings.Contains(all, "<") || !strings.Contains(all, "&lt;!channel&gt;") || !strings.Contains(all, "critical: velocity on visitor") || len(m.Blocks) != 2 || !strings.Contains(string(text), "confirmed · score 0.501") {
		t.Errorf("%s", text)
	}
}

func TestASlackDestinationTakesAlerts(t *testing.T) {
	b := newWebhookBench(t)
	r := newReceiver(t, nil)
	r.slack = true
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte(r.URL+"/services/T0/B0/very-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.answer(func(n int64) int {
		if n == 1 {
			return 500
		}
		return 200
	})
	b.run(nil, Destination{Name: "chat", Kind: KindSlack, URL: "file:" + file, Insecure: true})
	a := testAlert(1)
	b.send(event.TopicAlerts, a)
	b.wait(r, a)
	if strings.Contains(b.log.String(), "very-secret") {
		t.Error("the log shows the address")
	}
}

func TestTheConfigurationOfDestinationsSaysEverythingThatIsWrong(t *testing.T) {
	cfg := DefaultAlertsConfig()
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	cfg.Group, cfg.SessionTimeout, cfg.Timeout, cfg.RetryMax, cfg.Keep, cfg.InFlight, cfg.MaxAge = "", 0, 0, 0, 0, 0, -1
	cfg.Destinations = []Destination{
		{Name: "Bad Name", URL: "ftp://host/tok-en", Kind: "pager", Secret: "hunter2-hunter2", MinSeverity: "huge"},
		{Name: "a", URL: "http://host/tok-en", Secret: "env:X"},
		{Name: "a", URL: "https://me:tok-en@host/", Secret: "env:X"},
		{Name: "b", Secret: ""},
	}
	_, err := NewWebhooks(cfg, nil, nil, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if id, _ := fault.IDOf(err); id != "MR-ALT-001" {
		t.Fatal(err)
	}
	for _, what := range []string{"group:", "session_timeout:", "timeout:", "retry_max:", "keep:", "in_flight:", "max_age:", "small letters", "no http or https", "kind:", "never the secret itself", "min_severity:", "insecure: true", "another's already", "holds a user", "url: is missing", "needs one"} {
		if !strings.Contains(err.Error(), what) {
			t.Errorf("nothing about %q in %v", what, err)
		}
	}
	for _, secret := range []string{"hunter2", "tok-en"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s is shown: %v", secret, err)
		}
	}
	cfg = DefaultAlertsConfig()
	cfg.Destinations = []Destination{{Name: "a", URL: "env:ALERT_NO_SUCH", Secret: "file:/nowhere/secret"}, {Name: "b", URL: "https://host/", Secret: "env:ALERT_NO_SUCH"}}
	if _, err := NewWebhooks(cfg, nil, nil, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "ALERT_NO_SUCH") {
		t.Error(err)
	}
}
