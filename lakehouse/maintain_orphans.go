package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/cespare/xxhash/v2"
)

// planAge is how long a plan may be worked on: until then the files of its groups are no orphans.
const planAge = 7 * 24 * time.Hour

// OrphanResult says what RemoveOrphans has found and, unless it was a dry run, deleted.
type OrphanResult struct {
	Scanned int      `json:"scanned"` // files in the table's location
	Files   int      `json:"files"`
	Bytes   int64    `json:"bytes"`
	Paths   []string `json:"paths"` // the first hundred
}

// RemoveOrphans deletes the files in a table's location that nothing names and that are older than olderThan, at least LeastOrphanAge. Named are the files of all
// snapshots and of the metadata log, those that groups of plans of the last week have written, and those on lists of expired files, which have a time of
// their own. It remembers 8 bytes for each file that is named. progress, if not nil, is called with the number of files looked at.
func (c *Catalog) RemoveOrphans(ctx context.Context, name string, olderThan time.Duration, dryRun bool, progress func(files int64)) (OrphanResult, error) {
	if olderThan < LeastOrphanAge {
		return OrphanResult{}, fmt.Errorf("removing orphans of table %s: age %s is below %s, and a file may still be on its way into the table", name, olderThan, LeastOrphanAge)
	}
	return c.removeOrphans(ctx, name, time.Now().Add(-olderThan), dryRun, progress)
}

func (c *Catalog) removeOrphans(ctx context.Context, name string, before time.Time, dryRun bool, progress func(files int64)) (out OrphanResult, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("removing orphans of table %s: %w", name, err)
		}
	}()
	t, err := c.Load(ctx, name)
	if err != nil {
		return out, err
	}
	s, err := c.shelf(ctx, name, t)
	if err != nil {
		return out, err
	}
	refs, err := referencesOf(ctx, t, s.fs)
	if err != nil {
		return out, err
	}
	working, err := c.sweep(s, time.Now(), dryRun)
	if err != nil {
		return out, err
	}
	if err := s.expired(refs); err != nil {
		return out, err
	}
	var found []item
	err = walk(s.fs, t.Location(), func(i item) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		out.Scanned++
		if progress != nil && out.Scanned%100 == 0 {
			progress(int64(out.Scanned))
		}
		if i.mtime.Before(before) && !refs.has(i.path) && !working.owns(i.name) {
			found = append(found, i)
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	// What was committed while the store was being listed counts as well.
	if t, err = c.Load(ctx, name); err != nil {
		return out, err
	}
	if err := refs.add(ctx, t, s.fs); err != nil {
		return out, err
	}
	if err := s.expired(refs); err != nil {
		return out, err
	}
	for n, i := range found {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if progress != nil && n%100 == 0 {
			progress(int64(out.Scanned + n))
		}
		if refs.has(i.path) {
			continue
		}
		if !dryRun {
			if err := remove(s.fs, i.path); err != nil {
				return out, err
			}
		}
		out.Files++
		out.Bytes += i.size
		if len(out.Paths) < 100 {
			out.Paths = append(out.Paths, i.path)
		}
	}
	return out, nil
}

// attempts are the ids of attempts at groups, which the names of their files contain.
type attempts []string

func (a attempts) owns(name string) bool {
	for _, id := range a {
		if strings.Contains(name, id) {
			return true
		}
	}
	return false
}

// sweep finds the attempts of plans that may still be committed, and clears the notes of older ones and what sorting has left behind.
func (c *Catalog) sweep(s shelf, now time.Time, dryRun bool) (attempts, error) {
	items, err := s.list("plans")
	if err != nil {
		return nil, err
	}
	newest := map[string]time.Time{} // by plan
	plan := func(i item) string {
		id, _, _ := strings.Cut(strings.TrimPrefix(i.name, "plans/"), "/")
		return id
	}
	for _, i := range items {
		if i.mtime.After(newest[plan(i)]) {
			newest[plan(i)] = i.mtime
		}
	}
	var out attempts
	for _, i := range items {
		if now.Sub(newest[plan(i)]) < planAge {
			if _, rest, ok := strings.Cut(i.name, "/attempt-"); ok {
				_, id, _ := strings.Cut(rest, "-")
				out = append(out, id)
			}
			continue
		}
		if !dryRun {
			if err := remove(s.fs, i.path); err != nil {
				return nil, err
			}
		}
	}
	for id, at := range newest {
		if now.Sub(at) >= planAge && !dryRun {
			s.prune(planFolder(id))
		}
	}
	left, err := s.list("scratch")
	if err != nil {
		return nil, err
	}
	for _, i := range left {
		if now.Sub(i.mtime) > LeastOrphanAge && !dryRun {
			if err := remove(s.fs, i.path); err != nil {
				return nil, err
			}
			s.prune(path.Dir(i.name))
		}
	}
	return out, nil
}

// expired adds the files of lists of expired files.
func (s shelf) expired(refs *references) error {
	items, err := s.list("expired")
	if err != nil {
		return err
	}
	for _, i := range items {
		var list expiredList
		if err := s.get(i.name, &list); errors.Is(err, fs.ErrNotExist) { // done meanwhile
			continue
		} else if err != nil {
			return err
		}
		for _, paths := range [][]string{list.Metadata, list.Data} {
			for _, p := range paths {
				refs.put(p)
			}
		}
	}
	return nil
}

// references is the set of files that a table's metadata names, by the hash of their paths. Two paths of one hash keep a file that could go, never the other way.
type references struct {
	paths     map[uint64]struct{}
	manifests map[string]bool // read
	lists     map[string]bool
}

func referencesOf(ctx context.Context, t *table.Table, store iceio.IO) (*references, error) {
	r := &references{paths: map[uint64]struct{}{}, manifests: map[string]bool{}, lists: map[string]bool{}}
	return r, r.add(ctx, t, store)
}

func (r *references) put(path string) { r.paths[xxhash.Sum64String(bare(path))] = struct{}{} }
func (r *references) has(path string) bool {
	_, ok := r.paths[xxhash.Sum64String(bare(path))]
	return ok
}

// add reads what of a table's metadata was not read before.
func (r *references) add(ctx context.Context, t *table.Table, store iceio.IO) error {
	m := t.Metadata()
	r.put(t.MetadataLocation())
	r.put(strings.TrimRight(t.Location(), "/") + "/metadata/version-hint.text") // of engines that keep one
	for f := range m.PreviousFiles() {
		r.put(f.MetadataFile)
	}
	for f := range m.Statistics() {
		r.put(f.StatisticsPath)
	}
	for f := range m.PartitionStatistics() {
		r.put(f.StatisticsPath)
	}
	for _, s := range m.Snapshots() {
		if r.lists[s.ManifestList] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		manifests, err := s.Manifests(store)
		if err != nil {
			return fmt.Errorf("manifests of snapshot %d: %w", s.SnapshotID, err)
		}
		for _, f := range manifests {
			if r.manifests[f.FilePath()] {
				continue
			}
			r.put(f.FilePath())
			if err := entries(ctx, store, f, func(e iceberg.ManifestEntry) error {
				r.put(e.DataFile().FilePath())
				return nil
			}); err != nil {
				return err
			}
			r.manifests[f.FilePath()] = true
		}
		r.put(s.ManifestList)
		r.lists[s.ManifestList] = true
	}
	return nil
}
