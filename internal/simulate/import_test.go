package simulate

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/internal/fault"
)

func write(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func importOptions(d *double, files ...string) ImportOptions {
	o := DefaultImportOptions()
	o.To, o.Files, o.Batch = d.URL, files, 100
	return o
}

// history is some thousand valid events of last month as NDJSON.
func history(n int) []byte {
	o := seeded(21)
	o.Malformed = 0
	return generated(o, n).body
}

func TestAnImportSendsEveryEventOnTheReplayLane(t *testing.T) {
	t.Parallel()
	for name, pack := range map[string]func([]byte) []byte{
		"h.ndjson": func(b []byte) []byte { return b },
		"crlf.jsonl": func(b []byte) []byte {
			return bytes.ReplaceAll(append([]byte("\xef\xbb\xbf"), b...), []byte("\n"), []byte("\r\n\r\n"))
		},
		"h.json": func(b []byte) []byte { return bytes.TrimSpace(b) },
		"h.ndjson.gz": func(b []byte) []byte {
			var out bytes.Buffer
			z := gzip.NewWriter(&out)
			_, _ = z.Write(b)
			_ = z.Close()
			return out.Bytes()
		},
		"h.jsonl.zst": func(b []byte) []byte {
			p, err := newPacker(Zstd)
			if err != nil {
				t.Fatal(err)
			}
			out, _ := p.pack(b)
			return out
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDouble(t, func(request int) ruling { return []ruling{accept, loses, tooMany, accept, fails}[request%5] })
			o := importOptions(d, write(t, name, pack(history(1500))))
			o.Ledger = filepath.Join(t.TempDir(), "ids")
			var last Progress
			o.Progress = func(p Progress) { last = p }
			s, err := Import(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			d.agrees(t, s)
			d.ledgerHolds(t, o.Ledger)
			if s.Acknowledged != 1500 || s.Rejected != 0 || s.Duplicates == 0 {
				t.Errorf("%+v", s)
			}
			if d.lane != "replay" {
				t.Errorf("lane %q", d.lane)
			}
			if !last.Done || last.Bytes != last.Total || last.Total == 0 {
				t.Errorf("last progress %+v", last)
			}
		})
	}
}

func TestBadRowsAreToldAndDoNotStopTheOthers(t *testing.T) {
	t.Parallel()
	d := newDouble(t, always)
	text := strings.Join([]string{
		`{"event_id":"1","name":"purchase","visitor_id":"v","currency":"EUR","value":"129.90","transaction_id":"o-1"}`,
		`{"event_id":"2","name":"page_view"`,
		``,
		`{"event_id":"4","name":"purchase","currency":"EUR","value":"1.2345678"}`,
		`[{"event_id":"5","name":"page_view"}]`,
		`{"event_id":"6","occurred_at":"2026-01-01T00:00:00Z"}`,
		`{"event_id":"7","name":"page_view","properties":{"x":"` + strings.Repeat("x", 5<<20) + `"}}`,
		`{"event_id":"8","name":"page_view","properties":{"x":"` + strings.Repeat("x", 2<<20) + `"}}`,
		`{"name":"page_view","visitor_id":"nobody"}`,
		`{"event_id":"1","name":"purchase","visitor_id":"v","currency":"EUR","value":"129.90","transaction_id":"o-1"}`,
		`{"event_id":"11","name":"refund","visitor_id":"v","currency":"EUR","value":"129.90","transaction_id":"o-1","occurred_at":"1999-12-31T23:59:59Z"}`,
		`{"event_id":"12","name":"purchase","visitor_id":"v"}`,
		`not json`,
	}, "\n")
	o := importOptions(d, write(t, "h.ndjson", []byte(text)))
	o.Rejects = filepath.Join(t.TempDir(), "rejects")
	s, err := Import(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	d.agrees(t, s)
	if s.Acknowledged != 5 || s.DistinctIDs != 3 || s.Duplicates != 1 || s.WithoutID != 1 || s.Rejected != 7 || s.RevenueMicros["EUR"].Int64() != 129_900_000 {
		t.Errorf("%+v", s)
	}
	var lines []int64
	for _, r := range s.Rejects {
		lines = append(lines, r.Line)
	}
	if diff := cmp.Diff([]int64{2, 4, 5, 6, 7, 8, 13}, lines); diff != "" {
		t.Errorf("rejected lines (-want +got):\n%s\n%+v", diff, s.Rejects)
	}
	for i, want := range []string{"malformed", "bad_amount at value", "malformed", "schema at name", "longer than", "size", "malformed"} {
		if !strings.Contains(s.Rejects[i].Error, want) {
			t.Errorf("line %d: %s, want %s", s.Rejects[i].Line, s.Rejects[i].Error, want)
		}
	}
	rejects, err := os.ReadFile(o.Rejects)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Split(strings.TrimSpace(string(rejects)), "\n")
	var second struct{ Row string }
	if err := json.Unmarshal([]byte(all[1]), &second); err != nil || len(all) != 7 || second.Row != strings.Split(text, "\n")[3] {
		t.Errorf("%d rejects, %v: %.200s", len(all), err, rejects)
	}
}

func TestManyRejectsAreCountedAndTheFirstOnesNamed(t *testing.T) {
	t.Parallel()
	d := newDouble(t, always)
	s, err := Import(t.Context(), importOptions(d, write(t, "h.ndjson", bytes.Repeat([]byte("nonsense\n"), 1000))))
	if err != nil || s.Rejected != 1000 || len(s.Rejects) != reportedRejects || s.Acknowledged != 0 || d.requests != 0 {
		t.Errorf("%v %+v", err, s)
	}
}

func TestCSVRowsAreEvents(t *testing.T) {
	t.Parallel()
	d := newDouble(t, always)
	var out bytes.Buffer
	out.WriteString("\xef\xbb\xbf")
	w := csv.NewWriter(&out)
	rows := [][]string{
		{"event_id", "name", "occurred_at", "visitor_id", "currency", "value", "transaction_id", "context.page.url", "context.device.type", "items.0.item_id", "items.0.quantity", "items.1.item_id", "properties", "items.0.price"},
		{"a", "purchase", "2026-01-01T10:00:00Z", "v1", "USD", "10.50", "o1", "https://x/\"q\"", "mobile", "p1", "2", "p2", `{"n":1,` + "\n" + `"s":"é"}`, "5.25"},
		{"b", "page_view", "2026-01-01T10:00:00Z", "v1", "", "", "", "https://x/", "", "", "", "", "", ""},
		{"c", "purchase", "2026-01-01T10:00:00Z", "v1", "USD", "ten", "o2", "", "", "", "", "", "", ""},
		{"d", "purchase", "2026-01-01T10:00:00Z", "v1", "JPY", "1000", "o3", "", "", "", "", "", "not json", ""},
		{"e", "purchase", "2026-01-01T10:00:00Z", "v1", "JPY", "1000", "o4", "", "", "", "", "", "", ""},
	}
	if err := w.WriteAll(rows); err != nil {
		t.Fatal(err)
	}
	out.WriteString("f,too,few\n")
	out.WriteString("g\"g,page_view,,,,,,,,,,,,\n")
	out.WriteString("h,page_view,2026-01-01T10:00:00Z,v1,,,,,,,,,,\n")
	s, err := Import(t.Context(), importOptions(d, write(t, "h.csv", out.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	d.agrees(t, s)
	if s.DistinctIDs != 4 || s.Rejected != 4 || s.RevenueMicros["USD"].Int64() != 10_500_000 || s.RevenueMicros["JPY"].Int64() != 1_000_000_000 {
		t.Errorf("%+v", s)
	}
	for i, want := range []int64{5, 6, 8, 9} { // the first row has two lines
		if s.Rejects[i].Line != want {
			t.Errorf("reject %+v, want line %d", s.Rejects[i], want)
		}
	}
}

func TestAFileThatCannotBeReadDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	good := history(200)
	for name, text := range map[string]string{
		"conflict.csv": "a,a.b\n1,2\n", "twice.csv": "name,name\n", "empty.csv": "", "gap.csv": "items.0.item_id,items.2.item_id\n", "dots.csv": "a..b\n",
		"endless.csv": "event_id,name\n\"" + strings.Repeat("x\n", 3<<20), "bad.parquet": "PAR1 this is none PAR1", "bad.ndjson.gz": "no gzip", "bad.csv.zst": "no zstd",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDouble(t, always)
			s, err := Import(t.Context(), importOptions(d, write(t, name, []byte(text)), write(t, "good.ndjson", good)))
			if id, _ := fault.IDOf(err); id != "MR-SIM-005" || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v", err)
			}
			d.agrees(t, s)
			if s.Acknowledged != 200 {
				t.Errorf("%d of the other file's events", s.Acknowledged)
			}
		})
	}
	d := newDouble(t, always)
	for _, files := range [][]string{{"/no/such/file.ndjson"}, {t.TempDir() + ".csv"}, {"events.xml"}, {}} {
		if _, err := Import(t.Context(), importOptions(d, files...)); err == nil || d.requests != 0 {
			t.Errorf("%v: %v", files, err)
		}
	}
}

func TestParquetRowsAreEvents(t *testing.T) {
	t.Parallel()
	item := arrow.StructOf(arrow.Field{Name: "item_id", Type: arrow.BinaryTypes.String}, arrow.Field{Name: "price", Type: arrow.PrimitiveTypes.Float64, Nullable: true}, arrow.Field{Name: "quantity", Type: arrow.PrimitiveTypes.Int32})
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "event_id", Type: arrow.BinaryTypes.String},
		{Name: "name", Type: arrow.BinaryTypes.String},
		{Name: "occurred_at", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}},
		{Name: "value", Type: &arrow.Decimal128Type{Precision: 18, Scale: 6}, Nullable: true},
		{Name: "currency", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "items", Type: arrow.ListOf(item), Nullable: true},
		{Name: "context.page.url", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "properties", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "labels", Type: arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int64), Nullable: true},
		{Name: "score", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "flag", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	const n = 3000
	occurred := time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC)
	for i := range n {
		b.Field(0).(*array.StringBuilder).Append(fmt.Sprintf("id-%d", i))
		b.Field(1).(*array.StringBuilder).Append("purchase")
		b.Field(2).(*array.TimestampBuilder).Append(arrow.Timestamp(occurred.UnixMicro()))
		b.Field(3).(*array.Decimal128Builder).Append(decimal128.FromI64(129_900_001))
		b.Field(4).(*array.StringBuilder).Append("EUR")
		items := b.Field(5).(*array.ListBuilder)
		items.Append(true)
		one := items.ValueBuilder().(*array.StructBuilder)
		one.Append(true)
		one.FieldBuilder(0).(*array.StringBuilder).Append("p1")
		one.FieldBuilder(1).(*array.Float64Builder).Append(64.95)
		one.FieldBuilder(2).(*array.Int32Builder).Append(2)
		b.Field(6).(*array.StringBuilder).Append("https://shop.example/é")
		if i%2 == 0 {
			b.Field(7).(*array.StringBuilder).Append(`{"a": [1, 2]}`)
		} else {
			b.Field(7).AppendNull()
		}
		labels := b.Field(8).(*array.MapBuilder)
		labels.Append(true)
		labels.KeyBuilder().(*array.StringBuilder).Append("k")
		labels.ItemBuilder().(*array.Int64Builder).Append(int64(i))
		if score := b.Field(9).(*array.Float64Builder); i == 100 {
			score.Append(nan())
		} else {
			score.Append(0.25)
		}
		b.Field(10).(*array.BooleanBuilder).Append(true)
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	var out bytes.Buffer
	w, err := pqarrow.NewFileWriter(schema, &out, parquet.NewWriterProperties(parquet.WithMaxRowGroupLength(700)), pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	d := newDouble(t, always)
	o := importOptions(d, write(t, "h.parquet", out.Bytes()))
	var last Progress
	o.Progress = func(p Progress) { last = p }
	s, err := Import(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	d.agrees(t, s)
	if s.DistinctIDs != n-1 || s.RevenueMicros["EUR"].Int64() != (n-1)*129_900_001 || s.Rejected != 1 || s.Rejects[0].Line != 101 || last.Bytes != last.Total {
		t.Errorf("%+v, last progress %+v", s, last)
	}

	// Every damage is told, and none is a crash.
	for cut := 0; cut < 40; cut++ {
		damaged := bytes.Clone(out.Bytes())
		for i := range 50 {
			damaged[4+(cut*7919+i*104729)%(len(damaged)-12)] ^= byte(1 + i)
		}
		d := newDouble(t, always)
		s, err := Import(t.Context(), importOptions(d, write(t, "damaged.parquet", damaged)))
		if err == nil && s.Rejected+s.Acknowledged != n {
			t.Errorf("%d rejected and %d acknowledged of %d without an error", s.Rejected, s.Acknowledged, n)
		}
	}
}

func nan() float64 {
	zero := 0.0
	return zero / zero
}

func TestColumnsBecomeTheObjectTheyName(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		// Any nested object of strings, flattened to dotted columns and built again, is itself.
		var leafs []string
		var make func(depth int, path string) any
		make = func(depth int, path string) any {
			if depth == 0 || rapid.Bool().Draw(t, "leaf") {
				leafs = append(leafs, path)
				return path
			}
			n := rapid.IntRange(1, 3).Draw(t, "members")
			if rapid.Bool().Draw(t, "list") {
				list := []any{}
				for i := range n {
					list = append(list, make(depth-1, fmt.Sprintf("%s.%d", path, i)))
				}
				return list
			}
			object := map[string]any{}
			for i := range n {
				key := fmt.Sprintf("k%d", i)
				object[key] = make(depth-1, path+"."+key)
			}
			return object
		}
		want := map[string]any{"r": make(4, "r")}
		columns := rapid.Permutation(leafs).Draw(t, "columns")
		root, err := newTree(columns)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := root.append(nil, func(dst []byte, leaf *tree) ([]byte, bool) { return leaf.appendText(dst, columns[leaf.column]), true })
		var got map[string]any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// checkImport imports a file whatever it holds: every row is sent or rejected, and what is sent is one JSON array.
func checkImport(path string, isCSV bool, text []byte) error {
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return err
	}
	sent := 0
	var bad error
	o := DefaultImportOptions()
	o.To, o.Files, o.Source, o.Connections = "http://gateway.invalid", []string{path}, SourceNDJSON, 1
	if isCSV {
		o.Source = SourceCSV
	}
	o.Transport = roundTrip(func(body []byte) {
		var all []json.RawMessage
		if err := json.Unmarshal(body, &all); err != nil {
			bad = fmt.Errorf("%w: %q", err, body)
		}
		sent += len(all)
	})
	s, err := Import(context.Background(), o)
	if id, _ := fault.IDOf(err); err != nil && id != "MR-SIM-005" {
		return err
	}
	if bad != nil {
		return bad
	}
	if s.Acknowledged != int64(sent) {
		return fmt.Errorf("%d sent, %d in the summary", sent, s.Acknowledged)
	}
	if !isCSV {
		rows := int64(0)
		for _, line := range bytes.Split(bytes.TrimPrefix(text, byteOrderMark), []byte("\n")) {
			if len(bytes.TrimSpace(line)) > 0 {
				rows++
			}
		}
		if err != nil || s.Acknowledged+s.Rejected != rows {
			return fmt.Errorf("%w: %d sent and %d rejected of %d rows", err, s.Acknowledged, s.Rejected, rows)
		}
	}
	return nil
}

func TestAnyTextIsSentOrRejected(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	part := rapid.SampledFrom([]string{
		"{", "}", "[", "]", "\"", "\"\"", ",", ":", "\n", "\r\n", " ", "\\", "\\ud800", "\xff", "null", "7", "name", "event_id", "items", "items.0.item_id", "properties", "context.page",
		`{"name":"page_view"}`, `{"event_id":"1","name":"a","x":`, `[{"item_id":"1"}]`, `{"n":"\n"}`, "page_view", "name,event_id,properties\n", "\xef\xbb\xbf",
	})
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(part, 0, 30).Draw(t, "text"), "")
		if err := checkImport(path, rapid.Bool().Draw(t, "csv"), []byte(text)); err != nil {
			t.Fatalf("%v\n%q", err, text)
		}
	})
}

func FuzzImport(f *testing.F) {
	f.Add(true, []byte("event_id,name,items,context.page.url,items2.0.a\n1,page_view,\"[{\"\"item_id\"\":1}]\",x,\n\"2,"))
	f.Add(true, []byte("name\nx\n\n\"a\"b\n"))
	f.Add(false, []byte("{\"name\":\"page_view\"}\n{\"name\":\"a\",\"x\":\"\\ud800\"}\nnull\n\xff\xfe\r\n{}"))
	f.Add(false, []byte("\xef\xbb\xbf{\"name\":\"purchase\",\"value\":1,\"currency\":\"eur\"} {\"name\":\"b\"}"))
	f.Fuzz(func(t *testing.T, isCSV bool, text []byte) {
		if err := checkImport(filepath.Join(t.TempDir(), "f"), isCSV, text); err != nil {
			t.Error(err)
		}
	})
}

// roundTrip is a gateway that accepts all bodies.
type roundTrip func(body []byte)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	_ = req.Body.Close()
	f(body)
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: req}, err
}

func TestARowWithSomethingBehindItIsRejected(t *testing.T) {
	t.Parallel()
	text := []byte("{\"name\":\"page_view\"}{\n{\"name\":\"page_view\"}]\n{\"name\":\"page_view\"}\n")
	if err := checkImport(filepath.Join(t.TempDir(), "f"), false, text); err != nil {
		t.Error(err)
	}
}
