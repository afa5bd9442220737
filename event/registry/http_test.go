package registry

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

var update = flag.Bool("update", false, "write the golden files anew")

// exchange is a request and its answer.
type exchange struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	Status  int               `json:"status"`
	Answer  string            `json:"answer"`
}

// TestConfluentsPythonClientIsServed replays what Confluent's client sends for serialising, deserialising and every call about
// subjects, versions, configuration and modes; its own run succeeded with these answers.
func TestConfluentsPythonClientIsServed(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/confluent-kafka-python-2.16.0.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct{ Requests []exchange }
	if err := json.Unmarshal(raw, &recorded); err != nil {
		t.Fatal(err)
	}
	if len(recorded.Requests) < 50 {
		t.Fatalf("only %d requests recorded", len(recorded.Requests))
	}
	in := start(t, startKafka(t), Config{})
	for n, ex := range recorded.Requests {
		var headers []string
		for k, v := range ex.Headers {
			headers = append(headers, k, v)
		}
		status, answer := in.do(t, ex.Method, ex.Path, ex.Body, headers...)
		if status != ex.Status || answer != ex.Answer {
			t.Errorf("%d. %s %s %s\ngot  %d %s\nwant %d %s", n, ex.Method, ex.Path, ex.Body, status, answer, ex.Status, ex.Answer)
		}
	}
}

// TestAnswersAreConfluents goes in order through a registry's life and compares every answer with the golden file, which is
// checked by hand against Confluent's API reference.
func TestAnswersAreConfluents(t *testing.T) {
	t.Parallel()
	in := start(t, startKafka(t), Config{})
	body := func(schema string) string { return envelope(t, schema) }
	long := strings.Repeat("s", 256)
	steps := []exchange{
		{Method: "GET", Path: "/"},
		{Method: "GET", Path: "/schemas/types"},
		{Method: "GET", Path: "/subjects"},
		{Method: "GET", Path: "/config"},
		{Method: "GET", Path: "/mode"},
		{Method: "GET", Path: "/contexts"},
		{Method: "POST", Path: "/subjects/u-value/versions", Body: body(userV1)},
		{Method: "POST", Path: "/subjects/u-value/versions", Body: body(strings.ReplaceAll(userV1, ",", " ,\n"))},
		{Method: "POST", Path: "/subjects/u-value/versions?normalize=true", Body: body(userV2)},
		{Method: "POST", Path: "/subjects/u-value/versions", Body: body(userBroken)},
		{Method: "POST", Path: "/subjects/u-value", Body: body(userV1)},
		{Method: "POST", Path: "/subjects/u-value", Body: body(userBroken)},
		{Method: "POST", Path: "/subjects/none", Body: body(userV1)},
		{Method: "GET", Path: "/subjects"},
		{Method: "GET", Path: "/subjects/u-value/versions"},
		{Method: "GET", Path: "/subjects/u-value/versions/1"},
		{Method: "GET", Path: "/subjects/u-value/versions/latest"},
		{Method: "GET", Path: "/subjects/u-value/versions/-1/schema"},
		{Method: "GET", Path: "/subjects/u-value/versions/latest/referencedby"},
		{Method: "GET", Path: "/subjects/u-value/versions/3"},
		{Method: "GET", Path: "/subjects/u-value/versions/0"},
		{Method: "GET", Path: "/subjects/u-value/versions/one"},
		{Method: "GET", Path: "/subjects/u-value/versions/2147483648"},
		{Method: "GET", Path: "/subjects/none/versions"},
		{Method: "GET", Path: "/subjects/none/versions/1"},
		{Method: "GET", Path: "/subjects/:.:u-value/versions"},
		{Method: "GET", Path: "/subjects/:.other:u-value/versions"},
		{Method: "GET", Path: "/subjects/" + long + "/versions"},
		{Method: "GET", Path: "/subjects/a%00b/versions"},
		{Method: "GET", Path: "/subjects/a%ffb/versions"},
		{Method: "GET", Path: "/subjects/%20/versions"},
		{Method: "GET", Path: "/schemas/ids/1"},
		{Method: "GET", Path: "/schemas/ids/2?fetchMaxId=true"},
		{Method: "GET", Path: "/schemas/ids/1/schema"},
		{Method: "GET", Path: "/schemas/ids/1/subjects"},
		{Method: "GET", Path: "/schemas/ids/1/versions"},
		{Method: "GET", Path: "/schemas/ids/9"},
		{Method: "GET", Path: "/schemas/ids/9/schema"},
		{Method: "GET", Path: "/schemas/ids/9/versions"},
		{Method: "GET", Path: "/schemas/ids/nine"},
		{Method: "GET", Path: "/schemas?latestOnly=true"},
		{Method: "GET", Path: "/schemas?limit=x"},
		{Method: "POST", Path: "/compatibility/subjects/u-value/versions/latest", Body: body(userV3)},
		{Method: "POST", Path: "/compatibility/subjects/u-value/versions?verbose=true", Body: body(userBroken)},
		{Method: "POST", Path: "/compatibility/subjects/u-value/versions/7", Body: body(userV3)},
		{Method: "POST", Path: "/compatibility/subjects/u-value/versions/x", Body: body(userV3)},
		{Method: "POST", Path: "/compatibility/subjects/none/versions/latest", Body: body(userV3)},
		{Method: "POST", Path: "/compatibility/subjects/none/versions", Body: body(userV3)},
		{Method: "POST", Path: "/compatibility/subjects/none/versions/1", Body: body(userV3)},
		{Method: "POST", Path: "/compatibility/subjects/u-value/versions/1", Body: body(`{"type":"nope"}`)},
		{Method: "PUT", Path: "/config", Body: `{"compatibility":"full"}`},
		{Method: "PUT", Path: "/config/u-value", Body: `{"compatibility":"BACKWARD_TRANSITIVE"}`},
		{Method: "PUT", Path: "/config/u-value", Body: `{"compatibility":"SIDEWAYS"}`},
		{Method: "PUT", Path: "/config/u-value", Body: `{}`},
		{Method: "GET", Path: "/config/u-value"},
		{Method: "GET", Path: "/config/none"},
		{Method: "GET", Path: "/config/none?defaultToGlobal=true"},
		{Method: "DELETE", Path: "/config/u-value"},
		{Method: "DELETE", Path: "/config/u-value"},
		{Method: "DELETE", Path: "/config"},
		{Method: "DELETE", Path: "/config"},
		{Method: "PUT", Path: "/mode/u-value", Body: `{"mode":"READONLY"}`},
		{Method: "GET", Path: "/mode/u-value"},
		{Method: "POST", Path: "/subjects/u-value/versions", Body: body(userV3)},
		{Method: "DELETE", Path: "/subjects/u-value"},
		{Method: "DELETE", Path: "/subjects/u-value/versions/1"},
		{Method: "DELETE", Path: "/mode/u-value"},
		{Method: "DELETE", Path: "/mode/u-value"},
		{Method: "GET", Path: "/mode/u-value"},
		{Method: "PUT", Path: "/mode", Body: `{"mode":"IMPORT"}`},
		{Method: "PUT", Path: "/mode", Body: `{"mode":"SLEEP"}`},
		{Method: "POST", Path: "/subjects/r-value/versions", Body: `{"schema":"{\"type\":\"array\",\"items\":\"shop.User\"}","references":[{"name":"shop.User","subject":"u-value","version":1}]}`},
		{Method: "POST", Path: "/subjects/r-value/versions", Body: `{"schema":"{\"type\":\"array\",\"items\":\"shop.User\"}","references":[{"name":"shop.User","subject":"u-value","version":9}]}`},
		{Method: "POST", Path: "/subjects/r-value/versions", Body: body(`{"type":"array","items":"shop.User"}`)},
		{Method: "GET", Path: "/subjects/r-value/versions/1"},
		{Method: "GET", Path: "/subjects/u-value/versions/1/referencedby"},
		{Method: "DELETE", Path: "/subjects/u-value/versions/1"},
		{Method: "DELETE", Path: "/subjects/u-value/versions/2?permanent=true"},
		{Method: "DELETE", Path: "/subjects/u-value/versions/latest"},
		{Method: "DELETE", Path: "/subjects/u-value/versions/2"},
		{Method: "POST", Path: "/subjects/u-value", Body: body(userV2)},
		{Method: "POST", Path: "/subjects/u-value?deleted=true", Body: body(userV2)},
		{Method: "DELETE", Path: "/subjects/u-value/versions/2?permanent=true"},
		{Method: "DELETE", Path: "/subjects/r-value?permanent=true"},
		{Method: "DELETE", Path: "/subjects/r-value"},
		{Method: "DELETE", Path: "/subjects/r-value"},
		{Method: "DELETE", Path: "/subjects/r-value?permanent=true"},
		{Method: "DELETE", Path: "/subjects/r-value?permanent=true"},
		{Method: "DELETE", Path: "/subjects/u-value"},
		{Method: "GET", Path: "/subjects?deleted=true"},
		{Method: "POST", Path: "/subjects/u-value/versions", Body: body(userV1)},
		{Method: "GET", Path: "/subjects/u-value/versions?deleted=true"},
		{Method: "POST", Path: "/subjects/x/versions", Body: `{"schema":"{\"type\":\"object\"}","schemaType":"JSON"}`},
		{Method: "POST", Path: "/subjects/x/versions", Body: `{"schema":"syntax = \"proto3\";","schemaType":"PROTOBUF"}`},
		{Method: "POST", Path: "/subjects/x/versions", Body: `{"schema":"\"int\"","ruleSet":{"domainRules":[]}}`},
		{Method: "POST", Path: "/subjects/x/versions", Body: `{"schema":"\"int\"","version":2}`},
		{Method: "POST", Path: "/subjects/x/versions", Body: `{"schema":""}`},
		{Method: "POST", Path: "/subjects/x/versions", Body: `{"schema":"int"}`},
		{Method: "POST", Path: "/subjects/x/versions", Body: `{"schema":{"type":"int"}}`},
		{Method: "POST", Path: "/subjects/x/versions", Body: `{"schema":"{\"type\":\"int\",\"type\":\"int\"}"}`},
		{Method: "POST", Path: "/subjects/x/versions", Body: `null`},
		{Method: "POST", Path: "/subjects/x/versions", Body: `{`},
		{Method: "POST", Path: "/subjects/x/versions"},
		{Method: "POST", Path: "/subjects/__GLOBAL/versions", Body: body(`"int"`)},
		{Method: "POST", Path: "/subjects//versions", Body: body(`"int"`)},
		{Method: "GET", Path: "/subjects/x/versions/1/schema/more"},
		{Method: "PATCH", Path: "/subjects"},
		{Method: "GET", Path: "/nowhere"},
		{Method: "GET", Path: "/contexts/.other/subjects"},
		{Method: "GET", Path: "/contexts/./subjects"},
		{Method: "GET", Path: "/subjects", Headers: map[string]string{"Accept": "text/html"}},
		{Method: "GET", Path: "/subjects", Headers: map[string]string{"Accept": "text/html, */*;q=0.1"}},
		{Method: "POST", Path: "/subjects/x/versions", Body: body(`"int"`), Headers: map[string]string{"Content-Type": "text/plain"}},
		{Method: "POST", Path: "/subjects/x/versions", Body: body(`"int"`), Headers: map[string]string{"Content-Encoding": "gzip"}},
		{Method: "POST", Path: "/subjects/x/versions", Body: body(`"int"`), Headers: map[string]string{"Content-Type": "application/json; charset=utf-8"}},
	}
	var got strings.Builder
	for _, s := range steps {
		var headers []string
		for k, v := range s.Headers {
			headers = append(headers, k, v)
		}
		status, answer := in.do(t, s.Method, s.Path, s.Body, headers...)
		if status >= 500 {
			t.Errorf("%s %s %s: %d %s", s.Method, s.Path, s.Body, status, answer)
		}
		_, _ = fmt.Fprintf(&got, "%s %s", s.Method, s.Path) // a Builder does not fail
		if s.Headers != nil {
			_, _ = fmt.Fprintf(&got, " %v", s.Headers)
		}
		if s.Body != "" {
			_, _ = fmt.Fprintf(&got, "\n  %s", s.Body)
		}
		_, _ = fmt.Fprintf(&got, "\n%d %s\n\n", status, answer)
	}
	const golden = "testdata/answers.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("answers (-want +got):\n%s", d)
	}
}

func TestTheAnswerHasTheContentTypeTheClientTakes(t *testing.T) {
	t.Parallel()
	in := start(t, startKafka(t), Config{})
	for accepted, want := range map[string]string{
		"":                                    "application/vnd.schemaregistry.v1+json",
		"*/*":                                 "application/vnd.schemaregistry.v1+json",
		"application/*":                       "application/vnd.schemaregistry.v1+json",
		"application/json":                    "application/json",
		"application/vnd.schemaregistry+json": "application/vnd.schemaregistry+json",
		"text/html, application/json;q=0.5":   "application/json",
		"application/json;q=0, */*":           "application/vnd.schemaregistry.v1+json",
	} {
		rec := httptest.NewRecorder()
		req := httptest.NewRequestWithContext(t.Context(), "GET", "/subjects", nil)
		if accepted != "" {
			req.Header.Set("Accept", accepted)
		}
		in.ServeHTTP(rec, req)
		if got := rec.Header().Get("Content-Type"); rec.Code != http.StatusOK || got != want {
			t.Errorf("Accept %q: %d %s, want %s", accepted, rec.Code, got, want)
		}
	}
}

func TestWhatIsTooMuchIsRefused(t *testing.T) {
	t.Parallel()
	in := start(t, startKafka(t), Config{MaxSubjects: 2, MaxVersions: 2, Compatibility: "NONE"})
	check := func(name, method, path, body string, status, code int) {
		t.Helper()
		gotStatus, answer := in.do(t, method, path, body)
		if gotStatus != status || !strings.Contains(answer, fmt.Sprintf(`"error_code":%d`, code)) {
			t.Errorf("%s: %d %.200s, want %d and code %d", name, gotStatus, answer, status, code)
		}
	}
	// Escaped in the record, this schema outgrows a Kafka record although the request is small enough.
	var symbols []string
	for n := range 50_000 {
		symbols = append(symbols, fmt.Sprintf("SYMBOL%d", n))
	}
	raw, err := marshal(symbols)
	if err != nil {
		t.Fatal(err)
	}
	check("a schema that fits a request but no record", "POST", "/subjects/a/versions", envelope(t, `{"type":"enum","name":"E","doc":"`+strings.Repeat("d", 250_000)+`","symbols":`+string(raw)+`}`), 422, 42209)
	check("a body over 1 MiB", "POST", "/subjects/a/versions", envelope(t, `"`+strings.Repeat("x", 1<<20)+`"`), 413, 413)
	check("deep nesting", "POST", "/subjects/a/versions", envelope(t, strings.Repeat(`{"type":"array","items":`, 20_000)+`"int"`+strings.Repeat("}", 20_000)), 422, 42201)
	check("deep JSON", "POST", "/subjects/a/versions", strings.Repeat("[", 500_000), 400, 400)
	in.mustDo(t, "POST", "/subjects/a/versions", envelope(t, `"int"`))
	in.mustDo(t, "POST", "/subjects/a/versions", envelope(t, `"long"`))
	check("a third version", "POST", "/subjects/a/versions", envelope(t, `"bytes"`), 422, 42205)
	in.mustDo(t, "POST", "/subjects/b/versions", envelope(t, `"int"`))
	check("a third subject", "POST", "/subjects/c/versions", envelope(t, `"int"`), 422, 42205)
	for n := range 3 {
		if status, _ := in.do(t, "PUT", fmt.Sprintf("/config/x%d", n), `{"compatibility":"FULL"}`); n == 2 {
			in.mustDo(t, "PUT", "/config/a", `{"compatibility":"FULL"}`)
		} else if status != http.StatusOK {
			t.Errorf("setting %d: %d", n, status)
		}
	}
	check("settings of ever more subjects", "PUT", "/config/x9", `{"compatibility":"FULL"}`, 422, 42205)
	refs := make([]Reference, maxReferences+1)
	body, err := marshal(map[string]any{"schema": `"int"`, "references": refs})
	if err != nil {
		t.Fatal(err)
	}
	check("many references", "POST", "/subjects/a/versions", string(body), 422, 42201)
}

func TestRequestsAreCounted(t *testing.T) {
	t.Parallel()
	in := start(t, startKafka(t), Config{})
	in.mustDo(t, "POST", "/subjects/a/versions", envelope(t, `"int"`))
	in.do(t, "GET", "/subjects/a/versions/7", "")
	in.do(t, "BREW", "/pot", "")
	for _, want := range []struct {
		name   string
		labels []string
		value  float64
	}{
		{"millrace_registry_requests_total", []string{"/subjects/{}/versions", "POST", "200"}, 1},
		{"millrace_registry_requests_total", []string{"/subjects/{}/versions/{}", "GET", "404"}, 1},
		{"millrace_registry_requests_total", []string{"other", "404"}, 1},
		{"millrace_registry_schemas", nil, 1},
		{"millrace_registry_subjects", nil, 1},
		{"millrace_registry_conflicts_total", nil, 0},
	} {
		if got := in.metric(t, want.name, want.labels...); got != want.value {
			t.Errorf("%s%v is %v, want %v", want.name, want.labels, got, want.value)
		}
	}
}

func TestBeforeTheTopicIsReadClientsAreToldToTryAgain(t *testing.T) {
	t.Parallel()
	r, err := New(Config{}, []kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/subjects", "/schemas/ids/1"} {
		rec := httptest.NewRecorder()
		r.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
			t.Errorf("GET %s: %d %s", path, rec.Code, rec.Body)
		}
	}
}

func TestWithoutKafkaReadsAreServedAndWritesFailInTime(t *testing.T) {
	t.Parallel()
	c := startKafka(t)
	in := start(t, c, Config{WriteTimeout: 200 * time.Millisecond})
	in.mustDo(t, "POST", "/subjects/a/versions", envelope(t, userV1))
	c.Close()
	in.mustDo(t, "GET", "/schemas/ids/1", "")
	if got := in.mustDo(t, "POST", "/subjects/a/versions", envelope(t, userV1)); got != `{"id":1}` {
		t.Errorf("a schema that is there: %s", got)
	}
	status, answer := in.do(t, "POST", "/subjects/a/versions", envelope(t, userV2))
	if status != http.StatusInternalServerError || !strings.Contains(answer, `"error_code":50002`) {
		t.Errorf("a new schema: %d %s", status, answer)
	}
}

func TestServeAnswersUntilItIsEnded(t *testing.T) {
	t.Parallel()
	c := startKafka(t)
	r, err := New(Config{TopicConfigs: kfakeConfigs()}, []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, ln) }()
	in := &instance{Registry: r, url: "http://" + ln.Addr().String()}
	eventually(t, "GET / answers 200", func() bool { status, _ := in.do(t, "GET", "/", ""); return status == http.StatusOK })
	in.mustDo(t, "POST", "/subjects/a/versions", envelope(t, userV1))
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve ended with %v", err)
	}
	if r.Ready() {
		t.Error("an ended registry says it is ready")
	}
}

// FuzzRequests: no method, path, query or body makes the registry fail or panic.
func FuzzRequests(f *testing.F) {
	for _, s := range []struct{ method, path, body string }{
		{"POST", "/subjects/s/versions", `{"schema":"{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"a\",\"type\":[\"null\",\"R\"],\"default\":null}]}"}`},
		{"POST", "/subjects/s/versions?normalize=true", `{"schema":"{\"type\":\"array\",\"items\":\"x.E\"}","references":[{"name":"x.E","subject":"e","version":-1}],"id":1,"version":-7}`},
		{"POST", "/subjects/s", `{"schema":"\"int\"","schemaType":"avro"}`},
		{"POST", "/compatibility/subjects/s/versions/latest?verbose=true", `{"schema":"\"int\""}`},
		{"GET", "/schemas?offset=-5&limit=2&subjectPrefix=:*:s", ""},
		{"DELETE", "/subjects/s/versions/latest?permanent=TRUE", ""},
		{"PUT", "/config/s", `{"compatibility":"NONE","alias":null}`},
		{"PUT", "/mode?force=true", `{"mode":"import"}`},
		{"GET", "/contexts/:.:/subjects/%2e%2e/versions/1", ""},
	} {
		f.Add(s.method, s.path, s.body)
	}
	in := start(f, startKafka(f), Config{MaxSubjects: 50, MaxVersions: 10})
	f.Fuzz(func(t *testing.T, method, path, body string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://registry/", strings.NewReader(body))
		if err != nil {
			return // net/http would not pass it on
		}
		if req.URL, err = req.URL.Parse(path); err != nil {
			return
		}
		rec := httptest.NewRecorder()
		in.ServeHTTP(rec, req)
		if rec.Code >= 500 {
			t.Errorf("%s %s %s: %d %s", method, path, body, rec.Code, rec.Body)
		}
		if !strings.HasSuffix(path, "/schema") && !json.Valid(rec.Body.Bytes()) {
			t.Errorf("%s %s %s: answer %s is not JSON", method, path, body, rec.Body)
		}
	})
}
