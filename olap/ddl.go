package olap

import (
	"fmt"
	"slices"
	"strings"

	"millrace/event/schema"
)

// lowCardinality names the string columns that hold few distinct values, where a dictionary pays. A column that turns out to hold many stays correct: ClickHouse
// begins another dictionary.
var lowCardinality = map[string]bool{
	"tenant": true, "name": true, "category": true, "source": true, "currency": true, "country": true, "region": true, "locale": true, "time_zone": true,
	"device_type": true, "device_os": true, "device_browser": true, "device": true,
	"kafka_topic": true, "raw_topic": true, "out_topic": true,
	"payment_method": true, "payment_type": true, "shipping_tier": true, "affiliation": true, "campaign_source": true, "campaign_medium": true,
	"warehouse_id": true, "change_reason": true, "experiment_id": true, "variant_id": true, "hash_attribute": true,
	"reason": true, "error_path": true, "content_type": true,
	"item_category": true, "item_brand": true,
	"kind": true, "rule": true, "entity": true, "severity": true,
}

// codecs are column compressions that were measured to pay on 2.4 M rows: T64 makes offsets 0.57 times as large as LZ4 does, ZSTD(1) ids 0.52 and URLs 0.54
// times. Delta and DoubleDelta gain nothing on times, which are in no order within an hour of a tenant. All other columns have the server's default.
var codecs = map[string]string{
	"kafka_offset": "T64, LZ4", "raw_offset": "T64, LZ4",
	"event_id": "ZSTD(1)", "failed_id": "ZSTD(1)", "properties": "ZSTD(1)", "page_url": "ZSTD(1)", "page_path": "ZSTD(1)", "page_title": "ZSTD(1)",
	"page_referrer": "ZSTD(1)", "user_agent": "ZSTD(1)", "payload": "ZSTD(1)", "error": "ZSTD(1)", "visitors_sketch": "ZSTD(1)",
}

// ColumnType is the ClickHouse type of a field: the table of types that every table here follows.
func ColumnType(f schema.Field) string {
	var t string
	switch f.Type {
	case schema.Int:
		t = "Int32"
	case schema.Long:
		t = "Int64"
	case schema.Bool:
		t = "Bool"
	case schema.Timestamp:
		t = "DateTime64(6, 'UTC')"
	case schema.Amount:
		t = "Decimal(18, 6)"
	case schema.Total:
		t = "Decimal(38, 6)"
	case schema.Double:
		t = "Float64"
	case schema.StringList:
		return "Array(String)"
	default: // String, Blob, JSON
		t = "String"
	}
	if f.Null {
		t = "Nullable(" + t + ")"
	}
	if f.Type == schema.String && lowCardinality[f.Name] {
		t = "LowCardinality(" + t + ")"
	}
	return t
}

// Column is one column as ClickHouse has it. A list of items is a Nested structure: one array a field, all of one length, so that a new field of an item is a
// new column and inserts are columnar.
type Column struct {
	Name  string // "items.price" for a field of an item
	Type  string
	Codec string
	Field schema.Field // the field itself; for a list of items the field of the item
	ID    int          // field id
	Item  bool         // belongs to the list of items
}

func (c Column) ddl() string {
	s := quoted(c.Name) + " " + c.Type
	if c.Codec != "" {
		s += " CODEC(" + c.Codec + ")"
	}
	return s
}

// quoted quotes a name where ClickHouse asks for it: the parts of a Nested column.
func quoted(name string) string {
	if strings.Contains(name, ".") {
		return "`" + name + "`"
	}
	return name
}

// Columns lists the columns of a table of event/schema.
func Columns(table string) ([]Column, error) {
	t, err := schema.TableNamed(table)
	if err != nil {
		return nil, err
	}
	var out []Column
	for _, c := range t.Columns {
		if c.Type != schema.ItemList {
			out = append(out, Column{Name: c.Name, Type: ColumnType(c.Field), Codec: codecs[c.Name], Field: c.Field, ID: c.ID})
			continue
		}
		for _, i := range c.Items {
			out = append(out, Column{Name: c.Name + "." + i.Name, Type: "Array(" + ColumnType(i.Field) + ")", Field: i.Field, ID: i.ID, Item: true})
		}
	}
	return out, nil
}

// dedupWindow is how many inserted blocks a table remembers by their token. At one block of a table every 50 ms it reaches back more than eight minutes, and
// the presence check does not depend on it.
const dedupWindow = 10_000

// tableDDL describes one table of the migrations.
type tableDDL struct {
	name, engine, version string // version: column of a ReplacingMergeTree
	columns, indexes      []string
	partition, order      string
	dedup                 bool // remembers the tokens of inserted blocks
}

// template renders the table as the text of a migration: {{…}} is what differs between one server and a cluster (template.go).
func (t tableDDL) template() string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS {{table %q}} (\n", t.name)
	b.WriteString("    " + strings.Join(slices.Concat(t.columns, t.indexes), ",\n    "))
	fmt.Fprintf(&b, "\n) ENGINE = {{engine %q %q}}\n", t.engine, t.version)
	if t.partition != "" {
		fmt.Fprintf(&b, "PARTITION BY %s\n", t.partition)
	}
	fmt.Fprintf(&b, "ORDER BY (%s)", t.order)
	if t.dedup {
		b.WriteString("\nSETTINGS {{dedup}}")
	}
	fmt.Fprintf(&b, ";\n\n{{distributed %q}};\n", t.name)
	return b.String()
}

// provenance are the indexes by which the sink asks which offsets of a range are present, and reconciliation which raw offsets are.
func provenance() []string {
	return []string{
		"INDEX by_offset (kafka_partition, kafka_offset) TYPE minmax GRANULARITY 1",
		"INDEX by_raw_offset (raw_partition, raw_offset) TYPE minmax GRANULARITY 1",
	}
}

// eventTables are events_* and failed_events, from the column table.
func eventTables() ([]tableDDL, error) {
	var out []tableDDL
	for _, t := range schema.Tables() {
		cols, err := Columns(t.Name)
		if err != nil {
			return nil, err
		}
		d := tableDDL{name: t.Name, engine: "MergeTree", partition: "toYYYYMM(ingested_at)", dedup: true}
		for _, c := range cols {
			d.columns = append(d.columns, c.ddl())
		}
		if t.Name == "failed_events" {
			d.order = "tenant, reason, toStartOfHour(failed_at), failed_id"
		} else {
			d.order = "tenant, name, toStartOfHour(occurred_at), visitor_id, event_id"
			d.indexes = append(d.indexes, "INDEX by_occurred_at occurred_at TYPE minmax GRANULARITY 1")
		}
		d.indexes = append(d.indexes, provenance()...)
		out = append(out, d)
	}
	return out, nil
}
