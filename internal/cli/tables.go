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

	"github.com/apache/iceberg-go/catalog"
	"github.com/spf13/cobra"

	"millrace/internal/fault"
	"millrace/lakehouse"
)

func (a *app) tables() *cobra.Command {
	c := &cobra.Command{
		Use: "tables", Short: "List the Iceberg tables: rows, files, sizes, snapshots, refs", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withLake(c.Context(), func(cat *lakehouse.Catalog) error {
				infos, err := cat.Tables(c.Context())
				if err != nil {
					return err
				}
				if a.output == "json" {
					return a.json(infos)
				}
				rows := [][]string{{"TABLE", "ROWS", "FILES", "SIZE", "SNAPSHOTS", "REFS", "LAST COMMIT"}}
				for _, t := range infos {
					rows = append(rows, []string{
						t.Name, strconv.FormatInt(t.Rows, 10), strconv.FormatInt(t.Files, 10), bytes(t.Bytes), strconv.Itoa(t.Snapshots), refNames(t), committed(t),
					})
				}
				return a.table(rows)
			})
		},
	}
	a.outputs(c, "table", "json")
	c.AddCommand(a.describeTable())
	return c
}

func (a *app) describeTable() *cobra.Command {
	c := &cobra.Command{
		Use: "describe TABLE", Short: "Show an Iceberg table: schema, partition, sort order, policy, head", Args: cobra.ExactArgs(1),
		Example: "  millrace tables describe events_purchase",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withLake(c.Context(), func(cat *lakehouse.Catalog) error {
				d, err := cat.Describe(c.Context(), args[0])
				if errors.Is(err, catalog.ErrNoSuchTable) {
					return noTable(args[0])
				}
				if err != nil {
					return err
				}
				if a.output == "json" {
					return a.json(d)
				}
				return a.described(d)
			})
		},
	}
	a.outputs(c, "table", "json")
	return c
}

// described prints a table for people.
func (a *app) described(d lakehouse.TableDetail) error {
	p := d.Policy
	rows := [][]string{
		{"TABLE", d.Name},
		{"LOCATION", d.Location},
		{"METADATA", d.MetadataLocation},
		{"HEAD", fmt.Sprintf("snapshot %d of %s", d.SnapshotID, cmp.Or(committed(d.TableInfo), "never"))},
		{"ROWS", fmt.Sprintf("%d in %d files, %s", d.Rows, d.Files, bytes(d.Bytes))},
		{"SNAPSHOTS", strconv.Itoa(d.Snapshots)},
		{"REFS", refNames(d.TableInfo)},
		{"OFFSETS", cmp.Or(d.Problem, d.Offsets.String())},
		{"PARTITION", strings.Join(d.Partition, ", ")},
		{"SORT", strings.Join(d.Sort, ", ")},
		{"POLICY", fmt.Sprintf("files of %s; rewritten from %d small files of an open day, %d of a closed one, or %g of the rows deleted", bytes(p.TargetFileBytes), p.MinInputFiles, p.MinClosedFiles, p.DeleteRatio)},
		{"", "sorted by " + cmp.Or(strings.Join(p.Sort, ", "), "nothing")},
		{"", fmt.Sprintf("groups of %s with %s of memory, %d in a plan", bytes(p.MaxGroupBytes), bytes(p.MemoryBytes), p.MaxGroups)},
		{"", fmt.Sprintf("snapshots of %s, and the last %d; orphans after %s; storage class %s", p.SnapshotAge, p.KeepSnapshots, p.OrphanAge, p.ArchiveClass)},
		{"SCHEMA", fmt.Sprintf("id %d, format version %d", d.SchemaID, d.Format)},
	}
	if err := a.table(rows); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(a.out); err != nil {
		return fmt.Errorf("writing a table: %w", err)
	}
	rows = [][]string{{"ID", "COLUMN", "NULL", "TYPE"}} // the type of items is a long one
	for _, c := range d.Columns {
		null := "null"
		if c.Required {
			null = "required"
		}
		rows = append(rows, []string{strconv.Itoa(c.ID), c.Name, null, c.Type})
	}
	return a.table(rows)
}

// withLake opens the catalog for a command that reads.
func (a *app) withLake(ctx context.Context, f func(*lakehouse.Catalog) error) error {
	cfg, err := a.load(true)
	if err != nil {
		return err
	}
	if cfg.Iceberg.CatalogURI == "" {
		return fault.Newf("MR-CLI-003", "no Iceberg catalog is known for data directory %s", cfg.Data)
	}
	cat, err := lakehouse.Open(ctx, cfg.Iceberg)
	if err != nil {
		return err
	}
	defer func() { _ = cat.Close() }() // only reads
	return f(cat)
}

func refNames(t lakehouse.TableInfo) string {
	names := make([]string, 0, len(t.Refs))
	for _, r := range t.Refs {
		names = append(names, r.Name)
	}
	return strings.Join(slices.Sorted(slices.Values(names)), ",")
}

func committed(t lakehouse.TableInfo) string {
	if t.Committed.IsZero() {
		return ""
	}
	return t.Committed.UTC().Format(time.DateTime)
}
