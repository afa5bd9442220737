package sink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/cespare/xxhash/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/failpoint"
	"millrace/olap"
)

// errClickhouseStale says that too much time has passed since the group last accepted something from us: another member may own the partition by now.
var errClickhouseStale = errors.New("the group has not accepted a commit for longer than the session timeout; nothing is inserted")

// errClickhouseRunning says that an insert of which we lost sight still runs on the server.
var errClickhouseRunning = errors.New("an earlier insert of the range still runs on the server")

// clickhouseBatch is a range of one partition on its way into the table.
type clickhouseBatch struct {
	p       *clickhousePartition
	records []*kgo.Record
	intent  clickhouseIntent
	doubt   bool
	refused []clickhouseRefused
	noted   time.Time // just before the group accepted the intent
	newest  int64     // greatest ingested_at
	err     error
}

// token identifies the block of a range for good: the same rows under the same token are stored once, however often and from wherever they are sent.
func (b *clickhouseBatch) token() string {
	return fmt.Sprintf("%s:%d:%d-%d", b.p.topic.id, b.p.partition, b.intent.lo, b.intent.hi)
}

// store brings the batch into its table exactly once. In doubt the table is the authority: what is present is not sent again. An error leaves the batch in
// doubt.
func (s *ClickHouse) store(ctx context.Context, b *clickhouseBatch) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.InsertTimeout)
	defer cancel()
	topic := b.p.topic
	rows, err := topic.decode(ctx, s.codecs, b.records, b.intent.columns, s.cfg.Generation)
	if err != nil {
		return fmt.Errorf("decoding: %w", err)
	}
	defer rows.release()
	b.refused, b.newest = rows.refused, rows.max
	if rows.extract != nil && !b.doubt { // what is stored in doubt was counted when it was first tried
		s.m.promotion.countUnfit(topic.tables[0].layout.table, topic.tables[0].layout.promoted, rows.extract)
	}
	good := rows.records[0]
	if len(good) == 0 {
		return nil // every record is refused
	}
	if !b.doubt {
		return s.insertOrBisect(ctx, b, good, rows.blocks[0], b.token())
	}
	if err := s.nothingRuns(ctx, b); err != nil {
		return err
	}
	token, block := b.token(), rows.blocks[0]
	for attempt := 0; ; attempt++ {
		present, err := s.present(ctx, b, rows.min, rows.max)
		if err != nil {
			return err
		}
		missing := slices.DeleteFunc(slices.Clone(good), func(r *kgo.Record) bool { return present[r.Offset] || b.hasRefused(r) })
		switch {
		case attempt == 0 && len(missing) == 0:
			s.m.presence.WithLabelValues("all").Inc()
		case attempt == 0 && len(missing) == len(good):
			s.m.presence.WithLabelValues("none").Inc()
		case attempt == 0:
			s.m.presence.WithLabelValues("some").Inc()
		}
		if len(missing) == 0 {
			return nil
		}
		if attempt > 2 {
			return fmt.Errorf("%d of %d rows of %s are missing after they were inserted", len(missing), len(good), b.token())
		}
		// Under the old token rows would vanish silently: it stands for the whole block, also for rows that were deleted since. Only when none is there and
		// nothing was tried yet is it the block's own; an insert still on its way, which the server would take after us, has the same.
		if attempt > 0 || len(missing) < len(good) {
			token, block = fmt.Sprintf("%s:missing-%016x-%d", b.token(), offsetsDigest(missing), attempt), nil
		}
		if err := s.insertOrBisect(ctx, b, missing, block, token); err != nil {
			return err
		}
	}
}

func offsetsDigest(rs []*kgo.Record) uint64 {
	h := xxhash.New()
	var buf [8]byte
	for _, r := range rs {
		binary.LittleEndian.PutUint64(buf[:], uint64(r.Offset))
		_, _ = h.Write(buf[:]) // a hash does not fail
	}
	return h.Sum64()
}

func (b *clickhouseBatch) hasRefused(r *kgo.Record) bool {
	return slices.ContainsFunc(b.refused, func(f clickhouseRefused) bool { return f.record == r })
}

// nothingRuns makes sure that no insert of the partition, of which a member lost sight, is still at work on the server: it could add rows after we looked.
func (s *ClickHouse) nothingRuns(ctx context.Context, b *clickhouseBatch) error {
	var n uint64
	prefix := fmt.Sprintf("%s:%d:", b.p.topic.id, b.p.partition)
	if err := s.conn.QueryRow(ctx, "SELECT count() FROM system.processes WHERE startsWith(query_id, ?)", prefix).Scan(&n); err != nil {
		return fmt.Errorf("looking for running inserts: %w", err)
	}
	if n > 0 {
		return errClickhouseRunning
	}
	return nil
}

// present reads which offsets of the batch are in the table. The times only let the server skip partitions: they are those of the same rows.
func (s *ClickHouse) present(ctx context.Context, b *clickhouseBatch, minIngested, maxIngested int64) (map[int64]bool, error) {
	if s.cfg.Cluster {
		ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"select_sequential_consistency": 1}))
	}
	q := fmt.Sprintf("SELECT kafka_offset FROM %s WHERE kafka_topic = ? AND kafka_partition = ? AND kafka_offset >= ? AND kafka_offset < ?"+
		" AND ingested_at >= fromUnixTimestamp64Micro(?, 'UTC') AND ingested_at <= fromUnixTimestamp64Micro(?, 'UTC')", s.target(b.p.topic.tables[0]))
	rows, err := s.conn.Query(ctx, q, b.p.topic.name, b.p.partition, b.intent.lo, b.intent.hi, minIngested, maxIngested)
	if err != nil {
		return nil, fmt.Errorf("reading which of %s are present: %w", b.token(), err)
	}
	defer rows.Close()
	out := map[int64]bool{}
	for rows.Next() {
		var offset int64
		if err := rows.Scan(&offset); err != nil {
			return nil, fmt.Errorf("reading which of %s are present: %w", b.token(), err)
		}
		out[offset] = true
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading which of %s are present: %w", b.token(), err)
	}
	return out, nil
}

// insertOrBisect inserts the records as one block. If the server refuses a row of it, halves are tried, each under its own token, until the row stands alone; it
// is noted as refused and the others are stored. block holds the records already decoded, or is nil.
func (s *ClickHouse) insertOrBisect(ctx context.Context, b *clickhouseBatch, rs []*kgo.Record, block *clickhouseBlock, token string) error {
	if block == nil {
		rows, err := b.p.topic.decode(ctx, s.codecs, rs, b.intent.columns, s.cfg.Generation)
		if err != nil {
			return fmt.Errorf("decoding: %w", err)
		}
		defer rows.release()
		if block = rows.blocks[0]; block == nil { // all are of subjects that were erased just now
			return nil
		}
	}
	if time.Since(b.noted) > s.cfg.SessionTimeout {
		return errClickhouseStale
	}
	err := s.insert(ctx, b.p.topic.tables[0], block, token)
	switch {
	case err == nil:
		return nil
	case !clickhouseRefusal(err):
		return err
	case len(rs) == 1:
		b.refused = append(b.refused, clickhouseRefused{rs[0], err})
		return nil
	}
	half := len(rs) / 2
	for _, part := range [][]*kgo.Record{rs[:half], rs[half:]} {
		sub := fmt.Sprintf("%s:part-%d-%d", token, part[0].Offset, part[len(part)-1].Offset+1)
		if err := s.insertOrBisect(ctx, b, part, nil, sub); err != nil {
			return err
		}
	}
	return nil
}

// insert sends one block. With a token the server keeps a block of a token once.
func (s *ClickHouse) insert(ctx context.Context, t *clickhouseTable, block *clickhouseBlock, token string) error {
	table := t.layout.table
	settings := clickhouse.Settings{
		"async_insert": 0, "insert_deduplicate": 1,
		"max_partitions_per_insert_block":        0, // history may span any number of them
		"low_cardinality_allow_in_native_format": 0, // the server makes the dictionaries
		"max_execution_time":                     int(s.cfg.InsertTimeout/time.Second) + 1,
	}
	opts := []clickhouse.QueryOption{clickhouse.WithSettings(settings)}
	if token != "" {
		settings["insert_deduplication_token"] = token
		opts = append(opts, clickhouse.WithQueryID(token)) // the server runs one of an id at a time
	}
	if err := failpoint.Err("sink.clickhouse.insert"); err != nil {
		return err
	}
	started := time.Now()
	used := block.used()
	batch, err := s.conn.PrepareBatch(clickhouse.Context(ctx, opts...), block.insertInto(s.target(t), used))
	if err != nil {
		s.m.errors.WithLabelValues(table).Inc()
		return fmt.Errorf("preparing an insert into %s: %w", table, err)
	}
	if err := block.fill(batch, used); err != nil {
		_ = batch.Abort() // nothing was sent
		s.m.errors.WithLabelValues(table).Inc()
		return err
	}
	if err := batch.Send(); err != nil {
		s.m.errors.WithLabelValues(table).Inc()
		return fmt.Errorf("inserting into %s: %w", table, err)
	}
	failpoint.Hit("sink.clickhouse.sent")
	s.m.seconds.WithLabelValues(table).Observe(time.Since(started).Seconds())
	s.m.rows.WithLabelValues(table).Add(float64(block.rows))
	s.m.batches.WithLabelValues(table).Inc()
	return nil
}

// target is the table as the sink names it.
func (s *ClickHouse) target(t *clickhouseTable) string {
	if s.cfg.Cluster {
		return t.layout.table + "_local"
	}
	return t.layout.table
}

// clickhouseRefusal says whether the server refused a row for what is in it, so that the same row will be refused again: the codes of src/Common/ErrorCodes.cpp
// that concern a value. Every other error is one of the moment or of the table, and is tried again.
func clickhouseRefusal(err error) bool {
	switch olap.Code(err) {
	case 6, // CANNOT_PARSE_TEXT
		27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
		38,  // CANNOT_PARSE_DATE
		41,  // CANNOT_PARSE_DATETIME
		69,  // ARGUMENT_OUT_OF_BOUND
		70,  // CANNOT_CONVERT_TYPE
		72,  // CANNOT_PARSE_NUMBER
		117, // INCORRECT_DATA
		131, // TOO_LARGE_STRING_SIZE
		321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
		349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
		407, // DECIMAL_OVERFLOW
		469: // VIOLATED_CONSTRAINT
		return true
	}
	return false
}

// storeReplaced brings records of a topic whose rows are replaced by version into its tables, at least once.
func (s *ClickHouse) storeReplaced(ctx context.Context, t *clickhouseTopic, rs []*kgo.Record) ([]clickhouseRefused, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.InsertTimeout)
	defer cancel()
	rows, err := t.decode(ctx, s.codecs, rs, nil, s.cfg.Generation)
	if err != nil {
		return nil, fmt.Errorf("decoding: %w", err)
	}
	defer rows.release()
	refused := rows.refused
	for i, block := range rows.blocks {
		if block == nil {
			continue
		}
		more, err := s.insertReplaced(ctx, t, i, rows.records[i], block)
		if err != nil {
			return nil, err
		}
		refused = append(refused, more...)
	}
	return refused, nil
}

func (s *ClickHouse) insertReplaced(ctx context.Context, t *clickhouseTopic, table int, rs []*kgo.Record, block *clickhouseBlock) ([]clickhouseRefused, error) {
	err := s.insert(ctx, t.tables[table], block, "")
	switch {
	case err == nil:
		return nil, nil
	case !clickhouseRefusal(err):
		return nil, err
	case len(rs) == 1:
		return []clickhouseRefused{{rs[0], err}}, nil
	}
	var out []clickhouseRefused
	half := len(rs) / 2
	for _, part := range [][]*kgo.Record{rs[:half], rs[half:]} {
		rows, err := t.decode(ctx, s.codecs, part, nil, s.cfg.Generation)
		if err != nil {
			return nil, fmt.Errorf("decoding: %w", err)
		}
		more, err := s.insertReplaced(ctx, t, table, part, rows.blocks[table])
		rows.release()
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}
