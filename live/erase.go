package live

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/event"
)

// EraseKeys looks at every key and finds those that name an erased subject: one of the parts between the signs that keys are made of is a subject's id in one of the
// tenants. With remove they are deleted. It gives how many there were, and how many keys there are. progress, if not nil, is told how many were looked at.
func EraseKeys(ctx context.Context, rdb redis.UniversalClient, tenants []string, erased *event.Erased, remove bool, progress func(keys int64)) (found, seen int64, err error) {
	var mu sync.Mutex // nodes of a cluster are scanned side by side
	node := func(ctx context.Context, c redis.UniversalClient) error {
		for cursor := uint64(0); ; {
			keys, next, err := c.Scan(ctx, cursor, "*", 1000).Result()
			if err != nil {
				return err
			}
			var named []string
			for _, k := range keys {
				if names(k, func(part string) bool {
					return slices.ContainsFunc(tenants, func(t string) bool { return erased.Names(t, part) })
				}) {
					named = append(named, k)
				}
			}
			if remove {
				for _, k := range named { // one by one: keys of a cluster are in different slots
					if err := c.Unlink(ctx, k).Err(); err != nil {
						return err
					}
				}
			}
			mu.Lock()
			found += int64(len(named))
			seen += int64(len(keys))
			if progress != nil {
				progress(seen)
			}
			mu.Unlock()
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	if cluster, ok := rdb.(*redis.ClusterClient); ok {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return node(ctx, c) })
	} else {
		err = node(ctx, rdb)
	}
	if err != nil {
		return found, seen, fmt.Errorf("looking through the keys of Redis: %w", err)
	}
	return found, seen, nil
}

// ErasedUpdate says whether a value of live.updates, written at the given time, is of an erased subject and may hold what came before the request: whoever reads the topic
// again must not bring it back.
func ErasedUpdate(u *event.LiveUpdate, at time.Time, erased *event.Erased) bool {
	return erased.Len() > 0 && names(u.Key, func(part string) bool { return erased.NamesLive(u.Tenant, part, at.UnixMicro()) })
}

// names says whether one of the parts that a key may be made of is a subject's id.
func names(key string, is func(part string) bool) bool {
	_, tag, _ := strings.Cut(key, "{")
	tag, rest, _ := strings.Cut(tag, "}")
	for _, text := range []string{key, tag, strings.TrimPrefix(rest, ":")} {
		if is(text) {
			return true
		}
		for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ':' || r == '|' || r == event.Sep || r == '{' || r == '}' }) {
			if is(part) {
				return true
			}
		}
	}
	return false
}
