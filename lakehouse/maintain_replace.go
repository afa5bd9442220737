package lakehouse

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"millrace/internal/failpoint"
	"millrace/lakehouse/order"
)

// replacement is one attempt to exchange files of the head by others. iceberg-go would read every manifest of the table for that, with a commit of the stream each
// second before it has come to the last one. This reads and writes anew only those that list the files: first those that did so when the plan was made, then
// those whose partitions overlap. All others are carried over as they are.
type replacement struct {
	t       *table.Table
	snap    *table.Snapshot // head
	store   iceio.WriteFileIO
	id      int64 // of the new snapshot
	uuid    uuid.UUID
	old     map[string]bool // data files that have not been found yet
	dead    map[string]bool // delete files that have not been found yet
	added   []iceberg.DataFile
	first   map[string]bool // manifests to look into first
	within  partitionSet
	numbers map[string]int64 // of the summary
	made    []string         // files written
}

func newReplacement(t *table.Table, snap *table.Snapshot, store iceio.WriteFileIO, change table.CompactionGroupResult, first map[string]bool, within partitionSet) *replacement {
	r := &replacement{t: t, snap: snap, store: store, uuid: uuid.New(), old: map[string]bool{}, dead: map[string]bool{}, added: change.NewDataFiles, first: first, within: within, numbers: map[string]int64{}}
	for r.id == 0 || t.SnapshotByID(r.id) != nil {
		r.id = rand.Int64N(1<<63-1) + 1
	}
	for _, f := range change.OldDataFiles {
		r.old[f.FilePath()] = true
	}
	for _, f := range change.SafePosDeletes {
		r.dead[f.FilePath()] = true
	}
	return r
}

// commit is one compare-and-swap. The files of an attempt that was surely refused are removed.
func (r *replacement) commit(ctx context.Context, c *Catalog, name string, extra iceberg.Properties, before, after string) error {
	updates, requirements, err := r.stage(ctx, extra)
	if err == nil {
		err = failpoint.Err(before)
	}
	if err != nil {
		return errors.Join(err, r.discard())
	}
	if _, _, err := c.base.CommitTable(ctx, c.ident(name), requirements, updates); err != nil {
		if errors.Is(err, table.ErrCommitFailed) || isStale(err) {
			err = errors.Join(err, r.discard())
		}
		return err
	}
	if err := failpoint.Err(after); err != nil {
		return fmt.Errorf("%w: %w", errLostReply, err)
	}
	return nil
}

// stage writes manifests and their list, and gives the updates that make them the head. ErrConflict: an old file has gone.
func (r *replacement) stage(ctx context.Context, extra iceberg.Properties) ([]table.Update, []table.Requirement, error) {
	manifests, err := r.snap.Manifests(r.store)
	if err != nil {
		return nil, nil, fmt.Errorf("manifests of snapshot %d: %w", r.snap.SnapshotID, err)
	}
	instead := map[string]iceberg.ManifestFile{} // by the path of the old one; nil: all of its files have gone
	for _, pass := range []func(m iceberg.ManifestFile) bool{
		func(m iceberg.ManifestFile) bool { return r.first[m.FilePath()] },
		func(m iceberg.ManifestFile) bool { return !r.first[m.FilePath()] && r.within.overlaps(m) },
	} {
		for _, m := range manifests {
			if data := m.ManifestContent() == iceberg.ManifestContentData; data && len(r.old) == 0 || !data && len(r.dead) == 0 || !pass(m) {
				continue
			}
			made, changed, err := r.without(ctx, m)
			if err != nil {
				return nil, nil, err
			}
			if changed {
				instead[m.FilePath()] = made
			}
		}
	}
	for path := range r.old {
		return nil, nil, fmt.Errorf("%w: %d files, as %s, are no longer in table %s", ErrConflict, len(r.old), path, r.t.Identifier()[len(r.t.Identifier())-1])
	}
	for path := range r.dead { // they were there a moment ago, in this very snapshot
		return nil, nil, fmt.Errorf("%d delete files, as %s, are not in snapshot %d", len(r.dead), path, r.snap.SnapshotID)
	}
	var list []iceberg.ManifestFile
	if len(r.added) > 0 {
		m, err := r.manifest(iceberg.ManifestContentData, int(r.added[0].SpecID()), func(w *iceberg.ManifestWriter) error {
			for _, f := range r.added {
				r.count(f, 1)
				if err := w.Add(iceberg.NewManifestEntry(iceberg.EntryStatusADDED, &r.id, nil, nil, f)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
		list = append(list, m)
	}
	for _, m := range manifests {
		made, changed := instead[m.FilePath()]
		if changed {
			m = made
		}
		list = append(list, m)
	}
	return r.snapshot(list, extra)
}

// without writes a manifest without the files that are exchanged: they become entries of status deleted, as the specification asks for in the snapshot that removes
// them. A manifest that lists none of them stays.
func (r *replacement) without(ctx context.Context, m iceberg.ManifestFile) (iceberg.ManifestFile, bool, error) {
	gone := r.old
	if m.ManifestContent() == iceberg.ManifestContentDeletes {
		gone = r.dead
	}
	var all []iceberg.ManifestEntry
	removed := 0
	err := entries(ctx, r.store, m, func(e iceberg.ManifestEntry) error {
		if gone[e.DataFile().FilePath()] {
			removed++
		}
		all = append(all, e)
		return nil
	})
	if err != nil || removed == 0 {
		return nil, false, err
	}
	made, err := r.manifest(m.ManifestContent(), int(m.PartitionSpecID()), func(w *iceberg.ManifestWriter) error {
		for _, e := range all {
			path := e.DataFile().FilePath()
			if !gone[path] {
				if err := w.Existing(e); err != nil {
					return err
				}
				continue
			}
			delete(gone, path)
			r.count(e.DataFile(), -1)
			if err := w.Delete(e); err != nil {
				return err
			}
		}
		return nil
	})
	return made, true, err
}

// manifest writes one.
func (r *replacement) manifest(content iceberg.ManifestContent, spec int, fill func(*iceberg.ManifestWriter) error) (iceberg.ManifestFile, error) {
	s := r.t.Metadata().PartitionSpecByID(spec)
	if s == nil {
		return nil, fmt.Errorf("unknown partition spec %d", spec)
	}
	var w *iceberg.ManifestWriter
	path, size, err := r.file(fmt.Sprintf("%s-m%d.avro", r.uuid, len(r.made)), func(out io.Writer) (err error) {
		if w, err = iceberg.NewManifestWriter(r.t.Metadata().Version(), out, *s, r.t.Schema(), r.id, iceberg.WithManifestWriterContent(content)); err != nil {
			return err
		}
		return errors.Join(fill(w), w.Close())
	})
	if err != nil {
		return nil, fmt.Errorf("writing a manifest: %w", err)
	}
	return w.ToManifestFile(path, size)
}

// snapshot writes the list of manifests and gives the updates that make it the head.
func (r *replacement) snapshot(list []iceberg.ManifestFile, extra iceberg.Properties) ([]table.Update, []table.Requirement, error) {
	meta := r.t.Metadata()
	sequence := meta.LastSequenceNumber() + 1
	path, _, err := r.file(fmt.Sprintf("snap-%d-0-%s.avro", r.id, r.uuid), func(out io.Writer) error {
		w, err := iceberg.NewManifestListWriterV2(out, r.id, sequence, &r.snap.SnapshotID)
		if err != nil {
			return err
		}
		return errors.Join(w.AddManifests(list), w.Close())
	})
	if err != nil {
		return nil, nil, fmt.Errorf("writing the list of manifests: %w", err)
	}
	schema := r.t.Schema().ID
	next := &table.Snapshot{
		SnapshotID: r.id, ParentSnapshotID: &r.snap.SnapshotID, SequenceNumber: sequence, TimestampMs: time.Now().UnixMilli(), ManifestList: path, SchemaID: &schema,
		Summary: &table.Summary{Operation: table.OpReplace, Properties: r.summary(extra)},
	}
	var ref table.SnapshotRef
	for n, have := range meta.Refs() {
		if n == table.MainBranch {
			ref = have
		}
	}
	value := func(v *int64) int64 {
		if v == nil {
			return 0
		}
		return *v
	}
	keep := 0
	if ref.MinSnapshotsToKeep != nil {
		keep = *ref.MinSnapshotsToKeep
	}
	parent := r.snap.SnapshotID
	updates := []table.Update{
		table.NewAddSnapshotUpdate(next),
		table.NewSetSnapshotRefUpdate(table.MainBranch, r.id, table.BranchRef, value(ref.MaxRefAgeMs), value(ref.MaxSnapshotAgeMs), keep),
	}
	return updates, []table.Requirement{
		table.AssertTableUUID(meta.TableUUID()), table.AssertRefSnapshotID(table.MainBranch, &parent), table.AssertDefaultSpecID(meta.DefaultPartitionSpec()),
	}, nil
}

// count notes a file that comes (1) or goes (-1) for the summary, under the names of the specification's appendix F.
func (r *replacement) count(f iceberg.DataFile, sign int) {
	word, rows := "added-", "added-"
	if sign < 0 {
		word, rows = "removed-", "deleted-"
	}
	r.numbers[word+"files-size"] += f.FileSizeBytes()
	switch f.ContentType() {
	case iceberg.EntryContentData:
		r.numbers[rows+"data-files"]++
		r.numbers[rows+"records"] += f.Count()
	case iceberg.EntryContentPosDeletes:
		r.numbers[word+"delete-files"]++
		r.numbers[word+"position-delete-files"]++
		r.numbers[word+"position-deletes"] += f.Count()
	default:
		r.numbers[word+"delete-files"]++
		r.numbers[word+"equality-delete-files"]++
		r.numbers[word+"equality-deletes"] += f.Count()
	}
}

func (r *replacement) summary(extra iceberg.Properties) iceberg.Properties {
	out := iceberg.Properties{}
	for k, v := range r.numbers {
		out[k] = strconv.FormatInt(v, 10)
	}
	var before iceberg.Properties
	if r.snap.Summary != nil {
		before = r.snap.Summary.Properties
	}
	for total, parts := range map[string][2]string{
		"total-data-files": {"added-data-files", "deleted-data-files"}, "total-records": {"added-records", "deleted-records"}, "total-files-size": {"added-files-size", "removed-files-size"},
		"total-delete-files": {"added-delete-files", "removed-delete-files"}, "total-position-deletes": {"added-position-deletes", "removed-position-deletes"},
		"total-equality-deletes": {"added-equality-deletes", "removed-equality-deletes"},
	} {
		if n := before.GetInt64(total, 0) + r.numbers[parts[0]] - r.numbers[parts[1]]; n >= 0 {
			out[total] = strconv.FormatInt(n, 10)
		}
	}
	for k, v := range extra {
		out[k] = v
	}
	return out
}

// file writes one into the table's metadata folder.
func (r *replacement) file(name string, fill func(io.Writer) error) (path string, size int64, err error) {
	where, err := r.t.LocationProvider()
	if err != nil {
		return "", 0, fmt.Errorf("location: %w", err)
	}
	path = where.NewMetadataLocation(name)
	f, err := r.store.Create(path)
	if err != nil {
		return "", 0, fmt.Errorf("file %s: %w", path, err)
	}
	r.made = append(r.made, path)
	n := &counted{w: f}
	if err := errors.Join(fill(n), f.Close()); err != nil {
		return "", 0, fmt.Errorf("file %s: %w", path, err)
	}
	return path, n.n, nil
}

type counted struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func (r *replacement) discard() error {
	var errs []error
	for _, path := range r.made {
		errs = append(errs, remove(r.store, path))
	}
	return errors.Join(errs...)
}

// partitionSet is the partitions that some files are in.
type partitionSet struct {
	t     *table.Table
	specs map[int32][]map[int]any
}

func partitionsOf(t *table.Table, files []iceberg.DataFile) partitionSet {
	s := partitionSet{t, map[int32][]map[int]any{}}
	seen := map[string]bool{}
	for _, f := range files {
		values := f.Partition()
		if key := fmt.Sprint(f.SpecID(), values); !seen[key] {
			seen[key] = true
			s.specs[f.SpecID()] = append(s.specs[f.SpecID()], values)
		}
	}
	return s
}

// overlaps says whether a manifest may list files of these partitions, by the bounds in the list of manifests.
func (s partitionSet) overlaps(m iceberg.ManifestFile) bool {
	parts := s.specs[m.PartitionSpecID()]
	if len(parts) == 0 {
		return false
	}
	spec := s.t.Metadata().PartitionSpecByID(int(m.PartitionSpecID()))
	bounds := m.Partitions()
	if spec == nil || len(bounds) != spec.NumFields() {
		return true
	}
	types := spec.PartitionType(s.t.Schema()).FieldList
	for _, values := range parts {
		may := true
		i := 0
		for _, f := range spec.Fields() {
			may = may && partitionBetween(types[i].Type, bounds[i], values[f.FieldID])
			i++
		}
		if may {
			return true
		}
	}
	return false
}

// partitionBetween says whether a manifest's files may have a partition value. What cannot be compared may.
func partitionBetween(t iceberg.Type, b iceberg.FieldSummary, value any) bool {
	if value == nil {
		return b.ContainsNull
	}
	key, ok := partitionKey(value)
	if !ok {
		return true
	}
	if b.LowerBound == nil || b.UpperBound == nil { // all are null
		return !b.ContainsNull || b.LowerBound != nil || b.UpperBound != nil
	}
	if lower, ok := keyOfBytes(t, *b.LowerBound); ok && len(lower) == len(key) && bytes.Compare(key, lower) < 0 {
		return false
	}
	if upper, ok := keyOfBytes(t, *b.UpperBound); ok && len(upper) == len(key) && bytes.Compare(key, upper) > 0 {
		return false
	}
	return true
}

// partitionKey is the key of a partition value that is a number, as those of days are.
func partitionKey(value any) ([]byte, bool) {
	switch v := value.(type) {
	case int32:
		return binary.BigEndian.AppendUint32(nil, uint32(v)^1<<31), true
	case iceberg.Date:
		return binary.BigEndian.AppendUint32(nil, uint32(v)^1<<31), true
	case int64:
		return order.AppendInt(nil, v), true
	}
	return nil, false
}
