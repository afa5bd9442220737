package olap

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/internal/fault"
)

// Limits bound an ad-hoc query. A limit that is 0 has its default.
type Limits struct {
	Rows   int           // rows given back; more are cut and reported by Truncated
	Time   time.Duration // run time on the server
	Memory int64         // bytes on the server
}

// DefaultLimits suit a person at a terminal.
func DefaultLimits() Limits { return Limits{Rows: 10_000, Time: 30 * time.Second, Memory: 2 << 30} }

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	if l.Rows == 0 {
		l.Rows = d.Rows
	}
	if l.Time == 0 {
		l.Time = d.Time
	}
	if l.Memory == 0 {
		l.Memory = d.Memory
	}
	return l
}

// within bounds a limit; 0 is no bound.
func within(limit, bound uint64) uint64 {
	if bound == 0 {
		return limit
	}
	return min(limit, bound)
}

// Rows iterates over the result of Query. It is to be closed.
type Rows struct {
	// Columns and Types are the names and ClickHouse types of the result.
	Columns, Types []string

	rows      driver.Rows
	cancel    context.CancelFunc
	dest      []any
	values    []any
	left      int
	truncated bool
	err       error
}

// Query runs one statement that only reads, within limits: SELECT, WITH, SHOW, DESCRIBE, EXPLAIN, EXISTS. The statement cannot lift the limits by its own SETTINGS.
func Query(ctx context.Context, conn driver.Conn, sql string, limits Limits) (*Rows, error) {
	limits = limits.orDefault()
	// A user who is confined to reading may not set readonly and has bounds of his own, which a greater limit would break; with any other, readonly=1 also
	// forbids SETTINGS in the statement.
	var readonly, maxTime, maxMemory, maxRows uint64
	if err := conn.QueryRow(ctx, "SELECT toUInt64(getSetting('readonly')), toUInt64(getSetting('max_execution_time')), toUInt64(getSetting('max_memory_usage')), toUInt64(getSetting('max_result_rows'))").
		Scan(&readonly, &maxTime, &maxMemory, &maxRows); err != nil {
		return nil, fault.Newf("MR-CH-004", "asking for the user's limits: %w", err)
	}
	if readonly != 0 {
		limits.Time = time.Duration(within(uint64(limits.Time), maxTime*uint64(time.Second)))
		limits.Memory = int64(within(uint64(limits.Memory), maxMemory))
		limits.Rows = int(within(uint64(limits.Rows)+1, maxRows)) - 1
	}
	settings := clickhouse.Settings{
		"max_execution_time": max(1, int(limits.Time/time.Second)),
		"max_memory_usage":   limits.Memory,
		"limit":              limits.Rows + 1,
	}
	if readonly == 0 {
		settings["readonly"] = 1
	}
	// The server ends the query; this only covers a server that does not answer. It is no deadline of ctx, since the driver makes its own max_execution_time of one.
	ctx, cancelQuery := context.WithCancel(ctx)
	timer := time.AfterFunc(limits.Time+10*time.Second, cancelQuery)
	cancel := func() { timer.Stop(); cancelQuery() }
	rows, err := conn.Query(clickhouse.Context(ctx, clickhouse.WithSettings(settings)), sql)
	if err != nil {
		cancel()
		return nil, fault.New("MR-CH-004", readable(err))
	}
	out := &Rows{rows: rows, cancel: cancel, left: limits.Rows, Columns: rows.Columns()}
	for _, t := range rows.ColumnTypes() {
		out.Types = append(out.Types, t.DatabaseTypeName())
		out.dest = append(out.dest, reflect.New(t.ScanType()).Interface())
	}
	out.values = make([]any, len(out.dest))
	return out, nil
}

// Next reads the next row.
func (r *Rows) Next() bool {
	if r.err != nil || !r.rows.Next() {
		return false
	}
	if r.left == 0 {
		r.truncated = true
		return false
	}
	r.left--
	for i := range r.dest { // a NULL leaves what was there
		v := reflect.ValueOf(r.dest[i]).Elem()
		v.SetZero()
	}
	if err := r.rows.Scan(r.dest...); err != nil {
		r.err = fmt.Errorf("reading a row: %w", err)
		return false
	}
	return true
}

// Values are the row's values, nil for NULL, valid until the next call of Next.
func (r *Rows) Values() []any {
	for i := range r.dest {
		v := reflect.ValueOf(r.dest[i]).Elem()
		for v.Kind() == reflect.Pointer && !v.IsNil() {
			v = v.Elem()
		}
		if v.Kind() == reflect.Pointer {
			r.values[i] = nil
		} else {
			r.values[i] = v.Interface()
		}
	}
	return r.values
}

// Truncated says that there were more rows than the limit; known when Next has said false.
func (r *Rows) Truncated() bool { return r.truncated }

// Err is why Next said false, nil at the end of the rows.
func (r *Rows) Err() error {
	if err := errors.Join(r.err, r.rows.Err()); err != nil {
		return fault.New("MR-CH-004", err)
	}
	return nil
}

// Close ends the query.
func (r *Rows) Close() error {
	r.cancel()
	if err := r.rows.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("closing a query: %w", err)
	}
	return nil
}

// readable cuts the list of everything that the parser would have understood, which is longer than a screen, from a syntax error.
func readable(err error) error {
	var ex *clickhouse.Exception
	if !errors.As(err, &ex) {
		return err
	}
	short := *ex
	short.Message, _, _ = strings.Cut(ex.Message, ". Expected one of")
	return &short
}
