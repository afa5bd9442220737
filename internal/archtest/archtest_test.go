package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// leaves may be imported by everybody.
var leaves = []string{"internal/failpoint", "internal/fault", "internal/telemetry"}

// table says for a folder (and all below it, unless a longer row fits) what it may import of ours; "*" is everything. A row names folders with all below them.
var table = map[string][]string{
	"event":                   {},
	"event/schema":            {"event"},
	"event/schema/gen":        {"event", "event/schema"},
	"event/wire":              {"event", "event/schema"},
	"event/registry":          {"event"},
	"gateway":                 {"event", "gateway"},
	"streaming":               {},
	"streaming/agg":           {},
	"streaming/pattern":       {"streaming"},
	"streaming/hot":           {"event", "streaming", "streaming/pattern", "kpi", "features", "features/model", "experiments", "quality"},
	"streaming/sink":          {"event", "streaming", "kpi", "olap", "live", "lakehouse", "features/online"},
	"olap":                    {"event", "kpi"},
	"live":                    {"event", "kpi"},
	"lakehouse":               {"event"},
	"lakehouse/pages":         {},
	"lakehouse/order":         {},
	"lakehouse/bigquery":      {"event", "lakehouse"},
	"kpi":                     {"event"},
	"features":                {"event"},
	"features/demand":         {},
	"features/rules":          {"event"},
	"features/model":          {"features"},
	"features/online":         {"event", "features", "live"},
	"features/offline":        {"event", "features", "lakehouse", "olap"},
	"experiments":             {"event", "kpi"},
	"quality":                 {"event", "kpi"},
	"activities":              {"event", "gateway", "streaming", "olap", "live", "lakehouse", "kpi", "features", "experiments", "quality", "workflows/name"},
	"workflows":               {"event", "activities", "workflows/name"},
	"workflows/name":          {},
	"api":                     {"event", "olap", "live", "lakehouse", "kpi", "features", "experiments", "quality", "workflows/name", "api"},
	"workers":                 {"event", "gateway", "streaming", "olap", "live", "lakehouse", "kpi", "features", "experiments", "quality", "activities", "workflows", "api"},
	"cmd/millrace":            {"internal/cli"},
	"internal/cli":            {"*"},
	"internal/embedded":       {"event", "internal/embedded"},
	"internal/simulate":       {"event"},
	"internal/archtest":       {},
	"internal/failpoint":      {},
	"internal/fault":          {},
	"internal/telemetry":      {},
	"test":                    {"*"},
	"terraform":               {"event"},
	"deploy":                  {"workers"}, // its tests: what is configured is what is read
	"internal/embedded/child": {"event"},
}

// testsMayImport are what test files may import beyond their row.
var testsMayImport = []string{"internal/embedded"}

type listed struct {
	ImportPath                string
	Imports                   []string
	TestImports, XTestImports []string
	Doc                       string
	GoFiles                   []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports,Doc,GoFiles", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func row(folder string) (string, bool) {
	for at := folder; at != "."; {
		if _, ok := table[at]; ok {
			return at, true
		}
		i := strings.LastIndexByte(at, '/')
		if i < 0 {
			break
		}
		at = at[:i]
	}
	return "", false
}

func within(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}

func TestEveryFolderImportsOnlyWhatItsRowNames(t *testing.T) {
	for _, p := range packages(t) {
		folder := strings.TrimPrefix(p.ImportPath, "millrace/")
		at, ok := row(folder)
		if !ok {
			t.Errorf("folder %s has no row in the table", folder)
			continue
		}
		check := func(imports []string, more ...string) {
			for _, imp := range imports {
				to, ours := strings.CutPrefix(imp, "millrace/")
				if !ours || within(to, at) && !strings.Contains(at, "streaming") || to == folder {
					continue
				}
				allowed := slices.Concat(table[at], leaves, more)
				if !slices.ContainsFunc(allowed, func(a string) bool { return a == "*" || within(to, a) && !excluded(a, to) }) {
					t.Errorf("%s imports %s, its row %q allows %v", folder, to, at, table[at])
				}
			}
		}
		check(p.Imports)
		check(p.TestImports, testsMayImport...)
		check(p.XTestImports, testsMayImport...)
	}
}

// excluded: a row that names streaming means the engine, not what is built on it.
func excluded(allowed, to string) bool {
	return allowed == "streaming" && to != "streaming" && !slices.Contains([]string{"streaming/sink", "streaming/hot", "streaming/pattern"}, to)
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func TestTheReadmeMapNamesFoldersThatExist(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		for part := range strings.SplitSeq(line, "`") {
			folder, isFolder := strings.CutSuffix(part, "/")
			if !isFolder || strings.ContainsAny(folder, " :{}<>") || folder == "" {
				continue
			}
			if info, err := os.Stat("../../" + folder); err != nil || !info.IsDir() {
				t.Errorf("the README names the folder %s/, which does not exist", folder)
			}
		}
	}
}
