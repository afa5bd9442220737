package schema

import (
	"fmt"
	"strconv"
	"strings"
)

// BigQueryColumn is one column of a table as BigQuery's API and Terraform's google_bigquery_table take it.
type BigQueryColumn struct {
	Name        string           `json:"name"`
	Type        string           `json:"type"`
	Mode        string           `json:"mode"`
	Description string           `json:"description"`
	Fields      []BigQueryColumn `json:"fields,omitempty"`
}

// BigQueryPartition and the clustering below are how BigQuery lays a table of events out: by the day on which the platform knew of an event, since a day closes however late events are about, and within a day so
// that queries for some names, a time or a visitor read little.
const BigQueryPartition = "ingested_at"

// BigQueryClustering lists the columns that rows are clustered by.
func BigQueryClustering() []string { return []string{"name", "occurred_at", "visitor_id"} }

// BigQueryTables lists the tables that are loaded into BigQuery: those of the events. What failed stays in the lake.
func BigQueryTables() []string {
	var out []string
	for _, t := range Tables() {
		if strings.HasPrefix(t.Name, "events_") {
			out = append(out, t.Name)
		}
	}
	return out
}

// BigQueryColumns are the columns of a table. The Iceberg field id is part of a column's description: a name may be given again one day, an id is not.
func BigQueryColumns(table string) ([]BigQueryColumn, error) {
	t, err := TableNamed(table)
	if err != nil {
		return nil, fmt.Errorf("BigQuery columns of %s: %w", table, err)
	}
	out, err := bigQueryColumns(t.Columns)
	if err != nil {
		return nil, fmt.Errorf("BigQuery columns of %s: %w", table, err)
	}
	return out, nil
}

func bigQueryColumns(from []Column) ([]BigQueryColumn, error) {
	var out []BigQueryColumn
	for _, c := range from {
		b := BigQueryColumn{Name: c.Name, Mode: "REQUIRED", Description: c.Doc + " [field " + strconv.Itoa(c.ID) + "]"}
		if c.Null {
			b.Mode = "NULLABLE"
		}
		switch c.Type {
		case String, JSON: // JSON is text in the lake's files, which a load job does not turn into BigQuery's JSON
			b.Type = "STRING"
		case Int, Long:
			b.Type = "INTEGER"
		case Bool:
			b.Type = "BOOLEAN"
		case Timestamp:
			b.Type = "TIMESTAMP"
		case Amount: // decimal(18,6) fits NUMERIC's 29 digits before and 9 behind the point
			b.Type = "NUMERIC"
		case Total: // decimal(38,6) does not
			b.Type = "BIGNUMERIC"
		case Blob:
			b.Type = "BYTES"
		case StringList:
			b.Type, b.Mode = "STRING", "REPEATED"
		case ItemList:
			b.Type, b.Mode = "RECORD", "REPEATED"
			fields, err := bigQueryColumns(c.Items)
			if err != nil {
				return nil, err
			}
			b.Fields = fields
		default:
			return nil, fmt.Errorf("column %s has type %d, for which BigQuery has no counterpart here", c.Name, c.Type)
		}
		out = append(out, b)
	}
	return out, nil
}
