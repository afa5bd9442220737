package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"millrace/test/bench/child"
)

// result is one line of the table, in the form of bench.json.
type result struct {
	Name     string  `json:"name"`
	Metric   string  `json:"metric"`
	Ours     float64 `json:"ours"` // median
	Peer     float64 `json:"peer"` // median
	PeerName string  `json:"peer_name"`
	Ratio    float64 `json:"ratio"` // median of the turns' ours / peer
	Goal     string  `json:"goal"`
	OK       bool    `json:"ok"`

	Ratios   []float64 `json:"ratios"`    // of each turn
	OursWall float64   `json:"ours_wall"` // units per second of the clock, median
	PeerWall float64   `json:"peer_wall"`
	Load     string    `json:"load"` // load average at the end
}

// cost is what one side took in one turn.
type cost = child.Cost

// turn is one measurement of both sides.
type turn struct{ ours, peer cost }

// compare makes a result of n per CPU second: the higher the better.
func compare(name, unit, peer string, goal float64, turns []turn) result {
	r := compareBy(name, unit+" per CPU s", peer, turns, func(c cost) float64 { return float64(c.N) / c.CPU })
	r.OK = true
	if goal > 0 {
		r.Goal, r.OK = fmt.Sprintf(">=%g", goal), r.Ratio >= goal
	}
	return r
}

func compareBy(name, metric, peer string, turns []turn, of func(cost) float64) result {
	var ours, theirs, ratios, oursWall, peerWall []float64
	for _, t := range turns {
		ours, theirs = append(ours, of(t.ours)), append(theirs, of(t.peer))
		ratios = append(ratios, of(t.ours)/of(t.peer))
		oursWall, peerWall = append(oursWall, float64(t.ours.N)/t.ours.Wall), append(peerWall, float64(t.peer.N)/t.peer.Wall)
	}
	return result{
		Name: name, Metric: metric, Ours: median(ours), Peer: median(theirs), PeerName: peer, Ratio: median(ratios), OK: true,
		Ratios: ratios, OursWall: median(oursWall), PeerWall: median(peerWall), Load: loadAverage(),
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func writeTable(w io.Writer, all []result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "bench\tmetric\tours\tpeer\tratio\tturns\tgoal\t\tbeside") // Flush reports
	for _, r := range all {
		verdict := "met"
		switch {
		case r.Goal == "":
			verdict = ""
		case !r.OK:
			verdict = "MISSED"
		}
		turns := make([]string, len(r.Ratios))
		for i, v := range r.Ratios {
			turns[i] = fmt.Sprintf("%.2f", v)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.2f\t%s\t%s\t%s\t%s\n", r.Name, r.Metric, number(r.Ours), number(r.Peer), r.Ratio, strings.Join(turns, " "), r.Goal, verdict, r.PeerName) // Flush reports
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return nil
}

func number(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// writeJSON replaces the lines of the benches that were run and keeps those of others.
func writeJSON(path string, all []result) error {
	var have []result
	if text, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(text, &have); err != nil {
			have = nil // of another version, or cut off: written anew
		}
	}
	for _, r := range all {
		if i := slices.IndexFunc(have, func(h result) bool { return h.Name == r.Name && h.PeerName == r.PeerName }); i >= 0 {
			have[i] = r
		} else {
			have = append(have, r)
		}
	}
	text, err := json.MarshalIndent(have, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, append(text, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// loadAverage of the last minute: what else the machine does.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
