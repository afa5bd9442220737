package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/internal/failpoint"
	"millrace/olap"
)

// clickhouseProcessEnv makes the test binary a process that only runs a sink, for tests that kill it.
const clickhouseProcessEnv = "MILLRACE_TEST_CLICKHOUSE_SINK"

type clickhouseProcessSpec struct {
	Brokers []string
	DB      olap.Config
	Sink    ClickHouseConfig
}

func clickhouseProcess(text string) int {
	err := func() error {
		var spec clickhouseProcessSpec
		if err := json.Unmarshal([]byte(text), &spec); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		conn, err := olap.Open(ctx, spec.DB)
		if err != nil {
			return err
		}
		defer conn.Close()
		codecs, err := schema.NewCodecs()
		if err != nil {
			return err
		}
		s, err := NewClickHouse(spec.Sink, conn, codecs.AssignLocal(), []kgo.Opt{kgo.SeedBrokers(spec.Brokers...)}, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
		if err != nil {
			return err
		}
		return s.Run(ctx)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// killedAt runs a sink in a process of its own until it is killed at a failpoint.
func (b *clickhouseBench) killedAt(brokers string, cfg ClickHouseConfig, failpoints string) {
	b.t.Helper()
	spec, err := json.Marshal(clickhouseProcessSpec{strings.Split(brokers, ","), b.db, cfg})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 40*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	var said strings.Builder
	cmd.Stderr = &said
	cmd.Env = append(os.Environ(), clickhouseProcessEnv+"="+string(spec), failpoint.Env+"="+failpoints)
	err = cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		b.t.Fatalf("a sink with %s ended with %v, %v, and said:\n%s", failpoints, err, ctx.Err(), said.String())
	}
}

func TestClickHouseKilledAtAnyPointNothingIsLostOrTwice(t *testing.T) {
	t.Parallel()
	brokers := embeddedtest.Kfake(t)
	b := newClickhouseBenchOn(t, brokers, sharedServers(t).Database(t).Database)
	cfg := fastClickHouse()
	cfg.FlushRows = 100
	for _, at := range []string{
		"sink.clickhouse.intent=kill@2", "sink.clickhouse.insert=kill@2", "sink.clickhouse.sent=kill@3", "sink.clickhouse.inserted=kill@1", "sink.clickhouse.inserted=kill@4",
		"sink.clickhouse.committed=kill@2",
	} {
		for p := range int32(clickhouseTestPartitions) {
			b.send(event.Page, p, 220)
			b.send(event.Purchase, p, 220)
		}
		b.killedAt(brokers, cfg, at)
		cfg.FlushRows += 17 // the next one cuts other batches
	}
	s := b.start(cfg)
	b.exact()
	b.committed(event.Page.EventsTopic())
	b.committed(event.Purchase.EventsTopic())
	b.exact()
	b.finish(s)
}

func TestClickHouseServerKilledDuringInsertsNothingIsLostOrTwice(t *testing.T) {
	t.Parallel()
	own, err := embeddedtest.Start(t.Context(), "", "kfake", embedded.ClickHouseChild) // the shared one has other tests
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Stop)
	b := newClickhouseBenchAt(t, embeddedtest.Kfake(t), own.Endpoints().ClickHouse, embeddedtest.Name("millrace_test"))
	s := b.start(fastClickHouse())
	for range 3 {
		if err := own.WaitHealthy(t.Context(), embedded.ClickHouseChild); err != nil {
			t.Fatal(err)
		}
		for p := range int32(clickhouseTestPartitions) {
			b.send(event.Page, p, 2000)
			b.send(event.Cart, p, 2000)
		}
		if err := own.Kill(t.Context(), embedded.ClickHouseChild); err != nil {
			t.Fatal(err)
		}
	}
	if err := own.WaitHealthy(t.Context(), embedded.ClickHouseChild); err != nil {
		t.Fatal(err)
	}
	b.exact()
	b.committed(event.Page.EventsTopic())
	b.exact()
	b.finish(s)
}

// clickhouseProxy stands before the server. It can cut every connection and refuse new ones; what the server was told it does nevertheless.
type clickhouseProxy struct {
	target string
	l      net.Listener
	wg     sync.WaitGroup

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

func newClickhouseProxy(t *testing.T, target string) *clickhouseProxy {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &clickhouseProxy{target: target, l: l, conns: map[net.Conn]bool{}}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // ends the accept loop
		p.set(true)
		p.wg.Wait()
	})
	return p
}

func (p *clickhouseProxy) serve(c net.Conn) {
	up, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = c.Close() // as a server that is not there
		return
	}
	p.mu.Lock()
	if p.down {
		_, _ = c.Close(), up.Close() // refused
		p.mu.Unlock()
		return
	}
	p.conns[c], p.conns[up] = true, true
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, d := range [][2]net.Conn{{c, up}, {up, c}} {
		wg.Go(func() {
			_, _ = io.Copy(d[0], d[1])        // ends when either side does
			_, _ = d[0].Close(), d[1].Close() // the other direction ends too
		})
	}
	wg.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	delete(p.conns, up)
	p.mu.Unlock()
}

func (p *clickhouseProxy) set(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
	if down {
		for c := range p.conns {
			_ = c.Close() // cut
		}
	}
}

func TestClickHouseAwayBuffersAreBoundedAndEverythingIsStoredAfterwards(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	proxy := newClickhouseProxy(t, b.db.Addr[0])
	through := b.db
	through.Addr = []string{proxy.l.Addr().String()}
	b.conn = b.connect(through)
	cfg := fastClickHouse()
	cfg.FlushRows, cfg.FlushBytes, cfg.MaxBuffered = 300, 60_000, 120_000
	s := b.start(cfg)
	b.send(event.Page, 0, 100)
	b.exact()
	proxy.set(true)
	const records = 3000
	for p := range int32(clickhouseTestPartitions) {
		b.send(event.Page, p, records)
	}
	b.eventually("the sink to say that it does not store", func() string {
		if s.Ready() == nil {
			return "it is ready"
		}
		return ""
	})
	b.eventually("full buffers", func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := 0
		for p := range s.owned() {
			n += p.bytes
		}
		// One poll of flush_rows may come on top of a buffer that is all but full. What was sent is four times as much.
		if limit := cfg.MaxBuffered + cfg.FlushRows*300; n > limit {
			t.Fatalf("%d bytes are held, %d is the bound", n, limit)
		}
		if n < cfg.MaxBuffered {
			return fmt.Sprintf("%d bytes", n)
		}
		return ""
	})
	proxy.set(false)
	b.exact()
	b.committed(event.Page.EventsTopic())
	b.eventually("readiness", func() string {
		if err := s.Ready(); err != nil {
			return err.Error()
		}
		return ""
	})
	b.finish(s)
}

func TestClickHouseInsertsOfUnknownOutcomeAreSettledByTheTable(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	proxy := newClickhouseProxy(t, b.db.Addr[0])
	through := b.db
	through.Addr = []string{proxy.l.Addr().String()}
	direct := b.conn
	b.conn = b.connect(through)
	cfg := fastClickHouse()
	cfg.FlushRows, cfg.RetryMax = 100, 100*time.Millisecond
	s := b.start(cfg)
	b.conn = direct // to look with
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { // cuts at any moment of an insert
		tick := time.NewTicker(60 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			proxy.set(true)
			proxy.set(false)
		}
	})
	for range 5 {
		for p := range int32(clickhouseTestPartitions) {
			b.send(event.Page, p, 200)
			b.send(event.Purchase, p, 200)
		}
	}
	b.eventually("cuts to hit inserts", func() string {
		if n := clickhouseMetric(t, s.m.errors.WithLabelValues("events_page")); n < 3 {
			return fmt.Sprint(n)
		}
		return ""
	})
	cancel()
	wg.Wait()
	b.exact()
	b.committed(event.Page.EventsTopic())
	b.committed(event.Purchase.EventsTopic())
	b.exact()
	b.finish(s)
}

func TestClickHousePartitionsMoveBetweenMembersWithoutLossOrCopies(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	all := func(n int) {
		for p := range int32(clickhouseTestPartitions) {
			for _, cat := range []event.Category{event.Page, event.Cart, event.Purchase} {
				b.send(cat, p, n)
			}
		}
	}
	owns := func(r *runningClickhouse) int {
		r.mu.Lock()
		defer r.mu.Unlock()
		n := 0
		for range r.owned() {
			n++
		}
		return n
	}
	first := fastClickHouse()
	first.FlushRows = 60
	second := first
	second.InstanceID, second.FlushRows = "clickhouse-1", 85
	a := b.start(first)
	all(500)
	c := b.start(second)
	all(500)
	b.eventually("both members to own partitions", func() string {
		all(50)
		if owns(a) == 0 || owns(c) == 0 {
			return fmt.Sprintf("%d and %d", owns(a), owns(c))
		}
		return ""
	})
	b.exact()
	b.finish(a)
	all(200)
	if _, err := kadm.NewClient(b.cl).LeaveGroup(t.Context(), kadm.LeaveGroup(first.Group).InstanceIDs(first.InstanceID)); err != nil {
		t.Fatal(err)
	}
	all(200)
	b.exact()
	b.committed(event.Page.EventsTopic())
	b.exact()
	b.finish(c)
}
