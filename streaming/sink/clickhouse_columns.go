package sink

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/event"
	"millrace/event/schema"
	"millrace/olap"
)

// A block is filled column by column from decoded records and handed to the driver column by column: strings as slices, everything of fixed width as the bytes
// that go over the wire, read by the driver's own column decoder, which skips its conversions from time.Time and decimal.Decimal. A column without any value is
// left out of the insert, which is most of them; the server fills in the default.

// clickhouseKind is how a column gets its values.
type clickhouseKind uint8

const (
	clickhouseString clickhouseKind = iota // string
	clickhouseBytes                        // []byte
	clickhouseInt32
	clickhouseInt64
	clickhouseOptInt64 // *int64
	clickhouseBool
	clickhouseSum
	clickhouseConst           // the same string in every row
	clickhouseRecordPartition // of the record
	clickhouseRecordOffset    // of the record
	clickhouseVersion         // generation << 48 | offset of the record
	clickhouseProducts        // distinct item ids
	clickhouseItemCount       // offsets of the arrays of items: no column of its own
	clickhouseFloat64
	clickhouseStrings // []string
	clickhouseItemString
	clickhouseItemInt64
	clickhouseItemOptInt64
	clickhousePromoted // a value of Extractor, at index `at`
)

// clickhouseColumn is one column of a layout and the values of the block being filled. Rows before the first value are not written until there is one.
type clickhouseColumn struct {
	name  string
	typ   string // as in the native format: without LowCardinality
	id    int    // field id
	kind  clickhouseKind
	null  bool
	must  bool    // inserted even if it has no value
	at    uintptr // of the field in the struct, of an item's field in event.Item
	width int
	text  string // of a constant

	any   bool
	strs  []string
	fixed []byte
	nulls []byte
	ends  []uint64  // of arrays: one past the last element of each row
	ptrs  []*string // strs as the driver takes nullable strings
}

// clickhouseLayout is how records of one topic become rows of one table.
type clickhouseLayout struct {
	table   string
	columns []clickhouseColumn
	items   uintptr // of event.Event.Items
	ids     []byte  // bitmap of all field ids

	promoted []schema.Promotion // whose columns are the last ones
}

// newClickhouseLayout pairs the columns of a table with the fields of the struct that its records are decoded into, by avro tag. Every pair is checked here, which
// is what makes the unchecked reads of add right.
func newClickhouseLayout(table string, cols []olap.Column, record reflect.Type, constants map[string]string) (*clickhouseLayout, error) {
	fields := clickhouseFields(record)
	itemFields := clickhouseFields(reflect.TypeFor[event.Item]())
	l := &clickhouseLayout{table: table}
	if f, ok := fields["items"]; ok {
		l.items = f.Offset
	}
	for _, c := range cols {
		out := clickhouseColumn{name: c.Name, id: c.ID, null: c.Field.Null, typ: clickhousePlainType(c.Type)}
		_, constant := constants[c.Name]
		f, ok := fields[c.Name]
		if c.Item {
			f, ok = itemFields[c.Field.Name]
		}
		switch {
		case constant:
			out.kind, out.text, out.must = clickhouseConst, constants[c.Name], true
		case c.Name == "kafka_partition" && !ok:
			out.kind, out.width, out.must = clickhouseRecordPartition, 4, true
		case c.Name == "kafka_offset":
			out.kind, out.width, out.must = clickhouseRecordOffset, 8, true
		case c.Name == olap.VersionColumn:
			out.kind, out.width, out.must = clickhouseVersion, 8, true
		case c.Name == "product_ids":
			out.kind = clickhouseProducts
		case !ok:
			return nil, fmt.Errorf("table %s: no field of %s is column %s", table, record, c.Name)
		default:
			var err error
			if out.kind, out.width, err = clickhouseKindOf(c, f.Type); err != nil {
				return nil, fmt.Errorf("table %s: %w", table, err)
			}
			out.at = f.Offset
			out.must = !c.Item && !c.Field.Null && c.Field.Type != schema.JSON
		}
		if c.ID > 0 {
			for len(l.ids) <= c.ID/8 {
				l.ids = append(l.ids, 0)
			}
			l.ids[c.ID/8] |= 1 << (c.ID % 8)
		}
		l.columns = append(l.columns, out)
	}
	return l, nil
}

// clickhousePlainType is a column's type in an insert with low_cardinality_allow_in_native_format=0: the server makes the dictionaries.
func clickhousePlainType(t string) string {
	const low = "LowCardinality("
	for {
		i := strings.Index(t, low)
		if i < 0 {
			return t
		}
		depth, j := 1, i+len(low)
		for ; depth > 0; j++ {
			switch t[j] {
			case '(':
				depth++
			case ')':
				depth--
			}
		}
		t = t[:i] + t[i+len(low):j-1] + t[j:]
	}
}

// clickhouseFields finds the fields of a struct by avro tag, those of embedded structs with them. The offsets are from the outer struct.
func clickhouseFields(t reflect.Type) map[string]reflect.StructField {
	out := map[string]reflect.StructField{}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for name, inner := range clickhouseFields(f.Type) {
				inner.Offset += f.Offset
				out[name] = inner
			}
			continue
		}
		if name, _, _ := strings.Cut(f.Tag.Get("avro"), ","); name != "" {
			out[name] = f
		}
	}
	return out
}

func clickhouseKindOf(c olap.Column, t reflect.Type) (clickhouseKind, int, error) {
	type pair struct {
		t    reflect.Type
		item bool
	}
	of := map[pair]struct {
		kind  clickhouseKind
		width int
	}{
		{reflect.TypeFor[string](), false}:    {clickhouseString, 0},
		{reflect.TypeFor[[]byte](), false}:    {clickhouseBytes, 0},
		{reflect.TypeFor[int32](), false}:     {clickhouseInt32, 4},
		{reflect.TypeFor[int64](), false}:     {clickhouseInt64, 8},
		{reflect.TypeFor[*int64](), false}:    {clickhouseOptInt64, 8},
		{reflect.TypeFor[bool](), false}:      {clickhouseBool, 1},
		{reflect.TypeFor[float64](), false}:   {clickhouseFloat64, 8},
		{reflect.TypeFor[[]string](), false}:  {clickhouseStrings, 0},
		{reflect.TypeFor[event.Sum](), false}: {clickhouseSum, 16},
		{reflect.TypeFor[string](), true}:     {clickhouseItemString, 0},
		{reflect.TypeFor[int64](), true}:      {clickhouseItemInt64, 8},
		{reflect.TypeFor[*int64](), true}:     {clickhouseItemOptInt64, 8},
	}
	got, ok := of[pair{t, c.Item}]
	if !ok {
		return 0, 0, fmt.Errorf("column %s: a field of type %s has no form in the store", c.Name, t)
	}
	if want := c.Field.Null; want != (t.Kind() == reflect.Pointer) && t.Kind() != reflect.String {
		return 0, 0, fmt.Errorf("column %s: nullable is %t, the field is %s", c.Name, want, t)
	}
	return got.kind, got.width, nil
}

// clickhouseBlock is a block being filled. It is reused.
type clickhouseBlock struct {
	*clickhouseLayout
	cols   []clickhouseColumn
	rows   int
	expect int
	have   []byte // the columns an intent names; nil: all
	feed   clickhouseFeed
	reader *proto.Reader
}

func (l *clickhouseLayout) newBlock() *clickhouseBlock {
	b := &clickhouseBlock{clickhouseLayout: l, cols: append([]clickhouseColumn(nil), l.columns...)}
	b.reader = proto.NewReader(&b.feed)
	return b
}

// reset empties the block for about so many rows.
func (b *clickhouseBlock) reset(columns []byte, rows int) {
	b.rows, b.have, b.expect = 0, columns, rows
	for i := range b.cols {
		c := &b.cols[i]
		clear(c.strs) // what they point to may go
		clear(c.ptrs)
		c.any, c.strs, c.fixed, c.nulls, c.ends, c.ptrs = false, c.strs[:0], c.fixed[:0], c.nulls[:0], c.ends[:0], c.ptrs[:0]
	}
}

// add appends a row: record is the struct that the layout was made for, promoted the values of its promoted columns.
func (b *clickhouseBlock) add(record unsafe.Pointer, promoted []schema.Promoted, partition int32, offset int64, version uint64) {
	var items []event.Item
	if b.items != 0 {
		items = *(*[]event.Item)(unsafe.Add(record, b.items))
	}
	for i := range b.cols {
		c := &b.cols[i]
		if c.kind == clickhousePromoted {
			switch v := &promoted[c.at]; {
			case !v.OK:
			case c.width == 0:
				c.addString(b, v.Text)
			default:
				c.addPromoted(b.rows, v.Num)
			}
			continue
		}
		// The layout has checked that what is at c.at has the type that c.kind stands for.
		p := unsafe.Add(record, c.at)
		switch c.kind {
		case clickhouseString:
			if s := *(*string)(p); s != "" {
				c.addString(b, s)
			}
		case clickhouseBytes:
			if s := *(*[]byte)(p); len(s) > 0 {
				c.addString(b, string(s))
			}
		case clickhouseInt32:
			c.fixed = binary.LittleEndian.AppendUint32(c.fixed, uint32(*(*int32)(p)))
		case clickhouseInt64:
			c.fixed = binary.LittleEndian.AppendUint64(c.fixed, uint64(*(*int64)(p)))
		case clickhouseOptInt64:
			if v := *(**int64)(p); v != nil {
				c.padFixed(b.rows)
				c.nulls = append(c.nulls, 0)
				c.fixed = binary.LittleEndian.AppendUint64(c.fixed, uint64(*v))
			}
		case clickhouseBool:
			v := byte(0)
			if *(*bool)(p) {
				v = 1
			}
			c.fixed = append(c.fixed, v)
		case clickhouseSum:
			s := (*event.Sum)(p) // big-endian
			for i := len(s) - 1; i >= 0; i-- {
				c.fixed = append(c.fixed, s[i])
			}
		case clickhouseFloat64:
			c.fixed = binary.LittleEndian.AppendUint64(c.fixed, math.Float64bits(*(*float64)(p)))
		case clickhouseStrings:
			if list := *(*[]string)(p); len(list) > 0 {
				c.padEnds(b.rows, uint64(len(c.strs)))
				c.strs = append(c.strs, list...)
				c.ends = append(c.ends, uint64(len(c.strs)))
			}
		case clickhouseConst:
			c.strs = append(c.strs, c.text)
		case clickhouseRecordPartition:
			c.fixed = binary.LittleEndian.AppendUint32(c.fixed, uint32(partition))
		case clickhouseRecordOffset:
			c.fixed = binary.LittleEndian.AppendUint64(c.fixed, uint64(offset))
		case clickhouseVersion:
			c.fixed = binary.LittleEndian.AppendUint64(c.fixed, version)
		case clickhouseProducts:
			n := len(c.strs)
			if c.strs = (*event.Event)(record).ProductIDs(c.strs); len(c.strs) > n {
				c.padEnds(b.rows, uint64(n))
				c.ends = append(c.ends, uint64(len(c.strs)))
			}
		default:
			if len(items) > 0 {
				c.addItems(b.rows, items)
			}
		}
	}
	b.rows++
}

func (c *clickhouseColumn) addString(b *clickhouseBlock, s string) {
	c.any = true
	if c.strs == nil {
		c.strs = make([]string, 0, b.expect)
	}
	for len(c.strs) < b.rows {
		c.strs = append(c.strs, "")
	}
	c.strs = append(c.strs, s)
}

// padFixed brings a nullable column to row rows with NULLs.
func (c *clickhouseColumn) padFixed(row int) {
	for len(c.nulls) < row {
		c.nulls = append(c.nulls, 1)
		c.fixed = append(c.fixed, make([]byte, c.width)...)
	}
}

// addPromoted appends the value of a promoted column that is not a string.
func (c *clickhouseColumn) addPromoted(row int, v int64) {
	c.padFixed(row)
	c.nulls = append(c.nulls, 0)
	switch c.width {
	case 1:
		c.fixed = append(c.fixed, byte(v))
	case 4:
		c.fixed = binary.LittleEndian.AppendUint32(c.fixed, uint32(v))
	default:
		c.fixed = binary.LittleEndian.AppendUint64(c.fixed, uint64(v))
	}
}

// promoteClickhouse is the layout with columns for promoted properties at its end.
func promoteClickhouse(l *clickhouseLayout, ps []schema.Promotion) *clickhouseLayout {
	out := &clickhouseLayout{table: l.table, items: l.items, columns: slices.Clone(l.columns), ids: slices.Clone(l.ids), promoted: ps}
	for i, p := range ps {
		c := p.Column()
		col := clickhouseColumn{name: p.Name, typ: clickhousePlainType(olap.ColumnType(c.Field)), id: p.ID, kind: clickhousePromoted, null: true, at: uintptr(i)}
		switch c.Type {
		case schema.String:
		case schema.Bool:
			col.width = 1
		case schema.Int:
			col.width = 4
		default:
			col.width = 8
		}
		for len(out.ids) <= p.ID/8 {
			out.ids = append(out.ids, 0)
		}
		out.ids[p.ID/8] |= 1 << (p.ID % 8)
		out.columns = append(out.columns, col)
	}
	return out
}

func (c *clickhouseColumn) padEnds(row int, end uint64) {
	for len(c.ends) < row {
		c.ends = append(c.ends, end)
	}
}

func (c *clickhouseColumn) addItems(row int, items []event.Item) {
	end := uint64(0)
	if len(c.ends) > 0 {
		end = c.ends[len(c.ends)-1]
	}
	c.padEnds(row, end)
	c.ends = append(c.ends, end+uint64(len(items)))
	for i := range items {
		p := unsafe.Add(unsafe.Pointer(&items[i]), c.at)
		switch c.kind {
		case clickhouseItemString:
			s := *(*string)(p)
			c.any = c.any || s != ""
			c.strs = append(c.strs, s)
		case clickhouseItemInt64:
			c.any = true
			c.fixed = binary.LittleEndian.AppendUint64(c.fixed, uint64(*(*int64)(p)))
		default: // clickhouseItemOptInt64
			v, null := int64(0), byte(1)
			if o := *(**int64)(p); o != nil {
				v, null, c.any = *o, 0, true
			}
			c.nulls = append(c.nulls, null)
			c.fixed = binary.LittleEndian.AppendUint64(c.fixed, uint64(v))
		}
	}
}

// used are the columns that are inserted: those that always are, and those with a value. The arrays of items are one structure: its first column and those with
// a value.
func (b *clickhouseBlock) used() []*clickhouseColumn {
	var out []*clickhouseColumn
	for i := range b.cols {
		c := &b.cols[i]
		if b.have != nil && c.id > 0 && !clickhouseHasID(b.have, c.id) {
			continue
		}
		switch c.kind {
		case clickhouseItemString, clickhouseItemInt64, clickhouseItemOptInt64:
			if len(c.ends) == 0 || !c.any && (c.null || c.kind != clickhouseItemString) {
				continue
			}
		case clickhouseOptInt64, clickhouseProducts, clickhouseStrings, clickhousePromoted:
			if len(c.fixed)+len(c.strs) == 0 {
				continue
			}
		default:
			if !c.must && !c.any {
				continue
			}
		}
		out = append(out, c)
	}
	return out
}

// insertInto gives the statement for the columns.
func (b *clickhouseBlock) insertInto(table string, used []*clickhouseColumn) string {
	var s strings.Builder
	s.WriteString("INSERT INTO " + table + " (")
	for i, c := range used {
		if i > 0 {
			s.WriteString(", ")
		}
		if strings.Contains(c.name, ".") {
			s.WriteString("`" + c.name + "`")
		} else {
			s.WriteString(c.name)
		}
	}
	s.WriteString(")")
	return s.String()
}

// fill hands the columns to the driver's batch.
func (b *clickhouseBlock) fill(batch driver.Batch, used []*clickhouseColumn) error {
	cols := batch.Columns()
	if len(cols) != len(used) {
		return fmt.Errorf("the server expects %d columns of %s, %d were named", len(cols), b.table, len(used))
	}
	for i, c := range used {
		if err := b.fillColumn(cols[i], c); err != nil {
			return fmt.Errorf("column %s of %s: %w", c.name, b.table, err)
		}
	}
	return nil
}

func (b *clickhouseBlock) fillColumn(col column.Interface, c *clickhouseColumn) error {
	if got := string(col.Type()); got != c.typ {
		return fmt.Errorf("the table has type %s, %s is expected", got, c.typ)
	}
	switch c.kind {
	case clickhouseString, clickhouseBytes, clickhouseConst:
		for len(c.strs) < b.rows {
			c.strs = append(c.strs, "")
		}
		if !c.null {
			_, err := col.Append(c.strs)
			return err
		}
		_, err := col.Append(c.pointers())
		return err
	case clickhouseProducts, clickhouseStrings, clickhouseItemString:
		return b.fillStrings(col, c)
	case clickhousePromoted:
		if c.width == 0 {
			for len(c.strs) < b.rows {
				c.strs = append(c.strs, "")
			}
			_, err := col.Append(c.pointers())
			return err
		}
		c.padFixed(b.rows)
	case clickhouseOptInt64:
		c.padFixed(b.rows)
	case clickhouseItemInt64, clickhouseItemOptInt64:
		c.padEnds(b.rows, c.ends[len(c.ends)-1])
	}
	return b.decode(col, c)
}

// pointers are the strings as pointers, nil for "".
func (c *clickhouseColumn) pointers() []*string {
	c.ptrs = slices.Grow(c.ptrs, len(c.strs))
	for i := range c.strs {
		if c.strs[i] == "" {
			c.ptrs = append(c.ptrs, nil)
		} else {
			c.ptrs = append(c.ptrs, &c.strs[i])
		}
	}
	return c.ptrs
}

// fillStrings fills an array of strings, a row at a time.
func (b *clickhouseBlock) fillStrings(col column.Interface, c *clickhouseColumn) error {
	c.padEnds(b.rows, uint64(len(c.strs)))
	if c.null {
		c.pointers()
	}
	from := uint64(0)
	for _, to := range c.ends {
		var err error
		if c.null {
			err = col.AppendRow(c.ptrs[from:to])
		} else {
			err = col.AppendRow(c.strs[from:to])
		}
		if err != nil {
			return err
		}
		from = to
	}
	return nil
}

// decode has the driver read a column of fixed width from its wire form: array offsets, null map, values.
func (b *clickhouseBlock) decode(col column.Interface, c *clickhouseColumn) error {
	b.feed.parts = b.feed.parts[:0]
	if len(c.ends) > 0 {
		// On the little-endian machines that the driver's own unsafe decoder is built for, these bytes are the wire form.
		wire := make([]byte, 0, 8*len(c.ends))
		for _, e := range c.ends {
			wire = binary.LittleEndian.AppendUint64(wire, e)
		}
		b.feed.add(wire)
	}
	if c.null {
		b.feed.add(c.nulls)
	}
	b.feed.add(c.fixed)
	if err := col.Decode(b.reader, b.rows); err != nil {
		return err
	}
	if n := b.feed.left(); n != 0 || col.Rows() != b.rows {
		return fmt.Errorf("%d of %d rows taken, %d bytes left over", col.Rows(), b.rows, n)
	}
	return nil
}

// clickhouseFeed is the driver's reader of one column's bytes.
type clickhouseFeed struct{ parts []*bytes.Reader }

func (f *clickhouseFeed) add(b []byte) { f.parts = append(f.parts, bytes.NewReader(b)) }

func (f *clickhouseFeed) left() int {
	n := 0
	for _, p := range f.parts {
		n += p.Len()
	}
	return n
}

// Read implements io.Reader.
func (f *clickhouseFeed) Read(p []byte) (int, error) {
	for _, part := range f.parts {
		if part.Len() > 0 {
			return part.Read(p)
		}
	}
	return 0, io.EOF
}
