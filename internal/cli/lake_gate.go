package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"millrace/activities"
	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/workers"
	"millrace/workflows/name"
)

func (a *app) lakeQuarantine() *cobra.Command {
	c := &cobra.Command{Use: "quarantine", Short: "Take rows out of a table, list them, bring them back"}
	var where, reason, run string
	put := &cobra.Command{
		Use: "put TABLE --where FILTER --reason TEXT", Short: "Move the rows that a filter names into the quarantine of a table", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeTables(),
		Example: "  millrace lake quarantine put events_purchase --where \"source = 'pos-7' AND value > 100000\" --reason 'cents as units'",
		RunE: func(c *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return fault.Newf("MR-CLI-001", "--reason: is missing")
			}
			return a.withLake(c.Context(), func(cat *lakehouse.Catalog) error {
				t, err := cat.Load(c.Context(), args[0])
				if err != nil {
					return lakeError(args[0], err)
				}
				filter, err := lakehouse.ParseFilter(t.Schema(), where)
				if err != nil {
					return err
				}
				res, err := cat.Quarantine(c.Context(), args[0], cmp.Or(run, "q-"+uuid.NewString()), reason, filter)
				if err != nil {
					return lakeError(args[0], err)
				}
				return a.quarantined(res, "moved into quarantine")
			})
		},
	}
	put.Flags().StringVar(&where, "where", "", "which rows: COLUMN OP LITERAL, joined by AND")
	put.Flags().StringVar(&reason, "reason", "", "why; kept with each row")
	put.Flags().StringVar(&run, "run", "", "go on with a run that ended early")
	a.outputs(put, "text", "json")
	list := &cobra.Command{
		Use: "list TABLE", Short: "Show which rows of a table are in quarantine, by run", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeTables(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withLake(c.Context(), func(cat *lakehouse.Catalog) error {
				runs, err := cat.Quarantined(c.Context(), args[0])
				if err == nil {
					err = known(args[0], len(runs))
				}
				if err != nil {
					return lakeError(args[0], err)
				}
				if a.output == "json" {
					return a.json(runs)
				}
				rows := [][]string{{"RUN", "SINCE", "ROWS", "REASON"}}
				for _, r := range runs {
					rows = append(rows, []string{r.Run, r.At.Format(time.DateTime), strconv.FormatInt(r.Rows, 10), r.Reason})
				}
				return a.table(rows)
			})
		},
	}
	a.outputs(list, "table", "json")
	var id string
	release := &cobra.Command{
		Use: "release TABLE RUN", Short: "Bring the rows of a quarantine run back into their table", Args: cobra.ExactArgs(2), ValidArgsFunction: a.completeTables(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withLake(c.Context(), func(cat *lakehouse.Catalog) error {
				return a.withClickHouse(c.Context(), func(conn driver.Conn, cfg workers.Config) error {
					key, err := activities.ReadSubjectKey(cfg.ErasureDir())
					if err != nil {
						return err
					}
					erased, err := activities.NewErasedLedger(conn, key).Erased(c.Context())
					if err != nil {
						return err
					}
					res, err := cat.Release(c.Context(), args[0], args[1], cmp.Or(id, "r-"+uuid.NewString()), erased)
					if err != nil {
						return lakeError(args[0], err)
					}
					if res.Removed == 0 {
						return fault.Newf("MR-ICE-064", "no rows of %s are in quarantine from run %s", args[0], args[1])
					}
					return a.quarantined(res, "brought back")
				})
			})
		},
	}
	release.Flags().StringVar(&id, "id", "", "go on with a release that ended early")
	a.outputs(release, "text", "json")
	c.AddCommand(put, list, release)
	return c
}

func (a *app) quarantined(r lakehouse.QuarantineResult, what string) error {
	if a.output == "json" {
		return a.json(r)
	}
	text := fmt.Sprintf("%d rows of %s %s, run %s\n", r.Rows, r.Table, what, r.Run)
	if r.Present > 0 {
		text += fmt.Sprintf("%d were in the table already\n", r.Present)
	}
	if r.Dropped > 0 {
		text += fmt.Sprintf("%d were dropped: their subjects have been erased\n", r.Dropped)
	}
	_, err := fmt.Fprint(a.out, text)
	return err
}

func (a *app) lakePublications() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "publications TABLE", Short: "Show what was published of a table, and what was refused and why", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeTables(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClickHouse(c.Context(), func(conn driver.Conn, _ workers.Config) error {
				list, err := activities.Publications(c.Context(), conn, args[0], limit)
				if err == nil {
					err = known(args[0], len(list))
				}
				if err != nil {
					return err
				}
				if a.output == "json" {
					return a.json(list)
				}
				rows := [][]string{{"FINISHED", "OUTCOME", "SNAPSHOT", "ROWS", "NEW", "TAG", "RUN", "WHY"}}
				for _, p := range list {
					rows = append(rows, []string{
						p.FinishedAt.Format(time.DateTime), p.Outcome, strconv.FormatInt(p.To, 10), strconv.FormatInt(p.Rows, 10), strconv.FormatInt(p.Checks[lakehouse.CheckNew], 10), p.Tag, p.Run,
						strings.Join(append(slices.Clone(p.Problems), p.Reason), "; "),
					})
				}
				return a.table(rows)
			})
		},
	}
	c.Flags().IntVar(&limit, "limit", 20, "publications at most")
	a.outputs(c, "table", "json")
	return c
}

func (a *app) lakeApprove() *cobra.Command {
	var snapshot int64
	var reason, by string
	var wait bool
	c := &cobra.Command{
		Use: "approve TABLE --reason TEXT", Short: "Publish a snapshot that was refused: PublishTable makes its checks again and publishes whatever they say", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeTables(),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			if strings.TrimSpace(reason) == "" {
				return fault.Newf("MR-CLI-001", "--reason: is missing")
			}
			if snapshot == 0 {
				err := a.withClickHouse(ctx, func(conn driver.Conn, _ workers.Config) error {
					list, err := activities.Publications(ctx, conn, args[0], 1)
					if err == nil {
						err = known(args[0], len(list))
					}
					if err == nil && (len(list) == 0 || list[0].Outcome != name.Refused) {
						err = errNothingRefused
					}
					if err == nil {
						snapshot = list[0].To
					}
					return err
				})
				if errors.Is(err, errNothingRefused) {
					return fault.New("MR-ICE-064", fmt.Errorf("table %s: %w", args[0], err))
				}
				if err != nil {
					return err
				}
			}
			in := name.PublishTableInput{Table: args[0], Approve: &name.PublishApproval{Snapshot: snapshot, Reason: reason, By: cmp.Or(by, whoami())}}
			if err := in.Validate(); err != nil {
				return fault.Newf("MR-CLI-007", "input of %s: %w", name.PublishTable, err)
			}
			cl, _, err := a.temporal(ctx)
			if err != nil {
				return err
			}
			defer cl.Close()
			call, cancel := context.WithTimeout(ctx, temporalWait)
			run, started, err := activities.Start(call, cl, activities.StartRequest{Type: name.PublishTable, Input: []byte(name.Text(in)), Trigger: name.Manual})
			cancel()
			if err != nil {
				return fault.New("MR-CLI-005", err)
			}
			if started.Joined {
				return fault.Newf("MR-CLI-012", "%s runs already: if it waits for a decision, give it in the Temporal UI as the update %s, or wait for its end", started.ID, name.Approve)
			}
			if wait {
				return a.waitFor(ctx, cl, run, started)
			}
			_, err = fmt.Fprintf(a.out, "started %s for snapshot %d\n", started.ID, snapshot)
			return err
		},
	}
	c.Flags().Int64Var(&snapshot, "snapshot", 0, "which snapshot; absent: the one that was refused last")
	c.Flags().StringVar(&reason, "reason", "", "why; kept in publications")
	c.Flags().StringVar(&by, "by", "", "who decides; absent: who runs the command")
	c.Flags().BoolVar(&wait, "wait", false, "wait for the end")
	return c
}

var errNothingRefused = errors.New("no snapshot of it was refused that is not published by now")
