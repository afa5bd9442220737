package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
)

// errStale says that a commit was refused because the table had moved on: nothing was committed.
var errStale = errors.New("the table has moved on")

// backend is a catalog of any kind, as this package uses it: it commits once, and its refusals look alike.
//
// A commit has three outcomes. It is made. It is refused (errStale): the SQL catalog's requirements or its compare-and-swap on the metadata's place did not hold,
// or a REST server answered 409. Or its outcome is unknown: every other error, such as a lost connection or a server's 5xx. None is ever told to iceberg-go
// as a conflict, since that would replay the commit on another head; the callers of this package know what to do about each.
type backend struct {
	catalog.Catalog
	store  *store // nil: tables come with their own way to their files
	server bool   // a REST server checks requirements, and knows only those of the specification
}

// LoadTable implements catalog.Catalog.
func (b *backend) LoadTable(ctx context.Context, id table.Identifier) (*table.Table, error) {
	t, err := b.Catalog.LoadTable(b.store.with(ctx), id)
	if err != nil {
		return nil, err
	}
	return table.New(id, t.Metadata(), t.MetadataLocation(), b.store.files(t), b), nil
}

// CommitTable implements catalog.Catalog.
func (b *backend) CommitTable(ctx context.Context, id table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	ctx = b.store.with(ctx)
	if b.server {
		return b.commitAtServer(ctx, id, reqs, updates)
	}
	meta, loc, err := b.Catalog.CommitTable(ctx, id, reqs, updates)
	return meta, loc, refusal(err)
}

// Close closes what the catalog and the store hold.
func (b *backend) Close() error {
	var err error
	if c, ok := b.Catalog.(catalog.Closer); ok {
		err = c.Close()
	}
	return errors.Join(err, b.store.close())
}

// refusal turns all ways to say that a commit was refused into errStale.
func refusal(err error) error {
	if err != nil && !errors.Is(err, errStale) && (errors.Is(err, table.ErrCommitFailed) || strings.Contains(strings.ToLower(err.Error()), "requirement failed")) { // it has both spellings
		return fmt.Errorf("%w: %s", errStale, err.Error()) // no longer a conflict of iceberg-go's
	}
	return err
}

// isStale says whether a commit was refused because the table had moved on: then nothing was committed.
func isStale(err error) bool { return errors.Is(err, errStale) }

// retrying is the catalog with refusals that iceberg-go recognises, and retries on the newest head.
type retrying struct{ *backend }

// LoadTable implements catalog.Catalog: the table commits through the wrapper.
func (r *retrying) LoadTable(ctx context.Context, id table.Identifier) (*table.Table, error) {
	t, err := r.backend.LoadTable(ctx, id)
	if err != nil {
		return nil, err
	}
	return table.New(id, t.Metadata(), t.MetadataLocation(), t.FS, r), nil
}

// CommitTable implements catalog.Catalog.
func (r *retrying) CommitTable(ctx context.Context, id table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	meta, loc, err := r.backend.CommitTable(ctx, id, reqs, updates)
	if isStale(err) {
		err = fmt.Errorf("%w: %w", table.ErrCommitFailed, err)
	}
	return meta, loc, err
}
