package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"millrace/activities"
	"millrace/workflows/name"
)

// nightParallel is how many workflows of a step run at a time. Each waits in a slot of the worker, and what they do shares one machine or one store.
const nightParallel = 4

func registerNightly(w worker.WorkflowRegistry) {
	w.RegisterWorkflowWithOptions(nightly, workflow.RegisterOptions{Name: name.Nightly})
	registerTick(w, name.Nightly)
}

// night is one run of Nightly.
type night struct {
	*frame
	in     name.NightlyInput
	plan   activities.NightPlan
	failed []string            // steps
	broken map[string][]string // step → tables that failed in it
	first  error
}

// nightly completes a day: it runs the workflows of its steps in their order. A step that fails leaves out those that need it; the others go on. The truth of what is done is
// in workflow_steps and workflow_runs: the same input started again does only what is not.
func nightly(ctx workflow.Context, raw converter.RawValue) (name.NightlyResult, error) {
	in, err := inputOf[name.NightlyInput](raw)
	if err != nil {
		return name.NightlyResult{}, err
	}
	if over := in.Over(); over.After(workflow.Now(ctx)) {
		return name.NightlyResult{}, invalid(fmt.Sprintf("day: %s is not over before %s; a night completes a day that is", in.Day, over.Format(time.RFC3339)))
	}
	run := in.Run
	if run == "" {
		run = in.Day
	}
	f, err := open(ctx, name.Nightly, name.NightlyID(in.Day), in, opening{
		Day: in.Time().Format(time.DateOnly), Run: run, Same: "night of " + in.Day, Redo: in.Force, Approve: true,
	})
	if err != nil {
		return name.NightlyResult{}, err
	}
	n := &night{frame: f, in: in, broken: map[string][]string{}}
	err = n.steps(ctx)
	if err == nil {
		err = n.outcome()
	}
	err = f.close(ctx, err)
	return name.NightlyResult{Day: in.Day, Run: run, Outcome: f.Progress.Phase, Steps: f.Progress.Steps}, err
}

// steps does those that the input asks for. What it gives ends the night; failures of steps do not.
func (n *night) steps(ctx workflow.Context) error {
	err := workflow.ExecuteActivity(metadata(ctx, "plan the night"), name.NightlyPlan, activities.NightPlanInput{Input: n.in, Types: nightTypes()}).Get(ctx, &n.plan)
	if err != nil {
		return err
	}
	for _, s := range nightSteps() {
		if !n.in.Wants(s.name) || !n.knows(s) {
			continue
		}
		if why, off := n.plan.Off[s.name]; off {
			if err := n.leave(ctx, s.name, why); err != nil {
				return err
			}
			continue
		}
		if need := n.lacks(s); need != "" {
			n.failed = append(n.failed, s.name)
			if err := n.leave(ctx, s.name, "needs "+need); err != nil {
				return err
			}
			continue
		}
		err := n.step(ctx, s.name, func(ctx workflow.Context) (map[string]int64, error) { return n.run(ctx, s) })
		switch {
		case err == nil:
		case ctx.Err() != nil || temporal.IsCanceledError(err):
			return err
		default:
			if err := n.hold(ctx, s, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// knows says whether the plan of the night is of a release that has the step.
func (n *night) knows(s nightStep) bool {
	_, off := n.plan.Off[s.name]
	return !s.newer || off || slices.Contains(n.plan.Steps, s.name)
}

// lacks names a step that must be done before and is not; "": none.
func (n *night) lacks(s nightStep) string {
	for _, need := range s.needs {
		_, off := n.plan.Off[need]
		_, done := n.did(need)
		if !off && !done && !(s.own && len(n.broken[need]) > 0) {
			return need
		}
	}
	return ""
}

// hold takes the failure of a step. Where others need it and the input says so, it waits for somebody to approve that these go on.
func (n *night) hold(ctx workflow.Context, s nightStep, failed error) error {
	n.failed = append(n.failed, s.name)
	if n.first == nil {
		n.first = failed
	}
	needed := slices.ContainsFunc(nightSteps(), func(o nightStep) bool { return slices.Contains(o.needs, s.name) && n.in.Wants(o.name) })
	if n.in.Hold == 0 || !needed {
		return nil
	}
	a, ok, err := n.approved(ctx, s.name+" failed; approve to go on with what needs it", time.Duration(n.in.Hold))
	if err != nil || !ok {
		return err
	}
	workflow.GetLogger(ctx).Info("approved although a step failed", "step", s.name, "reason", a.Reason)
	n.plan.Off[s.name] = "approved: " + a.Reason
	delete(n.broken, s.name)
	return nil
}

// run runs the workflows of a step, those that this night has not done yet.
func (n *night) run(ctx workflow.Context, s nightStep) (map[string]int64, error) {
	run := n.Run.Run
	if n.in.Force {
		run = "again-" + n.Run.Workflow // the parts do again what is done
	}
	parts, err := s.parts(n.in, n.plan, run)
	if err != nil {
		return nil, err
	}
	numbers := map[string]int64{"parts": int64(len(parts))}
	if len(parts) == 0 {
		return numbers, nil
	}
	var ids []string
	for _, p := range parts {
		ids = append(ids, p.id)
	}
	if s.typ != name.Nightly { // a missing night is not done
		var done activities.NightDoneOutput
		look := activities.NightDoneInput{Run: run, IDs: ids}
		if s.once && !n.in.Force {
			look.Run = ""
		}
		if err := workflow.ExecuteActivity(record(ctx, "look what is done of "+s.name), name.NightlyDone, look).Get(ctx, &done); err != nil {
			return numbers, err
		}
		parts = slices.DeleteFunc(parts, func(p nightPart) bool { return slices.Contains(done.Done, p.id) })
		numbers["done_before"] = int64(len(ids) - len(parts))
	}
	var held []string // of tables that failed in what the step needs: another run of the night does them
	if s.own {
		parts = slices.DeleteFunc(parts, func(p nightPart) bool {
			need := slices.IndexFunc(s.needs, func(need string) bool { return slices.Contains(n.broken[need], p.table) })
			if need < 0 {
				return false
			}
			held = append(held, p.id+" (needs "+s.needs[need]+")")
			return true
		})
	}
	failed, err := n.each(ctx, s, parts)
	failed = append(failed, held...)
	numbers["failed"] = int64(len(failed))
	if err == nil && len(failed) > 0 {
		err = temporal.NewNonRetryableApplicationError(fmt.Sprintf("%d of %d did not succeed: %s", len(failed), len(ids), list(failed)), name.PartsFailed, nil)
	}
	return numbers, err
}

// each runs parts side by side and tells which failed. A part that fails does not end the others.
func (n *night) each(ctx workflow.Context, s nightStep, parts []nightPart) (failed []string, err error) {
	most, running, over := nightParallel, 0, 0
	if s.alone {
		most = 1
	}
	for _, p := range parts {
		if err = workflow.Await(ctx, func() bool { return running < most && !n.Progress.Paused }); err != nil {
			break
		}
		running++
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer func() { running-- }()
			request := activities.StartRequest{Type: s.typ, Input: p.input, Trigger: name.ByNight, Day: n.in.DataDay()}
			if failure := workflow.ExecuteActivity(wait(ctx, "run "+p.id), name.StartAndWait, request).Get(ctx, nil); failure != nil {
				_, kind := outcome(failure)
				failed = append(failed, p.id+" ("+kind+")")
				n.broken[s.name] = append(n.broken[s.name], p.table)
			}
			over++
			n.count(ctx, over, len(parts))
		})
	}
	drain, _ := cleanup(ctx)
	if waited := workflow.Await(drain, func() bool { return running == 0 }); err == nil {
		err = waited
	}
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	slices.Sort(failed)
	return failed, err
}

// outcome is the failure of the night, with what to do.
func (n *night) outcome() error {
	if len(n.failed) > 0 {
		n.said = true
		text := fmt.Sprintf(`%s did not succeed. Mend the cause and start Nightly again with {"day": %q}: what is done is not done again`, strings.Join(n.failed, ", "), n.in.Day)
		return temporal.NewNonRetryableApplicationError(text, name.NightFailed, n.first)
	}
	for _, s := range nightSteps() {
		_, off := n.plan.Off[s.name]
		if !n.knows(s) {
			continue
		}
		if _, done := n.did(s.name); !off && !done {
			n.Outcome = name.Partial // others were not asked for
		}
	}
	return nil
}

// maxListed bounds how many ids a failure lists.
const maxListed = 10

func list(ids []string) string {
	if len(ids) > maxListed {
		return strings.Join(ids[:maxListed], ", ") + fmt.Sprintf(" and %d more", len(ids)-maxListed)
	}
	return strings.Join(ids, ", ")
}
