package olap

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"

	"millrace/event"
)

const testRequest = "req-00000001"

var eraseKey = event.SubjectKey{5}

// people inserts 1,000 rows of 50 visitors and 10 users into a table, at raw offsets 0, 1, 2, … of two partitions.
func people(t testing.TB, conn driver.Conn, table, raw string) {
	t.Helper()
	exec(t, conn, "INSERT INTO "+table+` (event_id, tenant, name, visitor_id, user_id, ingested_at, raw_topic, raw_partition, raw_offset)
		SELECT toString(number), 'default', 'page_view', concat('v', toString(number % 50)), if(number % 50 < 20, concat('u', toString(number % 10)), NULL),
		toDateTime64('2026-03-01 00:00:00', 6, 'UTC') + number, '`+raw+`', number % 2, intDiv(number, 2) FROM numbers(1000)`)
}

func count(t testing.TB, conn driver.Conn, sql string) uint64 {
	t.Helper()
	var n uint64
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func ledgerOf(t testing.TB, cut event.Cut, subjects []event.Subject) *event.Erased {
	t.Helper()
	l := event.NewErased(eraseKey)
	entry := event.Erasure{RequestID: testRequest, Key: eraseKey.ID(), Cut: cut.String()}
	for _, s := range subjects {
		entry.Subjects = append(entry.Subjects, eraseKey.Digest(s).String())
	}
	if err := l.Add(entry); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestRowsOfErasedSubjectsBelowTheCutAreDeletedAndNoOthers(t *testing.T) {
	t.Parallel()
	_, conn := migrated(t)
	e := NewEraser(conn, "")
	people(t, conn, "events_page", "raw.page")
	people(t, conn, "events_identity", "raw.identity")
	exec(t, conn, "INSERT INTO events_identity (event_id, tenant, name, visitor_id, previous_id, ingested_at, raw_topic, raw_offset) VALUES ('was', 'default', 'identify', 'new', 'v3', '2026-03-01 00:00:00', 'raw.identity', 1)")
	exec(t, conn, "INSERT INTO events_page (event_id, tenant, name, visitor_id, ingested_at, raw_topic, raw_offset) VALUES ('other tenant', 'shop2', 'page_view', 'v3', '2026-03-01 00:00:00', 'raw.page', 1)")
	subjects := []event.Subject{{Tenant: "default", Kind: event.SubjectVisitor, ID: "v3"}, {Tenant: "default", Kind: event.SubjectVisitor, ID: "v40"}, {Tenant: "default", Kind: event.SubjectUser, ID: "u7"}, {Tenant: "default", Kind: event.SubjectUser, ID: "it's \\ nobody"}}
	if err := e.PutSubjects(t.Context(), testRequest, subjects, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := e.PutSubjects(t.Context(), testRequest, subjects, time.Now()); err != nil { // a client that tries again
		t.Fatal(err)
	}
	r, err := e.Request(t.Context(), testRequest)
	if err != nil || r.Subjects != 4 || !slices.Equal(r.Tenants, []string{"default"}) {
		t.Fatalf("%+v, %v", r, err)
	}
	cut := event.Cut{"raw.page": {400, 450}, "raw.identity": {500, 500}}
	ledger := ledgerOf(t, cut, subjects)
	for table, raw := range map[string]string{"events_page": "raw.page", "events_identity": "raw.identity"} {
		of := "(visitor_id IN ('v3', 'v40') OR ifNull(user_id, '') = 'u7' OR event_id = 'was') AND tenant = 'default' AND raw_topic = '" + raw + "' AND raw_offset < if(raw_topic = 'raw.identity', 500, if(raw_partition = 0, 400, 450))"
		want := count(t, conn, "SELECT count() FROM "+table+" WHERE "+of)
		others := count(t, conn, "SELECT sum(cityHash64(event_id)) FROM "+table+" WHERE NOT ("+of+")")
		if left, err := e.Left(t.Context(), table, ledger); err != nil || left == 0 {
			t.Fatalf("%s: %d left before, %v", table, left, err)
		}
		n, err := e.Erase(t.Context(), testRequest, table, cut, ledger, nil)
		if err != nil || uint64(n) != want || want < 20 {
			t.Fatalf("%s: %d rows erased, %d were there, %v", table, n, want, err)
		}
		if got := count(t, conn, "SELECT sum(cityHash64(event_id)) FROM "+table); got != others {
			t.Errorf("%s: other rows have changed", table)
		}
		if left, err := e.Left(t.Context(), table, ledger); err != nil || left != 0 {
			t.Errorf("%s: %d left, %v", table, left, err)
		}
		if n, err := e.Erase(t.Context(), testRequest, table, cut, ledger, nil); err != nil || n != 0 {
			t.Errorf("%s: again %d, %v", table, n, err)
		}
	}
	// No id in what ClickHouse remembers of statements.
	exec(t, conn, "SYSTEM FLUSH LOGS")
	for _, sql := range []string{
		"SELECT count() FROM system.mutations WHERE database = currentDatabase() AND (position(command, 'v40') > 0 OR position(command, 'nobody') > 0)",
		"SELECT count() FROM system.query_log WHERE current_database = currentDatabase() AND query LIKE '%erasure_subjects%' AND (query LIKE '%''v40''%' OR query LIKE '%nobody%') AND query NOT LIKE '%system.%'",
	} {
		if n := count(t, conn, sql); n != 0 {
			t.Errorf("%d: %s", n, sql)
		}
	}
	if err := e.Forget(t.Context(), testRequest); err != nil {
		t.Fatal(err)
	}
	if err := e.Forget(t.Context(), testRequest); err != nil {
		t.Fatal(err)
	}
	if r, err = e.Request(t.Context(), testRequest); err != nil || r.Subjects != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestFailedEventsWithASubjectsIDAreDeleted(t *testing.T) {
	t.Parallel()
	_, conn := migrated(t)
	e := NewEraser(conn, "")
	for i, payload := range []string{`{"visitor_id":"v3"}`, `{"visitor_id":"v33"}`, `{"x":{"y":["u7"]}}`, `{"user_id":"u8"}`} {
		exec(t, conn, fmt.Sprintf("INSERT INTO failed_events (failed_id, tenant, reason, payload, ingested_at, raw_topic, raw_partition, raw_offset) VALUES ('f%d', 'default', 'schema', '%s', '2026-03-01 00:00:00', 'raw.failed', 0, %d)", i, payload, i))
	}
	subjects := []event.Subject{{Tenant: "default", Kind: event.SubjectVisitor, ID: "v3"}, {Tenant: "default", Kind: event.SubjectUser, ID: "u7"}}
	if err := e.PutSubjects(t.Context(), testRequest, subjects, time.Now()); err != nil {
		t.Fatal(err)
	}
	cut := event.Cut{"raw.failed": {10}}
	n, err := e.Erase(t.Context(), testRequest, TableFailed, cut, ledgerOf(t, cut, subjects), nil)
	if err != nil || n != 2 {
		t.Fatalf("%d, %v", n, err)
	}
	if left := count(t, conn, "SELECT count() FROM failed_events WHERE failed_id IN ('f1', 'f3')"); left != 2 || count(t, conn, "SELECT count() FROM failed_events") != 2 {
		t.Errorf("%d of the others are left", left)
	}
	if r, err := e.Request(t.Context(), testRequest); err != nil || r.Subjects != 2 {
		t.Errorf("the ids of failed events are counted as subjects: %+v, %v", r, err)
	}
}

func TestVisitorsOfAUserAreLinkedUnlessAnotherUserWasThere(t *testing.T) {
	t.Parallel()
	_, conn := migrated(t)
	e := NewEraser(conn, "")
	for i, row := range [][2]string{{"mine", "u1"}, {"mine", ""}, {"shared", "u1"}, {"shared", "u2"}, {"hers", "u2"}, {"", "u1"}} {
		exec(t, conn, fmt.Sprintf("INSERT INTO events_cart (event_id, tenant, name, visitor_id, user_id, ingested_at) VALUES ('%d', 'default', 'view_cart', '%s', nullIf('%s', ''), '2026-03-01 00:00:00')", i, row[0], row[1]))
	}
	at := time.Now().UTC().Truncate(time.Microsecond)
	if err := e.PutSubjects(t.Context(), testRequest, []event.Subject{{Tenant: "default", Kind: event.SubjectUser, ID: "u1"}}, at); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.Link(t.Context(), testRequest, at); err != nil {
			t.Fatal(err)
		}
	}
	got, err := e.Subjects(t.Context(), testRequest)
	want := []event.Subject{{Tenant: "default", Kind: "user", ID: "u1"}, {Tenant: "default", Kind: "visitor", ID: "mine"}}
	if err != nil || !cmp.Equal(want, got) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestExportGivesTheRowsOfASubjectAsJSON(t *testing.T) {
	t.Parallel()
	_, conn := migrated(t)
	e := NewEraser(conn, "")
	people(t, conn, "events_page", "raw.page")
	if err := e.PutSubjects(t.Context(), testRequest, []event.Subject{{Tenant: "default", Kind: event.SubjectVisitor, ID: "v3"}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := e.Export(t.Context(), testRequest, "events_page", func(row string) error {
		n++
		if !strings.Contains(row, `"visitor_id":"v3"`) || !strings.HasPrefix(row, "{") {
			t.Errorf("%s", row)
		}
		return nil
	})
	if err != nil || n != 20 {
		t.Errorf("%d rows, %v", n, err)
	}
}

func TestARequestIDIsPlain(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "short", "x' OR 1=1", "ABCDEFGHI", strings.Repeat("a", 65), "-2345678"} {
		if CheckRequestID(id) == nil {
			t.Errorf("%q is taken", id)
		}
	}
}
