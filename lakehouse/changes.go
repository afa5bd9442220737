package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
)

// What made a snapshot.
const (
	KindAppend     = "append"     // rows of the stream: the offsets have moved
	KindRewrite    = "rewrite"    // the same rows in other files, or other manifests
	KindErase      = "erase"      // rows of erased subjects have gone
	KindRepair     = "repair"     // rows were added or removed so that the table equals the control totals
	KindQuarantine = "quarantine" // rows have gone into the quarantine table
	KindRelease    = "release"    // rows came back from there
	KindRollback   = "rollback"   // an older state with newer offsets
	KindForeign    = "foreign"    // another program, or none of these
)

// Keys in the summaries of snapshots that say what made them, beside RewriteProperty.
const (
	EraseKey      = "millrace.erase"
	RepairKey     = "millrace.repair"
	QuarantineKey = "millrace.quarantine"
	ReleaseKey    = "millrace.release"
	RollbackKey   = "millrace.rollback"
)

// ErrDiverged says that one snapshot is not an ancestor of another.
var ErrDiverged = errors.New("the snapshot is not on the way there")

// Change is what one snapshot did.
type Change struct {
	SnapshotID int64     `json:"snapshot_id"`
	ParentID   int64     `json:"parent_id,omitempty"`
	At         time.Time `json:"at"`
	Operation  string    `json:"operation"`
	Kind       string    `json:"kind"`
	Added      []string  `json:"added,omitempty"`   // data files
	Removed    []string  `json:"removed,omitempty"` // data files
	Deletes    []string  `json:"deletes,omitempty"` // delete files added
	Rows       int64     `json:"rows"`              // added less removed, by the summary
	Vector     Vector    `json:"offsets"`           // nil if it carries none
}

// Changes lists what snapshots (from, to] did, oldest first; from 0 is all that led to a snapshot. ErrNoSnapshot: the chain between has expired. ErrDiverged: from is not
// an ancestor.
func (c *Catalog) Changes(ctx context.Context, name string, from, to int64) ([]Change, error) {
	t, err := c.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	chain, err := chainOf(t, from, to)
	if err != nil {
		return nil, fmt.Errorf("changes of table %s from snapshot %d to %d: %w", name, from, to, err)
	}
	store, err := t.FS(ctx)
	if err != nil {
		return nil, fmt.Errorf("store of table %s: %w", name, err)
	}
	out := make([]Change, 0, len(chain))
	for _, s := range chain {
		ch := changeOf(s)
		if err := filesOf(ctx, store, s, &ch); err != nil {
			return nil, fmt.Errorf("changes of table %s: %w", name, err)
		}
		out = append(out, ch)
	}
	return out, nil
}

// Log lists what led to the head of a branch or tag, newest first, as far as it has not expired, without files; limit 0 is all.
func (c *Catalog) Log(ctx context.Context, name, ref string, limit int) ([]Change, error) {
	t, err := c.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	r, err := refOf(name, t, ref)
	if err != nil && r.SnapshotID == 0 {
		return nil, err
	}
	out := []Change{}
	for _, s := range table.AncestorsOf(r.SnapshotID, t.SnapshotByID) {
		if limit > 0 && len(out) == limit {
			break
		}
		out = append(out, changeOf(s))
	}
	return out, nil
}

// chainOf are the snapshots (from, to], oldest first.
func chainOf(t *table.Table, from, to int64) ([]table.Snapshot, error) {
	var chain []table.Snapshot
	for id := to; id != from; {
		s := t.SnapshotByID(id)
		if s == nil {
			return nil, fmt.Errorf("%w: %d", ErrNoSnapshot, id)
		}
		chain = append(chain, *s)
		if s.ParentSnapshotID == nil {
			if from != 0 {
				return nil, ErrDiverged
			}
			break
		}
		id = *s.ParentSnapshotID
	}
	slices.Reverse(chain)
	return chain, nil
}

func changeOf(s table.Snapshot) Change {
	ch := Change{SnapshotID: s.SnapshotID, At: time.UnixMilli(s.TimestampMs).UTC(), Kind: kindOf(s)}
	if s.ParentSnapshotID != nil {
		ch.ParentID = *s.ParentSnapshotID
	}
	if s.Summary != nil {
		ch.Operation = string(s.Summary.Operation)
		p := s.Summary.Properties
		ch.Rows = p.GetInt64("added-records", 0) - p.GetInt64("deleted-records", 0)
	}
	if v, err := vectorOf(s); err == nil {
		ch.Vector = v
	}
	return ch
}

func kindOf(s table.Snapshot) string {
	if s.Summary == nil {
		return KindForeign
	}
	p := s.Summary.Properties
	if _, ok := p[OffsetsProperty]; !ok { // whatever else it says: it was not made by us
		return KindForeign
	}
	for _, k := range [...]struct{ key, kind string }{
		{RewriteProperty, KindRewrite}, {EraseKey, KindErase}, {RepairKey, KindRepair}, {QuarantineKey, KindQuarantine}, {ReleaseKey, KindRelease}, {RollbackKey, KindRollback},
	} {
		if _, ok := p[k.key]; ok {
			return k.kind
		}
	}
	switch s.Summary.Operation {
	case table.OpAppend:
		return KindAppend
	case table.OpReplace:
		return KindRewrite
	default:
		return KindForeign
	}
}

// filesOf fills in the files of a change, from the manifests that its snapshot has written.
func filesOf(ctx context.Context, store iceio.IO, s table.Snapshot, ch *Change) error {
	manifests, err := s.Manifests(store)
	if err != nil {
		return fmt.Errorf("manifests of snapshot %d: %w", s.SnapshotID, err)
	}
	for _, m := range manifests {
		if m.SnapshotID() != s.SnapshotID {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		for e, err := range m.Entries(store, false) {
			if err != nil {
				return fmt.Errorf("manifest %s: %w", m.FilePath(), err)
			}
			if e.SnapshotID() != s.SnapshotID {
				continue
			}
			path, data := e.DataFile().FilePath(), e.DataFile().ContentType() == iceberg.EntryContentData
			switch e.Status() {
			case iceberg.EntryStatusADDED:
				if data {
					ch.Added = append(ch.Added, path)
				} else {
					ch.Deletes = append(ch.Deletes, path)
				}
			case iceberg.EntryStatusDELETED:
				if data {
					ch.Removed = append(ch.Removed, path)
				}
			case iceberg.EntryStatusEXISTING:
			}
		}
	}
	slices.Sort(ch.Added)
	slices.Sort(ch.Removed)
	slices.Sort(ch.Deletes)
	return nil
}
