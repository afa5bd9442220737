package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/internal/failpoint"
	"millrace/internal/fault"
)

// Failpoints of a commit, for drills.
const (
	FailBeforeCommit = "lakehouse.commit.before" // files are written, nothing is committed
	FailAfterCommit  = "lakehouse.commit.after"  // committed, but the writer does not know: kill, or error for a lost reply
)

// Head is what a table's main branch holds now.
type Head struct {
	Table      string
	SnapshotID int64 // 0: the table has no snapshot
	Vector     Vector
	Rows       int64
	Files      int64
	Bytes      int64
	Snapshots  int // kept in the metadata, on all branches
	SchemaID   int
}

// Head reads the head of main. A head without a vector is fault MR-ICE-003.
func (c *Catalog) Head(ctx context.Context, name string) (Head, error) {
	t, err := c.Load(ctx, name)
	if err != nil {
		return Head{}, err
	}
	return headOf(name, t)
}

func headOf(name string, t *table.Table) (Head, error) {
	h := Head{Table: name, Vector: Vector{}, Snapshots: len(t.Metadata().Snapshots()), SchemaID: t.Schema().ID}
	snap := t.CurrentSnapshot()
	if snap == nil {
		return h, nil
	}
	h.SnapshotID = snap.SnapshotID
	var props iceberg.Properties
	if snap.Summary != nil {
		props = snap.Summary.Properties
	}
	h.Rows, h.Files, h.Bytes = props.GetInt64("total-records", 0), props.GetInt64("total-data-files", 0), props.GetInt64("total-files-size", 0)
	text, ok := props[OffsetsProperty]
	if !ok {
		return h, fault.New("MR-ICE-003", fmt.Errorf("table %s: snapshot %d carries no %s", name, snap.SnapshotID, OffsetsProperty))
	}
	v, err := ParseVector(text)
	if err != nil {
		return h, fault.New("MR-ICE-003", fmt.Errorf("table %s: snapshot %d: %w", name, snap.SnapshotID, err))
	}
	h.Vector = v
	return h, nil
}

// CarryOffsets gives the snapshot properties with which every commit that is no append of the stream (rewrite, delete, sort, repair) must be made, so that the head
// keeps saying what the table holds. t is the table the commit is based on.
func CarryOffsets(t *table.Table) (iceberg.Properties, error) {
	snap := t.CurrentSnapshot()
	if snap == nil {
		return iceberg.Properties{OffsetsProperty: Vector{}.String()}, nil
	}
	name := t.Identifier()[len(t.Identifier())-1]
	h, err := headOf(name, t)
	if err != nil {
		return nil, err
	}
	return iceberg.Properties{OffsetsProperty: h.Vector.String()}, nil
}

// Append makes files visible together with the offsets that they hold: for each partition of hi the rows [lo, hi). Only these partitions of the vector change, so
// writers of different partitions may append to one table.
//
// It is a compare-and-swap: a ConflictError if the head is not at lo. If it is at hi already, an earlier attempt whose outcome was unknown has arrived (or another
// writer stored the same range) and nothing is appended. After any other error the outcome may be unknown, and Append with the same arguments settles it:
// no two attempts can both succeed.
func (c *Catalog) Append(ctx context.Context, name string, files []iceberg.DataFile, lo, hi Vector) (Head, error) {
	const attempts = 20
	var last error
	for i := range attempts {
		if i > 0 {
			if err := pause(ctx, time.Duration(i)*10*time.Millisecond); err != nil {
				return Head{}, errors.Join(err, last)
			}
		}
		t, err := c.Load(ctx, name)
		if err != nil {
			return Head{}, errors.Join(err, last)
		}
		head, err := headOf(name, t)
		if err != nil {
			return head, err
		}
		if stored(head.Vector, lo, hi) {
			return head, nil
		}
		if err := check(name, head.Vector, lo, hi); err != nil {
			return head, err
		}
		next, err := c.appendOnce(ctx, name, t, files, head.Vector.With(hi))
		if err == nil {
			return next, nil
		}
		last = fmt.Errorf("appending %d files to table %s: %w", len(files), name, err)
		if !errors.Is(err, table.ErrCommitFailed) && !isStale(err) && !errors.Is(err, errLostReply) {
			return Head{}, last
		}
	}
	return Head{}, last
}

var errLostReply = errors.New("the reply to a commit was lost")

func (c *Catalog) appendOnce(ctx context.Context, name string, t *table.Table, files []iceberg.DataFile, v Vector) (Head, error) {
	tx := t.NewTransaction()
	if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
		return Head{}, err
	}
	props := iceberg.Properties{OffsetsProperty: v.String()}
	if err := tx.AddDataFiles(ctx, files, props, table.WithoutDuplicateCheck(), table.WithoutAutoNameMapping()); err != nil {
		return Head{}, err
	}
	if err := failpoint.Err(FailBeforeCommit); err != nil {
		return Head{}, err
	}
	next, err := tx.Commit(ctx)
	if err != nil {
		return Head{}, err
	}
	if err := failpoint.Err(FailAfterCommit); err != nil {
		return Head{}, fmt.Errorf("%w: %w", errLostReply, err)
	}
	return headOf(name, next)
}

// stored says whether the head is exactly behind the range, all of it.
func stored(head, lo, hi Vector) bool {
	moved := false
	for topic, parts := range hi {
		for p, h := range parts {
			if head.At(topic, p) != h {
				return false
			}
			moved = moved || h != lo.At(topic, p)
		}
	}
	return moved
}

func check(name string, head, lo, hi Vector) error {
	for topic, parts := range hi {
		for p, h := range parts {
			l, at := lo.At(topic, p), head.At(topic, p)
			conflict := &ConflictError{Table: name, TopicID: topic, Partition: p, Head: at, Lo: l, Hi: h}
			switch {
			case h < l:
				conflict.Kind = ErrRegression
			case at < l:
				conflict.Kind = ErrGap
			case at > l:
				conflict.Kind = ErrOverlap
			default:
				continue
			}
			return conflict
		}
	}
	return nil
}

// pause waits about d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
