package bigquery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	bq "cloud.google.com/go/bigquery"

	"millrace/event"
	"millrace/internal/fault"
	"millrace/lakehouse"
)

// Position is how far a table has been loaded. It is the one row of a table of its own in the work dataset, and changes only in the transaction that changes the rows.
type Position struct {
	Revision   int64            `json:"revision"`      // counts the transactions; every one compares and raises it
	SnapshotID int64            `json:"snapshot_id"`   // of the lake's table; 0: nothing was loaded
	Vector     lakehouse.Vector `json:"offsets"`       // of that snapshot
	From       int64            `json:"from_snapshot"` // the last range is (From, SnapshotID]
	Last       event.Checksum   `json:"last"`          // its rows
	Job        string           `json:"job_id"`        // that loaded it
	LoadedAt   time.Time        `json:"loaded_at"`
	Table      int64            `json:"table_made"` // when the table was made that holds the rows, ms since 1970

	run    string // that loaded the last range
	result string // what it gave, as JSON: for who asks again
}

const positionColumns = "revision, snapshot_id, vector, from_snapshot, rows_loaded, hash_lo, hash_hi, job_id, loaded_at, table_made, run, result"

func positionTable(table string) string { return "position_" + table }

// position reads the position of a table, which it makes with nothing loaded. meta is the table of the rows.
func (s *Store) position(ctx context.Context, table string, meta *bq.TableMetadata) (Position, error) {
	p, err := s.readPosition(ctx, table)
	if err != nil || p != nil {
		if err == nil && p.SnapshotID != 0 && p.Table != meta.CreationTime.UnixMilli() {
			return *p, fault.Newf(remadeID, "table %s was made at %s, after rows had been loaded into another one of its name", table, meta.CreationTime.UTC().Format(time.RFC3339))
		}
		return deref(p), err
	}
	// Whoever is first makes the row with the table.
	made := fmt.Sprintf("CREATE TABLE IF NOT EXISTS %[1]s AS SELECT %[2]s AS revision, %[2]s AS snapshot_id, '{}' AS vector, %[2]s AS from_snapshot, %[2]s AS rows_loaded, %[2]s AS hash_lo, %[2]s AS hash_hi, "+
		"'' AS job_id, TIMESTAMP_MILLIS(0) AS loaded_at, %[2]s AS table_made, '' AS run, '' AS result", s.name(s.cfg.Work(), positionTable(table)), "CAST(0 AS INT64)")
	_, refused := s.once(ctx, jobName("position", table, strconv.FormatInt(s.now().UnixNano(), 10)), func(ctx context.Context, id string) (*bq.Job, error) {
		return s.submitQuery(ctx, id, made)
	})
	if p, err = s.readPosition(ctx, table); err == nil && p == nil {
		err = fmt.Errorf("making the position of table %s: %w", table, errors.Join(refused, errors.New("it is not there")))
	}
	return deref(p), err
}

func deref(p *Position) Position {
	if p == nil {
		return Position{}
	}
	return *p
}

// readPosition is nil without a table of the position.
func (s *Store) readPosition(ctx context.Context, table string) (*Position, error) {
	meta, err := s.metadata(ctx, s.work(positionTable(table)))
	if err != nil || meta == nil {
		return nil, err
	}
	rows, err := s.ask(ctx, "SELECT "+positionColumns+" FROM "+s.name(s.cfg.Work(), positionTable(table)))
	if err != nil {
		return nil, fmt.Errorf("reading the position of table %s: %w", table, err)
	}
	if len(rows) != 1 || len(rows[0]) != 12 {
		return nil, fault.Newf(remadeID, "the position of table %s has %d rows, not one", table, len(rows))
	}
	r := rows[0]
	text, ok := r[2].(string)
	job, ok2 := r[7].(string)
	at, ok3 := r[8].(time.Time)
	run, ok4 := r[10].(string)
	result, ok5 := r[11].(string)
	if !ok || !ok2 || !ok3 || !ok4 || !ok5 {
		return nil, fault.Newf(remadeID, "the position of table %s has columns of other types", table)
	}
	p := &Position{Job: job, LoadedAt: at.UTC(), run: run, result: result}
	for i, into := range map[int]*int64{0: &p.Revision, 1: &p.SnapshotID, 3: &p.From, 4: &p.Last.Count, 5: &p.Last.HashLo, 6: &p.Last.HashHi, 9: &p.Table} {
		if *into, ok = r[i].(int64); !ok {
			return nil, fault.Newf(remadeID, "the position of table %s has columns of other types", table)
		}
	}
	if p.Vector, err = lakehouse.ParseVector(text); err != nil {
		return nil, fault.New(remadeID, fmt.Errorf("the position of table %s: %w", table, err))
	}
	return p, nil
}

// move is the pair of statements by which a transaction takes a position and gives it on: the first fails if it is another one by now, the second writes what two
// transactions cannot both write. set names further columns.
func (s *Store) move(table string, revision int64, set ...string) (check, update string) {
	at := s.name(s.cfg.Work(), positionTable(table))
	check = fmt.Sprintf("SELECT IF((SELECT COUNT(*) FROM %s WHERE revision = %d) = 1, TRUE, ERROR('%s'))", at, revision, movedText)
	update = fmt.Sprintf("UPDATE %s SET %s WHERE revision = %d", at, strings.Join(append([]string{"revision = revision + 1"}, set...), ", "), revision)
	return check, update
}

// What a transaction says when it finds that it must not be made.
const (
	movedText  = "millrace: another load or erasure was first"
	stagedText = "millrace: the staged rows are not those of the range"
)

// transaction joins statements into one script.
func transaction(statements ...string) string {
	return "BEGIN TRANSACTION;\n" + strings.Join(statements, ";\n") + ";\nCOMMIT TRANSACTION;"
}

// submitQuery submits statements as one job.
func (s *Store) submitQuery(ctx context.Context, id, sql string) (*bq.Job, error) {
	var job *bq.Job
	err := s.call(ctx, func(ctx context.Context) (err error) {
		q := s.client.Query(sql)
		q.JobID, q.MaxBytesBilled, q.JobTimeout = id, s.cfg.MaxBytesBilled, s.cfg.JobTimeout
		job, err = q.Run(ctx)
		return err
	})
	return job, err
}

// jobName makes a job id of parts: it may have letters, digits, dashes and underscores.
func jobName(parts ...string) string {
	safe := func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
			return r
		}
		return '_'
	}
	out := []string{"millrace"}
	for _, p := range parts {
		out = append(out, strings.Map(safe, p))
	}
	return strings.Join(out, "-")
}

// quoted is a text as a literal of SQL.
func quoted(s string) string {
	b, _ := json.Marshal(s) // a string
	return strings.ReplaceAll(string(b), `'`, `\u0027`)
}
