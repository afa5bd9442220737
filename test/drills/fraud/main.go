// Command fraud is the drill of fraud detection: the simulator's labelled attacks go through the gateway's decoder and both stages of the hot topology, and what the rules found is
// compared with the labels. It prints precision, recall and time to alert of each attack, and how many alerts that were told on arrival the order of event time confirmed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
)

func main() {
	events := flag.Int64("events", 200_000, "events of the shop")
	tempo := flag.Float64("tempo", 100, "events in a second of event time")
	seed := flag.Uint64("seed", 1, "seed of the events")
	flag.Parse()
	for _, disorder := range []float64{0, 0.01, 0.10} {
		r, err := evaluate(context.Background(), options{events: *events, tempo: *tempo, seed: *seed, disorder: disorder, fraud: 0.005})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		r.print(os.Stdout, disorder)
	}
}
