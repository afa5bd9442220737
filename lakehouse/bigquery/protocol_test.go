package bigquery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	bq "cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"

	"millrace/internal/fault"
)

// exchange is one request as BigQuery's REST interface is asked, and its answer. testdata/protocol has what the emulator does not: each file is one conversation, written
// after BigQuery's reference of methods and errors (cloud.google.com/bigquery/docs/reference/rest/v2 and …/docs/error-messages).
type exchange struct {
	Method string          `json:"method"`
	Path   string          `json:"path"`  // ending of the request's path
	Has    string          `json:"has"`   // in the request's body
	Times  int             `json:"times"` // 0: once
	Status int             `json:"status"`
	Answer json.RawMessage `json:"answer"`
}

// replay is a server that holds a conversation: requests that are not in it, or not in their order, fail the test.
type replay struct {
	t    *testing.T
	mu   sync.Mutex
	left []exchange
}

func newReplay(t *testing.T, name string, change ...func(*Config)) *Store {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "protocol", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	r := &replay{t: t}
	if err := json.Unmarshal(text, &r.left); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	cfg := DefaultConfig()
	cfg.Project, cfg.Endpoint, cfg.MaxBytesBilled = "shop", server.URL, 20<<20
	for _, f := range change {
		f(&cfg)
	}
	s, err := Open(t.Context(), cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.wait = time.Millisecond
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, e := range r.left {
			t.Errorf("never asked: %s %s", e.Method, e.Path)
		}
	})
	return s
}

func (r *replay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var body strings.Builder
	if req.Body != nil {
		buf := make([]byte, 1<<20)
		n, _ := req.Body.Read(buf) // the body of a small request comes in one piece
		body.Write(buf[:n])
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.left) == 0 || r.left[0].Method != req.Method || !strings.HasSuffix(req.URL.Path, r.left[0].Path) || !strings.Contains(body.String(), r.left[0].Has) {
		next := exchange{Method: "nothing"}
		if len(r.left) > 0 {
			next = r.left[0]
		}
		r.t.Errorf("%s %s %.300s, but %s %s (with %q) comes next", req.Method, req.URL.Path, body.String(), next.Method, next.Path, next.Has)
		http.Error(w, `{"error":{"code":501,"message":"not in the conversation"}}`, http.StatusNotImplemented)
		return
	}
	e := &r.left[0]
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(e.Status)
	_, _ = w.Write(e.Answer) // the client sees what is missing
	if e.Times--; e.Times <= 0 {
		r.left = r.left[1:]
	}
}

func (s *Store) insertOne(ctx context.Context) (outcome, error) {
	return s.once(ctx, "millrace-k", func(ctx context.Context, id string) (*bq.Job, error) { return s.submitQuery(ctx, id, "SELECT 1") })
}

func TestAJobIsDoneOnceWhateverTheAnswers(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		id    string // of the job that counts; "" it fails
		fault fault.ID
		again bool // trying again later may help
	}{
		"done-before":             {id: "millrace-k-a0"},
		"conflict-is-ours":        {id: "millrace-k-a0"},
		"lost-answer":             {id: "millrace-k-a0"},
		"backend-error-503":       {id: "millrace-k-a0"},
		"failed-before":           {id: "millrace-k-a1"},
		"backend-error-of-a-job":  {id: "millrace-k-a1"},
		"concurrent-transaction":  {id: "millrace-k-a1"},
		"rate-limit-403":          {id: "millrace-k-a0"},
		"quota-exceeded-403":      {fault: quotaID, again: true},
		"access-denied-403":       {fault: refusedID},
		"invalid-query-of-a-job":  {fault: jobID, again: true},
		"bytes-billed-limit":      {fault: costID},
		"forgotten-while-waiting": {id: "millrace-k-a1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newReplay(t, name)
			out, err := s.insertOne(t.Context())
			if want.id != "" {
				if err != nil || out.id != want.id {
					t.Fatalf("job %q: %v", out.id, err)
				}
				return
			}
			err = classify(err)
			if id, _ := fault.IDOf(err); id != want.fault || Retryable(err) != want.again {
				t.Fatalf("fault %q, again %v: %v", id, Retryable(err), err)
			}
		})
	}
}

func TestAServerThatIsAwayIsReportedAsSuch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Project, cfg.Endpoint = "shop", "http://127.0.0.1:1" // nobody listens there
		s, err := Open(t.Context(), cfg, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		err = classify(s.ensureDataset(t.Context(), "millrace"))
		if id, _ := fault.IDOf(err); id != unreachableID || !Retryable(err) {
			t.Errorf("got %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatCostsMoreThanItMayIsNotRun(t *testing.T) {
	t.Parallel()
	s := newReplay(t, "dry-run-of-30-mb")
	_, err := s.rows(t.Context(), "SELECT * FROM t")
	if id, _ := fault.IDOf(err); id != costID || Retryable(err) || !strings.Contains(err.Error(), "30000000") {
		t.Fatalf("got %v", err)
	}
}

// What every job is sent with: its own id, the limit of what it may bill; a load job what makes BigQuery read our files as the lake means them.
func TestJobsAreSentWithTheirLimits(t *testing.T) {
	t.Parallel()
	var sent []map[string]any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodGet && len(sent) == 0 {
			w.WriteHeader(http.StatusNotFound)
			_, _ = fmt.Fprint(w, `{"error":{"code":404,"message":"Not found: Job","errors":[{"reason":"notFound"}]}}`) // the client sees what is missing
			return
		}
		if r.Method == http.MethodPost {
			var body map[string]any
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				t.Error(err)
			}
			sent = append(sent, body)
		}
		_, _ = fmt.Fprint(w, `{"jobReference":{"projectId":"shop","jobId":"x","location":"EU"},"configuration":{"load":{}},"status":{"state":"DONE"},"statistics":{}}`) // as above
	}))
	t.Cleanup(server.Close)
	cfg := DefaultConfig()
	cfg.Project, cfg.Endpoint, cfg.Location, cfg.MaxBytesBilled = "shop", server.URL, "EU", 12345678
	s, err := Open(t.Context(), cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // nothing is under way
	g := &stage{s: s, table: s.work("range_t"), name: "millrace-t", epoch: "e", note: func(string, int64) {}}
	if err := g.loadURIs(t.Context(), []string{"gs://lake/a.parquet", "gs://lake/b.parquet"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.submitQuery(t.Context(), "millrace-q", "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	type object = map[string]any
	load := sent[0]["configuration"].(object)["load"].(object)
	delete(load, "createDisposition")
	if diff := cmp.Diff(object{
		"decimalTargetTypes": []any{"NUMERIC", "BIGNUMERIC"}, "destinationTable": object{"projectId": "shop", "datasetId": "millrace_load", "tableId": "range_t"},
		"parquetOptions": object{"enableListInference": true}, "sourceFormat": "PARQUET", "sourceUris": []any{"gs://lake/a.parquet", "gs://lake/b.parquet"}, "writeDisposition": "WRITE_APPEND",
	}, load); diff != "" {
		t.Errorf("load job:\n%s", diff)
	}
	if ref := sent[0]["jobReference"].(object); ref["location"] != "EU" || !strings.HasPrefix(ref["jobId"].(string), "millrace-t-e-") || !strings.HasSuffix(ref["jobId"].(string), "-a0") {
		t.Errorf("load job is %v", ref)
	}
	if query := sent[1]["configuration"].(object)["query"].(object); query["maximumBytesBilled"] != "12345678" || query["useLegacySql"] != false {
		t.Errorf("query job is %v", query)
	}
}

func TestTheLakesTablesAreDefinedForBigQuery(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]External{
		"external": {Table: "events_page", Dataset: "millrace", Metadata: "gs://acme-lake/millrace/events_page/metadata/00042-ab.metadata.json"},
		"biglake":  {Table: "events_page", Dataset: "millrace", Connection: "shop.eu.lake", Metadata: "gs://acme-lake/millrace/events_page/metadata/00042-ab.metadata.json"},
	} {
		have, err := e.ddl("shop")
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join("testdata", name+".sql"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), have); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	for what, e := range map[string]External{
		"a table on disk":    {Table: "t", Dataset: "d", Metadata: "file:///lake/x.metadata.json"},
		"a name that breaks": {Table: "t`; DROP", Dataset: "d", Metadata: "gs://b/x.metadata.json"},
	} {
		if text, err := e.ddl("shop"); err == nil {
			t.Errorf("%s: %s", what, text)
		}
	}
}

func TestAConfigurationReportsEveryProblem(t *testing.T) {
	t.Parallel()
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("without a project there is nothing to be wrong: %v", err)
	}
	good := DefaultConfig()
	good.Project = "acme-shop"
	if err := good.Validate(); err != nil {
		t.Errorf("the defaults with a project: %v", err)
	}
	bad := Config{
		Project: "Acme!", Dataset: "a-b", WorkDataset: "c-d", Endpoint: "localhost:9050", Credentials: "key.json", Bucket: "s3://x", MaxBytesBilled: 1, Every: time.Second,
		MinInterval: -1, PartBytes: 1, MaxFiles: -1, JobTimeout: 0,
	}
	err := bad.Validate()
	for _, key := range []string{"project", "dataset", "work_dataset", "endpoint", "credentials", "bucket", "max_bytes_billed", "every", "min_interval", "part_bytes", "max_files", "job_timeout"} {
		if err == nil || !strings.Contains(err.Error(), key+":") {
			t.Errorf("%s is not reported: %v", key, err)
		}
	}
	if _, err := Open(t.Context(), Config{}, nil, nil); err == nil {
		t.Error("opened without a project")
	}
	secret := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(secret, []byte(`{"private_key": "hush"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	good.Credentials = secret
	if _, err := Open(t.Context(), good, nil, nil); err == nil || strings.Contains(err.Error(), "hush") || errors.Is(err, os.ErrNotExist) {
		t.Errorf("credentials that are none: %v", err)
	}
}
