package lakehouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"millrace/internal/failpoint"
)

// Failpoints of expiry.
const (
	FailExpireBefore = "lakehouse.expire.commit.before" // the files are listed, the snapshots are there
	FailExpireAfter  = "lakehouse.expire.commit.after"
)

// expiredList names the files that only expired snapshots named. It is written before the commit that expires them, and its files are deleted when readers
// that planned with one of these snapshots are surely done.
type expiredList struct {
	Recorded  time.Time `json:"recorded"`
	Snapshots []int64   `json:"snapshots"`
	Metadata  []string  `json:"metadata"` // manifest lists and manifests
	Data      []string  `json:"data"`     // data and delete files
}

// ExpireResult says what expiry has done.
type ExpireResult struct {
	Snapshots int   `json:"snapshots"` // removed
	Files     int   `json:"files"`     // deleted, of snapshots that expired more than the grace ago
	Bytes     int64 `json:"bytes"`
}

// Expire removes the snapshots that a policy no longer keeps, and deletes the files of those that went before (ExpiredGrace).
func (c *Catalog) Expire(ctx context.Context, name string, p Policy) (ExpireResult, error) {
	if err := p.Validate(); err != nil {
		return ExpireResult{}, fmt.Errorf("expiring snapshots of table %s: policy: %w", name, err)
	}
	n, err := c.expire(ctx, name, p.SnapshotAge, p.KeepSnapshots)
	if err != nil {
		return ExpireResult{}, err
	}
	out, err := c.deleteExpired(ctx, name, time.Now().Add(-ExpiredGrace), true)
	out.Snapshots = n
	return out, err
}

// ExpireSnapshots removes snapshots of main that are older than keepAge, but keeps at least the last keepLast and all that a branch or tag names (a lease is a
// tag). It gives how many were removed; 0 without a commit if there was nothing to remove, or if the head moved all the time. The files that only they named
// are listed, and deleted by a later call; data files only by Expire, since that reads all metadata.
func (c *Catalog) ExpireSnapshots(ctx context.Context, name string, keepAge time.Duration, keepLast int) (int, error) {
	n, err := c.expire(ctx, name, keepAge, keepLast)
	if err != nil || n == 0 {
		return n, err
	}
	_, err = c.deleteExpired(ctx, name, time.Now().Add(-ExpiredGrace), false)
	return n, err
}

func (c *Catalog) expire(ctx context.Context, name string, keepAge time.Duration, keepLast int) (int, error) {
	n := 0
	err := c.swap(ctx, name, func(t *table.Table) error {
		snaps, refs := expirable(t, time.Now(), keepAge, max(1, keepLast))
		n = len(snaps)
		if n == 0 {
			return nil
		}
		return c.expireOnce(ctx, name, t, snaps, refs)
	})
	if err != nil && (errors.Is(err, table.ErrCommitFailed) || isStale(err)) { // nothing was removed, the next call will
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("expiring snapshots of table %s: %w", name, err)
	}
	return n, nil
}

// expirable are the snapshots, and the refs that have outlived their age, that may go: the rules of the Iceberg specification ("Snapshot Retention Policy").
func expirable(t *table.Table, now time.Time, keepAge time.Duration, keepLast int) (snaps []int64, refs []string) {
	keep, reachable := map[int64]bool{}, map[int64]bool{}
	age := func(s table.Snapshot) int64 { return now.UnixMilli() - s.TimestampMs }
	for ref, r := range t.Metadata().Refs() {
		s := t.SnapshotByID(r.SnapshotID)
		if s == nil {
			continue
		}
		if r.MaxRefAgeMs != nil && ref != table.MainBranch && age(*s) > *r.MaxRefAgeMs {
			refs = append(refs, ref)
			continue
		}
		keep[r.SnapshotID], reachable[r.SnapshotID] = true, true
		if r.SnapshotRefType != table.BranchRef {
			continue
		}
		last, oldest := keepLast, keepAge.Milliseconds()
		if r.MinSnapshotsToKeep != nil {
			last = *r.MinSnapshotsToKeep
		}
		if r.MaxSnapshotAgeMs != nil {
			oldest = *r.MaxSnapshotAgeMs
		}
		open := true
		for i, s := range table.AncestorsOf(r.SnapshotID, t.SnapshotByID) {
			reachable[s.SnapshotID] = true
			if open = open && (i < last || age(s) < oldest); open {
				keep[s.SnapshotID] = true
			}
		}
	}
	for _, s := range t.Metadata().Snapshots() {
		if !keep[s.SnapshotID] && (reachable[s.SnapshotID] || age(s) >= keepAge.Milliseconds()) {
			snaps = append(snaps, s.SnapshotID)
		}
	}
	return snaps, refs
}

func (c *Catalog) expireOnce(ctx context.Context, name string, t *table.Table, snaps []int64, refs []string) error {
	s, err := c.shelf(ctx, name, t)
	if err != nil {
		return err
	}
	list, err := unreachable(ctx, t, s.fs, snaps)
	if err != nil {
		return err
	}
	record := "expired/" + list.Recorded.Format("20060102T150405.000000Z") + "-" + uuid.NewString()
	if err := s.put(record, list); err != nil {
		return err
	}
	reqs := []table.Requirement{table.AssertTableUUID(t.Metadata().TableUUID()), unnamed{snaps, refs}}
	for ref, r := range t.Metadata().Refs() {
		reqs = append(reqs, table.AssertRefSnapshotID(ref, &r.SnapshotID))
	}
	updates := make([]table.Update, 0, len(refs)+1)
	for _, ref := range refs {
		updates = append(updates, table.NewRemoveSnapshotRefUpdate(ref))
	}
	updates = append(updates, table.NewRemoveSnapshotsUpdate(snaps, false))
	if err := failpoint.Err(FailExpireBefore); err != nil {
		return err
	}
	if _, _, err := c.base.CommitTable(ctx, c.ident(name), reqs, updates); err != nil {
		if errors.Is(err, table.ErrCommitFailed) || isStale(err) { // surely not committed
			err = errors.Join(err, remove(s.fs, s.root+"/"+record))
		}
		return err
	}
	return failpoint.Err(FailExpireAfter)
}

// unnamed refuses to take away snapshots that a ref names by now: a ref that was made since the expiry was planned would vanish with its snapshot.
type unnamed struct {
	snaps []int64
	refs  []string // that go as well
}

// Validate implements table.Requirement.
func (u unnamed) Validate(m table.Metadata) error {
	for ref, r := range m.Refs() {
		if slices.Contains(u.snaps, r.SnapshotID) && !slices.Contains(u.refs, ref) {
			return fmt.Errorf("requirement failed: ref %s names snapshot %d", ref, r.SnapshotID)
		}
	}
	return nil
}

// GetType implements table.Requirement.
func (unnamed) GetType() string { return "assert-snapshots-unnamed" }

// unreachable lists the files that only the given snapshots name. It remembers the files of manifests that are theirs alone, not the table's.
func unreachable(ctx context.Context, t *table.Table, store iceio.IO, snaps []int64) (expiredList, error) {
	list := expiredList{Recorded: time.Now().UTC(), Snapshots: snaps, Metadata: []string{}, Data: []string{}}
	gone := map[int64]bool{}
	for _, id := range snaps {
		gone[id] = true
	}
	kept, lost := map[string]iceberg.ManifestFile{}, map[string]iceberg.ManifestFile{}
	for _, s := range t.Metadata().Snapshots() {
		if err := ctx.Err(); err != nil {
			return list, err
		}
		manifests, err := s.Manifests(store)
		if err != nil {
			return list, fmt.Errorf("manifests of snapshot %d: %w", s.SnapshotID, err)
		}
		to := kept
		if gone[s.SnapshotID] {
			to = lost
			list.Metadata = append(list.Metadata, s.ManifestList)
		}
		for _, m := range manifests {
			to[m.FilePath()] = m
		}
	}
	data := map[string]bool{}
	for path, m := range lost {
		if kept[path] != nil {
			continue
		}
		list.Metadata = append(list.Metadata, path)
		if err := entries(ctx, store, m, func(e iceberg.ManifestEntry) error {
			data[e.DataFile().FilePath()] = true
			return nil
		}); err != nil {
			return list, err
		}
	}
	if len(data) > 0 {
		// Where manifests were merged, the newest ones name what the lost ones did: the rest is rarely read.
		for _, m := range slices.SortedFunc(maps.Values(kept), func(a, b iceberg.ManifestFile) int { return cmp.Compare(b.SequenceNum(), a.SequenceNum()) }) {
			if err := entries(ctx, store, m, func(e iceberg.ManifestEntry) error {
				delete(data, e.DataFile().FilePath())
				return nil
			}); err != nil {
				return list, err
			}
			if len(data) == 0 {
				break
			}
		}
	}
	list.Data = append(list.Data, slices.Sorted(maps.Keys(data))...)
	slices.Sort(list.Metadata)
	return list, nil
}

// deleteExpired deletes the files of lists that were recorded before a time. What a list says counts only if its snapshots have really gone; and no data file is
// deleted that any metadata names.
func (c *Catalog) deleteExpired(ctx context.Context, name string, before time.Time, data bool) (ExpireResult, error) {
	var out ExpireResult
	t, err := c.Load(ctx, name)
	if err != nil {
		return out, err
	}
	s, err := c.shelf(ctx, name, t)
	if err != nil {
		return out, err
	}
	items, err := s.list("expired")
	if err != nil {
		return out, err
	}
	var refs *references
	for _, i := range items {
		var list expiredList
		if err := s.get(i.name, &list); errors.Is(err, fs.ErrNotExist) { // another process was first
			continue
		} else if err != nil {
			return out, err
		}
		if list.Recorded.After(before) || len(list.Data) > 0 && !data {
			continue
		}
		if slices.ContainsFunc(list.Snapshots, func(id int64) bool { return t.SnapshotByID(id) != nil }) { // its commit never arrived
			if err := remove(s.fs, i.path); err != nil {
				return out, err
			}
			continue
		}
		if len(list.Data) > 0 && refs == nil {
			if refs, err = referencesOf(ctx, t, s.fs); err != nil {
				return out, fmt.Errorf("deleting expired files of table %s: %w", name, err)
			}
		}
		for _, path := range slices.Concat(list.Data, list.Metadata) {
			if err := ctx.Err(); err != nil {
				return out, err
			}
			if refs != nil && refs.has(path) {
				continue
			}
			info, err := s.fs.Stat(path)
			if errors.Is(err, fs.ErrNotExist) { // deleted before an end that came too early
				continue
			}
			if err != nil {
				return out, fmt.Errorf("file %s: %w", path, err)
			}
			if err := remove(s.fs, path); err != nil {
				return out, err
			}
			out.Files++
			out.Bytes += info.Size()
		}
		if err := remove(s.fs, i.path); err != nil {
			return out, err
		}
	}
	return out, nil
}
