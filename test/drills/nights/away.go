package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/api/workflowservice/v1"

	"millrace/olap"
	"millrace/test/drills/drill"
	"millrace/workflows/name"
)

// nightForm is how the time of a short night is written.
const nightForm = "2006-01-02T15:04:05Z"

// away switches the platform off for three nights and looks what has run when it is back.
func away(ctx context.Context, d *drill.Drill, p *platform, o options) error {
	fmt.Printf("a night is %s\n", p.period)
	if err := p.up(ctx); err != nil {
		return err
	}
	nights, err := p.until(ctx, "the first night is done", 10, func(n []olap.Night) bool { return len(n) > 0 && n[0].Outcome == name.Done })
	if err != nil {
		return err
	}
	first, err := time.Parse(nightForm, nights[0].Night)
	if err != nil {
		return fmt.Errorf("a night is called %q: %w", nights[0].Night, err)
	}
	d.Check(first.Truncate(p.period).Equal(first), "the first night is that of its scheduled time, %s", nights[0].Night)
	if err := p.down(); err != nil {
		return err
	}
	from := time.Now().UTC()
	fmt.Println("the platform is off for three nights")
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(3*p.period + p.period/2):
	}
	to := time.Now().UTC()
	if err := p.up(ctx); err != nil {
		return err
	}
	var missed []string
	for at := from.Truncate(p.period).Add(p.period); at.Before(to); at = at.Add(p.period) {
		missed = append(missed, at.Format(nightForm))
	}
	last := missed[len(missed)-1]
	nights, err = p.until(ctx, "the missed nights are over", 15, func(all []olap.Night) bool {
		return slices.ContainsFunc(all, func(n olap.Night) bool { return n.Night == last && n.Outcome == name.Done })
	})
	if err != nil {
		return err
	}
	d.Check(len(missed) >= 3, "%d nights fell into the time: %v", len(missed), missed)
	return ran(ctx, d, p, nights, first, last)
}

// ran checks that every night from the first to the last ran once, in order.
func ran(ctx context.Context, d *drill.Drill, p *platform, nights []olap.Night, first time.Time, last string) error {
	end, err := time.Parse(nightForm, last)
	if err != nil {
		return fmt.Errorf("a night is called %q: %w", last, err)
	}
	var want, got []string
	for at := first; !at.After(end); at = at.Add(p.period) {
		want = append(want, at.Format(nightForm))
	}
	inOrder := true
	var before time.Time
	for _, n := range nights {
		if n.Night > last {
			continue
		}
		got = append(got, n.Night)
		inOrder = inOrder && n.Outcome == name.Done && !n.Started.Before(before)
		before = n.Finished
	}
	d.Check(slices.Equal(want, got), "every night is there: %v", got)
	d.Check(inOrder, "each is done, and began when the one before had ended")
	once := true
	for _, night := range want {
		list, err := p.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: p.endpoints.Temporal.Namespace, Query: fmt.Sprintf("WorkflowType = '%s' AND WorkflowId = '%s'", name.Nightly, name.NightlyID(night)),
		})
		if err != nil {
			return fmt.Errorf("listing the runs of %s: %w", night, err)
		}
		if n := len(list.GetExecutions()); n != 1 {
			once = false
			fmt.Printf("  %s has %d runs\n", night, n)
		}
	}
	d.Check(once, "each ran once")
	return nil
}
