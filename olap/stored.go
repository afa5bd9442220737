package olap

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/shopspring/decimal"

	"millrace/event"
	"millrace/event/schema"
)

// storedForm reads and writes whole rows of one events table, or of failed_events, one at a time: for repair and recomputation. The sink fills blocks column by column
// and is some fifty times as fast.
type storedForm struct {
	table   string
	columns []storedColumn
	items   []int // index of Event.Items
	failed  bool
}

type storedColumn struct {
	Column
	at    []int // index of the field in event.Event, event.Failed or event.Item; nil for what is not read from it
	place place
}

// place is what a column holds that is no field of the event.
type place uint8

const (
	ofField place = iota
	ofTopic
	ofPartition
	ofOffset
	ofCategory
	ofProducts
)

func newStoredForm(table string, only ...string) (*storedForm, error) {
	cols, err := Columns(table)
	if err != nil {
		return nil, err
	}
	f := &storedForm{table: table, failed: table == TableFailed}
	record := reflect.TypeFor[event.Event]()
	if f.failed {
		record = reflect.TypeFor[event.Failed]()
	}
	fields, itemFields := avroFields(record, nil), avroFields(reflect.TypeFor[event.Item](), nil)
	f.items = fields["items"]
	for _, c := range cols {
		if len(only) > 0 && !slices.Contains(only, c.Name) && !(c.Item && slices.Contains(only, "items")) {
			continue
		}
		s := storedColumn{Column: c}
		switch {
		case c.Name == "kafka_topic":
			s.place = ofTopic
		case c.Name == "kafka_partition":
			s.place = ofPartition
		case c.Name == "kafka_offset":
			s.place = ofOffset
		case c.Name == "category":
			s.place = ofCategory
		case c.Name == "product_ids":
			s.place = ofProducts
		case c.Item:
			s.at = itemFields[c.Field.Name]
		default:
			s.at = fields[c.Name]
		}
		if s.place == ofField && s.at == nil {
			return nil, fmt.Errorf("table %s: no field of %s is column %s", table, record, c.Name)
		}
		f.columns = append(f.columns, s)
	}
	return f, nil
}

// avroFields finds the fields of a struct by avro tag, those of embedded structs with them.
func avroFields(t reflect.Type, at []int) map[string][]int {
	out := map[string][]int{}
	for i := range t.NumField() {
		f, here := t.Field(i), append(slices.Clone(at), i)
		if f.Anonymous {
			for n, inner := range avroFields(f.Type, here) {
				out[n] = inner
			}
			continue
		}
		if n, _, _ := strings.Cut(f.Tag.Get("avro"), ","); n != "" {
			out[n] = here
		}
	}
	return out
}

// names lists the columns for a statement; read leaves out what follows from the others.
func (f *storedForm) names(read bool) []string {
	var out []string
	for _, c := range f.columns {
		if read && (c.place == ofProducts || c.place == ofCategory) {
			continue
		}
		out = append(out, quoted(c.Name))
	}
	return out
}

// read takes the row at hand of a query for names(true).
func (f *storedForm) read(rows driver.Rows) (event.Stored, error) {
	var s event.Stored
	var record reflect.Value
	if f.failed {
		s.Failed = &event.Failed{}
		record = reflect.ValueOf(s.Failed).Elem()
	} else {
		s.Event = &event.Event{}
		record = reflect.ValueOf(s.Event).Elem()
	}
	var dest []any
	var take []func()
	for _, c := range f.columns {
		switch c.place {
		case ofProducts, ofCategory:
			continue
		case ofTopic:
			dest = append(dest, &s.Topic)
			continue
		case ofPartition:
			dest = append(dest, &s.Partition)
			continue
		case ofOffset:
			dest = append(dest, &s.Offset)
			continue
		}
		var d any
		var set func()
		if c.Item {
			d, set = takeItems(c, record.FieldByIndex(f.items).Addr().Interface().(*[]event.Item))
		} else {
			d, set = takeField(c, record.FieldByIndex(c.at))
		}
		dest = append(dest, d)
		if set != nil {
			take = append(take, set)
		}
	}
	if err := rows.Scan(dest...); err != nil {
		return s, fmt.Errorf("reading a row of %s: %w", f.table, err)
	}
	for _, set := range take {
		set()
	}
	return s, nil
}

// takeField gives what the driver scans a column into, and what brings it from there into the field.
func takeField(c storedColumn, field reflect.Value) (any, func()) {
	switch {
	case c.Field.Type == schema.Timestamp && c.Field.Null:
		var v *time.Time
		return &v, func() {
			if v != nil {
				us := v.UnixMicro()
				field.Set(reflect.ValueOf(&us))
			}
		}
	case c.Field.Type == schema.Timestamp:
		var v time.Time
		return &v, func() { field.SetInt(v.UnixMicro()) }
	case c.Field.Type == schema.Amount:
		var v *decimal.Decimal
		return &v, func() { field.Set(reflect.ValueOf(microsOf(v))) }
	case field.Kind() == reflect.String && c.Field.Null:
		var v *string
		return &v, func() { field.SetString(deref(v)) }
	default:
		return field.Addr().Interface(), nil
	}
}

func takeItems(c storedColumn, items *[]event.Item) (any, func()) {
	each := func(n int, set func(i int, field reflect.Value)) {
		if *items == nil && n > 0 {
			*items = make([]event.Item, n)
		}
		for i := range min(n, len(*items)) {
			set(i, reflect.ValueOf(&(*items)[i]).Elem().FieldByIndex(c.at))
		}
	}
	switch {
	case c.Field.Type == schema.Amount:
		var v []*decimal.Decimal
		return &v, func() { each(len(v), func(i int, f reflect.Value) { f.Set(reflect.ValueOf(microsOf(v[i]))) }) }
	case c.Field.Type == schema.Long && c.Field.Null:
		var v []*int64
		return &v, func() { each(len(v), func(i int, f reflect.Value) { f.Set(reflect.ValueOf(v[i])) }) }
	case c.Field.Type == schema.Long:
		var v []int64
		return &v, func() { each(len(v), func(i int, f reflect.Value) { f.SetInt(v[i]) }) }
	case c.Field.Null:
		var v []*string
		return &v, func() { each(len(v), func(i int, f reflect.Value) { f.SetString(deref(v[i])) }) }
	default:
		var v []string
		return &v, func() { each(len(v), func(i int, f reflect.Value) { f.SetString(v[i]) }) }
	}
}

func microsOf(d *decimal.Decimal) *int64 {
	if d == nil {
		return nil
	}
	n := d.Shift(6).IntPart()
	return &n
}

func decimalOf(micros *int64) *decimal.Decimal {
	if micros == nil {
		return nil
	}
	d := decimal.New(*micros, -6)
	return &d
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// values gives a row as the driver takes it, in the order of names(false).
func (f *storedForm) values(s *event.Stored) []any {
	var record reflect.Value
	var items []event.Item
	if f.failed {
		record = reflect.ValueOf(s.Failed).Elem()
	} else {
		record, items = reflect.ValueOf(s.Event).Elem(), s.Event.Items
	}
	out := make([]any, 0, len(f.columns))
	for _, c := range f.columns {
		switch {
		case c.place == ofTopic:
			out = append(out, s.Topic)
		case c.place == ofPartition:
			out = append(out, s.Partition)
		case c.place == ofOffset:
			out = append(out, s.Offset)
		case c.place == ofCategory:
			out = append(out, s.Event.Category().String())
		case c.place == ofProducts:
			out = append(out, s.Event.ProductIDs([]string{}))
		case c.Item:
			out = append(out, itemValues(c, items))
		default:
			out = append(out, fieldValue(c, record.FieldByIndex(c.at)))
		}
	}
	return out
}

func fieldValue(c storedColumn, field reflect.Value) any {
	switch {
	case c.Field.Type == schema.Timestamp && c.Field.Null:
		us, _ := field.Interface().(*int64)
		if us == nil {
			return (*time.Time)(nil)
		}
		at := event.Time(*us)
		return &at
	case c.Field.Type == schema.Timestamp:
		return event.Time(field.Int())
	case c.Field.Type == schema.Amount:
		us, _ := field.Interface().(*int64)
		return decimalOf(us)
	case field.Kind() == reflect.String && c.Field.Null:
		return orNil(field.String())
	default:
		return field.Interface()
	}
}

func itemValues(c storedColumn, items []event.Item) any {
	field := func(i int) reflect.Value { return reflect.ValueOf(&items[i]).Elem().FieldByIndex(c.at) }
	switch {
	case c.Field.Type == schema.Amount:
		out := make([]*decimal.Decimal, len(items))
		for i := range items {
			us, _ := field(i).Interface().(*int64)
			out[i] = decimalOf(us)
		}
		return out
	case c.Field.Type == schema.Long && c.Field.Null:
		out := make([]*int64, len(items))
		for i := range items {
			out[i], _ = field(i).Interface().(*int64)
		}
		return out
	case c.Field.Type == schema.Long:
		out := make([]int64, len(items))
		for i := range items {
			out[i] = field(i).Int()
		}
		return out
	case c.Field.Null:
		out := make([]*string, len(items))
		for i := range items {
			out[i] = orNil(field(i).String())
		}
		return out
	default:
		out := make([]string, len(items))
		for i := range items {
			out[i] = field(i).String()
		}
		return out
	}
}

// promotedValues are the values of promoted columns of one row.
func promotedValues(ps []schema.Promotion, values []schema.Promoted) []any {
	out := make([]any, len(ps))
	for i, p := range ps {
		v := values[i]
		switch p.Column().Type {
		case schema.String:
			out[i] = (*string)(nil)
			if v.OK {
				out[i] = new(v.Text)
			}
		case schema.Int:
			out[i] = (*int32)(nil)
			if v.OK {
				out[i] = new(int32(v.Num))
			}
		case schema.Bool:
			out[i] = (*bool)(nil)
			if v.OK {
				out[i] = new(v.Num != 0)
			}
		case schema.Timestamp:
			out[i] = (*time.Time)(nil)
			if v.OK {
				out[i] = new(event.Time(v.Num))
			}
		case schema.Amount:
			out[i] = (*decimal.Decimal)(nil)
			if v.OK {
				out[i] = decimalOf(&v.Num)
			}
		default:
			out[i] = (*int64)(nil)
			if v.OK {
				out[i] = new(v.Num)
			}
		}
	}
	return out
}

// maxStoredBlock keeps an insert within one block whatever the server's settings: a token stands for one block.
const maxStoredBlock = 50_000

// insertStored sends rows as one block under a token.
func insertStored(ctx context.Context, conn driver.Conn, into string, f *storedForm, ps []schema.Promotion, rows []event.Stored, token string) error {
	if len(rows) > maxStoredBlock {
		return fmt.Errorf("%d rows are more than a block has", len(rows))
	}
	names := f.names(false)
	for _, p := range ps {
		names = append(names, p.Name)
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": token, "max_partitions_per_insert_block": 0,
	}))
	batch, err := conn.PrepareBatch(ctx, "INSERT INTO "+into+" ("+strings.Join(names, ", ")+")")
	if err != nil {
		return err
	}
	defer func() { _ = batch.Close() }() // sent, or given up
	extract := schema.NewExtractor(ps)
	for i := range rows {
		values := f.values(&rows[i])
		if len(ps) > 0 {
			values = append(values, promotedValues(ps, extract.Values(rows[i].Event.Properties))...)
		}
		if err := batch.Append(values...); err != nil {
			_, p, o := rows[i].Raw()
			return fmt.Errorf("row of raw offset %d/%d: %w", p, o, err)
		}
	}
	return batch.Send()
}
