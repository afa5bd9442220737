package lakehouse

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/lakehouse/order"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
)

const planChild = "MILLRACE_TEST_PLAN"

// TestPlanChild is the process whose memory is measured: it plans a table.
func TestPlanChild(t *testing.T) {
	dir := os.Getenv(planChild)
	if dir == "" {
		return // not asked
	}
	c := openTest(t, dir)
	start := time.Now()
	plan, err := c.PlanCompaction(t.Context(), purchases, PolicyOf(purchases))
	if err != nil {
		t.Fatal(err)
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("planned %d files in %d groups, %d left, peak %d KiB, %s, %s of CPU\n", plan.Files, len(plan.Groups), plan.Left, u.Maxrss, time.Since(start).Round(time.Millisecond), cpu().Round(time.Millisecond))
}

// A table of 600,000 small files, as a year of neglect leaves: what is remembered of each must not be more than what planning needs.
func TestSixHundredThousandFilesArePlannedInLessThanAGigabyte(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 600,000 manifest entries")
	}
	const files, manifests, days = 600_000, 60, 250
	dir := t.TempDir()
	c := openTest(t, dir)
	if err := EnsureTables(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	appendMany(t, c, 0, 1, 10) // whose statistics and offsets are those of all
	synthesise(t, c, files, manifests, days)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPlanChild$")
	cmd.Env = append(os.Environ(), planChild+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	t.Log(line)
	var planned, groups, left, peak int64
	if _, err := fmt.Sscanf(line, "planned %d files in %d groups, %d left, peak %d KiB", &planned, &groups, &left, &peak); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if planned != files || groups < days || left != 0 {
		t.Errorf("%d of %d files are planned in %d groups, %d are left", planned, files, groups, left)
	}
	if peak > 1<<20 {
		t.Errorf("planning took %d MiB", peak>>10)
	}
}

// synthesise replaces the head by a snapshot whose manifests list many files like the one that is there, none of which exists.
func synthesise(t *testing.T, c *Catalog, files, manifests, days int) {
	t.Helper()
	tbl, err := c.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	fs, err := tbl.FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	store := fs.(iceio.WriteFileIO)
	snap := tbl.CurrentSnapshot()
	list, err := snap.Manifests(store)
	if err != nil {
		t.Fatal(err)
	}
	var like iceberg.DataFile
	if err := entries(t.Context(), store, list[0], func(e iceberg.ManifestEntry) error { like = e.DataFile(); return nil }); err != nil {
		t.Fatal(err)
	}
	spec := tbl.Spec()
	r := newReplacement(tbl, snap, store, table.CompactionGroupResult{}, nil, partitionSet{})
	field := 0
	for _, f := range spec.Fields() {
		field = f.FieldID
	}
	first := int(baseTime / order.Day)
	// One manifest, written many times: reading and remembering it costs as much as others.
	var text bytes.Buffer
	w, err := iceberg.NewManifestWriter(2, &text, spec, tbl.Schema(), r.id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range files / manifests {
		value := first + i%days
		path := fmt.Sprintf("%s/data/ingested_at_day=%s/00000-%05d-6ba7b810-9dad-11d1-80b4-00c04fd430c8-00001.parquet", tbl.Location(), time.Unix(int64(value)*86400, 0).UTC().Format(time.DateOnly), i)
		b, err := iceberg.NewDataFileBuilder(spec, iceberg.EntryContentData, path, iceberg.ParquetFile, map[int]any{field: int32(value)}, map[int]string{}, map[int]int{}, 10_000, 200_000)
		if err != nil {
			t.Fatal(err)
		}
		f := b.ColumnSizes(like.ColumnSizes()).ValueCounts(like.ValueCounts()).NullValueCounts(like.NullValueCounts()).LowerBoundValues(like.LowerBoundValues()).UpperBoundValues(like.UpperBoundValues()).Build()
		if err := w.Add(iceberg.NewManifestEntry(iceberg.EntryStatusADDED, &r.id, nil, nil, f)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var made []iceberg.ManifestFile
	for m := range manifests {
		path, size, err := r.file(fmt.Sprintf("many-%d.avro", m), func(out io.Writer) error {
			_, err := out.Write(text.Bytes())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		file, err := w.ToManifestFile(path, size)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, file)
	}
	props, err := CarryOffsets(tbl)
	if err != nil {
		t.Fatal(err)
	}
	updates, requirements, err := r.snapshot(made, props)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.base.CommitTable(t.Context(), c.ident(purchases), requirements, updates); err != nil {
		t.Fatal(err)
	}
}
