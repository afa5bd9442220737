package activities

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"millrace/event"
	"millrace/event/schema"
	"millrace/lakehouse"
	"millrace/workflows/name"
)

// rawTopicOf is the raw topic whose control totals count the rows of a table; "" if nothing counts them.
func rawTopicOf(table string) string {
	for _, c := range event.Categories() {
		if c.Table() == table {
			return c.RawTopic()
		}
	}
	if t, err := schema.TableNamed(table); err == nil && !t.Counted {
		return ""
	}
	return event.TopicRawFailed
}

// totals reads the control totals of a table that end behind what is covered, and when the first of them begin. Rows are compared by version and not by FINAL: on a
// cluster the copies of a row may be on several shards.
func (p *Publish) totals(ctx context.Context, table string, covered map[lakehouse.RawPartition]int64) ([]lakehouse.ControlRange, time.Time, error) {
	topic := rawTopicOf(table)
	if topic == "" {
		return nil, time.Time{}, nil
	}
	rows, err := p.conn.Query(ctx, `SELECT raw_partition, raw_from, argMax(raw_to, version), argMax(count, version), argMax(hash_lo, version), argMax(hash_hi, version), argMax(ingested_from, version)
		FROM event_ledger WHERE raw_topic = ? AND out_topic = ? GROUP BY raw_partition, raw_from`, topic, outTopicOf(table))
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("reading the control totals of %s: %w", table, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	var out []lakehouse.ControlRange
	var first time.Time
	for rows.Next() {
		r := lakehouse.ControlRange{RawPartition: lakehouse.RawPartition{Topic: topic}}
		var from time.Time
		if err := rows.Scan(&r.Partition, &r.From, &r.To, &r.Want.Count, &r.Want.HashLo, &r.Want.HashHi, &from); err != nil {
			return nil, time.Time{}, fmt.Errorf("reading the control totals of %s: %w", table, err)
		}
		if r.To <= covered[r.RawPartition] {
			continue
		}
		out = append(out, r)
		if first.IsZero() || from.Before(first) {
			first = from
		}
	}
	if err := rows.Err(); err != nil {
		return nil, time.Time{}, fmt.Errorf("reading the control totals of %s: %w", table, err)
	}
	return out, first, nil
}

func outTopicOf(table string) string {
	for _, c := range event.Categories() {
		if c.Table() == table {
			return c.EventsTopic()
		}
	}
	return event.TopicEventsFailed
}

// covered reads how far the snapshot that is published was compared with the control totals. Not known: it was published elsewhere, or the note is lost.
func (p *Publish) covered(ctx context.Context, table string, snapshot int64) (map[lakehouse.RawPartition]int64, bool, error) {
	rows, err := p.conn.Query(ctx, `SELECT covered FROM publications WHERE table_name = ? AND to_snapshot = ? AND outcome IN (?, ?, ?) ORDER BY version DESC LIMIT 1`,
		table, snapshot, name.Published, name.Approved, name.Unchanged)
	if err != nil {
		return nil, false, fmt.Errorf("reading publications of %s: %w", table, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	out, known := map[lakehouse.RawPartition]int64{}, false
	for rows.Next() {
		var text map[string]int64
		if err := rows.Scan(&text); err != nil {
			return nil, false, fmt.Errorf("reading publications of %s: %w", table, err)
		}
		for at, n := range text {
			i := strings.LastIndexByte(at, '/')
			part, err := strconv.ParseInt(at[i+1:], 10, 32)
			if i < 0 || err != nil {
				return nil, false, fmt.Errorf("publications of %s: %q is no partition", table, at)
			}
			out[lakehouse.RawPartition{Topic: at[:i], Partition: int32(part)}] = n
		}
		known = len(text) > 0
	}
	if err := rows.Err(); err != nil {
		return nil, false, fmt.Errorf("reading publications of %s: %w", table, err)
	}
	return out, known, nil
}

// Numbers of ranges that lack rows for a known reason.
const (
	checkQuarantined = "rows_quarantined"
	checkErased      = "rows_erased"
)

// excuse takes out of a result what lacks rows for a reason: rows that are in quarantine are counted as if they were here, and a range below the cut of an erasure may lack
// rows that ClickHouse lacks as well, which holds the same events by a way of its own.
func (p *Publish) excuse(ctx context.Context, table string, res *lakehouse.CheckResult) error {
	if len(res.Differ) == 0 {
		return nil
	}
	n, err := p.lake.AddQuarantined(ctx, table, res.Differ)
	if err != nil {
		return err
	}
	res.Numbers[checkQuarantined] = n
	var erased *event.Erased
	if p.erased != nil {
		if erased, err = p.erased.Erased(ctx); err != nil {
			return err
		}
	}
	byPart := map[lakehouse.RawPartition][]int{}
	for i, r := range res.Differ {
		if r.Found.Count < r.Want.Count && erased.Below(r.Topic, r.Partition, r.From) {
			byPart[r.RawPartition] = append(byPart[r.RawPartition], i)
		}
	}
	same := map[int]bool{}
	for at, which := range byPart {
		if err := p.alsoMissing(ctx, table, at, res.Differ, which, same); err != nil {
			return err
		}
	}
	var left []lakehouse.RangeResult
	res.Numbers[lakehouse.CheckDiffer], res.Numbers[lakehouse.CheckMissing], res.Numbers[lakehouse.CheckSurplus] = 0, 0, 0
	for i, r := range res.Differ {
		switch {
		case r.Found == r.Want:
		case same[i]:
			res.Numbers[checkErased] += r.Want.Count - r.Found.Count
		default:
			left = append(left, r)
			res.Numbers[lakehouse.CheckDiffer]++
			res.Numbers[lakehouse.CheckMissing] += max(0, r.Want.Count-r.Found.Count)
			res.Numbers[lakehouse.CheckSurplus] += max(0, r.Found.Count-r.Want.Count)
		}
	}
	res.Differ = left
	return nil
}

// alsoMissing finds the ranges of which ClickHouse holds exactly the same rows.
func (p *Publish) alsoMissing(ctx context.Context, table string, at lakehouse.RawPartition, ranges []lakehouse.RangeResult, which []int, same map[int]bool) error {
	const atOnce = 1000
	for len(which) > 0 {
		some := which[:min(atOnce, len(which))]
		which = which[len(some):]
		froms, tos, index := make([]int64, 0, len(some)), make([]int64, 0, len(some)), map[int64]int{}
		for _, i := range some {
			froms, tos = append(froms, ranges[i].From), append(tos, ranges[i].To)
			index[ranges[i].From] = i
		}
		sums := "toInt64(sum(bitAnd(row_hash, 0xffffffff))), toInt64(sum(bitAnd(bitShiftRight(row_hash, 32), 0xffffffff)))"
		if table == lakehouse.FailedTable {
			sums = "toInt64(0), toInt64(0)"
		}
		rows, err := p.conn.Query(ctx, `SELECT f, toInt64(count()), `+sums+` FROM (SELECT *, toInt64(roundDown(raw_offset, ?)) AS f FROM `+table+`
			WHERE raw_topic = ? AND raw_partition = ? AND raw_offset >= ? AND raw_offset < ?) WHERE raw_offset < transform(f, ?, ?, toInt64(0)) GROUP BY f`,
			froms, at.Topic, at.Partition, froms[0], tos[len(tos)-1], froms, tos)
		if err != nil {
			return fmt.Errorf("comparing %s with ClickHouse: %w", table, err)
		}
		found := map[int64]event.Checksum{}
		for rows.Next() {
			var from int64
			var sum event.Checksum
			if err = rows.Scan(&from, &sum.Count, &sum.HashLo, &sum.HashHi); err != nil {
				break
			}
			found[from] = sum
		}
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
			return fmt.Errorf("comparing %s with ClickHouse: %w", table, err)
		}
		for _, i := range some {
			same[i] = found[ranges[i].From] == ranges[i].Found
		}
	}
	return nil
}
