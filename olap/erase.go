package olap

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/event"
)

// Eraser deletes the rows of erased subjects. The ids that a request is about are in the table erasure_subjects, so none is in the text of a statement, which
// ClickHouse keeps in its query log and with its mutations.
type Eraser struct {
	conn    driver.Conn
	cluster string
}

// NewEraser makes an eraser. cluster is that of Options.
func NewEraser(conn driver.Conn, cluster string) *Eraser { return &Eraser{conn, cluster} }

// kindFailed marks the rows of erasure_subjects that are ids of failed events and of alerts, which name nobody.
const kindFailed = "failed"

// Request is what a request of an erasure or an export is about.
type Request struct {
	Subjects    int64 // ids
	Tenants     []string
	RequestedAt time.Time
}

var requestID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{7,63}$`)

// CheckRequestID says whether a text can name a request.
func CheckRequestID(id string) error {
	if !requestID.MatchString(id) {
		return fmt.Errorf("request: %.70q is not 8 to 64 small letters, digits and dashes", id)
	}
	return nil
}

// PutSubjects stores the ids that a request is about, in one insert.
func (e *Eraser) PutSubjects(ctx context.Context, request string, subjects []event.Subject, at time.Time) error {
	if err := CheckRequestID(request); err != nil {
		return err
	}
	batch, err := e.conn.PrepareBatch(ctx, "INSERT INTO "+e.local("erasure_subjects"))
	if err != nil {
		return fmt.Errorf("storing the subjects of request %s: %w", request, err)
	}
	defer func() { _ = batch.Close() }() // what was sent stays
	for _, s := range subjects {
		if err := batch.Append(request, s.Tenant, s.Kind, s.ID, at); err != nil {
			return fmt.Errorf("storing the subjects of request %s: %w", request, err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("storing the subjects of request %s: %w", request, err)
	}
	return nil
}

// Request reads what a request is about; Subjects is 0 if nothing is there (any more).
func (e *Eraser) Request(ctx context.Context, request string) (Request, error) {
	var r Request
	var n uint64
	err := e.conn.QueryRow(ctx, "SELECT uniqExact(tenant, kind, id), groupUniqArray(toString(tenant)), min(requested_at) FROM erasure_subjects WHERE request_id = ? AND kind != ?", request, kindFailed).
		Scan(&n, &r.Tenants, &r.RequestedAt)
	if err != nil {
		return r, fmt.Errorf("reading request %s: %w", request, err)
	}
	r.Subjects = int64(n)
	return r, nil
}

// Subjects reads the ids of a request.
func (e *Eraser) Subjects(ctx context.Context, request string) ([]event.Subject, error) {
	rows, err := e.conn.Query(ctx, "SELECT DISTINCT toString(tenant), toString(kind), id FROM erasure_subjects WHERE request_id = ? AND kind != ? ORDER BY ALL", request, kindFailed)
	if err != nil {
		return nil, fmt.Errorf("reading the subjects of request %s: %w", request, err)
	}
	defer rows.Close()
	var out []event.Subject
	for rows.Next() {
		var s event.Subject
		if err := rows.Scan(&s.Tenant, &s.Kind, &s.ID); err != nil {
			return nil, fmt.Errorf("reading the subjects of request %s: %w", request, err)
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the subjects of request %s: %w", request, err)
	}
	return out, nil
}

// Link adds to a request the visitors that its users were: those who signed in as one of them, and as nobody else.
func (e *Eraser) Link(ctx context.Context, request string, at time.Time) error {
	users := "(SELECT tenant, id FROM erasure_subjects WHERE request_id = ? AND kind = 'user')"
	stmt := "INSERT INTO erasure_subjects SELECT DISTINCT ?, tenant, 'visitor', visitor_id, fromUnixTimestamp64Micro(?, 'UTC') FROM events" +
		" WHERE visitor_id != '' AND (tenant, ifNull(user_id, '')) IN " + users +
		" AND (tenant, visitor_id) NOT IN (SELECT tenant, visitor_id FROM events WHERE visitor_id != '' AND ifNull(user_id, '') != '' AND (tenant, ifNull(user_id, '')) NOT IN " + users + ")"
	if err := e.conn.Exec(e.nested(ctx), stmt, request, at.UnixMicro(), request, request); err != nil {
		return fmt.Errorf("linking visitors with the users of request %s: %w", request, err)
	}
	return nil
}

// Forget drops the ids of a request.
func (e *Eraser) Forget(ctx context.Context, request string) error {
	if err := CheckRequestID(request); err != nil {
		return err
	}
	if err := e.conn.Exec(ctx, "ALTER TABLE "+e.local("erasure_subjects")+e.onCluster()+" DROP PARTITION '"+request+"'"); err != nil {
		return fmt.Errorf("forgetting the subjects of request %s: %w", request, err)
	}
	return nil
}

// EraseTables lists the tables with rows of persons.
func EraseTables() []string {
	var out []string
	for _, c := range event.Categories() {
		out = append(out, c.Table())
	}
	return append(out, TableFailed, TableAlerts)
}

// Erase deletes the rows of a request's subjects that are below the cut from one table, and waits until no part has them. It gives how many there were. It may be
// called again, and goes on with a deletion that is under way. alive, if not nil, is called while it waits.
func (e *Eraser) Erase(ctx context.Context, request, table string, cut event.Cut, erased *event.Erased, alive func()) (int64, error) {
	fail := func(err error) (int64, error) {
		return 0, fmt.Errorf("erasing rows of table %s for request %s: %w", table, request, err)
	}
	if err := CheckRequestID(request); err != nil {
		return fail(err)
	}
	if table == TableFailed {
		if err := e.findFailed(ctx, request, erased); err != nil {
			return fail(err)
		}
	}
	cond := rowsOf(request, table)
	if table == TableAlerts {
		if err := e.findAlerts(ctx, request, erased); err != nil {
			return fail(err)
		}
	} else {
		cond += " AND " + below(cut)
	}
	first := int64(-1)
	for range 3 { // rows that a sink had in its hands when the ledger was written may still come
		var n uint64
		if err := e.conn.QueryRow(e.nested(ctx), "SELECT count() FROM "+table+" WHERE "+cond).Scan(&n); err != nil {
			return fail(err)
		}
		if first < 0 {
			first = int64(n)
		}
		if n == 0 {
			return first, nil
		}
		running, err := e.running(ctx, request, table)
		if err != nil {
			return fail(err)
		}
		if running == 0 {
			if err := e.conn.Exec(e.nested(ctx), "ALTER TABLE "+e.local(table)+e.onCluster()+" DELETE WHERE "+cond); err != nil {
				return fail(err)
			}
		}
		if err := e.wait(ctx, request, table, alive); err != nil {
			return fail(err)
		}
	}
	return fail(fmt.Errorf("rows are still there after three deletions"))
}

// wait waits for the deletions of a request in a table.
func (e *Eraser) wait(ctx context.Context, request, table string, alive func()) error {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		n, err := e.running(ctx, request, table)
		if err != nil || n == 0 {
			return err
		}
		if alive != nil {
			alive()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// running counts the deletions of a request that are under way; one that fails is an error.
func (e *Eraser) running(ctx context.Context, request, table string) (uint64, error) {
	from := "system.mutations"
	if e.cluster != "" {
		from = "clusterAllReplicas(" + e.cluster + ", system.mutations)"
	}
	var n uint64
	var why string
	err := e.conn.QueryRow(ctx, "SELECT count(), max(latest_fail_reason) FROM "+from+" WHERE database = currentDatabase() AND table = ? AND NOT is_done AND position(command, ?) > 0",
		e.local(table), request).Scan(&n, &why)
	if err == nil && why != "" {
		err = fmt.Errorf("the deletion fails: %.300s", why)
	}
	return n, err
}

// findFailed notes which failed events have a subject's id in their payload.
func (e *Eraser) findFailed(ctx context.Context, request string, erased *event.Erased) error {
	var found []event.Subject
	err := e.failed(ctx, erased, func(id, tenant string) {
		found = append(found, event.Subject{Tenant: tenant, Kind: kindFailed, ID: id})
	})
	if err != nil || len(found) == 0 {
		return err
	}
	return e.PutSubjects(ctx, request, found, time.Now())
}

// findAlerts notes which alerts are about a subject: rows have no raw offset to compare with a cut, so they are found by the ledger, which goes by time.
func (e *Eraser) findAlerts(ctx context.Context, request string, erased *event.Erased) error {
	var found []event.Subject
	err := e.alerts(ctx, erased, func(id, tenant string) {
		found = append(found, event.Subject{Tenant: tenant, Kind: kindFailed, ID: id})
	})
	if err != nil || len(found) == 0 {
		return err
	}
	return e.PutSubjects(ctx, request, found, time.Now())
}

func (e *Eraser) alerts(ctx context.Context, erased *event.Erased, each func(id, tenant string)) error {
	rows, err := e.conn.Query(ctx, "SELECT DISTINCT alert_id, toString(tenant), toString(entity), key, toUnixTimestamp64Micro(occurred_at) FROM "+TableAlerts+" WHERE entity IN (?, ?)", event.EntityVisitor, event.EntityUser)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var a event.Alert
		if err := rows.Scan(&a.AlertID, &a.Tenant, &a.Entity, &a.Key, &a.OccurredAt); err != nil {
			return err
		}
		if erased.DropsAlert(&a) {
			each(a.AlertID, a.Tenant)
		}
	}
	return rows.Err()
}

func (e *Eraser) failed(ctx context.Context, erased *event.Erased, each func(id, tenant string)) error {
	rows, err := e.conn.Query(ctx, "SELECT failed_id, toString(tenant), payload, toString(raw_topic), raw_partition, raw_offset FROM "+TableFailed)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var f event.Failed
		if err := rows.Scan(&f.ID, &f.Tenant, &f.Payload, &f.RawTopic, &f.RawPartition, &f.RawOffset); err != nil {
			return err
		}
		if erased.DropsFailed(&f) {
			each(f.ID, f.Tenant)
		}
	}
	return rows.Err()
}

// Left counts the persons' traces in a table that the ledger names, by the digests alone: it shares nothing with the way of erasing. A trace is a visitor and user of
// one raw partition, or a failed event.
func (e *Eraser) Left(ctx context.Context, table string, erased *event.Erased) (int64, error) {
	n := int64(0)
	if table == TableFailed {
		if err := e.failed(ctx, erased, func(string, string) { n++ }); err != nil {
			return 0, fmt.Errorf("looking for erased subjects in table %s: %w", table, err)
		}
		return n, nil
	}
	if table == TableAlerts {
		if err := e.alerts(ctx, erased, func(string, string) { n++ }); err != nil {
			return 0, fmt.Errorf("looking for erased subjects in table %s: %w", table, err)
		}
		return n, nil
	}
	previous := "''"
	if table == event.Identity.Table() {
		previous = "ifNull(previous_id, '')"
	}
	rows, err := e.conn.Query(ctx, "SELECT toString(tenant), visitor_id, ifNull(user_id, ''), "+previous+", toString(raw_topic), raw_partition, min(raw_offset) FROM "+table+" GROUP BY ALL")
	if err != nil {
		return 0, fmt.Errorf("looking for erased subjects in table %s: %w", table, err)
	}
	defer rows.Close()
	for rows.Next() {
		var v event.Event
		if err := rows.Scan(&v.Tenant, &v.VisitorID, &v.UserID, &v.PreviousID, &v.RawTopic, &v.RawPartition, &v.RawOffset); err != nil {
			return 0, fmt.Errorf("looking for erased subjects in table %s: %w", table, err)
		}
		if erased.DropsEvent(&v) {
			n++
		}
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("looking for erased subjects in table %s: %w", table, err)
	}
	return n, nil
}

// Export calls each with the rows of a request's subjects in a table, as JSON objects.
func (e *Eraser) Export(ctx context.Context, request, table string, each func(row string) error) error {
	if err := CheckRequestID(request); err != nil {
		return err
	}
	rows, err := e.conn.Query(e.nested(ctx), "SELECT formatRowNoNewline('JSONEachRow', *) FROM "+table+" WHERE "+rowsOf(request, table))
	if err != nil {
		return fmt.Errorf("reading rows of table %s for request %s: %w", table, request, err)
	}
	defer rows.Close()
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			return fmt.Errorf("reading rows of table %s for request %s: %w", table, request, err)
		}
		if err := each(row); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading rows of table %s for request %s: %w", table, request, err)
	}
	return nil
}

// FindFailed is what Export of failed events and of alerts needs first.
func (e *Eraser) FindFailed(ctx context.Context, request string, erased *event.Erased) error {
	if err := e.findFailed(ctx, request, erased); err != nil {
		return fmt.Errorf("looking for failed events of request %s: %w", request, err)
	}
	if err := e.findAlerts(ctx, request, erased); err != nil {
		return fmt.Errorf("looking for alerts of request %s: %w", request, err)
	}
	return nil
}

// rowsOf is the condition that a row is of a subject of a request.
func rowsOf(request, table string) string {
	of := func(columns, kind string) string {
		return "(tenant, " + columns + ") IN (SELECT tenant, id FROM erasure_subjects WHERE request_id = '" + request + "' AND kind " + kind + ")"
	}
	switch table {
	case TableFailed:
		return of("failed_id", "= '"+kindFailed+"'")
	case TableAlerts:
		return of("alert_id", "= '"+kindFailed+"'")
	case event.Identity.Table():
		return "(" + of("visitor_id", "= 'visitor'") + " OR " + of("ifNull(user_id, '')", "= 'user'") + " OR " + of("ifNull(previous_id, '')", "!= '"+kindFailed+"'") + ")"
	}
	return "(" + of("visitor_id", "= 'visitor'") + " OR " + of("ifNull(user_id, '')", "= 'user'") + ")"
}

// below is the condition that a row is below the cut.
func below(cut event.Cut) string {
	var any []string
	for _, topic := range slices.Sorted(maps.Keys(cut)) {
		var parts, ends []string
		for p, end := range cut[topic] {
			parts, ends = append(parts, "toInt32("+strconv.Itoa(p)+")"), append(ends, "toInt64("+strconv.FormatInt(end, 10)+")")
		}
		if len(parts) > 0 {
			any = append(any, "(raw_topic = '"+strings.ReplaceAll(topic, "'", "")+"' AND raw_offset < transform(raw_partition, ["+strings.Join(parts, ",")+"], ["+strings.Join(ends, ",")+"], toInt64(0)))")
		}
	}
	if len(any) == 0 {
		return "0"
	}
	return "(" + strings.Join(any, " OR ") + ")"
}

// nested lets mutations and queries over Distributed tables have subqueries.
func (e *Eraser) nested(ctx context.Context) context.Context {
	return clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"allow_nondeterministic_mutations": 1, "distributed_product_mode": "global", "mutations_sync": 0, "max_execution_time": 0}))
}

func (e *Eraser) local(table string) string {
	if e.cluster != "" {
		return table + "_local"
	}
	return table
}

func (e *Eraser) onCluster() string {
	if e.cluster != "" {
		return " ON CLUSTER " + e.cluster
	}
	return ""
}
