package lakehouse

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"millrace/lakehouse/order"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// BenchmarkCompactGroup rewrites 20 files, sorted over all of them, and beside it, on the same files: the same without sorting, and reading and writing them with
// pqarrow alone, with the same compression and Bloom filters, which no compaction can beat. MB are of input files.
func BenchmarkCompactGroup(b *testing.B) {
	c := ensureTest(b)
	const files, each = 20, 10_000
	w, err := c.NewWriter(b.Context(), purchases)
	if err != nil {
		b.Fatal(err)
	}
	for i := range files {
		for j := range each {
			if err := w.WriteEvent(b.Context(), shopper(i*each+j), Provenance{"events.purchase", 0, int64(i*each + j)}); err != nil {
				b.Fatal(err)
			}
		}
		out, err := w.Finish(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Append(b.Context(), purchases, out, at(0, i*each), at(0, (i+1)*each)); err != nil {
			b.Fatal(err)
		}
	}
	paths := dataFiles(b, c)
	for _, order := range []string{"sorted", "sorted on disk", "as it comes"} {
		b.Run(order, func(b *testing.B) {
			p := PolicyOf(purchases)
			p.MemoryBytes = 2 << 30
			switch order {
			case "as it comes":
				p.Sort = nil
			case "sorted on disk":
				p.MemoryBytes = 64 << 20
			}
			plan, err := c.PlanCompaction(b.Context(), purchases, p)
			if err != nil || len(plan.Groups) != 1 {
				b.Fatalf("%+v %v", plan, err)
			}
			n, start := 0, cpu()
			for b.Loop() {
				plan.ID = fmt.Sprintf("%s-%d", order, n) // not the result of the round before
				if _, err := c.CompactGroup(b.Context(), plan, 0, nil); err != nil {
					b.Fatal(err)
				}
				n++
			}
			b.ReportMetric(float64(n)*float64(plan.Bytes)/1e6/(cpu()-start).Seconds(), "MB/cpu-s")
			b.ReportMetric(float64(n)*float64(plan.Rows)/(cpu()-start).Seconds(), "rows/cpu-s")
		})
	}
	b.Run("plain Parquet", func(b *testing.B) {
		n, size, start := 0, int64(0), cpu()
		for b.Loop() {
			size = plainRewrite(b, paths, filepath.Join(b.TempDir(), "out.parquet"))
			n++
		}
		b.ReportMetric(float64(n)*float64(size)/1e6/(cpu()-start).Seconds(), "MB/cpu-s")
		b.ReportMetric(float64(n)*files*each/(cpu()-start).Seconds(), "rows/cpu-s")
	})
}

// plainRewrite copies Parquet files into one and gives their size.
func plainRewrite(b *testing.B, paths []string, to string) int64 {
	b.Helper()
	var w *pqarrow.FileWriter
	out, err := os.Create(to)
	if err != nil {
		b.Fatal(err)
	}
	size := int64(0)
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		size += info.Size()
		r, err := file.OpenParquetFile(path, false)
		if err != nil {
			b.Fatal(err)
		}
		ar, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{BatchSize: order.BatchRows}, memory.DefaultAllocator)
		if err != nil {
			b.Fatal(err)
		}
		batches, err := ar.GetRecordReader(context.Background(), nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		for batches.Next() {
			rec := batches.RecordBatch()
			if w == nil {
				w, err = pqarrow.NewFileWriter(rec.Schema(), out, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(3),
					parquet.WithBloomFilterEnabledFor("event_id", true), parquet.WithBloomFilterEnabledFor("visitor_id", true)), pqarrow.DefaultWriterProps())
				if err != nil {
					b.Fatal(err)
				}
			}
			if err := w.WriteBuffered(rec); err != nil {
				b.Fatal(err)
			}
		}
		if err := batches.Err(); err != nil {
			b.Fatal(err)
		}
		batches.Release()
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return size
}
