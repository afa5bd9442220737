package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/internal/fault"
	"millrace/olap"
)

func TestQuestionsThatCannotBeAnsweredAreToldWhy(t *testing.T) {
	t.Parallel()
	s := open(t)
	schema := description(t).Components.Schemas["Problem"].Value
	for _, c := range []struct {
		name, path string
		status     int
		id         fault.ID
		field      string
	}{
		{"ten years by second", "/api/v1/kpis/series?grain=1s&from=2016-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", 400, idRange, "grain"},
		{"one point too many", "/api/v1/kpis/series?grain=1m&from=-5001m&to=now", 400, idRange, "grain"},
		{"a range that ends before it begins", "/api/v1/kpis/series?from=now&to=-1h", 400, idRequest, "from"},
		{"an empty range", "/api/v1/kpis/series?from=now&to=now", 400, idRequest, "from"},
		{"a time before all events", "/api/v1/kpis/series?from=1970-01-01T00:00:00Z", 400, idRequest, "from"},
		{"a time far ahead", "/api/v1/kpis/series?to=2999-01-01T00:00:00Z", 400, idRequest, "to"},
		{"a time that is none", "/api/v1/kpis/series?from=yesterday", 400, idRequest, "from"},
		{"unix seconds beyond all bounds", "/api/v1/kpis/series?from=99999999999999999999", 400, idRequest, "from"},
		{"a measure that is none", "/api/v1/kpis/series?measures=orders,profit", 400, idRequest, "measures"},
		{"a measure twice", "/api/v1/kpis/series?measures=orders,orders", 400, idRequest, "measures"},
		{"too many measures", "/api/v1/kpis/series?measures=" + strings.Join(metricNames(), ","), 400, idRequest, "measures"},
		{"a dimension that is none", "/api/v1/kpis/series?by=visitor_id", 400, idRequest, "by"},
		{"a grain that is none", "/api/v1/kpis/series?grain=1w", 400, idRequest, "grain"},
		{"a zone that is none", "/api/v1/kpis/series?tz=Mars/Olympus", 400, idRequest, "tz"},
		{"a zone that is a path", "/api/v1/kpis/series?tz=../../etc/passwd", 400, idRequest, "tz"},
		{"the server's own zone", "/api/v1/kpis/series?tz=Local", 400, idRequest, "tz"},
		{"a currency that is none", "/api/v1/kpis/live?currency=usd", 400, idRequest, "currency"},
		{"more series than may be", "/api/v1/kpis/series?measures=orders,revenue&limit=26", 400, idRequest, "limit"},
		{"a huge limit", "/api/v1/events/recent?limit=1000000000", 400, idRequest, "limit"},
		{"a negative limit", "/api/v1/products/top?limit=-1", 400, idRequest, "limit"},
		{"a limit that overflows", "/api/v1/failed?limit=99999999999999999999999", 400, idRequest, "limit"},
		{"a window of nothing", "/api/v1/kpis/live?window=0s", 400, idRequest, "window"},
		{"a window beyond all", "/api/v1/kpis/live?window=999999999d", 400, idRequest, "window"},
		{"a window that is none", "/api/v1/kpis/live?window=-5m", 400, idRequest, "window"},
		{"a long window in odd seconds", "/api/v1/kpis/live?window=361s", 400, idRequest, "window"},
		{"a parameter that is none", "/api/v1/kpis/live?windw=60s", 400, idRequest, "windw"},
		{"a parameter twice", "/api/v1/kpis/live?window=60s&window=61s", 400, idRequest, "window"},
		{"control characters", "/api/v1/events/recent?name=a%00b", 400, idRequest, "name"},
		{"bytes that are no text", "/api/v1/events/recent?q=%ff%fe", 400, idRequest, "q"},
		{"a category that is none", "/api/v1/events/stream?category=orders", 400, idRequest, "category"},
		{"a tenant beyond all bounds", "/api/v1/stream?tenant=" + strings.Repeat("x", 65), 400, idRequest, "tenant"},
		{"a query string that is not well formed", "/api/v1/kpis/live?window=%zz", 400, idRequest, ""},
		{"a query string that is too long", "/api/v1/kpis/live?window=" + strings.Repeat("x", 9000), 400, idRequest, ""},
		{"a parameter where none are", "/api/v1/health?verbose=1", 400, idRequest, "verbose"},
		{"more nights than there are", "/api/v1/nights?days=401", 400, idRequest, "days"},
		{"a workflow type with a quote", "/api/v1/workflows?type=a'%20OR%20''='", 400, idRequest, "type"},
		{"a path that is none", "/api/v1/orders", 404, idPath, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			started := time.Now()
			status, body := s.get(t, c.path)
			if took := time.Since(started); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
			conforms(t, schema, c.path, body)
			var p problem
			if err := json.Unmarshal(body, &p); err != nil {
				t.Fatal(err)
			}
			if status != c.status || p.Status != c.status || p.ID != c.id || p.Remedy == "" {
				t.Errorf("%d %s", status, body)
			}
			named := c.field == ""
			for _, e := range p.Errors {
				named = named || e.Field == c.field
			}
			if !named {
				t.Errorf("%s is not named: %s", c.field, body)
			}
		})
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.server.URL+"/api/v1/kpis/live", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("POST is answered %s %s", res.Status, res.Header.Get("Content-Type"))
	}
}

// hostile are texts that break whoever puts them into a statement.
var hostile = []string{
	"'", "\\'", "' OR 1=1 --", "'; DROP TABLE events_page; --", "1) UNION ALL SELECT password FROM system.users --", "{tenant:String}", "?", "`", "\\x27 OR 1=1", "now() SETTINGS readonly=0", "\"",
	"*/", "a\\", "💥", "\u2028",
}

func TestNoParameterReachesAStatement(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config, _ *Deps) { c.MaxWait = time.Minute / 2 })
	s.seed(t, invent(s.tenant, 300, 10*time.Minute, 30), "UTC")
	if err := s.conn.Exec(t.Context(), "INSERT INTO failed_events (failed_id, failed_at, received_at, tenant, reason, payload, ingested_at) VALUES ('f', ?, ?, ?, 'schema', '{}', ?)", now.Add(-time.Minute), now, s.tenant, now); err != nil {
		t.Fatal(err)
	}
	contents := func() (rows uint64) {
		if err := s.conn.QueryRow(t.Context(), "SELECT (SELECT count() FROM events WHERE tenant = ?) + (SELECT count() FROM failed_events WHERE tenant = ?) * 1000003", s.tenant, s.tenant).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	before := contents()
	paths := map[string][]string{
		"/api/v1/kpis/live": {"tenant", "window", "currency"}, "/api/v1/kpis/series": {"tenant", "measures", "grain", "from", "to", "by", "currency", "tz", "limit"},
		"/api/v1/products/top": {"tenant", "window", "by", "currency", "limit"}, "/api/v1/events/recent": {"tenant", "category", "name", "q", "limit"},
		"/api/v1/failed": {"tenant", "window", "reason", "limit"}, "/api/v1/workflows": {"type", "limit"}, "/api/v1/nights": {"days"}, "/api/v1/tables": {"x"}, "/api/v1/health": {"x"},
		"/api/v1/maintenance": {"table", "limit"}, "/api/v1/fraud": {"tenant", "from", "to"}, "/api/v1/rules": {"x"}, "/api/v1/models": {"tenant", "model", "limit"},
	}
	var wg sync.WaitGroup
	for path, names := range paths {
		wg.Go(func() {
			for _, name := range names {
				for _, text := range hostile {
					status, body, err := ask(t.Context(), s.server.URL+path+"?"+name+"="+url.QueryEscape(text))
					free := name == "tenant" || name == "name" || name == "q" || name == "reason" // any text is a name
					switch {
					case err != nil:
						t.Error(err)
					case free && status == http.StatusOK:
						// Whoever asks for what is not there gets nothing: no text widens a condition.
						if name != "reason" && (strings.Contains(string(body), `"event_id":"e-`) || strings.Contains(string(body), `"failed_id":"f"`) || strings.Contains(string(body), `"product_id":"p`)) {
							t.Errorf("%s %s=%q gives rows: %.300s", path, name, text, body)
						}
					case free, status != http.StatusBadRequest:
						t.Errorf("%s %s=%q: %d %.300s", path, name, text, status, body)
					}
				}
			}
		})
	}
	wg.Wait()
	if after := contents(); after != before {
		t.Errorf("the stores hold %d, before it was %d", after, before)
	}
}

func TestATenantOfAnyNameHasItsEventsOnly(t *testing.T) {
	t.Parallel()
	s := openAlone(t)
	for i, tenant := range []string{"o'brien", `back\slash`, "tab\\tless", "💥 sale", "{tenant:String}", "a\\"} {
		e := invent(tenant, 5, time.Minute, uint64(40+i))
		s.insertEvents(t, e)
		status, body := s.get(t, "/api/v1/events/recent?tenant="+url.QueryEscape(tenant))
		var got recentEvents
		if err := json.Unmarshal(body, &got); err != nil || status != http.StatusOK || len(got.Events) != 5 {
			t.Errorf("%q: %d, %d events, %v", tenant, status, len(got.Events), err)
		}
	}
}

func TestAQueryThatIsTooMuchIsEndedAndToldSo(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config, _ *Deps) { c.MaxRowsRead = 100 })
	s.seed(t, invent(s.tenant, 2000, 30*time.Minute, 50), "UTC")
	status, body := s.get(t, "/api/v1/kpis/series?grain=1m&from=-1h")
	if status != http.StatusServiceUnavailable || !strings.Contains(string(body), string(idTooLarge)) {
		t.Errorf("%d %s", status, body)
	}
	if !olap.Exceeded(s.api.olap.Sketches(t.Context(), olap.KPIQuery{Tenant: s.tenant, Grain: "1s", From: now.Add(-time.Hour), To: now}, func(int64, string, []byte) error { return nil })) {
		t.Error("a reading of more rows than may be read is not ended")
	}
}
