package simulate

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// parquetRows is how many rows are in memory at once.
const parquetRows = 1024

// readParquet reads an event a row. Columns are native fields: nested types, dotted names, or JSON text for items, properties and the like.
func (im *importer) readParquet(ctx context.Context, f *os.File, size int64) (err error) {
	defer func() { // the reader panics over some damaged files
		if p := recover(); p != nil {
			err = fmt.Errorf("the file is damaged: %v", p)
		}
	}()
	props := parquet.NewReaderProperties(memory.DefaultAllocator)
	props.BufferedStreamEnabled = true // pages, not whole column chunks
	pf, err := file.NewParquetReader(f, file.WithReadProps(props))
	if err != nil {
		return fmt.Errorf("opening Parquet: %w", err)
	}
	defer func() { _ = pf.Close() }() // it was only read
	reader, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{BatchSize: parquetRows}, memory.DefaultAllocator)
	if err != nil {
		return fmt.Errorf("reading the Parquet schema: %w", err)
	}
	records, err := reader.GetRecordReader(ctx, nil, nil)
	if err != nil {
		return fmt.Errorf("reading Parquet: %w", err)
	}
	defer records.Release()
	var columns []string
	for _, field := range records.Schema().Fields() {
		columns = append(columns, field.Name)
	}
	root, err := newTree(columns)
	if err != nil {
		return err
	}
	var text []byte
	row, rows := int64(0), max(pf.NumRows(), 1)
	for records.Next() {
		rec := records.RecordBatch()
		for i := range int(rec.NumRows()) {
			row++
			var bad error
			text, _ = root.append(text[:0], func(dst []byte, leaf *tree) ([]byte, bool) {
				column := rec.Column(leaf.column)
				if column.IsNull(i) {
					return dst, false
				}
				if s, ok := textOf(column, i); ok && leaf.json {
					return leaf.appendText(dst, s), s != ""
				}
				var err error
				if dst, err = appendArrow(dst, column, i); err != nil && bad == nil {
					bad = fmt.Errorf("column %s: %w", columns[leaf.column], err)
				}
				return dst, true
			})
			if bad != nil {
				im.reject(row, text, bad)
				continue
			}
			if !im.row(ctx, row, text) {
				return nil
			}
		}
		im.done.Store(im.before + int64(float64(size)*float64(row)/float64(rows)))
	}
	if err := records.Err(); err != nil {
		return fmt.Errorf("reading Parquet after row %d: %w", row, err)
	}
	return nil
}

// textOf gives the text of a string or binary column.
func textOf(a arrow.Array, i int) (string, bool) {
	switch a := a.(type) {
	case *array.String:
		return a.Value(i), true
	case *array.LargeString:
		return a.Value(i), true
	case *array.Binary:
		return string(a.Value(i)), true
	case *array.Dictionary:
		return textOf(a.Dictionary(), a.GetValueIndex(i))
	}
	return "", false
}

// appendArrow writes a value that is not null as JSON. Numbers keep their digits.
func appendArrow(dst []byte, a arrow.Array, i int) ([]byte, error) {
	if s, ok := textOf(a, i); ok {
		return appendQuoted(dst, s), nil
	}
	switch a := a.(type) {
	case *array.Int64:
		return strconv.AppendInt(dst, a.Value(i), 10), nil
	case *array.Int32:
		return strconv.AppendInt(dst, int64(a.Value(i)), 10), nil
	case *array.Float64:
		return appendFloat(dst, a.Value(i), 64)
	case *array.Float32:
		return appendFloat(dst, float64(a.Value(i)), 32)
	case *array.Decimal128:
		return append(dst, a.Value(i).ToString(a.DataType().(*arrow.Decimal128Type).Scale)...), nil
	case *array.Decimal256:
		return append(dst, a.Value(i).ToString(a.DataType().(*arrow.Decimal256Type).Scale)...), nil
	case *array.Timestamp:
		return appendInstant(dst, a.Value(i).ToTime(a.DataType().(*arrow.TimestampType).Unit)), nil
	case *array.Date32:
		return appendInstant(dst, a.Value(i).ToTime()), nil
	case *array.Date64:
		return appendInstant(dst, a.Value(i).ToTime()), nil
	case *array.Dictionary:
		return appendArrow(dst, a.Dictionary(), a.GetValueIndex(i))
	case *array.Struct:
		return appendStruct(dst, a, i)
	case *array.Map: // before ListLike, which it is too
		return appendMap(dst, a, i)
	case array.ListLike:
		return appendList(dst, a, i)
	}
	text, err := json.Marshal(a.GetOneForMarshal(i))
	if err != nil {
		return dst, fmt.Errorf("writing a %s: %w", a.DataType(), err)
	}
	return append(dst, text...), nil
}

func appendFloat(dst []byte, v float64, size int) ([]byte, error) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return dst, fmt.Errorf("%g is no number of JSON", v)
	}
	return strconv.AppendFloat(dst, v, 'f', -1, size), nil
}

func appendInstant(dst []byte, t time.Time) []byte {
	dst = append(dst, '"')
	return append(t.UTC().AppendFormat(dst, time.RFC3339Nano), '"')
}

func appendStruct(dst []byte, a *array.Struct, i int) ([]byte, error) {
	dst = append(dst, '{')
	first := true
	for f, field := range a.DataType().(*arrow.StructType).Fields() {
		child := a.Field(f)
		if child.IsNull(i) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		var err error
		if dst, err = appendArrow(append(appendQuoted(dst, field.Name), ':'), child, i); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func appendList(dst []byte, a array.ListLike, i int) ([]byte, error) {
	from, to := a.ValueOffsets(i)
	values := a.ListValues()
	dst = append(dst, '[')
	for at := from; at < to; at++ {
		if at > from {
			dst = append(dst, ',')
		}
		if values.IsNull(int(at)) {
			dst = append(dst, "null"...)
			continue
		}
		var err error
		if dst, err = appendArrow(dst, values, int(at)); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func appendMap(dst []byte, a *array.Map, i int) ([]byte, error) {
	from, to := a.ValueOffsets(i)
	dst = append(dst, '{')
	for at := from; at < to; at++ {
		key, ok := textOf(a.Keys(), int(at))
		if !ok {
			return dst, fmt.Errorf("keys of type %s are no member names", a.Keys().DataType())
		}
		if at > from {
			dst = append(dst, ',')
		}
		dst = append(appendQuoted(dst, key), ':')
		if a.Items().IsNull(int(at)) {
			dst = append(dst, "null"...)
			continue
		}
		var err error
		if dst, err = appendArrow(dst, a.Items(), int(at)); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}
