package lakehouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"millrace/internal/failpoint"
	"millrace/internal/fault"
)

// Failpoints of a rollback.
const (
	FailRollbackBefore = "lakehouse.rollback.commit.before"
	FailRollbackAfter  = "lakehouse.rollback.commit.after"
)

// ErrPublishedAhead says that a rollback would leave published ahead of main.
var ErrPublishedAhead = errors.New("published is ahead of the snapshot")

// RollbackOptions says where to go back to.
type RollbackOptions struct {
	To int64 // a snapshot under main
	// Skip carries the offsets of today: what was written since stays away. Without it the sink goes back as well and writes it again.
	Skip          bool
	WithPublished bool   // published goes back too, if it is ahead
	Run           string // noted in the snapshot that Skip makes
	DryRun        bool   // says what would be done
}

// OffsetRange is a range of offsets of one partition.
type OffsetRange struct {
	TopicID   string `json:"topic_id"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"` // exclusive
}

// RollbackResult is what a rollback did, or would do.
type RollbackResult struct {
	Table         string        `json:"table"`
	From          int64         `json:"from_snapshot"`
	To            int64         `json:"to_snapshot"`
	Head          int64         `json:"head"` // of main now; with Skip a snapshot of its own
	At            time.Time     `json:"to_snapshot_at"`
	Rows          int64         `json:"rows"`       // before
	RowsAfter     int64         `json:"rows_after"` // at once: the sink may bring rows back
	Left          int           `json:"snapshots_left"`
	Skipped       bool          `json:"skipped"`
	Offsets       []OffsetRange `json:"offsets"` // between the two: written again, or skipped
	Published     int64         `json:"published"`
	PublishedFrom int64         `json:"published_from,omitempty"` // if it went back
	DryRun        bool          `json:"dry_run"`
}

// Rollback sets main back to a snapshot under it, in one commit that no append comes in between of. The snapshots after it stay until they expire. A table that is there already
// is left alone.
func (c *Catalog) Rollback(ctx context.Context, name string, o RollbackOptions) (RollbackResult, error) {
	var out RollbackResult
	err := c.swap(ctx, name, func(t *table.Table) error {
		var err error
		out, err = c.rollback(ctx, name, t, o)
		return err
	})
	if err != nil {
		return out, fmt.Errorf("rolling table %s back to snapshot %d: %w", name, o.To, err)
	}
	return out, nil
}

func (c *Catalog) rollback(ctx context.Context, name string, t *table.Table, o RollbackOptions) (RollbackResult, error) {
	out := RollbackResult{Table: name, To: o.To, Skipped: o.Skip, DryRun: o.DryRun, Offsets: []OffsetRange{}}
	to, head := t.SnapshotByID(o.To), t.CurrentSnapshot()
	if to == nil {
		return out, fmt.Errorf("%w: %d", ErrNoSnapshot, o.To)
	}
	if head == nil || !under(t, o.To, head.SnapshotID) {
		return out, fmt.Errorf("%w: it is not under main", ErrDiverged)
	}
	out.From, out.Head, out.At, out.Rows, out.RowsAfter = head.SnapshotID, o.To, time.UnixMilli(to.TimestampMs).UTC(), totalRows(head), totalRows(to)
	for _, s := range table.AncestorsOf(head.SnapshotID, t.SnapshotByID) {
		if s.SnapshotID == o.To {
			break
		}
		out.Left++
	}
	then, err := vectorOf(*to)
	if err != nil {
		return out, fault.New("MR-ICE-003", err) // nothing could go on from there
	}
	now, err := vectorOf(*head)
	if err != nil && o.Skip {
		return out, fault.New("MR-ICE-003", err)
	}
	out.Offsets = between(then, now)
	if out.Published, err = branchAt(t, RefPublished); err != nil {
		return out, err
	}
	reqs := []table.Requirement{table.AssertTableUUID(t.Metadata().TableUUID()), table.AssertRefSnapshotID(RefMain, &head.SnapshotID)}
	var updates []table.Update
	if out.Published != 0 && !under(t, out.Published, o.To) {
		if !o.WithPublished {
			return out, fault.New("MR-ICE-061", fmt.Errorf("%w: it is at %d", ErrPublishedAhead, out.Published))
		}
		out.PublishedFrom, out.Published = out.Published, o.To
		reqs = append(reqs, table.AssertRefSnapshotID(RefPublished, &out.PublishedFrom))
		updates = append(updates, setBranch(name, RefPublished, o.To))
	}
	if head.SnapshotID == o.To || o.DryRun {
		return out, nil
	}
	if !o.Skip {
		updates = append(updates, setMain(t, o.To))
		return out, c.commitRollback(ctx, name, reqs, updates)
	}
	store, err := writeStore(ctx, t)
	if err != nil {
		return out, err
	}
	next, err := carried(t, store, to, iceberg.Properties{OffsetsProperty: then.With(now).String(), RollbackKey: cmp.Or(o.Run, "skip")})
	if err != nil {
		return out, err
	}
	out.Head = next.SnapshotID
	err = c.commitRollback(ctx, name, reqs, append([]table.Update{table.NewAddSnapshotUpdate(next), setMain(t, next.SnapshotID)}, updates...))
	if errors.Is(err, table.ErrCommitFailed) || isStale(err) {
		err = errors.Join(err, remove(store, next.ManifestList))
	}
	return out, err
}

func (c *Catalog) commitRollback(ctx context.Context, name string, reqs []table.Requirement, updates []table.Update) error {
	if err := failpoint.Err(FailRollbackBefore); err != nil {
		return err
	}
	if _, _, err := c.base.CommitTable(ctx, c.ident(name), reqs, updates); err != nil {
		return err
	}
	return failpoint.Err(FailRollbackAfter)
}

// SkipTo carries main forward to offsets without rows, by a commit that holds the same files: what lies between stays away. For a sink that has stopped since Kafka no longer
// holds what comes next. A partition that is further already stays where it is.
func (c *Catalog) SkipTo(ctx context.Context, name string, to Vector, run string) ([]OffsetRange, error) {
	skipped := []OffsetRange{}
	err := c.swap(ctx, name, func(t *table.Table) error {
		head := t.CurrentSnapshot()
		if head == nil {
			return fmt.Errorf("%w: the table is empty", ErrNoSnapshot)
		}
		now, err := vectorOf(*head)
		if err != nil {
			return fault.New("MR-ICE-003", err)
		}
		ahead := Vector{}
		for topic, parts := range to {
			if _, ok := now[topic]; !ok {
				return fmt.Errorf("the table was never fed from topic id %s", topic)
			}
			for p, next := range parts {
				if next > now.At(topic, p) && now.Has(topic, p) {
					ahead.Set(topic, p, next)
				}
			}
		}
		skipped = between(now, now.With(ahead))
		if len(skipped) == 0 {
			return nil
		}
		store, err := writeStore(ctx, t)
		if err != nil {
			return err
		}
		next, err := carried(t, store, head, iceberg.Properties{OffsetsProperty: now.With(ahead).String(), RollbackKey: cmp.Or(run, "skip")})
		if err != nil {
			return err
		}
		reqs := []table.Requirement{table.AssertTableUUID(t.Metadata().TableUUID()), table.AssertRefSnapshotID(RefMain, &head.SnapshotID)}
		return c.commitRollback(ctx, name, reqs, []table.Update{table.NewAddSnapshotUpdate(next), setMain(t, next.SnapshotID)})
	})
	if err != nil {
		return nil, fmt.Errorf("carrying table %s forward: %w", name, err)
	}
	return skipped, nil
}

// between are the offsets that lie from one vector to another.
func between(from, to Vector) []OffsetRange {
	out := []OffsetRange{}
	for _, topic := range slices.Sorted(maps.Keys(to)) {
		for _, p := range slices.Sorted(maps.Keys(to[topic])) {
			if lo, hi := from.At(topic, p), to.At(topic, p); lo < hi {
				out = append(out, OffsetRange{topic, p, lo, hi})
			}
		}
	}
	return out
}

// setMain moves main and leaves the rest of the ref as it is.
func setMain(t *table.Table, to int64) table.Update {
	var have table.SnapshotRef
	for n, r := range t.Metadata().Refs() {
		if n == RefMain {
			have = r
		}
	}
	value := func(v *int64) int64 {
		if v == nil {
			return 0
		}
		return *v
	}
	keep := 0
	if have.MinSnapshotsToKeep != nil {
		keep = *have.MinSnapshotsToKeep
	}
	return table.NewSetSnapshotRefUpdate(RefMain, to, table.BranchRef, value(have.MaxRefAgeMs), value(have.MaxSnapshotAgeMs), keep)
}

func writeStore(ctx context.Context, t *table.Table) (iceio.WriteFileIO, error) {
	f, err := t.FS(ctx)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	w, ok := f.(iceio.WriteFileIO)
	if !ok {
		return nil, fmt.Errorf("store: %T cannot be written", f)
	}
	return w, nil
}

// carried makes a snapshot with the files of another one and a summary of its own. It has its own list of manifests, since expiry deletes that of a snapshot with it.
func carried(t *table.Table, store iceio.WriteFileIO, of *table.Snapshot, props iceberg.Properties) (*table.Snapshot, error) {
	manifests, err := of.Manifests(store)
	if err != nil {
		return nil, fmt.Errorf("manifests of snapshot %d: %w", of.SnapshotID, err)
	}
	where, err := t.LocationProvider()
	if err != nil {
		return nil, fmt.Errorf("location: %w", err)
	}
	sequence, schema := t.Metadata().LastSequenceNumber()+1, t.Schema().ID
	next := &table.Snapshot{ParentSnapshotID: &of.SnapshotID, SequenceNumber: sequence, TimestampMs: time.Now().UnixMilli(), SchemaID: &schema}
	for next.SnapshotID == 0 || t.SnapshotByID(next.SnapshotID) != nil {
		next.SnapshotID = rand.Int64N(1<<63-1) + 1
	}
	next.ManifestList = where.NewMetadataLocation(fmt.Sprintf("snap-%d-0-%s.avro", next.SnapshotID, uuid.New()))
	summary := iceberg.Properties{}
	if of.Summary != nil {
		for k, v := range of.Summary.Properties {
			if len(k) > 6 && k[:6] == "total-" {
				summary[k] = v
			}
		}
	}
	maps.Copy(summary, props)
	next.Summary = &table.Summary{Operation: table.OpReplace, Properties: summary}
	f, err := store.Create(next.ManifestList)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", next.ManifestList, err)
	}
	write := func(out io.Writer) error {
		w, err := iceberg.NewManifestListWriterV2(out, next.SnapshotID, sequence, &of.SnapshotID)
		if err != nil {
			return err
		}
		return errors.Join(w.AddManifests(manifests), w.Close())
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return nil, fmt.Errorf("file %s: %w", next.ManifestList, errors.Join(err, remove(store, next.ManifestList)))
	}
	return next, nil
}
