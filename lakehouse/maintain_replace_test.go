package lakehouse

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"millrace/lakehouse/order"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"
)

// appendDay commits a file of purchases that were ingested some days later.
func appendDay(t *testing.T, c *Catalog, from, rows, days int) {
	t.Helper()
	w, err := c.NewWriter(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	for i := from; i < from+rows; i++ {
		e := purchase(i)
		e.IngestedAt += int64(days) * order.Day
		if err := w.WriteEvent(t.Context(), e, Provenance{"events.purchase", 0, int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Append(t.Context(), purchases, files, at(0, from), at(0, from+rows)); err != nil {
		t.Fatal(err)
	}
}

func manifestsOf(t *testing.T, c *Catalog) []iceberg.ManifestFile {
	t.Helper()
	tbl, err := c.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	fs, err := tbl.FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := tbl.CurrentSnapshot().Manifests(fs)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A manifest that cannot be read tells whether it was read.
func TestACommitReadsOnlyTheManifestsThatCanHoldItsFiles(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	const days, files, each = 4, 3, 20
	for d := range days {
		for f := range files {
			appendDay(t, c, (d*files+f)*each, each, d)
		}
	}
	if _, err := c.rewriteManifests(t.Context(), purchases, 2); err != nil {
		t.Fatal(err)
	}
	before := manifestsOf(t, c)
	if len(before) != days {
		t.Fatalf("%d manifests of %d days", len(before), days)
	}
	plan, err := c.PlanCompaction(t.Context(), purchases, small())
	if err != nil || len(plan.Groups) != days {
		t.Fatalf("%+v %v", plan, err)
	}
	result, err := c.CompactGroup(t.Context(), plan, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	appendDay(t, c, days*files*each, each, 1) // the same day goes on
	hidden := map[string]string{}
	for _, m := range manifestsOf(t, c) {
		if plan.Groups[1].Manifests[0] != m.FilePath() {
			hidden[bare(m.FilePath())] = bare(m.FilePath()) + ".away"
		}
	}
	if len(hidden) != days {
		t.Fatalf("%d manifests are to be left unread", len(hidden))
	}
	for path, away := range hidden {
		if err := os.Rename(path, away); err != nil {
			t.Fatal(err)
		}
	}
	res, err := c.CommitRewrite(t.Context(), plan, []GroupResult{result})
	for path, away := range hidden {
		if err := os.Rename(away, path); err != nil {
			t.Fatal(err)
		}
	}
	if err != nil || res.Removed != files || res.Added != 1 {
		t.Fatalf("%+v %v", res, err)
	}
	wantRows(t, c, (days*files+1)*each)
	wantSummary(t, c)
	// Where the manifest of the plan has gone, its day's are looked through.
	if plan, err = c.PlanCompaction(t.Context(), purchases, small()); err != nil {
		t.Fatal(err)
	}
	results := groups(t, c, plan)
	for i := range plan.Groups {
		plan.Groups[i].Manifests = []string{"gone"}
	}
	if res, err := c.CommitRewrite(t.Context(), plan, results); err != nil || res.Removed != (days-1)*files+2 {
		t.Fatalf("%+v %v", res, err)
	}
	wantRows(t, c, (days*files+1)*each)
	wantSummary(t, c)
	// And a file that has gone is a conflict.
	if _, err := c.CommitRewrite(t.Context(), plan, results[:1]); !errors.Is(err, ErrConflict) {
		t.Errorf("a file was replaced twice: %v", err)
	}
}

// wantSummary compares the totals of the head's summary with its files, and the counts in the list of manifests with their entries.
func wantSummary(t *testing.T, c *Catalog) {
	t.Helper()
	tbl, err := c.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	fs, err := tbl.FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	paths := map[string]bool{}
	for _, m := range manifestsOf(t, c) {
		var live, deleted int32
		for e, err := range m.Entries(fs, false) {
			if err != nil {
				t.Fatal(err)
			}
			f := e.DataFile()
			if e.Status() == iceberg.EntryStatusDELETED {
				deleted++
				continue
			}
			live++
			if paths[f.FilePath()] {
				t.Errorf("%s is there twice", f.FilePath())
			}
			paths[f.FilePath()] = true
			if e.SequenceNum() < 1 || e.SequenceNum() > tbl.Metadata().LastSequenceNumber() {
				t.Errorf("%s has sequence number %d", f.FilePath(), e.SequenceNum())
			}
			got["total-files-size"] += f.FileSizeBytes()
			if f.ContentType() == iceberg.EntryContentData {
				got["total-data-files"]++
				got["total-records"] += f.Count()
			} else {
				got["total-delete-files"]++
				got["total-position-deletes"] += f.Count()
			}
		}
		if live != m.AddedDataFiles()+m.ExistingDataFiles() || deleted != m.DeletedDataFiles() {
			t.Errorf("manifest %s has %d live and %d deleted entries: %v", m.FilePath(), live, deleted, m)
		}
	}
	want := map[string]int64{}
	for _, k := range []string{"total-files-size", "total-data-files", "total-records", "total-delete-files", "total-position-deletes"} {
		if n := tbl.CurrentSnapshot().Summary.Properties.GetInt64(k, 0); n != 0 {
			want[k] = n
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the summary says otherwise than the files: %s", d)
	}
}

func TestTheSummaryOfARewriteOfDeletedRowsIsThatOfItsFiles(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 4, 50)
	var ids []string
	for i := range 50 {
		ids = append(ids, fmt.Sprintf("e-%06d", i*3))
	}
	deleteIDs(t, c, table.WriteModeMergeOnRead, ids...)
	wantSummary(t, c)
	if _, res := compact(t, c, small()); res.Deletes == 0 {
		t.Errorf("%+v", res)
	}
	wantSummary(t, c)
}
