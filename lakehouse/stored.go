package lakehouse

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"millrace/event"
)

// storedReader makes rows of the batches of a scan over all columns of an events table, or of failed_events. Columns that are no field of the event (promoted ones, and
// those that follow from others) are passed over: what they hold is among the properties.
type storedReader struct {
	failed bool
	fields map[string][]int
	items  map[string][]int
}

func newStoredReader(table string) *storedReader {
	r := &storedReader{failed: table == FailedTable, items: avroFields(reflect.TypeFor[event.Item](), nil)}
	r.fields = avroFields(reflect.TypeFor[event.Event](), nil)
	if r.failed {
		r.fields = avroFields(reflect.TypeFor[event.Failed](), nil)
	}
	return r
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

// row reads row i of a batch.
func (r *storedReader) row(b arrow.RecordBatch, i int) (event.Stored, error) {
	var s event.Stored
	var record reflect.Value
	if r.failed {
		s.Failed = &event.Failed{}
		record = reflect.ValueOf(s.Failed).Elem()
	} else {
		s.Event = &event.Event{}
		record = reflect.ValueOf(s.Event).Elem()
	}
	for c, f := range b.Schema().Fields() {
		col := b.Column(c)
		var err error
		switch f.Name {
		case "kafka_topic":
			err = setValue(reflect.ValueOf(&s.Topic).Elem(), col, i)
		case "kafka_partition":
			err = setValue(reflect.ValueOf(&s.Partition).Elem(), col, i)
		case "kafka_offset":
			err = setValue(reflect.ValueOf(&s.Offset).Elem(), col, i)
		case "items":
			if s.Event != nil {
				s.Event.Items, err = r.itemsOf(col, i)
			}
		default:
			if at, ok := r.fields[f.Name]; ok {
				err = setValue(record.FieldByIndex(at), col, i)
			}
		}
		if err != nil {
			return s, fmt.Errorf("column %s: %w", f.Name, err)
		}
	}
	return s, nil
}

func (r *storedReader) itemsOf(col arrow.Array, i int) ([]event.Item, error) {
	list, ok := col.(*array.List)
	if !ok {
		return nil, fmt.Errorf("a list is expected, it is %s", col.DataType())
	}
	if list.IsNull(i) {
		return nil, nil
	}
	st, ok := list.ListValues().(*array.Struct)
	if !ok {
		return nil, errors.New("a list of items is expected")
	}
	from, to := list.ValueOffsets(i)
	if from == to {
		return nil, nil
	}
	out := make([]event.Item, to-from)
	for n := range out {
		item := reflect.ValueOf(&out[n]).Elem()
		for k, f := range st.DataType().(*arrow.StructType).Fields() {
			if at, ok := r.items[f.Name]; ok {
				if err := setValue(item.FieldByIndex(at), st.Field(k), int(from)+n); err != nil {
					return nil, fmt.Errorf("%s: %w", f.Name, err)
				}
			}
		}
	}
	return out, nil
}

// setValue puts one value into a field: a string, an integer, or a pointer to one. NULL is the zero value.
func setValue(field reflect.Value, col arrow.Array, i int) error {
	if col.IsNull(i) {
		return nil
	}
	var n int64
	switch col := col.(type) {
	case *array.String:
		if field.Kind() != reflect.String {
			return fmt.Errorf("a text for %s", field.Type())
		}
		field.SetString(strings.Clone(col.Value(i)))
		return nil
	case *array.Int32:
		n = int64(col.Value(i))
	case *array.Int64:
		n = col.Value(i)
	case *array.Timestamp:
		n = int64(col.Value(i))
	case *array.Decimal128:
		n = int64(col.Value(i).LowBits())
	default:
		return fmt.Errorf("a value of type %s is not expected", col.DataType())
	}
	switch field.Kind() {
	case reflect.Int32, reflect.Int64:
		field.SetInt(n)
	case reflect.Pointer:
		field.Set(reflect.ValueOf(&n))
	default:
		return fmt.Errorf("a number for %s", field.Type())
	}
	return nil
}
