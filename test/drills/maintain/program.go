package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"

	"millrace/lakehouse"
	"millrace/workflows/name"
)

// program is the command line of the platform.
type program struct {
	bin, data string
	env       []string
	config    string             // file; "": none
	store     lakehouse.Settings // of the warehouse, which endpoints do not tell
}

// call runs a command and gives its stdout.
func (p program) call(ctx context.Context, args ...string) ([]byte, error) {
	args = append(args, "--data", p.data)
	if p.config != "" {
		args = append(args, "--config", p.config)
	}
	cmd := exec.CommandContext(ctx, p.bin, args...)
	cmd.Env = append(os.Environ(), p.env...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("millrace %v: %w\n%s", args, err, said.String())
	}
	return out.Bytes(), nil
}

// into is call with JSON read into v.
func (p program) into(ctx context.Context, v any, args ...string) error {
	out, err := p.call(ctx, args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, v); err != nil {
		return fmt.Errorf("millrace %v answered %q: %w", args, out, err)
	}
	return nil
}

type started struct {
	RunID  string `json:"run_id"`
	Joined bool   `json:"joined"`
}

// byHand starts the workflow as a user does, after some time of traffic: paused at once, so that a second start meets it.
func byHand(ctx context.Context, d *drill, p program, w *watch, after time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(after):
	}
	// The tables' schedules run as well; without them it is this run that is joined.
	if _, err := p.call(ctx, "schedules", "pause", name.MaintainID(tableName)); err != nil {
		return err
	}
	input := fmt.Sprintf(`{"table": %q, "min_input_files": 2}`, tableName)
	var first, second started
	var before seen
	var paused error
	for range 10 {
		before = w.now()
		if err := p.into(ctx, &first, "workflows", "start", name.MaintainTable, "--input", input, "-o", "json"); err != nil {
			return err
		}
		if _, paused = p.call(ctx, "workflows", "pause", name.MaintainID(tableName)); paused == nil && !first.Joined {
			break
		}
		// A scheduled run was still there, or this one has ended before it could be paused.
		if paused == nil {
			if _, err := p.call(ctx, "workflows", "resume", name.MaintainID(tableName)); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Second): // files to be rewritten
		}
	}
	if err := p.into(ctx, &second, "workflows", "start", name.MaintainTable, "--input", input, "-o", "json"); err != nil {
		return err
	}
	var progress name.MaintainProgress
	if err := p.into(ctx, &progress, "workflows", "progress", name.MaintainID(tableName), "-o", "json"); err != nil {
		return err
	}
	d.check(paused == nil && second.Joined && second.RunID == first.RunID && progress.Paused, "a second start joins the run, which is paused (%v)", paused)
	if _, err := p.call(ctx, "workflows", "resume", name.MaintainID(tableName)); err != nil {
		return err
	}
	var last name.MaintainResult
	if err := p.into(ctx, &last, "workflows", "start", name.MaintainTable, "--input", input, "--wait"); err != nil {
		return err
	}
	after1 := w.now()
	d.check(last.Outcome == name.Done && after1.files < before.files, "by hand: %d files became %d", before.files, after1.files)
	_, err := p.call(ctx, "schedules", "resume", name.MaintainID(tableName))
	return err
}
