package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enums "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/workflows/name"
)

// listedRun is one run as `list` and `show` give it.
type listedRun struct {
	ID       string         `json:"id"`
	RunID    string         `json:"run_id"`
	Type     string         `json:"type"`
	Status   string         `json:"status"`
	Started  time.Time      `json:"started_at"`
	Ended    *time.Time     `json:"ended_at,omitempty"`
	Attrs    map[string]any `json:"attributes"`
	UI       string         `json:"ui,omitempty"`
	Progress any            `json:"progress,omitempty"`
	Result   any            `json:"result,omitempty"`
	Failure  string         `json:"failure,omitempty"`
}

func listed(e *workflowpb.WorkflowExecutionInfo) listedRun {
	r := listedRun{
		ID: e.GetExecution().GetWorkflowId(), RunID: e.GetExecution().GetRunId(), Type: e.GetType().GetName(), Status: strings.ToLower(e.GetStatus().String()),
		Started: e.GetStartTime().AsTime(), Attrs: map[string]any{},
	}
	if e.GetCloseTime() != nil {
		t := e.GetCloseTime().AsTime()
		r.Ended = &t
	}
	for k, p := range e.GetSearchAttributes().GetIndexedFields() {
		var v any
		if strings.HasPrefix(k, "Millrace") && converter.GetDefaultDataConverter().FromPayload(p, &v) == nil {
			r.Attrs[k] = v
		}
	}
	return r
}

func listRuns(ctx context.Context, cl client.Client, namespace, query string, limit int) ([]listedRun, error) {
	ctx, cancel := context.WithTimeout(ctx, temporalWait)
	defer cancel()
	var quoted []string
	for _, t := range typeNames() {
		quoted = append(quoted, `"`+t+`"`)
	}
	full := "WorkflowType IN (" + strings.Join(quoted, ", ") + ")"
	if query != "" {
		full += " AND " + query
	}
	out := []listedRun{}
	var next []byte
	for {
		page, err := cl.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: namespace, PageSize: int32(min(limit, 200)), Query: full, NextPageToken: next})
		if err != nil {
			return nil, fault.New("MR-CLI-005", err)
		}
		for _, e := range page.GetExecutions() {
			out = append(out, listed(e))
		}
		if next = page.GetNextPageToken(); len(next) == 0 || len(out) >= limit {
			break
		}
	}
	slices.SortStableFunc(out, func(a, b listedRun) int { return b.Started.Compare(a.Started) })
	return out[:min(limit, len(out))], nil
}

func (a *app) workflowsList() *cobra.Command {
	var limit int
	var typ, table string
	var running bool
	c := &cobra.Command{
		Use: "list", Short: "List workflows, the newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 || limit > 10_000 {
				return fault.Newf("MR-CLI-001", "--limit %d: is not between 1 and 10000", limit)
			}
			var query []string
			if typ != "" {
				if _, err := name.TypeNamed(typ); err != nil {
					return fault.New("MR-CLI-006", err)
				}
				query = append(query, fmt.Sprintf("WorkflowType = %q", typ))
			}
			if table != "" {
				if strings.ContainsAny(table, "\"'\\") {
					return fault.Newf("MR-CLI-008", "table: %q is no table name", table)
				}
				query = append(query, fmt.Sprintf("%s = %q", name.AttrTable.GetName(), table))
			}
			if running {
				query = append(query, `ExecutionStatus = "Running"`)
			}
			cl, cfg, err := a.temporal(c.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			runs, err := listRuns(c.Context(), cl, cfg.Temporal.Namespace, strings.Join(query, " AND "), limit)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(runs)
			}
			rows := [][]string{{"ID", "TYPE", "STATUS", "PHASE", "TRIGGER", "STARTED", "TOOK", "ROWS"}}
			for _, r := range runs {
				end := time.Now()
				if r.Ended != nil {
					end = *r.Ended
				}
				rows = append(rows, []string{
					r.ID, r.Type, r.Status, attr(r, name.AttrPhase.GetName()), attr(r, name.AttrTrigger.GetName()), r.Started.UTC().Format(time.DateTime), end.Sub(r.Started).Round(time.Second).String(), attr(r, name.AttrRows.GetName()),
				})
			}
			return a.table(rows)
		},
	}
	c.Flags().IntVar(&limit, "limit", 20, "workflows at most")
	c.Flags().StringVar(&typ, "type", "", "only this type")
	c.Flags().StringVar(&table, "table", "", "only those of this table")
	c.Flags().BoolVar(&running, "running", false, "only those that run")
	_ = c.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(typeNames(), cobra.ShellCompDirectiveNoFileComp))               // the flag exists
	_ = c.RegisterFlagCompletionFunc("table", cobra.FixedCompletions(lakehouse.StreamTables(), cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	a.outputs(c, "table", "json")
	return c
}

func attr(r listedRun, key string) string {
	if v, ok := r.Attrs[key]; ok {
		if f, ok := v.(float64); ok {
			return fmt.Sprintf("%.0f", f)
		}
		return fmt.Sprint(v)
	}
	return ""
}

func (a *app) workflowsShow() *cobra.Command {
	c := &cobra.Command{
		Use: "show ID", Short: "Show the newest run of a workflow: status, progress, result or failure, and where to see it", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeIDs,
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			cl, cfg, err := a.temporal(ctx)
			if err != nil {
				return err
			}
			defer cl.Close()
			call, cancel := context.WithTimeout(ctx, temporalWait)
			defer cancel()
			d, err := cl.DescribeWorkflowExecution(call, args[0], "")
			if err != nil {
				return explainRun(args[0], err)
			}
			r := listed(d.GetWorkflowExecutionInfo())
			if cfg.Temporal.UI != "" {
				r.UI = link(cfg, r.ID, r.RunID)
			}
			if p, err := progressOf(ctx, cl, r.ID, r.RunID); err == nil { // ticks have none
				r.Progress = p
			}
			if d.GetWorkflowExecutionInfo().GetStatus() != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
				var result any
				if err := cl.GetWorkflow(call, r.ID, r.RunID).Get(call, &result); err != nil {
					r.Failure = reason(err).Error()
				} else {
					r.Result = result
				}
			}
			return a.json(r)
		},
	}
	return c
}
