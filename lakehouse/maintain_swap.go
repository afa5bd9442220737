package lakehouse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/internal/failpoint"
)

// swap calls f with the newest head until its commit is not refused because the table has moved on.
func (c *Catalog) swap(ctx context.Context, name string, f func(t *table.Table) error) error {
	const attempts = 20
	var last error
	for i := range attempts {
		if i > 0 {
			if err := pause(ctx, time.Duration(min(i, 10))*20*time.Millisecond); err != nil {
				return errors.Join(err, last)
			}
		}
		t, err := c.Load(ctx, name)
		if err == nil {
			err = f(t)
		}
		if err == nil {
			return nil
		}
		last = err
		if !errors.Is(err, table.ErrCommitFailed) && !isStale(err) && !errors.Is(err, errLostReply) && !strings.Contains(err.Error(), "SQLITE_BUSY") {
			return err
		}
	}
	return fmt.Errorf("table %s moved on %d times: %w", name, attempts, last)
}

// commitCarried commits what a transaction has staged, with the offsets of the head that it is based on and extra in the summary of its snapshot. It is one
// attempt: a commit that would be replayed on a newer head would take old offsets there.
func (c *Catalog) commitCarried(ctx context.Context, name string, t *table.Table, tx *table.Transaction, extra iceberg.Properties, before, after string) error {
	props, err := CarryOffsets(t)
	if err != nil {
		return err
	}
	for k, v := range extra {
		props[k] = v
	}
	staged, err := tx.TableCommit()
	if err != nil {
		return fmt.Errorf("staging a commit of table %s: %w", name, err)
	}
	updates := make([]table.Update, len(staged.Updates))
	for i, u := range staged.Updates {
		if updates[i], err = withSummary(u, props); err != nil {
			return fmt.Errorf("staging a commit of table %s: %w", name, err)
		}
	}
	if err := failpoint.Err(before); err != nil {
		return err
	}
	if _, _, err := c.base.CommitTable(ctx, c.ident(name), staged.Requirements, updates); err != nil {
		return err
	}
	if err := failpoint.Err(after); err != nil {
		return fmt.Errorf("%w: %w", errLostReply, err)
	}
	return nil
}

// withSummary is an update with props added to the summary of the snapshot that it adds, if it adds one.
func withSummary(u table.Update, props iceberg.Properties) (table.Update, error) {
	if u.Action() != table.UpdateAddSnapshot {
		return u, nil
	}
	b, err := json.Marshal(u)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	var add struct {
		Snapshot *table.Snapshot `json:"snapshot"`
	}
	if err := json.Unmarshal(b, &add); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if add.Snapshot == nil || add.Snapshot.Summary == nil {
		return nil, errors.New("a snapshot without a summary")
	}
	if add.Snapshot.Summary.Properties == nil {
		add.Snapshot.Summary.Properties = iceberg.Properties{}
	}
	maps.Copy(add.Snapshot.Summary.Properties, props)
	return table.NewAddSnapshotUpdate(add.Snapshot), nil
}
