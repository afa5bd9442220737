// Command erase is a drill: a thousand persons are taken out of millions of rows by the workflow itself, on a virtual clock that passes its dates. Other engines look for
// them, in every ref when no reader is to find them any more, and in every file on disk when no file is to have them. Then what could bring them back is run: the topics
// are read again by new sinks, Redis is rebuilt. Its last line is "N passed, N failed".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"millrace/internal/embedded"
	"millrace/test/drills/drill"
)

type options struct {
	rows     int
	subjects int
	replayed int
	keep     bool
}

func main() {
	embedded.MaybeChild()
	var o options
	flag.IntVar(&o.rows, "rows", 1_000_000, "rows in ClickHouse and in Iceberg; 20000000 is the full scale")
	flag.IntVar(&o.subjects, "subjects", 1000, "persons to be erased")
	flag.IntVar(&o.replayed, "replayed", 20_000, "rows that the topics still hold")
	flag.BoolVar(&o.keep, "keep", false, "keep the data directory")
	flag.Parse()
	drill.Main(func(ctx context.Context, d *drill.Drill) error { return run(ctx, d, o) })
}

func run(ctx context.Context, d *drill.Drill, o options) (err error) {
	python, err := peers(ctx)
	if err != nil {
		return err
	}
	dir, remove, err := drill.Folder("erase", o.keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	p, err := start(ctx, dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	p.python = python
	began := time.Now()
	if err := p.fill(ctx); err != nil {
		return err
	}
	fmt.Printf("%d rows of %d visitors in each of two stores, %d of them also in the topics, %s\n", o.rows, p.visitors(), o.replayed, time.Since(began).Round(time.Second))
	before, err := p.scan(ctx, "refs")
	if err != nil {
		return err
	}
	d.Check(total(before) > 0, "before: DuckDB finds %d rows of the subjects in %d refs", total(before), refs(before))
	p.expect(ctx, d)
	if err := p.erase(ctx, d); err != nil {
		return err
	}
	if err := p.certificates(ctx, d); err != nil {
		return err
	}
	return p.again(ctx, d)
}
