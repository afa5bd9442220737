package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/apache/iceberg-go/table"

	"millrace/event"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/test/drills/drill"
	"millrace/workers"
	"millrace/workflows/name"
)

// watch looks at the table all the time.
type watch struct {
	cat  *lakehouse.Catalog
	conn driver.Conn

	mu       sync.Mutex
	last     seen
	most     int64
	appends  map[int64]time.Time // snapshots of the stream, by id
	rewrites map[int64]time.Time // snapshots of maintenance
}

type seen struct{ files, rows int64 }

func newWatch(ctx context.Context, e workers.Endpoints, store lakehouse.Settings) (*watch, error) {
	cfg := workers.DefaultConfig()
	cfg.Fill(e)
	cfg.Iceberg.Store = store
	cat, err := lakehouse.Open(ctx, cfg.Iceberg)
	if err != nil {
		return nil, err
	}
	conn, err := olap.Open(ctx, cfg.ClickHouse)
	if err != nil {
		return nil, errors.Join(err, cat.Close())
	}
	return &watch{cat: cat, conn: conn, appends: map[int64]time.Time{}, rewrites: map[int64]time.Time{}}, nil
}

func (w *watch) close() {
	_ = w.conn.Close() // only reads
	_ = w.cat.Close()  // only reads
}

func (w *watch) now() seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

func (w *watch) run(ctx context.Context) error {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	shown := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		t, err := w.cat.Load(ctx, tableName)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		w.note(t)
		if time.Since(shown) > 20*time.Second {
			shown = time.Now()
			s := w.now()
			fmt.Printf("  %d rows in %d files, %d commits of the stream, %d of maintenance\n", s.rows, s.files, len(w.appends), len(w.rewrites))
		}
	}
}

func (w *watch) note(t *table.Table) {
	head := t.CurrentSnapshot()
	if head == nil || head.Summary == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p := head.Summary.Properties
	w.last = seen{p.GetInt64("total-data-files", 0), p.GetInt64("total-records", 0)}
	w.most = max(w.most, w.last.files)
	for _, s := range t.Metadata().Snapshots() {
		switch {
		case s.Summary == nil:
		case s.Summary.Operation == table.OpAppend:
			w.appends[s.SnapshotID] = time.UnixMilli(s.TimestampMs)
		default:
			w.rewrites[s.SnapshotID] = time.UnixMilli(s.TimestampMs)
		}
	}
}

// report says what was seen while there was traffic.
func (w *watch) report(d *drill.Drill) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var at []time.Time
	for _, t := range w.appends {
		at = append(at, t)
	}
	slices.SortFunc(at, time.Time.Compare)
	var gap, beside time.Duration // beside a commit of maintenance
	var gaps []time.Duration
	for i := 1; i < len(at); i++ {
		g := at[i].Sub(at[i-1])
		gaps, gap = append(gaps, g), max(gap, g)
		for _, r := range w.rewrites {
			if r.After(at[i-1]) && r.Before(at[i]) {
				beside = max(beside, g)
			}
		}
	}
	slices.Sort(gaps)
	median := time.Duration(0)
	if len(gaps) > 0 {
		median = gaps[len(gaps)/2]
	}
	d.Check(len(at) > 30, "the stream committed %d times, every %s in the median", len(at), median)
	d.Check(gap <= longestGap && len(at) > 1, "the longest time between two commits of the stream is %s, at most %s (around a commit of maintenance %s)", gap, longestGap, beside)
	d.Check(w.most <= mostFiles, "%d data files at most, of %d committed; %d are allowed", w.most, len(at), mostFiles)
	d.Check(len(w.rewrites) >= 3, "maintenance committed %d times", len(w.rewrites))
}

// afterwards compares the stores when the traffic has arrived, and reads what the runs have noted.
func afterwards(ctx context.Context, d *drill.Drill, p drill.Program, w *watch) error {
	deadline := time.Now().Add(2 * time.Minute)
	var ice lakehouse.Totals
	var click event.Checksum
	for {
		var err error
		if ice, err = w.cat.Totals(ctx, tableName); err != nil {
			return err
		}
		var count, lo, hi int64
		err = w.conn.QueryRow(ctx, "SELECT toInt64(count()), toInt64(sum(bitAnd(row_hash, 0xffffffff))), toInt64(sum(bitAnd(bitShiftRight(row_hash, 32), 0xffffffff))) FROM "+tableName).Scan(&count, &lo, &hi)
		if err != nil {
			return fmt.Errorf("reading ClickHouse: %w", err)
		}
		click = event.Checksum{Count: count, HashLo: lo, HashHi: hi}
		if click == ice.Checksum && count > 0 || time.Now().After(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	d.Check(click == ice.Checksum && ice.Distinct == ice.Checksum.Count, "every row is there once, as in ClickHouse: Iceberg %+v, %d distinct, ClickHouse %+v", ice.Checksum, ice.Distinct, click)
	if _, err := p.Call(ctx, "schedules", "pause", name.MaintainID(tableName)); err != nil {
		return err
	}
	before := w.now()
	for range 2 { // the first may join a scheduled run, which leaves more
		if _, err := p.Call(ctx, "workflows", "start", name.MaintainTable, "--input", fmt.Sprintf(`{"table": %q, "min_input_files": 2}`, tableName), "--wait"); err != nil {
			return err
		}
	}
	again, err := w.cat.Totals(ctx, tableName)
	if err != nil {
		return err
	}
	head, err := w.cat.Head(ctx, tableName)
	if err != nil {
		return err
	}
	d.Check(again.Checksum == ice.Checksum && head.Files <= leftFiles, "a last run leaves %d of %d files, at most %d, with the same %d rows", head.Files, before.files, leftFiles, again.Checksum.Count)
	var runs, lane, direct, failed int64
	err = w.conn.QueryRow(ctx, `SELECT toInt64(countIf(outcome = 'done' AND trigger = 'schedule')), toInt64(sum(numbers['commits_lane'])), toInt64(sum(numbers['commits_direct'])), toInt64(countIf(outcome = 'failed'))
		FROM workflow_runs FINAL WHERE table_name = ?`, tableName).Scan(&runs, &lane, &direct, &failed)
	if err != nil {
		return fmt.Errorf("reading workflow_runs: %w", err)
	}
	d.Check(runs >= 2 && failed == 0, "%d runs by schedule are done, %d failed", runs, failed)
	d.Check(lane >= 3 && direct == 0, "%d commits went through the stream's committer, %d directly", lane, direct)
	return nil
}
