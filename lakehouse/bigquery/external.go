package bigquery

import (
	"context"
	"fmt"
	"strings"

	"millrace/internal/fault"
)

// External says how BigQuery reads the lake's own files, without a load.
type External struct {
	Table      string
	Dataset    string // that holds the definition; "" the configured one
	Connection string // BigLake connection, as project.location.name or location.name; "" an external table without one
	Metadata   string // gs:// URI of the metadata; "" the table's present one
}

// ExternalDDL is the statement that defines a table of the lake in BigQuery, for who runs it. It names one version of the table's metadata: the definition is
// to be made again (CREATE OR REPLACE) where newer rows are wanted. With a connection it is a BigLake table, whose readers need no right on the bucket.
func (s *Store) ExternalDDL(ctx context.Context, e External) (string, error) {
	if e.Metadata == "" {
		t, err := s.lake.Load(ctx, e.Table)
		if err != nil {
			return "", err
		}
		e.Metadata = t.MetadataLocation()
	}
	if e.Dataset == "" {
		e.Dataset = s.cfg.Dataset
	}
	return e.ddl(s.cfg.Project)
}

func (e External) ddl(project string) (string, error) {
	if !strings.HasPrefix(e.Metadata, bucketScheme) {
		return "", fault.Newf(rangeID, "table %s is at %s: BigQuery reads files in Cloud Storage (gs://) only", e.Table, e.Metadata)
	}
	for _, text := range [...]string{project, e.Dataset, e.Table, e.Connection, e.Metadata} {
		if strings.ContainsAny(text, "`'\\\n") {
			return "", fault.Newf(rangeID, "%q cannot stand in a statement", text)
		}
	}
	with := ""
	if e.Connection != "" {
		with = "\nWITH CONNECTION `" + e.Connection + "`"
	}
	return fmt.Sprintf("CREATE OR REPLACE EXTERNAL TABLE `%s.%s.%s_lake`%s\nOPTIONS (\n  format = 'ICEBERG',\n  uris = ['%s']\n);\n", project, e.Dataset, e.Table, with, e.Metadata), nil
}
