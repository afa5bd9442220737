package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/activities"
	"millrace/event"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/test/drills/drill"
	"millrace/workers"
)

// stores are looked at directly, and spoiled.
type stores struct {
	conn driver.Conn
	lake *lakehouse.Catalog
}

func openStores(ctx context.Context, dir string) (*stores, error) {
	e, err := workers.LoadEndpoints(dir)
	if err != nil {
		return nil, err
	}
	cfg, err := workers.Load("", map[string]any{"data": dir})
	if err != nil {
		return nil, err
	}
	cfg.Fill(e)
	s := &stores{}
	if s.conn, err = olap.Open(ctx, cfg.ClickHouse); err != nil {
		return nil, err
	}
	if s.lake, err = lakehouse.Open(ctx, cfg.Iceberg); err != nil {
		return nil, errors.Join(err, s.conn.Close())
	}
	return s, nil
}

func (s *stores) close() {
	_ = s.conn.Close() // only read
	_ = s.lake.Close()
}

// sums is what the stores hold.
type sums struct {
	clickhouse, iceberg event.Checksum
	distinct            uint64
	columns             uint64 // of every column of every row, in ClickHouse
	snapshot            int64
	mark                uint64 // of the parts of ClickHouse: it moves with every write
}

func (s *stores) sums(ctx context.Context) (sums, error) {
	var out sums
	err := s.conn.QueryRow(ctx, "SELECT toInt64(count()), toInt64(sum(bitAnd(row_hash, 0xffffffff))), toInt64(sum(bitAnd(bitShiftRight(row_hash, 32), 0xffffffff))), uniqExact(tenant, source, event_id), sum(cityHash64(toString(tuple(*)))) FROM "+tableName).
		Scan(&out.clickhouse.Count, &out.clickhouse.HashLo, &out.clickhouse.HashHi, &out.distinct, &out.columns)
	if err != nil {
		return out, fmt.Errorf("adding up ClickHouse: %w", err)
	}
	if err := s.conn.QueryRow(ctx, "SELECT toUInt64(toUInt64(max(max_block_number)) + max(data_version)) FROM system.parts WHERE active AND database = currentDatabase() AND table = ?", tableName).Scan(&out.mark); err != nil {
		return out, fmt.Errorf("reading the parts of ClickHouse: %w", err)
	}
	totals, err := s.lake.Totals(ctx, tableName)
	if err != nil {
		return out, err
	}
	out.iceberg = totals.Checksum
	h, err := s.lake.Head(ctx, tableName)
	out.snapshot = h.SnapshotID
	return out, err
}

// settle waits until both stores hold what the control totals count, and these are closed.
func (s *stores) settle(ctx context.Context) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		var want event.Checksum
		if err := s.conn.QueryRow(ctx, "SELECT toInt64(sum(count)), toInt64(sum(hash_lo)), toInt64(sum(hash_hi)) FROM event_ledger FINAL WHERE raw_topic = ?", rawName).Scan(&want.Count, &want.HashLo, &want.HashHi); err != nil {
			return fmt.Errorf("reading the control totals: %w", err)
		}
		have, err := s.sums(ctx)
		if err == nil && want.Count > 3*(deleted+doubled) && have.clickhouse == want && have.iceberg == want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the stores do not settle: control totals %+v, ClickHouse %+v, Iceberg %+v, %w", want, have.clickhouse, have.iceberg, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

type place struct {
	partition int32
	offset    int64
}

// harm is what was done to the stores.
type harm struct {
	deleted, doubled map[place]bool
	rolled           int64
}

// places picks rows, spread over the table.
func (s *stores) places(ctx context.Context, order string, n int) (map[place]bool, error) {
	rows, err := s.conn.Query(ctx, fmt.Sprintf("SELECT raw_partition, raw_offset FROM %s ORDER BY sipHash64(event_id) %s LIMIT %d", tableName, order, n))
	if err != nil {
		return nil, fmt.Errorf("choosing rows: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	out := map[place]bool{}
	for rows.Next() {
		var p place
		if err := rows.Scan(&p.partition, &p.offset); err != nil {
			return nil, fmt.Errorf("choosing rows: %w", err)
		}
		out[p] = true
	}
	return out, rows.Err()
}

func among(places map[place]bool) string {
	list := make([]string, 0, len(places))
	for p := range places {
		list = append(list, fmt.Sprintf("(%d, %d)", p.partition, p.offset))
	}
	return "(raw_partition, raw_offset) IN (" + strings.Join(list, ", ") + ")"
}

// spoil deletes and doubles rows in ClickHouse, and rolls the Iceberg table back as an operator would.
func (s *stores) spoil(ctx context.Context, p drill.Program) (h harm, err error) {
	if h.deleted, err = s.places(ctx, "", deleted); err != nil {
		return h, err
	}
	if h.doubled, err = s.places(ctx, "DESC", doubled); err != nil {
		return h, err
	}
	if err := s.conn.Exec(ctx, "DELETE FROM "+tableName+" WHERE "+among(h.deleted)+" SETTINGS lightweight_deletes_sync = 2"); err != nil {
		return h, fmt.Errorf("deleting rows: %w", err)
	}
	if err := s.conn.Exec(ctx, "INSERT INTO "+tableName+" SELECT * FROM "+tableName+" WHERE "+among(h.doubled)); err != nil {
		return h, fmt.Errorf("doubling rows: %w", err)
	}
	log, err := s.lake.Log(ctx, tableName, lakehouse.RefMain, 0)
	if err != nil {
		return h, err
	}
	if len(log) < 3 {
		return h, fmt.Errorf("table %s has %d snapshots", tableName, len(log))
	}
	before, err := s.lake.Head(ctx, tableName)
	if err != nil {
		return h, err
	}
	if _, err := p.Call(ctx, "lake", "rollback", tableName, "--to", strconv.FormatInt(log[len(log)/2].SnapshotID, 10), "--skip"); err != nil {
		return h, err
	}
	after, err := s.lake.Head(ctx, tableName)
	h.rolled = before.Rows - after.Rows
	return h, err
}

// exactly says how the differences that were noted of ClickHouse differ from what was spoiled.
func (s *stores) exactly(ctx context.Context, h harm) (string, error) {
	rows, err := s.conn.Query(ctx, "SELECT kind, raw_partition, raw_from, raw_to, count FROM reconcile_differences FINAL WHERE store = 'clickhouse' AND state = 'open'")
	if err != nil {
		return "", fmt.Errorf("reading the differences: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	named := map[string]map[place]bool{"missing": {}, "duplicate": {}}
	for rows.Next() {
		var kind string
		var partition int32
		var from, to, count int64
		if err := rows.Scan(&kind, &partition, &from, &to, &count); err != nil {
			return "", fmt.Errorf("reading the differences: %w", err)
		}
		if count != to-from { // each run is of neighbouring offsets
			return fmt.Sprintf("(%s %d/[%d, %d) counts %d)", kind, partition, from, to, count), nil
		}
		for o := from; o < to; o++ {
			named[kind][place{partition, o}] = true
		}
	}
	if err := rows.Err(); err != nil {
		return "", fmt.Errorf("reading the differences: %w", err)
	}
	for kind, want := range map[string]map[place]bool{"missing": h.deleted, "duplicate": h.doubled} {
		if len(named[kind]) != len(want) {
			return fmt.Sprintf("(%d are named %s, %d were spoiled)", len(named[kind]), kind, len(want)), nil
		}
		for p := range want {
			if !named[kind][p] {
				return fmt.Sprintf("(%s/%d@%d is not named %s)", rawName, p.partition, p.offset, kind), nil
			}
		}
	}
	return "", nil
}

// where asks for a row that was brought back, and for one that was never there.
func (s *stores) where(ctx context.Context, d *drill.Drill, p drill.Program, h harm) error {
	for at := range h.deleted {
		text, err := p.Call(ctx, "where", fmt.Sprintf("%s/%d@%d", rawName, at.partition, at.offset), "-o", "json")
		if err != nil {
			return err
		}
		var w activities.Whereabouts
		if err := json.Unmarshal(text, &w); err != nil {
			return fmt.Errorf("where answered %q: %w", text, err)
		}
		d.Check(!w.Nowhere && len(w.ClickHouse) == 1 && len(w.Iceberg) == 1 && w.Kafka == "held" && w.Ledger != nil, "millrace where finds a row that was brought back: %s", w.Answer)
		break
	}
	var partition int32
	var offset int64
	if err := s.conn.QueryRow(ctx, "SELECT raw_partition, raw_from FROM event_ledger FINAL WHERE raw_topic = ? AND duplicates > 0 LIMIT 1", rawName).Scan(&partition, &offset); err != nil {
		return fmt.Errorf("looking for a duplicate: %w", err)
	}
	have := map[int64]bool{}
	rows, err := s.conn.Query(ctx, "SELECT raw_offset FROM "+tableName+" WHERE raw_partition = ? AND raw_offset >= ?", partition, offset)
	if err != nil {
		return fmt.Errorf("looking for a duplicate: %w", err)
	}
	for rows.Next() {
		var o int64
		if err := rows.Scan(&o); err != nil {
			return fmt.Errorf("looking for a duplicate: %w", err)
		}
		have[o] = true
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("looking for a duplicate: %w", err)
	}
	for have[offset] {
		offset++
	}
	text, err := p.Call(ctx, "where", fmt.Sprintf("%s/%d@%d", rawName, partition, offset), "-o", "json")
	if err != nil {
		return err
	}
	var w activities.Whereabouts
	if err := json.Unmarshal(text, &w); err != nil {
		return fmt.Errorf("where answered %q: %w", text, err)
	}
	d.Check(w.Nowhere && len(w.Copies) > 0 || w.Failed != "", "and says of a duplicate, or of a failed event: %s", w.Answer)
	return nil
}
