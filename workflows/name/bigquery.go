package name

import (
	"errors"
	"fmt"
)

// Activities of LoadBigQuery.
const (
	BigQueryLoad   = "bigquery.load"   // loads one range
	BigQueryVerify = "bigquery.verify" // compares days with the lake
	BigQueryNote   = "bigquery.note"   // notes a load in bigquery_loads
)

// Steps of LoadBigQuery, in their order.
const (
	StepLoad   = "load"
	StepVerify = "verify"
	StepMend   = "mend" // only if days differ
)

// BigQueryDiffers is the failure of a run that found days that differ, and could not mend them.
const BigQueryDiffers = "BigQueryDiffers"

// BigQueryOff is the failure of a run on a platform without BigQuery.
const BigQueryOff = "BigQueryOff"

// BigQueryID is the workflow id of the loads of a table.
func BigQueryID(table string) string { return "bigquery/" + table }

// LoadBigQueryInput is the input of LoadBigQuery.
type LoadBigQueryInput struct {
	Table string `json:"table"` // such as "events_page"

	// From is the snapshot behind which the range begins; absent: where the last load ended. Another one than that is refused.
	From int64 `json:"from,omitempty"`
	// To is the snapshot at which it ends; absent: the one that is published.
	To int64 `json:"to,omitempty"`
	// Mend compares all days with BigQuery, not only those that were loaded, and replaces those that differ.
	Mend bool `json:"mend,omitempty"`
	// Run names the logical run. Absent: a run of its own.
	Run string `json:"run,omitempty"`
}

// Validate implements Input.
func (in LoadBigQueryInput) Validate() error {
	errs := []error{ValidTable(in.Table), ValidRun(in.Run)}
	for _, f := range []struct {
		name string
		id   int64
	}{{"from", in.From}, {"to", in.To}} {
		if f.id < 0 {
			errs = append(errs, fmt.Errorf("%s: %d is no id of a snapshot", f.name, f.id))
		}
	}
	if in.From != 0 && in.From == in.To {
		errs = append(errs, fmt.Errorf("to: is from, %d: the range is empty", in.To))
	}
	return errors.Join(errs...)
}

// LoadBigQueryResult is what LoadBigQuery gives.
type LoadBigQueryResult struct {
	Table   string       `json:"table"`
	Outcome string       `json:"outcome"` // loaded, nothing, or skipped: the same run had loaded before
	From    int64        `json:"from"`
	To      int64        `json:"to"`
	Rows    int64        `json:"rows"`
	JobID   string       `json:"job_id,omitempty"`
	Steps   []StepResult `json:"steps"`
}

func bigQueryTypes() []Type {
	load := Type{
		Name:    LoadBigQuery,
		Doc:     "load what was published of a table since the last load into BigQuery, and compare",
		Example: `{"table": "events_page"}`,
		Target: func(text []byte) (Target, error) {
			in, err := Decode[LoadBigQueryInput](text)
			return Target{BigQueryID(in.Table), in.Table, in}, err
		},
	}
	return []Type{load, TickOf(load)}
}
