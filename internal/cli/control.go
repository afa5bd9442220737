package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"millrace/internal/embedded"
	"millrace/internal/embedded/supervisor"
	"millrace/workers"
)

func (a *app) dial(ctx context.Context) (*embedded.Client, error) {
	cfg, err := a.load(false)
	if err != nil {
		return nil, err
	}
	return embedded.Dial(ctx, cfg.Data)
}

func (a *app) down() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End the platform that runs on a data directory", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.dial(c.Context())
			if err != nil {
				return err
			}
			return client.Down(c.Context())
		},
	}
}

func (a *app) status() *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "Show every part of a running platform", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.dial(c.Context())
			if err != nil {
				return err
			}
			r, err := client.Status(c.Context())
			if err != nil {
				return err
			}
			cfg, err := a.load(false)
			if err != nil {
				return err
			}
			stream := streamStatus{Topologies: []topologyStatus{}}
			if e, err := workers.LoadEndpoints(cfg.Data); err == nil { // written once everything is up
				stream = streamOf(c.Context(), e)
			}
			if a.output == "json" {
				return a.json(struct {
					supervisor.Report
					streamStatus
				}{r, stream})
			}
			rows := [][]string{{"NAME", "STATE", "PID", "RESTARTS", "SINCE", "DETAIL"}}
			for _, s := range r.Children {
				pid := ""
				if s.PID > 0 {
					pid = strconv.Itoa(s.PID)
				}
				detail := s.Detail
				if s.LastError != "" && s.Phase != "healthy" {
					detail = s.LastError
				}
				rows = append(rows, []string{s.Name, string(s.Phase), pid, strconv.Itoa(s.Restarts), time.Since(s.Since).Round(time.Second).String(), detail})
			}
			if err := a.table(rows); err != nil {
				return err
			}
			return a.showStream(stream)
		},
	}
	a.outputs(c, "table", "json")
	return c
}

// showStream writes the tables of the stream, if any role told of it.
func (a *app) showStream(s streamStatus) error {
	var tables [][][]string
	if len(s.Topologies) > 0 {
		tables = append(tables, guaranteeRows(s.Topologies))
	}
	if len(s.Tasks) > 0 {
		tables = append(tables, taskRows(s.Tasks))
	}
	for _, rows := range tables {
		if _, err := fmt.Fprintln(a.out); err != nil {
			return fmt.Errorf("writing a table: %w", err)
		}
		if err := a.table(rows); err != nil {
			return err
		}
	}
	if line := s.Rules.line(); line != "" {
		if _, err := fmt.Fprintln(a.out, line); err != nil {
			return fmt.Errorf("writing what rules are in force: %w", err)
		}
	}
	return nil
}

func (a *app) child() *cobra.Command {
	c := &cobra.Command{Use: "child", Short: "Hold one part of a running platform down, or let it run again"}
	for _, v := range []struct {
		use, short string
		call       func(*embedded.Client, context.Context, string) error
	}{
		{"stop", "Stop a part and keep it down", (*embedded.Client).Hold},
		{"start", "Let a part that was stopped run again", (*embedded.Client).Release},
	} {
		c.AddCommand(&cobra.Command{
			Use: v.use + " NAME", Short: v.short, Args: cobra.ExactArgs(1),
			ValidArgsFunction: func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
				names := append(workers.RoleNames(), embedded.KafkaChild, embedded.ClickHouseChild, embedded.RedisChild, embedded.TemporalChild)
				return names, cobra.ShellCompDirectiveNoFileComp
			},
			RunE: func(c *cobra.Command, args []string) error {
				client, err := a.dial(c.Context())
				if err != nil {
					return err
				}
				return v.call(client, c.Context(), args[0])
			},
		})
	}
	return c
}

func (a *app) run() *cobra.Command {
	c := &cobra.Command{
		Use: "run ROLE...", Short: "Run roles of the platform in this process", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return workers.RoleNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := a.load(true)
			if err != nil {
				return err
			}
			ctx, cancel := embedded.WithParent(c.Context())
			defer cancel()
			return workers.Run(ctx, cfg, args, a.logger(cfg))
		},
	}
	c.Long = c.Short + ".\n\nRoles:\n"
	for _, r := range workers.Roles() {
		c.Long += fmt.Sprintf("  %-16s %s\n", r.Name, r.Doc)
	}
	return c
}

func (a *app) configCmd() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Show or check the configuration"}
	show := &cobra.Command{
		Use: "print", Short: "Print the effective configuration, secrets masked", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := a.load(true)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(cfg.Keys())
			}
			_, err = fmt.Fprint(a.out, cfg.Print())
			return err
		},
	}
	a.outputs(show, "yaml", "json")
	c.AddCommand(show, &cobra.Command{
		Use: "check [ROLE...]", Short: "Check the configuration of roles (all of them if none is named)",
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := a.load(true)
			if err != nil {
				return err
			}
			if err := cfg.Validate(args); err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, "ok")
			return err
		},
	})
	return c
}
