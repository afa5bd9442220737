package activities

import (
	"context"
	"errors"
	"io/fs"
	"unicode/utf8"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/workflows/name"
)

// maxFailure bounds the text of a failure: failures stand in histories.
const maxFailure = 1000

// failure turns an error into one that says how the workflow is to take it. kind and retry belong to the errors that the caller knows; others are tried again,
// with the fault's id as their type where there is one.
func failure(ctx context.Context, err error, kind string, retry bool) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		if activity.GetWorkerStopChannel(ctx) != nil {
			select {
			case <-activity.GetWorkerStopChannel(ctx): // another worker goes on with it
				return temporal.NewApplicationError("the worker is stopping", "WorkerStopping")
			default:
			}
		}
		return ctx.Err()
	}
	if errors.Is(err, lakehouse.ErrDamaged) && !errors.Is(err, fs.ErrNotExist) { // a file that is gone may be one that another run has replaced
		retry = false
	}
	text := err.Error()
	if len(text) > maxFailure {
		cut := maxFailure
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + " …"
	}
	if kind == "" {
		if id, ok := fault.IDOf(err); ok {
			kind = string(id)
		}
	}
	if retry {
		return temporal.NewApplicationError(text, kind)
	}
	return temporal.NewNonRetryableApplicationError(text, kind, nil)
}

// classify gives the kind of an error of the lakehouse and whether trying again may help.
func classify(err error) (kind string, retry bool) {
	switch {
	case errors.Is(err, lakehouse.ErrConflict):
		return name.Conflict, false
	case errors.Is(err, lakehouse.ErrPolicy):
		return name.InvalidInput, false
	case errors.Is(err, errPlanLost):
		return name.PlanLost, false
	case errors.Is(err, errNotCommitter):
		return name.NotCommitter, true // another process polls the same queue
	}
	return "", true
}

// lakeFailure is failure for errors of the lakehouse.
func lakeFailure(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	kind, retry := classify(err)
	return failure(ctx, err, kind, retry)
}
