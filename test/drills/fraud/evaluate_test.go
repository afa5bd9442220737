package main

import (
	"testing"

	"millrace/internal/simulate"
)

// The floors are below what is measured (docs/fraud.md), and above what rules that were broken would reach.
func TestFraudOfTheSimulatorIsFound(t *testing.T) {
	r, err := evaluate(t.Context(), options{events: 60_000, tempo: 100, seed: 3, disorder: 0.01, fraud: 0.02})
	if err != nil {
		t.Fatal(err)
	}
	r.print(t.Output(), 0.01)
	precision, recall := r.score()
	if precision < 0.8 {
		t.Errorf("precision %.3f, want 0.8 at least", precision)
	}
	for _, l := range simulate.FraudLabels() {
		if got, ok := recall[l]; !ok || got < 0.7 {
			t.Errorf("recall of %s is %.3f, want 0.7 at least", l, got)
		}
	}
	if float64(r.both) < 0.8*float64(r.fast) {
		t.Errorf("%d of %d alerts told on arrival are confirmed", r.both, r.fast)
	}
}
