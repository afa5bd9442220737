package olap

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Model is one trained version of a model.
type Model struct {
	Model     string             `json:"model"`
	Tenant    string             `json:"tenant"`
	Version   string             `json:"version"`
	State     string             `json:"state"`
	Reason    string             `json:"reason,omitempty"`
	InputAt   time.Time          `json:"input_at"`
	TrainedAt time.Time          `json:"trained_at"`
	Metrics   map[string]float64 `json:"metrics"`
	Snapshots map[string]int64   `json:"snapshots"`
	Rows      int64              `json:"rows"`
	Items     int64              `json:"items"`
}

// Rows are compared by version and not by FINAL: on a cluster the copies of a row may be on several shards.
func modelsSQL(where, limit string) string {
	return `SELECT model, tenant, model_version, argMax(state, version), argMax(reason, version), argMax(input_at, version), argMax(trained_at, version) AS trained,
		argMax(metrics, version), argMax(snapshots, version), argMax(rows, version), argMax(items, version)
		FROM models` + where + ` GROUP BY model, tenant, model_version ORDER BY trained DESC, model, tenant, model_version LIMIT ` + limit
}

func scanModel(rows driver.Rows) (m Model, err error) {
	if err := rows.Scan(&m.Model, &m.Tenant, &m.Version, &m.State, &m.Reason, &m.InputAt, &m.TrainedAt, &m.Metrics, &m.Snapshots, &m.Rows, &m.Items); err != nil {
		return m, fmt.Errorf("reading models: %w", err)
	}
	return m, nil
}

// Models lists trained versions, the last trained first.
func Models(ctx context.Context, conn driver.Conn, limit int) ([]Model, error) {
	rows, err := conn.Query(ctx, modelsSQL("", "?"), limit)
	if err != nil {
		return nil, fmt.Errorf("reading models: %w", err)
	}
	defer rows.Close()
	out := []Model{}
	for rows.Next() {
		m, err := scanModel(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading models: %w", err)
	}
	return out, nil
}

// Models lists trained versions of a tenant's model, the last trained first.
func (r *Reader) Models(ctx context.Context, tenant, model string, limit int) ([]Model, error) {
	out := []Model{}
	err := r.query(ctx, modelsSQL(" WHERE tenant = {tenant:String} AND model = {model:String}", "{limit:UInt32}"), params{"tenant": tenant, "model": model, "limit": strconv.Itoa(limit)},
		func(rows driver.Rows) error {
			m, err := scanModel(rows)
			out = append(out, m)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("asking for models: %w", err)
	}
	return out, nil
}
