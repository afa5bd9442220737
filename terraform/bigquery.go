package terraform

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"millrace/event/schema"
)

// column is one field of a table as BigQuery's API and Terraform's google_bigquery_table take it.
type column struct {
	Name        string   `json:"name"`
	Type        string   `json:"type"`
	Mode        string   `json:"mode"`
	Description string   `json:"description"`
	Fields      []column `json:"fields,omitempty"`
}

// bigQueryTables lists the tables that are loaded into BigQuery: those of the events. What failed stays in the lake.
func bigQueryTables() []string {
	var out []string
	for _, t := range schema.Tables() {
		if strings.HasPrefix(t.Name, "events_") {
			out = append(out, t.Name)
		}
	}
	return out
}

// BigQuerySchema is the schema file of a table. The Iceberg field id is part of a column's description: a name may be given again one day, an id is not.
func BigQuerySchema(table string) ([]byte, error) {
	t, err := schema.TableNamed(table)
	if err != nil {
		return nil, fmt.Errorf("BigQuery schema of %s: %w", table, err)
	}
	columns, err := columnsOf(t.Columns)
	if err != nil {
		return nil, fmt.Errorf("BigQuery schema of %s: %w", table, err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(columns); err != nil {
		return nil, fmt.Errorf("BigQuery schema of %s: %w", table, err)
	}
	return out.Bytes(), nil
}

func columnsOf(from []schema.Column) ([]column, error) {
	var out []column
	for _, c := range from {
		b := column{Name: c.Name, Mode: "REQUIRED", Description: c.Doc + " [field " + strconv.Itoa(c.ID) + "]"}
		if c.Null {
			b.Mode = "NULLABLE"
		}
		switch c.Type {
		case schema.String, schema.JSON: // JSON is text in the lake's files, which a load job does not turn into BigQuery's JSON
			b.Type = "STRING"
		case schema.Int, schema.Long:
			b.Type = "INTEGER"
		case schema.Bool:
			b.Type = "BOOLEAN"
		case schema.Timestamp:
			b.Type = "TIMESTAMP"
		case schema.Amount: // decimal(18,6) fits NUMERIC's 29 digits before and 9 behind the point
			b.Type = "NUMERIC"
		case schema.Total: // decimal(38,6) does not
			b.Type = "BIGNUMERIC"
		case schema.Blob:
			b.Type = "BYTES"
		case schema.StringList:
			b.Type, b.Mode = "STRING", "REPEATED"
		case schema.ItemList:
			b.Type, b.Mode = "RECORD", "REPEATED"
			fields, err := columnsOf(c.Items)
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
