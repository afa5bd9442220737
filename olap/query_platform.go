package olap

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/event"
)

// TableSize is what a table takes.
type TableSize struct {
	Name               string
	Rows, Bytes, Parts int64
}

// Tables gives the sizes of the database's tables, by name. On a cluster they are those of this server's shard (tables ending in _local).
func (r *Reader) Tables(ctx context.Context) ([]TableSize, error) {
	var out []TableSize
	err := r.query(ctx, "SELECT t.name, toInt64(sum(p.rows)), toInt64(sum(p.bytes_on_disk)), toInt64(countIf(p.name != '')) FROM system.tables AS t LEFT JOIN (SELECT table, name, rows, bytes_on_disk FROM system.parts WHERE active AND database = currentDatabase()) AS p ON p.table = t.name "+
		"WHERE t.database = currentDatabase() AND t.engine LIKE '%MergeTree' GROUP BY t.name ORDER BY t.name", nil, func(rows driver.Rows) error {
		var t TableSize
		if err := rows.Scan(&t.Name, &t.Rows, &t.Bytes, &t.Parts); err != nil {
			return fmt.Errorf("reading a table's size: %w", err)
		}
		out = append(out, t)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking at tables: %w", err)
	}
	return out, nil
}

// Newest gives the newest ingested_at of each events table and failed_events (zero where there is none), and the newest window of the KPI tables. The server answers it from
// the bounds of the parts, without reading rows.
func (r *Reader) Newest(ctx context.Context) (map[string]time.Time, error) {
	var parts []string
	for _, c := range event.Categories() {
		parts = append(parts, "SELECT '"+c.Table()+"' AS name, max(ingested_at) AS newest FROM "+c.Table())
	}
	parts = append(parts, "SELECT '"+TableFailed+"', max(ingested_at) FROM "+TableFailed)
	for _, t := range KPITables() {
		parts = append(parts, "SELECT '"+t+"', max(window_start) FROM "+t)
	}
	out := map[string]time.Time{}
	err := r.query(ctx, strings.Join(parts, " UNION ALL "), nil, func(rows driver.Rows) error {
		var name string
		var at time.Time
		if err := rows.Scan(&name, &at); err != nil {
			return fmt.Errorf("reading a time: %w", err)
		}
		if at.Unix() <= 0 {
			at = time.Time{}
		}
		out[name] = at
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for the newest rows: %w", err)
	}
	return out, nil
}

// Watermarks gives for each table a number that changes whenever rows are added or changed, but not when parts are merged. It is empty for tables of other servers (a cluster).
func (r *Reader) Watermarks(ctx context.Context) (map[string]uint64, error) {
	out := map[string]uint64{}
	// The data version of a part is the number of its last mutation, which is above all of its blocks, or that of its first block.
	err := r.query(ctx, "SELECT table, sum(cityHash64(partition_id, block, version)) FROM (SELECT table, partition_id, max(max_block_number) AS block, max(if(data_version > max_block_number, data_version, 0)) AS version FROM system.parts"+
		" WHERE active AND database = currentDatabase() GROUP BY table, partition_id) GROUP BY table", nil, func(rows driver.Rows) error {
		var name string
		var mark uint64
		if err := rows.Scan(&name, &mark); err != nil {
			return fmt.Errorf("reading a watermark: %w", err)
		}
		out[name] = mark
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("asking for data watermarks: %w", err)
	}
	return out, nil
}
