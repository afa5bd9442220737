package cli

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"millrace/internal/fault"
)

var update = flag.Bool("update", false, "write the pages of docs/ that are generated")

func TestReferencePagesAreCurrent(t *testing.T) {
	for name, want := range References() {
		path := filepath.Join("../../docs", name)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("docs/%s is not what the code says (%v): run `make docs`", name, err)
		}
	}
}

// Ids that code gives must be in the catalogue, so that nobody meets an error without a remedy.
func TestEveryErrorIDInTheCodeHasARemedy(t *testing.T) {
	id := regexp.MustCompile(`"(MR-[A-Z]+-\d{3})"`)
	used := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.Contains(path, "internal/fault/") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range id.FindAllStringSubmatch(string(text), -1) {
			used[m[1]] = true
			if fault.Remedy(fault.ID(m[1])) == "" {
				t.Errorf("%s uses %s, which has no remedy", path, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[fault.ID]bool{}
	for _, e := range fault.Catalog() {
		if seen[e.ID] {
			t.Errorf("%s is listed twice", e.ID)
		}
		seen[e.ID] = true
		if !used[string(e.ID)] {
			t.Errorf("%s is in the catalogue but nothing gives it", e.ID)
		}
	}
}

// Links of the documents that name files must lead somewhere.
func TestDocumentsLinkToFilesThatExist(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:"\s]+)(#[^)]*)?\)`)
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../docs/adr/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(append(pages, more...), "../../README.md", "../../CHANGELOG.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(readme), "\n"); n > 150 {
		t.Errorf("the README has %d lines, at most 150 are read", n)
	}
}
