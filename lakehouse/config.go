package lakehouse

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// Config says where the catalog and the warehouse are.
type Config struct {
	CatalogURI        string        `koanf:"catalog_uri" desc:"catalog: sqlite:////absolute/path/catalog.db, postgres://user@host:5432/database, or the http(s):// address of an Iceberg REST catalog"`
	CatalogName       string        `koanf:"catalog_name" desc:"name under which a SQL catalog keeps its rows; every reader must use the same"`
	CatalogPassword   string        `koanf:"catalog_password" desc:"password of a postgres:// catalog; env:NAME or file:/path says where it is" secret:"true"`
	CatalogToken      string        `koanf:"catalog_token" desc:"bearer token of a REST catalog; env:NAME or file:/path says where it is" secret:"true"`
	CatalogWarehouse  string        `koanf:"catalog_warehouse" desc:"the warehouse's name at a REST catalog that has several"`
	CatalogProperties Settings      `koanf:"catalog_properties" desc:"further properties of a REST catalog: prefix, credential, scope, oauth2-server-uri, rest.sigv4-enabled, rest.signing-region, rest.signing-name, header.NAME"`
	Warehouse         string        `koanf:"warehouse" desc:"root of the tables: file:///absolute/path, s3://bucket/prefix or gs://bucket/prefix"`
	Store             Settings      `koanf:"store" desc:"properties of the warehouse's store: s3.endpoint, s3.region, s3.access-key-id, s3.secret-access-key, gcs.endpoint, gcs.keypath and others; a value env:NAME or file:/path says where it is. Without: the environment's credentials, or what a REST catalog hands out"`
	Namespace         string        `koanf:"namespace" desc:"Iceberg namespace of the tables"`
	BusyTimeout       time.Duration `koanf:"busy_timeout" desc:"how long one statement waits for a locked SQLite catalog"`
}

// DefaultConfig has everything but the two addresses.
func DefaultConfig() Config {
	return Config{CatalogName: "millrace", Namespace: "millrace", BusyTimeout: 2 * time.Second}
}

// The kinds of catalog.
const (
	kindSQLite   = "sqlite"
	kindPostgres = "postgres"
	kindREST     = "rest"
)

// Validate reports every problem.
func (c Config) Validate() error {
	var errs []error
	bad := func(key string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	kind, err := c.kind()
	bad("catalog_uri", err)
	scheme, _, err := splitWarehouse(c.Warehouse)
	bad("warehouse", err)
	if err == nil {
		bad("store", c.Store.fitsStore(scheme))
	}
	if kind != "" && kind != kindPostgres && c.CatalogPassword != "" {
		bad("catalog_password", errors.New("is set, but only postgres:// catalogs have one; remove it"))
	}
	if kind != "" && kind != kindREST {
		for _, k := range []struct {
			key string
			set bool
		}{{"catalog_token", c.CatalogToken != ""}, {"catalog_warehouse", c.CatalogWarehouse != ""}, {"catalog_properties", len(c.CatalogProperties) > 0}} {
			if k.set {
				bad(k.key, errors.New("is set, but only REST catalogs (http:// or https://) have one; remove it"))
			}
		}
	}
	bad("catalog_properties", c.CatalogProperties.fitsREST())
	if c.CatalogName == "" {
		errs = append(errs, errors.New("catalog_name: is empty"))
	}
	if c.Namespace == "" || strings.Contains(c.Namespace, ".") {
		errs = append(errs, fmt.Errorf("namespace: %q is not one name without a dot", c.Namespace))
	}
	if c.BusyTimeout < 0 || c.BusyTimeout > time.Minute {
		errs = append(errs, fmt.Errorf("busy_timeout: %s is not between 0s and 1m0s", c.BusyTimeout))
	}
	_, err = c.resolve()
	return errors.Join(append(errs, err)...)
}

// kind is the kind of catalog by its address. An address with a password in it is refused: it is printed in many places.
func (c Config) kind() (string, error) {
	scheme, _, _ := strings.Cut(c.CatalogURI, ":")
	switch scheme {
	case "sqlite":
		_, err := sqlitePath(c.CatalogURI)
		return kindSQLite, err
	case "postgres", "postgresql", "http", "https":
	default:
		return "", fmt.Errorf("%q: catalogs of kind %q are not supported; sqlite:////absolute/path, postgres://user@host/database and http(s)://host are", c.CatalogURI, scheme)
	}
	kind := kindPostgres
	if strings.HasPrefix(scheme, "http") {
		kind = kindREST
	}
	u, err := url.Parse(c.CatalogURI)
	if err != nil {
		return kind, errors.New("is not an address") // the parser's error repeats it, with any password
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		remedy := "catalog_password"
		if kind == kindREST {
			remedy = "catalog_token or catalog_properties.credential"
		}
		u.RawQuery = ""
		return kind, fmt.Errorf("%s has a password in it; take it out and set %s", u.Redacted(), remedy)
	}
	if u.Host == "" {
		return kind, fmt.Errorf("%q names no host", c.CatalogURI)
	}
	if kind == kindPostgres && strings.Trim(u.Path, "/") == "" {
		return kind, fmt.Errorf("%q names no database: postgres://user@host:5432/database", c.CatalogURI)
	}
	return kind, nil
}

// sqlitePath gives the file of sqlite:////abs/catalog.db, the form that SQLAlchemy and so PyIceberg use.
func sqlitePath(uri string) (string, error) {
	path, ok := strings.CutPrefix(uri, "sqlite:///")
	if !ok || !filepath.IsAbs(path) {
		return "", fmt.Errorf("%q is not absolute: four slashes are needed, sqlite:////absolute/path", uri)
	}
	return filepath.Clean(path), nil
}

// splitWarehouse gives the scheme and the bucket ("" on disk) of a warehouse.
func splitWarehouse(uri string) (scheme, bucket string, err error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", "", fmt.Errorf("%q: %w", uri, err)
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || !filepath.IsAbs(u.Path) {
			return "", "", fmt.Errorf("%q is not absolute: three slashes are needed, file:///absolute/path", uri)
		}
	case "s3", "gs":
		if u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return "", "", fmt.Errorf("%q is not %s://bucket/prefix", uri, u.Scheme)
		}
	default:
		return "", "", fmt.Errorf("%q: stores of kind %q are not supported; file:///absolute/path, s3://bucket/prefix and gs://bucket/prefix are", uri, u.Scheme)
	}
	return u.Scheme, u.Host, nil
}
