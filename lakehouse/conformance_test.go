package lakehouse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"

	"millrace/event/schema"
)

// TestEveryCatalogAndStoreKeepsTheContract runs one suite over every kind of catalog and store: what it promises, the packages above build on.
func TestEveryCatalogAndStoreKeepsTheContract(t *testing.T) {
	for _, w := range []world{
		{kindSQLite, "file"},
		{kindSQLite, "s3"},
		{kindSQLite, "gs"},
		{kindPostgres, "file"},
		{kindPostgres, "s3"},
		{kindREST, "file"},
		{kindREST, "s3"},
		{kindREST, "gs"},
	} {
		t.Run(w.catalog+" on "+w.store, func(t *testing.T) {
			t.Parallel()
			conform(t, w)
		})
	}
}

// contract is what every catalog on every store does, in this order: each step finds the table as the one before has left it.
var contract = []struct {
	name string
	step func(*subject, *testing.T)
}{
	{"tables are made with the committed field ids, by several processes at once", (*subject).creates},
	{"rows and offsets become visible together", (*subject).appends},
	{"an append that does not begin at the head is refused", (*subject).refuses},
	{"of commits on one head one is made, and the others know that they were not", (*subject).races},
	{"a commit whose outcome was unknown is settled by the same call", (*subject).settles},
	{"a column is added under its committed id", (*subject).evolves},
	{"compaction keeps every row, in the policy's order", (*subject).compacts},
	{"merge-on-read deletes hold, and a rewrite applies them", (*subject).deletes},
	{"a ref moves by compare-and-swap", (*subject).moves},
	{"a leased snapshot outlives expiry", (*subject).leases},
	{"files of expired snapshots are deleted after the grace", (*subject).expires},
	{"orphans are removed and nothing else", (*subject).orphans},
	{"tables are listed and described", (*subject).lists},
}

// subject is one catalog on one store, and what must be in its table.
type subject struct {
	*Catalog
	w       world
	cfg     Config
	next    int // offset
	deleted [2]int
}

func conform(t *testing.T, w world) {
	s := &subject{w: w, cfg: w.config(t)}
	s.Catalog = openConfig(t, s.cfg)
	for i, c := range contract {
		if !t.Run(fmt.Sprintf("%02d %s", i+1, c.name), func(t *testing.T) { c.step(s, t) }) {
			return
		}
	}
}

// rows checks that the table holds what was appended and not deleted, to the micro.
func (s *subject) rows(t *testing.T) {
	t.Helper()
	wantWithout(t, s.Catalog, s.next, s.deleted[0], s.deleted[1])
	head, err := s.Head(t.Context(), purchases)
	if err != nil || head.Vector.At(testTopic, 0) != int64(s.next) {
		t.Fatalf("the head says %v, not %d: %v", head.Vector, s.next, err)
	}
}

func (s *subject) more(t *testing.T, n int) Head {
	t.Helper()
	head, err := appendTest(t, s.Catalog, s.next, s.next+n)
	if err != nil {
		t.Fatal(err)
	}
	s.next += n
	return head
}

func (s *subject) creates(t *testing.T) {
	var wg sync.WaitGroup
	for range 3 {
		c := openConfig(t, s.cfg)
		wg.Go(func() {
			if err := c.patiently(t.Context(), func() error {
				return c.ensureTable(t.Context(), without(t, purchases, "shipping", "locale", "items.coupon"))
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want, err := schema.TableNamed(FailedTable)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.ensureTable(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	tbl, err := s.Load(t.Context(), FailedTable)
	if err != nil {
		t.Fatal(err)
	}
	ids, got := map[string]int{}, map[string]int{}
	paths(IcebergSchema(want).Fields(), "", ids)
	paths(tbl.Schema().Fields(), "", got)
	if d := cmp.Diff(ids, got); d != "" {
		t.Errorf("field ids (-want +got):\n%s", d)
	}
	for k, v := range Properties(FailedTable) {
		if tbl.Properties()[k] != v {
			t.Errorf("property %s is %q, not %q", k, tbl.Properties()[k], v)
		}
	}
	spec := tbl.Spec()
	if tbl.Metadata().Version() != 2 || tbl.Location() != s.location(FailedTable) || spec.NumFields() != 1 {
		t.Errorf("format %d at %s with %v", tbl.Metadata().Version(), tbl.Location(), spec)
	}
}

func (s *subject) appends(t *testing.T) {
	// The newest schema is needed to write: the column that is added later comes from another table.
	if err := s.patiently(t.Context(), func() error { return s.ensureTable(t.Context(), without(t, purchases, "locale")) }); err != nil {
		t.Fatal(err)
	}
	s.evolves(t)
	for range 4 {
		s.more(t, 60)
	}
	s.rows(t)
	totals, err := s.Totals(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	checkTotals(t, totals, s.next)
}

func (s *subject) refuses(t *testing.T) {
	for name, c := range map[string]struct {
		lo, hi int
		want   error
	}{"behind": {s.next - 10, s.next + 10, ErrOverlap}, "ahead": {s.next + 1, s.next + 10, ErrGap}, "backwards": {s.next, s.next - 1, ErrRegression}} {
		if _, err := s.Append(t.Context(), purchases, nil, at(0, c.lo), at(0, c.hi)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", name, err, c.want)
		}
	}
	s.rows(t)
}

func (s *subject) races(t *testing.T) {
	stale, err := s.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	// Four writers have the same range: one stores it, and all learn that it is stored or that they are too late.
	var wg sync.WaitGroup
	for range 4 {
		c := openConfig(t, s.cfg)
		wg.Go(func() {
			head, err := appendTest(t, c, s.next, s.next+20)
			if err != nil && !errors.Is(err, ErrOverlap) && !strings.Contains(err.Error(), "SQLITE_BUSY") || err == nil && head.Vector.At(testTopic, 0) != int64(s.next+20) {
				t.Errorf("head %v: %v", head.Vector, err)
			}
		})
	}
	wg.Wait()
	s.next += 20
	s.rows(t)
	w, err := s.NewWriter(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.Catalog, w, 0, 5)
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := s.appendOnce(t.Context(), purchases, stale, files, at(0, 5)); !isStale(err) || errors.Is(err, table.ErrCommitFailed) {
		t.Errorf("a commit on a stale head: %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it was tried again for %s, though its head never comes back", took)
	}
	reqs := []table.Requirement{table.AssertTableUUID(stale.Metadata().TableUUID()), table.AssertRefSnapshotID("nobody", &stale.CurrentSnapshot().SnapshotID)}
	_, _, err = s.base.CommitTable(t.Context(), s.ident(purchases), reqs, []table.Update{table.NewRemovePropertiesUpdate([]string{"none"})})
	if !isStale(err) {
		t.Errorf("a requirement that does not hold: %v", err)
	}
	s.rows(t)
}

// lossy loses the reply to the next commit: it is made, but nobody learns of it.
type lossy struct {
	catalog.Catalog
	lose bool
}

var errConnectionLost = errors.New("connection lost")

func (l *lossy) CommitTable(ctx context.Context, id table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	meta, loc, err := l.Catalog.CommitTable(ctx, id, reqs, updates)
	if err == nil && l.lose {
		l.lose = false
		return nil, "", errConnectionLost
	}
	return meta, loc, err
}

func (s *subject) settles(t *testing.T) {
	c := openConfig(t, s.cfg)
	l := &lossy{Catalog: c.base.Catalog}
	c.base.Catalog = l
	w, err := c.NewWriter(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, w, s.next, s.next+30)
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.lose = true
	if _, err := c.Append(t.Context(), purchases, files, at(0, s.next), at(0, s.next+30)); !errors.Is(err, errConnectionLost) || isStale(err) {
		t.Fatalf("the reply was lost, but the append says %v", err)
	}
	head, err := c.Append(t.Context(), purchases, files, at(0, s.next), at(0, s.next+30))
	if err != nil || head.Vector.At(testTopic, 0) != int64(s.next+30) {
		t.Fatalf("head %v: %v", head.Vector, err)
	}
	s.next += 30
	s.rows(t)
	// The same for a rewrite.
	plan, err := c.PlanCompaction(t.Context(), purchases, small())
	if err != nil || len(plan.Groups) == 0 {
		t.Fatalf("%d groups: %v", len(plan.Groups), err)
	}
	results := groups(t, c, plan)
	l.lose = true
	if _, err := c.CommitRewrite(t.Context(), plan, results); !errors.Is(err, errConnectionLost) {
		t.Fatalf("the reply was lost, but the rewrite says %v", err)
	}
	if res, err := c.CommitRewrite(t.Context(), plan, results); err != nil || !res.Again || res.Removed != plan.Files {
		t.Errorf("%+v: %v", res, err)
	}
	s.rows(t)
}

func (s *subject) evolves(t *testing.T) {
	want, err := schema.TableNamed(purchases)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if err := s.patiently(t.Context(), func() error { return s.ensureTable(t.Context(), want) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	tbl, err := s.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	ids, got := map[string]int{}, map[string]int{}
	paths(IcebergSchema(want).Fields(), "", ids)
	paths(tbl.Schema().Fields(), "", got)
	if d := cmp.Diff(ids, got); d != "" {
		t.Errorf("field ids (-want +got):\n%s", d)
	}
}

func (s *subject) compacts(t *testing.T) {
	for range 5 {
		s.more(t, 40)
	}
	plan, res := compact(t, s.Catalog, small())
	if plan.Files < 5 || res.Removed != plan.Files || res.Added != 1 {
		t.Fatalf("plan of %d files, %+v", plan.Files, res)
	}
	s.rows(t)
	inOrder(t, s.Catalog)
}

func (s *subject) deletes(t *testing.T) {
	s.deleted = [2]int{100, 160}
	var ids []string
	for i := s.deleted[0]; i < s.deleted[1]; i++ {
		ids = append(ids, fmt.Sprintf("e-%06d", i))
	}
	deleteIDs(t, s.Catalog, table.WriteModeMergeOnRead, ids...)
	s.rows(t)
	s.more(t, 20)
	_, res := compact(t, s.Catalog, small())
	if res.Deletes == 0 {
		t.Errorf("the rewrite kept the delete files: %+v", res)
	}
	s.rows(t)
	tbl, err := s.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	f, err := tbl.FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := tbl.CurrentSnapshot().Manifests(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range manifests {
		if m.ManifestContent() != 0 && m.ExistingDataFiles()+m.AddedDataFiles() > 0 {
			t.Errorf("manifest %s still lists deletes", m.FilePath())
		}
	}
}

func (s *subject) moves(t *testing.T) {
	ctx := t.Context()
	first := s.more(t, 10).SnapshotID
	second := s.more(t, 10).SnapshotID
	if err := s.MoveRef(ctx, purchases, RefPublished, 0, first); err != nil {
		t.Fatal(err)
	}
	if err := s.MoveRef(ctx, purchases, RefPublished, 0, second); !errors.Is(err, ErrRefMoved) {
		t.Errorf("published was moved from where it is not: %v", err)
	}
	var wg sync.WaitGroup
	for range 3 {
		c := openConfig(t, s.cfg)
		wg.Go(func() {
			if err := c.MoveRef(ctx, purchases, RefPublished, first, second); err != nil { // all want the same
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.MoveRef(ctx, purchases, RefPublished, second, first); !errors.Is(err, ErrBackward) {
		t.Errorf("published went backwards: %v", err)
	}
	at, err := s.Ref(ctx, purchases, RefPublished)
	if err != nil || at.SnapshotID != second || at.Vector.At(testTopic, 0) != int64(s.next) {
		t.Errorf("%+v %v", at, err)
	}
	s.more(t, 10)
	if n := s.count(t, RefPublished); n != s.live()-10 {
		t.Errorf("published has %d rows, not %d", n, s.live()-10)
	}
	if err := s.Tag(ctx, purchases, "kept", first, 0); err != nil {
		t.Fatal(err)
	}
	if n := s.count(t, "kept"); n != s.live()-20 {
		t.Errorf("the tag has %d rows, not %d", n, s.live()-20)
	}
	if err := s.DropRef(ctx, purchases, "kept"); err != nil {
		t.Error(err)
	}
}

func (s *subject) live() int { return s.next - (s.deleted[1] - s.deleted[0]) }

func (s *subject) count(t *testing.T, ref string) int {
	t.Helper()
	n := 0
	if err := s.Scan(t.Context(), purchases, ref, []string{"event_id"}, func(b arrow.RecordBatch) error {
		col, ok := b.Column(0).(*array.String)
		if !ok {
			return fmt.Errorf("column of type %T", b.Column(0))
		}
		n += col.Len()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func (s *subject) leases(t *testing.T) {
	ctx := t.Context()
	leased, err := s.Head(ctx, purchases)
	if err != nil {
		t.Fatal(err)
	}
	release, err := s.Lease(ctx, purchases, "reader", "1", leased.SnapshotID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.more(t, 10)
	}
	// A lease that comes when the expiry is planned already stops it.
	stale, err := s.Load(ctx, purchases)
	if err != nil {
		t.Fatal(err)
	}
	snaps, refs := expirable(stale, time.Now().Add(time.Second), 0, 1)
	if len(snaps) == 0 || len(refs) != 0 || slices.Contains(snaps, leased.SnapshotID) {
		t.Fatalf("%v %v", snaps, refs)
	}
	late, err := s.Lease(ctx, purchases, "reader", "2", snaps[len(snaps)-1], time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.expireOnce(ctx, purchases, stale, snaps, refs); !isStale(err) {
		t.Fatalf("a leased snapshot was expired: %v", err)
	}
	if err := late(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := s.expire(ctx, purchases, 0, 1); err != nil || n == 0 {
		t.Fatalf("expired %d: %v", n, err)
	}
	after, err := s.Load(ctx, purchases)
	if err != nil {
		t.Fatal(err)
	}
	if after.SnapshotByID(leased.SnapshotID) == nil {
		t.Error("the leased snapshot has gone")
	}
	for k := range after.Properties() {
		if strings.HasPrefix(k, expiringProperty) {
			t.Errorf("the expiry is over and still announced: %s", k)
		}
	}
	if _, err := s.Lease(ctx, purchases, "reader", "3", snaps[0], time.Hour); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("a lease on what has gone: %v", err)
	}
	if err := release(ctx); err != nil {
		t.Error(err)
	}
	s.rows(t)
}

func (s *subject) expires(t *testing.T) {
	ctx := t.Context()
	s.more(t, 10)
	if _, err := s.expire(ctx, purchases, 0, 1); err != nil {
		t.Fatal(err)
	}
	before := s.files(t)
	if res, err := s.deleteExpired(ctx, purchases, time.Now().Add(-ExpiredGrace), true); err != nil || res.Files != 0 {
		t.Errorf("within the grace: %+v %v", res, err)
	}
	res, err := s.deleteExpired(ctx, purchases, time.Now().Add(time.Hour), true)
	if err != nil || res.Files == 0 || res.Bytes == 0 {
		t.Fatalf("%+v %v", res, err)
	}
	if after := s.files(t); len(after) != len(before)-res.Files {
		t.Errorf("%d files of %d are left, %d were deleted", len(after), len(before), res.Files)
	}
	s.rows(t)
	if n := s.count(t, RefPublished); n == 0 {
		t.Error("published has lost its files")
	}
}

// files are all files of the table's location.
func (s *subject) files(t *testing.T) []string {
	t.Helper()
	tbl, err := s.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	sh, err := s.shelf(t.Context(), purchases, tbl)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	if err := walk(sh.fs, tbl.Location(), func(i item) error {
		if !bytes.Contains([]byte(i.name), []byte("/")) || i.size == 0 && i.mtime.IsZero() {
			t.Errorf("file %q of %d bytes at %s", i.name, i.size, i.mtime)
		}
		out = append(out, bare(i.path))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *subject) orphans(t *testing.T) {
	ctx := t.Context()
	tomorrow := time.Now().Add(LeastOrphanAge)
	if _, err := s.removeOrphans(ctx, purchases, tomorrow, false, nil); err != nil { // of refused commits
		t.Fatal(err)
	}
	s.rows(t)
	tbl, err := s.Load(ctx, purchases)
	if err != nil {
		t.Fatal(err)
	}
	sh, err := s.shelf(ctx, purchases, tbl)
	if err != nil {
		t.Fatal(err)
	}
	stray := tbl.Location() + "/data/ingested_at_day=2026-03-01/stray.parquet"
	if err := sh.fs.WriteFile(stray, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if res, err := s.RemoveOrphans(ctx, purchases, LeastOrphanAge, false, nil); err != nil || res.Files != 0 {
		t.Errorf("a young file: %+v %v", res, err)
	}
	if res, err := s.removeOrphans(ctx, purchases, tomorrow, true, nil); err != nil || len(res.Paths) != 1 || bare(res.Paths[0]) != bare(stray) {
		t.Errorf("a dry run: %+v %v", res, err)
	}
	if res, err := s.removeOrphans(ctx, purchases, tomorrow, false, nil); err != nil || res.Files != 1 || res.Bytes != 1 {
		t.Errorf("%+v %v", res, err)
	}
	if slices.Contains(s.files(t), bare(stray)) {
		t.Error("the stray file is still there")
	}
	s.rows(t)
}

func (s *subject) lists(t *testing.T) {
	infos, err := s.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range infos {
		names = append(names, i.Name)
	}
	if d := cmp.Diff([]string{purchases, FailedTable}, names); d != "" {
		t.Error(d)
	}
	d, err := s.Describe(t.Context(), purchases)
	if err != nil || d.Rows != int64(s.live()) || d.Location != s.location(purchases) || d.Offsets.At(testTopic, 0) != int64(s.next) {
		t.Errorf("%+v %v", d.TableInfo, err)
	}
	if err := s.CheckStore(t.Context()); err != nil {
		t.Error(err)
	}
}
