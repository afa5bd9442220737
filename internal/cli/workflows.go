package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"millrace/activities"
	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/workers"
	"millrace/workflows/name"
)

// temporalWait bounds one call to Temporal.
const temporalWait = 10 * time.Second

func (a *app) workflows() *cobra.Command {
	c := &cobra.Command{Use: "workflows", Aliases: []string{"workflow", "wf"}, Short: "Start, watch, pause and resume workflows on Temporal"}
	c.AddCommand(a.workflowsStart(), a.workflowsList(), a.workflowsShow(), a.workflowsProgress(),
		a.workflowsUpdate(name.Pause, "Start nothing more of a running workflow; what runs is finished"),
		a.workflowsUpdate(name.Resume, "Go on with a paused workflow"),
		a.workflowsUpdate(name.Approve, "Let a workflow go on that waits for a decision"))
	return c
}

// temporal connects to the Temporal of this platform.
func (a *app) temporal(ctx context.Context) (client.Client, workers.Config, error) {
	cfg, err := a.load(true)
	if err != nil {
		return nil, cfg, err
	}
	if cfg.Temporal.Address == "" {
		return nil, cfg, fault.Newf("MR-CLI-005", "no Temporal is known for data directory %s", cfg.Data)
	}
	cfg.Log.Level = "error" // a command's own output is its log
	ctx, cancel := context.WithTimeout(ctx, temporalWait)
	defer cancel()
	cl, err := workers.TemporalClient(ctx, cfg.Temporal, a.logger(cfg))
	return cl, cfg, fault.New("MR-CLI-005", err)
}

func (a *app) workflowsStart() *cobra.Command {
	var input string
	var wait bool
	c := &cobra.Command{
		Use: "start TYPE", Short: "Start a workflow, or join the one that runs on the same thing", Args: cobra.ExactArgs(1),
		Example: `  millrace workflows start MaintainTable --input '{"table": "events_page"}' --wait`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return typeNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			t, err := name.TypeNamed(args[0])
			if err != nil {
				return fault.New("MR-CLI-006", err)
			}
			text, err := inputText(input)
			if err != nil {
				return err
			}
			target, err := t.Target(text)
			if err != nil {
				return fault.Newf("MR-CLI-007", "input of %s: %w", t.Name, err)
			}
			ctx := c.Context()
			cl, cfg, err := a.temporal(ctx)
			if err != nil {
				return err
			}
			defer cl.Close()
			if err := checkTable(ctx, cfg, target.Table); err != nil {
				return err
			}
			call, cancel := context.WithTimeout(ctx, temporalWait)
			run, started, err := activities.Start(call, cl, activities.StartRequest{Type: t.Name, Input: text, Trigger: name.Manual})
			cancel()
			if err != nil {
				return fault.New("MR-CLI-005", err)
			}
			if wait {
				return a.waitFor(ctx, cl, run, started)
			}
			if a.output == "json" {
				return a.json(started)
			}
			verb := "started"
			if started.Joined {
				verb = "joined the run of"
			}
			_, err = fmt.Fprintf(a.out, "%s %s\n", verb, started.ID)
			if err == nil && cfg.Temporal.UI != "" {
				_, err = fmt.Fprintln(a.out, link(cfg, started.ID, started.RunID))
			}
			return err
		},
	}
	c.Flags().StringVar(&input, "input", "", "the input as JSON, @FILE for a file's content, @- for stdin; docs/WORKFLOWS.md shows examples")
	c.Flags().BoolVar(&wait, "wait", false, "show the progress and wait for the end")
	_ = c.RegisterFlagCompletionFunc("input", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { // the flag exists
		var out []string
		for _, t := range lakehouse.StreamTables() {
			out = append(out, fmt.Sprintf(`{"table": "%s"}`, t))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	})
	a.outputs(c, "text", "json")
	return c
}

func typeNames() []string {
	var out []string
	for _, t := range name.Types() {
		out = append(out, t.Name)
	}
	return out
}

// inputText reads the value of --input.
func inputText(s string) ([]byte, error) {
	path, isFile := strings.CutPrefix(s, "@")
	switch {
	case !isFile:
		return []byte(s), nil
	case path == "-":
		b, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, fmt.Errorf("reading the input: %w", err)
		}
		return b, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Newf("MR-CLI-007", "reading the input: %w", err)
	}
	return b, nil
}

// checkTable refuses a table that the catalog does not have, where the catalog is known here.
func checkTable(ctx context.Context, cfg workers.Config, table string) error {
	if table == "" || cfg.Iceberg.CatalogURI == "" {
		return nil
	}
	cat, err := lakehouse.Open(ctx, cfg.Iceberg)
	if err != nil {
		return err
	}
	defer func() { _ = cat.Close() }() // only reads
	infos, err := cat.Tables(ctx)
	if err != nil {
		return err
	}
	var tables []string
	for _, t := range infos {
		tables = append(tables, t.Name)
	}
	return fault.New("MR-CLI-008", activities.CheckTable(table, tables))
}

// link leads to a run in the Temporal UI.
func link(cfg workers.Config, id, run string) string {
	return fmt.Sprintf("%s/namespaces/%s/workflows/%s/%s/history", cfg.Temporal.UI, cfg.Temporal.Namespace, strings.ReplaceAll(id, "/", "%2F"), run)
}

// startOne starts a workflow, or joins the one that runs on the same thing, and waits for it or says its id.
func (a *app) startOne(ctx context.Context, cl client.Client, typ string, in name.Input, wait bool) error {
	if err := in.Validate(); err != nil {
		return fault.Newf("MR-CLI-007", "input of %s: %w", typ, err)
	}
	call, cancel := context.WithTimeout(ctx, temporalWait)
	run, started, err := activities.Start(call, cl, activities.StartRequest{Type: typ, Input: []byte(name.Text(in)), Trigger: name.Manual})
	cancel()
	if err != nil {
		return fault.New("MR-CLI-005", err)
	}
	if wait {
		return a.waitFor(ctx, cl, run, started)
	}
	_, err = fmt.Fprintln(a.out, started.ID)
	return err
}

// waitFor shows a run's progress until its end, then its result.
func (a *app) waitFor(ctx context.Context, cl client.Client, run client.WorkflowRun, s activities.Started) error {
	ended := make(chan error, 1)
	var result json.RawMessage
	watch, stop := context.WithCancel(ctx)
	defer stop()
	go func() { ended <- run.Get(watch, &result) }() // ended is read below, or watch ends
	bar := newRunBar(a.err)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			bar.end()
			if err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return fault.Newf("MR-CLI-009", "%s: %w", s.ID, reason(err))
			}
			return a.json(result)
		case <-tick.C:
			if p, err := progressOf(ctx, cl, s.ID, s.RunID); err == nil {
				bar.show(p)
			}
		}
	}
}

// reason is the innermost failure of a workflow: the others only say where it was met.
func reason(err error) error {
	var app *temporal.ApplicationError
	for e := err; errors.As(e, &app); e = app.Unwrap() {
		err = app
		if app.Unwrap() == nil {
			break
		}
	}
	return err
}

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
