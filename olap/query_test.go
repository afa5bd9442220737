package olap

import (
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
)

func TestQueryReads(t *testing.T) {
	_, conn := migrated(t)
	r, err := Query(t.Context(), conn, "SELECT number AS n, if(number = 1, NULL, toString(number)) AS s, [number] AS a FROM numbers(3)", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var got [][]any
	for r.Next() {
		got = append(got, append([]any(nil), r.Values()...))
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	want := [][]any{{uint64(0), "0", []uint64{0}}, {uint64(1), nil, []uint64{1}}, {uint64(2), "2", []uint64{2}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"n", "s", "a"}, r.Columns); diff != "" {
		t.Error(diff)
	}
	if r.Truncated() {
		t.Error("a whole result is called truncated")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestQueryCutsRowsAndSaysSo(t *testing.T) {
	_, conn := migrated(t)
	r, err := Query(t.Context(), conn, "SELECT number FROM numbers(1000000000)", Limits{Rows: 10})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for r.Next() {
		n++
	}
	if err := r.Err(); err != nil || n != 10 || !r.Truncated() {
		t.Errorf("%d rows, truncated %t, error %v", n, r.Truncated(), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestQueryOnlyReads(t *testing.T) {
	cfg, admin := migrated(t)
	reader := cfg
	reader.User, reader.Password = servers.Endpoints().ClickHouse.Reader, servers.Endpoints().ClickHouse.ReaderPassword
	asReader := connect(t, reader)
	for _, sql := range []string{
		"DROP TABLE events_page", "INSERT INTO sink_topics (topic) VALUES ('x')", "CREATE TABLE x (a Int8) ENGINE = Memory", "TRUNCATE TABLE events_page",
		"ALTER TABLE events_page DELETE WHERE 1", "SELECT * FROM file('/etc/passwd', 'LineAsString')", "SYSTEM SHUTDOWN", "SELECT 1; SELECT 2",
	} {
		for who, conn := range map[string]driver.Conn{"admin": admin, "reader": asReader} {
			if r, err := Query(t.Context(), conn, sql, Limits{}); err == nil {
				for r.Next() { // an error may come with the first block
				}
				if r.Err() == nil {
					t.Errorf("%s as %s is not refused", sql, who)
				}
				_ = r.Close() // the refusal is what counts
			}
		}
	}
	for _, sql := range []string{"SHOW TABLES", "DESCRIBE events_page", "EXPLAIN SELECT 1", "SELECT * FROM events", "WITH 1 AS a SELECT a"} {
		r, err := Query(t.Context(), asReader, sql, Limits{})
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		for r.Next() {
		}
		if err := r.Err(); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAStatementCannotLiftItsLimits(t *testing.T) {
	_, conn := migrated(t)
	r, err := Query(t.Context(), conn, "SELECT sum(sleepEachRow(0.01)) FROM numbers(100000) SETTINGS max_block_size = 1, max_execution_time = 0", Limits{Time: time.Second})
	if err == nil {
		for r.Next() {
		}
		err = r.Err()
		_ = r.Close() // its error is the one looked at
	}
	if err == nil || !strings.Contains(err.Error(), "readonly") {
		t.Errorf("SETTINGS in the statement: %v", err)
	}
	if r, err = Query(t.Context(), conn, "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))", Limits{Time: time.Second}); err == nil {
		for r.Next() {
		}
		err = r.Err()
		_ = r.Close() // its error is the one looked at
	}
	wantFault(t, err, "MR-CH-004")
	if r, err = Query(t.Context(), conn, "SELECT groupArray(number) FROM numbers(100000000)", Limits{Memory: 10 << 20}); err == nil {
		for r.Next() {
		}
		err = r.Err()
		_ = r.Close() // its error is the one looked at
	}
	wantFault(t, err, "MR-CH-004")
}
