package lakehouse

import (
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"

	"millrace/event"
	"millrace/event/schema"
)

// layout is how rows become Arrow columns, in the order of the Iceberg table, which after schema changes is not that of the column table.
type layout struct {
	arrow    *arrow.Schema
	texts    []slot // also JSON
	ints     []slot
	longs    []slot
	optLongs []slot // null, or micros or a number
	doubles  []slot
	bools    []slot
	list     int    // index of the list of texts (product_ids, or an alert's reasons), -1 if there is none
	listName string // of that column
	items    int    // index of items, -1 if there is none
	itemText []itemSlot
	itemLong []itemSlot
	promoted []promotedSlot
	unknown  []int // columns that this release does not know: null
	newItem  []int // item fields that this release does not know: null
}

type slot struct {
	binding
	at int // index among the table's columns
}

type itemSlot struct {
	at       int
	required bool
	name     string
	kind     schema.Type
	text     func(*event.Item) string
	long     func(*event.Item) *int64
}

// newLayout matches the columns of t, and those of promoted properties, with an Iceberg schema by field id.
func newLayout(t schema.Table, have *iceberg.Schema, sc *arrow.Schema, promoted []schema.Promotion) (*layout, error) {
	l := &layout{arrow: sc, list: -1, items: -1}
	byID := map[int]schema.Column{}
	for _, c := range t.Columns {
		byID[c.ID] = c
	}
	for i, f := range have.Fields() {
		col, ok := byID[f.ID]
		if !ok {
			if f.Required {
				return nil, fmt.Errorf("required column %s is not known to this release", f.Name)
			}
			if value := slices.IndexFunc(promoted, func(p schema.Promotion) bool { return p.ID == f.ID }); value >= 0 {
				l.promoted = append(l.promoted, promotedSlot{at: i, value: value})
			} else {
				l.unknown = append(l.unknown, i)
			}
			continue
		}
		delete(byID, f.ID)
		b, err := bind(t, col)
		if err != nil {
			return nil, err
		}
		s := slot{binding: b, at: i}
		switch {
		case b.text != nil:
			l.texts = append(l.texts, s)
		case b.int != nil:
			l.ints = append(l.ints, s)
		case b.long != nil:
			l.longs = append(l.longs, s)
		case b.optLong != nil:
			l.optLongs = append(l.optLongs, s)
		case b.double != nil:
			l.doubles = append(l.doubles, s)
		case b.bool != nil:
			l.bools = append(l.bools, s)
		case col.Type == schema.StringList:
			l.list, l.listName = i, col.Name
		default:
			l.items = i
			if err := l.bindItems(col, f); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range byID {
		return nil, fmt.Errorf("column %s is missing", c.Name)
	}
	return l, nil
}

func (l *layout) bindItems(col schema.Column, f iceberg.NestedField) error {
	list, ok := f.Type.(*iceberg.ListType)
	if !ok {
		return fmt.Errorf("column %s is no list", f.Name)
	}
	st, ok := list.Element.(*iceberg.StructType)
	if !ok {
		return fmt.Errorf("column %s is no list of items", f.Name)
	}
	byID := map[int]schema.Column{}
	for _, c := range col.Items {
		byID[c.ID] = c
	}
	for i, f := range st.FieldList {
		c, ok := byID[f.ID]
		if !ok {
			if f.Required {
				return fmt.Errorf("required item field %s is not known to this release", f.Name)
			}
			l.newItem = append(l.newItem, i)
			continue
		}
		delete(byID, f.ID)
		s := itemSlot{at: i, required: !c.Null, name: c.Name, kind: c.Type, text: itemText[c.Name], long: itemLong[c.Name]}
		switch {
		case s.text != nil:
			l.itemText = append(l.itemText, s)
		case s.long != nil:
			l.itemLong = append(l.itemLong, s)
		default:
			return fmt.Errorf("no value for item field %s", c.Name)
		}
	}
	for _, c := range byID {
		return fmt.Errorf("item field %s is missing", c.Name)
	}
	return nil
}

// block holds the rows of one day until they are a record batch. Nulls are counted and appended at the next value: most columns of most rows are null.
type block struct {
	l       *layout
	rb      *array.RecordBuilder
	rows    int
	bytes   int
	last    int // rows of the last batch
	texts   []textBuffer
	ints    []*array.Int32Builder
	longs   []longColumn
	opts    []longColumn
	doubles []*array.Float64Builder
	bools   []*array.BooleanBuilder
	list    *array.ListBuilder
	listVal *array.StringBuilder
	items   *array.ListBuilder
	item    *array.StructBuilder
	itText  []textColumn
	itLong  []longColumn
}

type textColumn struct {
	b     *array.StringBuilder
	nulls int
}

func (c *textColumn) value(s string) {
	if c.nulls > 0 {
		c.b.AppendNulls(c.nulls)
		c.nulls = 0
	}
	c.b.Append(s)
}

// longColumn is a column of 64-bit numbers in one of three forms.
type longColumn struct {
	n     *array.Int64Builder
	ts    *array.TimestampBuilder
	dec   *array.Decimal128Builder
	nulls int
}

func (c *longColumn) value(v int64) {
	if c.nulls > 0 {
		c.fill()
	}
	switch {
	case c.ts != nil:
		c.ts.Append(arrow.Timestamp(v))
	case c.dec != nil:
		c.dec.Append(decimal128.FromI64(v))
	default:
		c.n.Append(v)
	}
}

func (c *longColumn) fill() {
	switch {
	case c.ts != nil:
		c.ts.AppendNulls(c.nulls)
	case c.dec != nil:
		c.dec.AppendNulls(c.nulls)
	default:
		c.n.AppendNulls(c.nulls)
	}
	c.nulls = 0
}

func (c *longColumn) reserve(n int) {
	switch {
	case c.ts != nil:
		c.ts.Reserve(n)
	case c.dec != nil:
		c.dec.Reserve(n)
	default:
		c.n.Reserve(n)
	}
}

func newLongColumn(b array.Builder) (longColumn, error) {
	switch b := b.(type) {
	case *array.Int64Builder:
		return longColumn{n: b}, nil
	case *array.TimestampBuilder:
		return longColumn{ts: b}, nil
	case *array.Decimal128Builder:
		return longColumn{dec: b}, nil
	}
	return longColumn{}, fmt.Errorf("a 64-bit number cannot be written as %s", b.Type())
}

// newBlock makes the builders. It fails if the table's types are not those of the layout.
func newBlock(l *layout) (_ *block, err error) {
	defer func() {
		if r := recover(); r != nil { // a failed type assertion below
			err = fmt.Errorf("the table's types differ from the schema: %v", r)
		}
	}()
	b := &block{l: l, rb: array.NewRecordBuilder(memory.DefaultAllocator, l.arrow)}
	for _, s := range l.texts {
		_ = b.rb.Field(s.at).(*array.StringBuilder) // the type that textBuffer makes
		b.texts = append(b.texts, textBuffer{})
	}
	for _, s := range l.ints {
		b.ints = append(b.ints, b.rb.Field(s.at).(*array.Int32Builder))
	}
	for _, s := range l.longs {
		c, err := newLongColumn(b.rb.Field(s.at))
		if err != nil {
			return nil, err
		}
		b.longs = append(b.longs, c)
	}
	for _, s := range l.optLongs {
		c, err := newLongColumn(b.rb.Field(s.at))
		if err != nil {
			return nil, err
		}
		b.opts = append(b.opts, c)
	}
	for _, s := range l.doubles {
		b.doubles = append(b.doubles, b.rb.Field(s.at).(*array.Float64Builder))
	}
	for _, s := range l.bools {
		b.bools = append(b.bools, b.rb.Field(s.at).(*array.BooleanBuilder))
	}
	if l.list >= 0 {
		b.list = b.rb.Field(l.list).(*array.ListBuilder)
		b.listVal = b.list.ValueBuilder().(*array.StringBuilder)
	}
	if l.items >= 0 {
		b.items = b.rb.Field(l.items).(*array.ListBuilder)
		b.item = b.items.ValueBuilder().(*array.StructBuilder)
		for _, s := range l.itemText {
			b.itText = append(b.itText, textColumn{b: b.item.FieldBuilder(s.at).(*array.StringBuilder)})
		}
		for _, s := range l.itemLong {
			c, err := newLongColumn(b.item.FieldBuilder(s.at))
			if err != nil {
				return nil, err
			}
			b.itLong = append(b.itLong, c)
		}
	}
	return b, nil
}

// add appends a row that has been checked; text holds the values of the text columns.
func (b *block) add(r *row, text, list []string, bytes int) {
	if b.rows == 0 {
		b.reserve()
	}
	for i := range b.texts {
		if text[i] != "" || b.l.texts[i].required {
			b.texts[i].value(b.rows, text[i])
		}
	}
	for i, c := range b.ints {
		c.Append(b.l.ints[i].int(r))
	}
	for i := range b.longs {
		b.longs[i].value(b.l.longs[i].long(r))
	}
	for i := range b.opts {
		if v := b.l.optLongs[i].optLong(r); v != nil {
			b.opts[i].value(*v)
		} else {
			b.opts[i].nulls++
		}
	}
	for i, c := range b.doubles {
		c.Append(b.l.doubles[i].double(r))
	}
	for i, c := range b.bools {
		c.Append(b.l.bools[i].bool(r))
	}
	if b.list != nil {
		b.list.Append(true)
		for _, s := range list {
			b.listVal.Append(s)
		}
	}
	if b.items != nil {
		b.items.Append(true)
		for i := range r.event.Items {
			b.addItem(&r.event.Items[i])
		}
	}
	for _, s := range b.l.promoted {
		appendPromoted(b.rb.Field(s.at), &r.promoted[s.value])
	}
	b.rows++
	b.bytes += bytes
}

func (b *block) addItem(it *event.Item) {
	b.item.Append(true)
	for i := range b.itText {
		s := &b.l.itemText[i]
		v := s.text(it)
		if v == "" && !s.required {
			b.itText[i].nulls++
			continue
		}
		b.itText[i].value(v)
	}
	for i := range b.itLong {
		if v := b.l.itemLong[i].long(it); v != nil {
			b.itLong[i].value(*v)
		} else {
			b.itLong[i].nulls++
		}
	}
	for _, at := range b.l.newItem {
		b.item.FieldBuilder(at).AppendNull()
	}
}

// reserve makes room for as much as the last batch held: growing by doubling copies every value twice.
func (b *block) reserve() {
	if b.last == 0 {
		return
	}
	for _, c := range b.ints {
		c.Reserve(b.last)
	}
	for _, c := range b.longs {
		c.reserve(b.last)
	}
}

// batch takes the rows out as a record batch, which the caller releases.
func (b *block) batch() arrow.RecordBatch {
	for i := range b.itText {
		b.itText[i].b.AppendNulls(b.itText[i].nulls)
		b.itText[i].nulls = 0
	}
	for _, cols := range [][]longColumn{b.opts, b.itLong} {
		for i := range cols {
			cols[i].fill()
		}
	}
	for _, at := range b.l.unknown {
		b.rb.Field(at).AppendNulls(b.rows)
	}
	columns := make([]arrow.Array, len(b.rb.Fields()))
	for i, s := range b.l.texts {
		columns[s.at] = b.texts[i].array(b.rows)
	}
	for i, f := range b.rb.Fields() {
		if columns[i] == nil {
			columns[i] = f.NewArray()
		}
	}
	rec := array.NewRecordBatch(b.l.arrow, columns, int64(b.rows))
	for _, c := range columns {
		c.Release() // rec holds it
	}
	b.last, b.rows, b.bytes = b.rows, 0, 0
	return rec
}
