package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sync/errgroup"

	"millrace/internal/embedded/install"
	"millrace/internal/fault"
)

// Installables names what Install can bring into the cache.
func Installables() []string {
	return []string{KafkaChild, ClickHouseChild, RedisChild, TemporalChild, BigQueryChild}
}

// The names of what is installed for tests alone.
const (
	StoresTool      = "stores"       // object stores
	IcebergRESTTool = "iceberg-rest" // Apache Iceberg's REST catalog
)

// LakeTools brings the object stores and the REST catalog for tests into the cache and gives them.
func LakeTools(ctx context.Context) (stores string, rest *install.IcebergREST, err error) {
	var o Options
	if err := o.setDefaults(); err != nil {
		return "", nil, err
	}
	cache, err := install.New(o.CacheDir, nil, nil)
	if err != nil {
		return "", nil, err
	}
	if stores, err = cache.Stores(ctx, o.SourceDir); err != nil {
		return "", nil, err
	}
	rest, err = cache.IcebergREST(ctx)
	return stores, rest, err
}

// TestTools names what Install brings into the cache only when asked to.
func TestTools() []string { return []string{StoresTool, IcebergRESTTool} }

// Install brings servers into the cache ahead of their first start, side by side; without names all of them. Where Java cannot be had Kafka is left
// out: kfake needs no installation. So is, without names, the BigQuery emulator where its Python cannot be had.
func Install(ctx context.Context, names []string, log *slog.Logger, progress install.Progress) error {
	var o Options
	if err := o.setDefaults(); err != nil {
		return err
	}
	if err := os.MkdirAll(o.CacheDir, 0o755); err != nil {
		return fmt.Errorf("creating the cache folder: %w", err)
	}
	cache, err := install.New(o.CacheDir, log, progress)
	if err != nil {
		return err
	}
	all := len(names) == 0
	if all {
		names = Installables()
	}
	g, ctx := errgroup.WithContext(ctx)
	run := map[string]func() error{
		KafkaChild: func() error {
			_, err := cache.Kafka(ctx)
			if id, _ := fault.IDOf(err); id == missingToolID {
				log.Warn("Apache Kafka is not to be had here, kfake will be used", "error", err)
				return nil
			}
			return err
		},
		ClickHouseChild: func() error { _, err := cache.ClickHouse(ctx); return err },
		RedisChild:      func() error { _, err := cache.Redis(ctx); return err },
		TemporalChild:   func() error { _, err := cache.Temporal(ctx, o.SourceDir); return err },
		StoresTool:      func() error { _, err := cache.Stores(ctx, o.SourceDir); return err },
		IcebergRESTTool: func() error { _, err := cache.IcebergREST(ctx); return err },
		BigQueryChild: func() error {
			_, err := cache.BigQuery(ctx)
			if id, _ := fault.IDOf(err); id == noPythonID && all {
				log.Warn("the BigQuery emulator is not to be had here", "error", err)
				return nil
			}
			return err
		},
	}
	var errs []error
	for _, name := range names {
		if run[name] == nil {
			errs = append(errs, fmt.Errorf("nothing named %s can be installed", name))
			continue
		}
		g.Go(func() error {
			if err := run[name](); err != nil {
				return fmt.Errorf("installing %s: %w", name, err)
			}
			return nil
		})
	}
	return errors.Join(append(errs, g.Wait())...)
}
