package main

import (
	"context"
	"fmt"
	"time"

	"millrace/test/drills/drill"
	"millrace/workflows/name"
)

type started struct {
	RunID  string `json:"run_id"`
	Joined bool   `json:"joined"`
}

// byHand starts the workflow as a user does, after some time of traffic: paused at once, so that a second start meets it.
func byHand(ctx context.Context, d *drill.Drill, p drill.Program, w *watch, after time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(after):
	}
	// The tables' schedules run as well; without them it is this run that is joined.
	if _, err := p.Call(ctx, "schedules", "pause", name.MaintainID(tableName)); err != nil {
		return err
	}
	input := fmt.Sprintf(`{"table": %q, "min_input_files": 2}`, tableName)
	var first, second started
	var before seen
	var paused error
	for range 10 {
		before = w.now()
		if err := p.Into(ctx, &first, "workflows", "start", name.MaintainTable, "--input", input, "-o", "json"); err != nil {
			return err
		}
		if _, paused = p.Call(ctx, "workflows", "pause", name.MaintainID(tableName)); paused == nil && !first.Joined {
			break
		}
		// A scheduled run was still there, or this one has ended before it could be paused.
		if paused == nil {
			if _, err := p.Call(ctx, "workflows", "resume", name.MaintainID(tableName)); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Second): // files to be rewritten
		}
	}
	if err := p.Into(ctx, &second, "workflows", "start", name.MaintainTable, "--input", input, "-o", "json"); err != nil {
		return err
	}
	var progress name.MaintainProgress
	if err := p.Into(ctx, &progress, "workflows", "progress", name.MaintainID(tableName), "-o", "json"); err != nil {
		return err
	}
	d.Check(paused == nil && second.Joined && second.RunID == first.RunID && progress.Paused, "a second start joins the run, which is paused (%v)", paused)
	if _, err := p.Call(ctx, "workflows", "resume", name.MaintainID(tableName)); err != nil {
		return err
	}
	var last name.MaintainResult
	if err := p.Into(ctx, &last, "workflows", "start", name.MaintainTable, "--input", input, "--wait"); err != nil {
		return err
	}
	var removed, added int64 // the stream has committed meanwhile: only the run itself knows what it did
	for _, s := range last.Steps {
		removed, added = removed+s.Numbers["files_removed"], added+s.Numbers["files_added"]
	}
	d.Check(last.Outcome == name.Done && added < removed, "by hand: of %d files %d became %d", before.files, removed, added)
	_, err := p.Call(ctx, "schedules", "resume", name.MaintainID(tableName))
	return err
}
