package cli

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/event"
	"millrace/lakehouse"
)

// lakeTest is a lake on disk with purchases in commits of ten, and the command line on it.
type lakeTest struct {
	cat *lakehouse.Catalog
	dir string
}

func newLakeTest(t *testing.T, commits int) *lakeTest {
	t.Helper()
	l := &lakeTest{dir: t.TempDir()}
	cfg := lakehouse.DefaultConfig()
	cfg.CatalogURI, cfg.Warehouse = "sqlite:///"+filepath.Join(l.dir, "catalog.db"), "file://"+filepath.Join(l.dir, "warehouse")
	var err error
	if l.cat, err = lakehouse.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.cat.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := lakehouse.EnsureTables(t.Context(), l.cat); err != nil {
		t.Fatal(err)
	}
	for n := range commits {
		w, err := l.cat.NewWriter(t.Context(), "events_purchase")
		if err != nil {
			t.Fatal(err)
		}
		for i := 10 * n; i < 10*n+10; i++ {
			at := int64(1_772_323_200_000_000 + i)
			e := &event.Event{ID: fmt.Sprintf("e-%d", i), Tenant: "default", Name: event.NamePurchase, VisitorID: "v", Source: "web", OccurredAt: at, ReceivedAt: at, Properties: "{}", SchemaVersion: 1}
			e.IngestedAt, e.RawTopic, e.RawOffset, e.OrderRank = at, "raw.purchase", int64(i), 1
			e.RowHash = e.ComputeRowHash()
			if err := w.WriteEvent(t.Context(), e, lakehouse.Provenance{Topic: "events.purchase", Offset: int64(i)}); err != nil {
				t.Fatal(err)
			}
		}
		files, err := w.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		vector := func(next int) lakehouse.Vector { return lakehouse.Vector{"topic": {0: int64(next)}} }
		if _, err := l.cat.Append(t.Context(), "events_purchase", files, vector(10*n), vector(10*n+10)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l *lakeTest) call(args ...string) (code int, out, errw string) {
	var o, e strings.Builder
	code = Main(append(args, "--data", filepath.Join(l.dir, "data"), "--set", "iceberg.catalog_uri=sqlite:///"+filepath.Join(l.dir, "catalog.db"), "--set", "iceberg.warehouse=file://"+filepath.Join(l.dir, "warehouse")), &o, &e)
	return code, o.String(), e.String()
}

func (l *lakeTest) into(t *testing.T, v any, args ...string) {
	t.Helper()
	code, out, errw := l.call(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), v); code != 0 || err != nil {
		t.Fatalf("%v: %d %s%s %v", args, code, out, errw, err)
	}
}

func TestATableIsRolledBackByItsLog(t *testing.T) {
	t.Parallel()
	l := newLakeTest(t, 4)
	var log []lakehouse.Change
	l.into(t, &log, "lake", "log", "events_purchase")
	if len(log) != 4 || log[0].Rows != 10 {
		t.Fatalf("%+v", log)
	}
	to := fmt.Sprint(log[2].SnapshotID)
	rows := func() int64 {
		t.Helper()
		h, err := l.cat.Head(t.Context(), "events_purchase")
		if err != nil {
			t.Fatal(err)
		}
		return h.Rows
	}
	code, out, errw := l.call("lake", "rollback", "events_purchase", "--to", to, "--skip", "--dry-run")
	if code != 0 || !strings.Contains(out, "would go back") || !strings.Contains(out, "offsets [20, 40) of partition 0: they stay away") || rows() != 40 {
		t.Errorf("a dry run: %d %s%s, %d rows", code, out, errw, rows())
	}
	if code, out, errw = l.call("lake", "rollback", "events_purchase", "--to", to, "--skip"); code != 0 || rows() != 20 {
		t.Errorf("%d %s%s, %d rows", code, out, errw, rows())
	}
	if h, err := l.cat.Head(t.Context(), "events_purchase"); err != nil || h.Vector.At("topic", 0) != 40 {
		t.Errorf("with --skip the offsets stay: %+v, %v", h, err)
	}
	if code, out, errw = l.call("lake", "rollback", "events_purchase", "--to", to); code != 0 || rows() != 20 {
		t.Errorf("without: %d %s%s", code, out, errw)
	}
	if h, err := l.cat.Head(t.Context(), "events_purchase"); err != nil || h.Vector.At("topic", 0) != 20 {
		t.Errorf("without --skip they go back too: %+v, %v", h, err)
	}
}

func TestRowsGoIntoQuarantineAndAreListed(t *testing.T) {
	t.Parallel()
	l := newLakeTest(t, 3)
	var put lakehouse.QuarantineResult
	l.into(t, &put, "lake", "quarantine", "put", "events_purchase", "--where", "event_id = 'e-7'", "--reason", "a test")
	if put.Rows != 1 || put.Removed != 1 {
		t.Errorf("%+v", put)
	}
	code, out, errw := l.call("lake", "quarantine", "list", "events_purchase")
	if code != 0 || !strings.Contains(out, put.Run) || !strings.Contains(out, "a test") {
		t.Errorf("%d %s%s", code, out, errw)
	}
	if code, out, errw = l.call("query-lake", "events_purchase", "--where", "event_id = 'e-7'", "-o", "json"); code != 0 || out != "" {
		t.Errorf("it is still there: %d %s%s", code, out, errw)
	}
	if code, out, errw = l.call("query-lake", "events_purchase", "--as-of", time.Now().UTC().Format(time.RFC3339Nano), "--columns", "event_id", "-o", "csv"); code != 0 || strings.Count(out, "\n") != 30 {
		t.Errorf("%d %s%s", code, out, errw)
	}
}

func TestWrongCommandsOnTheLakeSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	l := newLakeTest(t, 1)
	for args, says := range map[string][]string{
		"lake refs events_purchas": {"MR-CLI-008", "did you mean events_purchase?"},
		"lake log nope":            {"MR-CLI-008"},
		"lake log events_purchase --ref nightly-2026-01-01": {"MR-ICE-060", "main"},
		"lake publish nope":         {"MR-CLI-008"},
		"lake quarantine list nope": {"MR-CLI-008"},
		"lake quarantine put events_purchase --where x --reason r":   {"MR-ICE-063"},
		"lake quarantine put events_purchase --where visitor_id='v'": {"--reason: is missing"},
		"lake rollback events_purchase":                              {"MR-CLI-001", "--to and --as-of"},
		"lake rollback events_purchase --to 5":                       {"MR-ICE-060"},
		"lake rollback events_purchase --as-of yesterday":            {"MR-CLI-001", "2026-03-01T12:00:00Z"},
		"lake rollback events_purchase --to 5 --with-published":      {"--reason"},
		"lake approve events_purchase":                               {"--reason: is missing"},
		"lake resume nope":                                           {"MR-CLI-008"},
		"query-lake events_purchase --as-of 2020-01-01T00:00:00Z":    {"MR-ICE-060"},
		"query-lake events_purchase --as-of then":                    {"MR-CLI-001"},
		"query-lake events_purchase --ref main --snapshot 5":         {"exclude each other"},
		"query-lake events_purchase --columns event_idd":             {"MR-ICE-063", "did you mean event_id?"},
		"query-lake events_purchase --output parquet":                {"--to FILE"},
		"tables describe events_purchases":                           {"MR-CLI-008", "did you mean events_purchase?"},
		"nightly run 2999-01-01":                                     {"MR-NIT-005", "is not over"},
		"nightly backfill --from 2026-01-02":                         {"MR-CLI-001", "\"to\""},
	} {
		code, out, errw := l.call(strings.Fields(args)...)
		if code == 0 || out != "" || !strings.Contains(errw, "remedy") {
			t.Errorf("%s: %d %s%s", args, code, out, errw)
		}
		for _, s := range says {
			if !strings.Contains(errw, s) {
				t.Errorf("%s does not say %s: %s", args, s, errw)
			}
		}
	}
	if h, err := l.cat.Head(t.Context(), "events_purchase"); err != nil || h.Rows != 10 {
		t.Errorf("%+v, %v", h, err)
	}
}
