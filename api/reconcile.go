package api

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
)

// reconcileRun is what one reconciliation found of one store.
type reconcileRun struct {
	Topic           string           `json:"topic"`
	Hour            stamp            `json:"hour"`
	Run             string           `json:"run"`
	Store           string           `json:"store"`
	Outcome         string           `json:"outcome"`
	Expected        int64            `json:"expected"`
	Found           int64            `json:"found"`
	Repaired        int64            `json:"repaired"`
	Differences     map[string]int64 `json:"differences"`
	StartedAt       stamp            `json:"started_at"`
	FinishedAt      *stamp           `json:"finished_at"`
	DurationSeconds float64          `json:"duration_seconds"`
	WorkflowID      string           `json:"workflow_id"`
	URL             string           `json:"url"`
}

// reconcileDifference is a run of raw offsets by which a store differed.
type reconcileDifference struct {
	Topic        string `json:"topic"`
	Hour         stamp  `json:"hour"`
	Store        string `json:"store"`
	Kind         string `json:"kind"`
	RawPartition int32  `json:"raw_partition"`
	RawFrom      int64  `json:"raw_from"`
	RawTo        int64  `json:"raw_to"`
	Rows         int64  `json:"rows"`
	State        string `json:"state"`
	NotedAt      stamp  `json:"noted_at"`
}

// reconciliations is the answer of /api/v1/reconcile.
type reconciliations struct {
	AsOf        stamp                 `json:"as_of"`
	Runs        []reconcileRun        `json:"runs"`
	Differences []reconcileDifference `json:"differences"`
}

var eventTopic = regexp.MustCompile(`^events\.[a-z]{1,32}$`)

func (a *API) serveReconcile(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	topic, state, limit := q.text("topic", "", 64), q.text("state", "", 8), q.integer("limit", 100, 1, 1000)
	if topic != "" && !eventTopic.MatchString(topic) {
		q.bad("topic", "is not a topic of events such as events.page")
	}
	if state != "" && state != "open" && state != "all" {
		q.bad("state", "is neither open nor all")
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	return a.flights.do(r.Context(), fmt.Sprintf("reconcile\x00%s\x00%s\x00%d", topic, state, limit), func(ctx context.Context) ([]byte, error) {
		runs, err := a.olap.ReconcileRuns(ctx, topic, limit)
		if err != nil {
			return nil, err
		}
		differences, err := a.olap.ReconcileDifferences(ctx, topic, state == "open", limit)
		if err != nil {
			return nil, err
		}
		now := a.now()
		out := reconciliations{AsOf: stamp(now), Runs: []reconcileRun{}, Differences: []reconcileDifference{}}
		for _, x := range runs {
			id := "reconcile/" + x.Topic + "/" + x.Hour.UTC().Format("2006-01-02T15")
			run := reconcileRun{
				Topic: x.Topic, Hour: stamp(x.Hour), Run: x.Run, Store: x.Store, Outcome: x.Outcome, Expected: x.Expected, Found: x.Found, Repaired: x.Repaired, Differences: x.Kinds,
				StartedAt: stamp(x.Started), DurationSeconds: lasted(x.Started, x.Finished, now), WorkflowID: id, URL: a.link("workflows", id),
			}
			if !x.Finished.IsZero() {
				run.FinishedAt = stampOf(x.Finished)
			}
			out.Runs = append(out.Runs, run)
		}
		for _, d := range differences {
			out.Differences = append(out.Differences, reconcileDifference{d.Topic, stamp(d.Hour), d.Store, d.Kind, d.Partition, d.From, d.To, d.Count, d.State, stamp(d.Noted)})
		}
		return encode(out, nil)
	})
}
