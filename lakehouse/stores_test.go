package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"
)

func TestConfigurationsOfEveryCatalogAndStore(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LAKE_TEST_SECRET", "s3cret")
	with := func(f func(*Config)) Config {
		c := testConfig("/data")
		f(&c)
		return c
	}
	for name, tc := range map[string]struct {
		cfg  Config
		want []string // of the error; none: it is valid
	}{
		"SQLite on disk": {cfg: with(func(*Config) {})},
		"PostgreSQL on S3": {cfg: with(func(c *Config) {
			c.CatalogURI, c.CatalogPassword, c.Warehouse = "postgres://lake@db:5432/lake?sslmode=verify-full", "env:LAKE_TEST_SECRET", "s3://bucket/prefix"
			c.Store = Settings{"s3.region": "eu-central-1", "s3.access-key-id": "file:" + secret, "s3.secret-access-key": "env:LAKE_TEST_SECRET"}
		})},
		"REST on GCS": {cfg: with(func(c *Config) {
			c.CatalogURI, c.CatalogToken, c.CatalogWarehouse, c.Warehouse = "https://catalog.example/api", "file://"+secret, "lake", "gs://bucket"
			c.CatalogProperties = Settings{"prefix": "p", "scope": "PRINCIPAL_ROLE:ALL", "header.X-Realm": "r", "credential": "env:LAKE_TEST_SECRET"}
		})},
		"everything wrong at once": {cfg: with(func(c *Config) {
			c.CatalogURI, c.CatalogPassword, c.CatalogToken, c.Warehouse = "mysql://db/lake", "env:NO_SUCH_VARIABLE_OF_THIS_TEST", "file:/no/such/file", "hdfs://x/y"
		}), want: []string{"catalog_uri", `"mysql"`, "catalog_password: the environment has no NO_SUCH_VARIABLE_OF_THIS_TEST", "catalog_token: its file cannot be read", "warehouse", `"hdfs"`}},
		"a password in the address": {cfg: with(func(c *Config) { c.CatalogURI = "postgres://lake:s3cret@db/lake" }), want: []string{"catalog_uri", "set catalog_password", "lake:xxxxx@db"}},
		"a password in the query":   {cfg: with(func(c *Config) { c.CatalogURI = "postgres://lake@db/lake?password=s3cret" }), want: []string{"set catalog_password"}},
		"no database":               {cfg: with(func(c *Config) { c.CatalogURI = "postgres://lake@db" }), want: []string{"names no database"}},
		"a token without a server":  {cfg: with(func(c *Config) { c.CatalogToken = "x" }), want: []string{"catalog_token: is set, but only REST catalogs"}},
		"a misspelt property": {cfg: with(func(c *Config) {
			c.Warehouse, c.Store = "s3://b", Settings{"s3.endpont": "http://x", "s3.access-key-id": "x"}
		}), want: []string{"s3.endpont is not a property of s3:// stores", "s3.endpoint", "must both be given"}},
		"properties of a store on a disk": {cfg: with(func(c *Config) { c.Store = Settings{"s3.region": "x"} }), want: []string{"a warehouse on disk has no such properties"}},
		"a bucket with a user":            {cfg: with(func(c *Config) { c.Warehouse = "s3://u:s3cret@b/p" }), want: []string{"is not s3://bucket/prefix"}},
		"an unknown property of a server": {cfg: with(func(c *Config) { c.CatalogURI, c.CatalogProperties = "http://x", Settings{"prefx": "y"} }), want: []string{"prefx is not known"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.cfg.Validate()
			if len(tc.want) == 0 && err != nil {
				t.Fatal(err)
			}
			for _, w := range tc.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in %v", w, err)
				}
			}
			for _, text := range []string{fmt.Sprint(err), fmt.Sprintf("%v %+v %#v", tc.cfg.Store, tc.cfg.Store, tc.cfg.Store), fmt.Sprintf("%+v", tc.cfg.CatalogProperties)} {
				if strings.Contains(text, "s3cret") && name != "a bucket with a user" {
					t.Errorf("a secret is printed: %s", text)
				}
			}
			known, err := tc.cfg.resolve()
			if len(tc.want) == 0 && (err != nil || known.Store["s3.access-key-id"] == "file:"+secret || tc.cfg.CatalogPassword != "" && known.CatalogPassword != "s3cret") {
				t.Errorf("resolved to %v: %v", known.Store, err)
			}
		})
	}
}

func TestOnlySecretsAreMasked(t *testing.T) {
	got := Settings{"s3.endpoint": "http://x", "s3.secret-access-key": "s3cret", "s3.access-key-id": "env:KEY", "gcs.jsonkey": "{}", "credential": "id:s3cret", "prefix": "p", "header.Authorization": "s3cret"}.Redacted()
	want := map[string]string{"s3.endpoint": "http://x", "s3.secret-access-key": "***", "s3.access-key-id": "env:KEY", "gcs.jsonkey": "***", "credential": "***", "prefix": "p", "header.Authorization": "***"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAPathHasOneFormHoweverAnEngineWritesIt(t *testing.T) {
	for path, want := range map[string]string{
		"file:///w/t/a.parquet": "/w/t/a.parquet", "file:/w/t/a.parquet": "/w/t/a.parquet", "/w/t/a.parquet": "/w/t/a.parquet",
		"s3://b/t/a": "s3://b/t/a", "s3a://b/t/a": "s3://b/t/a", "s3n://b/t/a": "s3://b/t/a", "gs://b/t/a": "gs://b/t/a",
	} {
		if got := bare(path); got != want {
			t.Errorf("%s becomes %s, not %s", path, got, want)
		}
	}
}

func TestACatalogThatDoesNotAnswerIsAFault(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, uri := range []string{gone.URL, strings.Replace(gone.URL, "http://", "postgres://lake@", 1) + "/lake?sslmode=disable"} {
		cfg := testConfig(t.TempDir())
		cfg.CatalogURI = uri
		if _, err := Open(t.Context(), cfg); !isFault(err, "MR-ICE-040") {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

func TestAStoreThatRefusesIsAFault(t *testing.T) {
	t.Parallel()
	cfg := world{kindSQLite, "s3"}.config(t)
	cfg.Warehouse = "s3://no-such-bucket/x"
	c := openConfig(t, cfg)
	if err := c.CheckStore(t.Context()); !isFault(err, "MR-ICE-041") || !strings.Contains(err.Error(), "writing") {
		t.Errorf("got %v", err)
	}
}

// proxy stands before a REST catalog and answers commits with a status of its own, after or instead of passing them on.
func proxy(t *testing.T, to string) (address string, status *atomic.Int32, pass *atomic.Bool) {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	status, pass = new(atomic.Int32), new(atomic.Bool)
	transport, idle := newTransport()
	behind := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := int(status.Load())
		if code == 0 || r.Method != http.MethodPost || !strings.Contains(r.URL.Path, "/tables/") {
			behind.ServeHTTP(w, r)
			return
		}
		status.Store(0)
		if pass.Load() {
			behind.ServeHTTP(httptest.NewRecorder(), r)
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(func() { srv.Close(); idle() })
	return srv.URL, status, pass
}

func TestAServersAnswerToACommitIsTakenForWhatItSays(t *testing.T) {
	t.Parallel()
	cfg := world{kindREST, "file"}.config(t)
	address, status, pass := proxy(t, cfg.CatalogURI)
	cfg.CatalogURI = address
	c := openConfig(t, cfg)
	if err := c.ensureTable(t.Context(), without(t, purchases)); err != nil {
		t.Fatal(err)
	}
	next := 0
	for _, code := range []int{500, 502, 503, 504} {
		for _, made := range []bool{true, false} {
			w, err := c.NewWriter(t.Context(), purchases)
			if err != nil {
				t.Fatal(err)
			}
			write(t, c, w, next, next+10)
			files, err := w.Finish(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			pass.Store(made)
			status.Store(int32(code))
			if _, err := c.Append(t.Context(), purchases, files, at(0, next), at(0, next+10)); err == nil || isStale(err) || errors.Is(err, table.ErrCommitFailed) {
				t.Errorf("%d, commit made %v: %v; its outcome is unknown", code, made, err)
			}
			head, err := c.Append(t.Context(), purchases, files, at(0, next), at(0, next+10))
			if err != nil || head.Vector.At(testTopic, 0) != int64(next+10) {
				t.Fatalf("%d, commit made %v: head %v: %v", code, made, head.Vector, err)
			}
			next += 10
		}
	}
	// A refusal is one, and the append looks at the head itself.
	pass.Store(false)
	status.Store(http.StatusConflict)
	if head, err := appendTest(t, c, next, next+10); err != nil || head.Vector.At(testTopic, 0) != int64(next+10) {
		t.Errorf("after a refusal: head %v: %v", head.Vector, err)
	}
	wantRows(t, c, next+10)
}

func TestARefOnASnapshotThatIsAboutToGoIsTakenBackAtAServer(t *testing.T) {
	t.Parallel()
	c := openConfig(t, world{kindREST, "file"}.config(t))
	ctx := t.Context()
	if err := c.ensureTable(ctx, without(t, purchases)); err != nil {
		t.Fatal(err)
	}
	appendMany(t, c, 0, 4, 10)
	tbl, err := c.Load(ctx, purchases)
	if err != nil {
		t.Fatal(err)
	}
	snaps, _ := expirable(tbl, time.Now().Add(time.Second), 0, 1)
	if len(snaps) != 3 {
		t.Fatalf("%v", snaps)
	}
	if err := c.MoveRef(ctx, purchases, RefPublished, 0, snaps[0]); err != nil {
		t.Fatal(err)
	}
	going := unnamed{snaps: snaps[1:]}
	if _, err := c.base.announce(ctx, c.ident(purchases), going); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Lease(ctx, purchases, "reader", "late", snaps[1], time.Hour); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("a lease on a snapshot that is about to go: %v", err)
	}
	if err := c.MoveRef(ctx, purchases, RefPublished, snaps[0], snaps[2]); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("published was moved to a snapshot that is about to go: %v", err)
	}
	refs, err := c.Refs(ctx, purchases)
	if err != nil || len(refs) != 2 || refs[1].Name != RefPublished || refs[1].SnapshotID != snaps[0] {
		t.Errorf("%+v %v", refs, err)
	}
	if _, err := c.Lease(ctx, purchases, "reader", "right", snaps[0], time.Hour); err != nil {
		t.Errorf("a lease on another snapshot: %v", err)
	}
	if n, err := c.expire(ctx, purchases, 0, 1); err != nil || n != 2 {
		t.Errorf("expired %d: %v", n, err)
	}
	if tbl, err = c.Load(ctx, purchases); err != nil || len(tbl.Metadata().Snapshots()) != 2 {
		t.Errorf("%d snapshots: %v", len(tbl.Metadata().Snapshots()), err)
	}
	for k := range tbl.Properties() {
		if strings.HasPrefix(k, expiringProperty) {
			t.Errorf("%s is left", k)
		}
	}
	wantRows(t, c, 40)
}

// BenchmarkCommit is what a commit itself costs on each catalog and store.
func BenchmarkCommit(b *testing.B) {
	for _, w := range []world{{kindSQLite, "file"}, {kindSQLite, "s3"}, {kindSQLite, "gs"}, {kindPostgres, "file"}, {kindPostgres, "s3"}, {kindREST, "file"}, {kindREST, "s3"}} {
		b.Run(w.catalog+"-"+w.store, func(b *testing.B) {
			c := openConfig(b, w.config(b))
			if err := c.ensureTable(b.Context(), without(b, purchases)); err != nil {
				b.Fatal(err)
			}
			next := 0
			for b.Loop() {
				b.StopTimer()
				wr, err := c.NewWriter(context.WithoutCancel(b.Context()), purchases)
				if err != nil {
					b.Fatal(err)
				}
				write(b, c, wr, next, next+10)
				files, err := wr.Finish(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if _, err := c.Append(b.Context(), purchases, files, at(0, next), at(0, next+10)); err != nil {
					b.Fatal(err)
				}
				next += 10
			}
		})
	}
}
