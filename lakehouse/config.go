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
	CatalogURI  string        `koanf:"catalog_uri" desc:"SQL catalog: sqlite:////absolute/path/catalog.db"`
	CatalogName string        `koanf:"catalog_name" desc:"name under which the catalog's rows are kept; every reader must use the same"`
	Warehouse   string        `koanf:"warehouse" desc:"root of the tables: file:///absolute/path"`
	Namespace   string        `koanf:"namespace" desc:"Iceberg namespace of the tables"`
	BusyTimeout time.Duration `koanf:"busy_timeout" desc:"how long one statement waits for a locked SQLite catalog"`
}

// DefaultConfig has everything but the two addresses.
func DefaultConfig() Config {
	return Config{CatalogName: "millrace", Namespace: "millrace", BusyTimeout: 2 * time.Second}
}

// Validate reports every problem.
func (c Config) Validate() error {
	var errs []error
	if _, err := sqlitePath(c.CatalogURI); err != nil {
		errs = append(errs, fmt.Errorf("catalog_uri: %w", err))
	}
	if err := checkWarehouse(c.Warehouse); err != nil {
		errs = append(errs, fmt.Errorf("warehouse: %w", err))
	}
	if c.CatalogName == "" {
		errs = append(errs, errors.New("catalog_name: is empty"))
	}
	if c.Namespace == "" || strings.Contains(c.Namespace, ".") {
		errs = append(errs, fmt.Errorf("namespace: %q is not one name without a dot", c.Namespace))
	}
	if c.BusyTimeout < 0 || c.BusyTimeout > time.Minute {
		errs = append(errs, fmt.Errorf("busy_timeout: %s is not between 0s and 1m0s", c.BusyTimeout))
	}
	return errors.Join(errs...)
}

// sqlitePath gives the file of sqlite:////abs/catalog.db, the form that SQLAlchemy and so PyIceberg use.
func sqlitePath(uri string) (string, error) {
	path, ok := strings.CutPrefix(uri, "sqlite:///")
	if !ok {
		scheme, _, _ := strings.Cut(uri, ":")
		return "", fmt.Errorf("%q: catalogs of kind %q are not supported; sqlite:////absolute/path is", uri, scheme)
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%q is not absolute: four slashes are needed, sqlite:////absolute/path", uri)
	}
	return filepath.Clean(path), nil
}

func checkWarehouse(uri string) error {
	u, err := url.Parse(uri)
	if err != nil {
		return fmt.Errorf("%q: %w", uri, err)
	}
	if u.Scheme != "file" || u.Host != "" || !filepath.IsAbs(u.Path) {
		return fmt.Errorf("%q: stores of kind %q are not supported; file:///absolute/path is", uri, u.Scheme)
	}
	return nil
}
