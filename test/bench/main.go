// Command bench measures ours beside a peer, in turn and in one run: the gateway, the hot topology, the ClickHouse sink and the Iceberg sink. CPU seconds come
// before wall time, and what is compared is the ratio. It prints a table and writes test/bench/out/bench.json. Beside other people's engines it measures compaction
// (-target bench-compaction), the Iceberg sink (-target bench-iceberg-sink) and the stream engine (-target bench-flink).
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
	out := flag.String("out", "test/bench/out", "folder of TARGET.json, from the checkout's root")
	target := flag.String("target", "bench", "which benches: bench, bench-compaction, bench-iceberg-sink or bench-flink")
	rows := flag.Int("rows", 0, "rows of bench-compaction and bench-iceberg-sink; 0: as many as the figures in docs/BENCHMARKS.md are of")
	flag.Parse()
	want, err := regexp.Compile(*run)
	if err != nil || flag.NArg() > 0 || *reps < 1 || *rows < 0 || !slices.ContainsFunc(benches, func(b bench) bool { return b.target == *target }) {
		fmt.Fprintln(os.Stderr, "usage: bench [-target bench|bench-compaction|bench-iceberg-sink|bench-flink] [-rows N] [-run REGEXP] [-quick] [-reps N] [-profile DIR] [-out DIR]", err)
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
		if *rows > 0 {
			s.compaction.rows, s.connect, s.flink, s.nexmark = *rows, *rows, *rows, *rows
		}
		s.target = *target
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

	target  string // "": bench
	gateway []load // by events in a request
	hot     int    // events
	sinks   int    // events
	connect int    // events
	flink   int    // events
	nexmark int    // events
	want    *regexp.Regexp

	compaction compactionSize
}

func full() settings {
	return settings{
		gateway: []load{{batch: 1, connections: 128, seconds: 5}, {batch: 20, connections: 64, seconds: 5}, {batch: 500, connections: 16, seconds: 5}},
		hot:     300_000, sinks: 300_000, connect: 2_000_000, flink: 5_000_000, nexmark: 3_000_000, compaction: compactionSize{rows: 5_000_000, files: 200},
	}
}

func small() settings {
	return settings{gateway: []load{{batch: 1, connections: 32, seconds: 0.5}, {batch: 500, connections: 8, seconds: 0.5}}, hot: 10_000, sinks: 10_000, connect: 20_000, flink: 100_000, nexmark: 100_000, compaction: compactionSize{rows: 100_000, files: 20}}
}

// bench is a measurement.
type bench struct {
	target string
	name   string // results' names begin with it
	run    func(ctx context.Context, s settings, say func(format string, a ...any)) ([]result, error)
}

// benches is the table of all of them.
var benches = []bench{
	{"bench", "gateway", benchGateway},
	{"bench", "hot topology", benchHot},
	{"bench", "clickhouse sink", benchClickHouse},
	{"bench", "iceberg sink", benchIceberg},
	{"bench-compaction", "compaction", benchCompaction},
	{"bench-iceberg-sink", "iceberg sink", benchIceberg},
	{"bench-iceberg-sink", "iceberg sink, beside Connect", benchConnect},
	{"bench-flink", "flink", benchFlink},
	{"bench-flink", "guarantee", benchGuarantee},
	{"bench-flink", "nexmark", benchNexmark},
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
	if s.target == "" {
		s.target = "bench"
	}
	for _, b := range benches {
		if names := s.names(b.name); b.target != s.target || !slices.ContainsFunc(names, s.want.MatchString) {
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
	if err := writeJSON(filepath.Join(out, s.target+".json"), all); err != nil {
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
