package olap

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write migrations that do not exist yet, and golden files")

func TestEveryGeneratedMigrationIsCommitted(t *testing.T) {
	files, err := generated()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join("migrations", name)
		if _, err := os.Stat(path); err == nil {
			continue // committed: never rewritten
		}
		if !*update {
			t.Errorf("%s does not exist; run with -update", path)
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
