package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/workflows/name"
)

// Publication is one line of the table publications.
type Publication struct {
	Table      string           `json:"table"`
	Run        string           `json:"run"`
	From       int64            `json:"from_snapshot"`
	To         int64            `json:"to_snapshot"`
	Outcome    string           `json:"outcome"`
	Rows       int64            `json:"rows"`
	Checks     map[string]int64 `json:"checks"`
	Problems   []string         `json:"problems"`
	Full       bool             `json:"full"`
	Reason     string           `json:"reason,omitempty"`
	By         string           `json:"approved_by,omitempty"`
	Tag        string           `json:"tag,omitempty"`
	FinishedAt time.Time        `json:"finished_at"`
}

// Publications lists those of a table, the newest first.
func Publications(ctx context.Context, conn driver.Conn, table string, limit int) ([]Publication, error) {
	rows, err := conn.Query(ctx, `SELECT table_name, run, from_snapshot, to_snapshot, outcome, rows, checks, problems, full, reason, approved_by, tag, finished_at FROM publications
		WHERE table_name = ? ORDER BY version DESC LIMIT 1 BY table_name, run LIMIT ?`, table, max(1, limit))
	if err != nil {
		return nil, fmt.Errorf("reading publications of %s: %w", table, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	out := []Publication{}
	for rows.Next() {
		var p Publication
		if err := rows.Scan(&p.Table, &p.Run, &p.From, &p.To, &p.Outcome, &p.Rows, &p.Checks, &p.Problems, &p.Full, &p.Reason, &p.By, &p.Tag, &p.FinishedAt); err != nil {
			return nil, fmt.Errorf("reading publications of %s: %w", table, err)
		}
		out = append(out, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading publications of %s: %w", table, err)
	}
	return out, nil
}

// PublishedBack is a published that went back with main.
type PublishedBack struct {
	Table, Run string
	From, To   int64
	Rows       int64
	Reason, By string
	StartedAt  time.Time
}

// NotePublishedBack notes in publications that published went back.
func (r *Runs) NotePublishedBack(ctx context.Context, b PublishedBack) error {
	now := r.now()
	return r.insert(ctx, "publications", b.Table, b.Run, now.UTC().Truncate(24*time.Hour), b.From, b.To, name.RolledBack, b.Rows, map[string]int64{}, []string{}, false, map[string]int64{}, b.Reason, b.By, "", b.StartedAt, now, r.version())
}
