// Command bench measures ours beside a peer, in turn and in one run: the gateway, the hot topology, the ClickHouse sink and the Iceberg sink. CPU seconds come
// before wall time, and what is compared is the ratio. It prints a table and writes test/bench/out/bench.json.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"

	"millrace/internal/embedded"
)

func main() {
	embedded.MaybeChild()
	if len(os.Args) > 2 && os.Args[1] == childWord {
		os.Exit(childMain(os.Args[2]))
	}
	run := flag.String("run", "", "only benches whose name matches this regular expression")
	quick := flag.Bool("quick", false, "small numbers, to see that everything works; the ratios mean little")
	reps := flag.Int("reps", 3, "turns of each pair")
	profiles := flag.String("profile", "", "folder for CPU profiles of both sides")
	out := flag.String("out", "test/bench/out", "folder of bench.json, from the checkout's root")
	flag.Parse()
	want, err := regexp.Compile(*run)
	if err != nil || flag.NArg() > 0 || *reps < 1 {
		fmt.Fprintln(os.Stderr, "usage: bench [-run REGEXP] [-quick] [-reps N] [-profile DIR] [-out DIR]", err)
		os.Exit(2)
	}
	root, err := checkout()
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if !filepath.IsAbs(*out) {
			*out = filepath.Join(root, *out)
		}
		s := full()
		if *quick {
			s = small()
		}
		s.reps, s.profiles, s.binary, s.want = *reps, *profiles, filepath.Join(root, "bin", "millrace"), want
		if b := os.Getenv("MILLRACE_BIN"); b != "" {
			s.binary = b
		}
		err = runAll(ctx, s, *out, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// settings are the sizes of a run.
type settings struct {
	reps     int
	profiles string // folder; "": none
	binary   string // bin/millrace; "": this program runs the gateway role itself

	gateway []load // by events in a request
	hot     int    // events
	sinks   int    // events
	want    *regexp.Regexp
}

func full() settings {
	return settings{
		gateway: []load{{batch: 1, connections: 128, seconds: 5}, {batch: 20, connections: 64, seconds: 5}, {batch: 500, connections: 16, seconds: 5}},
		hot:     300_000, sinks: 300_000,
	}
}

func small() settings {
	return settings{gateway: []load{{batch: 1, connections: 32, seconds: 0.5}, {batch: 500, connections: 8, seconds: 0.5}}, hot: 10_000, sinks: 10_000}
}

// benches is the table of all of them.
var benches = []struct {
	name string // results' names begin with it
	run  func(ctx context.Context, s settings, say func(format string, a ...any)) ([]result, error)
}{
	{"gateway", benchGateway},
	{"hot topology", benchHot},
	{"clickhouse sink", benchClickHouse},
	{"iceberg sink", benchIceberg},
}

// runAll runs the benches whose name fits. What was measured is printed and kept also if a later bench fails.
func runAll(ctx context.Context, s settings, out string, w io.Writer) error {
	if s.profiles != "" {
		if err := os.MkdirAll(s.profiles, 0o755); err != nil {
			return fmt.Errorf("making the folder of profiles: %w", err)
		}
	}
	say := func(format string, a ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", a...) } // progress
	var all []result
	var failed error
	for _, b := range benches {
		if names := s.names(b.name); !slices.ContainsFunc(names, s.want.MatchString) {
			continue
		}
		say("%s (load average %s)", b.name, loadAverage())
		got, err := b.run(ctx, s, say)
		all = append(all, got...)
		if err != nil {
			failed = fmt.Errorf("%s: %w", b.name, err)
			break
		}
	}
	if len(all) == 0 && failed == nil {
		return fmt.Errorf("no bench has a name like %q", s.want)
	}
	if err := writeTable(w, all); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(out, "bench.json"), all); err != nil {
		return err
	}
	return failed
}

// names are those of a bench's results.
func (s settings) names(bench string) []string {
	if bench != "gateway" {
		return []string{bench}
	}
	var out []string
	for _, l := range s.gateway {
		out = append(out, l.name())
	}
	return out
}

// checkout is the folder of go.mod above the working folder.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the checkout: %w", err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("finding the checkout: there is no go.mod above the working folder")
}
