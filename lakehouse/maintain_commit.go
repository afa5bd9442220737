package lakehouse

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/cespare/xxhash/v2"
)

// Failpoints of the commit of a rewrite.
const (
	FailRewriteBefore = "lakehouse.rewrite.commit.before" // files and notes are there, nothing is committed
	FailRewriteAfter  = "lakehouse.rewrite.commit.after"  // committed, but the caller does not know
)

// RewriteProperty is the key in a snapshot's summary that names the rewrite that made it.
const RewriteProperty = "millrace.rewrite"

// CommitResult says what a rewrite has made of a table.
type CommitResult struct {
	SnapshotID   int64 `json:"snapshot_id"`
	Removed      int   `json:"removed"` // data files
	Added        int   `json:"added"`
	BytesRemoved int64 `json:"bytes_removed"`
	BytesAdded   int64 `json:"bytes_added"`
	Deletes      int   `json:"deletes"` // delete files that are no longer needed
	Again        bool  `json:"again"`   // an earlier call had committed it; the numbers are of its summary
}

// CommitRewrite replaces the files of groups by those that CompactGroup has written, in one snapshot of main that carries the offset vector of the head it replaces.
// Appends since the plan are no obstacle. Deletes and rewrites that touch files of the groups are: ErrConflict, and nothing has changed; the plan is void.
// What is compared is the table itself, not its history: the old files must be live, with exactly the delete files that were applied. It may be called again
// after any other error: the commit is made once.
func (c *Catalog) CommitRewrite(ctx context.Context, plan Plan, results []GroupResult) (CommitResult, error) {
	if len(results) == 0 {
		return CommitResult{}, nil
	}
	var out CommitResult
	id := rewriteID(plan, results)
	err := c.swap(ctx, plan.Table, func(t *table.Table) error {
		done, err := rewritten(t, id)
		if err != nil || done != nil {
			if done != nil {
				out = *done
			}
			return err
		}
		out, err = c.commitRewrite(ctx, t, plan, results, id)
		return err
	})
	if err != nil {
		return CommitResult{}, fmt.Errorf("committing the rewrite of %d groups of table %s: %w", len(results), plan.Table, err)
	}
	return out, c.forget(ctx, plan, results)
}

// rewriteID names a rewrite: the plan, and which of its groups.
func rewriteID(plan Plan, results []GroupResult) string {
	groups := make([]int, 0, len(results))
	for _, r := range results {
		groups = append(groups, r.Group)
	}
	slices.Sort(groups)
	h := xxhash.New()
	_, _ = fmt.Fprint(h, groups) // never fails
	return plan.ID + "/" + hex.EncodeToString(h.Sum(nil))
}

// rewritten looks for the snapshot of a rewrite. One that is no longer under the head was rolled back: its files may be about to be deleted.
func rewritten(t *table.Table, id string) (*CommitResult, error) {
	var found *table.Snapshot
	for _, s := range t.Metadata().Snapshots() {
		if s.Summary != nil && s.Summary.Properties[RewriteProperty] == id {
			found = &s
		}
	}
	if found == nil {
		return nil, nil
	}
	head := t.CurrentSnapshot()
	if head == nil || !slices.ContainsFunc(table.AncestorsOf(head.SnapshotID, t.SnapshotByID), func(s table.Snapshot) bool { return s.SnapshotID == found.SnapshotID }) {
		return nil, fmt.Errorf("%w: the rewrite was rolled back", ErrConflict)
	}
	p := found.Summary.Properties
	return &CommitResult{
		SnapshotID: found.SnapshotID, Removed: p.GetInt("deleted-data-files", 0), Added: p.GetInt("added-data-files", 0),
		BytesRemoved: p.GetInt64("removed-files-size", 0), BytesAdded: p.GetInt64("added-files-size", 0), Deletes: p.GetInt("removed-delete-files", 0), Again: true,
	}, nil
}

// commitRewrite tries once, on the head t.
func (c *Catalog) commitRewrite(ctx context.Context, t *table.Table, plan Plan, results []GroupResult, id string) (CommitResult, error) {
	var out CommitResult
	s, err := c.shelf(ctx, plan.Table, t)
	if err != nil {
		return out, err
	}
	snap := t.CurrentSnapshot()
	if snap == nil {
		return out, fmt.Errorf("%w: the table is empty", ErrConflict)
	}
	var change table.CompactionGroupResult
	seen := map[int]bool{}
	for _, r := range results {
		if r.Plan != plan.ID || r.Group < 0 || r.Group >= len(plan.Groups) || seen[r.Group] {
			return out, fmt.Errorf("result of group %d of plan %s does not belong to plan %s, or is there twice", r.Group, r.Plan, plan.ID)
		}
		seen[r.Group] = true
		var n groupNote
		if err := s.get(r.Note, &n); errors.Is(err, fs.ErrNotExist) {
			return out, fmt.Errorf("%w: %w", ErrConflict, err)
		} else if err != nil {
			return out, err
		}
		old, err := decodeFiles(t, n.Old)
		if err != nil {
			return out, err
		}
		files, err := decodeFiles(t, n.New)
		if err != nil {
			return out, err
		}
		if err := s.there(files); err != nil { // taken for orphans after a week
			return out, fmt.Errorf("%w: %w", ErrConflict, err)
		}
		change.OldDataFiles, change.NewDataFiles = append(change.OldDataFiles, old...), append(change.NewDataFiles, files...)
		out.BytesRemoved += r.BytesIn
		out.BytesAdded += r.Bytes
	}
	within := partitionsOf(t, change.OldDataFiles)
	dead, err := validate(ctx, t, snap, s, plan, seen, within)
	if err != nil {
		return out, err
	}
	for _, d := range dead {
		if table.IsDeletionVector(d) {
			change.SafeDeletionVectors = append(change.SafeDeletionVectors, d)
		} else {
			change.SafePosDeletes = append(change.SafePosDeletes, d)
		}
	}
	if err := c.exchange(ctx, t, snap, s, plan, seen, change, within, id); err != nil {
		return out, err
	}
	out.Removed, out.Added, out.Deletes = len(change.OldDataFiles), len(change.NewDataFiles), len(dead)
	done, err := c.Load(ctx, plan.Table)
	if err != nil {
		return out, fmt.Errorf("%w: %w", errLostReply, err) // it is committed: look for it
	}
	if mine, err := rewritten(done, id); err == nil && mine != nil {
		out.SnapshotID = mine.SnapshotID
	}
	return out, nil
}

// exchange commits files in place of others, with the offsets of the head t. It is one attempt.
func (c *Catalog) exchange(ctx context.Context, t *table.Table, snap *table.Snapshot, s shelf, plan Plan, groups map[int]bool, change table.CompactionGroupResult, within partitionSet, id string) error {
	extra := iceberg.Properties{RewriteProperty: id}
	if t.Metadata().Version() == 2 {
		props, err := CarryOffsets(t)
		if err != nil {
			return err
		}
		maps.Copy(props, extra)
		first := map[string]bool{}
		for i := range groups {
			for _, m := range plan.Groups[i].Manifests {
				first[m] = true
			}
		}
		return newReplacement(t, snap, s.fs, change, first, within).commit(ctx, c, plan.Table, props, FailRewriteBefore, FailRewriteAfter)
	}
	// Version 3 numbers rows, and deletes by vectors: foreign tables, left to iceberg-go.
	tx := t.NewTransaction()
	if err := tx.NewRewrite(nil).ApplyResult(change).Commit(ctx); err != nil {
		if gone := missing(ctx, t, snap, s, change.OldDataFiles); gone != nil {
			err = errors.Join(gone, err)
		}
		return err
	}
	return c.commitCarried(ctx, plan.Table, t, tx, extra, FailRewriteBefore, FailRewriteAfter)
}

// validate says whether exactly those delete files may apply to the groups' partitions that the plan knew. It gives the ones that no remaining file needs.
// Without delete files, as our own tables are, it reads no manifest; with some, all that list such, and of the others those whose partitions overlap.
func validate(ctx context.Context, t *table.Table, snap *table.Snapshot, s shelf, plan Plan, groups map[int]bool, within partitionSet) ([]iceberg.DataFile, error) {
	manifests, err := snap.Manifests(s.fs)
	if err != nil {
		return nil, fmt.Errorf("manifests of snapshot %d: %w", snap.SnapshotID, err)
	}
	names := partitionNames{t: t, known: map[string]*livePartition{}}
	found := map[string]map[string]iceberg.ManifestEntry{} // by partition, path
	for _, m := range manifests {
		if m.ManifestContent() != iceberg.ManifestContentDeletes {
			continue
		}
		err := entries(ctx, s.fs, m, func(e iceberg.ManifestEntry) error {
			part, err := names.of(e.DataFile())
			if err != nil {
				return err
			}
			if part.old {
				return fmt.Errorf("%w: %w", ErrConflict, errOldDeletes)
			}
			if found[part.name] == nil {
				found[part.name] = map[string]iceberg.ManifestEntry{}
			}
			found[part.name][e.DataFile().FilePath()] = e
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	gone := map[string]bool{}
	for i := range groups {
		g := plan.Groups[i]
		for _, path := range g.Files {
			gone[path] = true
		}
		known := set(g.Deletes)
		for path := range known {
			if _, ok := found[g.Partition][path]; !ok {
				return nil, fmt.Errorf("%w: delete file %s of partition %s has gone", ErrConflict, path, g.Partition)
			}
		}
		for path := range found[g.Partition] {
			if !known[path] {
				return nil, fmt.Errorf("%w: delete file %s of partition %s is new", ErrConflict, path, g.Partition)
			}
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	oldest := map[string]int64{} // of the data files that remain, by partition
	for _, m := range manifests {
		if m.ManifestContent() != iceberg.ManifestContentData || !within.overlaps(m) {
			continue
		}
		err := plainEntries(ctx, s.fs, m, func(e iceberg.ManifestEntry) error {
			if gone[e.DataFile().FilePath()] {
				return nil
			}
			part, err := names.of(e.DataFile())
			if err != nil {
				return err
			}
			if seq, ok := oldest[part.name]; !ok || e.SequenceNum() < seq {
				oldest[part.name] = e.SequenceNum()
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var dead []iceberg.DataFile
	for i := range groups {
		name := plan.Groups[i].Partition
		for path, e := range found[name] {
			if seq, ok := oldest[name]; !ok || e.SequenceNum() < seq {
				dead = append(dead, e.DataFile())
				delete(found[name], path) // once, also if the partition has several groups
			}
		}
	}
	slices.SortFunc(dead, func(a, b iceberg.DataFile) int { return strings.Compare(a.FilePath(), b.FilePath()) })
	return dead, nil
}

// missing finds out whether a rewrite was refused because an old file has gone.
func missing(ctx context.Context, t *table.Table, snap *table.Snapshot, s shelf, old []iceberg.DataFile) error {
	want := map[string]bool{}
	for _, f := range old {
		want[f.FilePath()] = true
	}
	manifests, err := snap.Manifests(s.fs)
	if err != nil {
		return fmt.Errorf("manifests of snapshot %d: %w", snap.SnapshotID, err)
	}
	for _, m := range manifests {
		if err := entries(ctx, s.fs, m, func(e iceberg.ManifestEntry) error {
			delete(want, e.DataFile().FilePath())
			return nil
		}); err != nil {
			return err
		}
	}
	for path := range want {
		return fmt.Errorf("%w: %d files, as %s, are no longer in table %s", ErrConflict, len(want), path, t.Identifier()[len(t.Identifier())-1])
	}
	return nil
}

// forget removes the notes of groups that are committed: who asks again is answered by the snapshot. What other attempts at them have left is an orphan now.
func (c *Catalog) forget(ctx context.Context, plan Plan, results []GroupResult) error {
	t, err := c.Load(ctx, plan.Table)
	if err != nil {
		return err
	}
	s, err := c.shelf(ctx, plan.Table, t)
	if err != nil {
		return err
	}
	items, err := s.list(planFolder(plan.ID))
	if err != nil {
		return err
	}
	for _, i := range items {
		for _, r := range results {
			if strings.HasPrefix(i.name, noteName(plan.ID, r.Group)) || strings.HasPrefix(i.name, attemptName(plan.ID, r.Group)) {
				if err := remove(s.fs, i.path); err != nil {
					return err
				}
			}
		}
	}
	s.prune(planFolder(plan.ID))
	return nil
}
