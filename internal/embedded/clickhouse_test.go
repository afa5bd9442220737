package embedded_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
)

// startServers starts servers on dir until the test ends.
func startServers(t *testing.T, dir, broker string, names ...string) *embeddedtest.Servers {
	t.Helper()
	s, err := embeddedtest.Start(t.Context(), dir, broker, names...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func openNative(t *testing.T, c embedded.ClickHouse, user, password string) driver.Conn {
	t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr:        []string{c.Native},
		Auth:        clickhouse.Auth{Username: user, Password: password, Database: c.Database},
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
		DialTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestClickHouseKeepsItsDataThroughKillHoldAndRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startServers(t, dir, "", embedded.ClickHouseChild)
	ctx := t.Context()
	c := s.Endpoints().ClickHouse
	conn := openNative(t, c, c.User, c.Password)
	if err := conn.Exec(ctx, "CREATE TABLE numbers (n UInt64) ENGINE = MergeTree ORDER BY n"); err != nil {
		t.Fatal(err)
	}
	batch, err := conn.PrepareBatch(ctx, "INSERT INTO numbers")
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(10_000) {
		if err := batch.Append(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		var count, sum uint64
		if err := openNative(t, c, c.User, c.Password).QueryRow(ctx, "SELECT count(), sum(n) FROM numbers").Scan(&count, &sum); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if count != 10_000 || sum != 10_000*9_999/2 {
			t.Errorf("%s: count %d, sum %d", when, count, sum)
		}
	}
	check("after the insert")

	if err := s.Kill(ctx, embedded.ClickHouseChild); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitHealthy(ctx, embedded.ClickHouseChild); err != nil {
		t.Fatal(err)
	}
	check("after kill -9")

	if err := s.Hold(ctx, embedded.ClickHouseChild); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Query(ctx, "SELECT 1"); err == nil {
		t.Error("a server that is held down answers")
	}
	if err := s.Release(embedded.ClickHouseChild); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitHealthy(ctx, embedded.ClickHouseChild); err != nil {
		t.Fatal(err)
	}
	check("after being held down")
	if st := s.Status()[0]; st.Restarts != 2 {
		t.Errorf("restarts are %d, want one for the kill and one for the hold", st.Restarts)
	}
}

func TestClickHouseSurvivesHostileConnections(t *testing.T) {
	t.Parallel()
	s := startServers(t, "", "", embedded.ClickHouseChild)
	c := s.Endpoints().ClickHouse
	before := s.Status()[0]
	httpAddr := strings.TrimPrefix(c.HTTP, "http://")
	noise := []string{
		"", "\x00", "GET / HTTP/1.1\r\n", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", strings.Repeat("A", 70_000),
		"POST /?query=INSERT HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc",
		"\x00\x05hello\x00\x00\x00", "*1\r\n$4\r\nPING\r\n",
	}
	var d net.Dialer
	for range 25 {
		for _, addr := range []string{c.Native, httpAddr} {
			for _, bytes := range noise {
				conn, err := d.DialContext(t.Context(), "tcp", addr)
				if err != nil {
					t.Fatalf("after hostile connections nobody listens: %v", err)
				}
				_, _ = io.WriteString(conn, bytes) // it may hang up at any moment
				_ = conn.Close()
			}
		}
	}
	if got, err := c.Query(t.Context(), "SELECT 1"); err != nil || got != "1" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
	if after := s.Status()[0]; after.PID != before.PID || after.Restarts != before.Restarts {
		t.Errorf("the server was restarted: before %+v, after %+v", before, after)
	}
}

func TestClickHouseUsersMayDoWhatTheirWorkNeedsAndNoMore(t *testing.T) {
	t.Parallel()
	s := startServers(t, "", "", embedded.ClickHouseChild)
	admin := s.Endpoints().ClickHouse
	if _, err := admin.Query(t.Context(), "CREATE TABLE millrace.t (n UInt64) ENGINE = MergeTree ORDER BY n"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Query(t.Context(), "SYSTEM FLUSH LOGS"); err != nil { // makes the query log's table
		t.Fatal(err)
	}
	reader := admin
	reader.User, reader.Password = admin.Reader, admin.ReaderPassword
	prompt := admin
	prompt.User, prompt.Password = "default", ""
	stranger := admin
	stranger.Password = "guessed"
	tests := []struct {
		name  string
		who   embedded.ClickHouse
		sql   string
		fails string
	}{
		{"admin makes views", admin, "CREATE MATERIALIZED VIEW millrace.v ENGINE = SummingMergeTree ORDER BY n AS SELECT n FROM millrace.t", ""},
		{"admin makes more databases of ours", admin, "CREATE DATABASE millrace_other", ""},
		{"admin reads the system", admin, "SELECT count() FROM system.parts", ""},
		{"admin makes no database of another name", admin, "CREATE DATABASE other", "Not enough privileges"},
		{"admin reads no file by function", admin, "SELECT * FROM file('/etc/passwd', 'LineAsString')", "Not enough privileges"},
		{"admin reads no file by engine", admin, "CREATE TABLE millrace.f (l String) ENGINE = File(LineAsString, '/etc/passwd')", "Not enough privileges"},
		{"reader reads", reader, "SELECT count() FROM millrace.t", ""},
		{"reader does not write", reader, "INSERT INTO millrace.t VALUES (1)", "Not enough privileges"},
		{"reader does not drop", reader, "DROP TABLE millrace.t", "Not enough privileges"},
		{"reader reads no file", reader, "SELECT * FROM file('/etc/passwd', 'LineAsString')", "Not enough privileges"},
		{"reader opens no URL", reader, "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')", "Not enough privileges"},
		{"reader reads no other server", reader, "SELECT * FROM remote('127.0.0.1', 'millrace.t')", "Not enough privileges"},
		{"reader sees no other's queries", reader, "SELECT count() FROM system.query_log", "Not enough privileges"},
		{"reader cannot lift its time limit", reader, "SELECT 1 SETTINGS max_execution_time = 0", "SETTING_CONSTRAINT_VIOLATION"},
		{"reader can lower its time limit", reader, "SELECT 1 SETTINGS max_execution_time = 5", ""},
		{"reader gets no endless result", reader, "SELECT * FROM numbers(1000000) FORMAT Null", "TOO_MANY_ROWS"},
		{"the prompt's user reads nothing", prompt, "SELECT * FROM millrace.t", "Not enough privileges"},
		{"the prompt's user reads no file", prompt, "SELECT * FROM file('/etc/passwd', 'LineAsString')", "Not enough privileges"},
		{"a wrong password is refused", stranger, "SELECT 1", "Authentication failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.who.Query(t.Context(), tt.sql)
			switch {
			case tt.fails == "" && err != nil:
				t.Error(err)
			case tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)):
				t.Errorf("error is %v, want %q in it", err, tt.fails)
			}
		})
	}
}

func TestClickHouseQueryLogOutlivesARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for run := range 2 {
		s, err := embeddedtest.Start(t.Context(), dir, "", embedded.ClickHouseChild)
		if err != nil {
			t.Fatal(err)
		}
		c := s.Endpoints().ClickHouse
		_, err = c.Query(t.Context(), "SELECT 'remember me'")
		var count string
		for deadline := time.Now().Add(30 * time.Second); err == nil && count != "1" && time.Now().Before(deadline); { // a query is logged after its answer
			if _, err = c.Query(t.Context(), "SYSTEM FLUSH LOGS"); err == nil {
				count, err = c.Query(t.Context(), "SELECT count() > "+[]string{"0", "1"}[run]+" FROM system.query_log WHERE query = 'SELECT \\'remember me\\'' AND type = 'QueryFinish'")
			}
		}
		s.Stop()
		if err != nil || count != "1" {
			t.Errorf("run %d: the log has enough entries: %q, %v", run, count, err)
		}
		http.DefaultClient.CloseIdleConnections()
	}
}

func TestTestDatabasesAreSeparateAndDropped(t *testing.T) {
	t.Parallel()
	s := startServers(t, "", "", embedded.ClickHouseChild)
	var names []string
	t.Run("two databases", func(t *testing.T) {
		for range 2 {
			names = append(names, s.Database(t).Database)
		}
		if names[0] == names[1] {
			t.Errorf("both are %s", names[0])
		}
	})
	got, err := s.Endpoints().ClickHouse.Query(context.Background(), "SELECT count() FROM system.databases WHERE name LIKE 'millrace_test%'")
	if err != nil || got != "0" {
		t.Errorf("%s are left, %v", got, err)
	}
	if _, err := os.Stat(s.LogFile(embedded.ClickHouseChild)); err != nil {
		t.Error(err)
	}
}
