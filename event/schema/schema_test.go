package schema

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/twmb/avro"
)

var update = flag.Bool("update", false, "commit a new version of changed schemas, and field ids of new columns")

func TestTheTableIsTheNewestCommittedVersion(t *testing.T) {
	for _, s := range Subjects() {
		dir := filepath.Join("avsc", s.Name())
		n := 0
		if old, err := os.ReadDir(dir); err == nil {
			n = len(old)
		}
		var have []byte
		if n > 0 {
			var err error
			if have, err = os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d.avsc", n))); err != nil {
				t.Fatal(err)
			}
		}
		if bytes.Equal(have, s.AVSC()) {
			continue
		}
		if !*update {
			t.Errorf("%s: the table differs from version %d; run `go test ./event/schema -update` and commit version %d", s.Name(), n, n+1)
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.avsc", n+1)), s.AVSC(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryVersionIsCompatibleWithEveryOther(t *testing.T) {
	for _, s := range Subjects() {
		versions, err := Versions(s.Topic)
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range versions {
			for j, b := range versions {
				if err := avro.CheckCompatibility(avro.MustParse(a), avro.MustParse(b)); err != nil {
					t.Errorf("%s: version %d cannot be read with version %d: %v", s.Name(), i+1, j+1, err)
				}
			}
		}
	}
}

func TestFieldIDsAreCompleteUniqueAndNeverChange(t *testing.T) {
	have := map[string]map[string]int{}
	if text, err := os.ReadFile("ids.json"); err == nil {
		if err := json.Unmarshal(text, &have); err != nil {
			t.Fatal(err)
		}
	}
	changed := false
	for _, tab := range LakeTables() {
		ids := have[tab.Name]
		if ids == nil {
			ids = map[string]int{}
			have[tab.Name] = ids
		}
		greatest := 0
		seen := map[int]string{}
		for path, id := range ids {
			greatest = max(greatest, id)
			if other, dup := seen[id]; dup {
				t.Errorf("%s: %s and %s share id %d", tab.Name, path, other, id)
			}
			seen[id] = path
		}
		for _, path := range tab.paths() {
			if _, ok := ids[path]; ok {
				continue
			}
			if !*update {
				t.Errorf("%s.%s has no field id; run with -update", tab.Name, path)
				continue
			}
			greatest++
			ids[path] = greatest
			changed = true
		}
	}
	if changed {
		text, err := json.MarshalIndent(have, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("ids.json", append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
