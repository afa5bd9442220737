package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	schema "go.temporal.io/server/schema/sqlite"
)

const databaseFile = "temporal.db"

// openStore returns the configuration of the SQLite store, creating schema and
// namespace where they are missing. The schema is written to another name and
// renamed, so that a kill in the middle never leaves half of one.
func openStore(file string) (*config.SQL, error) {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		draft := file + ".new"
		for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
			if err := os.Remove(draft + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("removing a half-made database: %w", err)
			}
		}
		if err := schema.SetupSchema(sqlConfig(draft, "delete")); err != nil {
			return nil, fmt.Errorf("creating the schema: %w", err)
		}
		if err := os.Rename(draft, file); err != nil {
			return nil, fmt.Errorf("putting the new database in place: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("looking for the database: %w", err)
	}
	sql := sqlConfig(file, "WAL")
	ns, err := schema.NewNamespaceConfig(clusterName, namespace, false, searchAttributes())
	if err != nil {
		return nil, fmt.Errorf("describing namespace %s: %w", namespace, err)
	}
	if err := schema.CreateNamespaces(sql, ns); err != nil {
		return nil, fmt.Errorf("creating namespace %s: %w", namespace, err)
	}
	return sql, nil
}

func sqlConfig(file, journal string) *config.SQL {
	return &config.SQL{
		PluginName:   sqlite.PluginName,
		DatabaseName: file,
		ConnectAttributes: map[string]string{
			"mode":         "rwc",
			"journal_mode": journal,
			// With a write-ahead log this survives the process; only a power cut can lose the newest commits.
			"synchronous": "NORMAL",
		},
	}
}
