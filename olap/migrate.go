package olap

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/event/schema"
	"millrace/internal/fault"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Options of Migrate.
type Options struct {
	Cluster string // makes Replicated and Distributed tables ON CLUSTER; empty: one server
}

// migration is one committed file: 0001_events.sql.
type migration struct {
	version int
	name    string
	text    string
}

// digest identifies the text as committed, before it is rendered for one server or a cluster.
func (m migration) digest() string {
	sum := sha256.Sum256([]byte(m.text))
	return hex.EncodeToString(sum[:])
}

func migrationsOf(fsys fs.FS) ([]migration, error) {
	entries, err := fs.ReadDir(fsys, "migrations") // sorted by name
	if err != nil {
		return nil, fmt.Errorf("reading migrations: %w", err)
	}
	var out []migration
	for i, e := range entries {
		number, _, _ := strings.Cut(e.Name(), "_")
		v, err := strconv.Atoi(number)
		if err != nil || v != i+1 {
			return nil, fmt.Errorf("migration %s: number %d is expected", e.Name(), i+1)
		}
		text, err := fs.ReadFile(fsys, "migrations/"+e.Name())
		if err != nil {
			return nil, fmt.Errorf("reading migration %s: %w", e.Name(), err)
		}
		out = append(out, migration{v, strings.TrimSuffix(e.Name(), ".sql"), string(text)})
	}
	return out, nil
}

// Statements renders all migrations as they are applied.
func Statements(o Options) ([]string, error) {
	ms, err := migrationsOf(migrationsFS)
	if err != nil {
		return nil, err
	}
	out := []string{ledgerDDL(o.Cluster)}
	for _, m := range ms {
		stmts, err := render(m.text, o.Cluster)
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", m.name, err)
		}
		out = append(out, stmts...)
	}
	return out, nil
}

func ledgerDDL(cluster string) string {
	onCluster, engine := "", "ReplacingMergeTree"
	if cluster != "" {
		onCluster, engine = " ON CLUSTER "+cluster, "ReplicatedReplacingMergeTree('/clickhouse/tables/all/{database}/{table}', '{replica}')"
	}
	return "CREATE TABLE IF NOT EXISTS schema_migrations" + onCluster +
		" (version UInt32, name String, digest String, applied_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC'))\nENGINE = " + engine + "\nORDER BY (version, digest)"
}

// Migrate brings the database of conn to the newest version: it applies the migrations that are not recorded in schema_migrations, in order, then adds the columns
// that event/schema has and the tables do not. It is idempotent, also after it was cut off, and may run in several processes at once. A database whose recorded
// migration is not the one committed here is refused.
func Migrate(ctx context.Context, conn driver.Conn, o Options) error {
	ms, err := migrationsOf(migrationsFS)
	if err != nil {
		return err
	}
	return migrate(ctx, conn, o, ms)
}

func migrate(ctx context.Context, conn driver.Conn, o Options, ms []migration) error {
	if err := conn.Exec(ctx, ledgerDDL(o.Cluster)); err != nil {
		return fault.Newf("MR-CH-002", "making schema_migrations: %w", err)
	}
	applied, err := appliedMigrations(ctx, conn)
	if err != nil {
		return err
	}
	for version := range applied {
		if int(version) > len(ms) {
			return fault.Newf("MR-CH-003", "the database has migration %d, this release knows %d", version, len(ms))
		}
	}
	for _, m := range ms {
		if digest, ok := applied[uint32(m.version)]; ok {
			if digest != m.digest() {
				return fault.Newf("MR-CH-003", "migration %s was applied with another text: digest %.12s there, %.12s here", m.name, digest, m.digest())
			}
			continue
		}
		stmts, err := render(m.text, o.Cluster)
		if err != nil {
			return fmt.Errorf("migration %s: %w", m.name, err)
		}
		for _, stmt := range stmts {
			if err := conn.Exec(ctx, stmt); err != nil {
				return fault.Newf("MR-CH-002", "migration %s: %w", m.name, err)
			}
		}
		if err := conn.Exec(ctx, "INSERT INTO schema_migrations (version, name, digest) VALUES (?, ?, ?)", m.version, m.name, m.digest()); err != nil {
			return fault.Newf("MR-CH-002", "recording migration %s: %w", m.name, err)
		}
	}
	return addColumns(ctx, conn, o)
}

func appliedMigrations(ctx context.Context, conn driver.Conn) (map[uint32]string, error) {
	rows, err := conn.Query(ctx, "SELECT version, digest FROM schema_migrations FINAL ORDER BY version")
	if err != nil {
		return nil, fault.Newf("MR-CH-002", "reading schema_migrations: %w", err)
	}
	defer rows.Close()
	out := map[uint32]string{}
	for rows.Next() {
		var version uint32
		var digest string
		if err := rows.Scan(&version, &digest); err != nil {
			return nil, fmt.Errorf("reading schema_migrations: %w", err)
		}
		out[version] = digest
	}
	if err := rows.Err(); err != nil {
		return nil, fault.Newf("MR-CH-002", "reading schema_migrations: %w", err)
	}
	return out, nil
}

// addColumns adds what the column tables have and the store has not. New fields are nullable and go to the end, so no row has to be rewritten.
func addColumns(ctx context.Context, conn driver.Conn, o Options) error {
	tables := map[string][]Column{}
	var order []string
	for _, t := range schema.Tables() {
		cols, err := Columns(t.Name)
		if err != nil {
			return err
		}
		tables[t.Name], order = cols, append(order, t.Name)
	}
	for _, name := range append(KPITables(), TableKPILate, TableLedger, TableAlerts) {
		cols, err := RecordColumns(name)
		if err != nil {
			return err
		}
		tables[name], order = cols, append(order, name)
	}
	have, err := storedColumns(ctx, conn)
	if err != nil {
		return err
	}
	for _, table := range order {
		for _, stmt := range missingColumns(table, tables[table], have[table], o.Cluster) {
			if err := conn.Exec(ctx, stmt); err != nil {
				return fault.Newf("MR-CH-002", "adding a column: %w", err)
			}
		}
	}
	return nil
}

func storedColumns(ctx context.Context, conn driver.Conn) (map[string]map[string]bool, error) {
	rows, err := conn.Query(ctx, "SELECT table, name FROM system.columns WHERE database = currentDatabase()")
	if err != nil {
		return nil, fault.Newf("MR-CH-002", "reading system.columns: %w", err)
	}
	defer rows.Close()
	out := map[string]map[string]bool{}
	for rows.Next() {
		var table, name string
		if err := rows.Scan(&table, &name); err != nil {
			return nil, fmt.Errorf("reading system.columns: %w", err)
		}
		if out[table] == nil {
			out[table] = map[string]bool{}
		}
		out[table][name] = true
	}
	if err := rows.Err(); err != nil {
		return nil, fault.Newf("MR-CH-002", "reading system.columns: %w", err)
	}
	return out, nil
}

// missingColumns gives the statements that bring a table to its columns.
func missingColumns(table string, want []Column, have map[string]bool, cluster string) []string {
	var out []string
	for _, c := range want {
		if have[c.Name] {
			continue
		}
		if cluster == "" {
			out = append(out, fmt.Sprintf("ALTER TABLE %s ADD COLUMN IF NOT EXISTS %s", table, c.ddl()))
			continue
		}
		out = append(out,
			fmt.Sprintf("ALTER TABLE %s_local ON CLUSTER %s ADD COLUMN IF NOT EXISTS %s", table, cluster, c.ddl()),
			fmt.Sprintf("ALTER TABLE %s ON CLUSTER %s ADD COLUMN IF NOT EXISTS %s %s", table, cluster, quoted(c.Name), c.Type))
	}
	return out
}
