package lakehouse

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go/table"
)

// Ref is a branch or tag of a table.
type Ref struct {
	Name       string `json:"name"`
	Kind       string `json:"kind"` // branch or tag
	SnapshotID int64  `json:"snapshot_id"`
}

// TableInfo is what `millrace tables` shows of a table.
type TableInfo struct {
	Name             string    `json:"name"`
	Rows             int64     `json:"rows"`
	Files            int64     `json:"files"`
	Bytes            int64     `json:"bytes"`
	Snapshots        int       `json:"snapshots"`
	Refs             []Ref     `json:"refs"`
	Committed        time.Time `json:"committed"` // of the head; zero without one
	Offsets          Vector    `json:"offsets"`
	Problem          string    `json:"problem,omitempty"` // why Offsets are not known
	MetadataLocation string    `json:"metadata_location"`
}

// Tables lists the tables of the namespace by name.
func (c *Catalog) Tables(ctx context.Context) ([]TableInfo, error) {
	var names []string
	for id, err := range c.base.ListTables(ctx, table.Identifier{c.cfg.Namespace}) {
		if err != nil {
			return nil, fmt.Errorf("listing tables of namespace %s: %w", c.cfg.Namespace, err)
		}
		names = append(names, id[len(id)-1])
	}
	slices.Sort(names)
	out := make([]TableInfo, 0, len(names))
	for _, name := range names {
		t, err := c.Load(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, infoOf(name, t))
	}
	return out, nil
}

func infoOf(name string, t *table.Table) TableInfo {
	h, err := headOf(name, t)
	info := TableInfo{Name: name, Rows: h.Rows, Files: h.Files, Bytes: h.Bytes, Snapshots: h.Snapshots, Offsets: h.Vector, MetadataLocation: t.MetadataLocation()}
	if err != nil {
		info.Problem = err.Error()
	}
	if s := t.CurrentSnapshot(); s != nil {
		info.Committed = time.UnixMilli(s.TimestampMs).UTC()
	}
	for ref, r := range t.Metadata().Refs() {
		info.Refs = append(info.Refs, Ref{ref, string(r.SnapshotRefType), r.SnapshotID})
	}
	slices.SortFunc(info.Refs, func(a, b Ref) int { return strings.Compare(a.Name, b.Name) })
	return info
}
