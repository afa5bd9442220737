package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.temporal.io/sdk/client"

	"millrace/api"
	"millrace/api/ui"
	"millrace/kpi"
	"millrace/lakehouse"
	"millrace/olap"
)

// startAPI needs ClickHouse and its tables. Whatever else is configured it asks if it can: the API is there to say what is wrong with the rest.
func startAPI(ctx context.Context, p *process) (func(context.Context) error, func() error, error) {
	var closers []func() error
	closeAll := func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	a, err := newAPI(ctx, p, &closers)
	if err != nil {
		return nil, nil, errors.Join(err, closeAll())
	}
	return func(ctx context.Context) error { return errors.Join(a.Run(ctx), closeAll()) }, a.Ready, nil
}

func newAPI(ctx context.Context, p *process, closers *[]func() error) (*api.API, error) {
	cfg := p.cfg.API
	if cfg.TemporalUI == "" {
		cfg.TemporalUI = p.cfg.Temporal.UI
	}
	deps := api.Deps{Codecs: p.codecs, Namespace: p.cfg.Temporal.Namespace}
	var err error
	if deps.UI, err = codecBefore(p.cfg.Temporal, ui.Handler()); err != nil {
		return nil, err
	}
	if deps.Definitions, err = kpi.New(p.cfg.KPI); err != nil {
		return nil, err
	}
	if deps.ClickHouse, err = olap.Open(ctx, p.cfg.ClickHouse); err != nil {
		return nil, err
	}
	*closers = append(*closers, deps.ClickHouse.Close)
	tables := olap.NewReader(deps.ClickHouse, olap.DefaultReadLimits())
	if err := p.until(ctx, "waiting for the tables of ClickHouse", func(ctx context.Context) error {
		_, err := tables.Newest(ctx)
		return err
	}); err != nil {
		return nil, err
	}
	if len(p.cfg.Redis.Addr) > 0 {
		rdb := redis.NewUniversalClient(RedisOptions(p.cfg.Redis))
		*closers = append(*closers, rdb.Close)
		deps.Redis = rdb
	}
	if len(p.cfg.Kafka.Brokers) > 0 {
		cl, err := kgo.NewClient(p.kafka()...)
		if err != nil {
			return nil, fmt.Errorf("making a client of Kafka: %w", err)
		}
		*closers = append(*closers, func() error { cl.Close(); return nil })
		deps.Kafka = kadm.NewClient(cl)
	}
	if p.cfg.Iceberg.CatalogURI != "" {
		if deps.Lake, err = lakehouse.Open(ctx, p.cfg.Iceberg); err != nil {
			return nil, err
		}
		*closers = append(*closers, deps.Lake.Close)
	}
	if p.cfg.Temporal.Address != "" {
		// Lazy: on a fresh machine Temporal is built for minutes. Its attempts are not worth a line each: health says it.
		o, err := temporalOptions(p.cfg.Temporal, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		tc, err := client.NewLazyClient(o)
		if err != nil {
			return nil, fmt.Errorf("making a client of Temporal: %w", err)
		}
		*closers = append(*closers, func() error { tc.Close(); return nil })
		deps.Temporal = tc
	}
	return api.New(cfg, deps, p.reg, p.log)
}
