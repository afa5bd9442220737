package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"millrace/workflows/name"
)

// handle answers the query "progress" and the updates.
func (f *frame) handle(ctx workflow.Context, approve bool) error {
	if err := workflow.SetQueryHandler(ctx, name.Progress, func() (name.RunProgress, error) { return f.Progress, nil }); err != nil {
		return fmt.Errorf("answering %s: %w", name.Progress, err)
	}
	over := func() error {
		if f.Progress.Finished() {
			return errors.New("the run has ended: it is " + f.Progress.Phase)
		}
		return nil
	}
	pausing := func(update, text, already string, paused bool) error {
		return workflow.SetUpdateHandlerWithOptions(ctx, update, func(ctx workflow.Context) (name.RunProgress, error) {
			f.Progress.Paused = paused
			f.details(ctx)
			return f.Progress, nil
		}, workflow.UpdateHandlerOptions{Description: text, Validator: func(workflow.Context) error {
			if f.Progress.Paused == paused {
				return errors.Join(over(), errors.New(already))
			}
			return over()
		}})
	}
	err := pausing(name.Pause, "start nothing more; what runs is finished", "it is paused already", true)
	if err == nil {
		err = pausing(name.Resume, "go on after a pause", "it is not paused", false)
	}
	if err == nil && approve {
		err = workflow.SetUpdateHandlerWithOptions(ctx, name.Approve, func(ctx workflow.Context, a name.Approval) (name.RunProgress, error) {
			f.approval, f.Progress.Waiting = &a, ""
			f.details(ctx)
			return f.Progress, nil
		}, workflow.UpdateHandlerOptions{Description: `go on although a check failed; input: {"reason": "…"}`, Validator: func(_ workflow.Context, a name.Approval) error {
			if f.Progress.Waiting == "" {
				return errors.Join(over(), errors.New("it waits for no decision"))
			}
			return a.Validate()
		}})
	}
	if err != nil {
		return fmt.Errorf("taking updates: %w", err)
	}
	return nil
}

// approved waits until somebody approves, at most within; false: nobody did. why is what the UI and "progress" show meanwhile. An approval counts once.
func (f *frame) approved(ctx workflow.Context, why string, within time.Duration) (name.Approval, bool, error) {
	f.approval, f.Progress.Waiting = nil, why
	f.details(ctx)
	_, err := workflow.AwaitWithTimeout(ctx, within, func() bool { return f.approval != nil })
	f.Progress.Waiting = ""
	f.details(ctx)
	if err != nil || f.approval == nil {
		return name.Approval{}, false, err
	}
	a := *f.approval
	f.approval = nil
	return a, true, nil
}
