package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/iceberg-go/catalog"
	"github.com/spf13/cobra"

	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/workflows/name"
)

func (a *app) lake() *cobra.Command {
	c := &cobra.Command{Use: "lake", Short: "Look at and move the refs of Iceberg tables: publish, roll back, resume, quarantine"}
	c.AddCommand(a.lakeRefs(), a.lakeLog(), a.lakePublish(), a.lakeRollback(), a.lakeResume(), a.lakePublications(), a.lakeApprove(), a.lakeQuarantine())
	return c
}

// lakeError gives errors of the lakehouse the id under which users find them.
func lakeError(table string, err error) error {
	switch _, known := fault.IDOf(err); {
	case err == nil || known:
		return err
	case errors.Is(err, catalog.ErrNoSuchTable):
		return noTable(table)
	case errors.Is(err, lakehouse.ErrNoRef), errors.Is(err, lakehouse.ErrNoSnapshot):
		return fault.New("MR-ICE-060", err)
	case errors.Is(err, lakehouse.ErrDiverged), errors.Is(err, lakehouse.ErrConflict):
		return fault.New("MR-ICE-064", err)
	}
	return err
}

// noTable is the error of a table that is not there.
func noTable(table string) error {
	if near := name.Nearest(table, lakehouse.StreamTables()); near != "" {
		return fault.Newf("MR-CLI-008", "there is no Iceberg table %s, did you mean %s?", table, near)
	}
	return fault.Newf("MR-CLI-008", "there is no Iceberg table %s", table)
}

// known refuses the name of a table of which nothing is noted, where that is because there is no such table.
func known(table string, noted int) error {
	if noted == 0 && !slices.Contains(lakehouse.StreamTables(), table) {
		return noTable(table)
	}
	return nil
}

// asOfRef is the ref of a time that a user gives.
func asOfRef(text string) (string, error) {
	if _, err := time.Parse(time.RFC3339, text); err != nil {
		return "", fault.Newf("MR-CLI-001", "--as-of %.60q: is no time such as 2026-03-01T12:00:00Z", text)
	}
	return "as-of:" + text, nil
}

func (a *app) completeTables() func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return lakehouse.StreamTables(), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) lakeRefs() *cobra.Command {
	c := &cobra.Command{
		Use: "refs TABLE", Short: "Show the branches and tags of a table, with the offsets that each holds", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeTables(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withLake(c.Context(), func(cat *lakehouse.Catalog) error {
				refs, err := cat.Refs(c.Context(), args[0])
				if err != nil {
					return lakeError(args[0], err)
				}
				if a.output == "json" {
					return a.json(refs)
				}
				rows := [][]string{{"REF", "KIND", "SNAPSHOT", "OF", "UNTIL", "OFFSETS"}}
				for _, r := range refs {
					until := ""
					if !r.Until.IsZero() {
						until = r.Until.Format(time.DateTime)
					}
					rows = append(rows, []string{r.Name, r.Kind, strconv.FormatInt(r.SnapshotID, 10), r.At.Format(time.DateTime), until, r.Vector.String()})
				}
				return a.table(rows)
			})
		},
	}
	a.outputs(c, "table", "json")
	return c
}

func (a *app) lakeLog() *cobra.Command {
	var ref string
	var limit int
	c := &cobra.Command{
		Use: "log TABLE", Short: "Show what made a table what it is: its snapshots, the newest first", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeTables(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withLake(c.Context(), func(cat *lakehouse.Catalog) error {
				changes, err := cat.Log(c.Context(), args[0], ref, limit)
				if err != nil {
					return lakeError(args[0], err)
				}
				if a.output == "json" {
					return a.json(changes)
				}
				refs, err := cat.Refs(c.Context(), args[0])
				if err != nil {
					return lakeError(args[0], err)
				}
				rows := [][]string{{"SNAPSHOT", "OF", "KIND", "ROWS", "REFS"}}
				for _, ch := range changes {
					var names []string
					for _, r := range refs {
						if r.SnapshotID == ch.SnapshotID {
							names = append(names, r.Name)
						}
					}
					rows = append(rows, []string{strconv.FormatInt(ch.SnapshotID, 10), ch.At.Format(time.DateTime), ch.Kind, fmt.Sprintf("%+d", ch.Rows), strings.Join(names, ",")})
				}
				return a.table(rows)
			})
		},
	}
	c.Flags().StringVar(&ref, "ref", lakehouse.RefMain, "branch or tag")
	c.Flags().IntVar(&limit, "limit", 20, "snapshots at most; 0: all")
	a.outputs(c, "table", "json")
	return c
}

func (a *app) lakePublish() *cobra.Command {
	var in name.PublishTableInput
	var wait bool
	c := &cobra.Command{
		Use: "publish TABLE...", Short: "Check what is new on main and move published there (by workflow PublishTable)", Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.completeTables(),
		Long: "Check what is new on main of a table against its control totals and move published there. Tables are published one after the other; one that is refused does not keep the others from it.",
		RunE: func(c *cobra.Command, args []string) error {
			for _, t := range args {
				if err := known(t, 0); err != nil {
					return err
				}
			}
			cl, _, err := a.temporal(c.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			var errs []error
			for _, t := range args {
				in.Table = t
				errs = append(errs, a.startOne(c.Context(), cl, name.PublishTable, in, wait))
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().BoolVar(&in.Full, "full", false, "read all rows again, not only those that are new")
	c.Flags().BoolVar(&wait, "wait", false, "show the progress and wait for the end")
	return c
}
