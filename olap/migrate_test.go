package olap

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/event/schema"
	"millrace/internal/fault"
)

func TestMigrateTwiceGivesTheTablesOfTheColumnTable(t *testing.T) {
	_, conn := migrated(t)
	if err := Migrate(t.Context(), conn, Options{}); err != nil {
		t.Fatalf("a second time: %v", err)
	}
	want := map[string]string{}
	for _, table := range schema.Tables() {
		cols, err := Columns(table.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cols {
			want[table.Name+"."+c.Name] = c.Type
		}
	}
	for _, table := range append(KPITables(), TableKPILate, TableLedger, TableAlerts) {
		cols, err := RecordColumns(table)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cols {
			want[table+"."+c.Name] = c.Type
		}
	}
	rows, err := conn.Query(t.Context(), "SELECT table, name, type FROM system.columns WHERE database = currentDatabase() AND table NOT IN ('events', 'schema_migrations', 'sink_topics', 'workflow_runs', 'maintenance_runs', 'workflow_steps', 'lineage_events', 'publications', 'models', 'forecasts', 'demand_hourly', 'rule_sets') AND table NOT LIKE 'erasure%' AND table NOT LIKE 'reconcile%' AND table != 'bigquery_loads'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	got := map[string]string{}
	for rows.Next() {
		var table, name, typ string
		if err := rows.Scan(&table, &name, &typ); err != nil {
			t.Fatal(err)
		}
		got[table+"."+name] = typ
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("columns (-column table +store):\n%s", diff)
	}
	var applied uint64
	if err := conn.QueryRow(t.Context(), "SELECT count() FROM schema_migrations FINAL").Scan(&applied); err != nil {
		t.Fatal(err)
	}
	ms, err := migrationsOf(migrationsFS)
	if err != nil {
		t.Fatal(err)
	}
	if int(applied) != len(ms) {
		t.Errorf("%d migrations recorded, there are %d", applied, len(ms))
	}
}

func TestTablesRememberTheTokensOfTenThousandBlocks(t *testing.T) {
	_, conn := migrated(t)
	for _, table := range schema.Tables() {
		var ddl string
		if err := conn.QueryRow(t.Context(), "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = ?", table.Name).Scan(&ddl); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(ddl, "non_replicated_deduplication_window = 10000") {
			t.Errorf("%s: no deduplication window in %s", table.Name, ddl)
		}
	}
}

func TestAChangedMigrationIsRefused(t *testing.T) {
	_, conn := migrated(t)
	ms, err := migrationsOf(migrationsFS)
	if err != nil {
		t.Fatal(err)
	}
	ms[0].text += "\n-- changed"
	wantFault(t, migrate(t.Context(), conn, Options{}, ms), "MR-CH-003")
	wantFault(t, migrate(t.Context(), conn, Options{}, ms[:1:1]), "MR-CH-003")
}

func TestADatabaseOfANewerReleaseIsRefused(t *testing.T) {
	_, conn := migrated(t)
	exec(t, conn, "INSERT INTO schema_migrations (version, name, digest) VALUES (999, 'later', 'x')")
	wantFault(t, Migrate(t.Context(), conn, Options{}), "MR-CH-003")
}

func TestAMigrationThatWasCutOffIsFinished(t *testing.T) {
	cfg := config(t)
	conn := connect(t, cfg)
	ms, err := migrationsOf(migrationsFS)
	if err != nil {
		t.Fatal(err)
	}
	stmts, err := render(ms[0].text, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, stmt := range stmts[:len(stmts)/2] {
		exec(t, conn, stmt)
	}
	if err := Migrate(t.Context(), conn, Options{}); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "SELECT count() FROM events")
}

func TestAColumnThatTheStoreLacksIsAdded(t *testing.T) {
	_, conn := migrated(t)
	for _, drop := range []string{"events_page DROP COLUMN campaign_term", "events_cart DROP COLUMN `items.position`", "kpi_1m DROP COLUMN searches"} {
		exec(t, conn, "ALTER TABLE "+drop)
	}
	if err := Migrate(t.Context(), conn, Options{}); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "SELECT campaign_term FROM events_page")
	exec(t, conn, "SELECT items.position FROM events_cart")
	exec(t, conn, "SELECT searches FROM kpi_1m")
}

func TestAnUnknownDatabaseIsCreated(t *testing.T) {
	cfg := config(t)
	cfg.Database += "_new"
	conn := connect(t, cfg)
	t.Cleanup(func() { _ = conn.Exec(context.Background(), "DROP DATABASE "+cfg.Database) }) // the server goes anyway
	if err := Migrate(t.Context(), conn, Options{}); err != nil {
		t.Fatal(err)
	}
}

func TestAServerThatIsNotThereIsAFault(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Addr = []string{"127.0.0.1:1"}
	_, err := Open(t.Context(), cfg)
	wantFault(t, err, "MR-CH-001")
}

func TestEveryProblemOfAConfigIsReported(t *testing.T) {
	err := Config{Database: "a b", Cluster: "x;y", Addr: []string{"nowhere"}}.Validate()
	for _, field := range []string{"addr:", "database:", "cluster:", "dial_timeout:", "read_timeout:", "max_conns:"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not reported in: %v", field, err)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
}

// The forms for a cluster cannot be run on one machine: their text is what is tested.
func TestStatementsForAClusterAreTheGoldenOnes(t *testing.T) {
	for name, o := range map[string]Options{"single.sql": {}, "cluster.sql": {Cluster: "shop"}} {
		stmts, err := Statements(o)
		if err != nil {
			t.Fatal(err)
		}
		alters := missingColumns("events_page", []Column{{Name: "new_one", Type: "Nullable(String)", Codec: "ZSTD(1)"}}, nil, o.Cluster)
		got := strings.Join(append(stmts, alters...), ";\n\n") + ";\n"
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-golden +now):\n%s", name, diff)
		}
	}
}

func TestOnAClusterSinksWriteToReplicasAndReadersSeeAllShards(t *testing.T) {
	stmts, err := Statements(Options{Cluster: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(stmts, "\n")
	for _, want := range []string{
		"events_page_local ON CLUSTER shop", "ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')",
		"ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)", "replicated_deduplication_window = 10000",
		"CREATE TABLE IF NOT EXISTS events_page ON CLUSTER shop AS events_page_local\nENGINE = Distributed(shop, currentDatabase(), events_page_local)",
		"CREATE OR REPLACE VIEW events ON CLUSTER shop",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(all, "non_replicated") {
		t.Error("a cluster's tables have the window of a single server")
	}
}

func wantFault(t *testing.T, err error, id fault.ID) {
	t.Helper()
	if got, _ := fault.IDOf(err); got != id {
		t.Errorf("error %v has id %q, want %s", err, got, id)
	}
}
