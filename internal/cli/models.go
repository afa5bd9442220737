package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"millrace/internal/fault"
	"millrace/live"
	"millrace/olap"
	"millrace/workers"
	"millrace/workflows/name"
)

func (a *app) models() *cobra.Command {
	c := &cobra.Command{Use: "models", Short: "Trained recommendations: versions, measurements, rollback"}
	c.AddCommand(a.listModels(), a.showModel(), a.rollbackModel())
	return c
}

func tenantFlag(c *cobra.Command, tenant *string) {
	c.Flags().StringVar(tenant, "tenant", "default", "whose model")
}

func (a *app) listModels() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List trained versions, the newest first, with what they measured and what became of them", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.load(true)
			if err != nil {
				return err
			}
			if len(cfg.ClickHouse.Addr) == 0 {
				return fault.Newf("MR-CLI-003", "no ClickHouse is known for data directory %s", cfg.Data)
			}
			conn, err := olap.Open(c.Context(), cfg.ClickHouse)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }() // only reads
			rows, err := olap.Models(c.Context(), conn, limit)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(rows)
			}
			out := [][]string{{"MODEL", "TENANT", "VERSION", "STATE", "RECALL@20", "POPULAR", "COVERAGE", "ITEMS", "ROWS", "TRAINED", "REASON"}}
			for _, m := range rows {
				out = append(out, []string{
					m.Model, m.Tenant, m.Version, m.State, ratio(m.Metrics["recall_at_20"]), ratio(m.Metrics["popular_recall_at_20"]), ratio(m.Metrics["coverage"]),
					strconv.FormatInt(m.Items, 10), strconv.FormatInt(m.Rows, 10), m.TrainedAt.UTC().Format(time.DateTime), m.Reason,
				})
			}
			return a.table(out)
		},
	}
	c.Flags().IntVar(&limit, "limit", 50, "versions at most")
	a.outputs(c, "table", "json")
	return c
}

func ratio(v float64) string { return strconv.FormatFloat(v, 'f', 4, 64) }

func (a *app) showModel() *cobra.Command {
	tenant, item, limit := "", "", 10
	c := &cobra.Command{
		Use: "show MODEL", Short: "Show the versions that can be served, and what the one that is served recommends for an item", Args: cobra.ExactArgs(1),
		Example: "  millrace models show similar-items --item sku-0001",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withModel(args[0], tenant, func(rdb redis.UniversalClient, m live.RecommendationModel) error {
				current, all, err := live.ModelVersions(c.Context(), rdb, m)
				if err != nil {
					return modelFault(err)
				}
				var about []live.Scored
				if item != "" {
					about = []live.Scored{{Item: item, Score: 1}}
				}
				got, err := live.Recommend(c.Context(), rdb, m, about, limit)
				if err != nil {
					return modelFault(err)
				}
				if a.output == "json" {
					return a.json(map[string]any{"current": current.Version, "versions": all, "basis": got.Basis, "items": got.Items})
				}
				rows := [][]string{{"VERSION", "SERVED", "INPUT", "TRAINED", "ITEMS", "RECALL@20", "POPULAR"}}
				for _, v := range all {
					served := ""
					if v.Version == current.Version {
						served = "yes"
					}
					rows = append(rows, []string{v.Version, served, v.InputAt.UTC().Format(time.DateTime), v.TrainedAt.UTC().Format(time.DateTime), strconv.Itoa(v.Items), ratio(v.Metrics["recall_at_20"]), ratio(v.Metrics["popular_recall_at_20"])})
				}
				if err := a.table(rows); err != nil {
					return err
				}
				if _, err := fmt.Fprintln(a.out); err != nil {
					return fmt.Errorf("writing a table: %w", err)
				}
				rows = [][]string{{"RECOMMENDED FOR " + cmp.Or(item, "anybody"), "SCORE"}}
				for _, s := range got.Items {
					rows = append(rows, []string{s.Item, ratio(s.Score)})
				}
				return a.table(rows)
			})
		},
	}
	tenantFlag(c, &tenant)
	c.Flags().StringVar(&item, "item", "", "item id; without one the most popular items are shown")
	c.Flags().IntVar(&limit, "limit", limit, "items at most")
	a.outputs(c, "table", "json")
	return c
}

func (a *app) rollbackModel() *cobra.Command {
	tenant, to := "", ""
	c := &cobra.Command{
		Use: "rollback MODEL", Short: "Serve an older version of a model, at once", Args: cobra.ExactArgs(1),
		Long: "Without --to the newest version before the one that is served takes its place. The version that is left is not published again by a training that is repeated;\n" +
			"one on newer events is. `millrace models show` lists the versions that are kept.",
		Example: "  millrace models rollback similar-items",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withModel(args[0], tenant, func(rdb redis.UniversalClient, m live.RecommendationModel) error {
				from, now, err := live.RollbackModel(c.Context(), rdb, m, to)
				if err != nil {
					return modelFault(err)
				}
				if a.output == "json" {
					return a.json(map[string]string{"model": m.Model, "tenant": m.Tenant, "from": from.Version, "to": now.Version})
				}
				_, err = fmt.Fprintf(a.out, "%s of tenant %s: version %s is served, %s was\n", m.Model, m.Tenant, now.Version, from.Version)
				return err
			})
		},
	}
	tenantFlag(c, &tenant)
	c.Flags().StringVar(&to, "to", "", "version to be served")
	a.outputs(c, "table", "json")
	return c
}

// withModel opens Redis for a command about a model.
func (a *app) withModel(model, tenant string, f func(redis.UniversalClient, live.RecommendationModel) error) error {
	if err := name.ValidModel(model); err != nil {
		return fault.Newf("MR-CLI-001", "%w", err)
	}
	cfg, err := a.load(true)
	if err != nil {
		return err
	}
	if len(cfg.Redis.Addr) == 0 {
		return fault.Newf("MR-CLI-003", "no Redis is known for data directory %s", cfg.Data)
	}
	rdb := redis.NewUniversalClient(workers.RedisOptions(cfg.Redis))
	defer func() { _ = rdb.Close() }() // what was written is acknowledged
	return f(rdb, live.RecommendationModel{Tenant: tenant, Model: model})
}

func modelFault(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, live.ErrNoModel):
		return fault.New("MR-TRN-001", err)
	case errors.Is(err, live.ErrNoVersion), errors.Is(err, live.ErrModelIncomplete):
		return fault.New("MR-TRN-002", err)
	}
	return err
}
