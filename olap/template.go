package olap

import (
	"bytes"
	"fmt"
	"strings"
	"text/template"
)

// A migration is written once for both forms of the store. On one server {{table "t"}} is t itself. On a cluster t is made as the replicated t_local, which sinks
// write to, under a Distributed table t, which everybody reads.

// render gives the statements of a migration.
func render(text, cluster string) ([]string, error) {
	onCluster, local := "", ""
	if cluster != "" {
		onCluster, local = " ON CLUSTER "+cluster, "_local"
	}
	funcs := template.FuncMap{
		"table":      func(name string) string { return name + local + onCluster },
		"on_cluster": func() string { return onCluster },
		"engine": func(engine, version string) string {
			var args []string
			if cluster != "" {
				engine = "Replicated" + engine
				args = []string{"'/clickhouse/tables/{shard}/{database}/{table}'", "'{replica}'"}
			}
			if version != "" {
				args = append(args, version)
			}
			if len(args) == 0 {
				return engine
			}
			return engine + "(" + strings.Join(args, ", ") + ")"
		},
		"dedup": func() string {
			if cluster == "" {
				return fmt.Sprintf("non_replicated_deduplication_window = %d", dedupWindow)
			}
			return fmt.Sprintf("replicated_deduplication_window = %d, replicated_deduplication_window_seconds = %d", dedupWindow, 7*24*60*60)
		},
		"distributed": func(name string) string {
			if cluster == "" {
				return ""
			}
			return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s AS %s_local\nENGINE = Distributed(%s, currentDatabase(), %s_local)", name, onCluster, name, cluster, name)
		},
	}
	t, err := template.New("").Funcs(funcs).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parsing: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, nil); err != nil {
		return nil, fmt.Errorf("rendering: %w", err)
	}
	var out []string
	for stmt := range strings.SplitSeq(b.String(), ";\n") {
		if stmt = strings.TrimSpace(stmt); stmt != "" {
			out = append(out, stmt)
		}
	}
	return out, nil
}
