package bigquery

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/fault"
	"millrace/lakehouse"
)

func TestARangeIsLoadedOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers)
	if out := f.load(t); out.Outcome != Nothing {
		t.Fatalf("nothing is published: %+v", out)
	}
	f.append(t, 100)
	first := f.publish(t)
	out := f.load(t)
	if out.Outcome != Loaded || out.To != first || out.From != 0 || out.Rows.Count != 100 || out.Method != "files" || len(out.Touched) != 2 || len(out.Replaced) != 0 {
		t.Fatalf("first load: %+v", out)
	}
	f.holds(t, 100)
	if out := f.load(t); out.Outcome != Nothing {
		t.Fatalf("the same range again: %+v", out)
	}
	f.append(t, 50)
	f.append(t, 30)
	f.publish(t)
	if out := f.load(t); out.Outcome != Loaded || out.From != first || out.Rows.Count != 80 || out.Method != "files" || out.Parts != 4 {
		t.Fatalf("second load: %+v", out)
	}
	f.holds(t, 180)
	if v, err := f.Verify(t.Context(), purchases, nil, nil, nil); err != nil || len(v.Differences) != 0 || v.Days != 2 || v.Rows.Count != 180 {
		t.Fatalf("verification: %+v, %v", v, err)
	}
	refs, err := f.lake.Refs(t.Context(), purchases)
	if err != nil || !slices.ContainsFunc(refs, func(r lakehouse.RefState) bool {
		return r.Name == "lease.bigquery."+purchases && r.SnapshotID == f.publish(t)
	}) {
		t.Errorf("the loaded snapshot is not held: %+v, %v", refs, err)
	}
}

// A rewrite changes no row: what is new is found by offsets, also where a file holds both.
func TestRowsThatARewriteHasMixedAreLoadedOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers, func(c *Config) { c.PartBytes = 1 << 16 })
	f.append(t, 40)
	f.append(t, 40)
	f.publish(t)
	f.load(t)
	f.compact(t)
	f.publish(t)
	if out := f.load(t); out.Outcome != Loaded || out.Rows.Count != 0 || out.Parts != 0 || len(out.Touched) != 0 {
		t.Fatalf("a rewrite alone: %+v", out)
	}
	f.append(t, 3000)
	f.append(t, 40)
	f.compact(t)
	f.publish(t)
	if out := f.load(t); out.Outcome != Loaded || out.Rows.Count != 3040 || out.Method != "rows" || out.Parts < 2 || len(out.Replaced) != 0 {
		t.Fatalf("new rows among old ones: %+v", out)
	}
	f.holds(t, 3120)
}

func TestMoreFilesThanAreUploadedOneByOneAreWrittenIntoLargerOnes(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers, func(c *Config) { c.MaxFiles = 3 })
	f.append(t, 10)
	f.append(t, 10)
	f.publish(t)
	if out := f.load(t); out.Method != "rows" || out.Parts != 1 {
		t.Fatalf("four files: %+v", out)
	}
	f.holds(t, 20)
}

func TestEveryColumnArrivesAsTheLakeHasIt(t *testing.T) {
	t.Parallel()
	for _, files := range []int{0, 16} { // as rows, as files
		f := newFixture(t, servers, func(c *Config) { c.MaxFiles = files })
		f.append(t, 6)
		f.publish(t)
		f.load(t)
		rows, err := f.rows(t.Context(), "SELECT event_id, occurred_at, ingested_at, value, currency, product_ids, properties, kafka_partition, raw_offset, row_hash, items FROM "+
			f.name(f.cfg.Dataset, purchases)+" ORDER BY event_id")
		if err != nil || len(rows) != 6 {
			t.Fatalf("%d rows: %v", len(rows), err)
		}
		for i, r := range rows {
			e := purchase(i)
			var value, currency any
			products, items := []bigquery.Value(nil), 0
			if e.Value != nil {
				value, currency = big.NewRat(*e.Value, 1_000_000), e.Currency
			}
			for _, id := range e.ProductIDs(nil) {
				products = append(products, id)
			}
			items = len(e.Items)
			want := []bigquery.Value{
				e.ID, time.UnixMicro(e.OccurredAt).UTC(), time.UnixMicro(e.IngestedAt).UTC(), value, currency, products, e.Properties, int64(0), e.RawOffset, e.RowHash, items,
			}
			have := slices.Clone(r)
			list, _ := have[10].([]bigquery.Value)
			have[10] = len(list)
			for _, item := range list {
				if fields, ok := item.([]bigquery.Value); !ok || fields[0] != e.Items[slices.IndexFunc(list, func(v bigquery.Value) bool { return cmp.Equal(v, item, ratios) })].ItemID {
					t.Errorf("item %v of %+v", item, e.Items)
				}
			}
			if p, ok := have[5].([]bigquery.Value); ok && len(p) == 0 {
				have[5] = []bigquery.Value(nil)
			}
			if diff := cmp.Diff(want, have, ratios); diff != "" {
				t.Errorf("files %d, row %d:\n%s", files, i, diff)
			}
		}
		meta, err := f.metadata(t.Context(), f.target(purchases))
		if err != nil || meta.TimePartitioning.Field != schema.BigQueryPartition || !slices.Equal(meta.Clustering.Fields, schema.BigQueryClustering()) {
			t.Errorf("partitioned and clustered by %+v %+v: %v", meta.TimePartitioning, meta.Clustering, err)
		}
	}
}

var ratios = cmp.Comparer(func(a, b *big.Rat) bool { return a == b || a != nil && b != nil && a.Cmp(b) == 0 })

func TestTwoThatLoadAtOnceLoadOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers)
	f.append(t, 200)
	f.publish(t)
	var wg sync.WaitGroup
	for range 3 {
		s := f.open(t)
		wg.Go(func() {
			if _, err := s.Load(t.Context(), Request{Table: purchases}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f.load(t)
	f.holds(t, 200)
}

func TestADifferenceIsNamedAndMended(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers)
	f.append(t, 60)
	f.publish(t)
	f.load(t)
	f.exec(t, "DELETE FROM {T} WHERE kafka_offset IN (1, 3)")
	f.exec(t, "INSERT INTO {T} SELECT * FROM {T} WHERE kafka_offset = 5")
	v, err := f.Verify(t.Context(), purchases, nil, nil, nil)
	if err != nil || len(v.Differences) != 1 || v.Differences[0].Day != "2026-03-02" || v.Differences[0].Lake.Count != 30 || v.Differences[0].BigQuery.Count != 29 {
		t.Fatalf("verification: %+v, %v", v, err)
	}
	if v, err := f.Verify(t.Context(), purchases, []string{"2026-03-01"}, nil, nil); err != nil || len(v.Differences) != 0 || v.Days != 1 {
		t.Fatalf("the other day: %+v, %v", v, err)
	}
	mend := func(r *Request) { r.Mend = true }
	if out := f.load(t, mend); out.Outcome != Loaded || !slices.Equal(out.Replaced, []string{"2026-03-02"}) || out.Rows.Count != 30 {
		t.Fatalf("mended: %+v", out)
	}
	f.holds(t, 60)
	if out := f.load(t, mend); len(out.Replaced) != 0 || out.Rows.Count != 0 {
		t.Fatalf("mended twice: %+v", out)
	}
	f.holds(t, 60)
}

// What the lake has changed below the offsets (here: rows deleted by another program) replaces their days, with the new rows in the same step.
func TestADayWhoseRowsTheLakeHasChangedIsReplaced(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers)
	f.append(t, 60)
	f.publish(t)
	f.load(t)
	f.remove(t, 7)
	f.append(t, 10)
	f.publish(t)
	if out := f.load(t); !slices.Equal(out.Replaced, []string{"2026-03-02"}) || out.Rows.Count != 39 {
		t.Fatalf("%+v", out)
	}
	f.holds(t, 70, 7)
}

func TestWithoutTheSnapshotBigQueryItselfIsCompared(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers)
	f.append(t, 60)
	f.publish(t)
	f.load(t)
	f.exec(t, "DELETE FROM {T} WHERE kafka_offset = 4")
	f.append(t, 20)
	f.publish(t)
	// The position names a snapshot that the lake no longer has.
	if _, err := f.rows(t.Context(), "UPDATE "+f.name(f.cfg.Work(), positionTable(purchases))+" SET snapshot_id = 42 WHERE TRUE"); err != nil {
		t.Fatal(err)
	}
	if out := f.load(t); out.From != 42 || !slices.Equal(out.Replaced, []string{"2026-03-01"}) || out.Rows.Count != 50 {
		t.Fatalf("%+v", out)
	}
	f.holds(t, 80)
}

func TestAnErasedPersonIsNotLoadedAndIsDeleted(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers)
	f.append(t, 70)
	f.publish(t)
	f.load(t)
	key := event.SubjectKey{1}
	subject := event.Subject{Tenant: "default", Kind: event.SubjectVisitor, ID: "v-3"}
	cut := event.Cut{"raw.purchase": {90}}
	ledger := func(context.Context) (*event.Erased, error) {
		e := event.NewErased(key)
		return e, e.Add(event.Erasure{RequestID: "r", Key: key.ID(), Cut: cut.String(), Subjects: []string{key.Digest(subject).String()}})
	}
	erased, err := ledger(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{10, 0} {
		if n, err := f.EraseRows(t.Context(), purchases, erased); err != nil || n != want {
			t.Fatalf("erased %d rows, want %d: %v", n, want, err)
		}
	}
	if left, err := f.client.Dataset(f.cfg.Work()).Tables(t.Context()).Next(); err != nil || left.TableID != positionTable(purchases) {
		t.Errorf("a table of the erasure is left: %+v, %v", left, err)
	}
	f.append(t, 70) // offsets 70 to 139; those from 90 on are of after the request
	f.publish(t)
	out := f.load(t, func(r *Request) { r.Ledger = ledger })
	if out.Held != 3 || out.Rows.Count != 67 || out.Method != "rows" || len(out.Replaced) != 0 {
		t.Fatalf("%+v", out)
	}
	var gone []int
	for i := range 90 {
		if i%7 == 3 {
			gone = append(gone, i)
		}
	}
	f.holds(t, 140, gone...)
	if n, err := f.EraseRows(t.Context(), purchases, erased); err != nil || n != 0 {
		t.Errorf("%d rows came back: %v", n, err)
	}
	if v, err := f.Verify(t.Context(), purchases, nil, ledger, nil); err != nil || len(v.Differences) != 0 || v.Held != 13 {
		t.Errorf("verification: %+v, %v", v, err)
	}
	if out := f.load(t, func(r *Request) { r.Ledger, r.Mend = ledger, true }); len(out.Replaced) != 0 {
		t.Errorf("mended: %+v", out)
	}
}

// An erasure between the look at the ledger and the commit of a load: the load finds the position moved, and plans again.
func TestALoadThatReadTheLedgerTooEarlyPlansAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers)
	f.append(t, 14)
	f.publish(t)
	f.load(t)
	f.append(t, 14)
	f.publish(t)
	key := event.SubjectKey{1}
	subject := event.Subject{Tenant: "default", Kind: event.SubjectVisitor, ID: "v-3"}
	cut := event.Cut{"raw.purchase": {1000}}
	asked := false
	ledger := func(ctx context.Context) (*event.Erased, error) {
		e := event.NewErased(key)
		if err := e.Add(event.Erasure{RequestID: "r", Key: key.ID(), Cut: cut.String(), Subjects: []string{key.Digest(subject).String()}}); err != nil || asked {
			return e, err
		}
		asked = true
		_, err := f.open(t).EraseRows(ctx, purchases, e)
		return nil, err // as it was before
	}
	if out := f.load(t, func(r *Request) { r.Ledger = ledger }); out.Held != 2 || out.Rows.Count != 12 {
		t.Fatalf("%+v", out)
	}
	f.holds(t, 28, 3, 10, 17, 24)
}

func TestRangesThatDoNotJoinAreRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers)
	f.append(t, 10)
	first := f.publish(t)
	f.append(t, 10)
	second := f.publish(t)
	f.append(t, 10)
	third := f.publish(t)
	fails := func(what string, r Request) {
		t.Helper()
		r.Table = purchases
		if out, err := f.Load(t.Context(), r); err == nil {
			t.Errorf("%s: %+v", what, out)
		} else if id, _ := fault.IDOf(err); id != rangeID || Retryable(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	fails("a range that begins where nothing ends", Request{From: first, To: second})
	if out := f.load(t, func(r *Request) { r.To = first }); out.Outcome != Loaded || out.Rows.Count != 10 {
		t.Fatalf("%+v", out)
	}
	fails("a gap", Request{From: second, To: third})
	if out := f.load(t, func(r *Request) { r.From, r.To = first, second }); out.Outcome != Loaded || out.Rows.Count != 10 {
		t.Fatalf("%+v", out)
	}
	if out := f.load(t, func(r *Request) { r.From, r.To = first, second }); out.Outcome != Nothing {
		t.Fatalf("the same range again: %+v", out)
	}
	if out := f.load(t, func(r *Request) { r.To = first }); out.Outcome != Nothing {
		t.Fatalf("a range that was loaded long ago: %+v", out)
	}
	f.holds(t, 20)
	if _, err := f.Load(t.Context(), Request{Table: "failed_events"}); err == nil || !strings.Contains(err.Error(), "events_page") {
		t.Errorf("a table that is not loaded: %v", err)
	}
}

func TestTwoLoadsAreAsFarApartAsConfigured(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers, func(c *Config) { c.MinInterval = time.Hour })
	f.append(t, 10)
	f.publish(t)
	f.load(t)
	f.append(t, 10)
	f.publish(t)
	if out := f.load(t); out.Outcome != Early || out.Wait <= 0 || out.Wait > time.Hour {
		t.Fatalf("%+v", out)
	}
	if out := f.load(t, func(r *Request) { r.Now = true }); out.Outcome != Loaded || out.Rows.Count != 10 {
		t.Fatalf("%+v", out)
	}
}

func TestATableMadeAnewIsNotTakenForLoaded(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers)
	f.append(t, 10)
	f.publish(t)
	f.load(t)
	if err := f.target(purchases).Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.append(t, 10)
	f.publish(t)
	_, err := f.Load(t.Context(), Request{Table: purchases})
	if id, _ := fault.IDOf(err); id != remadeID {
		t.Fatalf("got %v", err)
	}
	// As the remedy says; a row that is there already is not doubled.
	if err := f.work(positionTable(purchases)).Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := f.load(t); out.Rows.Count != 20 {
		t.Fatalf("%+v", out)
	}
	f.holds(t, 20)
	if err := f.work(positionTable(purchases)).Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := f.load(t); out.Rows.Count != 20 || len(out.Replaced) != 2 {
		t.Fatalf("with rows and no position: %+v", out)
	}
	f.holds(t, 20)
}

func TestColumnsAreAddedAndNeverChanged(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers)
	f.append(t, 10)
	f.publish(t)
	f.load(t)
	want, err := columnsOf(purchases, f.icebergSchema(t))
	if err != nil {
		t.Fatal(err)
	}
	more := append(slices.Clone(want), &bigquery.FieldSchema{Name: "coupon_code", Type: bigquery.StringFieldType})
	if meta, err := f.ensure(t.Context(), purchases, more); err != nil || len(meta.Schema) != len(want)+1 {
		t.Fatalf("adding a column: %v", err)
	}
	f.append(t, 10)
	f.publish(t)
	if out := f.load(t); out.Rows.Count != 10 { // the lake does not have it: null
		t.Fatalf("%+v", out)
	}
	f.holds(t, 20)
	for what, change := range map[string]func(bigquery.Schema) bigquery.Schema{
		"a type that narrows":   func(s bigquery.Schema) bigquery.Schema { return retyped(s, "raw_offset", bigquery.StringFieldType) },
		"an amount that widens": func(s bigquery.Schema) bigquery.Schema { return retyped(s, "value", bigquery.BigNumericFieldType) },
		"a required column is added": func(s bigquery.Schema) bigquery.Schema {
			return append(s, &bigquery.FieldSchema{Name: "must", Type: bigquery.StringFieldType, Required: true})
		},
		"a column is a list now": func(s bigquery.Schema) bigquery.Schema {
			s = retyped(s, "source", bigquery.StringFieldType)
			s[slices.IndexFunc(s, func(c *bigquery.FieldSchema) bool { return c.Name == "source" })].Repeated = true
			return s
		},
	} {
		_, err := f.ensure(t.Context(), purchases, change(slices.Clone(want)))
		if id, _ := fault.IDOf(err); id != schemaID || Retryable(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func retyped(s bigquery.Schema, name string, kind bigquery.FieldType) bigquery.Schema {
	for i, c := range s {
		if c.Name == name {
			next := *c
			next.Type = kind
			s[i] = &next
		}
	}
	return s
}

// Rows that were staged by somebody else never become visible.
func TestStagedRowsThatAreNotTheRangesAreStagedAnew(t *testing.T) {
	t.Parallel()
	f := newFixture(t, servers)
	f.append(t, 20)
	f.publish(t)
	times := 0
	f.hook = func(_ context.Context, step, _ string) {
		if step == FailStaged && times < 2 {
			times++
			stage := fmt.Sprintf("range_%s_0_%d", purchases, f.publish(t))
			name := f.name(f.cfg.Work(), stage)
			if _, err := f.rows(t.Context(), "INSERT INTO "+name+" SELECT * FROM "+name+" WHERE kafka_offset = 3"); err != nil {
				t.Error(err)
			}
		}
	}
	f.load(t)
	f.holds(t, 20)
	if times != 2 {
		t.Errorf("staged %d times", times)
	}
}
