package lakehouse

import (
	"context"
	"errors"
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
		out = append(out, info)
	}
	return out, nil
}

// ExpireSnapshots removes snapshots of main that are older than keepAge, but keeps at least the last keepLast and all that a branch or tag names (a lease is a tag). The
// files that only they named are deleted. It gives how many were removed; 0 without a commit if there was nothing to remove.
func (c *Catalog) ExpireSnapshots(ctx context.Context, name string, keepAge time.Duration, keepLast int) (int, error) {
	t, err := c.LoadForMaintenance(ctx, name)
	if err != nil {
		return 0, err
	}
	before := len(t.Metadata().Snapshots())
	if before <= keepLast {
		return 0, nil
	}
	tx := t.NewTransaction()
	if err := tx.ExpireSnapshots(table.WithOlderThan(keepAge), table.WithRetainLast(keepLast)); err != nil {
		return 0, fmt.Errorf("expiring snapshots of table %s: %w", name, err)
	}
	after, err := tx.Commit(ctx)
	if errors.Is(err, table.ErrCommitFailed) { // the head moved all the time: nothing was removed, the next call will
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("expiring snapshots of table %s: %w", name, err)
	}
	return before - len(after.Metadata().Snapshots()), nil
}
