package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"millrace/activities"
	"millrace/event"
	"millrace/lakehouse"
	"millrace/live"
	"millrace/streaming/sink"
	"millrace/test/drills/drill"
)

type (
	converterValues = converter.EncodedValues
	converterValue  = converter.EncodedValue
)

// except registers all activities but one, which the drill wraps.
type except struct {
	*testsuite.TestWorkflowEnvironment
	but string
}

var _ worker.ActivityRegistry = except{}

// RegisterActivityWithOptions implements worker.ActivityRegistry.
func (e except) RegisterActivityWithOptions(f any, o activity.RegisterOptions) {
	if o.Name != e.but {
		e.TestWorkflowEnvironment.RegisterActivityWithOptions(f, o)
	}
}

// again has new sinks read the topics from their beginning, as after a replay, a lost group or a rolled back table, and Redis rebuilt.
func (p *platform) again(ctx context.Context, d *drill.Drill) error {
	key, err := activities.LoadSubjectKey(filepath.Join(p.dir, "erasure"))
	if err != nil {
		return err
	}
	of, expected := 0, map[string]int64{}
	for i := range min(p.o.replayed, p.o.rows) {
		e, c := p.event(i)
		if p.isSubject(e.VisitorID) {
			of++
		} else {
			expected[c.Table()]++
		}
	}
	d.Check(of > 0, "the topics still hold %d rows of the subjects", of)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	chCfg, iceCfg, redisCfg := sink.DefaultClickHouseConfig(), sink.DefaultIcebergConfig(), sink.DefaultRedisConfig()
	chCfg.Erasures, iceCfg.Erasures, iceCfg.CommitInterval, chCfg.FlushInterval = &key, &key, time.Second, time.Second
	ch, err := sink.NewClickHouse(chCfg, p.conn, p.codecs, p.opts, prometheus.NewRegistry(), p.log)
	if err != nil {
		return err
	}
	ice, err := sink.NewIceberg(iceCfg, p.cat, p.codecs, p.opts, prometheus.NewRegistry(), p.log)
	if err != nil {
		return err
	}
	if _, err := live.ForgetProgress(ctx, p.rdb, redisCfg.Group); err != nil {
		return err
	}
	red, err := sink.NewRedis(redisCfg, p.rdb, p.codecs, p.opts, prometheus.NewRegistry(), p.log)
	if err != nil {
		return err
	}
	ended := make(chan error, 3)
	for _, run := range []func(context.Context) error{ch.Run, ice.Run, red.Run} {
		go func() { ended <- run(ctx) }()
	}
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-deadline:
			done = true
		case err := <-ended:
			return fmt.Errorf("a sink ended: %w", err)
		case <-tick.C:
			done = true
			for table, n := range expected {
				rows, err := p.clickhouse(ctx, "SELECT count() FROM "+table)
				if err != nil {
					return err
				}
				head, err := p.cat.Head(ctx, table)
				if err != nil {
					return err
				}
				done = done && rows >= p.left[table]+n && head.Rows >= p.left[table]+n
			}
		}
	}
	for table, n := range expected {
		p.left[table] += n
	}
	p.others(ctx, d, "after the topics were read again")
	n, err := p.clickhouse(ctx, "SELECT count() FROM events WHERE visitor_id IN (SELECT line FROM input)")
	if err != nil {
		return err
	}
	d.Check(n == 0, "after the topics were read again ClickHouse has %d rows of the subjects", n)
	found, err := p.scan(ctx, "files")
	if err != nil {
		return err
	}
	d.Check(total(found) == 0, "after the topics were read again DuckDB finds %d in all files", total(found))
	_, ledger, err := p.erasure()
	if err != nil {
		return err
	}
	erased, err := ledger.Erased(ctx)
	if err != nil {
		return err
	}
	named, keys, err := live.EraseKeys(ctx, p.rdb, []string{"default"}, erased, false, nil)
	d.Check(err == nil && named == 0, "after Redis was rebuilt %d of %d keys name a subject: %v", named, keys, err)
	for _, c := range []event.Category{event.Page, event.Cart, event.Purchase} {
		if _, err := p.cat.Ref(ctx, c.Table(), lakehouse.RefPublished); err != nil {
			return err
		}
	}
	stop()
	for range 3 {
		if err := <-ended; err != nil {
			return err
		}
	}
	return nil
}
