package erasure

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/event"
	"millrace/event/schema"
	"millrace/kpi"
	"millrace/lakehouse"
	"millrace/streaming/hot"
)

var update = flag.Bool("update", false, "write the tables of docs/erasure.md")

const root = "../.."

// sources gives the Go files of a folder, without tests.
func sources(t *testing.T, folder string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "node_modules" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			out[filepath.ToSlash(rel)] = string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEveryTableOfClickHouseIsInTheInventory(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(root + "/olap/migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	have := map[string]bool{"schema_migrations": true}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`CREATE TABLE[^{]*\{\{table "(\w+)"\}\}`).FindAllStringSubmatch(string(text), -1) {
			have[m[1]] = true
		}
	}
	for table := range have {
		if _, ok := event.Held(event.StoreClickHouse, table); !ok {
			t.Errorf("table %s of ClickHouse is not in the inventory of personal data: say in event/pii.go what of a person it holds and how that is erased", table)
		}
	}
	for _, h := range event.Holdings() {
		if h.Store == event.StoreClickHouse && !have[h.Name] && !strings.HasPrefix(h.Name, "system.") {
			t.Errorf("the inventory lists a table %s, which no migration makes", h.Name)
		}
	}
}

func TestEveryTableOfTheLakehouseIsInTheInventory(t *testing.T) {
	t.Parallel()
	tables := lakehouse.StreamTables()
	for _, table := range schema.LakeTables() {
		tables = append(tables, table.Name)
	}
	for _, table := range tables {
		for _, n := range []string{table, table + "__quarantine"} {
			if h, ok := event.Held(event.StoreIceberg, n); !ok || h.How != event.EraseRows {
				t.Errorf("table %s of the lakehouse is not in the inventory as one whose rows are erased: %+v", n, h)
			}
		}
	}
}

func TestEveryPersonalColumnIsOne(t *testing.T) {
	t.Parallel()
	for _, table := range schema.LakeTables() {
		h, _ := event.Held(event.StoreIceberg, table.Name)
		for _, f := range h.Fields {
			if !slices.ContainsFunc(table.Columns, func(c schema.Column) bool { return c.Name == f }) {
				t.Errorf("%s has no column %s", table.Name, f)
			}
		}
	}
	for _, f := range []string{"visitor_id", "user_id", "ip_hash", "card_fingerprint", "user_agent"} {
		if !slices.Contains(event.Personal(), f) {
			t.Errorf("%s is about a person", f)
		}
	}
}

func TestEveryStoreOfTheEngineIsInTheInventory(t *testing.T) {
	t.Parallel()
	defs, err := kpi.New(kpi.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	cfg := hot.DefaultConfig()
	cfg.Dir = t.TempDir()
	top, err := hot.Topology(cfg, 4, nil, defs, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range top.Stores {
		names = append(names, s.Name)
	}
	for _, l := range top.Logs {
		names = append(names, l.Name)
	}
	for _, n := range names {
		if _, ok := event.Held(event.StoreState, n); !ok {
			t.Errorf("state %s of the engine is not in the inventory of personal data (event/pii.go)", n)
		}
	}
}

func TestEveryKeyOfRedisIsInTheInventory(t *testing.T) {
	t.Parallel()
	prefix := regexp.MustCompile("[\"`]([a-z][a-z0-9]{0,11}:)\\{")
	found := 0
	for _, folder := range []string{"live", "api", "activities", "streaming", "features"} {
		for file, text := range sources(t, folder) {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, m := range prefix.FindAllStringSubmatch(text, -1) {
				found++
				if _, ok := event.Held(event.StoreRedis, m[1]); !ok {
					t.Errorf("%s: keys %s… are not in the inventory of personal data (event/pii.go)", file, m[1])
				}
			}
		}
	}
	if found < 3 {
		t.Errorf("%d kinds of keys found: the layout is written otherwise by now", found)
	}
}

// writes is what code looks like that brings rows into a store.
var writes = regexp.MustCompile(`NewWriter\(ctx, |WriteRecords\(|AddDataFiles\(|ReplaceDataFilesWithDataFiles\(|NewRewrite\(|PrepareBatch\(|"INSERT INTO |live\.Put\(|[^.]\bPut\(ctx, rdb|LoaderFrom\(|\.Inserter\(`)

func TestEveryPathThatWritesIsListedAndTakesTheLedger(t *testing.T) {
	t.Parallel()
	all := sources(t, ".")
	listed := map[string]event.Return{}
	for _, r := range event.Returns() {
		listed[r.File] = r
		if all[r.File] == "" {
			t.Errorf("%s is listed and is not there", r.File)
		}
	}
	for file, text := range all {
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "test/") || strings.HasPrefix(file, "internal/") || strings.HasPrefix(file, "event/") {
			continue
		}
		if at := writes.FindString(text); at != "" {
			if _, ok := listed[file]; !ok {
				t.Errorf("%s writes to a store (%q) and is not in the table of paths by which an erased person could come back (event/returns.go)", file, at)
			}
		}
	}
	tests := regexp.MustCompile(`func (Test\w+)\(`)
	have := map[string]bool{"drill-erase": true}
	for file, text := range all {
		if strings.HasSuffix(file, "_test.go") {
			for _, m := range tests.FindAllStringSubmatch(text, -1) {
				have[m[1]] = true
			}
		}
	}
	filter := regexp.MustCompile(`\b(Drops\w*|drops\w*|Dropped|[eE]rasures|[eE]rased)\(`)
	for file, r := range listed {
		if r.Test != "" && !have[r.Test] {
			t.Errorf("%s: there is no test %s", file, r.Test)
		}
		if r.How != event.ByLedger {
			continue
		}
		takes := false
		for other, text := range all { // in its package, or in what calls it
			if filepath.Dir(other) == filepath.Dir(file) || strings.HasPrefix(other, "activities/") || strings.HasPrefix(other, "streaming/sink/") {
				takes = takes || !strings.HasSuffix(other, "_test.go") && filter.MatchString(text)
			}
		}
		if !takes {
			t.Errorf("%s is said to take the ledger, but nothing around it asks for it", file)
		}
	}
}

// The tables of the document are those of the code.
func TestTheDocumentShowsTheInventory(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	days := func(d time.Duration) string {
		if d < 24*time.Hour {
			return d.String()
		}
		return fmt.Sprintf("%d d", d/(24*time.Hour))
	}
	b.WriteString("| where | name | of a person | how it is erased | |\n|---|---|---|---|---|\n")
	for _, h := range event.Holdings() {
		how := string(h.How)
		if h.How == event.EraseExpiry {
			how += ", " + days(h.Within)
		}
		of := "–"
		if len(h.Fields) > 0 {
			of = strings.Join(h.Fields, ", ")
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s |\n", h.Store, h.Name, of, how, h.Why)
	}
	var r strings.Builder
	r.WriteString("| path | code | what keeps a person away | run by |\n|---|---|---|---|\n")
	for _, p := range event.Returns() {
		by := "–"
		if p.Test != "" {
			by = "`" + p.Test + "`"
		}
		fmt.Fprintf(&r, "| %s | `%s` | %s | %s |\n", p.Path, p.File, p.How, by)
	}
	path := root + "/docs/erasure.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := between(t, between(t, string(text), "inventory", b.String()), "paths", r.String())
	if want == string(text) {
		return
	}
	if !*update {
		t.Fatal("docs/erasure.md does not show the inventory as it is: run `go test ./test/erasure -update`")
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// between replaces what stands between two marks.
func between(t *testing.T, text, mark, with string) string {
	t.Helper()
	begin, end := "<!-- begin "+mark+" -->\n", "<!-- end "+mark+" -->"
	i, j := strings.Index(text, begin), strings.Index(text, end)
	if i < 0 || j < i {
		t.Fatalf("docs/erasure.md has no marks for %s", mark)
	}
	return text[:i+len(begin)] + with + text[j:]
}
