package olap

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// ReconcileRun is what one reconciliation found of one store.
type ReconcileRun struct {
	Topic    string
	Hour     time.Time
	Run      string
	Store    string
	Outcome  string
	Expected int64
	Found    int64
	Repaired int64
	Kinds    map[string]int64 // rows by kind of difference, those that there are
	Started  time.Time
	Finished time.Time
}

var reconcileKinds = []string{"missing", "duplicate", "surplus", "changed", "unexplained", "uncounted", "late", "erased", "refused", "repeated", "order_copy"}

// ReconcileRuns gives the newest reconciliations, the newest first; topic "" is all. Copies of a row are compared by version and not by FINAL: on a cluster they may be on
// several shards.
func (r *Reader) ReconcileRuns(ctx context.Context, topic string, most int) ([]ReconcileRun, error) {
	var counts strings.Builder
	for _, k := range reconcileKinds {
		counts.WriteString(", argMax(" + k + ", version)")
	}
	var out []ReconcileRun
	err := r.query(ctx, "SELECT topic, hour, run, store, argMax(outcome, version), argMax(expected, version), argMax(found, version), argMax(repaired, version), argMax(started_at, version) AS started, argMax(tuple(finished_at), version).1"+counts.String()+
		" FROM reconcile_runs WHERE ({topic:String} = '' OR topic = {topic:String}) GROUP BY topic, hour, run, store ORDER BY started DESC, topic, store LIMIT {most:UInt32}", params{"topic": topic, "most": strconv.Itoa(most)}, func(rows driver.Rows) error {
		x := ReconcileRun{Kinds: map[string]int64{}}
		var finished *time.Time
		n := make([]int64, len(reconcileKinds))
		dest := []any{&x.Topic, &x.Hour, &x.Run, &x.Store, &x.Outcome, &x.Expected, &x.Found, &x.Repaired, &x.Started, &finished}
		for i := range n {
			dest = append(dest, &n[i])
		}
		if err := rows.Scan(dest...); err != nil {
			return fmt.Errorf("reading a reconciliation: %w", err)
		}
		if finished != nil {
			x.Finished = *finished
		}
		for i, k := range reconcileKinds {
			if n[i] != 0 {
				x.Kinds[k] = n[i]
			}
		}
		out = append(out, x)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading reconciliations: %w", err)
	}
	return out, nil
}

// ReconcileDifference is a run of raw offsets by which a store differed from the control totals.
type ReconcileDifference struct {
	Topic     string
	Hour      time.Time
	Store     string
	Kind      string
	Partition int32
	From, To  int64 // raw offsets
	Count     int64
	State     string
	Noted     time.Time
}

// ReconcileDifferences gives the newest differences, the open ones first; topic "" is all, open alone those that are not mended.
func (r *Reader) ReconcileDifferences(ctx context.Context, topic string, open bool, most int) ([]ReconcileDifference, error) {
	having := ""
	if open {
		having = " HAVING state IN ('open', 'nosource')"
	}
	var out []ReconcileDifference
	err := r.query(ctx, "SELECT topic, hour, store, kind, raw_partition, raw_from, argMax(raw_to, version), argMax(count, version), argMax(state, version) AS state, argMax(noted_at, version) AS noted"+
		" FROM reconcile_differences WHERE ({topic:String} = '' OR topic = {topic:String}) GROUP BY topic, hour, store, kind, raw_partition, raw_from"+having+
		" ORDER BY state IN ('open', 'nosource') DESC, noted DESC, topic, store, kind, raw_partition, raw_from LIMIT {most:UInt32}", params{"topic": topic, "most": strconv.Itoa(most)}, func(rows driver.Rows) error {
		var d ReconcileDifference
		if err := rows.Scan(&d.Topic, &d.Hour, &d.Store, &d.Kind, &d.Partition, &d.From, &d.To, &d.Count, &d.State, &d.Noted); err != nil {
			return fmt.Errorf("reading a difference: %w", err)
		}
		out = append(out, d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading differences: %w", err)
	}
	return out, nil
}
