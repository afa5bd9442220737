// Command clients lets the real SDKs of Segment, RudderStack, Snowplow, CloudEvents, GA4 and PostHog, unchanged, deliver a shopping session into a platform that
// it starts itself: once undisturbed, and once for each fault of a proxy in front of the gateway. Then ClickHouse and Iceberg must hold exactly what was said, and
// every snippet of docs/producers.md what it says. Its last line is "N passed, N failed".
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

func main() {
	only := flag.String("run", "", "only runs whose name (client.fault, or snippet.name) matches this regular expression")
	jobs := flag.Int("jobs", 3, "runs at a time")
	broker := flag.String("broker", "auto", "the platform's broker")
	seed := flag.Uint64("seed", 1, "seed of the sessions")
	keep := flag.Bool("keep", false, "keep the platform's data and the drivers' output")
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "-run:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	passed, failed, err := suite(ctx, options{match: match, jobs: *jobs, broker: *broker, seed: *seed, keep: *keep}, os.Stdout)
	stop()
	if err != nil {
		failed++
		fmt.Println("FAIL", err)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}
