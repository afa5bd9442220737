package olap

import (
	"testing"
	"time"

	"millrace/event"
)

func TestAlertsAboutErasedSubjectsAreDeletedUpToTheRequest(t *testing.T) {
	t.Parallel()
	_, conn := migrated(t)
	asked := time.Now().UTC().Truncate(time.Second)
	row := func(id, tenant, entity, key string, after time.Duration, confirmed string) {
		exec(t, conn, "INSERT INTO alerts (alert_id, tenant, entity, key, occurred_at, confirmed, version) VALUES ('"+id+"', '"+tenant+"', '"+entity+"', '"+key+"', '"+asked.Add(after).Format("2006-01-02 15:04:05")+"', "+confirmed+", 1)")
	}
	row("a1", "default", "visitor", "v3", -time.Hour, "false")
	row("a2", "default", "user", "u7", -time.Minute, "true")
	row("b1", "default", "visitor", "v3", time.Hour, "true")      // new data
	row("b2", "default", "user", "v3", -time.Hour, "true")        // another kind
	row("b3", "shop2", "visitor", "v3", -time.Hour, "true")       // another tenant
	row("b4", "default", "visitor", "v4", -time.Hour, "true")     // another visitor
	row("b5", "default", "card", "k1:abcdef", -time.Hour, "true") // a hash
	subjects := []event.Subject{{Tenant: "default", Kind: event.SubjectVisitor, ID: "v3"}, {Tenant: "default", Kind: event.SubjectUser, ID: "u7"}}
	e := NewEraser(conn, "")
	if err := e.PutSubjects(t.Context(), testRequest, subjects, asked); err != nil {
		t.Fatal(err)
	}
	ledger := event.NewErased(eraseKey)
	entry := event.Erasure{RequestID: testRequest, Key: eraseKey.ID(), Cut: event.Cut{}.String(), RequestedAt: asked.UnixMicro()}
	for _, s := range subjects {
		entry.Subjects = append(entry.Subjects, eraseKey.Digest(s).String())
	}
	if err := ledger.Add(entry); err != nil {
		t.Fatal(err)
	}
	if left, err := e.Left(t.Context(), TableAlerts, ledger.Clone()); err != nil || left != 2 {
		t.Fatalf("%d left before, %v", left, err)
	}
	if err := e.FindFailed(t.Context(), testRequest, ledger); err != nil {
		t.Fatal(err)
	}
	rows := 0
	if err := e.Export(t.Context(), testRequest, TableAlerts, func(string) error { rows++; return nil }); err != nil || rows != 2 {
		t.Errorf("%d rows exported, %v", rows, err)
	}
	for _, want := range []int64{2, 0} {
		if n, err := e.Erase(t.Context(), testRequest, TableAlerts, event.Cut{}, ledger, nil); err != nil || n != want {
			t.Fatalf("%d rows erased, want %d, %v", n, want, err)
		}
	}
	if left, err := e.Left(t.Context(), TableAlerts, ledger); err != nil || left != 0 {
		t.Errorf("%d left, %v", left, err)
	}
	if n := count(t, conn, "SELECT countIf(startsWith(alert_id, 'b')) * 10 + count() FROM alerts"); n != 55 {
		t.Errorf("others: %d", n)
	}
	if r, err := e.Request(t.Context(), testRequest); err != nil || r.Subjects != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}
