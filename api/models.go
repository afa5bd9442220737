package api

import (
	"context"
	"fmt"
	"net/http"

	"millrace/workflows/name"
)

// models is the answer of /api/v1/models.
type models struct {
	AsOf     stamp          `json:"as_of"`
	Tenant   string         `json:"tenant"`
	Model    string         `json:"model"`
	Versions []modelVersion `json:"versions"`
}

// modelVersion is one trained version with what was measured of it.
type modelVersion struct {
	Version   string             `json:"version"`
	State     string             `json:"state"`
	Reason    string             `json:"reason"`
	InputAt   stamp              `json:"input_at"`
	TrainedAt stamp              `json:"trained_at"`
	Metrics   map[string]float64 `json:"metrics"`
	Rows      int64              `json:"rows"`
	Items     int64              `json:"items"`
}

func (a *API) serveModels(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	tenant, model, limit := q.tenant(a.cfg.Tenant), q.model(), q.integer("limit", 20, 1, 200)
	if err := q.err(); err != nil {
		return nil, err
	}
	return a.flights.do(r.Context(), fmt.Sprintf("models\x00%s\x00%s\x00%d", tenant, model, limit), func(ctx context.Context) ([]byte, error) {
		found, err := a.olap.Models(ctx, tenant, model, limit)
		if err != nil {
			return nil, err
		}
		out := &models{AsOf: stamp(a.now()), Tenant: tenant, Model: model, Versions: []modelVersion{}}
		for _, m := range found {
			out.Versions = append(out.Versions, modelVersion{m.Version, m.State, m.Reason, stamp(m.InputAt), stamp(m.TrainedAt), m.Metrics, m.Rows, m.Items})
		}
		return encode(out, nil)
	})
}

// model is the name of a model.
func (q *query) model() string {
	model := q.text("model", name.DefaultModel, 63)
	if err := name.ValidModel(model); err != nil {
		q.bad("model", "is no name of a model: lower-case letters, digits and -")
	}
	return model
}
