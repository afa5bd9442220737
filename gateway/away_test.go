package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/event"
	"millrace/event/schema"
)

const childEnv = "MILLRACE_GATEWAY_TEST_CHILD"

// child is the gateway as a process of its own, to be killed. Its configuration comes in the environment.
func child() {
	var in struct {
		Config Config
		Seeds  []string
	}
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &in); err != nil {
		panic(err)
	}
	codecs, err := schema.NewCodecs()
	if err != nil {
		panic(err)
	}
	g, err := New(in.Config, codecs.AssignLocal(), []kgo.Opt{kgo.SeedBrokers(in.Seeds...)}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	if err := g.Run(context.Background()); err != nil {
		panic(err)
	}
}

func ports(t testing.TB) int {
	t.Helper()
	_, port, err := net.SplitHostPort(freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// load posts batches from several clients until stopped and gives the ids that were acknowledged, in order by client.
type load struct {
	mu    sync.Mutex
	acked map[string]bool
	codes map[int]int
	sent  atomic.Int64
	stop  func()
}

func startLoad(t testing.TB, client *http.Client, url string, clients int) *load {
	l := &load{acked: map[string]bool{}, codes: map[int]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for k := range clients {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				prefix := fmt.Sprintf("k%d.%d", k, i)
				req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url+"/v1/events", strings.NewReader(pages(prefix, 0, 5)))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("X-Write-Key", webKey)
				resp, err := client.Do(req)
				if err != nil {
					l.mu.Lock()
					l.codes[0]++
					l.mu.Unlock()
					continue
				}
				_ = resp.Body.Close() // the status is all
				l.mu.Lock()
				l.codes[resp.StatusCode]++
				if resp.StatusCode == 200 {
					for n := range 5 {
						l.acked[fmt.Sprintf("%s-%d", prefix, n)] = true
					}
				}
				l.mu.Unlock()
				l.sent.Add(1)
			}
		})
	}
	l.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(l.stop)
	return l
}

// arrived waits until all acknowledged ids are in Kafka.
func (l *load) arrived(t testing.TB, in *consumer) {
	t.Helper()
	in.until("every acknowledged event", func([]got) bool {
		have := in.ids()
		for id := range l.acked {
			if have[id] == 0 {
				return false
			}
		}
		return true
	})
}

func TestTheBrokerMayGoAwayAndComeBack(t *testing.T) {
	port, dir := ports(t), t.TempDir()
	c := broker(t, 3, kfake.Ports(port), kfake.DataDir(dir))
	g := start(t, testConfig(t), c.ListenAddrs())
	l := startLoad(t, g.client, g.url, 4)
	more := func(n int64) func() bool { from := l.sent.Load(); return func() bool { return l.sent.Load() > from+n } }
	eventually(t, "requests before", more(20))
	c.Close()
	eventually(t, "the breaker to open", func() bool { return g.brokers.breaker.State() == gobreaker.StateOpen })
	eventually(t, "requests without the broker", more(200))
	if code, text := g.get("/routez"); code != http.StatusServiceUnavailable {
		t.Errorf("routez: %d %s", code, text)
	}
	if code, text := g.get("/readyz"); code != 200 {
		t.Errorf("readyz: %d %s", code, text)
	}
	if code, text := g.get("/readyz?empty=1"); code != http.StatusServiceUnavailable {
		t.Errorf("empty: %d %s", code, text)
	}
	c = broker(t, 3, kfake.Ports(port), kfake.DataDir(dir))
	eventually(t, "the spool to be drained under load", func() bool {
		code, _ := g.get("/readyz?empty=1")
		return code == 200
	})
	eventually(t, "requests after", more(100))
	l.stop()
	if l.codes[200] == 0 || len(l.codes) != 1 {
		t.Errorf("codes %v", l.codes)
	}
	in := consume(t, c.ListenAddrs())
	l.arrived(t, in)
	marked := 0
	for _, r := range in.all {
		if sp := r.header(HeaderSpool); sp != nil {
			if len(sp) != 9 || sp[0] != 0 {
				t.Fatalf("mark %v", sp)
			}
			marked++
		}
	}
	if marked == 0 {
		t.Error("no record is marked as spooled")
	}
	t.Logf("%d acknowledged, %d records, %d of them spooled", len(l.acked), len(in.all), marked)
	eventually(t, "routez", func() bool { code, _ := g.get("/routez"); return code == 200 })
}

// A client that waits for its answer sees its events in order, whatever the broker does in between.
func TestEventsOfOneVisitorStayInOrderThroughTheSpool(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	send := func(from, to int) {
		for i := from; i < to; i++ {
			if code, answer := g.post(fmt.Sprintf(`{"name":"page_view","event_id":"%06d","visitor_id":"one"}`, i)); code != 200 {
				t.Fatalf("%d %s", code, answer)
			}
		}
	}
	send(0, 5)
	fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
	send(5, 60)
	fault.Remove()
	n := 60
	for !g.spool.Status().Empty() || n < 120 { // while it drains, and after
		send(n, n+1)
		n++
		if n > 50_000 {
			t.Fatal("never drained")
		}
	}
	in := consume(t, c.ListenAddrs())
	in.until("all", func([]got) bool { return len(in.ids()) == n })
	first := map[string]bool{}
	last := ""
	for _, r := range in.all {
		if first[r.event.ID] { // a copy: the first one counts
			continue
		}
		first[r.event.ID] = true
		if r.event.ID < last {
			t.Fatalf("%s after %s", r.event.ID, last)
		}
		last = r.event.ID
	}
}

func TestAFullSpoolRefusesPagesFirstAndLosesNothingItTook(t *testing.T) {
	port, dir := ports(t), t.TempDir()
	c := broker(t, 3, kfake.Ports(port), kfake.DataDir(dir))
	cfg := testConfig(t)
	cfg.Spool.MaxBytes, cfg.Spool.SegmentBytes = 200_000, 20_000
	g := start(t, cfg, c.ListenAddrs())
	if code, answer := g.post(`{"name":"x"}`); code != 200 {
		t.Fatalf("%d %s", code, answer)
	}
	c.Close()
	taken := map[string]bool{}
	fill := func(name string) {
		for i := 0; ; i++ {
			id := fmt.Sprintf("%s-%d", name, i)
			code, h, answer := g.do(http.MethodPost, "/v1/events", strings.NewReader(fmt.Sprintf(`{"name":%q,"event_id":%q,"a":%q}`, name, id, strings.Repeat("a", 1000))), "X-Write-Key", webKey)
			if code == 429 {
				if h.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
				if i == 0 {
					t.Errorf("no room for %s", name)
				}
				return
			}
			if code != 200 {
				t.Fatalf("%s: %d %s", name, code, answer)
			}
			taken[id] = true
		}
	}
	fill("page_view")
	fill("add_to_cart")
	fill("purchase")
	if code, _ := g.post(`{"name":"page_view"}`); code != 429 {
		t.Errorf("page: %d", code)
	}
	if n := g.spool.Status().Bytes; n > cfg.Spool.MaxBytes {
		t.Errorf("%d bytes", n)
	}
	c = broker(t, 3, kfake.Ports(port), kfake.DataDir(dir))
	in := consume(t, c.ListenAddrs())
	in.until("what was taken", func([]got) bool {
		have := in.ids()
		for id := range taken {
			if have[id] == 0 {
				return false
			}
		}
		return true
	})
	eventually(t, "to be taken again", func() bool { code, _ := g.post(`{"name":"page_view"}`); return code == 200 })
}

func TestPagesAreShedToTheSpoolWhenMemoryIsShort(t *testing.T) {
	c := broker(t, 3)
	cfg := testConfig(t)
	cfg.AckTimeout = 20 * time.Second // a slow machine is no reason for the spool
	g := start(t, cfg, c.ListenAddrs())
	var spent int64
	g.budget.force(g.cfg.MaxInFlightBytes*6/10, &spent)
	body := `[{"name":"page_view","event_id":"p","visitor_id":"1"},{"name":"add_to_cart","event_id":"c","visitor_id":"1"},{"name":"purchase","event_id":"o","visitor_id":"1"}]`
	if code, answer := g.post(body); code != 200 {
		t.Fatalf("%d %s", code, answer)
	}
	g.budget.force(g.cfg.MaxInFlightBytes*2/10, &spent)
	if code, answer := g.post(strings.ReplaceAll(body, `"event_id":"`, `"event_id":"2`)); code != 200 {
		t.Fatalf("%d %s", code, answer)
	}
	g.budget.force(g.cfg.MaxInFlightBytes, &spent)
	if code, h, _ := g.do(http.MethodPost, "/v1/events", strings.NewReader(body), "X-Write-Key", webKey); code != 429 || h.Get("Retry-After") == "" {
		t.Errorf("no memory: %d", code)
	}
	g.budget.give(spent)
	in := consume(t, c.ListenAddrs())
	in.records(6)
	for _, r := range in.all {
		spooled := r.header(HeaderSpool) != nil
		if want := r.event.ID == "p" || r.event.ID == "2p" || r.event.ID == "2c"; spooled != want {
			t.Errorf("%s through the spool: %v", r.event.ID, spooled)
		}
	}
}

func TestASpoolThatCannotWriteAcknowledgesNothing(t *testing.T) {
	cfg := testConfig(t)
	g := start(t, cfg, []string{freePort(t)}) // nobody listens
	folders, err := filepath.Glob(filepath.Join(cfg.DataDir, "spool", "*"))
	if err != nil || len(folders) != 1 {
		t.Fatalf("%v %v", folders, err)
	}
	if err := os.RemoveAll(folders[0]); err != nil { // the volume is gone
		t.Fatal(err)
	}
	code, h, answer := g.do(http.MethodPost, "/v1/events", strings.NewReader(`{"name":"x"}`), "X-Write-Key", webKey)
	if code != http.StatusServiceUnavailable || h.Get("Retry-After") == "" {
		t.Errorf("%d %s", code, answer)
	}
}

func TestAGatewayThatIsKilledLosesNothingItAcknowledged(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	port, dir := ports(t), t.TempDir()
	c := broker(t, 3, kfake.Ports(port), kfake.DataDir(dir))
	cfg, seeds := testConfig(t), c.ListenAddrs()
	run := func(failpoints string) (kill func(), ended chan error) {
		text, err := json.Marshal(map[string]any{"Config": cfg, "Seeds": seeds})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(context.Background(), exe, "-test.run=^$")
		cmd.Env = append(os.Environ(), childEnv+"="+string(text), "MILLRACE_FAILPOINTS="+failpoints)
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended = make(chan error, 1)
		go func() {
			for lines := bufio.NewScanner(stderr); lines.Scan(); {
				t.Log("child: " + lines.Text())
			}
			ended <- cmd.Wait()
		}()
		return func() { _ = cmd.Process.Kill() }, ended
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	url := "http://" + cfg.Listen
	up := func() {
		eventually(t, "the child to serve", func() bool {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/healthz", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				return false
			}
			return resp.Body.Close() == nil && resp.StatusCode == 200
		})
	}

	kill, ended := run("")
	up()
	l := startLoad(t, client, url, 4)
	more := func(n int64) func() bool { from := l.sent.Load(); return func() bool { return l.sent.Load() > from+n } }
	eventually(t, "requests", more(30))
	kill() // in the middle of the load, with the broker there
	if err := <-ended; err == nil {
		t.Fatal("the child ended by itself")
	}
	// Again without the broker, so that all is in the spool; it dies by itself between writing and acknowledging.
	c.Close()
	for _, at := range []string{"gateway.spool.written=kill@30", "gateway.spool.synced=kill@30"} {
		kill, ended = run(at)
		select {
		case err := <-ended:
			if err == nil {
				t.Fatal("the child ended by itself")
			}
		case <-time.After(60 * time.Second):
			kill()
			t.Fatalf("the child did not die: %v", <-ended)
		}
	}
	l.stop()
	folders, err := os.ReadDir(filepath.Join(cfg.DataDir, "spool"))
	if err != nil || len(folders) < 2 {
		t.Fatalf("folders left behind: %v %v", folders, err)
	}
	c = broker(t, 3, kfake.Ports(port), kfake.DataDir(dir))
	g := start(t, cfg, c.ListenAddrs())
	in := consume(t, c.ListenAddrs())
	l.arrived(t, in)
	eventually(t, "the folders to be removed", func() bool { return g.spool.Status().Empty() })
	t.Logf("%d acknowledged, %d records, codes %v", len(l.acked), len(in.all), l.codes)
	if len(l.acked) < 100 {
		t.Errorf("only %d acknowledged", len(l.acked))
	}
}

func TestShutdownDrainsWhatItCanAndLeavesTheRestToTheNext(t *testing.T) {
	port, dir := ports(t), t.TempDir()
	c := broker(t, 3, kfake.Ports(port), kfake.DataDir(dir))
	cfg, seeds := testConfig(t), c.ListenAddrs()
	g := start(t, cfg, seeds)
	l := startLoad(t, g.client, g.url, 3)
	from := l.sent.Load()
	eventually(t, "requests", func() bool { return l.sent.Load() > from+20 })
	if err := g.stop(); err != nil { // under load: every answer given stays true
		t.Fatal(err)
	}
	l.stop()
	for code := range l.codes {
		if code != 0 && code != 200 {
			t.Errorf("codes %v", l.codes)
		}
	}
	l.arrived(t, consume(t, c.ListenAddrs()))

	c.Close()
	g = start(t, cfg, seeds)
	if code, answer := g.post(`{"name":"x","event_id":"left"}`); code != 200 {
		t.Fatalf("%d %s", code, answer)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	c = broker(t, 3, kfake.Ports(port), kfake.DataDir(dir))
	start(t, cfg, c.ListenAddrs())
	in := consume(t, c.ListenAddrs())
	in.until("what was left", func([]got) bool { return in.ids()["left"] > 0 })
}

func TestReadinessWaitsForTheSpoolOfEndedProcessesButNotForever(t *testing.T) {
	nobody := freePort(t)
	cfg := testConfig(t)
	g := start(t, cfg, []string{nobody})
	if code, answer := g.post(`{"name":"x","event_id":"left"}`); code != 200 {
		t.Fatalf("%d %s", code, answer)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	cfg.ReadyWait = 300 * time.Millisecond
	began := time.Now()
	g = start(t, cfg, []string{nobody}) // waits until ready
	if took := time.Since(began); took < cfg.ReadyWait {
		t.Errorf("ready after %v with an adopted spool", took)
	}
	if g.spool.Status().Adopted != 1 {
		t.Errorf("%+v", g.spool.Status())
	}
}

func TestAPortInUseIsAnErrorWithARemedy(t *testing.T) {
	c := broker(t, 3)
	cfg := testConfig(t)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // the test is over
	g, err := New(cfg, testCodecs(t), []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "MR-GW-001") || errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// BenchmarkGateway is the whole handler over HTTP, batches of 100 as server SDKs send them.
func BenchmarkGateway(b *testing.B) {
	c := broker(b, 4, kfake.DataDir(b.TempDir()))
	cfg := testConfig(b)
	cfg.Partitions, cfg.AckTimeout = 4, 10*time.Second
	g := start(b, cfg, c.ListenAddrs())
	var body strings.Builder
	const per = 100
	for i := range per {
		fmt.Fprintf(&body, `{"event_id":"%08d-6a3b-4e3e-9d8a-1f2e3d4c5b6a","name":%q,"occurred_at":"2026-03-01T12:00:00.123Z","visitor_id":"v-%d","user_id":"u1","session_id":"s1","currency":"USD","value":"129.90","transaction_id":"o-1","items":[{"item_id":"p1","item_name":"Mug","item_category":"Kitchen","price":"64.95","quantity":2}],"context":{"page":{"url":"https://shop.example/checkout","path":"/checkout"},"device":{"type":"mobile"},"country":"DE","campaign":{"source":"ads"}},"properties":{"theme":"dark"}}`+"\n",
			i, []string{event.NamePageView, event.NameAddToCart, event.NamePurchase}[i%3], i%17)
	}
	text := body.String()
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if code, answer := g.post(text); code != 200 {
				b.Errorf("%d %s", code, answer)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N*per)/b.Elapsed().Seconds(), "events/s")
}
