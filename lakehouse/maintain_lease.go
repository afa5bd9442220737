package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/apache/iceberg-go/table"
)

// ErrNoSnapshot says that a snapshot is no longer in the table's metadata.
var ErrNoSnapshot = errors.New("the snapshot is no longer in the table")

// LeasePrefix begins the names of tags that are leases: lease.<kind>.<run>.
const LeasePrefix = "lease."

// Lease keeps a snapshot, with all its files, from being expired by any engine for about d, by a tag; calling it again with the same kind and run prolongs the
// lease. release ends it before its time. ErrNoSnapshot: it is too late.
func (c *Catalog) Lease(ctx context.Context, name, kind, run string, snapshot int64, d time.Duration) (release func(context.Context) error, err error) {
	if kind == "" || run == "" || d <= 0 {
		return nil, fmt.Errorf("lease on table %s: kind %q, run %q and duration %s must all be given", name, kind, run, d)
	}
	tag := LeasePrefix + refSafe(kind) + "." + refSafe(run)
	err = c.swap(ctx, name, func(t *table.Table) error {
		snap := t.SnapshotByID(snapshot)
		if snap == nil {
			return fmt.Errorf("%w: %d", ErrNoSnapshot, snapshot)
		}
		// The age of a ref counts from its snapshot, not from when it was set.
		age := max(0, time.Now().UnixMilli()-snap.TimestampMs) + d.Milliseconds()
		reqs := []table.Requirement{table.AssertTableUUID(t.Metadata().TableUUID()), table.AssertRefSnapshotID(tag, refSnapshot(t, tag))}
		_, _, err := c.base.CommitTable(ctx, c.ident(name), reqs, []table.Update{table.NewSetSnapshotRefUpdate(tag, snapshot, table.TagRef, age, 0, 0)})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lease %s on table %s: %w", tag, name, err)
	}
	return func(ctx context.Context) error {
		err := c.swap(ctx, name, func(t *table.Table) error {
			at := refSnapshot(t, tag)
			if at == nil || *at != snapshot {
				return nil // expired, or another lease by now
			}
			reqs := []table.Requirement{table.AssertTableUUID(t.Metadata().TableUUID()), table.AssertRefSnapshotID(tag, at)}
			_, _, err := c.base.CommitTable(ctx, c.ident(name), reqs, []table.Update{table.NewRemoveSnapshotRefUpdate(tag)})
			return err
		})
		if err != nil {
			return fmt.Errorf("ending lease %s on table %s: %w", tag, name, err)
		}
		return nil
	}, nil
}

// refSnapshot is the snapshot of a ref, nil if there is no such ref.
func refSnapshot(t *table.Table, ref string) *int64 {
	for name, r := range t.Metadata().Refs() {
		if name == ref {
			return &r.SnapshotID
		}
	}
	return nil
}

func refSafe(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, s)
}
