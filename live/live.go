// Package live is the Redis side of the platform: the versioned write, and the key layout of what is served live (today the KPIs; sessions, alerts and
// recommendations join it). The Redis sink writes through it, the analytics API reads through it.
//
// Every value is a hash field that begins with its version, and a write with an older or equal version changes nothing. So writes may be repeated and may
// arrive in any order: at-least-once delivery gives exactly-once values. A script touches the keys of one hash tag only, so a cluster needs no change.
package live

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Version orders the writes of one field: the order in which the engine committed them, never event time. It is (definition epoch, topic generation, offset)
// of the one partition that owns the key.
type Version struct {
	Epoch      uint32
	Generation uint16
	Offset     int64 // below 2^48
}

// versionBytes is the length of a version's text, which sorts as the version does.
const versionBytes = 8 + 4 + 12

func (v Version) append(dst []byte) []byte {
	return fmt.Appendf(dst, "%08x%04x%012x", v.Epoch, v.Generation, v.Offset)
}

// Write is one versioned write.
type Write struct {
	Key     string // holds a {hash tag}
	Field   string
	Version Version
	Value   []byte
	TTL     time.Duration // of the whole key, counted from the newest write
}

// put sets ARGV[2i] = field, ARGV[2i+1] = version ‖ value where the version is newer; ARGV[1] is the TTL in milliseconds. It answers how many were set.
// Versions are compared as text: Lua's numbers hold 53 bits.
var put = redis.NewScript(`
local n = 0
for i = 2, #ARGV, 2 do
  local have = redis.call('HGET', KEYS[1], ARGV[i])
  if not have or string.sub(have, 1, 24) < string.sub(ARGV[i+1], 1, 24) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i+1])
    n = n + 1
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return n`)

// maxFields bounds the fields of one script call, so that no call holds Redis for long.
const maxFields = 256

// Put applies writes in one pipeline and says how many were newer than what was there. It is safe to repeat after any error.
func Put(ctx context.Context, rdb redis.UniversalClient, writes []Write) (applied int64, err error) {
	if len(writes) == 0 {
		return 0, nil
	}
	byKey := map[string][]Write{}
	var order []string
	for _, w := range writes {
		if byKey[w.Key] == nil {
			order = append(order, w.Key)
		}
		byKey[w.Key] = append(byKey[w.Key], w)
	}
	// EVAL, not EVALSHA: in a pipeline there is no falling back from NOSCRIPT, which a restarted or other node answers.
	pipe := rdb.Pipeline()
	var cmds []*redis.Cmd
	for _, key := range order {
		group := byKey[key]
		for len(group) > 0 {
			part := group[:min(len(group), maxFields)]
			group = group[len(part):]
			args := make([]any, 1, 1+2*len(part))
			var ttl time.Duration
			for _, w := range part {
				ttl = max(ttl, w.TTL)
				args = append(args, w.Field, append(w.Version.append(make([]byte, 0, versionBytes+len(w.Value))), w.Value...))
			}
			args[0] = ttl.Milliseconds()
			cmds = append(cmds, put.Eval(ctx, pipe, []string{key}, args...))
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, fmt.Errorf("writing %d fields of %d keys: %w", len(writes), len(order), err)
	}
	for _, c := range cmds {
		n, err := c.Int64()
		if err != nil {
			return applied, fmt.Errorf("versioned write: %w", err)
		}
		applied += n
	}
	return applied, nil
}
