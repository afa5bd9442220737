package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"millrace/activities"
	"millrace/event"
	"millrace/internal/embedded"
	"millrace/internal/failpoint"
	"millrace/lakehouse"
	"millrace/lakehouse/bigquery"
	"millrace/workflows/name"
)

const pages = "events_page"

func (b *batchTest) loadInto(t *testing.T, input string) (client.WorkflowRun, activities.Started) {
	t.Helper()
	run, s, err := activities.Start(t.Context(), b.client, activities.StartRequest{Type: name.LoadBigQuery, Input: json.RawMessage(input), Trigger: name.Manual})
	if err != nil {
		t.Fatal(err)
	}
	return run, s
}

func (b *batchTest) loaded(t *testing.T, run client.WorkflowRun) (name.LoadBigQueryResult, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var r name.LoadBigQueryResult
	return r, run.Get(ctx, &r)
}

// publishHead publishes what main holds, with two files more.
func (b *batchTest) publishHead(t *testing.T) {
	t.Helper()
	b.fill(t, event.Page, 2)
	from := int64(0)
	if at, err := b.cat.Ref(t.Context(), pages, lakehouse.RefPublished); err == nil {
		from = at.SnapshotID
	}
	head, _ := b.head(t, pages)
	if err := b.cat.MoveRef(t.Context(), pages, lakehouse.RefPublished, from, head.SnapshotID); err != nil {
		t.Fatal(err)
	}
}

// The worker, Temporal's server and BigQuery itself killed under loads: what is there in the end is what is published, no row twice.
func TestLoadsOnARealTemporalEndRightWhateverIsKilled(t *testing.T) {
	if os.Getenv(embedded.NoBigQueryEnv) != "" {
		t.Skipf("%s is set: what needs the BigQuery emulator is not tested", embedded.NoBigQueryEnv)
	}
	t.Parallel()
	b := newBatchTest(t, embedded.BigQueryChild)
	ctx := t.Context()

	t.Log("without a configuration a load says so, at once")
	b.publishHead(t)
	r := b.start(t)
	run, _ := b.loadInto(t, `{"table": "events_page"}`)
	_, err := b.loaded(t, run)
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != name.BigQueryOff {
		t.Errorf("without BigQuery: %v", err)
	}
	r.stop()

	at := b.servers.Endpoints().BigQuery
	b.configure(t, "\ntemporal:", fmt.Sprintf("\nbigquery: {project: %s, endpoint: %q, min_interval: 1s, job_timeout: 15s}\ntemporal:", at.Project, at.Endpoint))
	cfg, err := Load(b.cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	store, err := bigquery.Open(ctx, cfg.BigQuery, b.cat, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	same := func(what string) {
		t.Helper()
		v, err := store.Verify(ctx, pages, nil, nil, nil)
		if err != nil || len(v.Differences) != 0 || v.Rows.Count != int64(b.rows[pages]) {
			t.Fatalf("%s: BigQuery differs, of %d rows: %+v, %v", what, b.rows[pages], v, err)
		}
	}
	history := ""
	finish := func(what string, run client.WorkflowRun, s activities.Started) {
		t.Helper()
		got, err := b.loaded(t, run)
		if err != nil || got.Outcome != activities.LoadLoaded && got.Outcome != name.Skipped {
			t.Fatalf("%s: %+v, %v", what, got, err)
		}
		same(what)
		if history != "" {
			b.keep(t, history, s.ID, s.RunID)
		}
	}

	t.Log("a load, and the same input again")
	r = b.start(t)
	run, s := b.loadInto(t, `{"table": "events_page", "run": "first"}`)
	history = "bigquery-loaded"
	finish("the first load", run, s)
	history = "bigquery-again"
	run, s = b.loadInto(t, `{"table": "events_page", "run": "first"}`)
	finish("the first load again", run, s)
	r.stop()

	for _, step := range []string{bigquery.FailPart, bigquery.FailSubmitted, bigquery.FailCommitted} { // each step: the tests of package bigquery
		t.Log("the worker is killed at", step)
		b.publishHead(t)
		dying := b.start(t, failpoint.Env+"="+step+"=kill@1")
		run, s = b.loadInto(t, `{"table": "events_page"}`)
		select {
		case <-dying.ended:
		case <-time.After(2 * time.Minute):
			t.Fatal("the role was not killed")
		}
		r = b.start(t)
		history = ""
		if step == bigquery.FailSubmitted {
			history = "bigquery-killed"
		}
		finish(step, run, s)
		r.stop()
	}
	history = ""

	b.start(t)
	for _, child := range []string{embedded.TemporalChild, embedded.BigQueryChild} {
		t.Log("killed under a load:", child)
		b.publishHead(t)
		run, s = b.loadInto(t, `{"table": "events_page"}`)
		if err := b.servers.Kill(ctx, child); err != nil {
			t.Fatal(err)
		}
		if err := b.servers.WaitHealthy(ctx, child); err != nil {
			t.Fatal(err)
		}
		finish(child, run, s)
	}

	t.Log("rows that somebody has deleted in BigQuery are named, and mended")
	if err := b.bigQuery(ctx, "DELETE FROM millrace.events_page WHERE kafka_offset < 3"); err != nil {
		t.Fatal(err)
	}
	if v, err := store.Verify(ctx, pages, nil, nil, nil); err != nil || len(v.Differences) != 1 {
		t.Fatalf("verification: %+v, %v", v, err)
	}
	history = "bigquery-mended"
	run, s = b.loadInto(t, `{"table": "events_page", "mend": true}`)
	finish("mend", run, s)

	var loads, rows uint64
	if err := b.clickhouse(t).QueryRow(ctx, "SELECT count(), toUInt64(sum(count)) FROM bigquery_loads FINAL WHERE table_name = 'events_page' AND outcome = 'loaded'").Scan(&loads, &rows); err != nil {
		t.Fatal(err)
	}
	if loads < 6 || rows < uint64(b.rows[pages]) { // also the loads whose workers died behind the commit
		t.Errorf("bigquery_loads tells of %d loads with %d rows", loads, rows)
	}
}

// bigQuery runs a statement as any client would.
func (b *batchTest) bigQuery(ctx context.Context, sql string) error {
	at := b.servers.Endpoints().BigQuery
	cfg := bigquery.DefaultConfig()
	cfg.Project, cfg.Endpoint = at.Project, at.Endpoint
	s, err := bigquery.Open(ctx, cfg, b.cat, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return errors.Join(s.Exec(ctx, strings.TrimSpace(sql)), s.Close())
}
