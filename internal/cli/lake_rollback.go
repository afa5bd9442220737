package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/activities"
	"millrace/event/schema"
	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workers"
)

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
	t, err := schema.TableNamed(table)
	return t.Topic, err == nil
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
