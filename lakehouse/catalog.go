package lakehouse

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	icebergsql "github.com/apache/iceberg-go/catalog/sql"
	"github.com/apache/iceberg-go/table"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // database/sql driver of the SQLite catalog

	"millrace/internal/fault"
)

// Catalog finds and commits the tables of one namespace. It is safe for concurrent use. It keeps no table in memory: every call reads the head it needs, since
// a table chained from commit to commit keeps every version of its metadata alive.
type Catalog struct {
	cfg     Config
	db      *sql.DB   // of a SQL catalog
	base    *backend  // commits once: a compare-and-swap that a retry cannot escape
	retries *retrying // for maintenance and DDL
}

// Open opens the catalog and creates its tables and the namespace if they are missing. Close it.
func Open(ctx context.Context, cfg Config) (*Catalog, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fault.New("MR-ICE-001", fmt.Errorf("opening the lakehouse: %w", err))
	}
	known, err := cfg.resolve()
	if err != nil {
		return nil, fault.New("MR-ICE-001", fmt.Errorf("opening the lakehouse: %w", err))
	}
	kind, err := known.kind()
	if err != nil {
		return nil, err
	}
	c := &Catalog{cfg: cfg, base: &backend{server: kind == kindREST}}
	c.retries = &retrying{c.base}
	if kind != kindREST || len(known.Store) > 0 || strings.HasPrefix(known.Warehouse, "file:") { // else the server hands out what is needed
		if c.base.store, err = newStore(ctx, known); err != nil {
			return nil, fault.New("MR-ICE-041", err)
		}
	}
	if err := c.patiently(ctx, func() error { return c.open(ctx, kind, known) }); err != nil {
		return nil, fault.New("MR-ICE-040", errors.Join(fmt.Errorf("opening catalog %s: %w", cfg.CatalogURI, err), c.Close()))
	}
	return c, nil
}

func (c *Catalog) open(ctx context.Context, kind string, known Config) error {
	var err error
	switch kind {
	case kindREST:
		if c.base.Catalog == nil {
			cat, err := openREST(c.base.store.with(ctx), known)
			if err != nil {
				return err
			}
			c.base.Catalog = cat
		}
	default:
		dialect := icebergsql.Postgres
		if kind == kindSQLite {
			dialect = icebergsql.SQLite
		}
		if c.db == nil {
			if c.db, err = openSQL(kind, known); err != nil {
				return err
			}
		}
		if err := c.db.PingContext(ctx); err != nil {
			return err
		}
		props := iceberg.Properties{"warehouse": strings.TrimRight(known.Warehouse, "/")}
		maps.Copy(props, iceberg.Properties(known.Store))
		cat, err := icebergsql.NewCatalog(known.CatalogName, c.db, dialect, props)
		if err != nil {
			return err
		}
		c.base.Catalog = cat
	}
	ns := table.Identifier{known.Namespace}
	ok, err := c.base.CheckNamespaceExists(ctx, ns)
	if err == nil && !ok {
		err = c.base.CreateNamespace(ctx, ns, nil)
		if errors.Is(err, catalog.ErrNamespaceAlreadyExists) { // another process was first
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("creating namespace %s: %w", known.Namespace, err)
	}
	return nil
}

// openSQL makes the connections of a SQL catalog. Their number bounds what concurrent commits of one process hold at the server.
func openSQL(kind string, cfg Config) (*sql.DB, error) {
	var db *sql.DB
	if kind == kindSQLite {
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
		if db, err = sql.Open("sqlite", dsn); err != nil {
			return nil, err
		}
	} else {
		pg, err := pgx.ParseConfig(cfg.CatalogURI)
		if err != nil {
			return nil, err
		}
		if cfg.CatalogPassword != "" {
			pg.Password = cfg.CatalogPassword
		}
		if pg.ConnectTimeout == 0 {
			pg.ConnectTimeout = 10 * time.Second
		}
		db = stdlib.OpenDB(*pg)
		db.SetConnMaxIdleTime(5 * time.Minute)
	}
	db.SetMaxOpenConns(8)
	return db, nil
}

// restTransport is the connection to a REST catalog.
func restTransport(t *tls.Config) (http.RoundTripper, func()) {
	transport, idle := newTransport()
	transport.TLSClientConfig = t
	return transport, idle
}

// passing says whether an error of a SQL catalog comes of what another process does at this moment, and surely nothing was changed.
//
// SQLite's own busy timeout does not cover a transaction that began to read and then wants to write: that one is refused at once
// (https://sqlite.org/rescode.html#busy_snapshot). PostgreSQL refuses one of two transactions that cannot be put in an order, and one of two processes that
// create the catalog's tables (40001, 40P01, 23505 and 42P07 of https://www.postgresql.org/docs/current/errcodes-appendix.html).
func passing(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "40001", "40P01", "42P07":
			return true
		case "23505":
			return strings.HasPrefix(pg.ConstraintName, "pg_")
		}
		return false
	}
	return strings.Contains(err.Error(), "SQLITE_BUSY")
}

// Close closes the catalog's connections.
func (c *Catalog) Close() error {
	err := c.base.Close()
	if c.db != nil {
		err = errors.Join(err, c.db.Close())
	}
	return err
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
