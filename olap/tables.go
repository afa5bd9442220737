package olap

import (
	"fmt"
	"strings"

	"millrace/event"
	"millrace/event/schema"
)

// Grains of the KPI tables, finest first.
var grains = []string{"1s", "1m", "1h", "1d"}

// KPITable is the table of a family ("shop" or "items") and grain ("1s", "1m", "1h", "1d"), "" if there is none.
func KPITable(family, grain string) string {
	ok := false
	for _, g := range grains {
		ok = ok || g == grain
	}
	switch {
	case ok && family == "shop":
		return "kpi_" + grain
	case ok && family == "items":
		return "kpi_items_" + grain
	}
	return ""
}

// KPITables lists the KPI tables.
func KPITables() []string {
	var out []string
	for _, family := range []string{"shop", "items"} {
		for _, g := range grains {
			out = append(out, KPITable(family, g))
		}
	}
	return out
}

// The other tables that the sink writes.
const (
	TableFailed     = "failed_events"
	TableLedger     = "event_ledger"
	TableKPILate    = "kpi_late"
	TableAlerts     = "alerts"
	TableSinkTopics = "sink_topics"
)

// VersionColumn orders the copies of a replaced row: topic generation << 48 | offset on the topic it came from.
const VersionColumn = "version"

// AlertConfirmed is the bit of an alert's version that puts what is confirmed above what is provisional, whichever came first: offsets of two topics do not compare.
const AlertConfirmed = 1 << 63

// RecordColumns are the columns of a table that is fed from one of the topics kpi.partial, kpi.late, events.ledger or alerts: the fields of the record in their order
// (without those that name the table), then version.
func RecordColumns(table string) ([]Column, error) {
	topic := map[string]string{TableLedger: event.TopicLedger, TableKPILate: event.TopicKPILate, TableAlerts: event.TopicAlerts}[table]
	if strings.HasPrefix(table, "kpi_") && topic == "" {
		topic = event.TopicKPIPartial
	}
	items := strings.HasPrefix(table, "kpi_items_")
	for _, s := range schema.Subjects() {
		if topic == "" || s.Topic != topic {
			continue
		}
		var out []Column
		for _, f := range s.Fields {
			switch {
			case topic != event.TopicKPIPartial:
			case f.Name == "family" || f.Name == "grain":
				continue // they are the table's name
			case !items && (f.Name == "product_id" || f.Name == "item_category"):
				continue
			}
			out = append(out, Column{Name: f.Name, Type: ColumnType(f), Codec: codecs[f.Name], Field: f})
		}
		version := schema.Field{Name: VersionColumn, Type: schema.Long}
		return append(out, Column{Name: VersionColumn, Type: "UInt64", Field: version}), nil
	}
	return nil, fmt.Errorf("no topic feeds a table %s", table)
}

// recordTables are the tables whose rows are replaced by newer versions of themselves. They are read with FINAL.
func recordTables() ([]tableDDL, error) {
	// A row of a grain is one day at the most; partitions are as coarse as keeps history since 1990 below a few hundred of them.
	partition := map[string]string{"1s": "toYYYYMM(window_start)", "1m": "toYYYYMM(window_start)", "1h": "toYear(window_start)", "1d": "toYear(window_start)"}
	var out []tableDDL
	for _, name := range KPITables() {
		order := "tenant, window_start, currency, country, device, kafka_partition"
		if strings.HasPrefix(name, "kpi_items_") {
			order = "tenant, window_start, product_id, item_category, currency, country, device, kafka_partition"
		}
		out = append(out, tableDDL{name: name, partition: partition[name[strings.LastIndexByte(name, '_')+1:]], order: order})
	}
	out = append(out,
		// kpi_late has the key of the event's raw record: an event is late once.
		tableDDL{name: TableKPILate, partition: "toYYYYMM(ingested_at)", order: "tenant, raw_topic, raw_partition, raw_offset"},
		tableDDL{name: TableLedger, partition: "toYYYYMM(ingested_from)", order: "raw_topic, raw_partition, raw_from, out_topic"})
	for i := range out {
		d := &out[i]
		d.engine, d.version = "ReplacingMergeTree", VersionColumn
		cols, err := RecordColumns(d.name)
		if err != nil {
			return nil, err
		}
		for _, c := range cols {
			d.columns = append(d.columns, c.ddl())
		}
	}
	return append(out, tableDDL{
		name: TableSinkTopics, engine: "ReplacingMergeTree", order: "topic, topic_id",
		columns: []string{"topic String", "topic_id String", "noted_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')"},
	}), nil
}

// commonColumns are the columns that every events_* table starts with: those of the view events.
func commonColumns() ([]string, error) {
	var common []string
	for i, c := range event.Categories() {
		cols, err := Columns(c.Table())
		if err != nil {
			return nil, err
		}
		names := make([]string, len(cols))
		for j, c := range cols {
			names[j] = c.Name
		}
		if i == 0 {
			common = names
			continue
		}
		n := 0
		for n < len(common) && n < len(names) && common[n] == names[n] {
			n++
		}
		common = common[:n]
	}
	return common, nil
}

// viewTemplate renders the view over all categories.
func viewTemplate() (string, error) {
	cols, err := commonColumns()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("CREATE OR REPLACE VIEW events{{on_cluster}} AS\n")
	for i, c := range event.Categories() {
		if i > 0 {
			b.WriteString("\nUNION ALL\n")
		}
		fmt.Fprintf(&b, "SELECT %s FROM %s", strings.Join(cols, ", "), c.Table())
	}
	b.WriteString(";\n")
	return b.String(), nil
}

// generated renders the first migrations from the column tables, by file name. The committed files are what is applied: this says how they came to be, and a test
// that they and the added columns still give the tables of event/schema.
func generated() (map[string]string, error) {
	events, err := eventTables()
	if err != nil {
		return nil, err
	}
	records, err := recordTables()
	if err != nil {
		return nil, err
	}
	view, err := viewTemplate()
	if err != nil {
		return nil, err
	}
	all := func(ts []tableDDL) string {
		var b strings.Builder
		for i, t := range ts {
			if i > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(t.template())
		}
		return b.String()
	}
	return map[string]string{"0001_events.sql": all(events), "0002_kpis_and_ledger.sql": all(records), "0003_events_view.sql": view}, nil
}
