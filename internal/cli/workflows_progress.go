package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"millrace/internal/fault"
	"millrace/workflows/name"
)

func progressOf(ctx context.Context, cl client.Client, id, run string) (progress, error) {
	var p progress
	ctx, cancel := context.WithTimeout(ctx, temporalWait)
	defer cancel()
	v, err := cl.QueryWorkflow(ctx, id, run, name.Progress)
	if err == nil {
		err = v.Get(&p)
	}
	if err != nil {
		return p, explainRun(id, err)
	}
	return p, nil
}

// explainRun puts what Temporal says of a run into words.
func explainRun(id string, err error) error {
	var gone *serviceerror.NotFound
	var nobody *serviceerror.FailedPrecondition
	var failed *serviceerror.QueryFailed
	switch {
	case errors.As(err, &gone):
		return fault.Newf("MR-CLI-010", "no workflow %s", id)
	case errors.As(err, &nobody), errors.Is(err, context.DeadlineExceeded):
		return fault.Newf("MR-CLI-011", "%s: no batch worker answers: %w", id, err)
	case errors.As(err, &failed):
		return fault.Newf("MR-CLI-010", "%s has no progress to show: %w", id, err)
	}
	return fault.New("MR-CLI-005", err)
}

func (a *app) workflowsProgress() *cobra.Command {
	c := &cobra.Command{
		Use: "progress ID", Short: "Show how far a workflow is, on a terminal until its end", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeIDs,
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			cl, _, err := a.temporal(ctx)
			if err != nil {
				return err
			}
			defer cl.Close()
			p, err := progressOf(ctx, cl, args[0], "")
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(p.text)
			}
			if !terminal(a.out) {
				_, err := fmt.Fprintln(a.out, progressLine(p))
				return err
			}
			bar := newRunBar(a.out)
			for bar.show(p); !p.Finished(); bar.show(p) {
				select {
				case <-ctx.Done():
					bar.end()
					return nil
				case <-time.After(500 * time.Millisecond):
				}
				if p, err = progressOf(ctx, cl, args[0], ""); err != nil {
					bar.end()
					return err
				}
			}
			bar.end()
			return nil
		},
	}
	a.outputs(c, "text", "json")
	return c
}

func (a *app) workflowsUpdate(update, short string) *cobra.Command {
	var approval name.Approval
	c := &cobra.Command{
		Use: update + " ID", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeIDs,
		RunE: func(c *cobra.Command, args []string) error {
			cl, _, err := a.temporal(c.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			ctx, cancel := context.WithTimeout(c.Context(), temporalWait)
			defer cancel()
			o := client.UpdateWorkflowOptions{WorkflowID: args[0], UpdateName: update, WaitForStage: client.WorkflowUpdateStageCompleted}
			if update == name.Approve {
				if err := approval.Validate(); err != nil {
					return fault.New("MR-CLI-007", err)
				}
				o.Args = []any{approval}
			}
			h, err := cl.UpdateWorkflow(ctx, o)
			var p progress
			if err == nil {
				err = h.Get(ctx, &p)
			}
			var refused *temporal.ApplicationError
			var gone *serviceerror.NotFound
			if errors.As(err, &gone) { // also said of one that has ended
				if d, err := cl.DescribeWorkflow(ctx, args[0], ""); err == nil {
					return fault.Newf("MR-CLI-012", "%s of %s: the run has ended, it is %s", update, args[0], strings.ToLower(d.Status.String()))
				}
			}
			switch {
			case errors.As(err, &refused):
				return fault.Newf("MR-CLI-012", "%s of %s: %s", update, args[0], refused.Message())
			case err != nil:
				return explainRun(args[0], err)
			}
			_, err = fmt.Fprintln(a.out, progressLine(p))
			return err
		},
	}
	if update == name.Approve {
		c.Flags().StringVar(&approval.Reason, "reason", "", "why; kept with the run")
		c.Flags().StringVar(&approval.By, "by", "", "who decided, as a role")
	}
	return c
}

// completeIDs completes with the workflows that run.
func (a *app) completeIDs(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	cl, cfg, err := a.temporal(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cl.Close()
	runs, err := listRuns(c.Context(), cl, cfg.Temporal.Namespace, `ExecutionStatus = "Running"`, 50)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, r := range runs {
		out = append(out, r.ID)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
