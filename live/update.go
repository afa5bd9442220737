package live

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/event"
)

// UpdateWrite makes the versioned write of a value of live.updates; ok is false for one whose time is over.
func UpdateWrite(u *event.LiveUpdate, v Version, now time.Time) (w Write, ok bool) {
	ttl := event.Time(u.ExpiresAt).Sub(now)
	if ttl < time.Millisecond {
		return Write{}, false
	}
	return Write{Key: u.Key, Field: u.Field, Version: v, Value: u.Value, TTL: ttl}, true
}

// Fields reads the values of a key that updates have written.
func Fields(ctx context.Context, rdb redis.UniversalClient, key string) (map[string]string, error) {
	all, err := ManyFields(ctx, rdb, []string{key})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// ManyFields reads several keys in one round trip, in their order. A key that is not there has no fields.
func ManyFields(ctx context.Context, rdb redis.UniversalClient, keys []string) ([]map[string]string, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	pipe := rdb.Pipeline()
	read := make([]*redis.MapStringStringCmd, len(keys))
	for i, k := range keys {
		read[i] = pipe.HGetAll(ctx, k)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("reading %d keys: %w", len(keys), err)
	}
	out := make([]map[string]string, len(keys))
	for i, r := range read {
		out[i] = r.Val()
		for f, text := range out[i] {
			if len(text) < versionBytes {
				return nil, fmt.Errorf("field %s of %s has %d bytes and no version", f, keys[i], len(text))
			}
			out[i][f] = text[versionBytes:]
		}
	}
	return out, nil
}
