package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
)

// world is a kind of catalog and a kind of store.
type world struct{ catalog, store string }

// servers are the catalogs and stores that tests share, started by the first test that wants them and ended by TestMain.
type servers struct {
	mu       sync.Mutex
	lake     *embeddedtest.Lake
	err      error
	rest     map[string]string // by store
	postgres [2]string         // address, password
}

var shared servers

func TestMain(m *testing.M) {
	embedded.MaybeChild()
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	http.DefaultClient.CloseIdleConnections() // GCS's client has no connections of its own
	if err := goleak.Find(goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener")); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func (s *servers) stop() error {
	if s.lake == nil {
		return nil
	}
	dir := s.dir()
	return errors.Join(s.lake.Close(), os.RemoveAll(dir))
}

func (s *servers) dir() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("millrace-lake-%d", os.Getpid()))
}

// config is a new, empty lakehouse of the kind. A machine that lacks the servers is told so, and CI must have them.
func (w world) config(t testing.TB) Config {
	t.Helper()
	if w == (world{kindSQLite, "file"}) {
		return testConfig(t.TempDir())
	}
	if testing.Short() {
		t.Skip("-short starts no servers; go test without it does")
	}
	s := &shared
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx := context.WithoutCancel(t.Context()) // the servers outlive the test
	lacks := func(err error) {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("this machine lacks what is needed: %v", err)
	}
	if s.lake == nil && s.err == nil {
		s.lake, s.err = embeddedtest.OpenLake(ctx, s.dir())
		s.rest = map[string]string{}
	}
	if s.err != nil {
		if isFault(s.err, "MR-EMB-003") {
			lacks(s.err)
		}
		t.Fatal(s.err)
	}
	cfg := testConfig(t.TempDir())
	// A namespace of its own makes it a lakehouse of its own.
	cfg.Namespace = "test_" + strings.ReplaceAll(w.catalog+"_"+w.store, "-", "_")
	name := w.catalog + "-" + filepath.Base(t.TempDir()) + "-" + strings.ToLower(embeddedtest.Name("lake"))
	warehouse, props := s.lake.Store(w.store, name)
	cfg.Warehouse, cfg.Store = warehouse, props
	switch w.catalog {
	case kindPostgres:
		if s.postgres[0] == "" {
			var err error
			if s.postgres[0], s.postgres[1], err = s.lake.Postgres(ctx); errors.Is(err, embeddedtest.ErrNoPostgres) {
				s.postgres[0] = ""
				lacks(err)
			} else if err != nil {
				t.Fatal(err)
			}
		}
		cfg.CatalogURI, cfg.CatalogPassword = s.postgres[0], s.postgres[1]
		cfg.Namespace = embeddedtest.Name("test")
	case kindREST:
		if s.rest[w.store] == "" {
			all, _ := s.lake.Store(w.store, "rest")
			var err error
			if s.rest[w.store], err = s.lake.REST(ctx, "rest-"+w.store, all, props); err != nil {
				t.Fatal(err)
			}
		}
		cfg.CatalogURI = s.rest[w.store]
		cfg.Namespace = embeddedtest.Name("test")
	}
	return cfg
}

func openConfig(t testing.TB, cfg Config) *Catalog {
	t.Helper()
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}
