package workflows

import (
	"errors"
	"fmt"
	"strings"

	"go.temporal.io/sdk/workflow"

	"millrace/workflows/name"
)

// handle answers the query "progress" and the updates "pause" and "resume".
func (m *maintain) handle(ctx workflow.Context) error {
	if err := workflow.SetQueryHandler(ctx, name.Progress, func() (name.MaintainProgress, error) { return m.Progress, nil }); err != nil {
		return fmt.Errorf("answering %s: %w", name.Progress, err)
	}
	set := func(paused bool) func(workflow.Context) (name.MaintainProgress, error) {
		return func(ctx workflow.Context) (name.MaintainProgress, error) {
			m.Progress.Paused = paused
			m.details(ctx)
			return m.Progress, nil
		}
	}
	refuse := func(paused bool, why string) func(workflow.Context) error {
		return func(workflow.Context) error {
			switch {
			case m.Progress.Finished():
				return errors.New("the run has ended: it is " + m.Progress.Phase)
			case m.Progress.Paused == paused:
				return errors.New(why)
			}
			return nil
		}
	}
	err := workflow.SetUpdateHandlerWithOptions(ctx, name.Pause, set(true), workflow.UpdateHandlerOptions{
		Description: "start nothing more; what runs is finished", Validator: refuse(true, "it is paused already"),
	})
	if err == nil {
		err = workflow.SetUpdateHandlerWithOptions(ctx, name.Resume, set(false), workflow.UpdateHandlerOptions{
			Description: "go on after a pause", Validator: refuse(false, "it is not paused"),
		})
	}
	if err != nil {
		return fmt.Errorf("taking updates: %w", err)
	}
	return nil
}

// unpaused waits while the run is paused.
func (m *maintain) unpaused(ctx workflow.Context) error {
	return workflow.Await(ctx, func() bool { return !m.Progress.Paused })
}

// phase enters a phase: in the progress, in the search attributes, in the UI.
func (m *maintain) phase(ctx workflow.Context, phase string) error {
	m.Progress.Phase = phase
	m.details(ctx)
	if err := workflow.UpsertTypedSearchAttributes(ctx, name.AttrPhase.ValueSet(phase)); err != nil {
		return fmt.Errorf("setting search attributes: %w", err)
	}
	return nil
}

// details is what the UI shows of a run.
func (m *maintain) details(ctx workflow.Context) {
	p := m.Progress
	var text strings.Builder
	fmt.Fprintf(&text, "**%s** of `%s`", p.Phase, p.Table)
	if p.Paused {
		text.WriteString(", paused")
	}
	if p.Groups > 0 {
		fmt.Fprintf(&text, "\n\n%d of %d groups, %.1f of %.1f MB, %d of %d rows, plan %d", p.GroupsDone, p.Groups, float64(p.BytesDone)/1e6, float64(p.Bytes)/1e6, p.RowsDone, p.Rows, p.Round)
	}
	for _, s := range p.Steps {
		fmt.Fprintf(&text, "\n- %s: %s", s.Step, s.Outcome)
	}
	workflow.SetCurrentDetails(ctx, text.String())
}
