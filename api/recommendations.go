package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"millrace/internal/fault"
	"millrace/live"
	"millrace/olap"
	"millrace/workflows/name"
)

const idModel fault.ID = "MR-TRN-001"

// recommendations is the answer of /api/v1/recommendations.
type recommendations struct {
	Tenant    string        `json:"tenant"`
	Model     string        `json:"model"`
	Version   string        `json:"version"`
	InputAt   stamp         `json:"input_at"`
	TrainedAt stamp         `json:"trained_at"`
	Basis     string        `json:"basis"` // items or popular
	Known     int           `json:"known"` // items of the visitor that were looked at
	Items     []live.Scored `json:"items"`
}

const (
	maxItemID          = 128
	maxVisitorID       = 128
	visitorItems       = 50
	visitorLookBack    = 30 * 24 * time.Hour
	recommendationWait = 2 * time.Second // for Redis: a page waits for the answer
)

// serveRecommendations answers from Redis alone for items; what a visitor did lately is asked of ClickHouse.
func (a *API) serveRecommendations(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	tenant, model, item, visitor, limit := q.tenant(a.cfg.Tenant), q.text("model", name.DefaultModel, 63), q.text("item", "", maxItemID), q.text("visitor", "", maxVisitorID), q.integer("limit", 10, 1, 100)
	if err := name.ValidModel(model); err != nil {
		q.bad("model", "is no name of a model: lower-case letters, digits and -")
	}
	if item != "" && visitor != "" {
		q.bad("visitor", "excludes item")
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	if a.redis == nil {
		return nil, newProblem(idUnavailable, "no Redis is configured")
	}
	var have []live.Scored
	switch {
	case item != "":
		have = []live.Scored{{Item: item, Score: 1}}
	case visitor != "":
		did, err := a.olap.VisitorItems(r.Context(), tenant, visitor, a.now().Add(-visitorLookBack), visitorItems)
		if err != nil {
			return nil, err
		}
		have = strengths(did, a.now())
	}
	ctx, cancel := context.WithTimeout(r.Context(), recommendationWait)
	defer cancel()
	got, err := live.Recommend(ctx, a.redis, live.RecommendationModel{Tenant: tenant, Model: model}, have, limit)
	switch {
	case errors.Is(err, live.ErrNoModel):
		return nil, newProblem(idModel, "no version of model "+model+" is published for tenant "+clean(tenant))
	case err != nil:
		a.log.WarnContext(r.Context(), "recommendations cannot be read", "error", err)
		return nil, newProblem(idUnavailable, "Redis does not answer")
	}
	out := &recommendations{
		Tenant: tenant, Model: model, Version: got.Version.Version, InputAt: stamp(got.Version.InputAt), TrainedAt: stamp(got.Version.TrainedAt), Basis: got.Basis, Known: len(have),
		Items: got.Items,
	}
	if out.Items == nil {
		out.Items = []live.Scored{}
	}
	return encode(out, nil)
}

// strengths weighs what a visitor did lately: a purchase more than the cart, that more than a view, and each half as much for every day since.
func strengths(did []olap.VisitorItem, now time.Time) []live.Scored {
	out := make([]live.Scored, len(did))
	for i, d := range did {
		out[i] = live.Scored{Item: d.Item, Score: d.Weight / (1 + now.Sub(d.Last).Hours()/24)}
	}
	return out
}
