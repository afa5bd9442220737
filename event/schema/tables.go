package schema

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"millrace/event"
)

// Table is one table as Iceberg holds it, and where it is of events also ClickHouse and BigQuery.
type Table struct {
	Name    string
	Topic   string // whose records are its rows
	Columns []Column
	Day     string   // column by whose day it is partitioned: when the platform knew the row, so that a day closes
	Lookup  []string // columns by whose values rows are looked for; the first is a row's id
	Counted bool     // rows have a place on a raw topic, and control totals count them
}

// Has says whether there is a column of that name.
func (t Table) Has(column string) bool {
	return slices.ContainsFunc(t.Columns, func(c Column) bool { return c.Name == column })
}

// Column is one column of a table.
type Column struct {
	Field
	ID      int      // Iceberg field id
	Element int      // field id of a list's element
	Items   []Column // fields of an ItemList's element
}

// The columns that a sink adds to what is on the topic.
var (
	categoryColumn   = Field{Name: "category", Type: String, Layer: FromSink, Doc: "category of the name"}
	productsColumn   = Field{Name: "product_ids", Type: StringList, Layer: FromSink, Doc: "distinct item ids"}
	kafkaTopicColumn = Field{Name: "kafka_topic", Type: String, Layer: FromSink, Doc: "provenance: topic the row was read from"}
	kafkaPartColumn  = Field{Name: "kafka_partition", Type: Int, Layer: FromSink, Doc: "provenance: its partition"}
	kafkaOffsColumn  = Field{Name: "kafka_offset", Type: Long, Layer: FromSink, Doc: "provenance: its offset"}
)

// lead is the order of the columns with which every events_* table starts.
var lead = []string{
	"event_id", "tenant", "name", "category", "visitor_id", "user_id", "session_id", "occurred_at", "received_at", "ingested_at", "source",
	"value", "currency", "order_id", "product_ids", "properties", "kafka_topic", "kafka_partition", "kafka_offset", "raw_topic", "raw_partition", "raw_offset", "row_hash",
}

//go:embed ids.json
var idsJSON []byte

var ids = sync.OnceValues(func() (map[string]map[string]int, error) {
	m := map[string]map[string]int{}
	return m, json.Unmarshal(idsJSON, &m)
})

// Tables lists events_* and failed_events, which ClickHouse and the lake hold in the same columns, without field ids.
func Tables() []Table {
	var out []Table
	for _, c := range event.Categories() {
		byName := map[string]Field{}
		var order []Field
		for _, f := range append(append(pick(eventFields, c, FromHot), pick(eventFields, c, FromProducer)...), categoryColumn, productsColumn, kafkaTopicColumn, kafkaPartColumn, kafkaOffsColumn) {
			byName[f.Name] = f
			order = append(order, f)
		}
		t := Table{Name: c.Table(), Topic: c.EventsTopic(), Day: "ingested_at", Lookup: []string{"event_id", "visitor_id"}, Counted: true}
		for _, n := range lead {
			t.Columns = append(t.Columns, column(byName[n]))
			delete(byName, n)
		}
		for _, f := range order {
			if _, left := byName[f.Name]; left {
				t.Columns = append(t.Columns, column(f))
			}
		}
		out = append(out, t)
	}
	failed := Table{Name: "failed_events", Topic: event.TopicEventsFailed, Day: "ingested_at", Lookup: []string{"failed_id"}, Counted: true}
	for _, l := range []Layer{FromProducer, FromHot} {
		for _, f := range pick(failedFields, event.Custom, l) {
			failed.Columns = append(failed.Columns, column(f))
		}
	}
	for _, f := range []Field{kafkaTopicColumn, kafkaPartColumn, kafkaOffsColumn} {
		failed.Columns = append(failed.Columns, column(f))
	}
	return append(out, failed)
}

// LakeTables lists the tables that the stream writes to the lake, without field ids: Tables, and alerts, which ClickHouse holds in a form of its own, as a confirmed alert
// replaces its provisional one there. The lake has the confirmed ones, each once.
func LakeTables() []Table {
	alerts := Table{Name: "alerts", Topic: event.TopicAlerts, Day: "detected_at", Lookup: []string{"alert_id", "key"}}
	for _, f := range slices.Concat(alertFields, []Field{kafkaTopicColumn, kafkaPartColumn, kafkaOffsColumn}) {
		alerts.Columns = append(alerts.Columns, column(f))
	}
	return append(Tables(), alerts)
}

func column(f Field) Column {
	c := Column{Field: f}
	if f.Type == ItemList {
		for _, i := range itemFields {
			c.Items = append(c.Items, Column{Field: i})
		}
	}
	return c
}

// TableNamed gives a table of the lake with its field ids.
func TableNamed(name string) (Table, error) {
	all, err := ids()
	if err != nil {
		return Table{}, fmt.Errorf("field ids: %w", err)
	}
	for _, t := range LakeTables() {
		if t.Name != name {
			continue
		}
		of := func(path string) int {
			id, ok := all[name][path]
			if !ok && err == nil {
				err = fmt.Errorf("field ids: %s.%s has none", name, path)
			}
			return id
		}
		for i := range t.Columns {
			c := &t.Columns[i]
			c.ID = of(c.Name)
			if c.Type == ItemList || c.Type == StringList {
				c.Element = of(c.Name + ".element")
			}
			for j := range c.Items {
				c.Items[j].ID = of(c.Name + ".element." + c.Items[j].Name)
			}
		}
		return t, err
	}
	return Table{}, fmt.Errorf("no table %s", name)
}

// paths lists what needs a field id, in the order in which ids are first given: columns, then what is inside lists.
func (t Table) paths() []string {
	var out, inner []string
	for _, c := range t.Columns {
		out = append(out, c.Name)
		if c.Type == ItemList || c.Type == StringList {
			inner = append(inner, c.Name+".element")
		}
		for _, i := range c.Items {
			inner = append(inner, c.Name+".element."+i.Name)
		}
	}
	return append(out, inner...)
}
