package lakehouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	icebergsql "github.com/apache/iceberg-go/catalog/sql"
	"github.com/apache/iceberg-go/table"
	_ "modernc.org/sqlite" // database/sql driver of the SQLite catalog

	"millrace/internal/fault"
)

// Catalog finds and commits the tables of one namespace. It is safe for concurrent use. It keeps no table in memory: every call reads the head it needs, since
// a table chained from commit to commit keeps every version of its metadata alive.
type Catalog struct {
	cfg     Config
	db      *sql.DB
	base    *icebergsql.Catalog // commits once: a compare-and-swap that a retry cannot escape
	retries *retrying           // for maintenance and DDL
}

// Open opens the catalog and creates its tables and the namespace if they are missing. Close it.
func Open(ctx context.Context, cfg Config) (*Catalog, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fault.New("MR-ICE-001", fmt.Errorf("opening the lakehouse: %w", err))
	}
	path, err := sqlitePath(cfg.CatalogURI)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("creating the catalog's folder: %w", err)
	}
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": {
		"busy_timeout(" + strconv.FormatInt(cfg.BusyTimeout.Milliseconds(), 10) + ")", "journal_mode(WAL)", "synchronous(FULL)",
	}}.Encode()}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("opening catalog %s: %w", path, err)
	}
	db.SetMaxOpenConns(8)
	base, err := icebergsql.NewCatalog(cfg.CatalogName, db, icebergsql.SQLite, iceberg.Properties{"warehouse": strings.TrimRight(cfg.Warehouse, "/")})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening catalog %s: %w", path, err), db.Close())
	}
	c := &Catalog{cfg: cfg, db: db, base: base, retries: &retrying{base}}
	ok, err := base.CheckNamespaceExists(ctx, table.Identifier{cfg.Namespace})
	if err == nil && !ok {
		err = base.CreateNamespace(ctx, table.Identifier{cfg.Namespace}, nil)
		if errors.Is(err, catalog.ErrNamespaceAlreadyExists) { // another process was first
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("creating namespace %s: %w", cfg.Namespace, err), c.Close())
	}
	return c, nil
}

// Close closes the catalog's connections.
func (c *Catalog) Close() error {
	return errors.Join(c.base.Close(), c.db.Close())
}

// Config is what the catalog was opened with.
func (c *Catalog) Config() Config { return c.cfg }

func (c *Catalog) ident(name string) table.Identifier { return table.Identifier{c.cfg.Namespace, name} }

// location is where a table's files are.
func (c *Catalog) location(name string) string {
	return strings.TrimRight(c.cfg.Warehouse, "/") + "/" + c.cfg.Namespace + "/" + name
}

// Load reads a table at its present head, for reading and for commits that must not be retried on another head.
func (c *Catalog) Load(ctx context.Context, name string) (*table.Table, error) {
	t, err := c.base.LoadTable(ctx, c.ident(name))
	if err != nil {
		return nil, fmt.Errorf("loading table %s: %w", name, err)
	}
	return t, nil
}

// LoadForMaintenance reads a table whose commits are retried on a newer head, after the checks of the kind of commit: for maintenance and schema changes,
// never for appends of the stream, which would escape their compare-and-swap.
func (c *Catalog) LoadForMaintenance(ctx context.Context, name string) (*table.Table, error) {
	t, err := c.retries.LoadTable(ctx, c.ident(name))
	if err != nil {
		return nil, fmt.Errorf("loading table %s: %w", name, err)
	}
	return t, nil
}

// retrying is the SQL catalog with conflicts that iceberg-go recognises as such. Without it a stale base fails with a bare text and is never retried.
type retrying struct{ *icebergsql.Catalog }

// LoadTable implements catalog.Catalog: the table commits through the wrapper.
func (r *retrying) LoadTable(ctx context.Context, id table.Identifier) (*table.Table, error) {
	t, err := r.Catalog.LoadTable(ctx, id)
	if err != nil {
		return nil, err
	}
	return table.New(id, t.Metadata(), t.MetadataLocation(), t.FS, r), nil
}

// CommitTable implements catalog.Catalog.
func (r *retrying) CommitTable(ctx context.Context, id table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	meta, loc, err := r.Catalog.CommitTable(ctx, id, reqs, updates)
	if isStale(err) {
		err = fmt.Errorf("%w: %w", table.ErrCommitFailed, err)
	}
	return meta, loc, err
}

// isStale says whether a commit was refused because the table had moved on: then nothing was committed.
func isStale(err error) bool {
	return err != nil && !errors.Is(err, table.ErrCommitFailed) && strings.Contains(err.Error(), "requirement failed")
}
