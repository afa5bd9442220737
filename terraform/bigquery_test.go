package terraform

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/event/schema"
)

var update = flag.Bool("update", false, "write the schema files")

const schemas = "modules/lake-gcp/schemas"

func TestBigQuerySchemasAreCurrent(t *testing.T) {
	var want []string
	for _, name := range schema.BigQueryTables() {
		file := filepath.Join(schemas, name+".json")
		want = append(want, file)
		text, err := BigQuerySchema(name)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		have, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(text), string(have)); diff != "" {
			t.Errorf("%s is not what event/schema says (go generate ./terraform):\n%s", file, diff)
		}
	}
	have, err := filepath.Glob(schemas + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("schema files: -want +have\n%s", diff)
	}
}

// What holds for every table that BigQuery is to take: one column for each of the lake, in its order, under a name that is not reserved, and the columns that the
// module partitions and clusters by.
func TestBigQueryColumnsAreTheLakes(t *testing.T) {
	for _, name := range schema.BigQueryTables() {
		text, err := BigQuerySchema(name)
		if err != nil {
			t.Fatal(err)
		}
		var columns []schema.BigQueryColumn
		if err := json.Unmarshal(text, &columns); err != nil {
			t.Fatal(err)
		}
		table, err := schema.TableNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(columns) != len(table.Columns) {
			t.Fatalf("%s has %d columns, the lake's has %d", name, len(columns), len(table.Columns))
		}
		kinds := map[string]string{}
		for i, c := range columns {
			if c.Name != table.Columns[i].Name {
				t.Errorf("%s: column %d is %s, the lake's is %s", name, i, c.Name, table.Columns[i].Name)
			}
			if len(c.Description) > 1024 {
				t.Errorf("%s.%s: a description of %d bytes", name, c.Name, len(c.Description))
			}
			for _, reserved := range []string{"_TABLE_", "_FILE_", "_PARTITION", "_ROW_TIMESTAMP", "__ROOT__", "_COLIDENTIFIER"} {
				if strings.HasPrefix(strings.ToUpper(c.Name), reserved) {
					t.Errorf("%s.%s: BigQuery reserves the prefix %s", name, c.Name, reserved)
				}
			}
			kinds[c.Name] = c.Type + " " + c.Mode
		}
		for column, kind := range map[string]string{"ingested_at": "TIMESTAMP REQUIRED", "occurred_at": "TIMESTAMP REQUIRED", "name": "STRING REQUIRED", "visitor_id": "STRING REQUIRED", "value": "NUMERIC NULLABLE"} {
			if kinds[column] != kind {
				t.Errorf("%s.%s is %q, want %q", name, column, kinds[column], kind)
			}
		}
	}
}

// The module and LoadBigQuery make the same tables, whichever is first.
func TestTheModuleLaysTablesOutAsLoadsDo(t *testing.T) {
	text, err := os.ReadFile("modules/lake-gcp/main.tf")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`clustering          = ["` + strings.Join(schema.BigQueryClustering(), `", "`) + `"]`, `field = "` + schema.BigQueryPartition + `"`, `type  = "DAY"`, `dataset_id                 = "${var.dataset}_load"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("main.tf has no %s", want)
		}
	}
}
