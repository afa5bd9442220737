package olap

import (
	"context"
	"fmt"
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

// Models lists trained versions, the last trained first.
func Models(ctx context.Context, conn driver.Conn, limit int) ([]Model, error) {
	// Rows are compared by version and not by FINAL: on a cluster the copies of a row may be on several shards.
	rows, err := conn.Query(ctx, `SELECT model, tenant, model_version, argMax(state, version), argMax(reason, version), argMax(input_at, version), argMax(trained_at, version) AS trained,
		argMax(metrics, version), argMax(snapshots, version), argMax(rows, version), argMax(items, version)
		FROM models GROUP BY model, tenant, model_version ORDER BY trained DESC, model, tenant, model_version LIMIT ?`, limit)
	if err != nil {
		return nil, fmt.Errorf("reading models: %w", err)
	}
	defer rows.Close()
	out := []Model{}
	for rows.Next() {
		var m Model
		if err := rows.Scan(&m.Model, &m.Tenant, &m.Version, &m.State, &m.Reason, &m.InputAt, &m.TrainedAt, &m.Metrics, &m.Snapshots, &m.Rows, &m.Items); err != nil {
			return nil, fmt.Errorf("reading models: %w", err)
		}
		out = append(out, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading models: %w", err)
	}
	return out, nil
}
