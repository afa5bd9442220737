package lakehouse

import (
	"bytes"
	"encoding/binary"
	"math"

	"millrace/lakehouse/order"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
)

// Query is a kind of question that readers ask of a table: all of Where hold. Values are not part of it; a rewrite takes them from rows of its own.
type Query struct {
	Name  string  `json:"name"`
	Where []Match `json:"where"`
}

// Match is a condition on one column: it has a certain value or, with Within, a time in a certain day or hour.
type Match struct {
	Column string `json:"column"`
	Within string `json:"within,omitempty"` // day or hour
}

// queriesOf is the query set of a table.
func queriesOf(table string) []Query {
	if table == FailedTable {
		return []Query{
			{"an hour", []Match{{"failed_at", "hour"}}},
			{"a reason in an hour", []Match{{Column: "reason"}, {"failed_at", "hour"}}},
			{"one event", []Match{{Column: "failed_id"}}},
		}
	}
	if table == AlertsTable {
		return []Query{
			{"an hour", []Match{{"occurred_at", "hour"}}},
			{"a rule on a day", []Match{{Column: "rule"}, {"occurred_at", "day"}}},
			{"what is known of one", []Match{{Column: "key"}}},
			{"one alert", []Match{{Column: "alert_id"}}},
		}
	}
	out := []Query{
		{"a day", []Match{{"occurred_at", "day"}}},
		{"a name in an hour", []Match{{Column: "name"}, {"occurred_at", "hour"}}},
		{"a visitor", []Match{{Column: "visitor_id"}}},
		{"a visitor on a day", []Match{{Column: "visitor_id"}, {"occurred_at", "day"}}},
	}
	if col := map[string]string{"events_purchase": "order_id", "events_inventory": "item_id", "events_exposure": "experiment_id", "events_identity": "user_id"}[table]; col != "" {
		out = append(out, Query{"by " + col, []Match{{Column: col}}})
	}
	return out
}

// probes is how many rows of a group give a query its values.
const probes = 4

// bound is a condition with its value: the column's key lies between lo and hi.
type bound struct {
	field  int
	lo, hi []byte
}

// questions are the queries of a policy, with the values of a few rows of a group.
type questions struct {
	queries []Query
	at      []int64 // numbers of the rows that give values
	asked   [][]bound
	seen    int64
}

// newQuestions takes values from rows that are spread over a group.
func newQuestions(queries []Query, rows int64) *questions {
	q := &questions{queries: queries}
	if len(queries) == 0 {
		return q
	}
	for i := range int64(probes) {
		if at := rows * (2*i + 1) / (2 * probes); len(q.at) == 0 || at > q.at[len(q.at)-1] {
			q.at = append(q.at, at)
		}
	}
	return q
}

// look takes values from the rows of the group as they pass by.
func (q *questions) look(b arrow.RecordBatch, sc *iceberg.Schema) {
	for len(q.at) > 0 && q.at[0] < q.seen+b.NumRows() {
		q.ask(b, int(q.at[0]-q.seen), sc)
		q.at = q.at[1:]
	}
	q.seen += b.NumRows()
}

// ask asks the queries with the values of a row; those whose columns the table does not have, or the row has no values in, are left out.
func (q *questions) ask(b arrow.RecordBatch, row int, sc *iceberg.Schema) {
next:
	for _, query := range q.queries {
		var all []bound
		for _, m := range query.Where {
			at := b.Schema().FieldIndices(m.Column)
			f, ok := sc.FindFieldByName(m.Column)
			if len(at) != 1 || !ok {
				continue next
			}
			col := b.Column(at[0])
			if col.IsNull(row) {
				continue next
			}
			key, err := order.KeyOf(col, false, true, 0)
			if err != nil { // it has no order
				continue next
			}
			c := bound{field: f.ID, lo: key(nil, row)}
			c.hi = c.lo
			if unit := map[string]int64{"day": order.Day, "hour": order.Hour}[m.Within]; unit > 0 && len(c.lo) == 8 {
				v := int64(binary.BigEndian.Uint64(c.lo) ^ 1<<63)
				from := floorDiv(v, unit) * unit
				c.lo, c.hi = order.AppendInt(nil, from), order.AppendInt(nil, from+unit-1)
			}
			all = append(all, c)
		}
		q.asked = append(q.asked, all)
	}
}

// opened is how many files readers of all questions open, by their statistics.
func (q *questions) opened(files []iceberg.DataFile, sc *iceberg.Schema) int64 {
	var n int64
	for _, f := range files {
		lower, upper := f.LowerBoundValues(), f.UpperBoundValues()
		for _, all := range q.asked {
			may := true
			for _, c := range all {
				may = may && c.mayHold(sc, lower[c.field], upper[c.field])
			}
			if may {
				n++
			}
		}
	}
	return n
}

// mayHold says whether a file with these statistics may have rows for the condition. What is not known may.
func (c bound) mayHold(sc *iceberg.Schema, lower, upper []byte) bool {
	f, ok := sc.FindFieldByID(c.field)
	if !ok {
		return true
	}
	if k, ok := keyOfBytes(f.Type, lower); ok && bytes.Compare(k, c.hi) > 0 {
		return false
	}
	if k, ok := keyOfBytes(f.Type, upper); ok && bytes.Compare(k, c.lo) < 0 {
		return false
	}
	return true
}

// keyOfBytes is the key of a value in the form that manifests keep it in. Bounds of texts may be cut: the lower one then is below every value, the upper one above.
func keyOfBytes(t iceberg.Type, text []byte) ([]byte, bool) {
	if text == nil {
		return nil, false
	}
	lit, err := iceberg.LiteralFromBytes(t, text)
	if err != nil {
		return nil, false
	}
	switch v := lit.(type) {
	case iceberg.StringLiteral:
		return []byte(v), true
	case iceberg.BinaryLiteral:
		return []byte(v), true
	case iceberg.Int64Literal:
		return order.AppendInt(nil, int64(v)), true
	case iceberg.TimestampLiteral:
		return order.AppendInt(nil, int64(v)), true
	case iceberg.TimeLiteral:
		return order.AppendInt(nil, int64(v)), true
	case iceberg.Int32Literal:
		return binary.BigEndian.AppendUint32(nil, uint32(v)^1<<31), true
	case iceberg.DateLiteral:
		return binary.BigEndian.AppendUint32(nil, uint32(v)^1<<31), true
	case iceberg.BoolLiteral:
		return order.AppendBool(nil, bool(v)), true
	case iceberg.Float32Literal:
		return order.AppendFloat(nil, float64(v)), !math.IsNaN(float64(v))
	case iceberg.Float64Literal:
		return order.AppendFloat(nil, float64(v)), !math.IsNaN(float64(v))
	case iceberg.DecimalLiteral:
		return order.AppendDecimal(nil, v.Val), true
	}
	return nil, false
}
