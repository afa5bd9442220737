package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// record makes schemas/PROVIDER.json of `terraform providers schema -json`: of the resources that the code uses, what is needed to check them, one a line.
func record(from io.Reader, root, provider, version string) error {
	var all struct {
		Schemas map[string]struct {
			Provider  resource            `json:"provider"`
			Resources map[string]resource `json:"resource_schemas"`
		} `json:"provider_schemas"`
	}
	if err := json.NewDecoder(from).Decode(&all); err != nil {
		return fmt.Errorf("reading schemas: %w", err)
	}
	types, err := used(root, provider)
	if err != nil {
		return err
	}
	for address, s := range all.Schemas {
		if !strings.HasSuffix(address, "/"+provider) {
			continue
		}
		var out bytes.Buffer
		line := func(format string, args ...any) { fmt.Fprintf(&out, format, args...) }
		text := func(v any) []byte {
			b, merr := json.Marshal(v)
			if merr != nil && err == nil {
				err = merr
			}
			return b
		}
		line("{\n\"version\": %q,\n\"from\": %q,\n\"provider\": %s,\n\"resource_schemas\": {", version, address, text(s.Provider))
		for i, name := range types {
			r, ok := s.Resources[name]
			if !ok {
				return fmt.Errorf("%s %s has no %s", provider, version, name)
			}
			if i > 0 {
				line(",")
			}
			line("\n%q: %s", name, text(r))
		}
		line("\n}}\n")
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(root, "check", "schemas", provider+".json"), out.Bytes(), 0o644)
	}
	return fmt.Errorf("no schema of provider %s in the input", provider)
}
