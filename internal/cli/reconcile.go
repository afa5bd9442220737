package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"millrace/activities"
	"millrace/internal/fault"
	"millrace/workflows/name"
)

func (a *app) reconcile() *cobra.Command {
	var in name.ReconcileInput
	c := &cobra.Command{
		Use: "reconcile TOPIC", Short: "Compare the stores with the control totals of an hour, and mend what differs", Args: cobra.ExactArgs(1),
		Long: "Start Reconcile for one topic of events (events.page, events.failed, …) and one hour, or join the run that is there, show its progress and wait for its end. " +
			"The command fails if a store still differs.",
		Example: "  millrace reconcile events.page --hour 2026-10-22T14\n  millrace reconcile events.purchase --hour 2026-10-22T14 --repair -o json",
		RunE: func(c *cobra.Command, args []string) error {
			in.Topic = args[0]
			if in.Hour == "" {
				in.Hour = time.Now().UTC().Add(-time.Hour).Format(name.HourForm)
			}
			result, err := a.runReconcile(c.Context(), in)
			if err != nil {
				return err
			}
			if err := a.reconciled(result); err != nil {
				return err
			}
			if result.Outcome == name.Differs {
				return fault.Newf("MR-REC-002", "%s of %s", result.Topic, result.Hour)
			}
			return nil
		},
	}
	c.Flags().StringVar(&in.Hour, "hour", "", "the hour in which the platform took the events, UTC, as in 2026-10-22T14; absent: the last one that is over")
	c.Flags().BoolVar(&in.Repair, "repair", false, "mend what differs")
	c.Flags().StringSliceVar(&in.Stores, "stores", nil, "only these stores, as in clickhouse,iceberg")
	a.outputs(c, "table", "json")
	return c
}

// runReconcile starts the workflow, or joins it, and waits for its end.
func (a *app) runReconcile(ctx context.Context, in name.ReconcileInput) (name.ReconcileResult, error) {
	var result name.ReconcileResult
	if err := in.Validate(); err != nil {
		return result, fault.Newf("MR-CLI-007", "input of %s: %w", name.Reconcile, err)
	}
	cl, cfg, err := a.temporal(ctx)
	if err != nil {
		return result, err
	}
	defer cl.Close()
	if err := checkTable(ctx, cfg, in.Table()); err != nil {
		return result, err
	}
	call, cancel := context.WithTimeout(ctx, temporalWait)
	run, started, err := activities.Start(call, cl, activities.StartRequest{Type: name.Reconcile, Input: json.RawMessage(name.Text(in)), Trigger: name.Manual})
	cancel()
	if err != nil {
		return result, fault.New("MR-CLI-005", err)
	}
	return result, a.await(ctx, cl, run, started, &result)
}

// await shows a run's progress until its end and reads its result.
func (a *app) await(ctx context.Context, cl client.Client, run client.WorkflowRun, s activities.Started, result any) error {
	ended := make(chan error, 1)
	watch, stop := context.WithCancel(ctx)
	defer stop()
	go func() { ended <- run.Get(watch, result) }() // ended is read below, or watch ends
	bar := newRunBar(a.err)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			bar.end()
			switch {
			case err == nil:
				return nil
			case ctx.Err() != nil:
				return ctx.Err()
			}
			return fault.Newf("MR-CLI-009", "%s: %w", s.ID, reason(err))
		case <-tick.C:
			if p, err := progressOf(ctx, cl, s.ID, s.RunID); err == nil {
				bar.show(p)
			}
		}
	}
}

func (a *app) reconciled(r name.ReconcileResult) error {
	if a.output == "json" {
		return a.json(r)
	}
	if _, err := fmt.Fprintf(a.out, "%s of %s: %s\n", r.Topic, r.Hour, r.Outcome); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	kinds := []string{name.KindMissing, name.KindDuplicate, name.KindSurplus, name.KindChanged, name.KindUnexplained, name.KindUncounted, name.KindLate, name.KindErased, name.KindRefused, name.KindRepeated, name.KindOrderCopy}
	rows := [][]string{{"STORE", "OUTCOME", "EXPECTED", "FOUND", "REPAIRED", "DIFFERENCES"}}
	for _, s := range r.Stores {
		var found []string
		for _, k := range kinds {
			if n := s.Differences[k]; n > 0 {
				found = append(found, fmt.Sprintf("%d %s", n, k))
			}
		}
		if len(found) == 0 {
			found = []string{"none"}
		}
		rows = append(rows, []string{s.Store, s.Outcome, strconv.FormatInt(s.Expected, 10), strconv.FormatInt(s.Found, 10), strconv.FormatInt(s.Repaired, 10), strings.Join(found, " ")})
	}
	return a.table(rows)
}
