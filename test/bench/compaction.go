package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/event"
	"millrace/lakehouse"
	"millrace/test/bench/child"
)

// compactionSize is how large the table is, and in how many files.
type compactionSize struct{ rows, files int }

// compactionJob is what a child does with the table.
type compactionJob struct {
	Files       int      `json:"files"`
	Sort        []string `json:"sort"`
	ZOrder      []string `json:"zorder"`
	TargetBytes int64    `json:"target_bytes"`
}

const (
	compactionTable = "small_files"
	oneFile         = 1 << 30 // target size that gives one file
	manyFiles       = 16      // of the z-order whose files are counted
)

// rewrites are what both engines do with the same table.
var rewrites = []struct {
	name  string
	job   compactionJob
	goal  float64
	spark sparkRequest
}{
	{"compaction, binpack", compactionJob{TargetBytes: oneFile}, 3, sparkRequest{Kind: "binpack", Target: oneFile}},
	{"compaction, sort", compactionJob{TargetBytes: oneFile, Sort: []string{"user_id"}}, 3, sparkRequest{Kind: "sort", Order: "user_id ASC", Target: oneFile}},
	{"compaction, z-order", compactionJob{TargetBytes: oneFile, ZOrder: []string{"user_id", "product_id"}}, 3, sparkRequest{Kind: "zorder", Order: "zorder(user_id, product_id)", Target: oneFile}},
}

// benchCompaction rewrites one table of many small files into one, as it is, sorted, and in z-order, with ours and with Spark, each from the same snapshot. Then both
// put it in z-order once more, into several files, and queries are asked which of these they would open.
func benchCompaction(ctx context.Context, s settings, say func(string, ...any)) (_ []result, err error) {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	lake, err := newCompactionLake(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer lake.close()
	j := job{Dir: dir, Rows: int64(s.compaction.rows), Compaction: compactionJob{Files: s.compaction.files}}
	if _, err := do(ctx, "small", j); err != nil {
		return nil, err
	}
	if err := lake.remember(ctx, int64(s.compaction.rows)); err != nil {
		return nil, err
	}
	say("  %d rows in %d files, %.0f MB", s.compaction.rows, s.compaction.files, float64(lake.bytes)/1e6)
	spark, err := startSpark(ctx, lake.cfg, say)
	if err != nil {
		return nil, err
	}
	defer spark.stop()
	if _, err := spark.ask(ctx, sparkRequest{Kind: "binpack", Target: oneFile}); err != nil { // compiled by now, as in a session that has done this before
		return nil, err
	}
	if err := lake.reset(ctx); err != nil {
		return nil, err
	}
	var out []result
	for _, r := range rewrites {
		var turns []turn
		for range s.reps {
			one, err := lake.turn(ctx, r.job, r.spark, spark, s.profile("compaction-"+r.spark.Kind))
			if err != nil {
				return out, fmt.Errorf("%s: %w", r.name, err)
			}
			turns = append(turns, one)
			say("  %s: ours %.1f (%s), Spark %.1f (%s) MB per CPU s", r.name, mbPerCPU(one.ours), one.ours.Note, mbPerCPU(one.peer), one.peer.Note)
		}
		c := compareBy(r.name, "MB per CPU s", "Spark 4.0.1, Iceberg 1.11", turns, mbPerCPU)
		c.Goal, c.OK = fmt.Sprintf(">=%g", r.goal), c.Ratio >= r.goal
		c.OursWall, c.PeerWall = c.OursWall/1e6, c.PeerWall/1e6
		out = append(out, c)
	}
	opened, err := lake.zOrderFiles(ctx, spark, say)
	return append(out, opened...), err
}

func mbPerCPU(c cost) float64 { return float64(c.N) / 1e6 / c.CPU }

// zOrderFiles lets both engines write a z-order of several files, and compares the share of the files that queries open.
func (l *compactionLake) zOrderFiles(ctx context.Context, spark *spark, say func(string, ...any)) ([]result, error) {
	size := l.bytes / manyFiles
	share := func(rewrite func() error) (cost, error) {
		if err := rewrite(); err != nil {
			return cost{}, err
		}
		opened, files, err := l.opened(ctx)
		if err != nil {
			return cost{}, err
		}
		n := len(compactionQueries())
		c := cost{CPU: float64(opened), Wall: 1, N: int64(files * n), Note: fmt.Sprintf("%d files, %.2f opened by a query", files, float64(opened)/float64(n))}
		return c, l.reset(ctx)
	}
	ours, err := share(func() error {
		_, err := do(ctx, "compaction", job{Dir: l.dir, Rows: l.bytes, Compaction: compactionJob{TargetBytes: size, ZOrder: []string{"user_id", "product_id"}}})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("counting the files of a z-order: %w", err)
	}
	theirs, err := share(func() error {
		_, err := spark.ask(ctx, sparkRequest{Kind: "zorder", Order: "zorder(user_id, product_id)", Target: size})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("counting the files of Spark's z-order: %w", err)
	}
	say("  z-order: ours %s, Spark %s", ours.Note, theirs.Note)
	// Files in the table for one that is opened: the higher the better.
	c := compareBy("compaction, z-order: files not opened", "files a file opened", "Spark 4.0.1, Iceberg 1.11", []turn{{ours, theirs}}, func(c cost) float64 { return float64(c.N) / c.CPU })
	c.Goal, c.OK = ">=1", c.Ratio >= 1
	return []result{c}, nil
}

// turn is one rewrite by each, of the same snapshot.
func (l *compactionLake) turn(ctx context.Context, ours compactionJob, theirs sparkRequest, spark *spark, profile string) (one turn, err error) {
	if one.ours, err = do(ctx, "compaction", job{Dir: l.dir, Rows: l.bytes, Compaction: ours, Profile: profile}); err == nil {
		err = l.check(ctx)
	}
	if err == nil {
		err = l.reset(ctx)
	}
	if err != nil {
		return one, err
	}
	if one.peer, err = spark.ask(ctx, theirs); err == nil {
		one.peer.N = l.bytes
		err = l.check(ctx)
	}
	if err == nil {
		err = l.reset(ctx)
	}
	return one, err
}

// compactionOurs plans, rewrites and commits, and gives the bytes that it has read.
func compactionOurs(ctx context.Context, j job) (cost, error) {
	cat, err := lakehouse.Open(ctx, compactionConfig(j.Dir))
	if err != nil {
		return cost{}, err
	}
	defer func() { _ = cat.Close() }() // nothing is under way
	p := lakehouse.PolicyOf(compactionTable).Ordered(j.Compaction.Sort, j.Compaction.ZOrder)
	p.TargetFileBytes, p.MemoryBytes, p.Queries = j.Compaction.TargetBytes, 4<<30, nil // as much as Spark may have
	p.MaxGroupBytes = max(p.MaxGroupBytes, p.TargetFileBytes)
	var written int64
	c, err := child.Measure(j.Profile, func() (int64, error) {
		plan, err := cat.PlanCompaction(ctx, compactionTable, p.All())
		if err != nil {
			return 0, err
		}
		var results []lakehouse.GroupResult
		for i := range plan.Groups {
			r, err := cat.CompactGroup(ctx, plan, i, nil)
			if err != nil {
				return 0, err
			}
			results = append(results, r)
			written += r.Bytes
		}
		_, err = cat.CommitRewrite(ctx, plan, results)
		return plan.Bytes, err
	})
	if err != nil {
		return cost{}, err
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return cost{}, fmt.Errorf("reading the own memory: %w", err)
	}
	c.Note = fmt.Sprintf("%.0f MB written, peak %d MiB", float64(written)/1e6, u.Maxrss>>10)
	return c, nil
}

// compactionQueries are what is asked of the table in z-order: a user, users in a range, a product, products in a range, and both at once.
func compactionQueries() []iceberg.BooleanExpression {
	var out []iceberg.BooleanExpression
	between := func(column string, from, to int64) iceberg.BooleanExpression {
		return iceberg.NewAnd(iceberg.GreaterThanEqual(iceberg.Reference(column), from), iceberg.LessThan(iceberg.Reference(column), to))
	}
	users, products := []int64{0, 3, 40, 700, 5_000, 40_000, 200_000, 700_000}, []int64{0, 2, 15, 80, 600, 3_000, 12_000, 40_000}
	for i := range users {
		u, p := users[i], products[i]
		out = append(out,
			iceberg.EqualTo(iceberg.Reference("user_id"), u), between("user_id", u, u+u/20+1),
			iceberg.EqualTo(iceberg.Reference("product_id"), p), between("product_id", p, p+p/20+1),
			iceberg.NewAnd(between("user_id", u, u+u/5+1), between("product_id", products[(i+3)%len(products)], products[(i+3)%len(products)]*2+1)))
	}
	return out
}

// compactionFill makes the table: files of equal size, each a slice of a day, in the order of time. Users and products have Zipf's skew.
func compactionFill(ctx context.Context, j job) (cost, error) {
	l, err := newCompactionLake(ctx, j.Dir)
	if err != nil {
		return cost{}, err
	}
	defer l.close()
	if err := l.create(ctx); err != nil {
		return cost{}, err
	}
	t, err := l.cat.Load(ctx, compactionTable)
	if err != nil {
		return cost{}, err
	}
	sc, err := table.SchemaToArrowSchemaWithOptions(t.Schema(), table.ArrowSchemaOptions{IncludeFieldIDs: true, TableProperties: t.Properties()})
	if err != nil {
		return cost{}, err
	}
	r := rand.New(rand.NewPCG(1, 2))
	gen := newCompactionRows(r, sc, int(j.Rows))
	var files []iceberg.DataFile
	for i := range j.Compaction.Files {
		n := int(j.Rows)*(i+1)/j.Compaction.Files - int(j.Rows)*i/j.Compaction.Files
		b := gen.batch(n)
		rows := func(yield func(arrow.RecordBatch, error) bool) { yield(b, nil) }
		for f, err := range table.WriteRecords(ctx, t, sc, rows) {
			if err != nil {
				return cost{}, err
			}
			files = append(files, f)
		}
	}
	if len(files) != j.Compaction.Files {
		return cost{}, fmt.Errorf("%d files were written", len(files))
	}
	for part := range slices.Chunk(files, 20) { // a few manifests, as commits of a stream leave
		if err := l.append(ctx, part); err != nil {
			return cost{}, err
		}
	}
	return cost{N: j.Rows}, nil
}

// compactionLake is the warehouse that both engines work on.
type compactionLake struct {
	dir   string
	cfg   lakehouse.Config
	cat   *lakehouse.Catalog
	raw   *rawCatalog
	first int64          // snapshot of the small files
	bytes int64          // of the small files
	sum   event.Checksum // of the rows
}

func compactionConfig(dir string) lakehouse.Config {
	cfg := lakehouse.DefaultConfig()
	cfg.CatalogURI, cfg.Warehouse = "sqlite:///"+filepath.Join(dir, "catalog.db"), "file://"+filepath.Join(dir, "warehouse")
	return cfg
}

func newCompactionLake(ctx context.Context, dir string) (*compactionLake, error) {
	cfg := compactionConfig(dir)
	cat, err := lakehouse.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	raw, err := openRaw(cfg, strings.TrimPrefix(cfg.CatalogURI, "sqlite:///"))
	if err != nil {
		return nil, errors.Join(err, cat.Close())
	}
	return &compactionLake{dir: dir, cfg: cfg, cat: cat, raw: raw}, nil
}

func (l *compactionLake) close() {
	_ = l.raw.close() // nothing is under way
	_ = l.cat.Close() // nor here
}

// remember notes what the table has, so that it can be put back and compared.
func (l *compactionLake) remember(ctx context.Context, rows int64) error {
	t, err := l.cat.Load(ctx, compactionTable)
	if err != nil {
		return err
	}
	head := t.CurrentSnapshot()
	l.first, l.bytes = head.SnapshotID, head.Summary.Properties.GetInt64("total-files-size", 0)
	if l.sum, err = l.checksum(ctx); err == nil && l.sum.Count != rows {
		err = fmt.Errorf("the table has %d of %d rows", l.sum.Count, rows)
	}
	return err
}

func (l *compactionLake) checksum(ctx context.Context) (event.Checksum, error) {
	var sum event.Checksum
	err := l.cat.Scan(ctx, compactionTable, "", []string{"row_hash"}, func(b arrow.RecordBatch) error {
		col, ok := b.Column(0).(*array.Int64)
		if !ok {
			return fmt.Errorf("row_hash is %s", b.Column(0).DataType())
		}
		for _, v := range col.Int64Values() {
			sum.Add(v)
		}
		return nil
	})
	return sum, err
}

// check compares the rows with those of the small files, which must have gone.
func (l *compactionLake) check(ctx context.Context) error {
	t, err := l.cat.Load(ctx, compactionTable)
	if err != nil {
		return err
	}
	if head := t.CurrentSnapshot(); head.SnapshotID == l.first || head.Summary.Properties.GetInt("total-data-files", 0) != 1 {
		return fmt.Errorf("the rewrite left %s files", head.Summary.Properties["total-data-files"])
	}
	got, err := l.checksum(ctx)
	if err == nil && got != l.sum {
		err = fmt.Errorf("the rewrite made rows %+v of %+v", got, l.sum)
	}
	return err
}

// reset puts the small files back.
func (l *compactionLake) reset(ctx context.Context) error { return l.raw.setMain(ctx, l.first) }

// opened is how many files the queries open, and how many there are.
func (l *compactionLake) opened(ctx context.Context) (opened, files int, err error) {
	t, err := l.cat.Load(ctx, compactionTable)
	if err != nil {
		return 0, 0, err
	}
	count := func(filter iceberg.BooleanExpression) (int, error) {
		tasks, err := t.Scan(table.WithRowFilter(filter)).PlanFiles(ctx)
		if err != nil {
			return 0, fmt.Errorf("planning a query: %w", err)
		}
		paths := map[string]bool{} // a large file may be several tasks
		for _, task := range tasks {
			paths[task.File.FilePath()] = true
		}
		return len(paths), nil
	}
	if files, err = count(iceberg.AlwaysTrue{}); err != nil {
		return 0, 0, err
	}
	for _, q := range compactionQueries() {
		n, err := count(q)
		if err != nil {
			return 0, 0, err
		}
		opened += n
	}
	return opened, files, nil
}
