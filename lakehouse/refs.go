package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/iceberg-go/table"

	"millrace/internal/fault"
)

// The branches of a table. Ingest and maintenance commit to main; published is where main was when its rows were last checked.
const (
	RefMain      = table.MainBranch
	RefPublished = "published"
)

// Why a ref could not be read or moved.
var (
	ErrNoRef    = errors.New("the table has no such ref")
	ErrRefMoved = errors.New("the ref is no longer where it was")
	ErrBackward = errors.New("published only moves forward, to a snapshot under main")
)

// RefState is where a ref stands.
type RefState struct {
	Name       string    `json:"name"`
	Kind       string    `json:"kind"`        // branch, tag, snapshot or as-of
	SnapshotID int64     `json:"snapshot_id"` // 0: main of a table without snapshots
	At         time.Time `json:"at"`          // of the snapshot
	Vector     Vector    `json:"offsets"`
	Until      time.Time `json:"until,omitzero"` // when expiry takes a ref away that is kept for a time
}

// Ref finds a branch or tag by its name, "snapshot:<id>", or "as-of:<RFC 3339>", which is what main was then. ErrNoRef or ErrNoSnapshot if it is not there. A snapshot
// that carries no vector is fault MR-ICE-003.
func (c *Catalog) Ref(ctx context.Context, name, ref string) (RefState, error) {
	t, err := c.Load(ctx, name)
	if err != nil {
		return RefState{}, err
	}
	return refOf(name, t, ref)
}

// Refs lists the branches and tags of a table: main, published, then tags by name. A snapshot without a vector has none here.
func (c *Catalog) Refs(ctx context.Context, name string) ([]RefState, error) {
	t, err := c.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	out := []RefState{}
	for ref := range t.Metadata().Refs() {
		s, err := refOf(name, t, ref)
		if id, _ := fault.IDOf(err); err != nil && id != "MR-ICE-003" {
			return nil, err
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b RefState) int {
		if d := rankOf(a.Name) - rankOf(b.Name); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out, nil
}

func rankOf(ref string) int {
	switch ref {
	case RefMain:
		return 0
	case RefPublished:
		return 1
	}
	return 2
}

func refOf(name string, t *table.Table, ref string) (RefState, error) {
	out := RefState{Name: ref, Vector: Vector{}}
	if text, ok := strings.CutPrefix(ref, "snapshot:"); ok {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil || id <= 0 {
			return out, fmt.Errorf("table %s: %q is no snapshot id", name, text)
		}
		out.Kind, out.SnapshotID = "snapshot", id
	} else if text, ok := strings.CutPrefix(ref, "as-of:"); ok {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return out, fmt.Errorf("table %s: %q is no time as 2026-03-01T12:00:00Z", name, text)
		}
		if out.SnapshotID, err = asOf(t, at); err != nil {
			return out, fmt.Errorf("table %s: %w", name, err)
		}
		out.Kind = "as-of"
	} else {
		found := false
		for n, r := range t.Metadata().Refs() {
			if n != ref {
				continue
			}
			found, out.Kind, out.SnapshotID = true, string(r.SnapshotRefType), r.SnapshotID
			if s := t.SnapshotByID(r.SnapshotID); s != nil && r.MaxRefAgeMs != nil && ref != RefMain {
				out.Until = time.UnixMilli(s.TimestampMs + *r.MaxRefAgeMs).UTC()
			}
		}
		if !found {
			if ref != RefMain {
				return out, fmt.Errorf("table %s: %w: %s%s", name, ErrNoRef, ref, others(t))
			}
			out.Kind = string(table.BranchRef)
			return out, nil
		}
	}
	s := t.SnapshotByID(out.SnapshotID)
	if s == nil {
		return out, fmt.Errorf("table %s: %w: %d", name, ErrNoSnapshot, out.SnapshotID)
	}
	out.At = time.UnixMilli(s.TimestampMs).UTC()
	v, err := vectorOf(*s)
	if err != nil {
		return out, fault.New("MR-ICE-003", fmt.Errorf("table %s: %w", name, err))
	}
	out.Vector = v
	return out, nil
}

func others(t *table.Table) string {
	var names []string
	for n := range t.Metadata().Refs() {
		names = append(names, n)
	}
	if len(names) == 0 {
		return "; it has none"
	}
	slices.Sort(names)
	return "; it has " + strings.Join(names, ", ")
}

// vectorOf reads the vector of a snapshot.
func vectorOf(s table.Snapshot) (Vector, error) {
	if s.Summary != nil {
		if text, ok := s.Summary.Properties[OffsetsProperty]; ok {
			v, err := ParseVector(text)
			if err != nil {
				return Vector{}, fmt.Errorf("snapshot %d: %w", s.SnapshotID, err)
			}
			return v, nil
		}
	}
	return Vector{}, fmt.Errorf("snapshot %d carries no %s", s.SnapshotID, OffsetsProperty)
}

// asOf finds where main was at a time.
func asOf(t *table.Table, at time.Time) (int64, error) {
	var best, oldest *table.SnapshotLogEntry
	for e := range t.Metadata().SnapshotLogs() {
		if e.TimestampMs <= at.UnixMilli() && (best == nil || e.TimestampMs >= best.TimestampMs) {
			best = &e
		}
		if oldest == nil || e.TimestampMs < oldest.TimestampMs {
			oldest = &e
		}
	}
	switch {
	case best != nil:
		return best.SnapshotID, nil
	case oldest != nil:
		return 0, fmt.Errorf("%w: what main was at %s has expired, or the table was empty; the oldest known is of %s", ErrNoSnapshot, at.UTC().Format(time.RFC3339), time.UnixMilli(oldest.TimestampMs).UTC().Format(time.RFC3339))
	}
	return 0, fmt.Errorf("%w: the table is empty", ErrNoSnapshot)
}

// MoveRef moves a branch from one snapshot to another by one compare-and-swap; from 0 means that it must not exist yet. ErrRefMoved: it is elsewhere; a call whose work is
// done already is no error, so that one with an unknown outcome can be made again. Published goes only forward and only to what main holds (ErrBackward).
// Main moves by commits and Rollback alone.
func (c *Catalog) MoveRef(ctx context.Context, name, ref string, from, to int64) error {
	if err := checkRefName(ref); err != nil {
		return fmt.Errorf("moving ref of table %s: %w", name, err)
	}
	err := c.swap(ctx, name, func(t *table.Table) error { return c.moveRef(ctx, name, t, ref, from, to) })
	if err != nil {
		return fmt.Errorf("moving ref %s of table %s: %w", ref, name, err)
	}
	return nil
}

func (c *Catalog) moveRef(ctx context.Context, name string, t *table.Table, ref string, from, to int64) error {
	at, err := branchAt(t, ref)
	if err != nil {
		return err
	}
	if at == to {
		return nil
	}
	if at != from {
		return fmt.Errorf("%w: it is at snapshot %d, not %d", ErrRefMoved, at, from)
	}
	if t.SnapshotByID(to) == nil {
		return fmt.Errorf("%w: %d", ErrNoSnapshot, to)
	}
	reqs := []table.Requirement{table.AssertTableUUID(t.Metadata().TableUUID()), table.AssertRefSnapshotID(ref, idOrNil(from))}
	if ref == RefPublished {
		if err := forward(t, from, to); err != nil {
			return err
		}
		head := t.CurrentSnapshot().SnapshotID // forward has seen it
		reqs = append(reqs, table.AssertRefSnapshotID(RefMain, &head))
	}
	_, _, err = c.base.CommitTable(ctx, c.ident(name), reqs, []table.Update{setBranch(name, ref, to)})
	return err
}

// setBranch keeps of a branch its head and what is young: its history is that of main.
func setBranch(name, ref string, to int64) table.Update {
	return table.NewSetSnapshotRefUpdate(ref, to, table.BranchRef, 0, max(1, PolicyOf(name).SnapshotAge.Milliseconds()), 1)
}

func branchAt(t *table.Table, ref string) (int64, error) {
	for n, r := range t.Metadata().Refs() {
		if n == ref {
			if r.SnapshotRefType != table.BranchRef {
				return 0, fmt.Errorf("%s is a tag", ref)
			}
			return r.SnapshotID, nil
		}
	}
	return 0, nil
}

func idOrNil(id int64) *int64 {
	if id == 0 {
		return nil
	}
	return &id
}

// forward says whether published may go from one snapshot to another.
func forward(t *table.Table, from, to int64) error {
	head := t.CurrentSnapshot()
	if head == nil || !under(t, to, head.SnapshotID) {
		return fmt.Errorf("%w: snapshot %d is not under main", ErrBackward, to)
	}
	if from != 0 && !under(t, from, to) {
		return fmt.Errorf("%w: snapshot %d does not descend from snapshot %d", ErrBackward, to, from)
	}
	return nil
}

// under says whether a snapshot is another one or an ancestor of it. Expiry takes snapshots out of the middle of the chain; then numbers decide: a snapshot that was made
// later and holds at least the same offsets descends from it, unless main was rolled back in between by a foreign program and has caught up since.
func under(t *table.Table, ancestor, of int64) bool {
	a, d := t.SnapshotByID(ancestor), t.SnapshotByID(of)
	if a == nil || d == nil {
		return false
	}
	for s := d; ; {
		if s.SnapshotID == ancestor {
			return true
		}
		if s.SequenceNumber <= a.SequenceNumber || s.ParentSnapshotID == nil {
			return false
		}
		if s = t.SnapshotByID(*s.ParentSnapshotID); s == nil {
			break
		}
	}
	va, err1 := vectorOf(*a)
	vd, err2 := vectorOf(*d)
	return err1 == nil && err2 == nil && va.within(vd)
}

// within says whether o is at least as far everywhere.
func (v Vector) within(o Vector) bool {
	for topic, parts := range v {
		for p, next := range parts {
			if o.At(topic, p) < next {
				return false
			}
		}
	}
	return true
}

var refNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func checkRefName(ref string) error {
	if ref == RefMain {
		return errors.New("main is moved by commits and rollback only")
	}
	if !refNames.MatchString(ref) {
		return fmt.Errorf("%q is no name of a ref: letters, digits, dots, dashes and underscores, at most 100", ref)
	}
	return nil
}

// Tag names a snapshot, for maxAge from now (0: for ever); a tag of that name is moved there. ErrNoSnapshot: it is too late.
func (c *Catalog) Tag(ctx context.Context, name, tag string, snapshot int64, maxAge time.Duration) error {
	err := checkRefName(tag)
	if err == nil && (tag == RefPublished || strings.HasPrefix(tag, LeasePrefix)) {
		err = fmt.Errorf("%s is no name of a tag", tag)
	}
	if err == nil && maxAge < 0 {
		err = fmt.Errorf("age %s is below 0s", maxAge)
	}
	if err == nil {
		err = c.swap(ctx, name, func(t *table.Table) error {
			snap := t.SnapshotByID(snapshot)
			if snap == nil {
				return fmt.Errorf("%w: %d", ErrNoSnapshot, snapshot)
			}
			var at *int64
			for n, r := range t.Metadata().Refs() {
				if n == tag {
					if r.SnapshotRefType != table.TagRef {
						return fmt.Errorf("%s is a branch", tag)
					}
					at = &r.SnapshotID
				}
			}
			age := int64(0)
			if maxAge > 0 { // counts from the snapshot
				age = max(0, time.Now().UnixMilli()-snap.TimestampMs) + maxAge.Milliseconds()
			}
			reqs := []table.Requirement{table.AssertTableUUID(t.Metadata().TableUUID()), table.AssertRefSnapshotID(tag, at)}
			_, _, err := c.base.CommitTable(ctx, c.ident(name), reqs, []table.Update{table.NewSetSnapshotRefUpdate(tag, snapshot, table.TagRef, age, 0, 0)})
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("tagging snapshot %d of table %s as %s: %w", snapshot, name, tag, err)
	}
	return nil
}

// DropRef removes a tag, or a branch that is neither main nor published. One that is not there is ErrNoRef.
func (c *Catalog) DropRef(ctx context.Context, name, ref string) error {
	err := checkRefName(ref)
	if err == nil && ref == RefPublished {
		err = errors.New("published is moved, never dropped")
	}
	if err == nil {
		err = c.swap(ctx, name, func(t *table.Table) error {
			at := refSnapshot(t, ref)
			if at == nil {
				return fmt.Errorf("%w: %s%s", ErrNoRef, ref, others(t))
			}
			reqs := []table.Requirement{table.AssertTableUUID(t.Metadata().TableUUID()), table.AssertRefSnapshotID(ref, at)}
			_, _, err := c.base.CommitTable(ctx, c.ident(name), reqs, []table.Update{table.NewRemoveSnapshotRefUpdate(ref)})
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("dropping ref %s of table %s: %w", ref, name, err)
	}
	return nil
}
