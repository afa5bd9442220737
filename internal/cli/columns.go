package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/olap"
)

func (a *app) columns() *cobra.Command {
	c := &cobra.Command{Use: "columns", Short: "Properties of events that are columns of their own"}
	c.AddCommand(a.listColumns(), a.promoteColumn())
	return c
}

func (a *app) listColumns() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List the promoted columns, and promotions that no sink can follow", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withControl(c.Context(), func(cl *kgo.Client) error {
				set, err := readPromotions(c.Context(), cl)
				if err != nil {
					return err
				}
				if a.output == "json" {
					return a.json(append([]schema.Promotion{}, set.All()...))
				}
				rows := [][]string{{"TABLE", "COLUMN", "TYPE", "PROPERTY", "FIELD ID", "FILLED SINCE"}}
				for _, p := range set.All() {
					rows = append(rows, []string{"events_" + p.Category, p.Name, p.Type, p.From(), strconv.Itoa(p.ID), p.Since.Format(time.RFC3339)})
				}
				if err := a.table(rows); err != nil {
					return err
				}
				for _, key := range slices.Sorted(maps.Keys(set.Refused())) {
					_, _ = fmt.Fprintf(a.err, "not followed: %s: %v\n", key, set.Refused()[key]) // progress
				}
				return nil
			})
		},
	}
	a.outputs(c, "table", "json")
	return c
}

// sinceAfter is how long after a promotion its column is filled for certain: the sinks have read it and changed their tables by then.
const sinceAfter = time.Minute

func (a *app) promoteColumn() *cobra.Command {
	var dry bool
	p := schema.Promotion{}
	c := &cobra.Command{
		Use: "promote CATEGORY NAME TYPE", Short: "Make a property of a category's events a column, while traffic runs",
		Long: "The sinks add the column to events_CATEGORY in ClickHouse and Iceberg and fill it from the property of the same name from then on; BigQuery gets it with its next load.\n" +
			"TYPE is one of " + strings.Join(schema.PromotedTypes(), ", ") + "; an int column is made wider by promoting it again as long. The property stays in properties, and so does a\n" +
			"value that does not fit the type (the column is NULL there, and it is counted). Rows that arrived before are not filled.",
		Example: "  millrace columns promote purchase gift_wrap bool\n  millrace columns promote custom score long --property quizScore --dry-run",
		Args:    cobra.ExactArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			p.Category, p.Name, p.Type = args[0], args[1], args[2]
			return a.withControl(c.Context(), func(cl *kgo.Client) error {
				out, err := promote(c.Context(), cl, p, time.Now(), dry)
				if err != nil {
					return err
				}
				return a.promoted(out, dry)
			})
		},
	}
	c.Flags().StringVar(&p.Property, "property", "", "key of the property, if it is not the column's name")
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be done and do nothing")
	a.outputs(c, "table", "json")
	return c
}

func (a *app) promoted(p schema.Promotion, dry bool) error {
	if a.output == "json" {
		return a.json(p)
	}
	col := p.Column()
	rows := [][]string{
		{"TABLE", "events_" + p.Category},
		{"COLUMN", fmt.Sprintf("%s, filled from property %q", p.Name, p.From())},
		{"CLICKHOUSE", olap.ColumnType(col.Field)},
		{"ICEBERG", fmt.Sprintf("%s, field id %d", lakehouse.ColumnType(col), p.ID)},
		{"FILLED SINCE", "ingested_at " + p.Since.Format(time.RFC3339) + " (earlier rows may have NULL)"},
	}
	if dry {
		rows = append(rows, []string{"DRY RUN", "nothing was written"})
	}
	return a.table(rows)
}

// withControl opens a client of the broker.
func (a *app) withControl(ctx context.Context, f func(*kgo.Client) error) error {
	cfg, err := a.load(true)
	if err != nil {
		return err
	}
	if len(cfg.Kafka.Brokers) == 0 {
		return fault.Newf("MR-CLI-003", "no Kafka is known for data directory %s", cfg.Data)
	}
	cl, err := kgo.NewClient(append(cfg.Kafka.Options(), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return fmt.Errorf("connecting to Kafka: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		return fmt.Errorf("asking Kafka at %s: %w", strings.Join(cfg.Kafka.Brokers, ","), err)
	}
	return f(cl)
}

// promotionWait bounds one command's work with the topic control.
const promotionWait = 30 * time.Second

// readPromotions reads the topic control to its end.
func readPromotions(ctx context.Context, cl *kgo.Client) (*schema.Promotions, error) {
	ctx, cancel := context.WithTimeout(ctx, promotionWait)
	defer cancel()
	set := &schema.Promotions{}
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, event.TopicControl)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("reading topic %s: %w", event.TopicControl, err)
	}
	end, _ := ends.Lookup(event.TopicControl, 0)
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{event.TopicControl: {0: kgo.NewOffset().AtStart()}})
	defer cl.RemoveConsumePartitions(map[string][]int32{event.TopicControl: {0}})
	next := int64(0)
	for next < end.Offset {
		before := next
		wait, cancel := context.WithTimeout(ctx, 5*time.Second)
		fetches := cl.PollFetches(wait)
		cancel()
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) {
				return nil, fmt.Errorf("reading topic %s: %w", event.TopicControl, e.Err)
			}
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			set.Apply(r.Key, r.Value)
		})
		if next == before { // compaction may have removed the last record
			break
		}
	}
	return set, ctx.Err()
}

// promote writes the promotion and gives it as the sinks will follow it. Two commands at the same time may choose the same field id: the topic's order says whose
// it is, and the other chooses again.
func promote(ctx context.Context, cl *kgo.Client, p schema.Promotion, now time.Time, dry bool) (schema.Promotion, error) {
	p.Since = now.UTC().Add(sinceAfter).Truncate(time.Second)
	const attempts = 5
	for range attempts {
		set, err := readPromotions(ctx, cl)
		if err != nil {
			return p, err
		}
		next, err := set.Next(p)
		if err != nil {
			return p, fault.Newf("MR-EVT-010", "%s.%s: %w", p.Category, p.Name, err)
		}
		if dry {
			return next, nil
		}
		key, value, err := next.Record()
		if err != nil {
			return p, err
		}
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: event.TopicControl, Key: key, Value: value}).FirstErr(); err != nil {
			return p, fmt.Errorf("writing to topic %s: %w", event.TopicControl, err)
		}
		if set, err = readPromotions(ctx, cl); err != nil {
			return p, err
		}
		if slices.Contains(set.All(), next) {
			return next, nil
		}
	}
	return p, fault.Newf("MR-EVT-010", "%s.%s: others promote columns at the same time; nothing was promoted", p.Category, p.Name)
}
