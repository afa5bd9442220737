package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/activities"
	"millrace/event/schema"
	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/lakehouse/bigquery"
	"millrace/olap"
	"millrace/workers"
	"millrace/workflows/name"
)

func (a *app) bigQuery() *cobra.Command {
	c := &cobra.Command{Use: "bigquery", Aliases: []string{"bq"}, Short: "Load published tables into BigQuery, compare them, and define the lake's tables there"}
	c.AddCommand(a.bigQueryStatus(), a.bigQueryLoad(), a.bigQueryVerify(), a.bigQueryDDL())
	return c
}

// bigQueryTables checks the tables that a command names; none are all.
func bigQueryTables(args []string) ([]string, error) {
	all := schema.BigQueryTables()
	if len(args) == 0 {
		return all, nil
	}
	for _, t := range args {
		if !slices.Contains(all, t) {
			return nil, fault.New("MR-CLI-008", activities.CheckTable(t, all))
		}
	}
	return args, nil
}

func completeBigQueryTables(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return schema.BigQueryTables(), cobra.ShellCompDirectiveNoFileComp
}

// warehouse connects to the lake and to BigQuery; the function closes both.
func (a *app) warehouse(ctx context.Context) (*bigquery.Store, *lakehouse.Catalog, workers.Config, func() error, error) {
	cfg, err := a.load(true)
	if err != nil {
		return nil, nil, cfg, nil, err
	}
	if !cfg.BigQuery.Enabled() {
		return nil, nil, cfg, nil, fault.Newf("MR-BQ-002", "BigQuery is not configured, and no emulator is known for data directory %s", cfg.Data)
	}
	if cfg.Iceberg.CatalogURI == "" {
		return nil, nil, cfg, nil, fault.Newf("MR-CLI-003", "no lake is known for data directory %s", cfg.Data)
	}
	lake, err := lakehouse.Open(ctx, cfg.Iceberg)
	if err != nil {
		return nil, nil, cfg, nil, err
	}
	cfg.Log.Level = "error" // a command's own output is its log
	s, err := bigquery.Open(ctx, cfg.BigQuery, lake, a.logger(cfg))
	if err != nil {
		return nil, nil, cfg, nil, errors.Join(err, lake.Close())
	}
	return s, lake, cfg, func() error { return errors.Join(s.Close(), lake.Close()) }, nil
}

func (a *app) bigQueryStatus() *cobra.Command {
	c := &cobra.Command{
		Use: "status [TABLE]...", Short: "Show how far each table is loaded", ValidArgsFunction: completeBigQueryTables,
		RunE: func(c *cobra.Command, args []string) (err error) {
			tables, err := bigQueryTables(args)
			if err != nil {
				return err
			}
			s, _, _, end, err := a.warehouse(c.Context())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, end()) }()
			list := []bigquery.Status{}
			rows := [][]string{{"TABLE", "LOADED TO", "AT", "PUBLISHED", "ROWS", "STATE"}}
			for _, t := range tables {
				st, err := s.Status(c.Context(), t)
				if err != nil {
					return err
				}
				list = append(list, st)
				at, published := "–", "–"
				if st.Position.SnapshotID != 0 {
					at = st.Position.LoadedAt.Format(time.RFC3339)
				}
				if st.Published != 0 {
					published = strconv.FormatInt(st.Published, 10)
				}
				rows = append(rows, []string{t, strconv.FormatInt(st.Position.SnapshotID, 10), at, published, strconv.FormatUint(st.Rows, 10), st.State})
			}
			if a.output == "json" {
				return a.json(list)
			}
			return a.table(rows)
		},
	}
	a.outputs(c, "table", "json")
	return c
}

func (a *app) bigQueryLoad() *cobra.Command {
	var in name.LoadBigQueryInput
	var wait bool
	c := &cobra.Command{
		Use: "load [TABLE]...", Short: "Load what was published since the last load (by workflow LoadBigQuery)", ValidArgsFunction: completeBigQueryTables,
		Example: "  millrace bigquery load events_purchase --wait\n  millrace bigquery load --mend --wait",
		RunE: func(c *cobra.Command, args []string) error {
			tables, err := bigQueryTables(args)
			if err != nil {
				return err
			}
			if (in.From != 0 || in.To != 0) && len(args) != 1 {
				return fault.Newf("MR-CLI-001", "--from and --to are snapshots of one table, which must be named")
			}
			cl, _, err := a.temporal(c.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			var errs []error
			for _, t := range tables {
				in.Table = t
				errs = append(errs, a.startOne(c.Context(), cl, name.LoadBigQuery, in, wait)) // a table that fails does not keep the others from their loads
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().Int64Var(&in.From, "from", 0, "snapshot behind which the range begins; another one than where the last load ended is refused")
	c.Flags().Int64Var(&in.To, "to", 0, "snapshot at which it ends (default: the one that is published)")
	c.Flags().BoolVar(&in.Mend, "mend", false, "compare all days with BigQuery, and replace those that differ")
	c.Flags().BoolVar(&wait, "wait", false, "show the progress and wait for the end")
	return c
}

func (a *app) bigQueryVerify() *cobra.Command {
	var days []string
	c := &cobra.Command{
		Use: "verify [TABLE]...", Short: "Compare BigQuery with the lake, by day: counts and sums of row_hash", ValidArgsFunction: completeBigQueryTables,
		RunE: func(c *cobra.Command, args []string) (err error) {
			tables, err := bigQueryTables(args)
			if err != nil {
				return err
			}
			for _, d := range days {
				if _, err := time.Parse(time.DateOnly, d); err != nil {
					return fault.Newf("MR-CLI-001", "--day %.60q: is no day such as 2026-03-01", d)
				}
			}
			ctx := c.Context()
			s, _, cfg, end, err := a.warehouse(ctx)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, end()) }()
			key, err := activities.ReadSubjectKey(cfg.ErasureDir())
			if err != nil {
				return err
			}
			conn, err := olap.Open(ctx, cfg.ClickHouse)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, conn.Close()) }()
			ledger := activities.NewErasedLedger(conn, key)
			list := []bigquery.Verification{}
			rows := [][]string{{"TABLE", "DAYS", "ROWS", "DIFFERING"}}
			var differing []string
			for _, t := range tables {
				v, err := s.Verify(ctx, t, days, ledger.Erased, nil)
				if err != nil {
					return err
				}
				var text []string
				for _, d := range v.Differences {
					text = append(text, fmt.Sprintf("%s (lake %d, BigQuery %d)", d.Day, d.Lake.Count, d.BigQuery.Count))
					differing = append(differing, t+" "+d.Day)
				}
				if len(text) == 0 {
					text = []string{"none"}
				}
				list = append(list, v)
				rows = append(rows, []string{t, strconv.Itoa(v.Days), strconv.FormatInt(v.Rows.Count, 10), strings.Join(text, ", ")})
			}
			if a.output == "json" {
				err = a.json(list)
			} else {
				err = a.table(rows)
			}
			if err == nil && len(differing) > 0 {
				err = fault.Newf("MR-BQ-011", "%d days differ: %s", len(differing), strings.Join(differing[:min(len(differing), 10)], ", "))
			}
			return err
		},
	}
	c.Flags().StringSliceVar(&days, "day", nil, "days of ingested_at to compare, as 2026-03-01 (default: all)")
	a.outputs(c, "table", "json")
	return c
}

func (a *app) bigQueryDDL() *cobra.Command {
	var e bigquery.External
	c := &cobra.Command{
		Use: "external-ddl TABLE", Short: "Print the statement by which BigQuery reads a table of the lake without a load", Args: cobra.ExactArgs(1),
		Example: "  millrace bigquery external-ddl events_page --connection eu.lake | bq query --use_legacy_sql=false",
		RunE: func(c *cobra.Command, args []string) (err error) {
			if _, err := bigQueryTables(args); err != nil {
				return err
			}
			s, _, _, end, err := a.warehouse(c.Context())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, end()) }()
			e.Table = args[0]
			text, err := s.ExternalDDL(c.Context(), e)
			if err == nil {
				_, err = fmt.Fprint(a.out, text)
			}
			return err
		},
	}
	c.Flags().StringVar(&e.Connection, "connection", "", "BigLake connection, as LOCATION.NAME or PROJECT.LOCATION.NAME: readers then need no right on the bucket")
	c.Flags().StringVar(&e.Metadata, "metadata", "", "metadata file, gs://… (default: the table's present one)")
	c.Flags().StringVar(&e.Dataset, "dataset", "", "dataset of the definition (default: bigquery.dataset)")
	return c
}
