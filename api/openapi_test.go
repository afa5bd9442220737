package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

func description(t testing.TB) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// conforms checks a body against a schema of the description.
func conforms(t testing.TB, schema *openapi3.Schema, what string, body []byte) {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%s: %v in %s", what, err, body)
	}
	if err := schema.VisitJSON(v, openapi3.EnableJSONSchema2020(), openapi3.EnableFormatValidation()); err != nil {
		t.Errorf("%s: %v\n%.2000s", what, err, body)
	}
}

func TestTheDescriptionIsValidAndInStyle(t *testing.T) {
	doc := description(t)
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	operations := map[string]string{}
	camel := regexp.MustCompile(`^[a-z]+[A-Za-z]*$`)
	for path, item := range doc.Paths.Map() {
		if !strings.HasPrefix(path, "/api/v1/") {
			t.Errorf("%s is not below /api/v1/", path)
		}
		for method, op := range item.Operations() {
			at := method + " " + path
			if method != http.MethodGet {
				t.Errorf("%s: the API only reads", at)
			}
			if op.OperationID == "" || !camel.MatchString(op.OperationID) || operations[op.OperationID] != "" {
				t.Errorf("%s: operationId %q is missing, not camelCase, or that of %s", at, op.OperationID, operations[op.OperationID])
			}
			operations[op.OperationID] = at
			if op.Summary == "" || len(op.Tags) != 1 || doc.Tags.Get(op.Tags[0]) == nil {
				t.Errorf("%s has no summary, or not one declared tag", at)
			}
			for _, p := range op.Parameters {
				s := p.Value.Schema.Value
				if s.Type.Is("string") && s.MaxLength == nil && len(s.Enum) == 0 && s.Pattern == "" {
					t.Errorf("%s: parameter %s has no bound", at, p.Value.Name)
				}
				if s.Type.Is("integer") && (s.Min == nil || s.Max == nil) {
					t.Errorf("%s: parameter %s has no bounds", at, p.Value.Name)
				}
			}
			for _, status := range []string{"200", "400", "503"} {
				if op.Responses.Value(status) == nil {
					t.Errorf("%s has no response %s", at, status)
				}
			}
		}
	}
	for name, ref := range doc.Components.Schemas {
		s := ref.Value
		for _, r := range s.Required {
			if s.Properties[r] == nil {
				t.Errorf("schema %s requires %s, which it has not got", name, r)
			}
		}
		for p := range s.Properties {
			if !slices.Contains(s.Required, p) && p != "sessions" {
				t.Errorf("schema %s: property %s is neither required nor explained as missing", name, p)
			}
			if p != strings.ToLower(p) {
				t.Errorf("schema %s: property %s is not snake_case", name, p)
			}
		}
	}
}

func TestEveryPathIsDescribedAndAnswersAsDescribed(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.seed(t, invent(s.tenant, 1500, 3*time.Minute, 20), "UTC")
	if err := s.conn.Exec(t.Context(), "INSERT INTO failed_events (failed_id, failed_at, received_at, tenant, reason, error, payload, source, payload_bytes, ingested_at) VALUES ('f', ?, ?, ?, 'schema', 'e', '{}', 'web', 2, ?)", now.Add(-time.Minute), now, s.tenant, now); err != nil {
		t.Fatal(err)
	}
	doc := description(t)
	served := []string{"/api/v1/stream", "/api/v1/events/stream", "/api/v1/alerts/stream"}
	for _, r := range answersJSON {
		served = append(served, r.path)
	}
	for path := range doc.Paths.Map() {
		if !slices.Contains(served, path) {
			t.Errorf("%s is described and not served", path)
		}
	}
	for _, path := range served {
		if doc.Paths.Value(path) == nil {
			t.Errorf("%s is served and not described", path)
		}
	}
	for _, c := range []string{
		"/api/v1/kpis/live", "/api/v1/kpis/live?window=15m&currency=USD", "/api/v1/kpis/live?tenant=nobody",
		"/api/v1/kpis/series", "/api/v1/kpis/series?measures=" + strings.Join(metricNames()[:12], ",") + "&grain=1m&from=-10m&by=currency",
		"/api/v1/kpis/series?measures=" + strings.Join(metricNames()[12:24], ",") + "&grain=1d&tz=Asia/Tokyo&by=country", "/api/v1/kpis/series?measures=" + strings.Join(metricNames()[24:], ","), "/api/v1/kpis/series?tenant=nobody",
		"/api/v1/products/top", "/api/v1/products/top?by=orders&window=7d", "/api/v1/products/top?tenant=nobody",
		"/api/v1/events/recent", "/api/v1/events/recent?category=purchase", "/api/v1/failed", "/api/v1/failed?reason=schema&window=30d", "/api/v1/fraud", "/api/v1/fraud?from=-7d", "/api/v1/rules", "/api/v1/models", "/api/v1/models?model=other&limit=5", "/api/v1/alerts", "/api/v1/alerts?severity=warn&from=-7d&limit=5",
		"/api/v1/health", "/api/v1/tables", "/api/v1/tables/events_purchase/refs", "/api/v1/workflows", "/api/v1/nights", "/api/v1/nights?days=400", "/api/v1/maintenance", "/api/v1/maintenance?table=events_page&limit=5",
	} {
		status, body := s.get(t, c)
		if status != http.StatusOK {
			t.Errorf("%s: %d %s", c, status, body)
			continue
		}
		path, _, _ := strings.Cut(c, "?")
		path = strings.Replace(path, "/tables/events_purchase/", "/tables/{table}/", 1)
		schema := doc.Paths.Value(path).Get.Responses.Value("200").Value.Content.Get("application/json").Schema.Value
		conforms(t, schema, c, body)
	}
	status, body := s.get(t, "/openapi.json")
	var served3 struct {
		OpenAPI string         `json:"openapi"`
		Paths   map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(body, &served3); err != nil || status != http.StatusOK || served3.OpenAPI != "3.1.0" || len(served3.Paths) != len(served) {
		t.Errorf("/openapi.json: %d, version %s, %d paths, %v", status, served3.OpenAPI, len(served3.Paths), err)
	}
}

func TestRatiosAndMeasuresOfTheDescriptionExist(t *testing.T) {
	for _, name := range []string{"conversion", "cart_rate", "checkout_rate", "completion", "refund_rate", "units_per_order", "pages_per_visitor", "aov", "revenue_per_unit", "abandonment_rate", "revenue", "visitors", "carts", "stock_outs"} {
		if _, ok := metricNamed(name); !ok {
			t.Errorf("%s is not known", name)
		}
	}
	if got := fmt.Sprint(len(metricNames())); got != "25" {
		t.Errorf("%s metrics: the description's texts name 25", got)
	}
}
