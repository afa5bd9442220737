package bigquery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	bq "cloud.google.com/go/bigquery"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go/table"
	"google.golang.org/api/googleapi"
)

const (
	stageLife    = 72 * time.Hour // of a staged range that nobody finishes
	maxURIs      = 10_000         // of one load job
	bucketScheme = "gs://"
)

// stage is the table that the rows of a range are gathered in before they become visible.
type stage struct {
	s       *Store
	table   *bq.Table
	epoch   string // of this very table: its jobs are named after it, so that one made anew takes none of the old one's
	name    string // of the range, in job ids
	parts   int
	bytes   int64
	method  string
	note    func(state string, rows int64)
	visited int64
}

// openStage finds the stage of a range, or makes it.
func (s *Store) openStage(ctx context.Context, table string, p *plan, columns bq.Schema) (*stage, error) {
	name := fmt.Sprintf("range_%s_%d_%d", table, p.at.Revision, p.to.SnapshotID)
	t := s.work(name)
	var refused error
	for n := range 5 {
		meta, err := s.metadata(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("looking at the staged rows: %w", err)
		}
		if meta != nil {
			return &stage{
				s: s, table: t, name: jobName(table, strconv.FormatInt(p.at.SnapshotID, 10), strconv.FormatInt(p.to.SnapshotID, 10)), epoch: fmt.Sprintf("%x", meta.CreationTime.UnixMilli()),
				note: func(string, int64) {},
			}, nil
		}
		err = s.call(ctx, func(ctx context.Context) error {
			return t.Create(ctx, &bq.TableMetadata{Schema: columns, ExpirationTime: s.now().Add(stageLife), Description: "Rows of a load that is under way; it can be dropped when none is."})
		})
		if err != nil && !hasStatus(err, http.StatusConflict) { // another process may be making it at the same moment
			refused = fmt.Errorf("making a table for staged rows: %w", err)
			if !transient(err) {
				return nil, refused
			}
			if err := s.pause(ctx, n); err != nil {
				return nil, errors.Join(err, refused)
			}
		}
	}
	if refused != nil {
		return nil, refused
	}
	return nil, errors.New("the table for staged rows was made, and is not there")
}

// drop removes the stage. Of several that drop it at once one does.
func (g *stage) drop(ctx context.Context) error {
	for n := 0; ; n++ {
		err := g.s.call(ctx, func(ctx context.Context) error { return g.table.Delete(ctx) })
		if err == nil || hasStatus(err, http.StatusNotFound) {
			return nil
		}
		err = fmt.Errorf("dropping staged rows: %w", err)
		if n == maxSubmits || !transient(err) {
			return err
		}
		if waited := g.s.pause(ctx, n); waited != nil {
			return errors.Join(waited, err)
		}
	}
}

// fill loads the rows of a plan. What an earlier call has loaded is not loaded again: a job is named after what it loads.
func (g *stage) fill(ctx context.Context, p *plan) error {
	files, rows := p.files, p.rows
	var uris []string
	direct := len(files) <= g.s.cfg.MaxFiles
	if g.s.lakeInBucket() {
		direct = true
		for _, task := range files {
			uris = append(uris, task.File.FilePath())
		}
		files = nil
	}
	if !direct {
		files, rows = nil, append(append([]table.FileScanTask{}, rows...), files...)
		slices.SortFunc(rows, func(a, b table.FileScanTask) int { return strings.Compare(keyOf(a), keyOf(b)) })
	}
	g.method = "files"
	switch {
	case len(rows) > 0 && len(files)+len(uris) > 0:
		g.method = "files and rows"
	case len(rows) > 0:
		g.method = "rows"
	}
	for chunk := range slices.Chunk(uris, maxURIs) {
		if err := g.loadURIs(ctx, chunk); err != nil {
			return err
		}
	}
	for _, task := range files {
		if err := g.loadFile(ctx, p, task); err != nil {
			return err
		}
	}
	return g.export(ctx, p, rows)
}

// lakeInBucket says whether load jobs can read the lake's files themselves.
func (s *Store) lakeInBucket() bool {
	return strings.HasPrefix(s.lake.Config().Warehouse, bucketScheme)
}

func (g *stage) loadURIs(ctx context.Context, uris []string) error {
	src := bq.NewGCSReference(uris...)
	src.SourceFormat = bq.Parquet
	src.ParquetOptions = &bq.ParquetOptions{EnableListInference: true}
	return g.load(ctx, digest([]byte(strings.Join(uris, "\n"))), func() (bq.LoadSource, func() error, error) { return src, func() error { return nil }, nil })
}

// loadFile uploads a data file as it is.
func (g *stage) loadFile(ctx context.Context, p *plan, task table.FileScanTask) error {
	g.bytes += task.File.FileSizeBytes()
	return g.load(ctx, digest([]byte(task.File.FilePath())), func() (bq.LoadSource, func() error, error) {
		store, err := p.snap.t.FS(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("store of the lake: %w", err)
		}
		f, err := store.Open(task.File.FilePath())
		if err != nil {
			return nil, nil, fmt.Errorf("opening %s: %w", task.File.FilePath(), err)
		}
		return upload(f), f.Close, nil
	})
}

func upload(r io.Reader) *bq.ReaderSource {
	src := bq.NewReaderSource(r)
	src.SourceFormat = bq.Parquet
	src.ParquetOptions = &bq.ParquetOptions{EnableListInference: true}
	return src
}

// load runs one load job into the stage. open is called for every attempt, since an upload reads its source to the end.
func (g *stage) load(ctx context.Context, content string, open func() (bq.LoadSource, func() error, error)) error {
	out, err := g.s.once(ctx, g.name+"-"+g.epoch+"-"+content, func(ctx context.Context, id string) (*bq.Job, error) {
		src, done, err := open()
		if err != nil {
			return nil, err
		}
		l := g.table.LoaderFrom(src)
		l.JobID, l.WriteDisposition, l.CreateDisposition, l.JobTimeout = id, bq.WriteAppend, bq.CreateNever, g.s.cfg.JobTimeout
		l.DecimalTargetTypes = []bq.DecimalTargetType{bq.NumericTargetType, bq.BigNumericTargetType}
		if g.s.cfg.Endpoint != "" { // an emulator takes an upload in one piece
			l.MediaOptions = []googleapi.MediaOption{googleapi.ChunkSize(0)}
		}
		ctx, cancel := context.WithTimeout(ctx, g.s.cfg.JobTimeout)
		defer cancel()
		job, err := l.Run(ctx)
		return job, errors.Join(err, done())
	})
	if err != nil {
		return fmt.Errorf("staging rows: %w", err)
	}
	g.parts++
	g.note("staging rows", g.visited)
	return g.s.step(ctx, FailPart, out.id)
}

// export writes the rows that a plan takes of some files into new ones, and loads these.
func (g *stage) export(ctx context.Context, p *plan, tasks []table.FileScanTask) error {
	var w *part
	flush := func() error {
		if w == nil || w.rows == 0 {
			return nil
		}
		body, err := w.close()
		w = nil
		if err != nil {
			return err
		}
		return g.loadPart(ctx, body)
	}
	for _, task := range tasks {
		err := p.snap.read(ctx, task, nil, func(b arrow.RecordBatch) error {
			k, err := keysOf(b, p.stored, p.erased)
			if err != nil {
				return err
			}
			rows := b.NumRows()
			g.visited += rows
			for i := int64(0); i < rows; {
				for i < rows && !g.takes(p, k, i) {
					i++
				}
				from := i
				for i < rows && g.takes(p, k, i) {
					i++
				}
				if from == i {
					continue
				}
				if w == nil {
					if w, err = newPart(b.Schema()); err != nil {
						return err
					}
				}
				if err := w.add(b, from, i); err != nil {
					return err
				}
			}
			g.note("writing rows", g.visited)
			if w != nil && w.bytes >= g.s.cfg.PartBytes {
				return flush()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return flush()
}

func (g *stage) takes(p *plan, k *keys, i int64) bool {
	k.row(int(i))
	return p.takes(k)
}

// loadPart loads a file of ours, through the bucket if there is one.
func (g *stage) loadPart(ctx context.Context, body []byte) error {
	g.bytes += int64(len(body))
	content := digest(body)
	if g.s.cfg.Bucket == "" {
		return g.load(ctx, content, func() (bq.LoadSource, func() error, error) {
			return upload(bytes.NewReader(body)), func() error { return nil }, nil
		})
	}
	uri := strings.TrimRight(g.s.cfg.Bucket, "/") + "/" + g.table.TableID + "/" + content + ".parquet"
	if err := g.s.put(ctx, uri, body); err != nil {
		return err
	}
	if err := g.loadURIs(ctx, []string{uri}); err != nil {
		return err
	}
	return g.s.remove(ctx, uri)
}

// part is a Parquet file in memory.
type part struct {
	buf   bytes.Buffer
	w     *pqarrow.FileWriter
	rows  int64
	bytes int64 // as rows in memory
}

func newPart(sc *arrow.Schema) (*part, error) {
	p := &part{}
	w, err := pqarrow.NewFileWriter(sc, &p.buf, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd)), pqarrow.DefaultWriterProps())
	if err != nil {
		return nil, fmt.Errorf("writing Parquet: %w", err)
	}
	p.w = w
	return p, nil
}

func (p *part) add(b arrow.RecordBatch, from, to int64) error {
	rows := b
	if from > 0 || to < b.NumRows() {
		rows = b.NewSlice(from, to)
		defer rows.Release()
	}
	if err := p.w.WriteBuffered(rows); err != nil {
		return fmt.Errorf("writing Parquet: %w", err)
	}
	p.rows += to - from
	var size uint64
	for _, c := range b.Columns() {
		size += c.Data().SizeInBytes()
	}
	p.bytes += int64(size) * (to - from) / b.NumRows()
	return nil
}

func (p *part) close() ([]byte, error) {
	if err := p.w.Close(); err != nil {
		return nil, fmt.Errorf("writing Parquet: %w", err)
	}
	return p.buf.Bytes(), nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:10])
}
