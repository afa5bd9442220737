package terraform

import (
	"bytes"
	"encoding/json"
	"fmt"

	"millrace/event/schema"
)

// BigQuerySchema is the schema file of a table: the columns with which LoadBigQuery makes the table where Terraform has not.
func BigQuerySchema(table string) ([]byte, error) {
	columns, err := schema.BigQueryColumns(table)
	if err != nil {
		return nil, err
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
