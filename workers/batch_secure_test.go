package workers

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	commonpb "go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/client"

	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workflows/name"
)

// lineageReceiver is an OpenLineage receiver that is away at first.
type lineageReceiver struct {
	mu     sync.Mutex
	away   int
	events []string
	jobs   []string
}

func (r *lineageReceiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away > 0 {
		r.away--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var e struct {
		EventType string
		Job       struct{ Name string }
	}
	if err == nil {
		err = json.Unmarshal(body, &e)
	}
	if err != nil || req.URL.Path != "/api/v1/lineage" || req.Header.Get("Authorization") != "Bearer k-1" || req.Header.Get("Content-Type") != "application/json" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.events, r.jobs = append(r.events, e.EventType), append(r.jobs, e.Job.Name)
	w.WriteHeader(http.StatusCreated)
}

func (r *lineageReceiver) seen() (events, jobs []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events), slices.Clone(r.jobs)
}

// configure adds lines to sections of the role's configuration.
func (b *batchTest) configure(t *testing.T, old, text string) {
	t.Helper()
	have, err := os.ReadFile(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(have), old) {
		t.Fatalf("the configuration has no %s", old)
	}
	if err := os.WriteFile(b.cfg, []byte(strings.Replace(string(have), old, text, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What Temporal stores is encrypted, the UI's plain JSON works all the same, versions become current, and lineage arrives at a receiver that was away.
func TestTheBatchRoleKeepsWhatItIsTold(t *testing.T) {
	t.Parallel()
	b := newBatchTest(t)
	r := &lineageReceiver{away: 2}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	keys := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		if err := os.WriteFile(keys, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func(id, c string) string {
		return id + ":" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(c, 32))) + "\n"
	}
	write(key("first", "a"))
	b.configure(t, "namespace: default}", "namespace: default, encryption_key_file: "+keys+", deployment: {name: millrace, build_id: one}}\nlineage: {url: \""+srv.URL+"\", api_key: k-1, every: 200ms}")
	role := b.start(t)
	eventuallySo(t, "the role is ready", func() bool { return b.ready(t) == "" })
	eventuallySo(t, "version one is current", func() bool { return b.current(t) == "one" })

	const input = `{"day": "2026-10-20", "steps": ["maintain"], "gaps": -1}` // by a client without keys, as the UI is
	s, _, err := b.night(t, input)
	if err == nil || !strings.Contains(err.Error(), "binary/encrypted") {
		t.Errorf("a client without keys reads the result: %v", err)
	}
	b.shows(t, s.ID, s.RunID, "first")

	role.stop()
	write(key("second", "b") + key("first", "a"))
	b.configure(t, "build_id: one", "build_id: two")
	b.start(t)
	eventuallySo(t, "version two is current", func() bool { return b.current(t) == "two" })
	cfg, err := Load(b.cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	own, err := TemporalClient(t.Context(), cfg.Temporal, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Close)
	var before name.NightlyResult
	if err := own.GetWorkflow(t.Context(), s.ID, s.RunID).Get(t.Context(), &before); err != nil || before.Outcome != name.Partial {
		t.Errorf("a result of the first key: %+v, %v", before, err)
	}
	again, err := own.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "nightly/2026-10-21", TaskQueue: name.Queue}, name.Nightly, json.RawMessage(strings.ReplaceAll(input, "-20", "-21")))
	if err != nil {
		t.Fatal(err)
	}
	var after name.NightlyResult
	if err := again.Get(t.Context(), &after); err != nil || after.Outcome != name.Partial {
		t.Errorf("after the change of keys: %+v, %v", after, err)
	}
	b.shows(t, again.GetID(), again.GetRunID(), "second")

	eventuallySo(t, "the receiver has all events", func() bool {
		events, jobs := r.seen()
		starts, ends := 0, 0
		for i, e := range events {
			if jobs[i] == name.Nightly || strings.HasPrefix(jobs[i], name.MaintainTable+".") {
				starts += map[string]int{"START": 1}[e]
				ends += map[string]int{"COMPLETE": 1}[e]
			}
		}
		return starts == ends && starts == 2*(1+len(lakehouse.StreamTables()))
	})
	conn, err := olap.Open(t.Context(), cfg.ClickHouse)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // only reads
	eventuallySo(t, "the table says that all are sent", func() bool {
		var unsent uint64
		if err := conn.QueryRow(t.Context(), "SELECT count() FROM (SELECT argMax(sent, version) AS sent FROM lineage_events GROUP BY job, run_id, event_type) WHERE sent = 0").Scan(&unsent); err != nil {
			t.Fatal(err)
		}
		return unsent == 0
	})
	http.DefaultClient.CloseIdleConnections()
}

// current is the build id that the deployment's tasks go to.
func (b *batchTest) current(t *testing.T) string {
	t.Helper()
	d, err := b.client.WorkerDeploymentClient().GetHandle("millrace").Describe(t.Context(), client.WorkerDeploymentDescribeOptions{})
	if err != nil || d.Info.RoutingConfig.CurrentVersion == nil {
		return ""
	}
	return d.Info.RoutingConfig.CurrentVersion.BuildID
}

// shows checks what a history holds: results and activities' inputs encrypted with a key, nothing of them readable.
func (b *batchTest) shows(t *testing.T, id, run, key string) {
	t.Helper()
	n := 0
	for it := b.client.GetWorkflowHistory(t.Context(), id, run, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); {
		e, err := it.Next()
		if err != nil {
			t.Fatal(err)
		}
		var payloads []*commonpb.Payload
		payloads = append(payloads, e.GetActivityTaskScheduledEventAttributes().GetInput().GetPayloads()...)
		payloads = append(payloads, e.GetActivityTaskCompletedEventAttributes().GetResult().GetPayloads()...)
		payloads = append(payloads, e.GetWorkflowExecutionCompletedEventAttributes().GetResult().GetPayloads()...)
		for _, p := range payloads {
			if string(p.GetMetadata()["encoding"]) != encodingEncrypted || string(p.GetMetadata()[keyIDKey]) != key {
				text, _ := temporalproto.CustomJSONMarshalOptions{}.Marshal(p) // for the message
				t.Fatalf("event %d of %s holds %s", e.GetEventId(), id, text)
			}
			n++
		}
	}
	if n < 10 {
		t.Errorf("%s has %d payloads", id, n)
	}
}
