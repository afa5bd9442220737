package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// TemporalSource is where the project's checkout keeps the child's module.
var TemporalSource = filepath.Join("internal", "embedded", "temporal")

// Temporal builds the child's own module and returns the program. The first build
// takes minutes, so it runs at the lowest priority. sourceDir is the project's checkout.
func (c *Cache) Temporal(ctx context.Context, sourceDir string) (string, error) {
	const name = "temporal"
	source := filepath.Join(sourceDir, TemporalSource)
	key, err := sourceKey(source)
	if err != nil {
		return "", err
	}
	dir, err := c.once(ctx, name, key, func(ctx context.Context, dir string) error {
		return c.buildModule(ctx, name, "to build the Temporal child; or configure the address of a Temporal server", source, filepath.Join(dir, name))
	})
	return filepath.Join(dir, name), err
}

// TemporalBuilt tells whether Temporal would return without a build.
func (c *Cache) TemporalBuilt(sourceDir string) (bool, error) {
	key, err := sourceKey(filepath.Join(sourceDir, TemporalSource))
	if err != nil {
		return false, err
	}
	return isDir(filepath.Join(c.Dir, "temporal-"+key))
}

// buildModule builds a child's own module.
func (c *Cache) buildModule(ctx context.Context, name, purpose, source, target string) error {
	goTool, err := lookTool("go", purpose)
	if err != nil {
		return err
	}
	// The child's module must not see a workspace or another module's settings.
	tool := command{dir: source, env: []string{"GOWORK=off", "GOFLAGS=-buildvcs=false"}}
	c.Progress(name, "downloading modules", 0, 0)
	list, err := tool.run(ctx, goTool, "list", "-deps", "-f", "{{.ImportPath}}", ".")
	if err != nil {
		return err
	}
	total := int64(strings.Count(list, "\n"))
	var done int64
	tool.line = func(string) { // -v prints the name of each package that is compiled
		done++
		c.Progress(name, "compiling", done, total)
	}
	// With the compiler's flags of the project's own build: what both are made of is compiled once.
	args := []string{goTool, "build", "-v", "-ldflags=-s -w", "-o", target, "."}
	if nice, err := lookTool("nice", ""); err == nil {
		args = append([]string{nice, "-n", "15"}, args...)
	}
	_, err = tool.run(ctx, args[0], args[1:]...)
	return err
}

// sourceKey digests everything that the built program depends on.
func sourceKey(source string) (string, error) {
	h := sha256.New()
	_, _ = fmt.Fprintln(h, runtime.GOOS, runtime.GOARCH, runtime.Version()) // a hash takes everything
	for _, pattern := range []string{"go.mod", "go.sum", "*.go"} {
		files, err := filepath.Glob(filepath.Join(source, pattern))
		if err != nil || len(files) == 0 {
			return "", faultNoSource(source)
		}
		for _, file := range files { // Glob sorts
			f, err := os.Open(file)
			if err != nil {
				return "", fmt.Errorf("reading the source of a child: %w", err)
			}
			_, _ = fmt.Fprintln(h, filepath.Base(file)) // as above
			_, err = io.Copy(h, f)
			_ = f.Close() // read only
			if err != nil {
				return "", fmt.Errorf("reading the source of a child: %w", err)
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}
