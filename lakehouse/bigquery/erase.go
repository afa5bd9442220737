package bigquery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	bq "cloud.google.com/go/bigquery"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/api/iterator"

	"millrace/event"
	"millrace/event/schema"
)

// Tables lists the tables that there are in BigQuery of those that are loaded.
func (s *Store) Tables(ctx context.Context) ([]string, error) {
	var out []string
	for _, name := range schema.BigQueryTables() {
		meta, err := s.metadata(ctx, s.target(name))
		if err != nil {
			return nil, classify(fmt.Errorf("looking at table %s of BigQuery: %w", name, err))
		}
		if meta != nil {
			out = append(out, name)
		}
	}
	return out, nil
}

// EraseRows removes the rows that the ledger of erasures names from a table, and gives how many. It may be repeated. The ledger must hold its newest entry already: a load
// that has read it before finds the position moved by this, and plans again.
//
// The ledger knows digests only, so the ids of the table are read and compared here; what is deleted is named by where the rows came from. Ids of erased persons, and
// these names, travel in tables of their own, which are dropped: neither the text nor the parameters of a job, which BigQuery keeps for half a year, hold them.
func (s *Store) EraseRows(ctx context.Context, table string, erased *event.Erased) (int64, error) {
	if erased.Len() == 0 {
		return 0, nil
	}
	rows, err := s.eraseRows(ctx, table, erased)
	if err != nil {
		err = classify(fmt.Errorf("erasing rows of table %s of BigQuery: %w", table, err))
	}
	return rows, err
}

func (s *Store) eraseRows(ctx context.Context, name string, erased *event.Erased) (_ int64, err error) {
	meta, err := s.metadata(ctx, s.target(name))
	if err != nil || meta == nil {
		return 0, err
	}
	if err := s.ensureDataset(ctx, s.cfg.Work()); err != nil {
		return 0, err
	}
	previous := "''"
	if slices.ContainsFunc(meta.Schema, func(f *bq.FieldSchema) bool { return f.Name == "previous_id" }) {
		previous = "IFNULL(previous_id, '')"
	}
	found, err := s.persons(ctx, name, previous, erased)
	if err != nil || len(found) == 0 {
		return 0, err
	}
	ids, err := s.stageTexts(ctx, "persons", []string{"tenant", "id"}, found)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ids.drop(ctx)) }()
	keys, err := s.rowsOf(ctx, name, previous, ids, erased)
	if err != nil || len(keys) == 0 {
		return 0, err
	}
	rows, err := s.stageTexts(ctx, "rows", []string{"at"}, keys)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rows.drop(ctx)) }()
	dml := []string{fmt.Sprintf("DELETE FROM %s WHERE %s IN (SELECT at FROM %s)", s.name(s.cfg.Dataset, name), rawKey, s.name(s.cfg.Work(), rows.table.TableID))}
	if err := s.guard(ctx, dml...); err != nil {
		return 0, err
	}
	at, err := s.readPosition(ctx, name)
	if err != nil {
		return 0, err
	}
	if at != nil {
		dml = append(dml, "UPDATE "+s.name(s.cfg.Work(), positionTable(name))+" SET revision = revision + 1 WHERE TRUE")
	}
	done, err := s.once(ctx, jobName("erase", name, rows.table.TableID), func(ctx context.Context, id string) (*bq.Job, error) {
		return s.submitQuery(ctx, id, transaction(dml...))
	})
	if err != nil {
		return 0, err
	}
	return s.deleted(ctx, done.id)
}

// rawKey names a row by the raw record that it was made of.
const rawKey = "CONCAT(raw_topic, '/', CAST(raw_partition AS STRING), '/', CAST(raw_offset AS STRING))"

// persons lists (tenant, id) of the ids of a table that the ledger names, whatever the cut.
func (s *Store) persons(ctx context.Context, name, previous string, erased *event.Erased) ([][]string, error) {
	seen := map[[2]string]bool{}
	var out [][]string
	sql := fmt.Sprintf("SELECT DISTINCT tenant, visitor_id, IFNULL(user_id, '') AS user_id, %s AS previous_id FROM %s", previous, s.name(s.cfg.Dataset, name))
	err := s.each(ctx, sql, func(r []string) {
		for _, id := range r[1:] {
			if key := [2]string{r[0], id}; id != "" && !seen[key] && erased.Names(r[0], id) {
				seen[key] = true
				out = append(out, key[:])
			}
		}
	})
	return out, err
}

// rowsOf lists the keys of the rows of persons that lie below the cut, as the ledger says it.
func (s *Store) rowsOf(ctx context.Context, name, previous string, ids *stage, erased *event.Erased) ([][]string, error) {
	in := func(column string) string {
		return fmt.Sprintf("CONCAT(tenant, CHR(31), %s) IN (SELECT CONCAT(tenant, CHR(31), id) FROM %s)", column, s.name(s.cfg.Work(), ids.table.TableID))
	}
	where := []string{in("visitor_id"), in("IFNULL(user_id, '')")}
	if previous != "''" {
		where = append(where, in(previous))
	}
	sql := fmt.Sprintf("SELECT tenant, visitor_id, IFNULL(user_id, '') AS user_id, %s AS previous_id, raw_topic, CAST(raw_partition AS STRING) AS raw_partition, CAST(raw_offset AS STRING) AS raw_offset FROM %s WHERE %s",
		previous, s.name(s.cfg.Dataset, name), strings.Join(where, " OR "))
	var out [][]string
	var wrong error
	err := s.each(ctx, sql, func(r []string) {
		var partition int32
		var offset int64
		if _, err := fmt.Sscan(r[5]+" "+r[6], &partition, &offset); err != nil {
			wrong = fmt.Errorf("provenance of a row: %w", err)
			return
		}
		if erased.Drops(r[0], r[1], r[2], r[4], partition, offset) || r[3] != "" && erased.DropsPrevious(r[0], r[3], r[4], partition, offset) {
			out = append(out, []string{r[4] + "/" + r[5] + "/" + r[6]})
		}
	})
	return out, errors.Join(err, wrong)
}

// each reads the rows of a query, all of whose columns are texts.
func (s *Store) each(ctx context.Context, sql string, f func(row []string)) error {
	if err := s.guard(ctx, sql); err != nil {
		return err
	}
	q := s.client.Query(sql)
	q.MaxBytesBilled = s.cfg.MaxBytesBilled
	it, err := q.Read(ctx)
	if err != nil {
		return err
	}
	for {
		var values []bq.Value
		err := it.Next(&values)
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err != nil {
			return err
		}
		row := make([]string, len(values))
		for i, v := range values {
			text, ok := v.(string)
			if !ok {
				return fmt.Errorf("column %d is a %T", i, v)
			}
			row[i] = text
		}
		f(row)
	}
}

// deleted adds up the rows that the statements of a script have deleted.
func (s *Store) deleted(ctx context.Context, id string) (int64, error) {
	job, err := s.find(ctx, id)
	if err != nil || job == nil {
		return 0, err
	}
	var rows int64
	it := job.Children(ctx)
	for {
		child, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return rows, nil
		}
		if err != nil {
			return rows, fmt.Errorf("statements of job %s: %w", id, err)
		}
		if st := child.LastStatus(); st != nil && st.Statistics != nil {
			if q, ok := st.Statistics.Details.(*bq.QueryStatistics); ok && q.StatementType == "DELETE" {
				rows += q.NumDMLAffectedRows
			}
		}
	}
}

// stageTexts loads texts into a table of their own in the work dataset. What an interrupted call leaves expires.
func (s *Store) stageTexts(ctx context.Context, what string, columns []string, rows [][]string) (*stage, error) {
	var fields []arrow.Field
	var sc bq.Schema
	for _, c := range columns {
		fields = append(fields, arrow.Field{Name: c, Type: arrow.BinaryTypes.String})
		sc = append(sc, &bq.FieldSchema{Name: c, Type: bq.StringFieldType, Required: true})
	}
	w, err := newPart(arrow.NewSchema(fields, nil))
	if err != nil {
		return nil, err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	for chunk := range slices.Chunk(rows, batchRows) {
		for _, row := range chunk {
			for i, text := range row {
				b.Field(i).(*array.StringBuilder).Append(text) // as the schema says
			}
		}
		batch := b.NewRecordBatch()
		err := w.add(batch, 0, batch.NumRows())
		batch.Release()
		if err != nil {
			return nil, err
		}
	}
	body, err := w.close()
	if err != nil {
		return nil, err
	}
	name := what + "_" + digest(fmt.Append(body, s.now().UnixNano()))
	g := &stage{s: s, table: s.work(name), name: jobName(name), epoch: "0", note: func(string, int64) {}}
	err = s.call(ctx, func(ctx context.Context) error {
		return g.table.Create(ctx, &bq.TableMetadata{Schema: sc, ExpirationTime: s.now().Add(loadTime), Description: "Of an erasure that is under way; it can be dropped when none is."})
	})
	if err != nil {
		return nil, fmt.Errorf("making a table for an erasure: %w", err)
	}
	if err := g.loadPart(ctx, body); err != nil {
		return nil, errors.Join(err, g.drop(ctx))
	}
	return g, nil
}
