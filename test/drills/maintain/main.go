// Command maintain is a drill: the stream commits to Iceberg every second while MaintainTable runs by schedule and by hand. The number of data files must stay bounded, the
// stream must never wait long for a commit, and in the end every row must be there once, as in ClickHouse. Its last line is "N passed, N failed".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/lakehouse"
	"millrace/test/drills/drill"
	"millrace/workers"
)

// tableName is the busiest one.
const tableName = "events_page"

// Bounds. A run every maintainEvery finds about as many files as the stream has committed since; a run takes some time, and one may be skipped because the last one still
// waits for a slow machine.
const (
	maintainEvery = 30 * time.Second
	mostFiles     = 120
	longestGap    = 5 * time.Second
	leftFiles     = 8 // sizes of an open day grow by tiers, and a file is not rewritten with much smaller ones
)

type options struct {
	bin     string
	traffic time.Duration
	rate    float64
	keep    bool
	broker  string
	store   string
}

func main() {
	embedded.MaybeChild()
	var o options
	flag.StringVar(&o.bin, "bin", "bin/millrace", "the program")
	flag.DurationVar(&o.traffic, "for", 4*time.Minute, "how long traffic lasts")
	flag.Float64Var(&o.rate, "rate", 60, "events per second")
	flag.StringVar(&o.broker, "broker", "kfake", "kfake or apache")
	flag.StringVar(&o.store, "store", "file", "where the warehouse is: file, or s3 or gs on a server of their own")
	flag.BoolVar(&o.keep, "keep", false, "keep the data directory")
	flag.Parse()
	drill.Main(func(ctx context.Context, d *drill.Drill) error { return run(ctx, d, o) })
}

func run(ctx context.Context, d *drill.Drill, o options) (err error) {
	dir, remove, err := drill.Folder("maintain", o.keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	p, err := drill.NewProgram(o.bin, dir,
		"MILLRACE_SINK__ICEBERG__COMMIT_INTERVAL=1s", "MILLRACE_SINK__ICEBERG__LANE_TIMEOUT=2s", "MILLRACE_BATCH__MAINTAIN_EVERY="+maintainEvery.String())
	if err != nil {
		return err
	}
	var store lakehouse.Settings // endpoints do not tell them
	if o.store != "file" {
		lake, err := embeddedtest.OpenLake(ctx, filepath.Join(dir, "lake"))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, lake.Close()) }()
		if p.Config, store, err = storeConfig(dir, lake, o.store); err != nil {
			return err
		}
	}
	stop, err := p.Up(ctx, "--broker", o.broker, "--rate", fmt.Sprint(o.rate), "--for", o.traffic.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	e, err := workers.LoadEndpoints(dir)
	if err != nil {
		return err
	}
	fmt.Printf("traffic of %g events/s for %s, commits every second, maintenance every %s, warehouse on %s\n", o.rate, o.traffic, maintainEvery, o.store)
	w, err := newWatch(ctx, e, store)
	if err != nil {
		return err
	}
	defer w.close()
	ended := make(chan error, 1)
	watching, endWatch := context.WithTimeout(ctx, o.traffic)
	defer endWatch()
	go func() { ended <- w.run(watching) }()
	if err := byHand(ctx, d, p, w, o.traffic/3); err != nil {
		endWatch()
		return errors.Join(err, <-ended)
	}
	if err := <-ended; err != nil {
		return err
	}
	w.report(d)
	return afterwards(ctx, d, p, w)
}

// storeConfig writes the configuration of a warehouse on an object store.
func storeConfig(dir string, lake *embeddedtest.Lake, kind string) (string, lakehouse.Settings, error) {
	warehouse, store := lake.Store(kind, "maintain")
	text, err := json.Marshal(map[string]any{"iceberg": map[string]any{"warehouse": warehouse, "store": store}}) // JSON is YAML
	path := filepath.Join(dir, "store.yaml")
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		return "", nil, fmt.Errorf("configuring a warehouse on %s: %w", kind, err)
	}
	return path, store, nil
}
