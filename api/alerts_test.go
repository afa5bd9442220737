package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/event"
	"millrace/live"
	"millrace/olap"
)

// alert is the i-th alert, i minutes ago.
func (s *shop) alert(i int, confirmed bool) event.Alert {
	at := now.Add(-time.Duration(i) * time.Minute).UnixMicro()
	a := event.Alert{
		AlertID: fmt.Sprintf("%032x", 1000+i), Kind: event.AlertFraud, Rule: "velocity", RuleVersion: 2, Tenant: s.tenant, Entity: event.EntityVisitor, Key: fmt.Sprintf("v%d", i), Severity: event.SeverityWarn,
		Score: 0.75, Reasons: []string{"fast"}, TriggerEventID: "e", OccurredAt: at, DetectedAt: at + 1000, Confirmed: confirmed, Details: `{"n":3}`,
	}
	if i%3 == 0 {
		a.Severity, a.Rule = event.SeverityCritical, "card_testing"
	}
	if i%5 == 0 {
		a.Kind, a.Entity, a.Severity = event.AlertStock, event.EntityProduct, event.SeverityInfo
	}
	return a
}

func (s *shop) insertAlerts(t testing.TB, as ...event.Alert) {
	t.Helper()
	b, err := s.conn.PrepareBatch(t.Context(), "INSERT INTO alerts (alert_id, kind, rule, rule_version, tenant, entity, key, severity, score, reasons, trigger_event_id, occurred_at, detected_at, confirmed, details, version)")
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range as {
		version := uint64(i)
		if a.Confirmed {
			version |= olap.AlertConfirmed
		}
		if err := b.Append(a.AlertID, a.Kind, a.Rule, a.RuleVersion, a.Tenant, a.Entity, a.Key, a.Severity, a.Score, a.Reasons, a.TriggerEventID, time.UnixMicro(a.OccurredAt), time.UnixMicro(a.DetectedAt), a.Confirmed, a.Details, version); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Send(); err != nil {
		t.Fatal(err)
	}
}

func TestAlertsAreListedOnceByFilterAndPage(t *testing.T) {
	t.Parallel()
	s := open(t)
	var all []event.Alert
	for i := range 30 {
		all = append(all, s.alert(i, i%2 == 0))
		if i%2 == 0 { // it was provisional before
			all = append(all, s.alert(i, false))
		}
	}
	s.insertAlerts(t, all...)
	read := func(query string) (ids []string, next string) {
		t.Helper()
		status, body := s.get(t, "/api/v1/alerts"+query)
		var got struct {
			Next   string
			Alerts []struct {
				Key       string
				Confirmed bool
				Details   map[string]int
			}
		}
		if err := json.Unmarshal(body, &got); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s", query, status, body)
		}
		conforms(t, description(t).Paths.Value("/api/v1/alerts").Get.Responses.Value("200").Value.Content.Get("application/json").Schema.Value, query, body)
		for _, a := range got.Alerts {
			ids = append(ids, a.Key)
			var i int
			if _, err := fmt.Sscanf(a.Key, "v%d", &i); err != nil || a.Confirmed != (i%2 == 0) || a.Details["n"] != 3 {
				t.Errorf("%s: %+v", query, a)
			}
		}
		return ids, got.Next
	}
	keys := func(keep func(i int) bool) (out []string) {
		for i := range 30 {
			if keep(i) {
				out = append(out, fmt.Sprintf("v%d", i))
			}
		}
		return out
	}
	for query, keep := range map[string]func(int) bool{
		"?":                           func(int) bool { return true },
		"?kind=stock":                 func(i int) bool { return i%5 == 0 },
		"?rule=card_testing":          func(i int) bool { return i%3 == 0 },
		"?severity=critical":          func(i int) bool { return i%3 == 0 && i%5 != 0 },
		"?severity=warn":              func(i int) bool { return i%5 != 0 },
		"?entity=product&key=v10":     func(i int) bool { return i == 10 },
		"?state=confirmed":            func(i int) bool { return i%2 == 0 },
		"?state=provisional":          func(i int) bool { return i%2 == 1 },
		"?from=-10m&to=-5m":           func(i int) bool { return i > 5 && i <= 10 },
		"?tenant=nobody":              func(int) bool { return false },
		"?state=confirmed&kind=fraud": func(i int) bool { return i%2 == 0 && i%5 != 0 },
	} {
		if got, next := read(query); !cmp.Equal(keys(keep), got) || next != "" {
			t.Errorf("%s: %s next %q", query, cmp.Diff(keys(keep), got), next)
		}
	}
	var paged []string
	for page, n := "", 0; ; n++ {
		ids, next := read("?limit=7&page=" + page)
		paged = append(paged, ids...)
		if page = next; next == "" {
			if n != 4 {
				t.Errorf("%d pages", n+1)
			}
			break
		}
	}
	if diff := cmp.Diff(keys(func(int) bool { return true }), paged); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"?kind=x", "?severity=high", "?page=x", "?page=1.%27", "?limit=0", "?from=now&to=-1h", "?from=-400d", "?unknown=1", "?state=maybe"} {
		if status, body := s.get(t, "/api/v1/alerts"+bad); status != http.StatusBadRequest || !strings.Contains(string(body), "MR-API-001") {
			t.Errorf("%s: %d %s", bad, status, body)
		}
	}
}

func TestOneAlertIsGivenByRedisFirstAndThenByClickHouse(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.insertAlerts(t, s.alert(1, false))
	get := func(id string) (int, string) {
		t.Helper()
		status, body := s.get(t, "/api/v1/alerts/"+id)
		if status == http.StatusOK {
			conforms(t, description(t).Paths.Value("/api/v1/alerts/{alert_id}").Get.Responses.Value("200").Value.Content.Get("application/json").Schema.Value, id, body)
		}
		return status, string(body)
	}
	one := s.alert(1, true)
	if status, body := get(one.AlertID); status != http.StatusOK || !strings.Contains(body, `"confirmed":false`) {
		t.Errorf("%d %s", status, body)
	}
	two := s.alert(2, false)
	if _, _, err := live.PutAlerts(t.Context(), s.redis, []event.Alert{one, two}, now); err != nil {
		t.Fatal(err)
	}
	if status, body := get(one.AlertID); status != http.StatusOK || !strings.Contains(body, `"confirmed":true`) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := get(two.AlertID); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	for _, id := range []string{"nope", "a%20b", strings.Repeat("a", 65), "..%2f"} {
		if status, body := get(id); status != http.StatusNotFound {
			t.Errorf("%s: %d %s", id, status, body)
		}
	}
	if status, _ := s.get(t, "/api/v1/alerts/"+one.AlertID+"?tenant=other"); status != http.StatusNotFound {
		t.Errorf("another tenant sees it: %d", status)
	}
}

func TestTheStreamTellsOfAlertsAndOfTheirConfirmation(t *testing.T) {
	t.Parallel()
	s := open(t)
	put := func(as ...event.Alert) {
		t.Helper()
		if _, _, err := live.PutAlerts(t.Context(), s.redis, as, now); err != nil {
			t.Fatal(err)
		}
	}
	put(s.alert(1, false), s.alert(2, false), s.alert(5, false))
	events, _, leave := listen(t, s.server.URL+"/api/v1/alerts/stream?severity=warn&tenant="+s.tenant)
	defer leave()
	read := func() (out []string) {
		t.Helper()
		e := next(t, events, "alerts")
		conforms(t, description(t).Components.Schemas["AlertsMessage"].Value, "message", []byte(e.data))
		var m struct {
			Alerts []struct {
				Key       string
				Confirmed bool
			}
		}
		if err := json.Unmarshal([]byte(e.data), &m); err != nil {
			t.Fatal(err)
		}
		for _, a := range m.Alerts {
			out = append(out, fmt.Sprintf("%s %v", a.Key, a.Confirmed))
		}
		return out
	}
	if diff := cmp.Diff([]string{"v2 false", "v1 false"}, read()); diff != "" {
		t.Error(diff)
	}
	put(s.alert(1, true), s.alert(10, true), s.alert(3, false), s.alert(3, true))
	if diff := cmp.Diff([]string{"v3 true", "v1 true"}, read()); diff != "" {
		t.Error(diff)
	}
	// Who comes later is told what there is first.
	later, _, leaveLater := listen(t, s.server.URL+"/api/v1/alerts/stream?severity=warn&tenant="+s.tenant)
	defer leaveLater()
	events = later
	if diff := cmp.Diff([]string{"v3 true", "v1 true", "v2 false"}, read()); diff != "" {
		t.Error(diff)
	}
	if status, body := s.get(t, "/api/v1/alerts/stream?severity=x"); status != http.StatusBadRequest {
		t.Errorf("%d %s", status, body)
	}
}
