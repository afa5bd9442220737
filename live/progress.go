package live

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Progress is how far a topic's partitions have been written, kept in Redis itself. It is written after the data it speaks of on the same connection, so a
// server that loses the last second of its append-only file loses the progress with the data, and a server that comes back empty has none: whoever goes by
// it writes again what was lost. On a cluster one node may lose its tail alone; there `millrace redis rebuild` is the remedy.
type Progress struct {
	Group   string // of the writer
	Topic   string
	TopicID string // a topic made anew starts again
}

func (p Progress) key() string { return "p1:{" + p.Group + "}:" + p.Topic + ":" + p.TopicID }

// advance moves ARGV[1] (partition) from ARGV[2] to ARGV[3] and answers what was there, or ” if nothing was. "-" stands for nothing.
var advance = redis.NewScript(`
local have = redis.call('HGET', KEYS[1], ARGV[1]) or '-'
if have == ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return have`)

// None is the position of a partition of which nothing was written.
const None = int64(-1)

// ErrMoved says that the recorded position is not the one the writer went on from: the server was restarted or emptied, or another writer was at work.
var ErrMoved = errors.New("the recorded position has moved")

// Positions reads the next offset of each partition that has one.
func (p Progress) Positions(ctx context.Context, rdb redis.UniversalClient) (map[int32]int64, error) {
	m, err := rdb.HGetAll(ctx, p.key()).Result()
	if err != nil {
		return nil, fmt.Errorf("reading positions of %s: %w", p.Topic, err)
	}
	out := make(map[int32]int64, len(m))
	for k, v := range m {
		part, err1 := strconv.ParseInt(k, 10, 32)
		next, err2 := strconv.ParseInt(v, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("position %q of %s: %w", k+"="+v, p.Topic, err)
		}
		out[int32(part)] = next
	}
	return out, nil
}

// Advance moves the position of a partition from lo (None: there is none yet) to hi. ErrMoved leaves it as it was.
func (p Progress) Advance(ctx context.Context, rdb redis.UniversalClient, partition int32, lo, hi int64) error {
	from := "-"
	if lo != None {
		from = strconv.FormatInt(lo, 10)
	}
	have, err := advance.Run(ctx, rdb, []string{p.key()}, partition, from, hi).Text()
	if err != nil {
		return fmt.Errorf("recording position %d of %s/%d: %w", hi, p.Topic, partition, err)
	}
	if !strings.EqualFold(have, from) {
		return fmt.Errorf("%s/%d is at %s, not at %s: %w", p.Topic, partition, have, from, ErrMoved)
	}
	return nil
}

// ForgetProgress drops the recorded positions of all topics of a group, so that its writers write everything again. It says how many partitions there were.
func ForgetProgress(ctx context.Context, rdb redis.UniversalClient, group string) (int64, error) {
	var n int64
	iter := rdb.Scan(ctx, 0, "p1:{"+group+"}:*", 1000).Iterator()
	for iter.Next(ctx) {
		k, err := rdb.HLen(ctx, iter.Val()).Result()
		if err != nil {
			return n, fmt.Errorf("forgetting %s: %w", iter.Val(), err)
		}
		if err := rdb.Del(ctx, iter.Val()).Err(); err != nil {
			return n, fmt.Errorf("forgetting %s: %w", iter.Val(), err)
		}
		n += k
	}
	if err := iter.Err(); err != nil {
		return n, fmt.Errorf("looking for positions of %s: %w", group, err)
	}
	return n, nil
}
