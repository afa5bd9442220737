package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/apache/iceberg-go/catalog"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/activities"
	"millrace/event"
	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workers"
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

func (a *app) lakeRollback() *cobra.Command {
	var to int64
	var asOf, reason string
	var o lakehouse.RollbackOptions
	c := &cobra.Command{
		Use: "rollback TABLE --to SNAPSHOT | --as-of TIME", Short: "Set main of a table back to an earlier snapshot", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeTables(),
		Long: `Set main of a table back to an earlier snapshot, in one commit.

Without --skip the Iceberg sink finds the table behind, goes back in Kafka and writes the rows since then again: for a table that was damaged. If Kafka no longer
holds them the sink stops and names them (MR-ICE-004); see millrace lake resume.
With --skip the table keeps today's offsets: what was written since stays away, until a Reconcile finds it missing. For rows that are themselves wrong.`,
		Example: "  millrace lake rollback events_purchase --as-of 2026-03-01T12:00:00Z --dry-run",
		RunE: func(c *cobra.Command, args []string) error {
			if (to == 0) == (asOf == "") {
				return fault.Newf("MR-CLI-001", "one of --to and --as-of must be given")
			}
			if o.WithPublished && strings.TrimSpace(reason) == "" {
				return fault.Newf("MR-CLI-001", "--with-published needs --reason: readers of published lose rows that they have seen")
			}
			ref := fmt.Sprintf("snapshot:%d", to)
			if asOf != "" {
				var err error
				if ref, err = asOfRef(asOf); err != nil {
					return err
				}
			}
			return a.withLake(c.Context(), func(cat *lakehouse.Catalog) error {
				at, err := cat.Ref(c.Context(), args[0], ref)
				if err != nil {
					return lakeError(args[0], err)
				}
				o.To, o.Run = at.SnapshotID, "rollback-"+uuid.NewString()
				began := time.Now()
				res, err := cat.Rollback(c.Context(), args[0], o)
				if err != nil {
					return lakeError(args[0], err)
				}
				if res.PublishedFrom != 0 && !o.DryRun {
					if err := a.noteRollback(c.Context(), res, o.Run, reason, began); err != nil {
						return fmt.Errorf("main and published were set back, but publications could not be written: %w", err)
					}
				}
				if a.output == "json" {
					return a.json(res)
				}
				return a.rolledBack(res)
			})
		},
	}
	c.Flags().Int64Var(&to, "to", 0, "the snapshot, see millrace lake log")
	c.Flags().StringVar(&asOf, "as-of", "", "what main was at a time such as 2026-03-01T12:00:00Z")
	c.Flags().BoolVar(&o.Skip, "skip", false, "keep the offsets: rows written since stay away")
	c.Flags().BoolVar(&o.WithPublished, "with-published", false, "set published back too, if it is ahead; needs --reason")
	c.Flags().StringVar(&reason, "reason", "", "why, for the table publications")
	c.Flags().BoolVar(&o.DryRun, "dry-run", false, "only say what would be done")
	a.outputs(c, "text", "json")
	return c
}

func (a *app) rolledBack(r lakehouse.RollbackResult) error {
	verb := "went back"
	if r.DryRun {
		verb = "would go back"
	}
	text := fmt.Sprintf("main of %s %s from snapshot %d to %d of %s: %d rows become %d, %d snapshots are left behind\n", r.Table, verb, r.From, r.To, r.At.Format(time.DateTime), r.Rows, r.RowsAfter, r.Left)
	if r.From == r.To {
		text = fmt.Sprintf("main of %s is at snapshot %d already\n", r.Table, r.To)
	}
	if r.PublishedFrom != 0 {
		text += fmt.Sprintf("published %s with it from snapshot %d\n", verb, r.PublishedFrom)
	}
	var ranges strings.Builder
	for _, o := range r.Offsets {
		what := "the sink writes them again"
		if r.Skipped {
			what = "they stay away"
		}
		fmt.Fprintf(&ranges, "  offsets [%d, %d) of partition %d: %s\n", o.From, o.To, o.Partition, what)
	}
	_, err := fmt.Fprint(a.out, text+ranges.String())
	return err
}

// withClickHouse opens ClickHouse for a command.
func (a *app) withClickHouse(ctx context.Context, f func(driver.Conn, workers.Config) error) error {
	cfg, err := a.load(true)
	if err != nil {
		return err
	}
	if len(cfg.ClickHouse.Addr) == 0 {
		return fault.Newf("MR-CLI-003", "no ClickHouse is known for data directory %s", cfg.Data)
	}
	conn, err := olap.Open(ctx, cfg.ClickHouse)
	if err != nil {
		return err
	}
	return errors.Join(f(conn, cfg), conn.Close())
}

// noteRollback writes into publications that published went back.
func (a *app) noteRollback(ctx context.Context, r lakehouse.RollbackResult, run, reason string, began time.Time) error {
	return a.withClickHouse(ctx, func(conn driver.Conn, cfg workers.Config) error {
		return activities.NewRuns(conn, nil, cfg.ClickHouse.Cluster).NotePublishedBack(ctx, activities.PublishedBack{
			Table: r.Table, Run: run, From: r.PublishedFrom, To: r.Published, Rows: r.RowsAfter, Reason: reason, By: whoami(), StartedAt: began,
		})
	})
}

// whoami names who runs a command, for records of decisions.
func whoami() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

func (a *app) lakeResume() *cobra.Command {
	var skip bool
	c := &cobra.Command{
		Use: "resume TABLE", Short: "Let the sink go on with a table whose next rows Kafka no longer holds", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeTables(),
		Long: `Compare the offsets of a table with what Kafka still holds. If rows in between are gone, the sink has stopped with MR-ICE-004: this names them and, with --skip,
carries the table's offsets over them. The sink, which its supervisor starts again, then goes on behind them.`,
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			topic, ok := topicOf(args[0])
			if !ok {
				return fault.Newf("MR-CLI-008", "%s is no table of the stream", args[0])
			}
			return a.withLake(ctx, func(cat *lakehouse.Catalog) error {
				first, err := a.firstOffsets(ctx, topic)
				if err != nil {
					return err
				}
				main, err := cat.Ref(ctx, args[0], lakehouse.RefMain)
				if err != nil {
					return lakeError(args[0], err)
				}
				var lost []lakehouse.OffsetRange
				for id, parts := range first {
					for p, next := range parts {
						if at := main.Vector.At(id, p); main.Vector.Has(id, p) && at < next {
							lost = append(lost, lakehouse.OffsetRange{TopicID: id, Partition: p, From: at, To: next})
						}
					}
				}
				slices.SortFunc(lost, func(x, y lakehouse.OffsetRange) int { return cmp.Compare(x.Partition, y.Partition) })
				switch {
				case len(lost) == 0:
					_, err := fmt.Fprintf(a.out, "Kafka holds all that %s lacks: nothing to do\n", args[0])
					return err
				case !skip:
					for _, o := range lost {
						if _, err := fmt.Fprintf(a.out, "offsets [%d, %d) of %s/%d are in neither\n", o.From, o.To, topic, o.Partition); err != nil {
							return err
						}
					}
					return fault.Newf("MR-ICE-064", "%d ranges of %s would be lost: restore them, or accept that with --skip", len(lost), args[0])
				}
				skipped, err := cat.SkipTo(ctx, args[0], first, "resume-"+uuid.NewString())
				if err != nil {
					return lakeError(args[0], err)
				}
				for _, o := range skipped {
					if _, err := fmt.Fprintf(a.out, "skipped offsets [%d, %d) of %s/%d\n", o.From, o.To, topic, o.Partition); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	c.Flags().BoolVar(&skip, "skip", false, "accept that the named rows are lost to the table")
	return c
}

// topicOf is the topic that a table is fed from.
func topicOf(table string) (string, bool) {
	for _, c := range event.Categories() {
		if c.Table() == table {
			return c.EventsTopic(), true
		}
	}
	return event.TopicEventsFailed, table == lakehouse.FailedTable
}

// firstOffsets asks Kafka for the first offsets that it holds of a topic.
func (a *app) firstOffsets(ctx context.Context, topic string) (lakehouse.Vector, error) {
	cfg, err := a.load(true)
	if err != nil {
		return nil, err
	}
	if len(cfg.Kafka.Brokers) == 0 {
		return nil, fault.Newf("MR-CLI-003", "no Kafka is known for data directory %s", cfg.Data)
	}
	cl, err := kgo.NewClient(cfg.Kafka.Options()...)
	if err != nil {
		return nil, fmt.Errorf("connecting to Kafka: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	details, err := adm.ListTopics(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("asking Kafka for topic %s: %w", topic, err)
	}
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("asking Kafka for the offsets of %s: %w", topic, err)
	}
	out := lakehouse.Vector{}
	starts.Each(func(o kadm.ListedOffset) { out.Set(details[topic].ID.String(), o.Partition, o.Offset) })
	return out, nil
}

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

var errNothingRefused = errors.New("no snapshot of it was refused that is not published by now")

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
