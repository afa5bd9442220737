package bigquery

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"go.uber.org/goleak"

	"millrace/event"
	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/lakehouse"
)

// The suite runs against the emulator, or with cloudEnv against the project that GOOGLE_CLOUD_PROJECT names, which pays for it.
const (
	cloudEnv = "MILLRACE_TEST_BIGQUERY_CLOUD"
	childEnv = "TEST_BIGQUERY_LOAD" // makes this binary a process that loads, with the settings in the named file
)

var servers *embeddedtest.Servers

func TestMain(m *testing.M) {
	embedded.MaybeChild()
	if path := os.Getenv(childEnv); path != "" {
		os.Exit(childMain(path))
	}
	if os.Getenv(cloudEnv) == "" && os.Getenv(embedded.NoBigQueryEnv) == "" {
		s, err := embeddedtest.Start(context.Background(), "", embedded.BrokerKfake, embedded.BigQueryChild)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		servers = s
	}
	code := m.Run()
	if servers != nil {
		servers.Stop()
	}
	if code == 0 {
		if err := goleak.Find(goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// settings are what another process needs to do the same.
type settings struct {
	Config Config           `json:"config"`
	Lake   lakehouse.Config `json:"lake"`
	Table  string           `json:"table"`
}

func childMain(path string) int {
	var in settings
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &in)
	}
	ctx := context.Background()
	var lake *lakehouse.Catalog
	if err == nil {
		lake, err = lakehouse.Open(ctx, in.Lake)
	}
	var s *Store
	if err == nil {
		s, err = Open(ctx, in.Config, lake, slog.New(slog.DiscardHandler))
	}
	if err == nil {
		s.wait = 50 * time.Millisecond
		_, err = s.Load(ctx, Request{Table: in.Table})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// fixture is a lake with a table, and BigQuery.
type fixture struct {
	*Store
	lake *lakehouse.Catalog
	set  settings
	next int // row to be written
}

const purchases = "events_purchase"

// emulated says where BigQuery is, in a dataset of the test's own.
func emulated(t *testing.T, s *embeddedtest.Servers) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Dataset, cfg.MinInterval = embeddedtest.Name("millrace_test"), 0
	if os.Getenv(cloudEnv) != "" {
		cfg.Project, cfg.Location = os.Getenv("GOOGLE_CLOUD_PROJECT"), os.Getenv("BIGQUERY_LOCATION")
		return cfg
	}
	if s == nil {
		t.Skipf("%s is set: what needs the BigQuery emulator is not tested", embedded.NoBigQueryEnv)
	}
	at := s.Endpoints().BigQuery
	cfg.Project, cfg.Endpoint, cfg.JobTimeout = at.Project, at.Endpoint, 20*time.Second
	return cfg
}

func newFixture(t *testing.T, s *embeddedtest.Servers, change ...func(*Config)) *fixture {
	t.Helper()
	cfg := emulated(t, s)
	for _, f := range change {
		f(&cfg)
	}
	return newFixtureIn(t, cfg, "file://"+filepath.Join(t.TempDir(), "warehouse"), nil)
}

// newFixtureIn makes a lake in a warehouse.
func newFixtureIn(t *testing.T, cfg Config, warehouse string, properties map[string]string) *fixture {
	t.Helper()
	lc := lakehouse.DefaultConfig()
	lc.CatalogURI, lc.Warehouse, lc.Store = "sqlite:///"+filepath.Join(t.TempDir(), "catalog.db"), warehouse, properties
	lake, err := lakehouse.Open(t.Context(), lc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lake.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := lakehouse.EnsureTables(t.Context(), lake); err != nil {
		t.Fatal(err)
	}
	f := &fixture{lake: lake, set: settings{cfg, lc, purchases}}
	f.Store = f.open(t)
	if os.Getenv(cloudEnv) != "" {
		t.Cleanup(func() {
			for _, d := range []string{cfg.Dataset, cfg.Work()} {
				if err := f.client.Dataset(d).DeleteWithContents(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	return f
}

// open connects once more.
func (f *fixture) open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), f.set.Config, f.lake, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	s.wait = 50 * time.Millisecond
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

const (
	topicID  = "topic-1"
	baseTime = 1_772_323_200_000_000 // 2026-03-01T00:00:00Z in µs
)

func micros(v int64) *int64 { return &v }

// purchase is the i-th row of two days, with values in every kind of column.
func purchase(i int) *event.Event {
	e := &event.Event{
		ID: fmt.Sprintf("e-%06d", i), Tenant: "default", Name: event.NamePurchase, VisitorID: fmt.Sprintf("v-%d", i%7), UserID: fmt.Sprintf("u-%d", i%5), Source: "web",
		OccurredAt: baseTime + int64(i)*1000, ReceivedAt: baseTime + int64(i)*1000 + 1, Value: micros(int64(i)*1_000_001 + 1), Currency: "EUR", OrderID: fmt.Sprintf("o-%d", i),
		Country: "DE", SchemaVersion: 1, Properties: `{"a":"ü"}`,
		Items: []event.Item{{ItemID: fmt.Sprintf("p-%d", i%3), ItemName: "Mug", Price: micros(64_950_000), Quantity: 2}, {ItemID: "p-9", Quantity: 1}}[:1+i%2],
	}
	if i%5 == 0 {
		e.Value, e.Currency, e.Items, e.UserID = nil, "", nil, ""
	}
	e.IngestedAt, e.RawTopic, e.RawOffset, e.OrderRank = baseTime+int64(i%2)*microDay+int64(i), "raw.purchase", int64(i), 1
	e.RowHash = e.ComputeRowHash()
	return e
}

// append adds rows to main, in one commit.
func (f *fixture) append(t *testing.T, rows int) {
	t.Helper()
	w, err := f.lake.NewWriter(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	for i := f.next; i < f.next+rows; i++ {
		if err := w.WriteEvent(t.Context(), purchase(i), lakehouse.Provenance{Topic: "events.purchase", Offset: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lo, hi := lakehouse.Vector{topicID: {0: int64(f.next)}}, lakehouse.Vector{topicID: {0: int64(f.next + rows)}}
	if _, err := f.lake.Append(t.Context(), purchases, files, lo, hi); err != nil {
		t.Fatal(err)
	}
	f.next += rows
}

// publish moves published to main.
func (f *fixture) publish(t *testing.T) int64 {
	t.Helper()
	head, err := f.lake.Head(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	from := int64(0)
	if at, err := f.lake.Ref(t.Context(), purchases, lakehouse.RefPublished); err == nil {
		from = at.SnapshotID
	}
	if err := f.lake.MoveRef(t.Context(), purchases, lakehouse.RefPublished, from, head.SnapshotID); err != nil {
		t.Fatal(err)
	}
	return head.SnapshotID
}

// compact rewrites all files of main into one for each day.
func (f *fixture) compact(t *testing.T) {
	t.Helper()
	policy := lakehouse.PolicyOf(purchases)
	policy.MinInputFiles = 2
	plan, err := f.lake.PlanCompaction(t.Context(), purchases, policy)
	if err != nil || len(plan.Groups) == 0 {
		t.Fatalf("%d groups: %v", len(plan.Groups), err)
	}
	var results []lakehouse.GroupResult
	for i := range plan.Groups {
		r, err := f.lake.CompactGroup(t.Context(), plan, i, nil)
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
	if _, err := f.lake.CommitRewrite(t.Context(), plan, results); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) load(t *testing.T, change ...func(*Request)) Result {
	t.Helper()
	r := Request{Table: purchases}
	for _, c := range change {
		c(&r)
	}
	out, err := f.Load(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// holds fails unless BigQuery has exactly the first n rows, none twice, and says it is as the lake.
func (f *fixture) holds(t *testing.T, n int, without ...int) {
	t.Helper()
	var want event.Checksum
	skip := map[int]bool{}
	for _, i := range without {
		skip[i] = true
	}
	for i := range n {
		if !skip[i] {
			want.Add(purchase(i).RowHash)
		}
	}
	rows, err := f.rows(t.Context(), fmt.Sprintf("SELECT COUNT(*), COUNT(DISTINCT kafka_offset), SUM(CAST(%s AS NUMERIC)), SUM(CAST(%s AS NUMERIC)) FROM %s",
		hashLo, hashHi, f.name(f.cfg.Dataset, purchases)))
	if err != nil {
		t.Fatal(err)
	}
	lo, _ := whole(rows[0][2])
	hi, _ := whole(rows[0][3])
	if have := (event.Checksum{Count: rows[0][0].(int64), HashLo: lo, HashHi: hi}); have != want || rows[0][1].(int64) != want.Count {
		t.Fatalf("BigQuery has %+v (%v distinct), want %+v", have, rows[0][1], want)
	}
}

func (f *fixture) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := f.rows(t.Context(), strings.ReplaceAll(sql, "{T}", f.name(f.cfg.Dataset, purchases))); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) icebergSchema(t *testing.T) *iceberg.Schema {
	t.Helper()
	tb, err := f.lake.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	return tb.Schema()
}

// remove deletes a row of main as another program might, by writing its file anew.
func (f *fixture) remove(t *testing.T, i int) {
	t.Helper()
	tb, err := f.lake.LoadForMaintenance(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	props, err := lakehouse.CarryOffsets(tb)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tb.Delete(t.Context(), iceberg.EqualTo(iceberg.Reference("kafka_offset"), int64(i)), props); err != nil {
		t.Fatal(err)
	}
}
