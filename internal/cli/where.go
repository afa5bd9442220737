package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"millrace/activities"
	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workers"
)

func (a *app) where() *cobra.Command {
	c := &cobra.Command{
		Use: "where TOPIC/PARTITION@OFFSET", Short: "Show where an event is: which part, snapshot, file and job has an offset, or why none has", Args: cobra.ExactArgs(1),
		Example: "  millrace where raw.page/0@1234\n  millrace where events.purchase/3@77 -o json",
		RunE: func(c *cobra.Command, args []string) error {
			topic, partition, offset, err := parsePlace(args[0])
			if err != nil {
				return err
			}
			w, err := a.look(c.Context(), topic, partition, offset)
			if errors.Is(err, activities.ErrTopic) {
				return fault.New("MR-REC-001", err)
			}
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(w)
			}
			return a.whereabouts(w)
		},
	}
	a.outputs(c, "table", "json")
	return c
}

// parsePlace reads TOPIC/PARTITION@OFFSET.
func parsePlace(s string) (topic string, partition int32, offset int64, err error) {
	bad := fault.Newf("MR-REC-001", "%q is not TOPIC/PARTITION@OFFSET, such as raw.page/0@1234", s)
	topic, rest, ok := strings.Cut(s, "/")
	p, o, ok2 := strings.Cut(rest, "@")
	if !ok || !ok2 || topic == "" {
		return "", 0, 0, bad
	}
	n, err := strconv.ParseInt(p, 10, 32)
	if err != nil || n < 0 {
		return "", 0, 0, bad
	}
	if offset, err = strconv.ParseInt(o, 10, 64); err != nil || offset < 0 {
		return "", 0, 0, bad
	}
	return topic, int32(n), offset, nil
}

func (a *app) look(ctx context.Context, topic string, partition int32, offset int64) (*activities.Whereabouts, error) {
	cfg, err := a.load(true)
	if err != nil {
		return nil, err
	}
	if len(cfg.ClickHouse.Addr) == 0 {
		return nil, fault.Newf("MR-CLI-003", "no ClickHouse is known for data directory %s", cfg.Data)
	}
	conn, err := olap.Open(ctx, cfg.ClickHouse)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // only reads
	var lake activities.WhereLake
	if cfg.Iceberg.CatalogURI != "" {
		cat, err := lakehouse.Open(ctx, cfg.Iceberg)
		if err != nil {
			return nil, err
		}
		defer func() { _ = cat.Close() }() // only reads
		lake = cat
	}
	log := workers.EventLog(cfg, workers.RegisteredCodecs(cfg))
	defer log.Close()
	return activities.Where(ctx, olap.NewRepair(conn, cfg.ClickHouse.Cluster), lake, log, topic, partition, offset)
}

// whereabouts prints what was found for people.
func (a *app) whereabouts(w *activities.Whereabouts) error {
	if _, err := fmt.Fprintf(a.out, "%s/%d@%d: %s\n\n", w.Topic, w.Partition, w.Offset, w.Answer); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	rows := [][]string{{"STORE", "WHERE", "DETAIL"}, {"kafka", w.Kafka, ""}}
	for _, p := range w.ClickHouse {
		rows = append(rows, []string{"clickhouse", p.Table + " " + p.Part, fmt.Sprintf("row %d, event %s, %s/%d@%d of %s/%d@%d", p.Row, p.EventID, p.Topic, p.Partition, p.Offset, p.RawTopic, p.RawPart, p.RawOffset)})
	}
	for _, p := range w.Iceberg {
		rows = append(rows, []string{"iceberg", p.File, fmt.Sprintf("snapshot %d (%s), %d row", p.SnapshotID, p.Kind, p.Rows)})
	}
	for _, l := range w.BigQuery {
		rows = append(rows, []string{"bigquery", l.Job, fmt.Sprintf("snapshots (%d, %d], %s", l.From, l.To, l.Outcome)})
	}
	if e := w.Ledger; e != nil {
		rows = append(rows, []string{"control totals", fmt.Sprintf("%s/%d [%d, %d)", e.RawTopic, e.RawPartition, e.RawFrom, e.RawTo), fmt.Sprintf("%d rows, %d duplicates, %d failed, %d erased", e.Count, e.Duplicates, e.Failed, e.Erased)})
	}
	if w.Failed != "" {
		rows = append(rows, []string{"failed event", w.Failed, w.Reason})
	}
	for _, p := range w.Copies {
		rows = append(rows, []string{"duplicate of", fmt.Sprintf("%s/%d@%d", p.RawTopic, p.RawPart, p.RawOffset), "event " + p.EventID + " in part " + p.Part})
	}
	return a.table(rows)
}
