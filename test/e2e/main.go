// Command e2e proves the path end to end on the real thing: it starts whole platforms, sends seeded traffic, kills and holds parts of them, and compares what
// the stores hold with what was acknowledged. Its last line is "N passed, N failed".
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

func main() {
	full := flag.Bool("full", false, "the long drills: 200,000 events, every child killed, outages of 60 s")
	run := flag.String("run", "", "only scenarios whose name matches this regular expression")
	keep := flag.Bool("keep", false, "keep the data directories")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bin, err := binary()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	want, err := regexp.Compile(*run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "-run:", err)
		os.Exit(2)
	}
	passed, failed := 0, 0
	for _, s := range scenarios(*full) {
		if !want.MatchString(s.name) || ctx.Err() != nil {
			continue
		}
		started := time.Now()
		fmt.Printf("--- %s\n", s.name)
		if err := runScenario(ctx, bin, s, *keep, os.Stdout); err != nil {
			failed++
			fmt.Printf("FAIL %s (%.0f s): %v\n", s.name, time.Since(started).Seconds(), err)
			continue
		}
		passed++
		fmt.Printf("PASS %s (%.0f s)\n", s.name, time.Since(started).Seconds())
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}
