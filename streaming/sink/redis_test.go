package sink

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
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
	"millrace/live"
)

const redisWindow = int64(1_772_366_400_000_000)

// redisBench is a running sink with a broker and a server that a test can take away.
type redisBench struct {
	t      *testing.T
	codecs *schema.Codecs
	opts   []kgo.Opt
	cl     *kgo.Client
	server *miniredis.Miniredis
	rdb    *redis.Client
	stop   func()
}

func newRedisBench(t *testing.T) *redisBench {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, redisTopics()...), kfake.SeedTopics(1, event.TopicErasures))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	b := &redisBench{t: t, opts: []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, server: miniredis.NewMiniRedis()}
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
	if b.cl, err = kgo.NewClient(append(b.opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.cl.Close)
	b.start()
	return b
}

func (b *redisBench) start() { b.startWith(DefaultRedisConfig()) }

func (b *redisBench) startWith(cfg RedisConfig) {
	s, err := NewRedis(cfg, b.rdb, b.codecs, b.opts, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("sink ended with %v", err)
		}
		b.stop = func() {}
	}
	b.t.Cleanup(func() { b.stop() })
}

// produce writes the partial of one minute and partition with n orders.
func (b *redisBench) produce(minute int, partition int32, n int64) {
	p := event.KPIPartial{Family: "shop", Grain: "1m", Tenant: "t", WindowStart: redisWindow + int64(minute)*60e6, KafkaPartition: partition, Orders: n}
	v, err := b.codecs.Append(nil, event.TopicKPIPartial, &p)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.cl.ProduceSync(b.t.Context(), &kgo.Record{Topic: event.TopicKPIPartial, Partition: partition, Value: v}).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// wait waits until the orders of minutes 0 to n-1 are want.
func (b *redisBench) wait(minutes int, want int64) {
	b.t.Helper()
	var starts []int64
	for m := range minutes {
		starts = append(starts, redisWindow+int64(m)*60e6)
	}
	eventually(b.t, 30*time.Second, func() error {
		got, err := live.KPIs(b.t.Context(), b.rdb, b.codecs, "t", "shop", "1m", starts)
		if err != nil {
			return err
		}
		var sum int64
		for _, p := range got {
			sum += p.Orders
		}
		if sum != want {
			return fmt.Errorf("orders %d, want %d", sum, want)
		}
		return nil
	})
}

// eventually repeats check until it passes or the deadline is over, and says what was wrong last.
func eventually(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("after %s: %v", limit, err)
		case <-tick.C:
		}
	}
}

func TestRedisHoldsTheNewestPartialOfEachWindow(t *testing.T) {
	b := newRedisBench(t)
	b.produce(0, 0, 1)
	b.produce(0, 1, 10)
	b.produce(0, 0, 3) // replaces 1
	b.wait(1, 13)
}

func TestAnEmptiedRedisIsFilledAgain(t *testing.T) {
	b := newRedisBench(t)
	for m := range 20 {
		b.produce(m, int32(m%2), 1)
	}
	b.wait(20, 20)
	b.server.FlushAll() // while nothing is written
	b.wait(20, 20)
	b.server.FlushAll()
	b.produce(20, 0, 5) // while something is
	b.wait(21, 25)
}

func TestRedisAwayLosesNothing(t *testing.T) {
	b := newRedisBench(t)
	b.produce(0, 0, 1)
	b.wait(1, 1)
	b.server.SetError("LOADING away")
	b.produce(1, 0, 2)
	b.produce(2, 1, 4)
	b.server.SetError("")
	b.wait(3, 7)
}

func TestARestartedSinkGoesOnFromRedisAndNotFromTheGroup(t *testing.T) {
	b := newRedisBench(t)
	b.produce(0, 0, 1)
	b.wait(1, 1)
	b.stop()
	b.server.FlushAll() // the group's offsets say that all is done
	b.start()
	b.produce(1, 0, 2)
	b.wait(2, 3)
}

// update writes a value of live.updates.
func (b *redisBench) update(partition int32, u event.LiveUpdate) {
	b.t.Helper()
	v, err := b.codecs.Append(nil, event.TopicLiveUpdates, &u)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.cl.ProduceSync(b.t.Context(), &kgo.Record{Topic: event.TopicLiveUpdates, Partition: partition, Key: u.AppendKey(nil), Value: v}).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *redisBench) waitFields(key string, want map[string]string) {
	b.t.Helper()
	eventually(b.t, 30*time.Second, func() error {
		got, err := live.Fields(b.t.Context(), b.rdb, key)
		if err != nil {
			return err
		}
		if d := cmp.Diff(want, got); d != "" {
			return fmt.Errorf("%s", d)
		}
		return nil
	})
}

func TestRedisHoldsTheNewestValueOfEachField(t *testing.T) {
	b := newRedisBench(t)
	hour := time.Now().Add(time.Hour).UnixMicro()
	for i := range 5 {
		b.update(0, event.LiveUpdate{Tenant: "t", Key: "x:{t|a}", Field: "one", Value: fmt.Appendf(nil, "%d", i), ExpiresAt: hour})
	}
	b.update(1, event.LiveUpdate{Tenant: "t", Key: "x:{t|a}", Field: "two", Value: []byte("2"), ExpiresAt: hour})
	b.update(1, event.LiveUpdate{Tenant: "t", Key: "x:{t|old}", Field: "one", Value: []byte("gone"), ExpiresAt: 1})
	b.produce(0, 0, 7) // KPIs go their way beside it
	b.wait(1, 7)
	b.waitFields("x:{t|a}", map[string]string{"one": "4", "two": "2"})
	if ttl := b.server.TTL("x:{t|a}"); ttl <= 0 || ttl > time.Hour {
		t.Errorf("the key goes in %s", ttl)
	}
	if b.server.Exists("x:{t|old}") {
		t.Error("what was over is there")
	}
	b.server.FlushAll()
	b.waitFields("x:{t|a}", map[string]string{"one": "4", "two": "2"})
	b.stop()
	b.server.FlushAll()
	b.start()
	b.update(0, event.LiveUpdate{Tenant: "t", Key: "x:{t|a}", Field: "one", Value: []byte("5"), ExpiresAt: hour})
	b.waitFields("x:{t|a}", map[string]string{"one": "5", "two": "2"})
	b.wait(1, 7)
}

// TestARedisBuiltAgainHoldsNothingOfWhoWasErased drops the positions, as `millrace redis rebuild` does, after an erasure.
func TestARedisBuiltAgainHoldsNothingOfWhoWasErased(t *testing.T) {
	b := newRedisBench(t)
	b.stop()
	cfg := DefaultRedisConfig()
	cfg.Erasures = &erasedKey
	b.startWith(cfg)
	now := time.Now()
	recent := func(tenant, visitor string) string { return event.RecentLiveKey(tenant, visitor) }
	session := func(tenant, visitor string) string { return "ses:{" + tenant + "|" + visitor + "}" }
	serve := func(tenant, visitor, value string) {
		for _, key := range []string{recent(tenant, visitor), session(tenant, visitor)} {
			b.update(0, event.LiveUpdate{Tenant: tenant, Key: key, Field: "x", Value: []byte(value), ExpiresAt: now.Add(time.Hour).UnixMicro()})
		}
	}
	tell := func(visitor string, at time.Time) {
		a := testAlert(1)
		a.AlertID, a.Tenant, a.Entity, a.Key, a.OccurredAt, a.Confirmed = "alert of "+visitor, "acme", event.EntityVisitor, visitor, at.UnixMicro(), true
		v, err := b.codecs.Append(nil, event.TopicAlerts, &a)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: event.TopicAlerts, Key: a.AppendKey(nil), Value: v}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []string{"anna", "bert"} {
		serve("acme", v, "before")
		tell(v, now)
	}
	serve("other", "anna", "before") // another shop's
	all := func(visitor string, want map[string]string) {
		t.Helper()
		b.waitFields(recent("acme", visitor), want)
		b.waitFields(session("acme", visitor), want)
	}
	alerts := func(want ...string) {
		t.Helper()
		eventually(t, 30*time.Second, func() error {
			var got []string
			for _, k := range b.server.Keys() {
				for _, v := range []string{"anna", "bert"} {
					if strings.Contains(k, "alert of "+v) {
						got = append(got, v)
					}
				}
			}
			slices.Sort(got)
			if d := cmp.Diff(want, slices.Compact(got)); d != "" {
				return fmt.Errorf("alerts: %s", d)
			}
			return nil
		})
	}
	here := map[string]string{"x": "before"}
	all("anna", here)
	all("bert", here)
	alerts("anna", "bert")

	t.Log("an erasure, and a Redis that is built again while the sink runs")
	e := event.Erasure{
		RequestID: "r1", Key: erasedKey.ID(), RequestedAt: now.Add(time.Second).UnixMicro(), Cut: event.Cut{"raw.page": {10}}.String(),
		Subjects: []string{erasedKey.Digest(event.Subject{Tenant: "acme", Kind: event.SubjectVisitor, ID: "anna"}).String()},
	}
	value, err := b.codecs.Append(nil, event.TopicErasures, &e)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: event.TopicErasures, Key: e.AppendKey(nil), Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.stop() // begins again with the ledger read to its end
	b.server.FlushAll()
	b.startWith(cfg)
	all("bert", here)
	b.waitFields(session("other", "anna"), here)
	alerts("bert")
	serve("acme", "anna", "the session that was open goes on")
	serve("acme", "bert", "after") // behind it in the same partition
	all("bert", map[string]string{"x": "after"})
	all("anna", map[string]string{})
}
