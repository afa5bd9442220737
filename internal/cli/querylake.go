package cli

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/spf13/cobra"

	"millrace/internal/fault"
	"millrace/lakehouse"
)

// previewRows is how many rows a table on a terminal has at most, unless --limit says so.
const previewRows = 100

func (a *app) queryLake() *cobra.Command {
	var ref, asOf, where, out string
	var snapshot, limit int64
	var columns []string
	c := &cobra.Command{
		Use: "query-lake TABLE", Short: "Read rows of an Iceberg table at a ref, a time or a snapshot", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeTables(),
		Long: `Read rows of an Iceberg table as they are at a ref, were at a time or are in a snapshot, deletes applied. Rows are streamed: memory does not grow with their number.
A filter is COLUMN OP LITERAL joined by AND, with = != < <= > >= IN (…) LIKE 'prefix%' IS NULL, IS NOT NULL; texts and times stand in single quotes.`,
		Example: "  millrace query-lake events_purchase --ref published --columns event_id,value,currency --where \"currency = 'EUR' AND value >= 100\" --limit 10\n" +
			"  millrace query-lake events_page --ref nightly-2026-03-01 --output parquet --to pages.parquet",
		RunE: func(c *cobra.Command, args []string) error {
			named := 0
			for _, given := range []bool{c.Flags().Changed("ref"), asOf != "", snapshot != 0} {
				if given {
					named++
				}
			}
			if named > 1 {
				return fault.Newf("MR-CLI-001", "--ref, --as-of and --snapshot exclude each other")
			}
			if (a.output == "parquet") != (out != "") && a.output == "parquet" {
				return fault.Newf("MR-CLI-001", "--output parquet needs a file: --to FILE")
			}
			if limit < 0 {
				return fault.Newf("MR-CLI-001", "--limit %d: is below 0", limit)
			}
			if !c.Flags().Changed("limit") && a.output == "table" {
				limit = previewRows
			}
			o := lakehouse.ScanOptions{Ref: ref, Columns: columns, Limit: limit}
			switch {
			case asOf != "":
				var err error
				if o.Ref, err = asOfRef(asOf); err != nil {
					return err
				}
			case snapshot != 0:
				o.Ref = fmt.Sprintf("snapshot:%d", snapshot)
			}
			return a.withLake(c.Context(), func(cat *lakehouse.Catalog) error {
				err := a.scanLake(c.Context(), cat, args[0], where, out, o)
				return lakeError(args[0], err)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&ref, "ref", lakehouse.RefMain, "main, published, or a tag")
	f.StringVar(&asOf, "as-of", "", "a time such as 2026-03-01T12:00:00Z")
	f.Int64Var(&snapshot, "snapshot", 0, "a snapshot id, see millrace lake log")
	f.StringSliceVar(&columns, "columns", nil, "columns; absent: all")
	f.StringVar(&where, "where", "", "a filter")
	f.Int64Var(&limit, "limit", 0, "rows at most; 0: all. A table has at most 100 unless this is given")
	f.StringVar(&out, "to", "", "write into this file instead of stdout")
	a.outputs(c, "table", "json", "csv", "parquet")
	return c
}

func (a *app) scanLake(ctx context.Context, cat *lakehouse.Catalog, table, where, out string, o lakehouse.ScanOptions) (err error) {
	t, err := cat.Load(ctx, table)
	if err != nil {
		return err
	}
	if err := lakehouse.CheckColumns(t.Schema(), o.Columns); err != nil {
		return err
	}
	if where != "" {
		if o.Filter, err = lakehouse.ParseFilter(t.Schema(), where); err != nil {
			return err
		}
	}
	to := a.out
	if out != "" {
		f, err := os.Create(out)
		if err != nil {
			return fault.Newf("MR-CLI-001", "--to: %w", err)
		}
		defer func() {
			if closeErr := f.Close(); closeErr != nil && !errors.Is(closeErr, os.ErrClosed) {
				err = errors.Join(err, closeErr)
			}
		}()
		to = f
	}
	w := a.rowWriter(to)
	if err := cat.ScanRows(ctx, table, o, w.batch); err != nil {
		return errors.Join(err, w.end())
	}
	return w.end()
}

// rowWriter writes batches in one form, as they come.
type rowWriter interface {
	batch(arrow.RecordBatch) error
	end() error
}

func (a *app) rowWriter(to io.Writer) rowWriter {
	switch a.output {
	case "csv":
		return &csvRows{w: csv.NewWriter(to)}
	case "json":
		return &jsonRows{w: bufio.NewWriterSize(to, 64<<10)}
	case "parquet":
		return &parquetRows{to: to}
	}
	return &tableRows{a: a}
}

type csvRows struct {
	w     *csv.Writer
	begun bool
}

func (r *csvRows) batch(b arrow.RecordBatch) error {
	if !r.begun {
		r.begun = true
		if err := r.w.Write(columnNames(b)); err != nil {
			return fmt.Errorf("writing CSV: %w", err)
		}
	}
	line := make([]string, b.NumCols())
	for i := range int(b.NumRows()) {
		for j, c := range b.Columns() {
			line[j] = cell(c, i, "")
		}
		if err := r.w.Write(line); err != nil {
			return fmt.Errorf("writing CSV: %w", err)
		}
	}
	return nil
}

func (r *csvRows) end() error {
	r.w.Flush()
	if err := r.w.Error(); err != nil {
		return fmt.Errorf("writing CSV: %w", err)
	}
	return nil
}

// jsonRows writes one object a line.
type jsonRows struct{ w *bufio.Writer }

func (r *jsonRows) batch(b arrow.RecordBatch) error {
	for i := range int(b.NumRows()) {
		_ = r.w.WriteByte('{') // the end tells
		for j, c := range b.Columns() {
			if j > 0 {
				_ = r.w.WriteByte(',')
			}
			value, err := json.Marshal(jsonValue(c, i))
			if err != nil {
				return fmt.Errorf("writing JSON: %w", err)
			}
			_, _ = r.w.WriteString(strconv.Quote(b.ColumnName(j)) + ":")
			_, _ = r.w.Write(value)
		}
		if _, err := r.w.WriteString("}\n"); err != nil {
			return fmt.Errorf("writing JSON: %w", err)
		}
	}
	return nil
}

func (r *jsonRows) end() error {
	if err := r.w.Flush(); err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	return nil
}

// parquetRows writes row groups as they fill.
type parquetRows struct {
	to io.Writer
	w  *pqarrow.FileWriter
}

func (r *parquetRows) batch(b arrow.RecordBatch) (err error) {
	if r.w == nil {
		props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(3), parquet.WithMaxRowGroupLength(64<<10))
		if r.w, err = pqarrow.NewFileWriter(b.Schema(), r.to, props, pqarrow.DefaultWriterProps()); err != nil {
			return fmt.Errorf("writing Parquet: %w", err)
		}
	}
	if err := r.w.WriteBuffered(b); err != nil {
		return fmt.Errorf("writing Parquet: %w", err)
	}
	return nil
}

func (r *parquetRows) end() error {
	if r.w == nil {
		return fault.Newf("MR-ICE-060", "there are no rows to write")
	}
	if err := r.w.Close(); err != nil {
		return fmt.Errorf("writing Parquet: %w", err)
	}
	return nil
}

// tableRows holds what is shown: as many rows as --limit says.
type tableRows struct {
	a    *app
	rows [][]string
}

func (r *tableRows) batch(b arrow.RecordBatch) error {
	if r.rows == nil {
		r.rows = [][]string{columnNames(b)}
	}
	for i := range int(b.NumRows()) {
		line := make([]string, b.NumCols())
		for j, c := range b.Columns() {
			line[j] = strings.NewReplacer("\t", " ", "\n", " ").Replace(cell(c, i, "NULL"))
		}
		r.rows = append(r.rows, line)
	}
	return nil
}

func (r *tableRows) end() error { return r.a.table(r.rows) }

func columnNames(b arrow.RecordBatch) []string {
	var out []string
	for _, f := range b.Schema().Fields() {
		out = append(out, f.Name)
	}
	return out
}

// cell is a value as text.
func cell(c arrow.Array, i int, null string) string {
	if c.IsNull(i) {
		return null
	}
	switch c := c.(type) {
	case *array.Timestamp:
		return time.UnixMicro(int64(c.Value(i))).UTC().Format("2006-01-02T15:04:05.999999Z")
	case *array.String:
		return c.Value(i)
	case *array.List, *array.Struct:
		b, err := json.Marshal(jsonValue(c, i))
		if err == nil {
			return string(b)
		}
	}
	return c.ValueStr(i)
}

// jsonValue is a value as encoding/json takes it; amounts stay texts, so that no digit is lost.
func jsonValue(c arrow.Array, i int) any {
	if c.IsNull(i) {
		return nil
	}
	switch c := c.(type) {
	case *array.Timestamp, *array.Decimal128:
		return cell(c, i, "")
	case *array.List:
		from, to := c.ValueOffsets(i)
		out := []any{}
		for j := from; j < to; j++ {
			out = append(out, jsonValue(c.ListValues(), int(j)))
		}
		return out
	case *array.Struct:
		st, _ := c.DataType().(*arrow.StructType) // a struct array's type
		out := map[string]any{}
		for j, f := range st.Fields() {
			out[f.Name] = jsonValue(c.Field(j), i)
		}
		return out
	}
	return c.GetOneForMarshal(i)
}
