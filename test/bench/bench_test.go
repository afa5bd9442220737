package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/embedded"
	"millrace/test/bench/child"
)

func TestMain(m *testing.M) {
	embedded.MaybeChild()
	if len(os.Args) > 2 && os.Args[1] == childWord {
		os.Exit(childMain(os.Args[2]))
	}
	os.Exit(m.Run())
}

// Every bench runs on its real servers, with few events and one turn. What the ratios are does not matter here; each turn checks that what was acknowledged or
// written is there.
func TestEveryBenchRuns(t *testing.T) {
	dir := t.TempDir()
	s := settings{
		reps: 1, gateway: []load{{batch: 20, connections: 4, seconds: 0.3}, {batch: 500, connections: 4, seconds: 0.3}}, hot: 2000, sinks: 2000,
		profiles: filepath.Join(dir, "profiles"), want: regexp.MustCompile("500|hot|sink"),
	}
	if err := runAll(t.Context(), s, dir, &strings.Builder{}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got []result
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range got {
		names = append(names, r.Name)
		if r.Ours <= 0 || r.Peer <= 0 || r.Ratio <= 0 || r.OursWall <= 0 || r.PeerWall <= 0 {
			t.Errorf("%s has no numbers: %+v", r.Name, r)
		}
	}
	want := []string{"gateway, 500 a request", "hot topology", "clickhouse sink", "clickhouse sink", "iceberg sink"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	for _, p := range []string{"gateway", "gateway-bare", "hot", "hot-decode", "clickhouse", "clickhouse-native", "clickhouse-native-rows", "iceberg", "iceberg-parquet"} {
		if st, err := os.Stat(filepath.Join(s.profiles, p+".pprof")); err != nil || st.Size() == 0 {
			t.Errorf("profile %s: %v", p, err)
		}
	}
}

func TestAResultSaysWhetherItsGoalIsMet(t *testing.T) {
	turns := []turn{
		{ours: cost{CPU: 2, Wall: 4, N: 100}, peer: cost{CPU: 1, Wall: 1, N: 100}},
		{ours: cost{CPU: 1, Wall: 2, N: 100}, peer: cost{CPU: 1, Wall: 1, N: 100}},
		{ours: cost{CPU: 4, Wall: 1, N: 100}, peer: cost{CPU: 1, Wall: 1, N: 100}},
	}
	met, missed, none := compare("a", "rows", "b", 0.5, turns), compare("a", "rows", "b", 0.6, turns), compare("a", "rows", "b", 0, turns)
	if !met.OK || met.Goal != ">=0.5" || missed.OK || missed.Goal != ">=0.6" || !none.OK || none.Goal != "" {
		t.Errorf("%+v\n%+v\n%+v", met, missed, none)
	}
	if met.Ratio != 0.5 || met.Ours != 50 || met.Peer != 100 || met.OursWall != 50 || met.PeerWall != 100 {
		t.Errorf("medians are %+v", met)
	}
	var table strings.Builder
	if err := writeTable(&table, []result{met, missed, none}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(table.String()), "\n")
	if len(lines) != 4 || !strings.Contains(lines[1], " met ") || !strings.Contains(lines[2], "MISSED") || strings.Contains(lines[3], ">=") {
		t.Errorf("the table is\n%s", table.String())
	}
}

func TestAPartialRunKeepsTheOthersResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out", "bench.json")
	for _, run := range [][]result{{{Name: "a", Ratio: 1}, {Name: "b", Ratio: 2}}, {{Name: "b", Ratio: 3}}, {{Name: "b", PeerName: "other", Ratio: 4}}} {
		if err := writeJSON(path, run); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []result
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := []result{{Name: "a", Ratio: 1}, {Name: "b", Ratio: 3}, {Name: "b", PeerName: "other", Ratio: 4}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCPUTimeOfAProcessIsRead(t *testing.T) {
	own, err := child.OwnCPU()
	if err != nil {
		t.Fatal(err)
	}
	other, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if other < own-0.05 { // the later one, in ticks of 10 ms
		t.Errorf("%v s by rusage, then %v s by /proc", own, other)
	}
	if _, err := processCPU(-1); err == nil {
		t.Error("a process that is not there has CPU time")
	}
}
