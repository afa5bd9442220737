package workers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	enums "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"millrace/activities"
	"millrace/event"
	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/internal/failpoint"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workflows"
	"millrace/workflows/name"
)

var update = flag.Bool("update", false, "write the histories that were made here to workflows/testdata")

// batchEnv makes this test binary the batch role with the configuration in the named file.
const batchEnv = "TEST_BATCH_ROLE"

func TestMain(m *testing.M) {
	embedded.MaybeChild()
	if path := os.Getenv(batchEnv); path != "" {
		os.Exit(batchMain(path))
	}
	os.Exit(m.Run())
}

func batchMain(path string) int {
	ctx, cancel := embedded.WithParent(context.Background())
	defer cancel()
	cfg, err := Load(path, nil)
	if err == nil {
		err = Run(ctx, cfg, []string{"batch"}, slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// batchTest is servers, a lake and a configuration of the batch role.
type batchTest struct {
	servers *embeddedtest.Servers
	cfg     string // file
	admin   string
	cat     *lakehouse.Catalog
	client  client.Client
	rows    map[string]int
}

func newBatchTest(t *testing.T, more ...string) *batchTest {
	t.Helper()
	if built, err := embedded.TemporalBuilt(); err != nil || !built {
		t.Fatalf("the Temporal child is not in the cache (%v): `make install` builds it", err)
	}
	dir := t.TempDir()
	s, err := embeddedtest.Start(t.Context(), filepath.Join(dir, "servers"), embedded.BrokerKfake, append([]string{embedded.ClickHouseChild, embedded.TemporalChild}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &batchTest{servers: s, admin: l.Addr().String(), rows: map[string]int{}, cfg: filepath.Join(dir, "batch.yaml")}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	lake := lakehouse.DefaultConfig()
	lake.CatalogURI, lake.Warehouse = "sqlite:///"+filepath.Join(dir, "catalog.db"), "file://"+filepath.Join(dir, "warehouse")
	if b.cat, err = lakehouse.Open(t.Context(), lake); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.cat.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := lakehouse.EnsureTables(t.Context(), b.cat); err != nil {
		t.Fatal(err)
	}
	ch, e := s.Database(t), s.Endpoints()
	text := fmt.Sprintf(`
data: %s
admin: {listen: %q}
clickhouse: {addr: [%q], user: %q, password: %q, database: %q}
iceberg: {catalog_uri: %q, warehouse: %q}
temporal: {address: %q, namespace: default}
batch: {maintain_every: 0s, nightly_every: 0s, heavy_slots: 1}
`, dir, b.admin, ch.Native, ch.User, ch.Password, ch.Database, lake.CatalogURI, lake.Warehouse, e.Temporal.Address)
	if err := os.WriteFile(b.cfg, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if b.client, err = client.Dial(client.Options{HostPort: e.Temporal.Address, Logger: tlog.NewStructuredLogger(slog.New(slog.DiscardHandler))}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.client.Close)
	// What the Iceberg sink's process does: commits wait a minute for it before they are made directly.
	maintain := activities.NewMaintain(b.cat, filepath.Join(dir, "batch"), 1<<30, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	between := func(ctx context.Context, _ string, f func(context.Context) error) error { return f(ctx) }
	for _, table := range lakehouse.StreamTables() {
		w := worker.New(b.client, name.CommitQueue(table), worker.Options{DisableWorkflowWorker: true})
		maintain.Lane(between).RegisterLane(w)
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Stop)
	}
	return b
}

// fill appends files of ten rows to a table.
func (b *batchTest) fill(t *testing.T, category event.Category, files int) {
	t.Helper()
	table := category.Table()
	for range files {
		w, err := b.cat.NewWriter(t.Context(), table)
		if err != nil {
			t.Fatal(err)
		}
		lo := b.rows[table]
		for i := lo; i < lo+10; i++ {
			e := &event.Event{
				ID: fillID(i), Tenant: "default", Name: event.NamePageView, VisitorID: fmt.Sprintf("v-%d", i%7), Source: "web", Properties: "{}", SchemaVersion: 1,
				OccurredAt: 1_772_323_200_000_000 + int64(i), ReceivedAt: 1_772_323_201_000_000 + int64(i),
			}
			e.IngestedAt, e.RawTopic, e.RawOffset = 1_772_323_202_000_000+int64(i), category.RawTopic(), int64(i)
			e.RowHash = e.ComputeRowHash()
			if err := w.WriteEvent(t.Context(), e, lakehouse.Provenance{Topic: category.EventsTopic(), Offset: int64(i)}); err != nil {
				t.Fatal(err)
			}
		}
		made, err := w.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.rows[table] = lo + 10
		if _, err := b.cat.Append(t.Context(), table, made, lakehouse.Vector{"topic": {0: int64(lo)}}, lakehouse.Vector{"topic": {0: int64(lo + 10)}}); err != nil {
			t.Fatal(err)
		}
	}
}

// fillID is the id of a row that fill makes.
func fillID(i int) string { return fmt.Sprintf("e-%06d", i) }

func (b *batchTest) head(t *testing.T, table string) (lakehouse.Head, lakehouse.Totals) {
	t.Helper()
	h, err := b.cat.Head(t.Context(), table)
	if err != nil {
		t.Fatal(err)
	}
	totals, err := b.cat.Totals(t.Context(), table)
	if err != nil {
		t.Fatal(err)
	}
	return h, totals
}

// role is a running batch role.
type role struct {
	cmd   *exec.Cmd
	stdin io.Closer
	said  bytes.Buffer
	ended chan struct{}
}

func (b *batchTest) start(t *testing.T, env ...string) *role {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &role{cmd: exec.Command(self), ended: make(chan struct{})}
	r.cmd.Env = append(append(os.Environ(), batchEnv+"="+b.cfg, "MILLRACE_SUPERVISED=1"), env...)
	r.cmd.Stderr = &r.said
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(r.ended); _ = r.cmd.Wait() }() // how it ended is seen by what it did
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("the batch role said:\n%s", r.said.String())
		}
	})
	return r
}

// stop asks the role to end, and waits.
func (r *role) stop() {
	_ = r.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = r.stdin.Close()                       // its parent is gone, as it sees it
	<-r.ended
}

// ready gives the role's readiness: "" when it is ready.
func (b *batchTest) ready(t *testing.T) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.admin+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }() // read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	if resp.StatusCode == http.StatusOK {
		return ""
	}
	return string(text)
}

func eventuallySo(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("timed out waiting until %s", what)
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-tick.C:
		}
	}
}

func (b *batchTest) run(t *testing.T, input string) (client.WorkflowRun, activities.Started) {
	t.Helper()
	run, s, err := activities.Start(t.Context(), b.client, activities.StartRequest{Type: name.MaintainTable, Input: json.RawMessage(input), Trigger: name.Manual})
	if err != nil {
		t.Fatal(err)
	}
	return run, s
}

func (b *batchTest) result(t *testing.T, run client.WorkflowRun) name.MaintainResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var r name.MaintainResult
	if err := run.Get(ctx, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// keep writes the history of a run for the replay tests.
func (b *batchTest) keep(t *testing.T, file, id, run string) *historypb.History {
	t.Helper()
	h := &historypb.History{}
	for it := b.client.GetWorkflowHistory(t.Context(), id, run, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); {
		e, err := it.Next()
		if err != nil {
			t.Fatal(err)
		}
		h.Events = append(h.Events, e)
	}
	if !*update {
		return h
	}
	text, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`"identity": "[^"]*"`).ReplaceAll(text, []byte(`"identity": "worker"`)) // names this machine
	if err := os.WriteFile(filepath.Join("../workflows/testdata", file+".json"), append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	return h
}

// One test, because the servers take seconds to start.
func TestBatchMaintainsTablesOnARealTemporal(t *testing.T) {
	t.Parallel()
	b := newBatchTest(t)
	ctx := t.Context()
	for _, c := range []event.Category{event.Page, event.Cart, event.Custom, event.Exposure} {
		b.fill(t, c, 12)
	}

	t.Log("the role waits for Temporal, says so, and begins when it comes")
	if err := b.servers.Hold(ctx, embedded.TemporalChild); err != nil {
		t.Fatal(err)
	}
	r := b.start(t)
	eventuallySo(t, "the role says that it waits for Temporal", func() bool { return strings.Contains(b.ready(t), "temporal at ") })
	if err := b.servers.Release(embedded.TemporalChild); err != nil {
		t.Fatal(err)
	}
	eventuallySo(t, "the role is ready", func() bool { return b.ready(t) == "" })

	t.Log("the namespace is as promised")
	eventuallySo(t, "the namespace can be asked for", func() bool { // this client, too, has waited, and tries again at intervals
		ns, err := b.client.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: "default"})
		if got := ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(); err == nil && got != 30*24*time.Hour {
			t.Errorf("retention is %s", got)
		}
		return err == nil
	})
	for range 2 { // a second start changes nothing
		if err := workflows.PrepareNamespace(ctx, b.client, "default", 30*24*time.Hour); err != nil {
			t.Error(err)
		}
	}

	t.Run("a schedule fires, files become fewer, rows stay", func(t *testing.T) { b.scheduled(t) })
	t.Run("a second start joins the run, which can be paused and resumed", func(t *testing.T) { b.joined(t) })
	t.Run("a typo and an unknown table are refused", func(t *testing.T) { b.refused(t) })
	t.Run("the same run started again skips what is done", func(t *testing.T) { b.again(t) })
	r.stop()
	t.Run("a run goes on where its worker was killed", func(t *testing.T) { b.killed(t) })
	http.DefaultClient.CloseIdleConnections()
}

func (b *batchTest) scheduled(t *testing.T) {
	before, sums := b.head(t, "events_page")
	every := []workflows.Schedule{}
	for _, s := range workflows.Schedules(lakehouse.StreamTables(), 2*time.Second) {
		if s.Table == "events_page" {
			every = append(every, s)
		}
	}
	applied, err := workflows.Apply(t.Context(), b.client, every)
	if err != nil || len(applied.Created) != 1 {
		t.Fatalf("%+v, %v", applied, err)
	}
	eventuallySo(t, "files of events_page have become fewer", func() bool { h, _ := b.head(t, "events_page"); return h.Files < before.Files })
	var listed []workflows.Listed
	eventuallySo(t, "the schedule lists a start", func() bool {
		if listed, err = workflows.List(t.Context(), b.client); err != nil {
			t.Fatal(err)
		}
		return len(listed) == 1 && listed[0].Last != nil
	})
	if listed[0].Type != name.MaintainTableTick || listed[0].Every != "2s" || listed[0].Paused {
		t.Errorf("listed: %+v", listed)
	}
	h := b.client.ScheduleClient().GetHandle(t.Context(), "maintain/events_page")
	if err := h.Pause(t.Context(), client.SchedulePauseOptions{Note: "by the test"}); err != nil {
		t.Fatal(err)
	}
	if applied, err = workflows.Apply(t.Context(), b.client, every); err != nil || len(applied.Updated) != 1 {
		t.Fatalf("%+v, %v", applied, err)
	}
	d, err := h.Describe(t.Context())
	if err != nil || !d.Schedule.State.Paused {
		t.Errorf("applied again, the schedule is no longer paused: %v", err)
	}
	after, same := b.head(t, "events_page")
	if after.Files != 1 || after.Rows != before.Rows || !cmp.Equal(sums, same) || !cmp.Equal(before.Vector, after.Vector) {
		t.Errorf("%d files with %d rows became %d with %d; sums equal: %t", before.Files, before.Rows, after.Files, after.Rows, cmp.Equal(sums, same))
	}
	first := d.Info.RecentActions[0].StartWorkflowResult
	if err := b.client.GetWorkflow(t.Context(), first.WorkflowID, first.FirstExecutionRunID).Get(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	var out activities.WaitOutput
	if err := b.client.GetWorkflow(t.Context(), first.WorkflowID, first.FirstExecutionRunID).Get(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	b.keep(t, "tick", first.WorkflowID, first.FirstExecutionRunID)
	b.keep(t, "maintain", out.Started.ID, out.Started.RunID)
	w, err := b.client.DescribeWorkflow(t.Context(), out.Started.ID, out.Started.RunID)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[temporal.SearchAttributeKeyKeyword]string{name.AttrTable: "events_page", name.AttrTrigger: name.Scheduled, name.AttrPhase: name.Done, name.AttrOutcome: name.Done} {
		if got, _ := w.TypedSearchAttributes.GetKeyword(key); got != want {
			t.Errorf("%s is %q, want %q", key.GetName(), got, want)
		}
	}
	if rows, _ := w.TypedSearchAttributes.GetInt64(name.AttrRows); rows != before.Rows {
		t.Errorf("%d rows in the search attribute, want %d", rows, before.Rows)
	}
	if applied, err = workflows.Apply(t.Context(), b.client, nil); err != nil || len(applied.Removed) != 1 {
		t.Errorf("%+v, %v", applied, err)
	}
}

func (b *batchTest) joined(t *testing.T) {
	before, sums := b.head(t, "events_cart")
	run, first := b.run(t, `{"table": "events_cart"}`)
	if first.Joined {
		t.Fatalf("%+v", first)
	}
	update := func(n string) error {
		h, err := b.client.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{WorkflowID: first.ID, UpdateName: n, WaitForStage: client.WorkflowUpdateStageCompleted})
		if err != nil {
			return err
		}
		return h.Get(t.Context(), nil)
	}
	if err := update(name.Pause); err != nil {
		t.Fatal(err)
	}
	if err := update(name.Pause); err == nil || !strings.Contains(err.Error(), "it is paused already") {
		t.Errorf("paused twice: %v", err)
	}
	other, second := b.run(t, `{"table": "events_cart", "min_input_files": 3}`)
	if !second.Joined || second.RunID != first.RunID {
		t.Errorf("a second start gave %+v, the first %+v", second, first)
	}
	v, err := b.client.QueryWorkflow(t.Context(), first.ID, first.RunID, name.Progress)
	var p name.MaintainProgress
	if err == nil {
		err = v.Get(&p)
	}
	if err != nil || !p.Paused || p.Table != "events_cart" {
		t.Errorf("progress: %+v, %v", p, err)
	}
	if err := update(name.Resume); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.result(t, run), b.result(t, other)); diff != "" {
		t.Error(diff)
	}
	if after, same := b.head(t, "events_cart"); after.Files != 1 || after.Rows != before.Rows || !cmp.Equal(sums, same) {
		t.Errorf("%d files became %d", before.Files, after.Files)
	}
	b.keep(t, "paused", first.ID, first.RunID)
}

func (b *batchTest) refused(t *testing.T) {
	for id, c := range map[string]struct {
		input any
		kind  string
		says  string
	}{
		"typo":    {map[string]any{"tabel": "events_page"}, name.InvalidInput, "tabel: unknown field, did you mean table?"},
		"unknown": {map[string]any{"table": "events_pages"}, name.UnknownTable, "there is no table events_pages, did you mean events_page?"},
	} {
		run, err := b.client.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "maintain/" + id, TaskQueue: name.Queue}, name.MaintainTable, c.input)
		if err != nil {
			t.Fatal(err)
		}
		var app *temporal.ApplicationError
		if err := run.Get(t.Context(), nil); !errors.As(err, &app) || app.Type() != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", id, err)
		}
		b.keep(t, id, run.GetID(), run.GetRunID())
	}
}

func (b *batchTest) again(t *testing.T) {
	const input = `{"table": "events_custom", "run": "night-1"}`
	run, first := b.run(t, input)
	b.result(t, run)
	files, _ := b.head(t, "events_custom")
	run, second := b.run(t, input)
	if second.Joined || second.RunID == first.RunID {
		t.Errorf("%+v after %+v", second, first)
	}
	for _, s := range b.result(t, run).Steps {
		if s.Outcome != name.Skipped {
			t.Errorf("%s was %s again", s.Step, s.Outcome)
		}
	}
	run, _ = b.run(t, `{"table": "events_custom", "run": "night-1", "steps": ["expire"]}`) // another input is another piece of work
	if r := b.result(t, run); len(r.Steps) != 1 || r.Steps[0].Outcome != name.Done {
		t.Errorf("%+v", r)
	}
	if now, _ := b.head(t, "events_custom"); now.Files != files.Files {
		t.Errorf("files went from %d to %d", files.Files, now.Files)
	}
	b.keep(t, "again", second.ID, second.RunID)
	cfg, err := Load(b.cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := olap.Open(t.Context(), cfg.ClickHouse)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // only reads
	var runs, steps uint64
	if err := conn.QueryRow(t.Context(), "SELECT count() FROM workflow_runs FINAL WHERE id = 'maintain/events_custom' AND outcome = 'done' AND finished_at >= started_at").Scan(&runs); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(t.Context(), "SELECT count() FROM maintenance_runs FINAL WHERE table_name = 'events_custom' AND outcome = 'done'").Scan(&steps); err != nil {
		t.Fatal(err)
	}
	if runs != 1 || steps != 4 {
		t.Errorf("workflow_runs has %d rows, maintenance_runs %d", runs, steps)
	}
}

func (b *batchTest) killed(t *testing.T) {
	before, sums := b.head(t, "events_exposure")
	dying := b.start(t, failpoint.Env+"="+activities.FailGroupWritten+"=kill@1")
	eventuallySo(t, "the role is ready", func() bool { return b.ready(t) == "" })
	run, s := b.run(t, `{"table": "events_exposure"}`)
	select {
	case <-dying.ended:
	case <-time.After(time.Minute):
		t.Fatal("the role was not killed")
	}
	if h, _ := b.head(t, "events_exposure"); h.SnapshotID != before.SnapshotID {
		t.Error("something was committed by the worker that died")
	}
	b.start(t)
	r := b.result(t, run)
	if r.Outcome != name.Done || r.Rounds != 1 {
		t.Errorf("%+v", r)
	}
	if after, same := b.head(t, "events_exposure"); after.Files != 1 || after.Rows != before.Rows || !cmp.Equal(sums, same) || !cmp.Equal(before.Vector, after.Vector) {
		t.Errorf("%d files with %d rows became %d with %d", before.Files, before.Rows, after.Files, after.Rows)
	}
	var attempts int32
	for _, e := range b.keep(t, "killed", s.ID, s.RunID).GetEvents() {
		if a := e.GetActivityTaskStartedEventAttributes(); a != nil {
			attempts = max(attempts, a.GetAttempt())
		}
	}
	if attempts < 2 {
		t.Errorf("no activity was tried again: %d attempts", attempts)
	}
}
