package olap

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// RuleAlerts is how often a version of a rule was met in an hour.
type RuleAlerts struct {
	Rule, Entity, Severity  string
	Version                 int32
	Hour                    time.Time
	Alerts, Confirmed, Keys uint64
	Score                   float64       // the highest
	Delay                   time.Duration // median, from the event to the alert
}

// FraudSummary counts alerts of kind fraud by rule and hour of event time in [from, to), the newest hour first.
func (r *Reader) FraudSummary(ctx context.Context, tenant string, from, to time.Time) ([]RuleAlerts, error) {
	var out []RuleAlerts
	// Copies are compared by version and not by FINAL: on a cluster they may be on several shards.
	err := r.query(ctx, "SELECT toString(any(r)), toString(any(e)), toString(any(s)), v, h, count() AS n, countIf(c), uniqExact(k), max(score), toInt64(quantileExact(0.5)(greatest(toInt64(0), late))) FROM ("+
		"SELECT alert_id, any(rule) AS r, any(entity) AS e, any(severity) AS s, any(rule_version) AS v, toStartOfHour(any(occurred_at)) AS h, argMax(confirmed, version) AS c, any(key) AS k, "+
		"max(a.score) AS score, min(toUnixTimestamp64Micro(detected_at) - toUnixTimestamp64Micro(occurred_at)) AS late FROM alerts AS a "+
		"WHERE tenant = {tenant:String} AND kind = 'fraud' AND occurred_at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND occurred_at < fromUnixTimestamp64Micro({to:Int64}, 'UTC') GROUP BY alert_id) "+
		"GROUP BY r, v, h ORDER BY h DESC, n DESC, r, v", params{"tenant": tenant, "from": micros(from), "to": micros(to)},
		func(rows driver.Rows) error {
			var a RuleAlerts
			var delay int64
			if err := rows.Scan(&a.Rule, &a.Entity, &a.Severity, &a.Version, &a.Hour, &a.Alerts, &a.Confirmed, &a.Keys, &a.Score, &delay); err != nil {
				return fmt.Errorf("reading alerts of a rule: %w", err)
			}
			a.Delay = time.Duration(delay) * time.Microsecond
			out = append(out, a)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("counting alerts: %w", err)
	}
	return out, nil
}
