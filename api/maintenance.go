package api

import (
	"context"
	"fmt"
	"net/http"
	"regexp"

	"millrace/olap"
)

// maintenanceStep is one step of a run of MaintainTable. What a step does not do is null: only compact has files and bytes.
type maintenanceStep struct {
	Table           string           `json:"table"`
	Run             string           `json:"run"`
	Step            string           `json:"step"`
	Outcome         string           `json:"outcome"`
	Reason          string           `json:"reason"`
	StartedAt       stamp            `json:"started_at"`
	FinishedAt      stamp            `json:"finished_at"`
	DurationSeconds float64          `json:"duration_seconds"`
	Files           *change          `json:"files"`
	Bytes           *change          `json:"bytes"`
	FilesRead       *change          `json:"files_read"`
	Numbers         map[string]int64 `json:"numbers"`
	WorkflowID      string           `json:"workflow_id"`
	URL             string           `json:"url"`
}

// change is a number before and after, and the second as a part of the first.
type change struct {
	Before int64   `json:"before"`
	After  int64   `json:"after"`
	Ratio  float64 `json:"ratio"`
}

// maintenance is the answer of /api/v1/maintenance.
type maintenance struct {
	AsOf  stamp             `json:"as_of"`
	UI    string            `json:"ui"`
	Steps []maintenanceStep `json:"steps"`
}

// lakeTable is the form of a table's name.
var lakeTable = regexp.MustCompile(`^[a-z][a-z0-9_]{0,127}$`)

func (a *API) serveMaintenance(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	table, limit := q.text("table", "", 128), q.integer("limit", 100, 1, 1000)
	if table != "" && !lakeTable.MatchString(table) {
		q.bad("table", "is not a table's name: lower-case letters, digits and _, a letter first")
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	return a.flights.do(r.Context(), fmt.Sprintf("maintenance\x00%s\x00%d", table, limit), func(ctx context.Context) ([]byte, error) {
		steps, err := a.olap.Maintenance(ctx, table, limit)
		if err != nil {
			return nil, err
		}
		out := maintenance{AsOf: stamp(a.now()), UI: a.ui(), Steps: []maintenanceStep{}}
		for _, s := range steps {
			out.Steps = append(out.Steps, a.maintenanceStep(s))
		}
		return encode(out, nil)
	})
}

func (a *API) maintenanceStep(s olap.MaintenanceStep) maintenanceStep {
	if s.Numbers == nil {
		s.Numbers = map[string]int64{}
	}
	out := maintenanceStep{
		Table: s.Table, Run: s.Run, Step: s.Step, Outcome: s.Outcome, Reason: s.Reason, StartedAt: stamp(s.Started), FinishedAt: stamp(s.Finished),
		DurationSeconds: max(0, s.Finished.Sub(s.Started).Seconds()), Numbers: s.Numbers, WorkflowID: s.WorkflowID, URL: a.link("workflows", s.WorkflowID, s.WorkflowRun, "history"),
	}
	of := func(before, after string) *change {
		b, ok := s.Numbers[before]
		if !ok || b <= 0 {
			return nil
		}
		c := change{Before: b, After: s.Numbers[after]}
		c.Ratio = float64(c.After) / float64(c.Before)
		return &c
	}
	out.Files, out.Bytes, out.FilesRead = of("files_removed", "files_added"), of("bytes_removed", "bytes_added"), of("files_read_before", "files_read_after")
	return out
}
