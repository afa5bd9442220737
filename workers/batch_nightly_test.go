package workers

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"millrace/activities"
	"millrace/event"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workflows"
	"millrace/workflows/name"
)

// night starts a Nightly, as the UI does, and waits for its end.
func (b *batchTest) night(t *testing.T, input string) (activities.Started, name.NightlyResult, error) {
	t.Helper()
	run, s, err := activities.Start(t.Context(), b.client, activities.StartRequest{Type: name.Nightly, Input: json.RawMessage(input), Trigger: name.Manual})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var r name.NightlyResult
	return s, r, run.Get(ctx, &r)
}

// noted reads what workflow_runs has of nights: outcome by night.
func (b *batchTest) noted(t *testing.T) []activities.NightRan {
	t.Helper()
	cfg, err := Load(b.cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := olap.Open(t.Context(), cfg.ClickHouse)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // only reads
	nights, err := activities.Nights(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return nights
}

// starts lists when the runs of some workflows began, oldest first, and that each ended before the next began.
func (b *batchTest) starts(t *testing.T, ids ...string) (out []string, inTurn bool) {
	t.Helper()
	inTurn = true
	var ended time.Time
	for _, id := range ids {
		d, err := b.client.DescribeWorkflowExecution(t.Context(), id, "")
		if err != nil {
			t.Fatal(err)
		}
		info := d.GetWorkflowExecutionInfo()
		inTurn = inTurn && info.GetStartTime().AsTime().After(ended)
		ended = info.GetCloseTime().AsTime()
		out = append(out, info.GetFirstRunId())
	}
	return out, inTurn
}

// One test, because the servers take seconds to start.
func TestNightsRunOnARealTemporal(t *testing.T) {
	t.Parallel()
	b := newBatchTest(t)
	b.fill(t, event.Page, 3)
	b.start(t)
	eventuallySo(t, "the role is ready", func() bool { return b.ready(t) == "" })
	t.Run("a night that failed is repaired by the same input", func(t *testing.T) { b.repaired(t) })
	t.Run("nights that the schedule missed run each once, in order", func(t *testing.T) { b.caughtUp(t) })
	t.Run("nights that nothing made up for are found and filled first", func(t *testing.T) { b.filled(t) })
	http.DefaultClient.CloseIdleConnections()
}

func (b *batchTest) repaired(t *testing.T) {
	tables := int64(len(lakehouse.StreamTables()))
	_, s := b.run(t, `{"table": "events_page"}`) // a run of somebody else, which the night joins
	if _, err := b.client.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{WorkflowID: s.ID, UpdateName: name.Pause, WaitForStage: client.WorkflowUpdateStageCompleted}); err != nil {
		t.Fatal(err)
	}
	const input = `{"day": "2024-10-20", "steps": ["maintain"], "gaps": -1}`
	run, first, err := activities.Start(t.Context(), b.client, activities.StartRequest{Type: name.Nightly, Input: json.RawMessage(input), Trigger: name.Manual})
	if err != nil {
		t.Fatal(err)
	}
	eventuallySo(t, "all other tables are maintained", func() bool {
		v, err := b.client.QueryWorkflow(t.Context(), first.ID, first.RunID, name.Progress)
		var p name.RunProgress
		if err == nil {
			err = v.Get(&p)
		}
		return err == nil && p.Phase == name.NightMaintain && p.Done == tables-1
	})
	if err := b.client.CancelWorkflow(t.Context(), s.ID, s.RunID); err != nil {
		t.Fatal(err)
	}
	var app *temporal.ApplicationError
	if err := run.Get(t.Context(), nil); !errors.As(err, &app) || app.Type() != name.NightFailed || !strings.Contains(err.Error(), "maintain/events_page") {
		t.Fatalf("the night ended with %v", err)
	}
	if diff := cmp.Diff([]activities.NightRan{{Night: "2024-10-20", Outcome: name.Failed}}, b.noted(t)); diff != "" {
		t.Error(diff)
	}
	again, r, err := b.night(t, input)
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Steps[0].Numbers; again.RunID == first.RunID || r.Outcome != name.Partial || n["parts"] != tables || n["done_before"] != tables-1 {
		t.Errorf("the repair did %+v", r)
	}
	third, r, err := b.night(t, input)
	if err != nil || r.Steps[0].Outcome != name.Skipped {
		t.Errorf("what is done was done again: %+v, %v", r, err)
	}
	b.keep(t, "nightly-failed", first.ID, first.RunID)
	b.keep(t, "nightly-repaired", again.ID, again.RunID)
	b.keep(t, "nightly-skipped", third.ID, third.RunID)
}

func (b *batchTest) caughtUp(t *testing.T) {
	s := workflows.NightlySchedule(24*time.Hour, 2*time.Hour)
	s[0].Input = json.RawMessage(`{"steps": ["maintain"], "gaps": -1}`)
	if _, err := workflows.Apply(t.Context(), b.client, s); err != nil {
		t.Fatal(err)
	}
	// The server's clock cannot be turned back: a backfill starts what was due between two times, as the server does for itself when it was away.
	h := b.client.ScheduleClient().GetHandle(t.Context(), name.NightlySchedule)
	at := time.Date(2024, 10, 22, 2, 0, 0, 0, time.UTC)
	if err := h.Backfill(t.Context(), client.ScheduleBackfillOptions{Backfill: []client.ScheduleBackfill{{Start: at.Add(-time.Minute), End: at.Add(48*time.Hour + time.Minute), Overlap: enums.SCHEDULE_OVERLAP_POLICY_BUFFER_ALL}}}); err != nil {
		t.Fatal(err)
	}
	nights := []string{"2024-10-21", "2024-10-22", "2024-10-23"}
	eventuallySo(t, "the three nights are over", func() bool {
		done := 0
		for _, n := range b.noted(t) {
			if slices.Contains(nights, n.Night) && n.Outcome == name.Partial {
				done++
			}
		}
		return done == len(nights)
	})
	ids := []string{name.NightlyID(nights[0]), name.NightlyID(nights[1]), name.NightlyID(nights[2])}
	runs, inTurn := b.starts(t, ids...)
	if !inTurn {
		t.Error("the nights did not run one after the other")
	}
	for i, id := range ids {
		n := 0
		for it := b.client.GetWorkflowHistory(t.Context(), id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); n++ {
			e, err := it.Next()
			if err != nil {
				t.Fatal(err)
			}
			if a := e.GetWorkflowExecutionStartedEventAttributes(); a != nil && a.GetFirstExecutionRunId() != runs[i] {
				t.Errorf("%s ran twice", id)
			}
		}
	}
	b.keep(t, "nightly-scheduled", ids[0], runs[0])
	d, err := h.Describe(t.Context())
	if err != nil || len(d.Info.RecentActions) != len(nights) {
		t.Fatalf("%d starts, %v", len(d.Info.RecentActions), err)
	}
	tick := d.Info.RecentActions[0].StartWorkflowResult
	if err := b.client.GetWorkflow(t.Context(), tick.WorkflowID, tick.FirstExecutionRunID).Get(t.Context(), nil); err != nil {
		t.Error(err)
	}
	b.keep(t, "nightly-tick", tick.WorkflowID, tick.FirstExecutionRunID)
	if applied, err := workflows.Apply(t.Context(), b.client, nil); err != nil || !slices.Equal(applied.Removed, []string{name.NightlySchedule}) {
		t.Errorf("%+v, %v", applied, err)
	}
}

func (b *batchTest) filled(t *testing.T) {
	s, r, err := b.night(t, `{"day": "2024-10-26", "steps": ["gaps", "maintain"]}`)
	if err != nil {
		t.Fatal(err)
	}
	if r.Steps[0].Step != name.NightGaps || r.Steps[0].Numbers["parts"] != 2 {
		t.Errorf("%+v", r.Steps)
	}
	if _, inTurn := b.starts(t, "nightly/2024-10-24", "nightly/2024-10-25"); !inTurn {
		t.Error("the missing nights did not run one after the other")
	}
	var nights []string
	for _, n := range b.noted(t) {
		nights = append(nights, n.Night)
	}
	if diff := cmp.Diff([]string{"2024-10-20", "2024-10-21", "2024-10-22", "2024-10-23", "2024-10-24", "2024-10-25", "2024-10-26"}, nights); diff != "" {
		t.Error(diff)
	}
	b.keep(t, "nightly-gaps", s.ID, s.RunID)
}
