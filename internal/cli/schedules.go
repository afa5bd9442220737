package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/workflows"
	"millrace/workflows/name"
)

func (a *app) schedules() *cobra.Command {
	c := &cobra.Command{Use: "schedules", Aliases: []string{"schedule"}, Short: "Apply, list, trigger, pause and resume schedules on Temporal"}
	c.AddCommand(a.schedulesApply(), a.schedulesList(),
		a.scheduleDo("trigger ID", "Let a schedule start its workflow now", func(ctx context.Context, h client.ScheduleHandle) error {
			return h.Trigger(ctx, client.ScheduleTriggerOptions{Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP})
		}),
		a.scheduleDo("pause ID", "Start nothing by a schedule until it is resumed", func(ctx context.Context, h client.ScheduleHandle) error {
			return h.Pause(ctx, client.SchedulePauseOptions{Note: "paused with millrace schedules pause"})
		}),
		a.scheduleDo("resume ID", "Let a paused schedule start its workflow again", func(ctx context.Context, h client.ScheduleHandle) error {
			return h.Unpause(ctx, client.ScheduleUnpauseOptions{Note: "resumed with millrace schedules resume"})
		}))
	return c
}

func (a *app) schedulesApply() *cobra.Command {
	c := &cobra.Command{
		Use: "apply", Short: "Bring the schedules in Temporal to those of the configuration", Args: cobra.NoArgs,
		Long: "Bring the schedules in Temporal to those of the configuration (batch.maintain_every, batch.nightly_every and the others ending in every). The batch role does so on every start. Whether a schedule is paused stays as it is.",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, cfg, err := a.temporal(c.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
			defer cancel()
			done, err := workflows.Apply(ctx, cl, cfg.Schedules())
			if err != nil {
				return fault.New("MR-CLI-005", err)
			}
			if a.output == "json" {
				return a.json(done)
			}
			_, err = fmt.Fprintf(a.out, "%d created, %d updated, %d removed\n", len(done.Created), len(done.Updated), len(done.Removed))
			return err
		},
	}
	a.outputs(c, "text", "json")
	return c
}

func (a *app) schedulesList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List schedules: how often, next and last start", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, _, err := a.temporal(c.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			ctx, cancel := context.WithTimeout(c.Context(), temporalWait)
			defer cancel()
			all, err := workflows.List(ctx, cl)
			if err != nil {
				return fault.New("MR-CLI-005", err)
			}
			if a.output == "json" {
				return a.json(all)
			}
			rows := [][]string{{"ID", "STARTS", "EVERY", "STATE", "NEXT", "LAST"}}
			for _, s := range all {
				state := "active"
				if s.Paused {
					state = "paused"
				}
				rows = append(rows, []string{s.ID, s.Type, s.Every, state, when(s.Next), when(s.Last)})
			}
			return a.table(rows)
		},
	}
	a.outputs(c, "table", "json")
	return c
}

func when(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.DateTime)
}

func (a *app) scheduleDo(use, short string, do func(context.Context, client.ScheduleHandle) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var out []string
			for _, t := range lakehouse.StreamTables() {
				out = append(out, name.MaintainID(t))
			}
			out = append(out, name.NightlySchedule)
			return out, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			cl, _, err := a.temporal(c.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			ctx, cancel := context.WithTimeout(c.Context(), temporalWait)
			defer cancel()
			err = do(ctx, cl.ScheduleClient().GetHandle(ctx, args[0]))
			var gone *serviceerror.NotFound
			if errors.As(err, &gone) {
				return unknownSchedule(ctx, cl, args[0])
			}
			if err != nil {
				return fault.New("MR-CLI-005", err)
			}
			verb, _, _ := strings.Cut(use, " ")
			_, err = fmt.Fprintf(a.out, "%s: %s\n", args[0], map[string]string{"trigger": "triggered", "pause": "paused", "resume": "active"}[verb])
			return err
		},
	}
}

// unknownSchedule names the nearest of those that exist.
func unknownSchedule(ctx context.Context, cl client.Client, id string) error {
	all, err := workflows.List(ctx, cl)
	if err != nil {
		return fault.New("MR-CLI-005", err)
	}
	var ids []string
	for _, s := range all {
		ids = append(ids, s.ID)
	}
	if near := name.Nearest(id, ids); near != "" {
		return fault.Newf("MR-CLI-013", "no schedule %s, did you mean %s?", id, near)
	}
	return fault.Newf("MR-CLI-013", "no schedule %s; there are %s", id, strings.Join(ids, ", "))
}
