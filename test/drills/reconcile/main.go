// Command reconcile is a drill: a platform stores traffic, then rows are deleted and doubled in ClickHouse and an Iceberg table is rolled back with --skip. Reconcile has to
// name exactly those rows and to mend both stores, and a second run has to change nothing. Its last line is "N passed, N failed".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"time"

	"millrace/test/drills/drill"
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
	drill.Main(func(ctx context.Context, d *drill.Drill) error { return run(ctx, d, o) })
}

func run(ctx context.Context, d *drill.Drill, o options) (err error) {
	dir, remove, err := drill.Folder("reconcile", o.keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	p, err := drill.NewProgram(o.bin, dir,
		"MILLRACE_SINK__ICEBERG__COMMIT_INTERVAL=1s", "MILLRACE_BATCH__MAINTAIN_EVERY=0s", "MILLRACE_BATCH__RECONCILE_EVERY=0s", "MILLRACE_BATCH__NIGHTLY_EVERY=0s", "MILLRACE_HOT__LEDGER_IDLE=2s")
	if err != nil {
		return err
	}
	stop, err := p.Up(ctx, "--broker", o.broker, "--no-simulate")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	began := time.Now().UTC().Truncate(time.Hour)
	if _, err := p.Call(ctx, "simulate", "--events", strconv.Itoa(o.events), "--rate", "1500", "--seed", "7"); err != nil {
		return err
	}
	s, err := openStores(ctx, dir)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.settle(ctx); err != nil {
		return err
	}
	hours := []string{}
	for at := began; !at.After(time.Now().UTC()); at = at.Add(time.Hour) {
		hours = append(hours, at.Format(name.HourForm))
	}
	whole, err := s.sums(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%d rows of %s are in both stores, taken in %d hour(s)\n", whole.clickhouse.Count, tableName, len(hours))

	before, err := reconcile(ctx, p, hours, false)
	if err != nil {
		return err
	}
	d.Check(before.outcome == name.Equal, "before anything is spoiled the stores are %s", before.outcome)

	harm, err := s.spoil(ctx, p)
	if err != nil {
		return err
	}
	fmt.Printf("%d rows are deleted and %d doubled in ClickHouse; the rollback took %d rows from Iceberg\n", len(harm.deleted), len(harm.doubled), harm.rolled)
	named, err := reconcile(ctx, p, hours, false)
	if err != nil {
		return err
	}
	ch, ice := named.of("clickhouse"), named.of("iceberg")
	d.Check(named.outcome == name.Differs && ch[name.KindMissing] == deleted && ch[name.KindDuplicate] == doubled && len(ch) == 2, "Reconcile names %v in ClickHouse", ch)
	d.Check(ice[name.KindMissing] == harm.rolled && len(ice) == 1, "and %v in Iceberg", ice)
	exact, err := s.exactly(ctx, harm)
	if err != nil {
		return err
	}
	d.Check(exact == "", "they are exactly the rows that were spoiled %s", exact)

	mended, err := reconcile(ctx, p, hours, true)
	if err != nil {
		return err
	}
	d.Check(mended.outcome == name.Mended && mended.repaired["clickhouse"] == deleted+doubled && mended.repaired["iceberg"] == harm.rolled, "with --repair it mends %v rows: %s", mended.repaired, mended.outcome)
	after, err := s.sums(ctx)
	if err != nil {
		return err
	}
	d.Check(after.clickhouse == whole.clickhouse && after.iceberg == whole.iceberg, "both stores have the rows and the checksum that they had: %+v", after.clickhouse)
	d.Check(after.distinct == whole.distinct && after.columns == whole.columns, "every column of every row is as it was")

	again, err := reconcile(ctx, p, hours, true)
	if err != nil {
		return err
	}
	last, err := s.sums(ctx)
	if err != nil {
		return err
	}
	d.Check(again.outcome == name.Equal && len(again.repaired) == 0 && last == after, "a second run finds the stores %s and changes nothing: snapshot %d, mark %d", again.outcome, last.snapshot, last.mark)

	return s.where(ctx, d, p, harm)
}
