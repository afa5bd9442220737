package olap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// ReadLimits bound each statement of a Reader on the server.
type ReadLimits struct {
	Time     time.Duration // run time
	Rows     uint64        // rows of a result
	RowsRead uint64        // rows read from tables
	Bytes    uint64        // bytes of a result
	Memory   uint64        // bytes of memory
}

// DefaultReadLimits suit a page that many people look at.
func DefaultReadLimits() ReadLimits {
	return ReadLimits{Time: 10 * time.Second, Rows: 500_000, RowsRead: 2_000_000_000, Bytes: 256 << 20, Memory: 1 << 30}
}

// Reader asks the typed questions of this package's query files. Values that come from outside are always bound as parameters of the server, never part of a
// statement's text; every statement is read-only, bounded, and ended on the server when ctx ends. It is safe for concurrent use.
type Reader struct {
	conn   driver.Conn
	limits ReadLimits

	mu       sync.Mutex
	settings clickhouse.Settings // known after the first question
}

// NewReader makes a reader; the connection stays the caller's.
func NewReader(conn driver.Conn, limits ReadLimits) *Reader {
	return &Reader{conn: conn, limits: limits}
}

// confine gives the settings of every statement. A user who is confined to reading may not set readonly, and may not exceed bounds of his own.
func (r *Reader) confine(ctx context.Context) (clickhouse.Settings, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.settings != nil {
		return r.settings, nil
	}
	var readonly, maxTime, maxMemory, maxRows uint64
	err := r.conn.QueryRow(ctx, "SELECT toUInt64(getSetting('readonly')), toUInt64(getSetting('max_execution_time')), toUInt64(getSetting('max_memory_usage')), toUInt64(getSetting('max_result_rows'))").
		Scan(&readonly, &maxTime, &maxMemory, &maxRows)
	if err != nil {
		return nil, fmt.Errorf("asking for the user's limits: %w", err)
	}
	s := clickhouse.Settings{}
	if readonly != 1 {
		s = clickhouse.Settings{
			"max_execution_time":   within(max(1, uint64(r.limits.Time/time.Second)), maxTime),
			"max_memory_usage":     within(r.limits.Memory, maxMemory),
			"max_result_rows":      within(r.limits.Rows, maxRows),
			"max_result_bytes":     r.limits.Bytes,
			"max_rows_to_read":     r.limits.RowsRead,
			"result_overflow_mode": "throw",
			// A row of a KPI table is replaced within its partition only, since window_start is part of the key.
			"do_not_merge_across_partitions_select_final": 1,
		}
		if readonly == 0 {
			s["readonly"] = 1
		}
	}
	r.settings = s
	return s, nil
}

// params are values bound to {name:Type} in a statement.
type params map[string]string

// unescaped are the characters that the server would take for escape sequences: it reads a parameter as a field of TabSeparated.
var unescaped = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`, "\x00", `\0`)

// query runs a statement and calls each for every row of its result.
func (r *Reader) query(ctx context.Context, sql string, p params, each func(rows driver.Rows) error) (err error) {
	settings, err := r.confine(ctx)
	if err != nil {
		return err
	}
	bound := make(clickhouse.Parameters, len(p))
	for k, v := range p {
		bound[k] = unescaped.Replace(v)
	}
	// The server ends the query; this only covers a server that does not answer. It is no deadline, since the driver makes its own max_execution_time of one.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(r.limits.Time+3*time.Second, func() { cancel(errSilent) })
	defer timer.Stop()
	rows, err := r.conn.Query(clickhouse.Context(ctx, clickhouse.WithSettings(maps.Clone(settings)), clickhouse.WithParameters(bound)), sql)
	if err != nil {
		return because(ctx, err)
	}
	defer func() {
		if closeErr := rows.Close(); err == nil && closeErr != nil {
			err = because(ctx, closeErr)
		}
	}()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return because(ctx, rows.Err())
}

var errSilent = errors.New("the server does not answer")

// because prefers the reason for which a query was given up to what the driver made of it.
func because(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return err
}

// Ping says whether the server answers.
func (r *Reader) Ping(ctx context.Context) error { return r.conn.Ping(ctx) }

// The error codes of ClickHouse that say that a statement was too much.
var limitCodes = []int32{158 /* rows */, 159 /* time */, 160 /* slow */, 241 /* memory */, 307 /* bytes */, 396 /* rows or bytes of a result */}

// Exceeded says that a statement ended because it reached one of its limits.
func Exceeded(err error) bool {
	for _, c := range limitCodes {
		if HasCode(err, c) {
			return true
		}
	}
	return false
}
