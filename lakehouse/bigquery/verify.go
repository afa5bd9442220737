package bigquery

import (
	"context"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	bq "cloud.google.com/go/bigquery"

	"millrace/event"
	"millrace/internal/fault"
)

// Difference is a day of which BigQuery has other rows than the lake.
type Difference struct {
	Day      string         `json:"day"`
	Lake     event.Checksum `json:"lake"`
	BigQuery event.Checksum `json:"bigquery"`
}

// Verification says what a comparison found.
type Verification struct {
	Table       string         `json:"table"`
	SnapshotID  int64          `json:"snapshot_id"`
	Days        int            `json:"days"`
	Rows        event.Checksum `json:"rows"` // of the lake
	Held        int64          `json:"held"` // rows of erased subjects, which the lake still has
	Differences []Difference   `json:"differences"`
}

// Verify compares BigQuery with the snapshot of the lake that was loaded last: count and sums of row_hash, by day. No days are all days. Rows of erased subjects count on
// neither side of the lake's sums.
func (s *Store) Verify(ctx context.Context, name string, days []string, ledger Ledger, note func(state string, rows int64)) (Verification, error) {
	out := Verification{Table: name, Differences: []Difference{}}
	err := s.verify(ctx, name, days, ledger, note, &out)
	if err != nil {
		err = classify(fmt.Errorf("comparing table %s with BigQuery: %w", name, err))
	}
	return out, err
}

func (s *Store) verify(ctx context.Context, name string, days []string, ledger Ledger, note func(state string, rows int64), out *Verification) error {
	if note == nil {
		note = func(string, int64) {}
	}
	var only []int32
	for _, text := range days {
		day, err := time.Parse(time.DateOnly, text)
		if err != nil {
			return fault.Newf(rangeID, "%q is no day as 2026-03-01", text)
		}
		only = append(only, int32(day.Unix()/86_400))
	}
	slices.Sort(only)
	at, err := s.readPosition(ctx, name)
	if err != nil || at == nil || at.SnapshotID == 0 {
		return err
	}
	out.SnapshotID = at.SnapshotID
	t, err := s.lake.Load(ctx, name)
	if err != nil {
		return err
	}
	snap, err := snapshotOf(ctx, t, at.SnapshotID)
	if err != nil {
		return err
	}
	var erased *event.Erased
	if ledger != nil {
		if erased, err = ledger(ctx); err != nil {
			return fmt.Errorf("reading the ledger of erasures: %w", err)
		}
	}
	lake := map[int32]event.Checksum{}
	var seen int64
	for _, task := range snap.without(snapshot{}) {
		if day, ok := snap.dayOf(task.File); ok && len(only) > 0 && !slices.Contains(only, day) {
			continue
		}
		tl, err := tallyOf(ctx, snap, task, nil, erased)
		if err != nil {
			return err
		}
		addAll(lake, tl.fresh)
		out.Held += tl.held
		seen += task.File.Count()
		note("adding up the lake", seen)
	}
	note("adding up BigQuery", seen)
	have, err := s.daySums(ctx, name, only)
	if err != nil {
		return err
	}
	all := maps.Clone(lake)
	maps.Copy(all, have)
	for _, day := range slices.Sorted(maps.Keys(all)) {
		if len(only) > 0 && !slices.Contains(only, day) {
			continue
		}
		out.Days++
		out.Rows = add(out.Rows, lake[day])
		if lake[day] != have[day] {
			out.Differences = append(out.Differences, Difference{dayText(day), lake[day], have[day]})
		}
	}
	return nil
}

// daySums adds up the rows of a table by day; no days are all days, which are sorted.
func (s *Store) daySums(ctx context.Context, name string, days []int32) (map[int32]event.Checksum, error) {
	sql := fmt.Sprintf("SELECT DATE_DIFF(DATE(ingested_at), DATE '1970-01-01', DAY) AS day, COUNT(*), SUM(CAST(%s AS NUMERIC)), SUM(CAST(%s AS NUMERIC)) FROM %s", hashLo, hashHi, s.name(s.cfg.Dataset, name))
	if len(days) > 0 {
		sql += " WHERE " + within(days)
	}
	rows, err := s.rows(ctx, sql+" GROUP BY day")
	if err != nil {
		return nil, fmt.Errorf("adding up the rows of BigQuery: %w", err)
	}
	out := map[int32]event.Checksum{}
	for _, r := range rows {
		if len(r) != 4 {
			return nil, fmt.Errorf("adding up the rows of BigQuery: %d columns", len(r))
		}
		day, ok1 := r[0].(int64)
		count, ok2 := r[1].(int64)
		lo, ok3 := whole(r[2])
		hi, ok4 := whole(r[3])
		if !ok1 || !ok2 || !ok3 || !ok4 {
			return nil, fmt.Errorf("adding up the rows of BigQuery: columns of types %T, %T, %T, %T", r[0], r[1], r[2], r[3])
		}
		out[int32(day)] = event.Checksum{Count: count, HashLo: lo, HashHi: hi}
	}
	return out, nil
}

func whole(v bq.Value) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case *big.Rat:
		if v.IsInt() && v.Num().IsInt64() {
			return v.Num().Int64(), true
		}
	}
	return 0, false
}
