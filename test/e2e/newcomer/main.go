// Command newcomer follows the documents to the letter: on a fresh clone it runs the README's first command, waits for the addresses, opens them, runs every
// shell block of the README and of the pages it names, as a reader would one after the other, and ends the platform. Its last line is "N passed, N failed".
//
// A block that ends without an error passes, unless it sends an event: then the answer must say so. Blocks that are not fenced as sh are not commands.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"millrace/workers"
)

var (
	shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")
	link       = regexp.MustCompile(`\]\((docs/[A-Za-z-]+\.md)\)`)
)

func main() {
	source := flag.String("source", ".", "the checkout to clone")
	patience := flag.Duration("patience", 20*time.Minute, "how long make up may take")
	block := flag.Duration("block", 5*time.Minute, "how long one shell block may take")
	keep := flag.Bool("keep", false, "keep the clone and its data")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	n := newcomer{out: os.Stdout, patience: *patience, block: *block}
	err := n.run(ctx, *source, *keep)
	if err != nil {
		n.failed++
		_, _ = fmt.Fprintln(n.out, "FAIL", err) // the exit code tells too
	}
	_, _ = fmt.Fprintf(n.out, "%d passed, %d failed\n", n.passed, n.failed) // the exit code tells too
	if n.failed > 0 {
		os.Exit(1)
	}
}

type newcomer struct {
	out             io.Writer
	patience, block time.Duration
	root            string // the clone
	passed, failed  int
}

func (n *newcomer) run(ctx context.Context, source string, keep bool) error {
	dir, err := os.MkdirTemp("", "millrace-newcomer-")
	if err != nil {
		return err
	}
	n.root = filepath.Join(dir, "millrace")
	if !keep {
		defer func() { _ = os.RemoveAll(dir) }() // a temporary folder
	}
	if out, err := exec.CommandContext(ctx, "git", "clone", "-q", source, n.root).CombinedOutput(); err != nil {
		return fmt.Errorf("git clone: %w: %s", err, out)
	}
	up, err := n.makeUp(ctx)
	if err != nil {
		return err
	}
	if err := n.temporal(ctx); err != nil {
		return errors.Join(err, up.end(n))
	}
	pages, err := n.pages()
	if err == nil {
		for _, p := range pages {
			if err = n.page(ctx, p); err != nil {
				break
			}
		}
	}
	return errors.Join(err, n.opens(ctx), up.end(n))
}

// pages are the README and the pages it links to, in its order.
func (n *newcomer) pages() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(n.root, "README.md"))
	if err != nil {
		return nil, err
	}
	pages, seen := []string{"README.md"}, map[string]bool{}
	for _, m := range link.FindAllStringSubmatch(string(text), -1) {
		if !seen[m[1]] {
			seen[m[1]] = true
			pages = append(pages, m[1])
		}
	}
	return pages, nil
}

// said keeps what a command writes, for two goroutines.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// platform is a running `make up`.
type platform struct {
	cmd   *exec.Cmd
	said  *said
	ended chan error
}

// makeUp runs `make up` as the README shows it and waits until it prints its addresses.
func (n *newcomer) makeUp(ctx context.Context) (*platform, error) {
	p := &platform{said: &said{}, ended: make(chan error, 1)}
	p.cmd = exec.Command("make", "up") //nolint:noctx // ended as a user would, by an interrupt
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = n.root, p.said, p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	started := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- p.cmd.Wait() }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for !strings.Contains(p.said.String(), "Millrace is up") {
		select {
		case err := <-p.ended:
			return nil, fmt.Errorf("make up ended: %w\n%s", err, p.said)
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), p.interrupt())
		case <-tick.C:
			if time.Since(started) > n.patience {
				return nil, errors.Join(fmt.Errorf("make up has not come up in %s\n%s", n.patience, p.said), p.interrupt())
			}
		}
	}
	n.ok("make up printed its addresses after %.0f s", time.Since(started).Seconds())
	return p, nil
}

// temporal waits for what make up builds last on a fresh machine: its pages say so.
func (n *newcomer) temporal(ctx context.Context) error {
	started := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if e, err := workers.LoadEndpoints(filepath.Join(n.root, ".millrace")); err == nil && e.Temporal.UI != "" && e.PIDs["batch"] != 0 {
			n.ok("Temporal and its worker came %.0f s later", time.Since(started).Seconds())
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if time.Since(started) > n.patience {
				return fmt.Errorf("no Temporal after %s", n.patience)
			}
		}
	}
}

// interrupt is Ctrl-C: the terminal sends it to the whole foreground group.
func (p *platform) interrupt() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT) }

func (p *platform) end(n *newcomer) error {
	if err := p.interrupt(); err != nil {
		return err
	}
	select {
	case err := <-p.ended: // make reports the interrupt as an error
		if exit := (&exec.ExitError{}); err != nil && !errors.As(err, &exit) {
			return err
		}
		n.ok("Ctrl-C ended the platform")
		return nil
	case <-time.After(2 * time.Minute):
		return errors.Join(errors.New("Ctrl-C has not ended the platform in 2 minutes"), syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL))
	}
}

// page runs the shell blocks of a page in one directory, each in a shell of its own.
func (n *newcomer) page(ctx context.Context, page string) error {
	text, err := os.ReadFile(filepath.Join(n.root, page))
	if err != nil {
		return err
	}
	for i, m := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		if strings.Contains(m[1], "make ") { // the two commands, and what developers run; make up runs already
			continue
		}
		if err := n.shell(ctx, m[1]); err != nil {
			n.failed++
			_, _ = fmt.Fprintf(n.out, "FAIL %s, shell block %d: %v\n", page, i+1, err) // the count tells too
			continue
		}
		n.ok("%s, shell block %d", page, i+1)
	}
	return nil
}

func (n *newcomer) shell(ctx context.Context, script string) error {
	ctx, cancel := context.WithTimeout(ctx, n.block)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = n.root
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(n.root, "bin")+":"+os.Getenv("PATH"))
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		return fmt.Errorf("%w\n%s\n%.2000s", err, script, out)
	case strings.Contains(script, "curl") && strings.Contains(script, " -d ") && !strings.Contains(string(out), `"success":true`):
		return fmt.Errorf("the event was not taken\n%s\n%.2000s", script, out)
	}
	return nil
}

// opens looks at what a reader would open.
func (n *newcomer) opens(ctx context.Context) error {
	e, err := workers.LoadEndpoints(filepath.Join(n.root, ".millrace"))
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 30 * time.Second}
	for name, url := range map[string]string{"dashboard": e.Dashboard, "Temporal UI": e.Temporal.UI, "API description": e.API + "/openapi.json"} {
		if url == "" || strings.HasPrefix(url, "/") {
			n.failed++
			_, _ = fmt.Fprintf(n.out, "FAIL %s has no address\n", name) // the count tells too
			continue
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK {
			n.failed++
			_, _ = fmt.Fprintf(n.out, "FAIL %s answers %s %v\n", name, resp.Status, err) // the count tells too
			continue
		}
		n.ok("%s opens", name)
	}
	return nil
}

func (n *newcomer) ok(format string, args ...any) {
	n.passed++
	_, _ = fmt.Fprintf(n.out, "ok   "+format+"\n", args...) // progress
}
