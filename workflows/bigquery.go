package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"millrace/activities"
	"millrace/workflows/name"
)

func registerBigQuery(w worker.WorkflowRegistry) {
	w.RegisterWorkflowWithOptions(loadBigQuery, workflow.RegisterOptions{Name: name.LoadBigQuery})
	registerTick(w, name.LoadBigQuery)
}

// warehouse is for work in BigQuery. Its quotas are counted by the minute and by the day, and its outages last minutes: eight attempts cover about half an hour, the next
// scheduled run is the longer retry. A worker that dies counts as an attempt.
func warehouse(ctx workflow.Context, queue, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: queue, StartToCloseTimeout: 6 * time.Hour, HeartbeatTimeout: heartbeat, Summary: summary,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 5 * time.Second, BackoffCoefficient: 2, MaximumInterval: 10 * time.Minute, MaximumAttempts: 8, NonRetryableErrorTypes: final(name.BigQueryOff)},
	})
}

// loadBigQuery loads what was published of a table, then compares the days that got other rows, and mends those that differ. All of it may be repeated from anywhere:
// how far the table is loaded stands in BigQuery.
func loadBigQuery(ctx workflow.Context, raw converter.RawValue) (name.LoadBigQueryResult, error) {
	in, err := inputOf[name.LoadBigQueryInput](raw)
	if err != nil {
		return name.LoadBigQueryResult{}, err
	}
	result := name.LoadBigQueryResult{Table: in.Table}
	f, err := open(ctx, name.LoadBigQuery, name.BigQueryID(in.Table), in, opening{Table: in.Table, Run: in.Run})
	if err != nil {
		return result, err
	}
	l := loading{f: f, in: in}
	err = f.step(ctx, name.StepLoad, func(ctx workflow.Context) (map[string]int64, error) {
		err := l.load(ctx, activities.LoadInput{Input: in, Run: f.Run.Workflow + "/" + name.StepLoad})
		if err == nil {
			err = l.note(ctx, "", nil)
		}
		r := l.out.Result
		numbers := map[string]int64{"rows": r.Rows.Count, "bytes": r.Bytes, "parts": int64(r.Parts), "held": r.Held, "days_replaced": int64(len(r.Replaced))}
		if n := len(r.Touched); n > 0 { // for a run that goes on without the load
			numbers["first_day"], numbers["last_day"] = dayNumber(r.Touched[0]), dayNumber(r.Touched[n-1])
		}
		return numbers, err
	})
	r := l.out.Result
	result.Outcome, result.From, result.To, result.Rows, result.JobID = r.Outcome, r.From, r.To, r.Rows.Count, r.JobID
	if done, ok := f.did(name.StepLoad); ok && result.Outcome == "" { // by an earlier execution of the same run
		result.Outcome, result.Rows = name.Skipped, done["rows"]
	}
	if err == nil {
		err = l.compare(ctx)
	}
	err = f.close(ctx, err)
	result.Steps = f.Progress.Steps
	return result, err
}

// loading is one run.
type loading struct {
	f   *frame
	in  name.LoadBigQueryInput
	out activities.LoadOutput
}

// load loads, when it is due: of a table that was loaded a moment ago the rest of the interval is waited for.
func (l *loading) load(ctx workflow.Context, in activities.LoadInput) error {
	for {
		if err := workflow.ExecuteActivity(warehouse(ctx, name.HeavyQueue, "load "+in.Input.Table), name.BigQueryLoad, in).Get(ctx, &l.out); err != nil {
			return err
		}
		if l.out.Result.Outcome != activities.LoadEarly {
			return nil
		}
		l.f.Progress.Waiting = "until two loads of a table are far enough apart"
		l.f.details(ctx)
		err := workflow.Sleep(ctx, max(l.out.Result.Wait, time.Second))
		l.f.Progress.Waiting = ""
		if err != nil {
			return err
		}
	}
}

func (l *loading) note(ctx workflow.Context, reason string, differing []string) error {
	if l.out.Result.Outcome != activities.LoadLoaded {
		return nil
	}
	return workflow.ExecuteActivity(record(ctx, "note the load in bigquery_loads"), name.BigQueryNote, activities.LoadNote{Load: l.out, Run: l.f.Run.Run, Reason: reason, Differing: differing}).Get(ctx, nil)
}

// compare compares the days of which BigQuery has got rows, or all of them, and replaces those that differ.
func (l *loading) compare(ctx workflow.Context) error {
	loaded, _ := l.f.did(name.StepLoad)
	first, ok := loaded["first_day"]
	if !ok && !l.in.Mend {
		return nil
	}
	var days []string
	if !l.in.Mend {
		days = daysBetween(first, loaded["last_day"])
	}
	err := l.f.step(ctx, name.StepVerify, func(ctx workflow.Context) (map[string]int64, error) {
		v, err := l.verify(ctx, days)
		if err == nil && len(v.Differences) > 0 {
			err = l.note(ctx, name.BigQueryDiffers, daysOf(v))
		}
		return map[string]int64{"days": int64(v.Days), "rows_compared": v.Rows.Count, "days_differing": int64(len(v.Differences))}, err
	})
	if err != nil {
		return err
	}
	if found, _ := l.f.did(name.StepVerify); found["days_differing"] == 0 {
		return nil
	}
	return l.f.step(ctx, name.StepMend, func(ctx workflow.Context) (map[string]int64, error) {
		to := l.in
		to.From = 0
		if err := l.load(ctx, activities.LoadInput{Input: to, Run: l.f.Run.Workflow + "/" + name.StepMend, Mend: true, Now: true}); err != nil {
			return nil, err
		}
		r := l.out.Result
		if err := l.note(ctx, name.StepMend, nil); err != nil {
			return nil, err
		}
		v, err := l.verify(ctx, days)
		if err == nil && len(v.Differences) > 0 {
			err = temporal.NewNonRetryableApplicationError(fmt.Sprintf("%d days of table %s differ from the lake after they were replaced, the first is %s: somebody else changes the table",
				len(v.Differences), l.in.Table, v.Differences[0].Day), name.BigQueryDiffers, nil)
		}
		return map[string]int64{"mended_rows": r.Rows.Count, "days_mended": int64(len(r.Replaced))}, err
	})
}

func (l *loading) verify(ctx workflow.Context, days []string) (activities.Verified, error) {
	var v activities.Verified
	err := workflow.ExecuteActivity(warehouse(ctx, name.Queue, "compare "+l.in.Table+" with the lake"), name.BigQueryVerify, activities.VerifyInput{Table: l.in.Table, Days: days}).Get(ctx, &v)
	return v, err
}

func daysOf(v activities.Verified) []string {
	var out []string
	for _, d := range v.Differences {
		out = append(out, d.Day)
	}
	return out
}

// dayNumber is a day as a number since 1970: numbers are what notes of steps hold.
func dayNumber(day string) int64 {
	t, err := time.Parse(time.DateOnly, day)
	if err != nil { // of our own making
		return 0
	}
	return t.Unix() / 86_400
}

// daysBetween lists days; of more than a few hundred it gives none, which are all.
func daysBetween(first, last int64) []string {
	const most = 400
	var out []string
	for day := first; day <= last && len(out) < most; day++ {
		out = append(out, time.Unix(day*86_400, 0).UTC().Format(time.DateOnly))
	}
	if len(out) == most {
		return nil
	}
	return out
}
