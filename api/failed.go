package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"millrace/olap"
)

// failedReason counts the failed events of a reason.
type failedReason struct {
	Reason string `json:"reason"`
	Count  int64  `json:"count"`
	LastAt stamp  `json:"last_at"`
}

// failedSample is one failed event.
type failedSample struct {
	FailedID         string  `json:"failed_id"`
	FailedAt         stamp   `json:"failed_at"`
	ReceivedAt       stamp   `json:"received_at"`
	Reason           string  `json:"reason"`
	Error            string  `json:"error"`
	ErrorPath        string  `json:"error_path"`
	Payload          string  `json:"payload"`
	PayloadTruncated bool    `json:"payload_truncated"`
	Source           string  `json:"source"`
	Tenant           string  `json:"tenant"`
	EventID          *string `json:"event_id"`
}

type failedLine struct {
	Reason string  `json:"reason"`
	Values []int64 `json:"values"`
}

type failedSeries struct {
	StepSeconds int          `json:"step_seconds"`
	Times       []int64      `json:"times"`
	Series      []failedLine `json:"series"`
}

// failedEvents is the answer of /api/v1/failed.
type failedEvents struct {
	AsOf          stamp          `json:"as_of"`
	Tenant        string         `json:"tenant"`
	WindowSeconds int            `json:"window_seconds"`
	Total         int64          `json:"total"`
	ByReason      []failedReason `json:"by_reason"`
	Series        failedSeries   `json:"series"`
	Samples       []failedSample `json:"samples"`
}

const (
	maxFailedWindow = 30 * 24 * time.Hour
	maxFailedLines  = 10
)

// failedSteps are the lengths of a point; the first with at most 120 points is taken.
var failedSteps = [...]time.Duration{10 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour}

func (a *API) serveFailed(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	tenant, reason, limit := q.tenant(a.cfg.Tenant), q.text("reason", "", 64), q.integer("limit", 50, 1, 200)
	window := q.duration("window", "24h", time.Minute, maxFailedWindow)
	if err := q.err(); err != nil {
		return nil, err
	}
	step := failedSteps[len(failedSteps)-1]
	for _, s := range failedSteps {
		if window <= 120*s {
			step = s
			break
		}
	}
	to := a.now().Truncate(step).Add(step)
	from := a.now().Add(-window).Truncate(step)
	key := fmt.Sprintf("failed\x00%s\x00%s\x00%d\x00%d\x00%d", tenant, reason, from.Unix(), to.Unix(), limit)
	return a.answer(r.Context(), key, []string{olap.TableFailed}, func(ctx context.Context) (any, error) {
		// Events of unknown keys have no tenant: whoever runs the one tenant here is to see them.
		all := olap.FailedQuery{Tenant: tenant, Unowned: tenant == a.cfg.Tenant, From: from, To: to}
		out := &failedEvents{AsOf: stamp(a.now()), Tenant: tenant, WindowSeconds: int(window / time.Second), ByReason: []failedReason{}, Samples: []failedSample{}}
		reasons, err := a.olap.FailedReasons(ctx, all)
		if err != nil {
			return nil, err
		}
		var lines []string
		for _, f := range reasons {
			out.Total += f.Count
			out.ByReason = append(out.ByReason, failedReason{f.Reason, f.Count, stamp(f.Last)})
			if len(lines) < maxFailedLines && (reason == "" || f.Reason == reason) {
				lines = append(lines, f.Reason)
			}
		}
		if out.Series, err = a.failedSeries(ctx, all, lines, step); err != nil {
			return nil, err
		}
		one := all
		one.Reason = reason
		samples, err := a.olap.FailedSamples(ctx, one, limit)
		if err != nil {
			return nil, err
		}
		for _, s := range samples {
			out.Samples = append(out.Samples, failedSample{
				FailedID: s.FailedID, FailedAt: stamp(s.FailedAt), ReceivedAt: stamp(s.ReceivedAt), Reason: s.Reason, Error: s.Error, ErrorPath: s.ErrorPath,
				Payload: s.Payload, PayloadTruncated: s.Cut, Source: s.Source, Tenant: s.Tenant, EventID: s.EventID,
			})
		}
		return out, nil
	})
}

func (a *API) failedSeries(ctx context.Context, q olap.FailedQuery, reasons []string, step time.Duration) (failedSeries, error) {
	out := failedSeries{StepSeconds: int(step / time.Second), Times: []int64{}, Series: []failedLine{}}
	index := map[int64]int{}
	for t := q.From; t.Before(q.To); t = t.Add(step) {
		index[t.Unix()] = len(out.Times)
		out.Times = append(out.Times, t.Unix())
	}
	if len(reasons) == 0 {
		return out, nil
	}
	line := map[string]int{}
	for i, r := range reasons {
		line[r] = i
		out.Series = append(out.Series, failedLine{r, make([]int64, len(out.Times))})
	}
	points, err := a.olap.FailedSeries(ctx, q, reasons, step)
	if err != nil {
		return failedSeries{}, err
	}
	for _, p := range points {
		if at, ok := index[p.At]; ok {
			out.Series[line[p.Reason]].Values[at] = p.Count
		}
	}
	return out, nil
}
