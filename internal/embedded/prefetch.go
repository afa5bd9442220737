package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"millrace/internal/embedded/install"
	"millrace/internal/fault"
)

// Installables names what Install can bring into the cache.
func Installables() []string {
	return []string{KafkaChild, ClickHouseChild, RedisChild, TemporalChild}
}

// Install brings servers into the cache ahead of their first start, side by side; without names all of them. Where Java cannot be had Kafka is left
// out: kfake needs no installation.
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
	if len(names) == 0 {
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
	}
	var errs []error
	for _, name := range names {
		if !slices.Contains(Installables(), name) {
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
