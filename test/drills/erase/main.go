// Command erase is a drill: a thousand persons are taken out of millions of rows by the workflow itself, on a virtual clock that passes its dates. Other engines look for
// them, in every ref when no reader is to find them any more, and in every file on disk when no file is to have them. Then what could bring them back is run: the topics
// are read again by new sinks, Redis is rebuilt. Its last line is "N passed, N failed".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"millrace/internal/embedded"
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &drill{}
	if err := run(ctx, d, o); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		d.failed++
	}
	fmt.Printf("%d passed, %d failed\n", d.passed, d.failed)
	if d.failed > 0 || d.passed == 0 {
		os.Exit(1)
	}
}

// drill counts what held and what did not.
type drill struct{ passed, failed int }

func (d *drill) check(ok bool, format string, a ...any) {
	word := "PASS"
	if ok {
		d.passed++
	} else {
		d.failed++
		word = "FAIL"
	}
	fmt.Printf("%s %s\n", word, fmt.Sprintf(format, a...))
}

func run(ctx context.Context, d *drill, o options) (err error) {
	python, err := peers(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "millrace-erase-")
	if err != nil {
		return fmt.Errorf("making a data directory: %w", err)
	}
	if !o.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
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
	d.check(total(before) > 0, "before: DuckDB finds %d rows of the subjects in %d refs", total(before), refs(before))
	p.expect(ctx, d)
	if err := p.erase(ctx, d); err != nil {
		return err
	}
	if err := p.certificates(ctx, d); err != nil {
		return err
	}
	return p.again(ctx, d)
}
