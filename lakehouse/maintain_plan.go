package lakehouse

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/cespare/xxhash/v2"
)

// tier is how many times larger than all the smaller ones together a file of an open day may be to be rewritten with them: each row is then rewritten a number
// of times that grows with the logarithm of the day, not with the day.
const tier = 4

// Plan says what a compaction rewrites. It is the same for the same snapshot, policy and day. As JSON it belongs into a file, not into a history.
type Plan struct {
	ID         string  `json:"id"`
	Table      string  `json:"table"`
	SnapshotID int64   `json:"snapshot_id"` // whose files these are; 0 with an empty table
	Policy     Policy  `json:"policy"`
	Groups     []Group `json:"groups"`
	Left       int     `json:"left"` // groups beyond the policy's limit, for the next plan
	Files      int     `json:"files"`
	Bytes      int64   `json:"bytes"`
	Rows       int64   `json:"rows"`
}

// Group is what is rewritten together: files of one partition.
type Group struct {
	ID        int      `json:"id"` // index in the plan
	Partition string   `json:"partition"`
	Files     []string `json:"files"`
	Deletes   []string `json:"deletes,omitempty"` // all delete files of the partition
	Manifests []string `json:"manifests"`         // that list Files
	Bytes     int64    `json:"bytes"`
	Rows      int64    `json:"rows"` // before deletes
}

// liveFile is what planning remembers of a file.
type liveFile struct {
	path     string
	manifest int32
	bytes    int64
	rows     int64
	seq      int64
}

// livePartition is what planning remembers of a partition.
type livePartition struct {
	name    string
	day     int32 // since 1970; the future if it is not known
	old     bool  // of a partition spec that is no longer the table's
	files   []liveFile
	rows    int64
	deletes []liveFile
}

// PlanCompaction finds what is worth rewriting at the head of main: small files, and files of partitions with many deleted rows. It reads manifests one after
// the other and remembers about 200 bytes a file. A table that needs nothing gives a plan without groups.
func (c *Catalog) PlanCompaction(ctx context.Context, name string, p Policy) (Plan, error) {
	return c.planCompaction(ctx, name, p, time.Now())
}

func (c *Catalog) planCompaction(ctx context.Context, name string, p Policy, now time.Time) (Plan, error) {
	if err := p.Validate(); err != nil {
		return Plan{}, fmt.Errorf("planning compaction of table %s: policy: %w", name, err)
	}
	t, err := c.Load(ctx, name)
	if err != nil {
		return Plan{}, err
	}
	if err := p.fits(t.Schema()); err != nil {
		return Plan{}, fmt.Errorf("planning compaction of table %s: %w", name, err)
	}
	plan := Plan{Table: name, Policy: p, Groups: []Group{}}
	snap := t.CurrentSnapshot()
	if snap == nil {
		return plan, nil
	}
	plan.SnapshotID = snap.SnapshotID
	parts, manifests, err := live(ctx, t, snap)
	if err != nil {
		return plan, fmt.Errorf("planning compaction of table %s: %w", name, err)
	}
	today := int32(floorDiv(now.UnixMicro(), 24*3600*1_000_000))
	for _, part := range parts {
		if part.old {
			if len(part.deletes) > 0 {
				return plan, fmt.Errorf("planning compaction of table %s: %w", name, errOldDeletes)
			}
			continue
		}
		deletes := make([]string, 0, len(part.deletes))
		for _, d := range part.deletes {
			deletes = append(deletes, d.path)
		}
		slices.Sort(deletes)
		for _, files := range p.choose(part, part.day < today) {
			g := Group{Partition: part.name, Deletes: deletes}
			from := map[int32]bool{}
			for _, f := range files {
				g.Files, from[f.manifest] = append(g.Files, f.path), true
				g.Bytes += f.bytes
				g.Rows += f.rows
			}
			for _, m := range slices.Sorted(maps.Keys(from)) {
				g.Manifests = append(g.Manifests, manifests[m])
			}
			plan.Groups = append(plan.Groups, g)
		}
	}
	if n := len(plan.Groups) - p.MaxGroups; n > 0 { // those that take away most files come first
		slices.SortStableFunc(plan.Groups, func(a, b Group) int { return cmp.Compare(len(b.Files), len(a.Files)) })
		plan.Groups, plan.Left = plan.Groups[:p.MaxGroups], n
		slices.SortStableFunc(plan.Groups, func(a, b Group) int { return cmp.Compare(a.Partition, b.Partition) })
	}
	h := xxhash.New()
	// The sequence number grows with every commit, also after a rollback: no two states of a table give one id.
	_, _ = fmt.Fprintf(h, "%s %d %d %d", t.Metadata().TableUUID(), snap.SnapshotID, t.Metadata().LastSequenceNumber(), today) // never fails
	for i := range plan.Groups {
		g := &plan.Groups[i]
		g.ID = i
		plan.Files += len(g.Files)
		plan.Bytes += g.Bytes
		plan.Rows += g.Rows
		_, _ = fmt.Fprintf(h, "\n%s %q", g.Partition, g.Files)
	}
	if err := json.NewEncoder(h).Encode(p); err != nil {
		return plan, fmt.Errorf("planning compaction of table %s: policy: %w", name, err)
	}
	plan.ID = hex.EncodeToString(h.Sum(nil))
	return plan, nil
}

// choose gives the files of a partition that are to be rewritten together.
func (p Policy) choose(part *livePartition, closed bool) [][]liveFile {
	var deleted, newest int64
	oldest := int64(math.MaxInt64)
	for _, f := range part.files {
		oldest = min(oldest, f.seq)
	}
	for _, d := range part.deletes {
		if d.seq < oldest { // deletes nothing any more
			continue
		}
		deleted, newest = deleted+d.rows, max(newest, d.seq)
	}
	much := deleted > 0 && float64(deleted) >= p.DeleteRatio*float64(part.rows)
	dirty := func(f liveFile) bool { return much && f.seq <= newest }
	var files []liveFile
	for _, f := range part.files {
		if p.RewriteAll || float64(f.bytes) < p.SmallFileRatio*float64(p.TargetFileBytes) || dirty(f) {
			files = append(files, f)
		}
	}
	least := p.MinClosedFiles
	if closed = closed || p.RewriteAll; closed { // rows that came together stay together
		slices.SortFunc(files, func(a, b liveFile) int { return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.path, b.path)) })
	} else {
		least = p.MinInputFiles
		slices.SortFunc(files, func(a, b liveFile) int { return cmp.Or(cmp.Compare(a.bytes, b.bytes), cmp.Compare(a.path, b.path)) })
	}
	var out [][]liveFile
	var bin []liveFile
	var bytes int64
	done := func() {
		outputs := (bytes + p.TargetFileBytes - 1) / p.TargetFileBytes
		if p.RewriteAll && len(bin) > 0 || slices.ContainsFunc(bin, dirty) || len(bin) >= least && int64(len(bin)) > outputs {
			out = append(out, bin)
		}
		bin, bytes = nil, 0
	}
	for _, f := range files {
		if len(bin) > 0 && (bytes+f.bytes > p.MaxGroupBytes || !closed && f.bytes > tier*bytes) {
			done()
		}
		bin = append(bin, f)
		bytes += f.bytes
	}
	done()
	return out
}

// errOldDeletes: such files may apply to any partition.
var errOldDeletes = errors.New("there are delete files of an earlier partition spec: have the engine that wrote them rewrite the table")

// live lists the partitions of a snapshot, in order, with their data and delete files, and the manifests that files refer to.
func live(ctx context.Context, t *table.Table, snap *table.Snapshot) ([]*livePartition, []string, error) {
	store, err := t.FS(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("store: %w", err)
	}
	manifests, err := snap.Manifests(store)
	if err != nil {
		return nil, nil, fmt.Errorf("manifests of snapshot %d: %w", snap.SnapshotID, err)
	}
	names := partitionNames{t: t, known: map[string]*livePartition{}}
	var paths []string
	for i, m := range manifests {
		paths = append(paths, m.FilePath())
		err := plainEntries(ctx, store, m, func(e iceberg.ManifestEntry) error {
			f := e.DataFile()
			part, err := names.of(f)
			if err != nil {
				return err
			}
			l := liveFile{f.FilePath(), int32(i), f.FileSizeBytes(), f.Count(), e.SequenceNum()}
			if f.ContentType() == iceberg.EntryContentData {
				part.files = append(part.files, l)
				part.rows += l.rows
			} else {
				part.deletes = append(part.deletes, l)
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	parts := slices.SortedFunc(maps.Values(names.known), func(a, b *livePartition) int { return cmp.Compare(a.name, b.name) })
	return parts, paths, nil
}

// entries calls f for each live entry of a manifest.
func entries(ctx context.Context, store iceio.IO, m iceberg.ManifestFile, f func(iceberg.ManifestEntry) error) error {
	return eachEntry(ctx, m, m.Entries(store, true), f)
}

// plainEntries is entries without the statistics of columns, which are most of a manifest.
func plainEntries(ctx context.Context, store iceio.IO, m iceberg.ManifestFile, f func(iceberg.ManifestEntry) error) error {
	return eachEntry(ctx, m, iceberg.EntriesWithProjection(store, m, true, iceberg.ManifestEntryProjection{}), f)
}

func eachEntry(ctx context.Context, m iceberg.ManifestFile, all iter.Seq2[iceberg.ManifestEntry, error], f func(iceberg.ManifestEntry) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n := 0
	for e, err := range all {
		if err != nil {
			return fmt.Errorf("manifest %s: %w", m.FilePath(), err)
		}
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := f(e); err != nil {
			return fmt.Errorf("manifest %s: %w", m.FilePath(), err)
		}
	}
	return nil
}

// partitionNames finds the partition of files.
type partitionNames struct {
	t     *table.Table
	known map[string]*livePartition
	key   strings.Builder
}

func (n *partitionNames) of(f iceberg.DataFile) (*livePartition, error) {
	n.key.Reset()
	values := f.Partition()
	spec := n.t.Metadata().PartitionSpecByID(int(f.SpecID()))
	if spec == nil {
		return nil, fmt.Errorf("file %s has unknown partition spec %d", f.FilePath(), f.SpecID())
	}
	_, _ = fmt.Fprint(&n.key, f.SpecID()) // never fails
	for _, field := range spec.Fields() {
		_, _ = fmt.Fprintf(&n.key, "/%v", values[field.FieldID]) // never fails
	}
	if part := n.known[n.key.String()]; part != nil {
		return part, nil
	}
	part := &livePartition{day: 1<<31 - 1}
	sc := n.t.Schema()
	part.name = spec.PartitionToPath(table.GetPartitionRecord(f, spec.PartitionType(sc)), sc)
	if spec.NumFields() == 1 {
		for _, field := range spec.Fields() {
			if _, ok := field.Transform.(iceberg.DayTransform); ok {
				switch v := values[field.FieldID].(type) {
				case int32:
					part.day = v
				case iceberg.Date:
					part.day = int32(v)
				}
			}
		}
	}
	if current := n.t.Spec(); int(f.SpecID()) != current.ID() { // cannot be written again as it is
		part.name, part.old = fmt.Sprintf("spec=%d/%s", f.SpecID(), part.name), true
	}
	n.known[n.key.String()] = part
	return part, nil
}

func set(items []string) map[string]bool {
	out := make(map[string]bool, len(items))
	for _, i := range items {
		out[i] = true
	}
	return out
}
