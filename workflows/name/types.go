package name

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The other workflow types of the platform. What a schedule starts has the same name with TickSuffix.
const (
	PublishTable         = "PublishTable"
	LoadBigQuery         = "LoadBigQuery"
	RecomputeKPIs        = "RecomputeKPIs"
	TrainRecommendations = "TrainRecommendations"
	EraseSubject         = "EraseSubject"
	ExportSubject        = "ExportSubject"
	Reconcile            = "Reconcile"
	Nightly              = "Nightly"

	TickSuffix = "Tick"
)

// Type is one workflow that people and schedules may start.
type Type struct {
	Name string
	Doc  string
	// Example is an input as docs/WORKFLOWS.md shows it.
	Example string
	// Target reads an input strictly and says which id the workflow has and which table it is about.
	Target func(input []byte) (Target, error)
	// Tick sets what the type's tick adds to its input at a logical time; nil: "run", where it is absent.
	Tick func(fields map[string]any, at time.Time)
}

// Target is what an input leads to.
type Target struct {
	ID    string
	Table string // "" if it is about none
	Input any    // decoded and valid
}

// Types lists the workflows that may be started.
func Types() []Type {
	return slices.Concat(
		maintainTypes(),
		nightlyTypes(),
		publishTypes(),
		eraseTypes(),
		reconcileTypes(),
		trainTypes(),
		forecastTypes(),
		bigQueryTypes(),
	)
}

// TypeNamed finds a type; the error names the nearest one.
func TypeNamed(n string) (Type, error) {
	var names []string
	for _, t := range Types() {
		if t.Name == n {
			return t, nil
		}
		names = append(names, t.Name)
	}
	if i := slices.IndexFunc(names, func(k string) bool { return strings.EqualFold(k, n) }); i >= 0 {
		return Type{}, fmt.Errorf("no workflow type %q, did you mean %s?", n, names[i])
	}
	if near := Nearest(n, names); near != "" {
		return Type{}, fmt.Errorf("no workflow type %q, did you mean %s?", n, near)
	}
	return Type{}, fmt.Errorf("no workflow type %q; there are %s", n, strings.Join(names, ", "))
}

// Text is an input as compact JSON: the text whose digest workflow_runs keeps.
func Text(in Input) string {
	b, err := json.Marshal(in)
	if err != nil { // inputs are plain values
		return err.Error()
	}
	return string(b)
}
