package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"millrace/internal/fault"
)

// lookTool finds a program on PATH, or says what it is needed for.
func lookTool(name, purpose string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fault.Newf(missingToolID, "%s is not on PATH; it is needed %s", name, purpose)
	}
	return path, nil
}

// command is one run of a tool.
type command struct {
	dir  string
	env  []string
	line func(string) // called with each line of standard error
}

// run executes a tool to its end and returns what it printed. The error holds the
// end of what it said.
func (c command) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), c.env...)
	var out bytes.Buffer
	said := &lines{each: c.line}
	cmd.Stdout, cmd.Stderr = &out, said
	// A tool is a tree of processes; none is to outlive the cancellation.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		tail := said.tail(12)
		if tail == "" {
			tail = strings.TrimSpace(out.String()) // Maven reports errors on its standard output
		}
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, tail)
	}
	return out.String(), nil
}

// lines keeps the end of what a tool says and hands on each line. One goroutine writes it.
type lines struct {
	each func(string)
	last []string
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		line := string(l.rest[:i])
		l.rest = l.rest[i+1:]
		if l.last = append(l.last, line); len(l.last) > 50 {
			l.last = l.last[1:]
		}
		if l.each != nil {
			l.each(line)
		}
	}
}

func (l *lines) tail(n int) string {
	all := l.last
	if len(l.rest) > 0 {
		all = append(all, string(l.rest))
	}
	return strings.Join(all[max(0, len(all)-n):], "\n")
}

// saysDiskFull recognises a tool's own words for a full disk.
func saysDiskFull(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, "enospc") || strings.Contains(text, "no space left on device")
}

// canInstallPackages tells whether the system's packages may be installed by us.
func canInstallPackages() bool {
	_, err := exec.LookPath("apt-get")
	return err == nil && os.Geteuid() == 0
}

// installPackages installs the first set of system packages that can be had.
func (c *Cache) installPackages(ctx context.Context, name string, sets ...[]string) error {
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	c.Progress(name, "updating the system's package lists", 0, 0)
	if _, err := (command{env: env}).run(ctx, "apt-get", "update", "-q"); err != nil {
		return fmt.Errorf("updating package lists: %w", err)
	}
	var errs []error
	for _, packages := range sets {
		c.Progress(name, "installing system packages "+strings.Join(packages, " "), 0, 0)
		c.Log.Info("installing system packages", "packages", strings.Join(packages, " "))
		args := append([]string{"install", "-y", "-q", "--no-install-recommends"}, packages...)
		_, err := (command{env: env}).run(ctx, "apt-get", args...)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func faultNoSource(source string) error {
	return fault.Newf(noSourceID, "no source of the Temporal child in %s", source)
}
