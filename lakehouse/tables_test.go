package lakehouse

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"

	"millrace/event/schema"
	"millrace/internal/fault"
)

// paths flattens a schema to path → field id, in the notation of ids.json.
func paths(fields []iceberg.NestedField, prefix string, into map[string]int) {
	for _, f := range fields {
		into[prefix+f.Name] = f.ID
		if l, ok := f.Type.(*iceberg.ListType); ok {
			into[prefix+f.Name+".element"] = l.ElementID
			if st, ok := l.Element.(*iceberg.StructType); ok {
				paths(st.FieldList, prefix+f.Name+".element.", into)
			}
		}
	}
}

func TestFieldIDsAreExactlyTheCommittedOnes(t *testing.T) {
	c := ensureTest(t)
	text, err := os.ReadFile("../event/schema/ids.json")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]map[string]int
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	if got := len(StreamTables()); got != len(want) {
		t.Fatalf("%d tables, ids.json has %d", got, len(want))
	}
	for _, name := range StreamTables() {
		tbl, err := c.Load(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		paths(tbl.Schema().Fields(), "", got)
		if d := cmp.Diff(want[name], got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if tbl.Metadata().Version() != 2 {
			t.Errorf("%s has format version %d", name, tbl.Metadata().Version())
		}
		day := "ingested_at"
		if name == AlertsTable {
			day = "detected_at"
		}
		spec := tbl.Spec()
		if s := spec.Field(0); spec.NumFields() != 1 || s.Name != day+"_day" || s.Transform.String() != "day" || s.SourceID() != want[name][day] {
			t.Errorf("%s is partitioned by %s", name, &spec)
		}
		for k, v := range Properties(name) {
			if tbl.Properties()[k] != v {
				t.Errorf("%s: property %s is %q, not %q", name, k, tbl.Properties()[k], v)
			}
		}
		if order := tbl.SortOrder(); name != FailedTable && name != AlertsTable && order.Len() != 3 {
			t.Errorf("%s has sort order %s", name, &order)
		}
		for _, f := range tbl.Schema().Fields() {
			if strings.HasPrefix(f.Name, "_") {
				t.Errorf("%s.%s begins with _", name, f.Name)
			}
		}
	}
}

func TestEnsuringTablesAgainFromManyProcessesChangesNothing(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 3 {
		c := openTest(t, dir)
		wg.Go(func() {
			if err := EnsureTables(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c := openTest(t, dir)
	before, err := c.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := EnsureTables(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	after, err := c.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, after); d != "" || len(after) != len(StreamTables()) {
		t.Errorf("%d tables changed:\n%s", len(after), d)
	}
}

// without removes columns, and item fields named "items.x", from a table of the schema.
func without(t testing.TB, name string, gone ...string) schema.Table {
	t.Helper()
	full, err := schema.TableNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	drop := map[string]bool{}
	for _, g := range gone {
		drop[g] = true
	}
	out := full
	out.Columns = nil
	for _, c := range full.Columns {
		if drop[c.Name] {
			continue
		}
		var items []schema.Column
		for _, i := range c.Items {
			if !drop["items."+i.Name] {
				items = append(items, i)
			}
		}
		c.Items = items
		out.Columns = append(out.Columns, c)
	}
	return out
}

func TestColumnsThatATableLacksAreAddedUnderTheirCommittedIDs(t *testing.T) {
	c := openTest(t, t.TempDir())
	ctx := t.Context()
	old := without(t, "events_purchase", "order_id", "shipping", "locale", "items.coupon", "items.discount")
	if err := c.ensureTable(ctx, old); err != nil {
		t.Fatal(err)
	}
	if _, err := c.NewWriter(ctx, "events_purchase"); !isFault(err, "MR-ICE-002") {
		t.Errorf("a writer for a table that lacks columns: %v", err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := EnsureTables(ctx, c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	full, err := schema.TableNamed("events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	tbl, err := c.Load(ctx, "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	want, got := map[string]int{}, map[string]int{}
	paths(IcebergSchema(full).Fields(), "", want)
	paths(tbl.Schema().Fields(), "", got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("field ids (-want +got):\n%s", d)
	}
	if last := tbl.Schema().Fields()[tbl.Schema().NumFields()-1]; last.Name == "shipping" && len(tbl.Metadata().Schemas()) != 2 {
		t.Errorf("%d schemas", len(tbl.Metadata().Schemas()))
	}
	if _, err := appendTest(t, c, 0, 100); err != nil {
		t.Fatal(err)
	}
	totals, err := c.Totals(ctx, "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	checkTotals(t, totals, 100)
}

func TestANewerTableIsWrittenWithNullsInColumnsThatThisReleaseDoesNotKnow(t *testing.T) {
	c := ensureTest(t)
	tbl, err := c.LoadForMaintenance(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	tx := tbl.NewTransaction()
	if err := tx.UpdateSchema(true, false).AddColumn([]string{"gift_note"}, iceberg.PrimitiveTypes.String, "", false, nil).
		AddColumn([]string{"items", "weight"}, iceberg.PrimitiveTypes.Int64, "", false, nil).Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := EnsureTables(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := appendTest(t, c, 0, 100); err != nil {
		t.Fatal(err)
	}
	totals, err := c.Totals(t.Context(), "events_purchase")
	if err != nil {
		t.Fatal(err)
	}
	checkTotals(t, totals, 100)
}

func TestAConflictingColumnIsAFault(t *testing.T) {
	for name, change := range map[string]func(*schema.Column){
		"another type":      func(c *schema.Column) { c.Type = schema.Long },
		"another id":        func(c *schema.Column) { c.ID = 999 },
		"another name":      func(c *schema.Column) { c.Name = "note" },
		"must have a value": func(c *schema.Column) { c.Null = false; c.ID = 998; c.Name = "new" },
	} {
		t.Run(name, func(t *testing.T) {
			c := openTest(t, t.TempDir())
			full, err := schema.TableNamed("events_cart")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.ensureTable(t.Context(), full); err != nil {
				t.Fatal(err)
			}
			for i := range full.Columns {
				if full.Columns[i].Name == "coupon" {
					change(&full.Columns[i])
				}
			}
			if err := c.ensureTable(t.Context(), full); !isFault(err, "MR-ICE-002") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEveryColumnHasAValue(t *testing.T) {
	for _, name := range StreamTables() {
		tab, err := schema.TableNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		sc, err := table.SchemaToArrowSchema(IcebergSchema(tab), nil, true, false)
		if err != nil {
			t.Fatal(err)
		}
		l, err := newLayout(tab, IcebergSchema(tab), sc, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newBlock(l); err != nil {
			t.Error(err)
		}
	}
}

func TestUnsupportedAddressesAreRefusedWithEveryProblem(t *testing.T) {
	cfg := Config{CatalogURI: "mysql://db/x", Warehouse: "hdfs://bucket/x", CatalogName: "", Namespace: "a.b", BusyTimeout: -1}
	_, err := Open(t.Context(), cfg)
	if !isFault(err, "MR-ICE-001") {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"catalog_uri:", "mysql", "warehouse:", "hdfs", "catalog_name:", "namespace:", "busy_timeout:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	for _, uri := range []string{"sqlite:///relative.db", "sqlite://x", ""} {
		cfg := testConfig(t.TempDir())
		cfg.CatalogURI = uri
		if err := cfg.Validate(); err == nil {
			t.Errorf("catalog_uri %q was accepted", uri)
		}
	}
}

func isFault(err error, id fault.ID) bool {
	got, ok := fault.IDOf(err)
	return ok && got == id && errors.Unwrap(err) != nil
}

func checkTotals(t *testing.T, got Totals, n int) {
	t.Helper()
	want := wantTotals(n)
	got.IDHash = 0
	if d := cmp.Diff(want, got); d != "" {
		t.Error(fmt.Sprintf("totals of %d rows (-want +got):\n", n) + d)
	}
}
