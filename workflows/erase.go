package workflows

import (
	"encoding/json"
	"fmt"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"millrace/activities"
	"millrace/event"
	"millrace/workflows/name"
)

func registerErase(w worker.WorkflowRegistry) {
	w.RegisterWorkflowWithOptions(eraseSubject, workflow.RegisterOptions{Name: name.EraseSubject})
	w.RegisterWorkflowWithOptions(exportSubject, workflow.RegisterOptions{Name: name.ExportSubject})
}

// purgeRounds is how often the physical state is worked on: what holds it is a branch that could not be moved, a lease, or files that are due later.
const (
	purgeRounds = 30
	purgeAgain  = 24 * time.Hour
)

// erasure is one run of EraseSubject.
type erasure struct {
	*frame
	in    name.EraseSubjectInput
	scope activities.EraseScopeOutput
}

// eraseSubject takes persons out of every store. The ledger is first: from then on nothing brings them back. Then rows go from the stores that answer, main and published
// first (the logical state); snapshots and files from before go at their date (the physical state). Each state ends with a certificate. Every step may be repeated; a run
// that is started again goes on.
func eraseSubject(ctx workflow.Context, raw converter.RawValue) (name.EraseResult, error) {
	in, err := inputOf[name.EraseSubjectInput](raw)
	if err != nil {
		return name.EraseResult{}, err
	}
	run := in.Run
	if run == "" {
		run = in.Request
	}
	f, err := open(ctx, name.EraseSubject, name.EraseID(in.Request), in, opening{Run: run})
	if err != nil {
		return name.EraseResult{}, err
	}
	e := &erasure{frame: f, in: in}
	result, err := e.run(ctx)
	return result, f.close(ctx, err)
}

func (e *erasure) run(ctx workflow.Context) (name.EraseResult, error) {
	result := name.EraseResult{Request: e.in.Request}
	// What a run works on is asked every time: tables may have come.
	if err := workflow.ExecuteActivity(metadata(ctx, "what the request is about"), name.EraseScope, e.in).Get(ctx, &e.scope); err != nil {
		return result, err
	}
	after := e.scope.PhysicalAfter
	if e.in.PhysicalAfter != nil {
		after = time.Duration(*e.in.PhysicalAfter)
	}
	due := e.scope.RequestedAt.Add(after)
	if err := e.logical(ctx); err != nil {
		return result, err
	}
	if err := e.certify(ctx, name.PhaseLogical, due); err != nil {
		return result, err
	}
	rounds, err := e.physical(ctx, due)
	if err != nil {
		return result, err
	}
	err = e.certify(ctx, name.PhasePhysical, due)
	for _, s := range e.Progress.Steps {
		if _, _, ok := name.PlaceOf(s.Step); ok {
			result.Rows += s.Numbers["rows"]
			result.Files += s.Numbers["files"]
		}
	}
	result.Rounds = rounds
	return result, err
}

// logical makes the subjects unfindable for every reader.
func (e *erasure) logical(ctx workflow.Context) error {
	if err := e.step(ctx, name.StepLedger, func(ctx workflow.Context) (map[string]int64, error) {
		var out activities.StepOutput
		err := workflow.ExecuteActivity(record(ctx, "write the ledger"), name.EraseLedger, e.in).Get(ctx, &out)
		return out.Numbers, err
	}); err != nil {
		return err
	}
	if err := e.step(ctx, name.StepSettle, func(ctx workflow.Context) (map[string]int64, error) {
		return nil, workflow.Sleep(ctx, e.scope.Settle)
	}); err != nil {
		return err
	}
	for _, table := range e.scope.ClickHouse {
		if err := e.place(ctx, event.StoreClickHouse, table, name.EraseClickHouse); err != nil {
			return err
		}
	}
	if err := e.place(ctx, event.StoreRedis, "keys", name.EraseRedis); err != nil {
		return err
	}
	for _, table := range e.scope.Lake {
		if err := e.place(ctx, event.StoreIceberg, table, name.EraseIceberg); err != nil {
			return err
		}
	}
	for _, table := range e.scope.Lake {
		if err := e.refs(ctx, table); err != nil {
			return err
		}
	}
	for _, table := range e.scope.BigQuery {
		if err := e.place(ctx, event.StoreBigQuery, table, name.EraseBigQuery); err != nil {
			return err
		}
	}
	return e.step(ctx, name.StepForget, func(ctx workflow.Context) (map[string]int64, error) {
		return nil, workflow.ExecuteActivity(record(ctx, "forget the ids"), name.EraseForget, activities.EraseTableInput{Request: e.in.Request}).Get(ctx, nil)
	})
}

// place erases one place by one activity.
func (e *erasure) place(ctx workflow.Context, store event.Store, place, activity string) error {
	return e.step(ctx, name.StepOf(string(store), place), func(ctx workflow.Context) (map[string]int64, error) {
		summary := "erase in " + string(store) + " " + place
		options := deleting(ctx, summary)
		if store == event.StoreIceberg {
			options = heavy(ctx, summary)
		}
		var out activities.StepOutput
		err := workflow.ExecuteActivity(options, activity, activities.EraseTableInput{Request: e.in.Request, Table: place}).Get(ctx, &out)
		return out.Numbers, err
	})
}

// refs moves what still names a snapshot from before: published by its own workflow, whose gate decides; tags are dropped. What stays is in the certificate.
func (e *erasure) refs(ctx workflow.Context, table string) error {
	return e.step(ctx, name.StepOf("refs", table), func(ctx workflow.Context) (map[string]int64, error) {
		out, err := e.lookAtRefs(ctx, table)
		if err != nil || !held(out.Held) {
			return out.Numbers, err
		}
		if err := e.publish(ctx, table); err != nil {
			if temporal.IsCanceledError(err) {
				return out.Numbers, err
			}
			workflow.GetLogger(ctx).Warn("published could not be moved", "table", table, "error", err)
			return out.Numbers, nil
		}
		out, err = e.lookAtRefs(ctx, table)
		return out.Numbers, err
	})
}

func (e *erasure) lookAtRefs(ctx workflow.Context, table string) (activities.RefsOutput, error) {
	n, _ := e.did(name.StepOf(string(event.StoreIceberg), table))
	var out activities.RefsOutput
	err := workflow.ExecuteActivity(deleting(ctx, "refs of "+table), name.EraseRefs, activities.EraseTableInput{Request: e.in.Request, Table: table, Sequence: n["sequence"]}).Get(ctx, &out)
	return out, err
}

// published is the branch that PublishTable moves.
const published = "published"

func held(refs []string) bool {
	for _, r := range refs {
		if r == published {
			return true
		}
	}
	return false
}

// publish runs PublishTable.
func (e *erasure) publish(ctx workflow.Context, table string) error {
	input, err := json.Marshal(map[string]string{"table": table})
	if err != nil {
		return fmt.Errorf("passing the input on: %w", err)
	}
	return workflow.ExecuteActivity(wait(ctx, "move published of "+table), name.StartAndWait, activities.StartRequest{Type: name.PublishTable, Input: input, Trigger: name.ByErasure, Day: e.Run.Day}).Get(ctx, nil)
}

// physical waits for the date, then takes away what there was before, until nothing is left.
func (e *erasure) physical(ctx workflow.Context, due time.Time) (rounds int, err error) {
	if err := e.sleep(ctx, due, "until snapshots and files from before the request go"); err != nil {
		return 0, err
	}
	for round := range purgeRounds {
		left, waiting, heldBy := int64(0), int64(0), int64(0)
		for _, table := range e.scope.Lake {
			step := name.StepOf(fmt.Sprintf("purge.%d", round), table)
			if err := e.step(ctx, step, func(ctx workflow.Context) (map[string]int64, error) {
				out, err := e.purge(ctx, table)
				if err == nil && held(out.Held) && e.publish(ctx, table) == nil {
					out, err = e.purge(ctx, table)
				}
				return out.Numbers, err
			}); err != nil {
				return round, err
			}
			n, _ := e.did(step)
			left, waiting, heldBy = left+n["left"], waiting+n["files_waiting"], heldBy+n["refs_held"]
		}
		if left+waiting+heldBy == 0 {
			return round + 1, nil
		}
		next := purgeAgain
		if left+heldBy == 0 { // only files that readers may have open
			next = e.scope.Grace + time.Minute
		}
		if err := e.sleep(ctx, workflow.Now(ctx).Add(next), fmt.Sprintf("%d rows are left, %d refs hold snapshots, %d files wait", left, heldBy, waiting)); err != nil {
			return round, err
		}
	}
	return purgeRounds, temporal.NewNonRetryableApplicationError(
		"snapshots from before the request are still there: `millrace lake refs TABLE` shows what holds them; move or drop it and start the same request again", name.ResidueLeft, nil)
}

func (e *erasure) purge(ctx workflow.Context, table string) (activities.RefsOutput, error) {
	n, _ := e.did(name.StepOf(string(event.StoreIceberg), table))
	var out activities.RefsOutput
	err := workflow.ExecuteActivity(heavy(ctx, "purge "+table), name.ErasePurge,
		activities.EraseTableInput{Request: e.in.Request, Table: table, Sequence: n["sequence"], At: workflow.Now(ctx)}).Get(ctx, &out)
	return out, err
}

// sleep waits until a time and says what for.
func (e *erasure) sleep(ctx workflow.Context, at time.Time, why string) error {
	d := at.Sub(workflow.Now(ctx))
	if d <= 0 {
		return nil
	}
	e.Progress.Phase, e.Progress.Waiting = "waiting", at.UTC().Format(time.RFC3339)+": "+why
	e.details(ctx)
	err := workflow.Sleep(ctx, d)
	e.Progress.Waiting = ""
	return err
}

func (e *erasure) certify(ctx workflow.Context, phase string, due time.Time) error {
	return e.step(ctx, "certify."+phase, func(ctx workflow.Context) (map[string]int64, error) {
		var out activities.CertifyOutput
		in := activities.CertifyInput{Request: e.in.Request, Phase: phase, At: workflow.Now(ctx), PhysicalBy: due, Steps: e.Progress.Steps}
		err := workflow.ExecuteActivity(record(ctx, "certify the "+phase+" state"), name.EraseCertify, in).Get(ctx, &out)
		return map[string]int64{"stores": out.Stores, "residues": out.Residues}, err
	})
}

// deleting is for deletions and for looking through a store: hours of work for the store, and a store that is away comes back. An erasure has a date by law, so attempts
// go on for a day.
func deleting(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: name.Queue, StartToCloseTimeout: 6 * time.Hour, ScheduleToCloseTimeout: 24 * time.Hour, HeartbeatTimeout: heartbeat, Summary: summary,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 5 * time.Minute, NonRetryableErrorTypes: final(name.Conflict)},
	})
}

// exportSubject writes an archive of what there is about persons and removes it when its time is over.
func exportSubject(ctx workflow.Context, raw converter.RawValue) (name.ExportResult, error) {
	in, err := inputOf[name.ExportSubjectInput](raw)
	if err != nil {
		return name.ExportResult{}, err
	}
	run := in.Run
	if run == "" {
		run = in.Request
	}
	f, err := open(ctx, name.ExportSubject, name.ExportID(in.Request), in, opening{Run: run})
	if err != nil {
		return name.ExportResult{}, err
	}
	result := name.ExportResult{Request: in.Request}
	err = f.step(ctx, "write", func(ctx workflow.Context) (map[string]int64, error) {
		err := workflow.ExecuteActivity(heavy(ctx, "write the archive"), name.ExportWrite, in).Get(ctx, &result)
		return map[string]int64{"rows": result.Rows, "bytes": result.Bytes}, err
	})
	if err == nil {
		f.Progress.Phase, f.Progress.Waiting = "waiting", "the archive is kept until "+workflow.Now(ctx).Add(in.KeepFor()).UTC().Format(time.RFC3339)
		f.details(ctx)
		err = workflow.Sleep(ctx, in.KeepFor())
		f.Progress.Waiting = ""
		// Also when the run is cancelled: the archive does not outlive it.
		after, cancel := cleanup(ctx)
		defer cancel()
		if removed := workflow.ExecuteActivity(record(after, "remove the archive"), name.ExportRemove, in).Get(after, nil); err == nil {
			err = removed
		}
	}
	return result, f.close(ctx, err)
}
