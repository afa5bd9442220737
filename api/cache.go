package api

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Answers live in Redis at a1:{hash of question and data}. A change of the data is another key, so nothing is ever invalidated; old answers expire.
const (
	cachePrefix     = "a1:"
	redisTimeout    = 400 * time.Millisecond
	redisCooldown   = 2 * time.Second
	maxCachedAnswer = 4 << 20
	// shardFreshness is how long an answer counts where it cannot be known whether the data has changed: the parts are on other servers.
	shardFreshness = 5 * time.Second
)

// away remembers that Redis did not answer, so that not every question waits for it.
type away struct{ until atomic.Int64 }

func (w *away) now() bool { return time.Now().UnixNano() < w.until.Load() }

// note takes an error of Redis; a missing key is none.
func (w *away) note(ctx context.Context, err error) {
	if err != nil && !errors.Is(err, redis.Nil) && ctx.Err() == nil {
		w.until.Store(time.Now().Add(redisCooldown).UnixNano())
	}
}

// answer gives the JSON of what compute makes for a question: from Redis if it was made for the data as it is now, else computed, once for all who ask at the same time.
// The key is to name everything that the answer depends on besides the data of the tables.
func (a *API) answer(ctx context.Context, key string, tables []string, compute func(ctx context.Context) (any, error)) ([]byte, error) {
	mark, err := a.marks.of(ctx, a, tables)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte(key+"\x00"), mark...))
	full := cachePrefix + hex.EncodeToString(sum[:16])
	return a.flights.do(ctx, full, func(ctx context.Context) ([]byte, error) {
		if b, ok := a.cached(ctx, full); ok {
			a.m.answers.WithLabelValues("cache").Inc()
			return b, nil
		}
		release, err := a.flights.place(ctx)
		if err != nil {
			return nil, err
		}
		defer release()
		a.m.answers.WithLabelValues("computed").Inc()
		v, err := compute(ctx)
		if err != nil {
			return nil, err
		}
		b, err := json.Marshal(v)
		if err != nil {
			return nil, defectError{fmt.Errorf("encoding an answer: %w", err)}
		}
		a.keep(ctx, full, b)
		return b, nil
	})
}

func (a *API) cached(ctx context.Context, key string) ([]byte, bool) {
	if a.redis == nil || a.away.now() {
		return nil, false
	}
	limited, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	b, err := a.redis.Get(limited, key).Bytes()
	a.away.note(ctx, err)
	return b, err == nil
}

func (a *API) keep(ctx context.Context, key string, b []byte) {
	if a.redis == nil || a.away.now() || len(b) > maxCachedAnswer {
		return
	}
	limited, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	a.away.note(ctx, a.redis.Set(limited, key, b, a.cfg.CacheTTL).Err())
}

// marks knows the data watermark of every table, looked at not more often than Freshness.
type marks struct {
	mu    sync.Mutex
	at    time.Time
	known map[string]uint64
}

// of gives the watermark of some tables together.
func (m *marks) of(ctx context.Context, a *API, tables []string) ([]byte, error) {
	m.mu.Lock()
	known, at := m.known, m.at
	m.mu.Unlock()
	if known == nil || time.Since(at) > a.cfg.Freshness {
		asked := time.Now()
		if _, err := a.flights.do(ctx, "watermarks", func(ctx context.Context) ([]byte, error) {
			w, err := a.olap.Watermarks(ctx)
			if err != nil {
				return nil, err
			}
			m.mu.Lock()
			m.known, m.at = w, asked
			m.mu.Unlock()
			return nil, nil
		}); err != nil {
			return nil, err
		}
		m.mu.Lock()
		known = m.known
		m.mu.Unlock()
	}
	var out []byte
	for _, t := range tables {
		mark, ok := known[t]
		if _, sharded := known[t+"_local"]; !ok && sharded {
			mark = uint64(time.Now().Truncate(shardFreshness).UnixNano())
		}
		out = binary.BigEndian.AppendUint64(out, mark)
	}
	return out, nil
}
