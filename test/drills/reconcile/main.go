// Command reconcile is a drill: a platform stores traffic, then rows are deleted and doubled in ClickHouse and an Iceberg table is rolled back with --skip. Reconcile has to
// name exactly those rows and to mend both stores, and a second run has to change nothing. Its last line is "N passed, N failed".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"millrace/workflows/name"
)

// What is spoiled.
const (
	topicName = "events.page"
	rawName   = "raw.page"
	tableName = "events_page"
	deleted   = 1000
	doubled   = 500
)

type options struct {
	bin    string
	events int
	broker string
	keep   bool
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin/millrace", "the program")
	flag.IntVar(&o.events, "events", 20_000, "events of traffic")
	flag.StringVar(&o.broker, "broker", "kfake", "kfake or apache")
	flag.BoolVar(&o.keep, "keep", false, "keep the data directory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d, err := run(ctx, o)
	if err != nil {
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

func run(ctx context.Context, o options) (d drill, err error) {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return d, fmt.Errorf("finding %s: %w", o.bin, err)
	}
	dir, err := os.MkdirTemp("", "millrace-reconcile-")
	if err != nil {
		return d, fmt.Errorf("making a data directory: %w", err)
	}
	p := program{bin: bin, data: dir, env: []string{
		"MILLRACE_SINK__ICEBERG__COMMIT_INTERVAL=1s", "MILLRACE_BATCH__MAINTAIN_EVERY=0s", "MILLRACE_BATCH__RECONCILE_EVERY=0s", "MILLRACE_BATCH__NIGHTLY_EVERY=0s", "MILLRACE_HOT__LEDGER_IDLE=2s",
	}}
	if !o.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if _, err := p.call(ctx, "up", "--detach", "--broker", o.broker, "--no-simulate"); err != nil {
		return d, err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		_, stopErr := p.call(down, "down")
		err = errors.Join(err, stopErr)
	}()
	began := time.Now().UTC().Truncate(time.Hour)
	if _, err := p.call(ctx, "simulate", "--events", strconv.Itoa(o.events), "--rate", "1500", "--seed", "7"); err != nil {
		return d, err
	}
	s, err := openStores(ctx, dir)
	if err != nil {
		return d, err
	}
	defer s.close()
	if err := s.settle(ctx); err != nil {
		return d, err
	}
	hours := []string{}
	for at := began; !at.After(time.Now().UTC()); at = at.Add(time.Hour) {
		hours = append(hours, at.Format(name.HourForm))
	}
	whole, err := s.sums(ctx)
	if err != nil {
		return d, err
	}
	fmt.Printf("%d rows of %s are in both stores, taken in %d hour(s)\n", whole.clickhouse.Count, tableName, len(hours))

	before, err := reconcile(ctx, p, hours, false)
	if err != nil {
		return d, err
	}
	d.check(before.outcome == name.Equal, "before anything is spoiled the stores are %s", before.outcome)

	harm, err := s.spoil(ctx, p)
	if err != nil {
		return d, err
	}
	fmt.Printf("%d rows are deleted and %d doubled in ClickHouse; the rollback took %d rows from Iceberg\n", len(harm.deleted), len(harm.doubled), harm.rolled)
	named, err := reconcile(ctx, p, hours, false)
	if err != nil {
		return d, err
	}
	ch, ice := named.of("clickhouse"), named.of("iceberg")
	d.check(named.outcome == name.Differs && ch[name.KindMissing] == deleted && ch[name.KindDuplicate] == doubled && len(ch) == 2, "Reconcile names %v in ClickHouse", ch)
	d.check(ice[name.KindMissing] == harm.rolled && len(ice) == 1, "and %v in Iceberg", ice)
	exact, err := s.exactly(ctx, harm)
	if err != nil {
		return d, err
	}
	d.check(exact == "", "they are exactly the rows that were spoiled %s", exact)

	mended, err := reconcile(ctx, p, hours, true)
	if err != nil {
		return d, err
	}
	d.check(mended.outcome == name.Mended && mended.repaired["clickhouse"] == deleted+doubled && mended.repaired["iceberg"] == harm.rolled, "with --repair it mends %v rows: %s", mended.repaired, mended.outcome)
	after, err := s.sums(ctx)
	if err != nil {
		return d, err
	}
	d.check(after.clickhouse == whole.clickhouse && after.iceberg == whole.iceberg, "both stores have the rows and the checksum that they had: %+v", after.clickhouse)
	d.check(after.distinct == whole.distinct && after.columns == whole.columns, "every column of every row is as it was")

	again, err := reconcile(ctx, p, hours, true)
	if err != nil {
		return d, err
	}
	last, err := s.sums(ctx)
	if err != nil {
		return d, err
	}
	d.check(again.outcome == name.Equal && len(again.repaired) == 0 && last == after, "a second run finds the stores %s and changes nothing: snapshot %d, mark %d", again.outcome, last.snapshot, last.mark)

	return d, s.where(ctx, &d, p, harm)
}
