package olap

import (
	"os"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
)

var servers *embeddedtest.Servers

func TestMain(m *testing.M) {
	os.Exit(embeddedtest.Main(m, &servers, "kfake", embedded.ClickHouseChild))
}

// config is that of an empty database of the test's own.
func config(t testing.TB) Config {
	t.Helper()
	at := servers.Database(t)
	cfg := DefaultConfig()
	cfg.Addr, cfg.User, cfg.Password, cfg.Database = []string{at.Native}, at.User, at.Password, at.Database
	return cfg
}

func connect(t testing.TB, cfg Config) driver.Conn {
	t.Helper()
	conn, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func migrated(t testing.TB) (Config, driver.Conn) {
	t.Helper()
	cfg := config(t)
	conn := connect(t, cfg)
	if err := Migrate(t.Context(), conn, Options{}); err != nil {
		t.Fatal(err)
	}
	return cfg, conn
}

func exec(t testing.TB, conn driver.Conn, sql string) {
	t.Helper()
	if err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
