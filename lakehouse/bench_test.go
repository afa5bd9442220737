package lakehouse

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"millrace/event"
	"millrace/event/schema"
)

// shopper makes the i-th purchase of a more lifelike stream: browser context, two items, high-cardinality ids.
func shopper(i int) *event.Event {
	e := purchase(i)
	h := uint64(i+1) * 0x9E3779B97F4A7C15
	e.ID = fmt.Sprintf("%016x-%08x", h, i)
	e.VisitorID = fmt.Sprintf("v-%012x", h>>40)
	e.OrderID = fmt.Sprintf("o-%014x", h>>20)
	e.Value, e.Currency = ptr(int64(h%500)*1_000_000+990_000), []string{"USD", "EUR", "JPY", "GBP"}[i%4]
	e.PageURL, e.PagePath, e.PageTitle = fmt.Sprintf("https://shop.example/checkout/%d", i%997), "/checkout", "Checkout"
	e.DeviceOS, e.DeviceBrowser, e.Locale, e.City = "Android", "Chrome", "de-DE", "Berlin"
	e.UserAgent = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Mobile Safari/537.36"
	e.IP, e.PaymentMethod, e.CampaignSource = "203.0.113.0", "card", "ads"
	e.IPHash = fmt.Sprintf("%032x", h%9973)
	e.RowHash = e.ComputeRowHash()
	return e
}

const benchRows = 200_000

// cpu is the process's CPU time.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSinkPath is decode → columns → Parquet → commit of one table, in commits of benchRows rows. Beside it BenchmarkPlainParquet writes the same columns,
// already in Arrow, with pqarrow alone: what no sink can beat.
func BenchmarkSinkPath(b *testing.B) {
	c := ensureTest(b)
	codecs, err := schema.NewCodecs()
	if err != nil {
		b.Fatal(err)
	}
	codecs.AssignLocal()
	values := make([][]byte, benchRows)
	for i := range values {
		values[i] = codecs.AppendEnriched(nil, event.Purchase, shopper(i), nil)
	}
	dec := codecs.NewEventDecoder()
	var e event.Event
	w, err := c.NewWriter(b.Context(), "events_purchase")
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	start, n := cpu(), 0
	for b.Loop() {
		for i, v := range values {
			if err := dec.DecodeEnriched(b.Context(), event.Purchase, v, &e); err != nil {
				b.Fatal(err)
			}
			if err := w.WriteEvent(b.Context(), &e, Provenance{"events.purchase", 0, int64(n + i)}); err != nil {
				b.Fatal(err)
			}
		}
		files, err := w.Finish(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Append(b.Context(), "events_purchase", files, at(0, n), at(0, n+len(values))); err != nil {
			b.Fatal(err)
		}
		n += len(values)
	}
	b.ReportMetric(float64(n)/(cpu()-start).Seconds(), "rows/cpu-s")
	head, err := c.Head(b.Context(), "events_purchase")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(head.Bytes)/float64(n), "file-B/row")
}

// BenchmarkPlainParquet is the peer of BenchmarkSinkPath.
func BenchmarkPlainParquet(b *testing.B) {
	c := ensureTest(b)
	w, err := c.NewWriter(b.Context(), "events_purchase")
	if err != nil {
		b.Fatal(err)
	}
	block, err := newBlock(w.layout)
	if err != nil {
		b.Fatal(err)
	}
	var batches []arrow.RecordBatch
	for i := range benchRows {
		e := shopper(i)
		r := &row{event: e, cat: "purchase", from: Provenance{"events.purchase", 0, int64(i)}}
		if _, err := w.check(r); err != nil {
			b.Fatal(err)
		}
		block.add(r, w.text, e.ProductIDs(nil), 0)
		if block.rows == batchRows || i == benchRows-1 {
			batches = append(batches, block.batch())
		}
	}
	dir := b.TempDir()
	b.ResetTimer()
	start, n, size := cpu(), 0, int64(0)
	for b.Loop() {
		path := filepath.Join(dir, fmt.Sprintf("%d.parquet", n))
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		pw, err := pqarrow.NewFileWriter(w.layout.arrow, f, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(3),
			parquet.WithDictionaryDefault(true), parquet.WithDataPageVersion(parquet.DataPageV2)), pqarrow.DefaultWriterProps())
		if err != nil {
			b.Fatal(err)
		}
		for _, rec := range batches {
			if err := pw.WriteBuffered(rec); err != nil {
				b.Fatal(err)
			}
		}
		if err := pw.Close(); err != nil {
			b.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		size += st.Size()
		n += benchRows
	}
	b.ReportMetric(float64(n)/(cpu()-start).Seconds(), "rows/cpu-s")
	b.ReportMetric(float64(size)/float64(n), "file-B/row")
}

// BenchmarkCommits appends one row at a time, expiring as the sink does: what a commit costs at the bound of snapshots.
func BenchmarkCommits(b *testing.B) {
	c := ensureTest(b)
	w, err := c.NewWriter(b.Context(), "events_purchase")
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	var expiry time.Duration
	var expired int
	for b.Loop() {
		if err := w.WriteEvent(b.Context(), purchase(n), Provenance{"events.purchase", 0, int64(n)}); err != nil {
			b.Fatal(err)
		}
		files, err := w.Finish(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Append(b.Context(), "events_purchase", files, at(0, n), at(0, n+1)); err != nil {
			b.Fatal(err)
		}
		if n++; n%100 == 0 {
			start := time.Now()
			k, err := c.ExpireSnapshots(b.Context(), "events_purchase", 0, benchKeep)
			if err != nil {
				b.Fatal(err)
			}
			expired += k
			expiry += time.Since(start)
		}
	}
	b.ReportMetric(float64(expiry.Milliseconds())/max(1, float64(n/100)), "ms/expiry")
	b.ReportMetric(float64(expired), "expired")
}

const benchKeep = 360 // an hour of commits every 10 s
