package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
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
