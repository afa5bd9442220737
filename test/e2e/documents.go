package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// documents runs the shell blocks of the README and of the query page on this platform, as a reader would, but for those that start or test everything.
func documents(ctx context.Context, p *platform) error {
	root := filepath.Dir(filepath.Dir(p.bin))
	if os.Getenv("MILLRACE_BIN") != "" || filepath.Base(filepath.Dir(p.bin)) != "bin" {
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		for root = dir; root != filepath.Dir(root); root = filepath.Dir(root) {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
			}
		}
	}
	ran := 0
	for _, page := range []string{"README.md", "docs/query.md"} {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			return err
		}
		for _, m := range shellBlock.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "make ") {
				continue
			}
			cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", m[1])
			cmd.Dir = root
			cmd.Env = append(os.Environ(), "MILLRACE_DATA="+p.dir, "PATH="+filepath.Dir(p.bin)+":"+os.Getenv("PATH"))
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w\n%s\n%s", page, err, m[1], out)
			} else if strings.Contains(m[1], "curl") && !strings.Contains(string(out), `"success":true`) {
				return fmt.Errorf("%s: the event was not taken\n%s\n%s", page, m[1], out)
			}
			ran++
		}
	}
	if ran < 2 {
		return fmt.Errorf("only %d shell blocks found", ran)
	}
	_, _ = fmt.Fprintf(p.out, "    ok %d shell blocks of the documents run\n", ran) // progress
	return nil
}
