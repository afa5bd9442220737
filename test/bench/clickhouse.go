package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/olap"
	"millrace/streaming/sink"
	"millrace/test/bench/child"
)

// benchClickHouse measures the sink, which fetches, decodes and inserts the events of filled topics, beside inserts of the same rows that are in memory already:
// a column at a time from Go slices, which is the driver's fastest way, and a row at a time, which is the usual one.
func benchClickHouse(ctx context.Context, s settings, say func(string, ...any)) (_ []result, err error) {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	servers, err := embeddedtest.Start(ctx, filepath.Join(dir, "servers"), embedded.BrokerKfake, embedded.KafkaChild, embedded.ClickHouseChild)
	if err != nil {
		return nil, err
	}
	defer servers.Stop()
	j := job{Brokers: servers.Endpoints().Kafka, ClickHouse: servers.Endpoints().ClickHouse}
	if j.Rows, err = eventTopics(ctx, j.Brokers, s.sinks); err != nil {
		return nil, err
	}
	var columns, rows []turn
	for i := range s.reps {
		j.Group, j.Profile, j.ByRow = groupName("clickhouse", i), s.profile("clickhouse"), false
		ours, err := do(ctx, "clickhouse", j)
		if err != nil {
			return nil, err
		}
		j.Profile = s.profile("clickhouse-native")
		byColumn, err := do(ctx, "native", j)
		if err != nil {
			return nil, err
		}
		j.Profile, j.ByRow = s.profile("clickhouse-native-rows"), true
		byRow, err := do(ctx, "native", j)
		if err != nil {
			return nil, err
		}
		columns, rows = append(columns, turn{ours, byColumn}), append(rows, turn{ours, byRow})
		say("  ours %.0f, by column %.0f, by row %.0f rows per CPU s (%s)", float64(j.Rows)/ours.CPU, float64(j.Rows)/byColumn.CPU, float64(j.Rows)/byRow.CPU, ours.Note)
	}
	return []result{
		compare("clickhouse sink", "rows", "raw native insert, by row", 0.8, rows),
		compare("clickhouse sink", "rows", "raw native insert, columns prebuilt", 0.8, columns),
	}, nil
}

// eventTopics makes and fills the topics that sinks read.
func eventTopics(ctx context.Context, brokers string, n int) (int64, error) {
	if err := createTopics(ctx, brokers); err != nil {
		return 0, err
	}
	if err := fillEvents(ctx, brokers, n); err != nil {
		return 0, err
	}
	return records(ctx, brokers, "events.")
}

func openClickHouse(ctx context.Context, j job) (driver.Conn, error) {
	cfg := olap.DefaultConfig()
	cfg.Addr, cfg.User, cfg.Password, cfg.Database = []string{j.ClickHouse.Native}, j.ClickHouse.User, j.ClickHouse.Password, j.ClickHouse.Database
	return olap.Open(ctx, cfg)
}

// eventTables are the tables of the bench, and what the sink remembers of their topics.
func eventTables() []string {
	var out []string
	for _, c := range event.Categories() {
		out = append(out, c.Table())
	}
	return out
}

func empty(ctx context.Context, conn driver.Conn) error {
	for _, t := range append(eventTables(), olap.TableSinkTopics) {
		if err := conn.Exec(ctx, "TRUNCATE TABLE "+t+" SYNC"); err != nil {
			return fmt.Errorf("emptying %s: %w", t, err)
		}
	}
	return nil
}

// clickhouseOurs runs the sink as one machine does, with a group of its own, on empty tables. It leaves them full.
func clickhouseOurs(ctx context.Context, j job) (cost, error) {
	conn, err := openClickHouse(ctx, j)
	if err != nil {
		return cost{}, err
	}
	defer func() { _ = conn.Close() }() // nothing is under way
	if err := olap.Migrate(ctx, conn, olap.Options{}); err != nil {
		return cost{}, err
	}
	if err := empty(ctx, conn); err != nil {
		return cost{}, err
	}
	codecs, err := local()
	if err != nil {
		return cost{}, err
	}
	cfg, reg := sink.DefaultClickHouseConfig(), prometheus.NewRegistry()
	cfg.Group = j.Group
	s, err := sink.NewClickHouse(cfg, conn, codecs, []kgo.Opt{kgo.SeedBrokers(j.Brokers)}, reg, child.Quiet())
	if err != nil {
		return cost{}, err
	}
	c, err := child.Measure(j.Profile, func() (int64, error) {
		const counter = "millrace_sink_clickhouse_rows_total"
		if err := runUntil(ctx, s.Run, reg, counter, j.Rows); err != nil {
			return 0, err
		}
		n, err := total(reg, counter)
		return int64(n), err
	})
	if err != nil {
		return cost{}, err
	}
	blocks, err := total(reg, "millrace_sink_clickhouse_batches_total")
	c.Note = fmt.Sprintf("%.0f rows a block", float64(c.N)/max(1, blocks))
	return c, errors.Join(err, stored(ctx, conn, j.Rows))
}

// stored fails unless the tables hold n rows.
func stored(ctx context.Context, conn driver.Conn, n int64) error {
	var sum uint64
	for _, t := range eventTables() {
		var one uint64
		if err := conn.QueryRow(ctx, "SELECT count() FROM "+t).Scan(&one); err != nil {
			return fmt.Errorf("counting %s: %w", t, err)
		}
		sum += one
	}
	if sum != uint64(n) {
		return fmt.Errorf("the tables hold %d rows, not %d", sum, n)
	}
	return nil
}

// blockRows is about what the sink puts into a block of this traffic (8 MB of records).
const blockRows = 20_000

// rawBlock is what one insert sends.
type rawBlock struct {
	table   string
	columns []any   // a slice each
	rows    [][]any // the same, a row each
}

// clickhousePeer reads the rows that the sink stored into memory, empties the tables, and inserts the rows again in blocks as large as the sink's, with the sink's
// settings. Only inserting is measured.
func clickhousePeer(ctx context.Context, j job) (cost, error) {
	conn, err := openClickHouse(ctx, j)
	if err != nil {
		return cost{}, err
	}
	defer func() { _ = conn.Close() }() // nothing is under way
	var blocks []rawBlock
	for _, t := range eventTables() {
		more, err := readBlocks(ctx, conn, t, j.ByRow)
		if err != nil {
			return cost{}, fmt.Errorf("reading %s: %w", t, err)
		}
		blocks = append(blocks, more...)
	}
	if err := empty(ctx, conn); err != nil {
		return cost{}, err
	}
	c, err := measureHeld(j.Profile, func() (int64, error) {
		for _, b := range blocks {
			if err := b.insert(ctx, conn); err != nil {
				return 0, fmt.Errorf("inserting into %s: %w", b.table, err)
			}
		}
		return j.Rows, nil
	})
	return c, errors.Join(err, stored(ctx, conn, j.Rows))
}

// plain has LowCardinality columns sent as what they hold, as the sink does: the server makes the dictionaries.
func plain(ctx context.Context) context.Context {
	return clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"async_insert": 0, "low_cardinality_allow_in_native_format": 0, "max_partitions_per_insert_block": 0}))
}

func (b rawBlock) insert(ctx context.Context, conn driver.Conn) error {
	batch, err := conn.PrepareBatch(plain(ctx), "INSERT INTO "+b.table)
	if err != nil {
		return err
	}
	for i, column := range b.columns {
		if err := batch.Column(i).Append(column); err != nil {
			return err
		}
	}
	for _, row := range b.rows {
		if err := batch.Append(row...); err != nil {
			return err
		}
	}
	return batch.Send()
}

// readBlocks reads a table into Go values of the types that the driver takes.
func readBlocks(ctx context.Context, conn driver.Conn, table string, byRow bool) ([]rawBlock, error) {
	rows, err := conn.Query(plain(ctx), "SELECT * FROM "+table+" ORDER BY kafka_partition, kafka_offset")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	types := rows.ColumnTypes()
	var out []rawBlock
	var columns []reflect.Value
	n := 0
	flush := func() {
		if n == 0 {
			return
		}
		b := rawBlock{table: table}
		if byRow {
			for i := range n {
				row := make([]any, len(columns))
				for k := range columns {
					row[k] = columns[k].Index(i).Interface()
				}
				b.rows = append(b.rows, row)
			}
		} else {
			for _, c := range columns {
				b.columns = append(b.columns, c.Interface())
			}
		}
		out = append(out, b)
		n = 0
	}
	for rows.Next() {
		if n == 0 {
			columns = make([]reflect.Value, len(types))
			for k, t := range types {
				columns[k] = reflect.MakeSlice(reflect.SliceOf(t.ScanType()), 0, blockRows)
			}
		}
		dest, cells := make([]any, len(types)), make([]reflect.Value, len(types))
		for k, t := range types {
			cells[k] = reflect.New(t.ScanType())
			dest[k] = cells[k].Interface()
		}
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		for k := range cells {
			columns[k] = reflect.Append(columns[k], cells[k].Elem())
		}
		if n++; n == blockRows {
			flush()
		}
	}
	flush()
	return out, rows.Err()
}
