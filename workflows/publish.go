package workflows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"millrace/activities"
	"millrace/workflows/name"
)

func registerPublish(w worker.WorkflowRegistry) {
	w.RegisterWorkflowWithOptions(publishTable, workflow.RegisterOptions{Name: name.PublishTable})
	registerTick(w, name.PublishTable)
}

// publishTable moves the ref published of a table to a snapshot whose new rows passed the checks. The snapshot is pinned first: what is checked is what is published,
// whatever is appended meanwhile. A run that ends before the ref has moved has changed nothing.
func publishTable(ctx workflow.Context, raw converter.RawValue) (name.PublishResult, error) {
	in, err := inputOf[name.PublishTableInput](raw)
	if err != nil {
		return name.PublishResult{}, err
	}
	f, err := open(ctx, name.PublishTable, name.PublishID(in.Table), in, opening{Table: in.Table, Day: in.Day, Run: in.Run, Approve: true})
	if err != nil {
		return name.PublishResult{}, err
	}
	p := &publication{frame: f, in: in, out: name.PublishResult{Table: in.Table, Run: f.Run.Run}}
	err = p.run(ctx)
	err = f.close(ctx, err)
	if p.out.Outcome == "" {
		p.out.Outcome = f.Progress.Phase
	}
	return p.out, err
}

// publication is one run of PublishTable.
// notPublishedID names what the refusal of a publication is, in the catalogue of errors.
const notPublishedID = "MR-ICE-062"

type publication struct {
	*frame
	in  name.PublishTableInput
	out name.PublishResult
	pin activities.PublishPinned
	rec activities.PublicationRecord
}

func (p *publication) run(ctx workflow.Context) error {
	if err := p.step(ctx, name.PublishStepCheck, p.check); err != nil {
		return err
	}
	return p.step(ctx, name.PublishStepMove, p.move)
}

// check pins a snapshot and looks at it. A snapshot that is refused is noted, and fails the step: started again, the run pins a new one.
func (p *publication) check(ctx workflow.Context) (map[string]int64, error) {
	ref := activities.PublishRef{Input: p.in, Run: p.Run}
	if err := workflow.ExecuteActivity(metadata(ctx, "pin a snapshot of "+p.in.Table), name.PublishPin, ref).Get(ctx, &p.pin); err != nil {
		return nil, err
	}
	p.out.From, p.out.To = p.pin.From, p.pin.Snapshot
	p.rec = activities.PublicationRecord{PublishRef: ref, Pinned: p.pin}
	numbers := map[string]int64{"snapshot": p.pin.Snapshot, "from_snapshot": p.pin.From}
	if p.pin.Snapshot == 0 || p.pin.Snapshot == p.pin.From {
		return numbers, nil
	}
	var found activities.PublishChecked
	check := workflow.ExecuteActivity(heavy(ctx, "check the new rows of "+p.in.Table), name.PublishCheck, activities.PublishCheckInput{PublishRef: ref, Pinned: p.pin})
	if err := check.Get(ctx, &found); err != nil {
		return numbers, errors.Join(err, p.give(ctx))
	}
	for k, n := range found.Numbers {
		numbers[k] = n
	}
	numbers["problems"] = int64(len(found.Problems))
	p.rec.Checked, p.out.Numbers, p.out.Problems = found, found.Numbers, found.Problems
	if len(found.Problems) == 0 {
		return numbers, nil
	}
	if a := p.in.Approve; a != nil && a.Snapshot == p.pin.Snapshot {
		p.rec.Reason, p.rec.By = a.Reason, a.By
		return numbers, nil
	}
	if p.in.WaitForApproval > 0 {
		if err := p.note(ctx, name.Refused); err != nil { // for those who ask meanwhile
			return numbers, err
		}
		a, ok, err := p.approved(ctx, strings.Join(found.Problems, "; "), time.Duration(p.in.WaitForApproval))
		if err != nil {
			return numbers, errors.Join(err, p.give(ctx))
		}
		if ok {
			p.rec.Reason, p.rec.By = a.Reason, a.By
			return numbers, nil
		}
	}
	p.out.Outcome = name.Refused
	if err := p.note(ctx, name.Refused); err != nil {
		return numbers, err
	}
	return numbers, temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("snapshot %d of %s is not published (%s): %s. Mend the table and publish again, or accept it: millrace lake approve %s --reason '…'", p.pin.Snapshot, p.in.Table, notPublishedID, strings.Join(found.Problems, "; "), p.in.Table),
		name.CheckFailed, nil)
}

// note writes what was found into publications; published stays.
func (p *publication) note(ctx workflow.Context, outcome string) error {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	p.rec.Outcome = outcome
	return workflow.ExecuteActivity(record(ctx, "note in publications that the snapshot is "+outcome), name.PublishNote, p.rec).Get(ctx, nil)
}

// give ends the lease of a run that fails otherwise. A lease that is not ended ends by itself within a day.
func (p *publication) give(ctx workflow.Context) error { return p.note(ctx, "") }

// move publishes what was checked.
func (p *publication) move(ctx workflow.Context) (map[string]int64, error) {
	if p.pin.Table == "" { // checked by an earlier execution of the same run
		done, _ := p.did(name.PublishStepCheck)
		again := p.in
		again.Snapshot, again.Approve = done["snapshot"], nil
		ref := activities.PublishRef{Input: again, Run: p.Run}
		if err := workflow.ExecuteActivity(metadata(ctx, "pin the snapshot that was checked"), name.PublishPin, ref).Get(ctx, &p.pin); err != nil {
			return nil, err
		}
		p.rec = activities.PublicationRecord{PublishRef: activities.PublishRef{Input: p.in, Run: p.Run}, Pinned: p.pin, Checked: activities.PublishChecked{Numbers: done}}
		if a := p.in.Approve; a != nil {
			p.rec.Reason, p.rec.By = a.Reason, a.By
		}
		p.out.From, p.out.To, p.out.Numbers = p.pin.From, p.pin.Snapshot, done
	}
	switch {
	case p.pin.Snapshot == 0:
		p.rec.Outcome = name.Empty
	case p.pin.Snapshot == p.pin.From:
		p.rec.Outcome = name.Unchanged
	case p.rec.Checked.Numbers["problems"] > 0 || len(p.rec.Checked.Problems) > 0:
		p.rec.Outcome = name.Approved
	default:
		p.rec.Outcome = name.Published
	}
	var moved activities.PublishMoved
	if err := workflow.ExecuteActivity(metadata(ctx, "move published of "+p.in.Table), name.PublishMove, p.rec).Get(ctx, &moved); err != nil {
		return nil, err
	}
	p.out.Outcome, p.out.Tag = p.rec.Outcome, moved.Tag
	return map[string]int64{"rows": moved.Rows}, nil
}
