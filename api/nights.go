package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"millrace/olap"
)

// nightStep is a step of a night.
type nightStep struct {
	Step            string           `json:"step"`
	Outcome         string           `json:"outcome"`
	Reason          string           `json:"reason"`
	DurationSeconds float64          `json:"duration_seconds"`
	Numbers         map[string]int64 `json:"numbers"`
}

// nightPart is a workflow that a night ran.
type nightPart struct {
	Type            string  `json:"type"`
	WorkflowID      string  `json:"workflow_id"`
	Outcome         string  `json:"outcome"`
	Reason          string  `json:"reason"`
	DurationSeconds float64 `json:"duration_seconds"`
	URL             string  `json:"url"`
}

// night is one night.
type night struct {
	Night           string      `json:"night"`
	Outcome         string      `json:"outcome"`
	Reason          string      `json:"reason"`
	Trigger         string      `json:"trigger"`
	StartedAt       stamp       `json:"started_at"`
	FinishedAt      *stamp      `json:"finished_at"`
	DurationSeconds float64     `json:"duration_seconds"`
	WorkflowID      string      `json:"workflow_id"`
	URL             string      `json:"url"`
	Input           string      `json:"input"`
	Steps           []nightStep `json:"steps"`
	Workflows       []nightPart `json:"workflows"`
}

// nights is the answer of /api/v1/nights.
type nights struct {
	AsOf   stamp    `json:"as_of"`
	UI     string   `json:"ui"`
	Nights []night  `json:"nights"`
	Gaps   []string `json:"gaps"`
}

const maxNights = 400

func (a *API) serveNights(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	days := q.integer("days", 30, 1, maxNights)
	if err := q.err(); err != nil {
		return nil, err
	}
	return a.flights.do(r.Context(), fmt.Sprintf("nights\x00%d", days), func(ctx context.Context) ([]byte, error) {
		have, err := a.olap.Nights(ctx, days)
		if err != nil {
			return nil, err
		}
		now := a.now()
		out := nights{AsOf: stamp(now), UI: a.ui(), Nights: []night{}, Gaps: []string{}}
		for _, n := range have {
			out.Nights = append(out.Nights, a.night(n, now))
		}
		out.Gaps = append(out.Gaps, olap.NightGaps(have)...)
		return encode(out, nil)
	})
}

func (a *API) night(n olap.Night, now time.Time) night {
	out := night{
		Night: n.Night, Outcome: n.Outcome, Reason: n.Reason, Trigger: n.Trigger, StartedAt: stamp(n.Started), WorkflowID: n.WorkflowID, URL: a.link("workflows", n.WorkflowID, n.WorkflowRun, "history"),
		Input: fmt.Sprintf(`{"day": %q}`, n.Night), Steps: []nightStep{}, Workflows: []nightPart{}, DurationSeconds: lasted(n.Started, n.Finished, now),
	}
	if !n.Finished.IsZero() {
		out.FinishedAt = stampOf(n.Finished)
	}
	for _, s := range n.Steps {
		if s.Numbers == nil {
			s.Numbers = map[string]int64{}
		}
		out.Steps = append(out.Steps, nightStep{s.Step, s.Outcome, s.Reason, lasted(s.Started, s.Finished, now), s.Numbers})
	}
	for _, p := range n.Parts {
		out.Workflows = append(out.Workflows, nightPart{p.Type, p.WorkflowID, p.Outcome, p.Reason, lasted(p.Started, p.Finished, now), a.link("workflows", p.WorkflowID, p.WorkflowRun, "history")})
	}
	return out
}

// lasted is how long something took, or takes if it has not ended.
func lasted(from, to, now time.Time) float64 {
	if to.IsZero() {
		to = now
	}
	return max(0, to.Sub(from).Seconds())
}
