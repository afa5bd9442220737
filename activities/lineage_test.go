package activities

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"millrace/workflows/name"
)

// valid checks an event by what the specification demands of a run event and of the facets that are written here. It gives every violation.
func valid(e map[string]any) []string {
	var out []string
	need := func(at string, m map[string]any, keys ...string) {
		for _, k := range keys {
			if m[k] == nil {
				out = append(out, fmt.Sprintf("%s: '%s' is a required property", at, k))
			}
		}
	}
	object := func(m map[string]any, k string) map[string]any {
		o, _ := m[k].(map[string]any)
		return o
	}
	text := func(at string, v any) string {
		s, ok := v.(string)
		if !ok && v != nil {
			out = append(out, fmt.Sprintf("%s: %v is not of type 'string'", at, v))
		}
		return s
	}
	date := func(at string, v any) {
		if s := text(at, v); v != nil {
			if _, err := time.Parse(time.RFC3339Nano, s); err != nil {
				out = append(out, fmt.Sprintf("%s: '%s' is not a 'date-time'", at, s))
			}
		}
	}
	need("", e, "eventTime", "producer", "schemaURL", "run", "job")
	date("eventTime", e["eventTime"])
	if k, ok := e["eventType"].(string); ok && !slices.Contains([]string{"START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"}, k) {
		out = append(out, fmt.Sprintf("eventType: '%s' is not one of", k))
	}
	if run := object(e, "run"); run != nil {
		need("run", run, "runId")
		if id := text("run/runId", run["runId"]); id != "" {
			if _, err := uuid.Parse(id); err != nil {
				out = append(out, fmt.Sprintf("run/runId: '%s' is not a 'uuid'", id))
			}
		}
	}
	if job := object(e, "job"); job != nil {
		need("job", job, "namespace", "name")
	}
	required := map[string][]string{"nominalTime": {"nominalStartTime"}, "errorMessage": {"message", "programmingLanguage"}, "jobType": {"processingType", "integration"}, "sql": {"query"}}
	facets := func(at string, m map[string]any) {
		for k := range m {
			f := object(m, k)
			need(at+"/"+k, f, append([]string{"_producer", "_schemaURL"}, required[k]...)...)
			for _, whole := range []string{"rowCount", "size", "bytes"} {
				if n, ok := f[whole].(float64); f[whole] != nil && (!ok || n != float64(int64(n))) {
					out = append(out, fmt.Sprintf("%s/%s: '%v' is not of type 'integer'", at, k, f[whole]))
				}
			}
			date(at+"/"+k, f["nominalStartTime"])
			if url := text(at, f["_schemaURL"]); !strings.HasPrefix(url, "https://openlineage.io/spec/facets/") || !strings.Contains(url, "#/$defs/") {
				out = append(out, fmt.Sprintf("%s/%s: _schemaURL %s", at, k, url))
			}
		}
	}
	facets("/run/facets", object(object(e, "run"), "facets"))
	facets("/job/facets", object(object(e, "job"), "facets"))
	for _, side := range []string{"inputs", "outputs"} {
		list, _ := e[side].([]any)
		for i, d := range list {
			ds, _ := d.(map[string]any)
			at := fmt.Sprintf("/%s/%d", side, i)
			need(at, ds, "namespace", "name")
			for _, k := range []string{"facets", "inputFacets", "outputFacets"} {
				facets(at+"/"+k, object(ds, k))
			}
		}
	}
	return out
}

func oracleEvents(t *testing.T) (events []map[string]any, mutations map[string][]string) {
	t.Helper()
	text, err := os.ReadFile("testdata/openlineage.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Events    []map[string]any
		Mutations []struct {
			Mutation string
			Errors   []string
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	mutations = map[string][]string{}
	for _, m := range file.Mutations {
		mutations[m.Mutation] = m.Errors
	}
	return file.Events, mutations
}

func copyOf(t *testing.T, e map[string]any) map[string]any {
	t.Helper()
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// The checks above accept what the official client sends and refuse what the official validation refused.
func TestTheChecksOfLineageEventsAreThoseOfTheSpecification(t *testing.T) {
	t.Parallel()
	events, mutations := oracleEvents(t)
	for i, e := range events {
		if wrong := valid(e); len(wrong) > 0 {
			t.Errorf("event %d of the official client: %v", i, wrong)
		}
	}
	changes := map[string]func(e map[string]any){
		"no run":          func(e map[string]any) { delete(e, "run") },
		"runId not uuid":  func(e map[string]any) { e["run"].(map[string]any)["runId"] = "x" },
		"eventType lower": func(e map[string]any) { e["eventType"] = "complete" },
		"no producer":     func(e map[string]any) { delete(e, "producer") },
		"bad eventTime":   func(e map[string]any) { e["eventTime"] = "yesterday" },
		"extra top field": func(e map[string]any) { e["extra"] = 1 },
		"facet without _producer": func(e map[string]any) {
			delete(e["job"].(map[string]any)["facets"].(map[string]any)["sql"].(map[string]any), "_producer")
		},
		"facet wrong type": func(e map[string]any) {
			e["inputs"].([]any)[0].(map[string]any)["inputFacets"].(map[string]any)["dataQualityMetrics"].(map[string]any)["bytes"] = "60"
		},
		"no job namespace": func(e map[string]any) { delete(e["job"].(map[string]any), "namespace") },
		"no schemaURL":     func(e map[string]any) { delete(e, "schemaURL") },
	}
	for m, errs := range mutations {
		change := changes[m]
		if change == nil {
			t.Errorf("no change for %q", m)
			continue
		}
		e := copyOf(t, events[0])
		change(e)
		if got := valid(e); (len(got) > 0) != (len(errs) > 0) {
			t.Errorf("%s: %v, the official validation says %v", m, got, errs)
		}
	}
}

func TestEveryRunIsToldInValidEventsWithoutCredentials(t *testing.T) {
	t.Parallel()
	places := LineagePlaces{Iceberg: "iceberg://millrace", ClickHouse: LineageNamespace("clickhouse", "ch-1:9000", "ch-2:9000"), BigQuery: "bigquery://shop", Redis: "redis://r:6379", Database: "millrace"}
	at := time.Date(2026, 10, 23, 2, 0, 0, 123456000, time.UTC)
	names := map[string][2][]string{}
	for _, typ := range append(name.Types(), name.Type{Name: name.PublishTable}, name.Type{Name: name.LoadBigQuery}) {
		r := Run{ID: "x", Run: "2026-10-22", Type: typ.Name, Day: "2026-10-22", Table: "events_page", Workflow: "0190f2a4-6a3e-7cc1-9d5c-0f6f3f6f0b11"}
		for what, end := range map[string]*RunEnd{
			lineageStart: nil, lineageComplete: {Outcome: name.Done, Numbers: map[string]int64{"rows": 5, "bytes": 100}}, lineageFail: {Outcome: name.Failed, Reason: name.PlanLost}, lineageAbort: {Outcome: name.Canceled},
		} {
			e := newLineage("millrace", places, r, end, at)
			text, err := e.text()
			if err != nil {
				t.Fatal(err)
			}
			var m map[string]any
			if err := json.Unmarshal([]byte(text), &m); err != nil {
				t.Fatal(err)
			}
			if wrong := valid(m); len(wrong) > 0 {
				t.Errorf("%s of %s: %v\n%s", what, typ.Name, wrong, text)
			}
			if e.EventType != what || e.Run.RunID != r.Workflow || e.Job.Name != typ.Name+".events_page" {
				t.Errorf("%s of %s is %s of %s, run %s", what, typ.Name, e.EventType, e.Job.Name, e.Run.RunID)
			}
			names[typ.Name] = [2][]string{datasetNames(e.Inputs), datasetNames(e.Outputs)}
		}
	}
	want := [2][]string{{"iceberg://millrace/millrace.events_page@published"}, {"bigquery://shop/millrace.events_page"}}
	if diff := cmp.Diff(want, names[name.LoadBigQuery]); diff != "" {
		t.Error(diff)
	}
	if in := names[name.Nightly][0]; len(in) != 0 {
		t.Errorf("Nightly itself reads %v", in)
	}
	if a, b := lineageRunID("not a uuid"), lineageRunID("not a uuid"); a != b || a == lineageRunID("another") || uuid.Validate(a) != nil {
		t.Errorf("%s and %s", a, b)
	}
}

func TestTheConfigurationOfLineageNamesEveryProblem(t *testing.T) {
	t.Parallel()
	if err := DefaultLineageConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := LineageConfig{URL: "https://user:secret@host", Every: time.Millisecond}.Validate()
	for _, part := range []string{"url:", "namespace:", "every: 1ms"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %s", err, part)
		}
	}
	reg := prometheus.NewRegistry()
	for range 2 { // two roles in one process
		NewLineage(DefaultLineageConfig(), nil, "", LineagePlaces{}, reg, slog.New(slog.DiscardHandler))
	}
}

func TestNightsThatNeverRanAreMissing(t *testing.T) {
	t.Parallel()
	want := []string{"2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04"}
	for what, c := range map[string]struct {
		ran  []NightRan
		want []string
	}{
		"a platform without a night misses none":     {nil, nil},
		"what is before the first night is not ours": {[]NightRan{{"2026-03-03", name.Done}}, []string{"2026-03-04"}},
		"a night that failed waits for somebody":     {[]NightRan{{"2026-02-28", name.Done}, {"2026-03-01", name.Failed}, {"2026-03-03", name.Partial}}, []string{"2026-03-02", "2026-03-04"}},
		"a night whose end nobody noted is taken up": {[]NightRan{{"2026-03-01", name.Running}, {"2026-03-02", name.Done}, {"2026-03-03", name.Done}, {"2026-03-04", name.Done}}, []string{"2026-03-01"}},
		"short nights are others":                    {[]NightRan{{"2026-02-28T10:00:00Z", name.Done}}, nil},
	} {
		if diff := cmp.Diff(c.want, MissingNights(want, c.ran)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}
