package olap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/cespare/xxhash/v2"

	"millrace/event"
	"millrace/event/schema"
)

// Repair compares tables with control totals and mends them. It is another way in than the sink's: the sink appends ranges of offsets, repair looks at rows that should
// have been there for a while. It never touches a row that it was not told of by its raw offset.
type Repair struct {
	conn    driver.Conn
	cluster string
}

// NewRepair makes it; the connection stays the caller's. cluster is that of Options.
func NewRepair(conn driver.Conn, cluster string) *Repair { return &Repair{conn, cluster} }

// Part of a table: the rows of one raw topic that the platform took in [From, To).
type Part struct {
	Table    string
	RawTopic string
	From, To time.Time
}

func (p Part) where(columns string) string {
	return columns + " raw_topic = {raw:String} AND ingested_at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND ingested_at < fromUnixTimestamp64Micro({to:Int64}, 'UTC')"
}

func (p Part) params() clickhouse.Parameters {
	return clickhouse.Parameters{"raw": unescaped.Replace(p.RawTopic), "from": micros(p.From), "to": micros(p.To)}
}

// rowHash is the expression of a row's hash: failed events have no column of it, and their control totals take that of their id.
func rowHash(table string) string {
	if table == TableFailed {
		return "reinterpretAsInt64(xxHash64(failed_id))"
	}
	return "row_hash"
}

func checksumSQL(table string) string {
	h := rowHash(table)
	return "toInt64(count()), toInt64(sum(bitAnd(" + h + ", 0xffffffff))), toInt64(sum(bitAnd(bitShiftRight(" + h + ", 32), 0xffffffff)))"
}

// query runs a statement that reads. On a cluster it sees what every acknowledged insert has written.
func (r *Repair) query(ctx context.Context, sql string, p clickhouse.Parameters, each func(driver.Rows) error) error {
	settings := clickhouse.Settings{"do_not_merge_across_partitions_select_final": 1}
	if r.cluster != "" {
		settings["select_sequential_consistency"] = 1
	}
	rows, err := r.conn.Query(clickhouse.Context(ctx, clickhouse.WithParameters(p), clickhouse.WithSettings(settings)), sql)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Ledger reads the control totals of a raw topic whose records came in [from, to), by partition and offset.
func (r *Repair) Ledger(ctx context.Context, rawTopic, outTopic string, from, to time.Time) ([]event.LedgerEntry, error) {
	p := Part{RawTopic: rawTopic, From: from, To: to}.params()
	p["out"] = unescaped.Replace(outTopic)
	var out []event.LedgerEntry
	err := r.query(ctx, "SELECT raw_topic, raw_partition, raw_from, raw_to, out_topic, count, hash_lo, hash_hi, duplicates, failed, erased, toUnixTimestamp64Micro(ingested_from), toUnixTimestamp64Micro(ingested_to)"+
		" FROM event_ledger FINAL WHERE raw_topic = {raw:String} AND out_topic = {out:String} AND ingested_from >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND ingested_from < fromUnixTimestamp64Micro({to:Int64}, 'UTC')"+
		" ORDER BY raw_partition, raw_from", p, func(rows driver.Rows) error {
		var e event.LedgerEntry
		if err := rows.Scan(&e.RawTopic, &e.RawPartition, &e.RawFrom, &e.RawTo, &e.OutTopic, &e.Count, &e.HashLo, &e.HashHi, &e.Duplicates, &e.Failed, &e.Erased, &e.IngestedFrom, &e.IngestedTo); err != nil {
			return fmt.Errorf("reading a control total: %w", err)
		}
		out = append(out, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the control totals of %s: %w", rawTopic, err)
	}
	return out, nil
}

// LedgerAt reads the control totals of the range that an offset is in. ok is false if no range has it.
func (r *Repair) LedgerAt(ctx context.Context, rawTopic string, partition int32, offset int64) (e event.LedgerEntry, ok bool, err error) {
	p := clickhouse.Parameters{"raw": unescaped.Replace(rawTopic), "partition": strconv.Itoa(int(partition)), "offset": strconv.FormatInt(offset, 10)}
	err = r.query(ctx, "SELECT raw_topic, raw_partition, raw_from, raw_to, out_topic, count, hash_lo, hash_hi, duplicates, failed, erased, toUnixTimestamp64Micro(ingested_from), toUnixTimestamp64Micro(ingested_to)"+
		" FROM event_ledger FINAL WHERE raw_topic = {raw:String} AND raw_partition = {partition:Int32} AND raw_from <= {offset:Int64} AND raw_to > {offset:Int64} LIMIT 1", p, func(rows driver.Rows) error {
		ok = true
		return rows.Scan(&e.RawTopic, &e.RawPartition, &e.RawFrom, &e.RawTo, &e.OutTopic, &e.Count, &e.HashLo, &e.HashHi, &e.Duplicates, &e.Failed, &e.Erased, &e.IngestedFrom, &e.IngestedTo)
	})
	if err != nil {
		return e, false, fmt.Errorf("looking for the control total of %s/%d@%d: %w", rawTopic, partition, offset, err)
	}
	return e, ok, nil
}

// LedgerEnds gives for each partition of a raw topic the offset up to which control totals are closed.
func (r *Repair) LedgerEnds(ctx context.Context, rawTopic string) (map[int32]int64, error) {
	out := map[int32]int64{}
	err := r.query(ctx, "SELECT raw_partition, max(raw_to) FROM event_ledger WHERE raw_topic = {raw:String} GROUP BY raw_partition", clickhouse.Parameters{"raw": unescaped.Replace(rawTopic)}, func(rows driver.Rows) error {
		var p int32
		var end int64
		if err := rows.Scan(&p, &end); err != nil {
			return err
		}
		out[p] = end
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading how far control totals of %s are closed: %w", rawTopic, err)
	}
	return out, nil
}

// Sums gives the checksums of a part of a table by raw partition: the cheap look.
func (r *Repair) Sums(ctx context.Context, p Part) (map[int32]event.Checksum, error) {
	out := map[int32]event.Checksum{}
	err := r.query(ctx, p.where("SELECT raw_partition, "+checksumSQL(p.Table)+" FROM "+p.Table+" WHERE")+" GROUP BY raw_partition", p.params(), func(rows driver.Rows) error {
		var n int32
		var c event.Checksum
		if err := rows.Scan(&n, &c.Count, &c.HashLo, &c.HashHi); err != nil {
			return err
		}
		out[n] = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("adding up rows of %s: %w", p.Table, err)
	}
	return out, nil
}

// RangeSums gives the checksums of one raw partition by ranges of raw offsets: bounds are where ranges begin, ascending, and a row counts for the last bound that is not
// above it; what lies below the first one counts for -1. Ranges without rows are absent.
func (r *Repair) RangeSums(ctx context.Context, p Part, partition int32, bounds []int64) (map[int64]event.Checksum, error) {
	list := make([]string, 0, len(bounds)+1)
	list = append(list, "-1")
	for _, b := range bounds {
		list = append(list, strconv.FormatInt(b, 10))
	}
	params := p.params()
	params["partition"] = strconv.Itoa(int(partition))
	out := map[int64]event.Checksum{}
	err := r.query(ctx, p.where("SELECT toInt64(roundDown(raw_offset, ["+strings.Join(list, ", ")+"])) AS range, "+checksumSQL(p.Table)+" FROM "+p.Table+" WHERE raw_partition = {partition:Int32} AND")+" GROUP BY range", params, func(rows driver.Rows) error {
		var at int64
		var c event.Checksum
		if err := rows.Scan(&at, &c.Count, &c.HashLo, &c.HashHi); err != nil {
			return err
		}
		out[at] = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("adding up ranges of %s: %w", p.Table, err)
	}
	return out, nil
}

// Spot is one row by its places and its hash.
type Spot struct {
	Offset    int64 // raw
	Hash      int64
	Partition int32 // of events.*
	At        int64 // offset there
	Copies    int   // rows that are equal in all of these
}

// Spots lists the rows with raw offsets [from, to) of a partition, in no order.
func (r *Repair) Spots(ctx context.Context, p Part, partition int32, from, to int64) ([]Spot, error) {
	params := p.params()
	params["partition"], params["lo"], params["hi"] = strconv.Itoa(int(partition)), strconv.FormatInt(from, 10), strconv.FormatInt(to, 10)
	var out []Spot
	err := r.query(ctx, p.where("SELECT raw_offset, "+rowHash(p.Table)+" AS hash, kafka_partition, kafka_offset, toInt64(count()) FROM "+p.Table+" WHERE raw_partition = {partition:Int32} AND raw_offset >= {lo:Int64} AND raw_offset < {hi:Int64} AND")+
		" GROUP BY raw_offset, hash, kafka_partition, kafka_offset", params, func(rows driver.Rows) error {
		var s Spot
		var copies int64
		if err := rows.Scan(&s.Offset, &s.Hash, &s.Partition, &s.At, &copies); err != nil {
			return err
		}
		s.Copies = int(copies)
		out = append(out, s)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading offsets of %s: %w", p.Table, err)
	}
	return out, nil
}

// Positions gives for each partition of the topic that feeds a table one past the greatest offset that the table has, among rows that came since a time.
func (r *Repair) Positions(ctx context.Context, table string, since time.Time) (map[int32]int64, error) {
	out := map[int32]int64{}
	err := r.query(ctx, "SELECT kafka_partition, max(kafka_offset) + 1 FROM "+table+" WHERE ingested_at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') GROUP BY kafka_partition", clickhouse.Parameters{"from": micros(since)}, func(rows driver.Rows) error {
		var p int32
		var next int64
		if err := rows.Scan(&p, &next); err != nil {
			return err
		}
		out[p] = next
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading how far %s is: %w", table, err)
	}
	return out, nil
}

// listed bounds how many offsets stand in one statement.
const listed = 4000

// Rows reads whole rows by their raw offsets, one for each offset even if there are copies.
func (r *Repair) Rows(ctx context.Context, p Part, partition int32, offsets []int64, each func(event.Stored) error) error {
	f, err := newStoredForm(p.Table)
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(slices.Sorted(slices.Values(offsets)), listed) {
		params := p.params()
		params["partition"] = strconv.Itoa(int(partition))
		err := r.query(ctx, p.where("SELECT "+strings.Join(f.names(true), ", ")+" FROM "+p.Table+" WHERE raw_partition = {partition:Int32} AND "+among(chunk)+" AND")+" LIMIT 1 BY raw_offset", params, func(rows driver.Rows) error {
			s, err := f.read(rows)
			if err != nil {
				return err
			}
			return each(s)
		})
		if err != nil {
			return fmt.Errorf("reading rows of %s: %w", p.Table, err)
		}
	}
	return nil
}

// among selects raw offsets, which are sorted; the bounds are for the index.
func among(offsets []int64) string {
	list := make([]string, len(offsets))
	for i, o := range offsets {
		list[i] = strconv.FormatInt(o, 10)
	}
	return fmt.Sprintf("raw_offset >= %d AND raw_offset <= %d AND raw_offset IN (%s)", offsets[0], offsets[len(offsets)-1], strings.Join(list, ", "))
}

// target is the table as it is written to.
func (r *Repair) target(table string) string {
	if r.cluster != "" {
		return table + "_local"
	}
	return table
}

// ErrBusy says that an insert of the same rows still runs on the server.
var ErrBusy = errors.New("an earlier insert of the same rows still runs on the server")

// Insert adds those of the rows of one raw partition that the part does not have, and gives how many they were. token begins the tokens of the blocks, which are those of
// a repair: repair:…. Repeated with the same token and rows it adds nothing more.
func (r *Repair) Insert(ctx context.Context, p Part, partition int32, rows []event.Stored, ps []schema.Promotion, token string) (int, error) {
	f, err := newStoredForm(p.Table)
	if err != nil {
		return 0, err
	}
	added := 0
	for chunk := range slices.Chunk(rows, listed) {
		offsets := make([]int64, len(chunk))
		lo, hi := int64(math.MaxInt64), int64(0)
		for i := range chunk {
			_, _, offsets[i] = chunk[i].Raw()
			lo, hi = min(lo, offsets[i]), max(hi, offsets[i]+1)
		}
		have, err := r.present(ctx, p, partition, offsets)
		if err != nil {
			return added, err
		}
		missing := slices.DeleteFunc(slices.Clone(chunk), func(s event.Stored) bool { _, _, o := s.Raw(); return have[o] })
		if len(missing) == 0 {
			continue
		}
		block := fmt.Sprintf("%s:%d:%d-%d:%016x", token, partition, lo, hi, digest(missing))
		if err := r.idle(ctx, block); err != nil {
			return added, err
		}
		if err := insertStored(clickhouse.Context(ctx, clickhouse.WithQueryID(block)), r.conn, r.target(p.Table), f, ps, missing, block); err != nil {
			return added, fmt.Errorf("inserting %d rows into %s: %w", len(missing), p.Table, err)
		}
		if have, err = r.present(ctx, p, partition, offsets); err != nil {
			return added, err
		}
		for i := range missing {
			if _, _, o := missing[i].Raw(); !have[o] {
				return added, fmt.Errorf("table %s: the row of raw offset %d/%d is missing after it was inserted", p.Table, partition, o)
			}
		}
		added += len(missing)
	}
	return added, nil
}

// idle makes sure that an insert of which an earlier attempt lost sight is over: it could add rows after we looked.
func (r *Repair) idle(ctx context.Context, id string) error {
	var n uint64
	if err := r.conn.QueryRow(ctx, "SELECT count() FROM system.processes WHERE query_id = ?", id).Scan(&n); err != nil {
		return fmt.Errorf("looking for running inserts: %w", err)
	}
	if n > 0 {
		return ErrBusy
	}
	return nil
}

func digest(rows []event.Stored) uint64 {
	h := xxhash.New()
	var b [8]byte
	for i := range rows {
		_, _, o := rows[i].Raw()
		binary.LittleEndian.PutUint64(b[:], uint64(o))
		_, _ = h.Write(b[:]) // a hash does not fail
	}
	return h.Sum64()
}

func (r *Repair) present(ctx context.Context, p Part, partition int32, offsets []int64) (map[int64]bool, error) {
	out := make(map[int64]bool, len(offsets))
	params := p.params()
	params["partition"] = strconv.Itoa(int(partition))
	err := r.query(ctx, p.where("SELECT DISTINCT raw_offset FROM "+p.Table+" WHERE raw_partition = {partition:Int32} AND "+among(slices.Sorted(slices.Values(offsets)))+" AND"), params, func(rows driver.Rows) error {
		var o int64
		if err := rows.Scan(&o); err != nil {
			return err
		}
		out[o] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading which rows %s has: %w", p.Table, err)
	}
	return out, nil
}

// Drop names rows to be deleted: those of one raw offset, but for one that has the hash and the place that are to stay, if Keep says so.
type Drop struct {
	Offset int64
	Keep   bool
	Hash   int64
	At     int64 // kafka_offset
}

// Delete deletes rows and gives how many they were. Copies that are equal in every column are told apart by where they are stored, so that one stays at every moment.
func (r *Repair) Delete(ctx context.Context, p Part, partition int32, drops []Drop) (int, error) {
	deleted := 0
	for chunk := range slices.Chunk(drops, listed/4) {
		n, err := r.deleteSome(ctx, p, partition, chunk)
		deleted += n
		if err != nil {
			return deleted, fmt.Errorf("deleting rows of %s: %w", p.Table, err)
		}
	}
	return deleted, nil
}

func (r *Repair) deleteSome(ctx context.Context, p Part, partition int32, drops []Drop) (int, error) {
	const rounds = 10
	deleted := 0
	for range rounds {
		gone, err := r.placesToDelete(ctx, p, partition, drops)
		if err != nil || len(gone) == 0 {
			return deleted, err
		}
		// A part that was merged meanwhile has another name: then nothing of it is deleted, and the next round finds the rows where they are.
		where := "raw_topic = '" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(p.RawTopic) + "' AND raw_partition = " + strconv.Itoa(int(partition)) + " AND (_part, _part_offset) IN (" + strings.Join(gone, ", ") + ")"
		on := ""
		if r.cluster != "" {
			on = " ON CLUSTER " + r.cluster
		}
		ctx := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"lightweight_deletes_sync": 2, "mutations_sync": 2}))
		if err := r.conn.Exec(ctx, "DELETE FROM "+r.target(p.Table)+on+" WHERE "+where); err != nil {
			return deleted, err
		}
		left, err := r.placesToDelete(ctx, p, partition, drops)
		if err != nil {
			return deleted, err
		}
		deleted += max(0, len(gone)-len(left))
	}
	return deleted, errors.New("rows are still there after ten deletes: their parts are merged all the time")
}

// placesToDelete gives the part and offset of each row that has to go, as SQL.
func (r *Repair) placesToDelete(ctx context.Context, p Part, partition int32, drops []Drop) ([]string, error) {
	want := make(map[int64]Drop, len(drops))
	offsets := make([]int64, len(drops))
	for i, d := range drops {
		want[d.Offset], offsets[i] = d, d.Offset
	}
	slices.Sort(offsets)
	params := p.params()
	params["partition"] = strconv.Itoa(int(partition))
	kept := map[int64]bool{}
	var out []string
	err := r.query(ctx, p.where("SELECT _part, _part_offset, raw_offset, "+rowHash(p.Table)+", kafka_offset FROM "+p.Table+" WHERE raw_partition = {partition:Int32} AND "+among(offsets)+" AND")+" ORDER BY raw_offset, _part, _part_offset", params, func(rows driver.Rows) error {
		var part string
		var row uint64
		var offset, hash, at int64
		if err := rows.Scan(&part, &row, &offset, &hash, &at); err != nil {
			return err
		}
		d := want[offset]
		if d.Keep && !kept[offset] && hash == d.Hash && at == d.At {
			kept[offset] = true
			return nil
		}
		out = append(out, fmt.Sprintf("('%s', %d)", part, row))
		return nil
	})
	return out, err
}
