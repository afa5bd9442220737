package activities

import (
	"context"
	"fmt"
	"slices"

	"millrace/event"
	"millrace/lakehouse"
	"millrace/workflows/name"
)

// Iceberg rewrites the files of one table's main that have rows of erased subjects.
func (e *Erase) Iceberg(ctx context.Context, in EraseTableInput) (StepOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer e.metrics.took(name.EraseIceberg)()
	erased, err := e.ledger.Erased(ctx)
	if err != nil {
		return StepOutput{}, eraseFailure(ctx, err)
	}
	r, err := e.lake.EraseRows(ctx, in.Table, in.Request, erased, func(rows, files int64) { b.note(Progress{Rows: rows, Files: files}) })
	e.metrics.rows.WithLabelValues(string(event.StoreIceberg)).Add(float64(r.Rows))
	return StepOutput{map[string]int64{
		"rows": r.Rows, "files": r.Files, "files_removed": r.Removed, "files_scanned": r.Scanned, "commits": r.Commits, "snapshot": r.Snapshot, "sequence": r.Sequence,
	}}, eraseFailure(ctx, err)
}

// RefsOutput is what refs of a table still hold.
type RefsOutput struct {
	Numbers map[string]int64 `json:"numbers"`
	Held    []string         `json:"held,omitempty"` // refs at snapshots from before
}

// Refs drops the tags of snapshots from before the erasure and looks for rows in what every ref names.
func (e *Erase) Refs(ctx context.Context, in EraseTableInput) (RefsOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer e.metrics.took(name.EraseRefs)()
	out, err := e.refs(ctx, in, b)
	return out, eraseFailure(ctx, err)
}

func (e *Erase) refs(ctx context.Context, in EraseTableInput, b *beats) (RefsOutput, error) {
	dropped, held, err := e.lake.DropErasedRefs(ctx, in.Table, in.Sequence)
	if err != nil {
		return RefsOutput{}, err
	}
	found, err := e.find(ctx, in.Table, b)
	if err != nil {
		return RefsOutput{}, err
	}
	if n := found.Refs[lakehouse.RefMain]; n > 0 {
		return RefsOutput{}, fmt.Errorf("main of table %s has %d rows of erased subjects again: %w", in.Table, n, errLeft)
	}
	out := RefsOutput{Held: held, Numbers: map[string]int64{"tags_dropped": int64(len(dropped)), "refs": int64(len(found.Refs)), "refs_held": int64(len(held)), "files_scanned": found.Files}}
	for _, n := range found.Refs {
		out.Numbers["left"] += n
	}
	return out, nil
}

func (e *Erase) find(ctx context.Context, table string, b *beats) (lakehouse.ErasedFound, error) {
	erased, err := e.ledger.Erased(ctx)
	if err != nil {
		return lakehouse.ErasedFound{}, err
	}
	return e.lake.FindErased(ctx, table, erased, func(rows, files int64) {
		b.note(Progress{Rows: rows, Files: files, State: "looking for what is left"})
	})
}

// Purge takes away what a table was before the erasure: rows that came back by a rollback, snapshots, files that are due. It ends with a look into every file of every
// snapshot.
func (e *Erase) Purge(ctx context.Context, in EraseTableInput) (RefsOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	defer e.metrics.took(name.ErasePurge)()
	out, err := e.purge(ctx, in, b)
	return out, eraseFailure(ctx, err)
}

func (e *Erase) purge(ctx context.Context, in EraseTableInput, b *beats) (RefsOutput, error) {
	none := RefsOutput{}
	erased, err := e.ledger.Erased(ctx)
	if err != nil {
		return none, err
	}
	r, err := e.lake.EraseRows(ctx, in.Table, in.Request, erased, func(rows, files int64) { b.note(Progress{Rows: rows, Files: files}) })
	if err != nil {
		return none, err
	}
	// What is there now has no row, but snapshots since the first erasure had none either: readers may keep them. After a rollback they are other ones.
	sequence := in.Sequence
	if r.Rows > 0 || sequence == 0 {
		sequence = r.Sequence
	}
	if _, _, err := e.lake.DropErasedRefs(ctx, in.Table, sequence); err != nil {
		return none, err
	}
	orphans, err := e.lake.RemoveOrphans(ctx, in.Table, lakehouse.LeastOrphanAge, false, func(files int64) { b.note(Progress{Files: files}) })
	if err != nil {
		return none, err
	}
	p, err := e.lake.PurgeErased(ctx, in.Table, sequence, in.At.Add(-e.cfg.Grace))
	if err != nil {
		return none, err
	}
	found, err := e.find(ctx, in.Table, b)
	if err != nil {
		return none, err
	}
	out := RefsOutput{Held: p.Held, Numbers: map[string]int64{
		"rows": r.Rows, "sequence": sequence, "snapshots_expired": int64(p.Snapshots), "files_deleted": int64(p.Files + orphans.Files), "bytes_deleted": p.Bytes + orphans.Bytes,
		"files_scanned": found.Files, "files_waiting": found.Listed, "files_nameless": found.Nameless, "refs_held": int64(len(p.Held)), "left": found.Rows,
	}}
	slices.Sort(out.Held)
	return out, nil
}
