package cli

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"millrace/internal/fault"
	"millrace/live"
	"millrace/olap"
	"millrace/workers"
)

func (a *app) query() *cobra.Command {
	limits := olap.DefaultLimits()
	c := &cobra.Command{
		Use: "query SQL", Short: "Run a read-only SQL statement on ClickHouse", Args: cobra.ExactArgs(1),
		Example: "  millrace query 'SELECT name, count() FROM events GROUP BY name ORDER BY 2 DESC'",
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := a.load(true)
			if err != nil {
				return err
			}
			if len(cfg.ClickHouse.Addr) == 0 {
				return fault.Newf("MR-CLI-003", "no ClickHouse is known for data directory %s", cfg.Data)
			}
			ctx := c.Context()
			conn, err := olap.Open(ctx, cfg.ClickHouse)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }() // only reads
			rows, err := olap.Query(ctx, conn, args[0], limits)
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }() // Err tells
			if err := a.result(rows); err != nil {
				return err
			}
			if rows.Truncated() {
				_, _ = fmt.Fprintf(a.err, "cut at %d rows: raise --limit-rows or add LIMIT\n", limits.Rows) // progress
			}
			return nil
		},
	}
	c.Flags().IntVar(&limits.Rows, "limit-rows", limits.Rows, "rows at most")
	c.Flags().DurationVar(&limits.Time, "limit-time", limits.Time, "run time at most")
	c.Flags().Int64Var(&limits.Memory, "limit-memory", limits.Memory, "bytes of memory at most, on the server")
	a.outputs(c, "table", "json", "csv")
	return c
}

// result prints rows in the wanted form. JSON is an array of objects.
func (a *app) result(rows *olap.Rows) error {
	switch a.output {
	case "csv":
		w := csv.NewWriter(a.out)
		if err := w.Write(rows.Columns); err != nil {
			return fmt.Errorf("writing CSV: %w", err)
		}
		for rows.Next() {
			if err := w.Write(texts(rows.Values())); err != nil {
				return fmt.Errorf("writing CSV: %w", err)
			}
		}
		w.Flush()
		if err := w.Error(); err != nil {
			return fmt.Errorf("writing CSV: %w", err)
		}
	case "json":
		all := []map[string]any{}
		for rows.Next() {
			m := map[string]any{}
			for i, v := range rows.Values() {
				m[rows.Columns[i]] = v
			}
			all = append(all, m)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		return a.json(all)
	default:
		table := [][]string{rows.Columns}
		for rows.Next() {
			table = append(table, texts(rows.Values()))
		}
		if err := rows.Err(); err != nil {
			return err
		}
		return a.table(table)
	}
	return rows.Err()
}

func texts(values []any) []string {
	out := make([]string, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case nil:
			out[i] = "NULL"
		case string:
			out[i] = strings.NewReplacer("\t", " ", "\n", " ").Replace(v)
		case time.Time:
			out[i] = v.UTC().Format("2006-01-02 15:04:05.999999")
		case fmt.Stringer:
			out[i] = v.String()
		default:
			b, err := json.Marshal(v)
			if err != nil {
				out[i] = fmt.Sprint(v)
				continue
			}
			out[i] = string(b)
		}
	}
	return out
}

func (a *app) redisCmd() *cobra.Command {
	c := &cobra.Command{Use: "redis", Short: "Look after what is served from Redis"}
	c.AddCommand(&cobra.Command{
		Use: "rebuild", Short: "Have the Redis sink write everything again from Kafka", Args: cobra.NoArgs,
		Long: "Drop the recorded positions: the running Redis sink notices within seconds and writes everything that Kafka holds again. Values stay readable meanwhile.",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.load(true)
			if err != nil {
				return err
			}
			if len(cfg.Redis.Addr) == 0 {
				return fault.Newf("MR-CLI-003", "no Redis is known for data directory %s", cfg.Data)
			}
			rdb := redis.NewUniversalClient(workers.RedisOptions(cfg.Redis))
			defer func() { _ = rdb.Close() }() // one command
			n, err := live.ForgetProgress(c.Context(), rdb, cfg.Sink.Redis.Group)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%d positions dropped; the sink writes everything again\n", n)
			return err
		},
	})
	return c
}
