package embedded_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"millrace/internal/embedded"
)

func redisClient(t *testing.T, addr string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: 5})
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

func TestRedisKeepsAcknowledgedWritesThroughKill(t *testing.T) {
	t.Parallel()
	s := startServers(t, "", "", embedded.RedisChild)
	addr := s.Endpoints().Redis
	if err := redisClient(t, addr).Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(t.Context(), embedded.RedisChild); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitHealthy(t.Context(), embedded.RedisChild); err != nil {
		t.Fatal(err)
	}
	client := redisClient(t, addr)
	if got, err := client.Get(t.Context(), "k").Result(); err != nil || got != "v" {
		t.Errorf("after kill -9: %q, %v", got, err)
	}
	if got, err := client.Eval(t.Context(), "return redis.call('GET', KEYS[1])", []string{"k"}).Result(); err != nil || got != "v" {
		t.Errorf("by script: %v, %v", got, err)
	}
}

func TestRedisFallsBackToTheStandInAndSaysSo(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no redis-server, no apt-get
	p, err := embedded.Start(t.Context(), embedded.Options{
		DataDir: t.TempDir(), CacheDir: t.TempDir(), Only: []string{embedded.RedisChild}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := p.WaitHealthy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if detail := p.Status()[0].Detail; !strings.HasPrefix(detail, "miniredis") {
		t.Errorf("status says %q", detail)
	}
	if err := redisClient(t, p.Endpoints().Redis).Set(context.Background(), "k", "v", 0).Err(); err != nil {
		t.Error(err)
	}
}
