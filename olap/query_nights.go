package olap

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Night is one night as workflow_runs has it.
type Night struct {
	Night       string // a day, or of short nights the time
	Run         string
	Outcome     string
	Reason      string
	Trigger     string
	WorkflowID  string
	WorkflowRun string
	Started     time.Time
	Finished    time.Time // zero: it runs, or its end was not noted
	Steps       []NightStep
	Parts       []NightPart
}

// NightStep is what a step of a night came to.
type NightStep struct {
	Step        string
	Outcome     string
	Reason      string
	Numbers     map[string]int64
	WorkflowRun string
	Started     time.Time
	Finished    time.Time
}

// NightPart is a workflow that a night ran.
type NightPart struct {
	Type        string
	WorkflowID  string
	WorkflowRun string
	Outcome     string
	Reason      string
	Started     time.Time
	Finished    time.Time
}

// maxNightParts bounds the workflows that are given of a night: those that failed come first.
const maxNightParts = 200

// Nights gives the newest nights, the newest first, each with its steps in the order in which they were done and the workflows that it ran. Copies of a row are compared by
// version and not by FINAL: on a cluster they may be on several shards.
func (r *Reader) Nights(ctx context.Context, most int) ([]Night, error) {
	var out []Night
	at := map[string]int{} // by workflow id and run
	var ids, runs []string
	err := r.query(ctx, `SELECT substring(id, 9) AS night, id, run, argMax(outcome, version), argMax(reason, version), argMax(trigger, version), argMax(workflow_run, version), argMax(started_at, version),
		argMax(tuple(finished_at), version).1 FROM workflow_runs WHERE type = 'Nightly' AND startsWith(id, 'nightly/') GROUP BY id, run ORDER BY night DESC, run DESC LIMIT {most:UInt32}`,
		params{"most": strconv.Itoa(most)}, func(rows driver.Rows) error {
			var n Night
			var finished *time.Time
			if err := rows.Scan(&n.Night, &n.WorkflowID, &n.Run, &n.Outcome, &n.Reason, &n.Trigger, &n.WorkflowRun, &n.Started, &finished); err != nil {
				return fmt.Errorf("reading a night: %w", err)
			}
			if finished != nil {
				n.Finished = *finished
			}
			at[n.WorkflowID+"\x00"+n.Run] = len(out)
			ids, runs = append(ids, n.WorkflowID), append(runs, n.Run)
			out = append(out, n)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("looking at nights: %w", err)
	}
	if len(out) == 0 {
		return out, nil
	}
	if err := r.nightSteps(ctx, ids, func(id, run string, s NightStep) {
		if i, ok := at[id+"\x00"+run]; ok {
			out[i].Steps = append(out[i].Steps, s)
		}
	}); err != nil {
		return nil, err
	}
	return out, r.nightParts(ctx, runs, func(run string, p NightPart) {
		for i := range out {
			if out[i].Run == run && len(out[i].Parts) < maxNightParts {
				out[i].Parts = append(out[i].Parts, p)
			}
		}
	})
}

func (r *Reader) nightSteps(ctx context.Context, ids []string, each func(id, run string, s NightStep)) error {
	err := r.query(ctx, `SELECT id, run, step, argMax(outcome, version), argMax(reason, version), toJSONString(argMax(numbers, version)), argMax(workflow_run, version), argMax(started_at, version) AS began, argMax(finished_at, version) AS ended
		FROM workflow_steps WHERE has({ids:Array(String)}, id) GROUP BY id, run, step ORDER BY began, ended, step`, params{"ids": arrayOf(ids)}, func(rows driver.Rows) error {
		var s NightStep
		var id, run, numbers string
		if err := rows.Scan(&id, &run, &s.Step, &s.Outcome, &s.Reason, &numbers, &s.WorkflowRun, &s.Started, &s.Finished); err != nil {
			return fmt.Errorf("reading a step of a night: %w", err)
		}
		if err := json.Unmarshal([]byte(numbers), &s.Numbers); err != nil {
			return fmt.Errorf("reading a step of a night: %w", err)
		}
		each(id, run, s)
		return nil
	})
	if err != nil {
		return fmt.Errorf("looking at the steps of nights: %w", err)
	}
	return nil
}

func (r *Reader) nightParts(ctx context.Context, nights []string, each func(run string, p NightPart)) error {
	err := r.query(ctx, `SELECT run, argMax(type, version) AS kind, id, argMax(workflow_run, version), argMax(outcome, version) AS end, argMax(reason, version), argMax(started_at, version) AS began, argMax(tuple(finished_at), version).1
		FROM workflow_runs WHERE trigger = 'nightly' AND type != 'Nightly' AND has({runs:Array(String)}, run) GROUP BY run, id ORDER BY end != 'failed', began, id`, params{"runs": arrayOf(nights)}, func(rows driver.Rows) error {
		var p NightPart
		var run string
		var finished *time.Time
		if err := rows.Scan(&run, &p.Type, &p.WorkflowID, &p.WorkflowRun, &p.Outcome, &p.Reason, &p.Started, &finished); err != nil {
			return fmt.Errorf("reading a workflow of a night: %w", err)
		}
		if finished != nil {
			p.Finished = *finished
		}
		each(run, p)
		return nil
	})
	if err != nil {
		return fmt.Errorf("looking at the workflows of nights: %w", err)
	}
	return nil
}

// arrayOf writes texts as the server reads an Array(String).
func arrayOf(texts []string) string {
	b := []byte{'['}
	for i, t := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '\'')
		for _, c := range []byte(t) {
			if c == '\'' || c == '\\' {
				b = append(b, '\\')
			}
			b = append(b, c)
		}
		b = append(b, '\'')
	}
	return string(append(b, ']'))
}

// NightGaps are the days between the nights, which come newest first, that have none. Short nights have no known distance.
func NightGaps(nights []Night) []string {
	var out []string
	var next time.Time
	for _, n := range nights {
		day, err := time.Parse(time.DateOnly, n.Night)
		if err != nil {
			continue
		}
		if !next.IsZero() {
			for d := next.AddDate(0, 0, -1); d.After(day); d = d.AddDate(0, 0, -1) {
				out = append(out, d.Format(time.DateOnly))
			}
		}
		next = day
	}
	return out
}
