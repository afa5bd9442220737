package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The short drills of `make e2e`, on a binary built from this checkout.
func TestThePathEndToEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts whole platforms: left out by -short, run by make test")
	}
	bin := os.Getenv("MILLRACE_BIN")
	if bin == "" {
		bin = filepath.Join(t.TempDir(), "millrace")
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "millrace/cmd/millrace").CombinedOutput(); err != nil {
			t.Fatalf("building millrace: %v: %s", err, out)
		}
	}
	for _, s := range scenarios(false) {
		t.Run(s.name, func(t *testing.T) {
			if err := runScenario(t.Context(), bin, s, false, t.Output()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
