package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/event"
	"millrace/internal/embedded"
	"millrace/lakehouse"
	"millrace/olap"
)

// reached is how far a part has come: a number that grows while it works.
type reached func(ctx context.Context) (int64, error)

// others are the parts that must go on while one is away, by name. Without the broker only the gateway can.
func (p *platform) others(away string) map[string]reached {
	all := map[string]reached{"gateway": p.gatewayReached}
	if away == embedded.KafkaChild {
		return all
	}
	all[embedded.ClickHouseChild], all[embedded.RedisChild], all[catalogAway] = p.clickHouseReached, p.redisReached, p.icebergReached
	delete(all, away)
	return all
}

// catalogAway names the outage of the Iceberg catalog, which is a file and no child.
const catalogAway = "catalog"

// othersGoOn waits for the outage to pass and requires that everything else came further in its second half, when nothing is left that was under way before.
func (p *platform) othersGoOn(ctx context.Context, away string, outage time.Duration) error {
	if err := pause(ctx, outage/3); err != nil {
		return err
	}
	parts := p.others(away)
	from := map[string]int64{}
	for name, f := range parts {
		n, err := f(ctx)
		if err != nil {
			return fmt.Errorf("while %s is away, %s cannot be asked: %w", away, name, err)
		}
		from[name] = n
	}
	if err := pause(ctx, outage-outage/3); err != nil {
		return err
	}
	for name, f := range parts {
		n, err := f(ctx)
		if err != nil {
			return fmt.Errorf("while %s is away, %s cannot be asked: %w", away, name, err)
		}
		if n <= from[name] {
			return fmt.Errorf("while %s is away, %s stands still at %d", away, name, n)
		}
		_, _ = fmt.Fprintf(p.out, "    while %s is away, %s goes on: %d to %d\n", away, name, from[name], n) // progress
	}
	return nil
}

func (p *platform) gatewayReached(ctx context.Context) (int64, error) {
	n, err := acceptedEvents(ctx, p)
	return int64(n), err
}

func (p *platform) clickHouseReached(ctx context.Context) (n int64, err error) {
	cfg, err := p.config()
	if err != nil {
		return 0, err
	}
	conn, err := olap.Open(ctx, cfg.ClickHouse)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }() // only reads
	return n, conn.QueryRow(ctx, "SELECT toInt64(count()) FROM events").Scan(&n)
}

func (p *platform) icebergReached(ctx context.Context) (n int64, err error) {
	cfg, err := p.config()
	if err != nil {
		return 0, err
	}
	cat, err := lakehouse.Open(ctx, cfg.Iceberg)
	if err != nil {
		return 0, err
	}
	defer func() { _ = cat.Close() }() // only reads
	for _, c := range event.Categories() {
		h, err := cat.Head(ctx, c.Table())
		if err != nil {
			return 0, err
		}
		n += h.Rows
	}
	return n, nil
}

// redisReached sums the positions that the sink keeps in Redis.
func (p *platform) redisReached(ctx context.Context) (n int64, err error) {
	e, err := p.endpoints()
	if err != nil {
		return 0, err
	}
	rdb := redis.NewClient(&redis.Options{Addr: e.Redis})
	defer func() { _ = rdb.Close() }() // only reads
	keys := rdb.Scan(ctx, 0, "p1:{millrace.sink.redis}:*", 1000).Iterator()
	for keys.Next(ctx) {
		at, err := rdb.HVals(ctx, keys.Val()).Result()
		if err != nil {
			return 0, err
		}
		for _, v := range at {
			i, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return 0, err
			}
			n += i
		}
	}
	return n, keys.Err()
}
