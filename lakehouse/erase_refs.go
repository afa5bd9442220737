package lakehouse

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/cespare/xxhash/v2"

	"millrace/event"
)

// ErasedFound says where rows of erased subjects are.
type ErasedFound struct {
	Refs      map[string]int64 `json:"refs"`      // rows, by ref: every ref has its number
	Snapshots map[int64]int64  `json:"snapshots"` // rows, by snapshot that is kept, named by a ref or not
	Files     int64            `json:"files"`     // distinct data files that were read
	Rows      int64            `json:"rows"`      // found in them
	Listed    int64            `json:"listed"`    // files of expired snapshots that wait for their time to be deleted
	Nameless  int64            `json:"nameless"`  // data files in the table's location that nothing names: what a crash left, until RemoveOrphans takes them
}

// FindErased looks for rows of erased subjects in every data file that any snapshot of the table names, without regard to delete files: what such a file hides is
// still there. It remembers 16 bytes for each file. progress, if not nil, is called for every file.
func (c *Catalog) FindErased(ctx context.Context, name string, erased *event.Erased, progress func(rows, files int64)) (ErasedFound, error) {
	out := ErasedFound{Refs: map[string]int64{}, Snapshots: map[int64]int64{}}
	t, err := c.Load(ctx, name)
	if err != nil {
		return out, err
	}
	s, err := c.shelf(ctx, name, t)
	if err != nil {
		return out, err
	}
	fail := func(err error) (ErasedFound, error) {
		return out, fmt.Errorf("looking for erased rows in table %s: %w", name, err)
	}
	files, manifests := map[uint64]int64{}, map[string]int64{} // rows found
	look := len(eraseColumns(t)) > 0 && erased.Len() > 0
	for _, snap := range t.Metadata().Snapshots() {
		all, err := snap.Manifests(s.fs)
		if err != nil {
			return fail(fmt.Errorf("manifests of snapshot %d: %w", snap.SnapshotID, err))
		}
		sum := int64(0)
		for _, m := range all {
			if m.ManifestContent() != iceberg.ManifestContentData || !look {
				continue
			}
			if n, ok := manifests[m.FilePath()]; ok {
				sum += n
				continue
			}
			here := int64(0)
			err := entries(ctx, s.fs, m, func(e iceberg.ManifestEntry) error {
				f, seq := e.DataFile(), e.SequenceNum()
				id := xxhash.Sum64String(f.FilePath())
				n, ok := files[id]
				if !ok {
					var err error
					if n, err = countErased(ctx, t, table.FileScanTask{File: f, Start: 0, Length: f.FileSizeBytes(), DataSequenceNumber: &seq}, erased); err != nil {
						return fmt.Errorf("file %s: %w", f.FilePath(), err)
					}
					files[id] = n
					out.Rows += n
					out.Files++
					if progress != nil {
						progress(out.Rows, out.Files)
					}
				}
				here += n
				return nil
			})
			if err != nil {
				return fail(err)
			}
			manifests[m.FilePath()] = here
			sum += here
		}
		out.Snapshots[snap.SnapshotID] = sum
	}
	for ref, r := range t.Metadata().Refs() {
		out.Refs[ref] = out.Snapshots[r.SnapshotID]
	}
	return out, c.nameless(ctx, t, s, &out)
}

// nameless counts the data files that no snapshot names.
func (c *Catalog) nameless(ctx context.Context, t *table.Table, s shelf, out *ErasedFound) error {
	named, err := referencesOf(ctx, t, s.fs)
	if err != nil {
		return err
	}
	listed := &references{paths: map[uint64]struct{}{}}
	if err := s.expired(listed); err != nil {
		return err
	}
	return walk(s.fs, strings.TrimRight(t.Location(), "/")+"/data", func(i item) error {
		switch {
		case named.has(i.path) || !strings.HasSuffix(i.path, ".parquet"):
		case listed.has(i.path):
			out.Listed++
		default:
			out.Nameless++
		}
		return ctx.Err()
	})
}

// erasedBefore are the snapshots that may hold rows of subjects that were erased on main by the snapshot with this sequence number.
func erasedBefore(t *table.Table, sequence int64) map[int64]bool {
	out := map[int64]bool{}
	for _, s := range t.Metadata().Snapshots() {
		out[s.SnapshotID] = true
	}
	if head := t.CurrentSnapshot(); head != nil {
		for _, s := range table.AncestorsOf(head.SnapshotID, t.SnapshotByID) {
			if s.SequenceNumber >= sequence {
				delete(out, s.SnapshotID)
			}
		}
	}
	return out
}

// DropErasedRefs removes the tags, but for leases, of snapshots before an erasure: a night that was tagged cannot be changed, so it goes. held are the refs that still
// name such snapshots: branches, which somebody has to move, and leases, which end by themselves.
func (c *Catalog) DropErasedRefs(ctx context.Context, name string, sequence int64) (dropped, held []string, err error) {
	err = c.swap(ctx, name, func(t *table.Table) error {
		dropped, held = []string{}, []string{}
		before := erasedBefore(t, sequence)
		reqs := []table.Requirement{table.AssertTableUUID(t.Metadata().TableUUID())}
		var updates []table.Update
		for ref, r := range t.Metadata().Refs() {
			if !before[r.SnapshotID] {
				continue
			}
			if r.SnapshotRefType != table.TagRef || strings.HasPrefix(ref, LeasePrefix) {
				held = append(held, ref)
				continue
			}
			dropped = append(dropped, ref)
			reqs = append(reqs, table.AssertRefSnapshotID(ref, &r.SnapshotID))
			updates = append(updates, table.NewRemoveSnapshotRefUpdate(ref))
		}
		slices.Sort(dropped)
		slices.Sort(held)
		if len(updates) == 0 {
			return nil
		}
		_, _, err := c.base.CommitTable(ctx, c.ident(name), reqs, updates)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("dropping tags of table %s from before an erasure: %w", name, err)
	}
	return dropped, held, nil
}

// PurgeResult says what PurgeErased has done.
type PurgeResult struct {
	Snapshots int      `json:"snapshots"` // expired
	Files     int      `json:"files"`     // deleted
	Bytes     int64    `json:"bytes"`
	Held      []string `json:"held"` // refs that keep snapshots from before the erasure
}

// PurgeErased expires every snapshot from before an erasure that no ref names, whatever the table's policy, and deletes the files of snapshots that had been
// expired before a time: that of readers that have begun with one of them. So a second call later deletes what the first has expired. Files are deleted by the lists
// that expiry has recorded.
func (c *Catalog) PurgeErased(ctx context.Context, name string, sequence int64, due time.Time) (PurgeResult, error) {
	out := PurgeResult{}
	err := c.swap(ctx, name, func(t *table.Table) error {
		out.Snapshots, out.Held = 0, []string{}
		before := erasedBefore(t, sequence)
		for ref, r := range t.Metadata().Refs() {
			if before[r.SnapshotID] {
				out.Held = append(out.Held, ref)
				delete(before, r.SnapshotID)
			}
		}
		slices.Sort(out.Held)
		if len(before) == 0 {
			return nil
		}
		var snaps []int64
		for id := range before {
			snaps = append(snaps, id)
		}
		slices.Sort(snaps)
		out.Snapshots = len(snaps)
		return c.expireOnce(ctx, name, t, snaps, nil)
	})
	if err != nil {
		return out, fmt.Errorf("expiring what table %s was before an erasure: %w", name, err)
	}
	gone, err := c.deleteExpired(ctx, name, due, true)
	out.Files, out.Bytes = gone.Files, gone.Bytes
	return out, err
}
