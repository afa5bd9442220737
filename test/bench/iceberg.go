package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/lakehouse"
	"millrace/streaming/sink"
	"millrace/test/bench/child"
)

// benchIceberg measures the sink, which fetches, decodes, writes Parquet and commits the events of filled topics, beside a program that only writes the same rows,
// already in Arrow, to Parquet files.
func benchIceberg(ctx context.Context, s settings, say func(string, ...any)) (_ []result, err error) {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	servers, err := embeddedtest.Start(ctx, filepath.Join(dir, "servers"), embedded.BrokerKfake, embedded.KafkaChild)
	if err != nil {
		return nil, err
	}
	defer servers.Stop()
	j := job{Brokers: servers.Endpoints().Kafka}
	if j.Rows, err = eventTopics(ctx, j.Brokers, s.sinks); err != nil {
		return nil, err
	}
	var turns []turn
	for i := range s.reps {
		var one turn
		j.Group = groupName("iceberg", i)
		j.Dir, j.Profile = filepath.Join(dir, j.Group), s.profile("iceberg")
		if one.ours, err = do(ctx, "iceberg", j); err == nil {
			j.Profile = s.profile("iceberg-parquet")
			one.peer, err = do(ctx, "parquet", j)
		}
		if err != nil {
			return nil, err
		}
		turns = append(turns, one)
		say("  ours %.0f (%s), peer %.0f (%s) rows per CPU s", float64(j.Rows)/one.ours.CPU, one.ours.Note, float64(j.Rows)/one.peer.CPU, one.peer.Note)
	}
	return []result{compare("iceberg sink", "rows", "plain Parquet write", 0.6, turns)}, nil
}

// icebergOurs runs the sink into a warehouse of its own and ends it when it has all rows, so that the last commit is part of what is measured.
func icebergOurs(ctx context.Context, j job) (cost, error) {
	codecs, err := local()
	if err != nil {
		return cost{}, err
	}
	cfg := lakehouse.DefaultConfig()
	cfg.CatalogURI, cfg.Warehouse = "sqlite:///"+filepath.Join(j.Dir, "catalog.db"), "file://"+filepath.Join(j.Dir, "warehouse")
	cat, err := lakehouse.Open(ctx, cfg)
	if err != nil {
		return cost{}, err
	}
	defer func() { _ = cat.Close() }() // nothing is under way
	if err := lakehouse.EnsureTables(ctx, cat); err != nil {
		return cost{}, err
	}
	icfg, reg := sink.DefaultIcebergConfig(), prometheus.NewRegistry()
	icfg.Group = j.Group
	s, err := sink.NewIceberg(icfg, cat, codecs, []kgo.Opt{kgo.SeedBrokers(j.Brokers)}, reg, child.Quiet())
	if err != nil {
		return cost{}, err
	}
	c, err := child.Measure(j.Profile, func() (int64, error) {
		if err := runUntil(ctx, s.Run, reg, "millrace_sink_records_total", j.Rows); err != nil {
			return 0, err
		}
		n, err := total(reg, "millrace_sink_iceberg_rows_total")
		return int64(n), err
	})
	if err != nil {
		return cost{}, err
	}
	commits, err := total(reg, "millrace_sink_iceberg_commits_total")
	if err != nil {
		return cost{}, err
	}
	size, err := total(reg, "millrace_sink_iceberg_file_bytes_total")
	c.Note = fmt.Sprintf("%.0f commits, %.0f B a row", commits, size/float64(c.N))
	return c, err
}

// icebergPeer reads the files that the sink wrote into Arrow, and writes each anew with pqarrow: the same columns and rows, in record batches of the sink's size, zstd
// at the sink's level, one row group a file as there, dictionaries, format and page sizes as there. No bloom filters, no statistics for a manifest, no fsync.
func icebergPeer(ctx context.Context, j job) (cost, error) {
	var files []string
	err := filepath.WalkDir(filepath.Join(j.Dir, "warehouse"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".parquet") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return cost{}, fmt.Errorf("looking for files: %w", err)
	}
	slices.Sort(files)
	tables := make([]arrowFile, 0, len(files))
	for _, path := range files {
		t, err := readArrow(ctx, path)
		if err != nil {
			return cost{}, fmt.Errorf("reading %s: %w", path, err)
		}
		tables = append(tables, t)
	}
	var size int64
	c, err := child.Measure(j.Profile, func() (n int64, err error) {
		for i, t := range tables {
			bytes, err := t.write(filepath.Join(j.Dir, fmt.Sprintf("plain-%d.parquet", i)))
			if err != nil {
				return n, err
			}
			n, size = n+t.rows, size+bytes
		}
		return n, nil
	})
	if err == nil {
		c.Note = fmt.Sprintf("%d files, %.0f B a row", len(tables), float64(size)/float64(c.N))
	}
	return c, err
}

// arrowFile is a file's rows in memory.
type arrowFile struct {
	schema  *arrow.Schema
	batches []arrow.RecordBatch
	rows    int64
}

func readArrow(ctx context.Context, path string) (t arrowFile, err error) {
	r, err := file.OpenParquetFile(path, false)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	const batchRows = 8192 // the sink's
	ar, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{BatchSize: batchRows}, memory.DefaultAllocator)
	if err != nil {
		return t, err
	}
	rr, err := ar.GetRecordReader(ctx, nil, nil)
	if err != nil {
		return t, err
	}
	defer rr.Release()
	t.schema = rr.Schema()
	for rr.Next() {
		b := rr.RecordBatch()
		b.Retain()
		t.batches = append(t.batches, b)
		t.rows += b.NumRows()
	}
	return t, rr.Err()
}

func (t arrowFile) write(path string) (int64, error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	w, err := pqarrow.NewFileWriter(t.schema, f, parquet.NewWriterProperties(
		parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(3), parquet.WithDictionaryDefault(true), parquet.WithDataPageVersion(parquet.DataPageV2),
		parquet.WithMaxRowGroupLength(1<<20), parquet.WithDataPageSize(1<<20), parquet.WithDictionaryPageSizeLimit(2<<20), parquet.WithBatchSize(20_000),
	), pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	for _, b := range t.batches {
		if err := w.WriteBuffered(b); err != nil {
			return 0, errors.Join(err, f.Close())
		}
	}
	if err := w.Close(); err != nil { // closes the file too
		return 0, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
