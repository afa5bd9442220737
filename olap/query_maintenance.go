package olap

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// MaintenanceStep is what a step of MaintainTable came to, as maintenance_runs has it.
type MaintenanceStep struct {
	Table       string
	Run         string
	Step        string
	Outcome     string
	Reason      string
	Numbers     map[string]int64
	WorkflowID  string
	WorkflowRun string
	Started     time.Time
	Finished    time.Time
}

// Maintenance gives the newest steps of maintenance, the newest first; of one table, if it is named. Copies of a row are compared by version and not by FINAL: on a
// cluster they may be on several shards.
func (r *Reader) Maintenance(ctx context.Context, table string, most int) ([]MaintenanceStep, error) {
	var out []MaintenanceStep
	err := r.query(ctx, `SELECT table_name, run, step, argMax(outcome, version), argMax(reason, version), toJSONString(argMax(numbers, version)), argMax(id, version),
		argMax(workflow_run, version), argMax(started_at, version) AS began, argMax(finished_at, version) AS ended
		FROM maintenance_runs WHERE {table:String} = '' OR table_name = {table:String} GROUP BY table_name, run, step ORDER BY ended DESC, table_name, run, step LIMIT {most:UInt32}`,
		params{"table": table, "most": strconv.Itoa(most)}, func(rows driver.Rows) error {
			var s MaintenanceStep
			var numbers string
			if err := rows.Scan(&s.Table, &s.Run, &s.Step, &s.Outcome, &s.Reason, &numbers, &s.WorkflowID, &s.WorkflowRun, &s.Started, &s.Finished); err != nil {
				return fmt.Errorf("reading a step of maintenance: %w", err)
			}
			if err := json.Unmarshal([]byte(numbers), &s.Numbers); err != nil {
				return fmt.Errorf("reading the numbers of a step of maintenance: %w", err)
			}
			out = append(out, s)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("looking at maintenance: %w", err)
	}
	return out, nil
}
