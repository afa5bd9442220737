package simulate

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

var sinkBytes []byte

// BenchmarkGenerate is the rate at which one core makes events, batches and ids included. Its peer copies the same bytes.
func BenchmarkGenerate(b *testing.B) {
	fill := func(g *generator, x *batch) {
		x.reset()
		for len(x.records) < 500 {
			x.begin()
			x.body = g.next(x.body)
			x.end(g.last, g.id)
		}
		x.seal()
	}
	for _, format := range []Format{FormatArray, FormatNDJSON} {
		b.Run("generate/"+string(format), func(b *testing.B) {
			o := DefaultOptions()
			o.Seed, o.Format = 7, format
			g, x := newGenerator(o), &batch{format: format}
			size := 0
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				fill(g, x)
				n += len(x.records)
				size += len(x.body)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(size)/float64(n), "B/event")
		})
	}
	b.Run("copy", func(b *testing.B) {
		o := DefaultOptions()
		o.Seed = 7
		g, x := newGenerator(o), &batch{format: FormatArray}
		fill(g, x)
		n := 0
		for b.Loop() {
			sinkBytes = append(sinkBytes[:0], x.body...)
			n += len(x.records)
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
	})
}

// BenchmarkRun is a whole run, books included, against a server that only reads. CPU time of client and server together, in one process.
func BenchmarkRun(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"success":true}`)
	}))
	defer server.Close()
	for _, c := range []Compression{None, Gzip, Zstd} {
		b.Run(string(c), func(b *testing.B) {
			o := DefaultOptions()
			o.To, o.Seed, o.Compression, o.Events = server.URL, 7, c, 200_000
			n := int64(0)
			for b.Loop() {
				s, err := Run(b.Context(), o)
				if err != nil {
					b.Fatal(err)
				}
				n += s.Acknowledged
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
