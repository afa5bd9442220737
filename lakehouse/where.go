package lakehouse

import (
	"context"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// Place is where a table has a row: the data file that main lists now, and the oldest snapshot under main that added that file.
type Place struct {
	Table      string `json:"table"`
	File       string `json:"file"`
	SnapshotID int64  `json:"snapshot_id"` // 0: it has expired
	Kind       string `json:"kind,omitempty"`
	Rows       int    `json:"rows"` // of that offset in the file
}

// Where finds the rows of an offset of a raw topic, or if raw is false of the topic that feeds the table. The bounds in the manifests leave few files to be read.
func (c *Catalog) Where(ctx context.Context, name, topic string, raw bool, partition int32, offset int64) ([]Place, error) {
	prefix := "kafka_"
	if raw {
		prefix = "raw_"
	}
	t, err := c.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	if t.CurrentSnapshot() == nil {
		return nil, nil
	}
	filter := iceberg.NewAnd(iceberg.EqualTo(iceberg.Reference(prefix+"topic"), topic),
		iceberg.NewAnd(iceberg.EqualTo(iceberg.Reference(prefix+"partition"), partition), iceberg.EqualTo(iceberg.Reference(prefix+"offset"), offset)))
	scan := t.Scan(table.WithRowFilter(filter), table.WithSelectedFields(prefix+"offset"), table.WithMaxConcurrency(1))
	defer func() { _ = scan.Close() }() // planned locally: there is nothing to give back
	tasks, err := scan.PlanFiles(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for %s/%d@%d in table %s: %w", topic, partition, offset, name, err)
	}
	var out []Place
	for _, task := range tasks {
		n := 0
		_, batches, err := scan.ReadTasks(ctx, []table.FileScanTask{task})
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", task.File.FilePath(), err)
		}
		for b, err := range batches {
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", task.File.FilePath(), err)
			}
			n += rowsOf(b)
		}
		if n > 0 {
			out = append(out, Place{Table: name, File: task.File.FilePath(), Rows: n})
		}
	}
	return out, c.added(ctx, t, out)
}

func rowsOf(b arrow.RecordBatch) int {
	defer b.Release()
	return int(b.NumRows())
}

// added finds the snapshots that added files.
func (c *Catalog) added(ctx context.Context, t *table.Table, places []Place) error {
	if len(places) == 0 {
		return nil
	}
	store, err := t.FS(ctx)
	if err != nil {
		return err
	}
	manifests, err := t.CurrentSnapshot().Manifests(store)
	if err != nil {
		return fmt.Errorf("manifests of snapshot %d: %w", t.CurrentSnapshot().SnapshotID, err)
	}
	for _, m := range manifests {
		if m.ManifestContent() != iceberg.ManifestContentData {
			continue
		}
		if err := entries(ctx, store, m, func(e iceberg.ManifestEntry) error {
			if i := slices.IndexFunc(places, func(p Place) bool { return p.File == e.DataFile().FilePath() }); i >= 0 {
				if s := t.SnapshotByID(e.SnapshotID()); s != nil {
					places[i].SnapshotID, places[i].Kind = s.SnapshotID, kindOf(*s)
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
