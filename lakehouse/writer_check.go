package lakehouse

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"millrace/event"
	"millrace/event/schema"
)

// Times that every reader can show: years 1 to 9999.
var (
	minTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).UnixMicro()
)

// maxAmount bounds what Decimal(18,6) holds, in micros, exclusive.
const maxAmount = 1_000_000_000_000_000_000

// check validates a row before any of it is taken: iceberg-go and Parquet would store what readers then refuse, or read back as something else. It leaves
// the text values in w.text and gives the row's size.
func (w *Writer) check(r *row) (int, error) {
	bytes := 8 * (len(w.layout.ints) + len(w.layout.longs) + len(w.layout.optLongs) + len(w.layout.doubles))
	for i := range w.layout.texts {
		s := &w.layout.texts[i]
		v := s.text(r)
		if v != "" {
			if !utf8.ValidString(v) {
				return 0, &RowError{s.column.Name, errors.New("is not UTF-8")}
			}
			bytes += len(v)
		}
		w.text[i] = v
	}
	for i := range w.layout.longs {
		if s := &w.layout.longs[i]; s.column.Type == schema.Timestamp {
			if v := s.long(r); v < minTime || v > maxTime {
				return 0, &RowError{s.column.Name, fmt.Errorf("%d µs is not in the years 1 to 9999", v)}
			}
		}
	}
	for i := range w.layout.optLongs {
		s := &w.layout.optLongs[i]
		v := s.optLong(r)
		if v == nil {
			if s.required {
				return 0, &RowError{s.column.Name, errors.New("is required, but null")}
			}
			continue
		}
		if err := amountOK(s.column.Type, *v); err != nil {
			return 0, &RowError{s.column.Name, err}
		}
	}
	if r.id() == "" {
		return 0, &RowError{w.columns.Lookup[0], errors.New("is required, but empty")}
	}
	if w.layout.items >= 0 {
		for i := range r.event.Items {
			n, err := w.checkItem(&r.event.Items[i])
			if err != nil {
				return 0, err
			}
			bytes += n
		}
	}
	for i := range r.promoted {
		bytes += 8 + len(r.promoted[i].Text)
	}
	for _, s := range w.list {
		if !utf8.ValidString(s) {
			return 0, &RowError{w.layout.listName, errors.New("is not UTF-8")}
		}
		bytes += len(s)
	}
	return bytes, nil
}

func (w *Writer) checkItem(it *event.Item) (int, error) {
	bytes := 8 * len(w.layout.itemLong)
	for i := range w.layout.itemText {
		s := &w.layout.itemText[i]
		v := s.text(it)
		if !utf8.ValidString(v) {
			return 0, &RowError{"items." + s.name, errors.New("is not UTF-8")}
		}
		bytes += len(v)
	}
	for i := range w.layout.itemLong {
		s := &w.layout.itemLong[i]
		if v := s.long(it); v != nil {
			if err := amountOK(s.kind, *v); err != nil {
				return 0, &RowError{"items." + s.name, err}
			}
		}
	}
	return bytes, nil
}

func amountOK(t schema.Type, v int64) error {
	if t == schema.Amount && (v <= -maxAmount || v >= maxAmount) {
		return fmt.Errorf("%d micros is 10^12 units or more", v)
	}
	return nil
}
