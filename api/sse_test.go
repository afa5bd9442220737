package api

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"millrace/kpi"
)

// sse is one event of a stream; comments have only data.
type sse struct{ event, id, data, comment string }

// listen opens a stream and gives its events.
func listen(t testing.TB, address string) (events <-chan sse, head http.Header, leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", "1")
	req.Header.Set("Accept-Encoding", "gzip")
	tr := &http.Transport{}
	res, err := tr.RoundTrip(req) //nolint:bodyclose // the stream is closed by whom it is given to
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body) // shown as far as it came
		t.Fatalf("%s: %s %s", address, res.Status, b)
	}
	out := make(chan sse, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(out)
		var e sse
		for sc := bufio.NewScanner(bufio.NewReaderSize(res.Body, 1<<20)); sc.Scan(); {
			line := sc.Text()
			name, value, _ := strings.Cut(line, ": ")
			switch {
			case line == "":
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
				e = sse{}
			case strings.HasPrefix(line, ":"):
				e.comment = value
			case name == "event":
				e.event = value
			case name == "id":
				e.id = value
			case name == "data":
				e.data = value
			}
		}
	}()
	return out, res.Header, func() { cancel(); _ = res.Body.Close(); <-done; tr.CloseIdleConnections() }
}

// next waits for the next event of a name.
func next(t testing.TB, events <-chan sse, name string) sse {
	t.Helper()
	timeout := time.NewTimer(20 * time.Second)
	defer timeout.Stop()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("the stream ended before %s", name)
			}
			if e.event == name {
				return e
			}
		case <-timeout.C:
			t.Fatalf("waited in vain for %s", name)
		}
	}
}

func TestTheLiveStreamTellsTheKPIs(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config, _ *Deps) { c.Heartbeat = 200 * time.Millisecond })
	s.seed(t, invent(s.tenant, 2000, 3*time.Minute, 70), "UTC")
	events, head, leave := listen(t, s.server.URL+"/api/v1/stream")
	defer leave()
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", "Content-Encoding": "", "Cache-Control": "no-store, no-transform"} {
		if got := head.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	e := next(t, events, "live")
	conforms(t, description(t).Components.Schemas["LiveMessage"].Value, "live", []byte(e.data))
	var m liveMessage
	if err := json.Unmarshal([]byte(e.data), &m); err != nil {
		t.Fatal(err)
	}
	end := now.Add(-2 * time.Second)
	s.expect(t, "the streamed minute", kpiWindow{Total: m.KPIs.Total, Money: m.KPIs.Money}, between(end.Add(-time.Minute), end))
	if m.Tail == nil || len(m.Tail.Times) != 30 || m.Tail.Times[29] != end.Unix()-1 {
		t.Fatalf("the tail is %+v", m.Tail)
	}
	s.expectSeries(t, *m.Tail, time.UTC)
	s.clock.advance(time.Second)
	eventually(t, "a message of the next second", func() bool { return next(t, events, "live").id > e.id })
}

func TestAnIdleStreamBeats(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config, _ *Deps) { c.Heartbeat = 150 * time.Millisecond })
	events, _, leave := listen(t, s.server.URL+"/api/v1/events/stream?q=nobody")
	defer leave()
	beats := 0
	eventually(t, "three heartbeats", func() bool {
		if e := <-events; e.comment == "ping" {
			beats++
		}
		return beats == 3
	})
}

func TestTheLiveTailShowsEachEventOnce(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.seed(t, invent(s.tenant, 100, 10*time.Minute, 71), "UTC")
	events, _, leave := listen(t, s.server.URL+"/api/v1/events/stream")
	defer leave()
	schema := description(t).Components.Schemas["EventsMessage"].Value
	read := func(e sse) (m eventsMessage) {
		conforms(t, schema, "events", []byte(e.data))
		if err := json.Unmarshal([]byte(e.data), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	seen := map[string]int{}
	note := func(m eventsMessage) {
		for _, e := range m.Events {
			seen[e.EventID]++
		}
		if len(m.Events) > streamedEvents {
			t.Errorf("%d events in one message", len(m.Events))
		}
	}
	note(read(next(t, events, "events")))
	if len(seen) != 50 {
		t.Errorf("the first message has %d events, want the newest 50", len(seen))
	}
	s.clock.advance(10 * time.Second)
	fresh := invent(s.tenant, 20, time.Second, 72)
	for i := range fresh {
		fresh[i].IngestedAt = s.clock.now().Add(-time.Duration(i) * 10 * time.Millisecond).UnixMicro()
	}
	s.insertEvents(t, fresh)
	eventually(t, "twenty new events", func() bool { note(read(next(t, events, "events"))); return len(seen) == 70 })
	later, _, leaveLater := listen(t, s.server.URL+"/api/v1/events/stream")
	defer leaveLater()
	if m := read(next(t, later, "events")); len(m.Events) != 50 {
		t.Errorf("who comes later is told %d events first, want 50", len(m.Events))
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was shown %d times", id, n)
		}
	}
	burst := invent(s.tenant, 400, time.Second, 73)
	for i := range burst {
		burst[i].IngestedAt = s.clock.now().Add(time.Duration(i) * time.Millisecond).UnixMicro()
	}
	s.insertEvents(t, burst)
	var shown, skipped int64
	eventually(t, "a burst, sampled", func() bool {
		m := read(next(t, events, "events"))
		shown += int64(len(m.Events))
		skipped += m.Skipped
		return shown+skipped >= 400
	})
}

// TestTheLiveTailShowsWhatCanBeReadLate: an event arrives before somebody begins to look for it, and can be read only afterwards.
func TestTheLiveTailShowsWhatCanBeReadLate(t *testing.T) {
	t.Parallel()
	s := open(t)
	late := invent(s.tenant, 1, time.Second, 74)
	late[0].IngestedAt = s.clock.now().Add(-time.Second).UnixMicro()
	events, _, leave := listen(t, s.server.URL+"/api/v1/events/stream?q="+url.QueryEscape(late[0].ID))
	defer leave()
	read := func(e sse) (m eventsMessage) {
		if err := json.Unmarshal([]byte(e.data), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	if m := read(next(t, events, "events")); len(m.Events) != 0 {
		t.Fatalf("%d events before there is one", len(m.Events))
	}
	s.insertEvents(t, late)
	if m := read(next(t, events, "events")); len(m.Events) != 1 || m.Events[0].EventID != late[0].ID {
		t.Errorf("told of %d events, want the late one", len(m.Events))
	}
}

func TestOnePollerServesAllClients(t *testing.T) {
	t.Parallel()
	h := newHub(100)
	defer h.close()
	var started, polled atomic.Int32
	gate := make(chan struct{})
	newPoller := func() poller {
		started.Add(1)
		return func(ctx context.Context) (message, message) {
			polled.Add(1)
			select {
			case <-gate:
			case <-ctx.Done():
			}
			return message("m"), message("m")
		}
	}
	var all []*subscriber
	for range 20 {
		s, err := h.subscribe("k", newPoller)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	close(gate)
	for _, s := range all {
		<-s.out
		h.unsubscribe("k", s)
	}
	if started.Load() != 1 {
		t.Errorf("%d pollers for one question", started.Load())
	}
	if len(h.channels) != 0 || h.clients != 0 {
		t.Errorf("%d channels and %d clients are left", len(h.channels), h.clients)
	}
}

func TestASlowClientIsDroppedAndNobodyWaits(t *testing.T) {
	t.Parallel()
	h := newHub(100)
	defer h.close()
	c := &channel{subscribers: map[*subscriber]struct{}{}, cancel: func() {}}
	slow, quick := &subscriber{out: make(chan message, clientBuffer)}, &subscriber{out: make(chan message, clientBuffer)}
	c.subscribers[slow], c.subscribers[quick] = struct{}{}, struct{}{}
	for range 3 * clientBuffer {
		h.publish(c, message("m"), nil)
		<-quick.out
	}
	for range clientBuffer {
		if _, ok := <-slow.out; !ok {
			t.Fatal("what was sent before is lost")
		}
	}
	if _, ok := <-slow.out; ok || !slow.dropped {
		t.Error("a client that did not read is not dropped")
	}
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config, _ *Deps) { c.MaxStreams = 1 })
	_, _, leave := listen(t, s.server.URL+"/api/v1/stream")
	status, body := s.get(t, "/api/v1/stream")
	if status != http.StatusServiceUnavailable || !strings.Contains(string(body), string(idBusy)) {
		t.Errorf("one stream too many is answered %d %s", status, body)
	}
	leave()
	eventually(t, "a free place", func() bool {
		s.api.hub.mu.Lock()
		defer s.api.hub.mu.Unlock()
		return s.api.hub.clients == 0
	})
	_, _, leave = listen(t, s.server.URL+"/api/v1/stream")
	leave()
}

func TestAPageStaysOpenWhileRedisAndThenClickHouseAreAway(t *testing.T) {
	t.Parallel()
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr(), MaxRetries: -1})
	defer func() { _ = rdb.Close() }()
	s := openAlone(t, func(c *Config, d *Deps) { d.Redis = rdb; c.HealthInterval = 200 * time.Millisecond })
	s.redis = rdb
	s.seed(t, invent(s.tenant, 2000, 3*time.Minute, 74), "UTC")
	events, _, leave := listen(t, s.server.URL+"/api/v1/stream")
	defer leave()
	until := func(what string, f func(m liveMessage) bool) {
		t.Helper()
		eventually(t, what, func() bool {
			var msg liveMessage
			if err := json.Unmarshal([]byte(next(t, events, "live").data), &msg); err != nil {
				t.Fatal(err)
			}
			return f(msg)
		})
	}
	until("KPIs from Redis", func(m liveMessage) bool { return m.KPIs != nil && m.KPIs.Source == "redis" })
	m.Close()
	until("KPIs from ClickHouse, and the reason", func(m liveMessage) bool {
		return m.KPIs != nil && m.KPIs.Source == "clickhouse" && m.KPIs.Total.Events > 0 && m.Health.State == stateDegraded && m.Health.Reasons[0].Part == "redis"
	})
	if err := s.conn.Exec(t.Context(), "RENAME TABLE kpi_1s TO kpi_1s_gone, events_page TO events_page_gone"); err != nil {
		t.Fatal(err)
	}
	until("no KPIs, and the reason", func(m liveMessage) bool { return m.KPIs == nil && m.Health.State == stateDown })
	if status, body := s.get(t, "/api/v1/kpis/live"); status != http.StatusServiceUnavailable || !strings.Contains(string(body), string(idUnavailable)) {
		t.Errorf("with no store it is answered %d %s", status, body)
	}
	if err := s.conn.Exec(t.Context(), "RENAME TABLE kpi_1s_gone TO kpi_1s, events_page_gone TO events_page"); err != nil {
		t.Fatal(err)
	}
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s.putLive(t, count(t, kpi.Definitions{}, s.events))
	until("everything as before", func(m liveMessage) bool {
		return m.KPIs != nil && m.KPIs.Source == "redis" && m.Health.State == stateOK
	})
}

func TestRunServesAndEndsWithItsStreams(t *testing.T) {
	t.Parallel()
	conn := database(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Listen = l.Addr().String()
	_ = l.Close() // the port is free again: nobody else takes it so soon
	a, err := New(cfg, Deps{ClickHouse: conn}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	eventually(t, "readiness", func() bool {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", cfg.Listen)
		if err == nil {
			_ = c.Close()
		}
		return err == nil && a.Ready() == nil
	})
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/": "Millrace", "/metrics": "millrace_api_request_seconds"} {
		if status, b := fetchBody(t, "http://"+cfg.Listen+path); status != http.StatusOK || !strings.Contains(string(b), want) {
			t.Errorf("%s: %d %.100s", path, status, b)
		}
	}
	events, _, leave := listen(t, "http://"+cfg.Listen+"/api/v1/stream")
	defer leave()
	next(t, events, "live")
	cancel()
	for range events { // until the server ends the stream
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if a.Ready() == nil {
		t.Error("ready after the end")
	}
	http.DefaultClient.CloseIdleConnections()
}
