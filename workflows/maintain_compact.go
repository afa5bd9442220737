package workflows

import (
	"errors"
	"fmt"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"millrace/activities"
	"millrace/workflows/name"
)

// compact plans, rewrites the groups of the plan and commits them, until nothing is left to do. A commit that meets a conflict is followed by a new plan, a few times.
func (m *maintain) compact(ctx workflow.Context) (map[string]int64, error) {
	if m.Compact == nil {
		m.Compact = map[string]int64{"files_removed": 0, "files_added": 0}
	}
	for {
		if m.Plan == nil {
			if err := m.plan(ctx); err != nil {
				return m.Compact, err
			}
		}
		if m.Plan.Groups == 0 {
			m.Plan = nil
			return m.Compact, nil
		}
		err := m.rewrite(ctx)
		if errors.Is(err, errContinue) {
			return m.Compact, err
		}
		var done activities.CommitOutput
		if err == nil {
			done, err = m.commit(ctx)
		}
		left := m.Plan.Left
		if dropped := m.drop(ctx); err == nil {
			err = dropped
		}
		switch {
		case err == nil:
			m.Compact["files_removed"] += done.Removed
			m.Compact["files_added"] += done.Added
			for k, v := range map[string]int64{"bytes_removed": done.BytesRemoved, "bytes_added": done.BytesAdded, "files_read_before": done.ReadBefore, "files_read_after": done.ReadAfter} {
				if v != 0 {
					m.Compact[k] += v
				}
			}
			if n := m.Compact["files_read_before"]; n > 0 {
				m.Compact["files_read_per_mille"] = 1000 * m.Compact["files_read_after"] / n
			}
			m.Compact["commits_"+done.By]++
			if left == 0 || m.Progress.Round >= maxPlans {
				return m.Compact, nil
			}
		case isConflict(err):
			m.Conflict++
			m.Compact["conflicts"]++
			if m.Conflict >= maxRounds {
				return m.Compact, temporal.NewNonRetryableApplicationError(fmt.Sprintf("%d plans met a conflict", m.Conflict), name.StillConflict, err)
			}
			workflow.GetLogger(ctx).Info("a conflict: planning again", "table", m.in.Table, "round", m.Progress.Round)
		default:
			return m.Compact, err
		}
	}
}

// plan makes the next plan and sets the totals of the progress to it.
func (m *maintain) plan(ctx workflow.Context) error {
	if err := m.unpaused(ctx); err != nil {
		return err
	}
	m.Progress.Round++
	key := fmt.Sprintf("%s-%d", m.Run.Workflow, m.Progress.Round)
	var out activities.PlanOutput
	err := workflow.ExecuteActivity(metadata(ctx, fmt.Sprintf("plan %d of %s", m.Progress.Round, m.in.Table)), name.PlanTable, activities.PlanInput{Input: m.in, Key: key}).Get(ctx, &out)
	if err != nil {
		return err
	}
	m.Plan, m.Next = &out, 0
	m.Progress.Groups += out.Groups
	m.Progress.Bytes += out.Bytes
	m.Progress.Rows += out.Rows
	m.details(ctx)
	return nil
}

// rewrite runs the groups of the plan, at most maxInFlight at a time. While paused it starts none. Where the history has grown long it lets those that run end and gives
// errContinue.
func (m *maintain) rewrite(ctx workflow.Context) error {
	ctx, cancel := workflow.WithCancel(ctx)
	defer cancel()
	var failed error
	for m.Next < m.Plan.Groups && failed == nil {
		err := workflow.Await(ctx, func() bool { return failed != nil || m.inFlight < maxInFlight && !m.Progress.Paused })
		if err != nil || failed != nil {
			failed = errors.Join(failed, err)
			break
		}
		if m.groups > 0 && workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			break
		}
		group := m.Next
		m.Next++
		m.inFlight++
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer func() { m.inFlight-- }()
			summary := fmt.Sprintf("group %d of %d, plan %d", group+1, m.Plan.Groups, m.Progress.Round)
			var out activities.GroupOutput
			err := workflow.ExecuteActivity(heavy(ctx, summary), name.CompactGroup, activities.GroupInput{Table: m.in.Table, Key: m.Plan.Key, Group: group}).Get(ctx, &out)
			if err != nil {
				if failed == nil {
					failed = err
					cancel() // the other groups of a plan that cannot be committed
				}
				return
			}
			m.groups++
			m.Progress.GroupsDone++
			m.Progress.BytesDone += out.Bytes
			m.Progress.RowsDone += out.Rows
			m.details(ctx)
		})
	}
	drain, _ := cleanup(ctx) // nothing may run on when the plan is dropped
	if err := workflow.Await(drain, func() bool { return m.inFlight == 0 }); err != nil {
		return err
	}
	if failed == nil && m.Next < m.Plan.Groups {
		return errContinue
	}
	return failed
}

// commit makes the plan's files visible: by the stream's committer if there is one and it answers, else by itself.
func (m *maintain) commit(ctx workflow.Context) (activities.CommitOutput, error) {
	ref := activities.PlanRef{Table: m.in.Table, Key: m.Plan.Key}
	var out activities.CommitOutput
	if m.Plan.NoCommitter {
		err := workflow.ExecuteActivity(metadata(ctx, "commit: the stream has no committer"), name.CommitRewrite, ref).Get(ctx, &out)
		return out, err
	}
	err := workflow.ExecuteActivity(lane(ctx, m.in.Table), name.CommitRewrite, ref).Get(ctx, &out)
	if err == nil || isConflict(err) || temporal.IsCanceledError(err) {
		return out, err
	}
	workflow.GetLogger(ctx).Info("the stream's committer did not commit: committing directly", "table", m.in.Table)
	err = workflow.ExecuteActivity(metadata(ctx, "commit directly"), name.CommitRewrite, ref).Get(ctx, &out)
	return out, err
}

// drop gives up the plan, also that of a run that was cancelled.
func (m *maintain) drop(ctx workflow.Context) error {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	err := workflow.ExecuteActivity(metadata(ctx, "drop the plan"), name.DropPlan, activities.PlanRef{Table: m.in.Table, Key: m.Plan.Key}).Get(ctx, nil)
	m.Plan = nil
	return err
}

func isConflict(err error) bool {
	var app *temporal.ApplicationError
	return errors.As(err, &app) && app.Type() == name.Conflict
}
