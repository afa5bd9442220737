package olap

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/event"
)

// AlertQuery is a question about alerts of a tenant, the newest by event time first.
type AlertQuery struct {
	Tenant      string
	From, To    time.Time // of occurred_at
	Kind        string    // "": any, as below
	Rule        string
	Entity, Key string
	Severities  []string
	Confirmed   *bool
	BeforeAt    time.Time // with BeforeID: only what comes after this alert in the order of the answer; zero: from the first
	BeforeID    string
	Limit       int
}

const alertColumns = "alert_id, toString(kind), toString(rule), rule_version, toString(tenant), toString(entity), key, toString(severity), score, reasons, trigger_event_id, " +
	"toUnixTimestamp64Micro(occurred_at), toUnixTimestamp64Micro(detected_at), confirmed, details"

func scanAlert(rows driver.Rows) (event.Alert, error) {
	var a event.Alert
	err := rows.Scan(&a.AlertID, &a.Kind, &a.Rule, &a.RuleVersion, &a.Tenant, &a.Entity, &a.Key, &a.Severity, &a.Score, &a.Reasons, &a.TriggerEventID, &a.OccurredAt, &a.DetectedAt, &a.Confirmed, &a.Details)
	return a, err
}

// Alerts answers with each alert as it stands. Copies are compared by version and not by FINAL: on a cluster they may be on several shards.
func (r *Reader) Alerts(ctx context.Context, q AlertQuery) ([]event.Alert, error) {
	p := params{"tenant": q.Tenant, "from": micros(q.From), "to": micros(q.To), "limit": strconv.Itoa(q.Limit)}
	var where strings.Builder
	for _, f := range [][2]string{{"kind", q.Kind}, {"rule", q.Rule}, {"entity", q.Entity}, {"key", q.Key}} {
		if f[1] != "" {
			p[f[0]] = f[1]
			where.WriteString(" AND " + f[0] + " = {" + f[0] + ":String}")
		}
	}
	if len(q.Severities) > 0 {
		var names []string
		for i, s := range q.Severities {
			name := "s" + strconv.Itoa(i)
			p[name] = s
			names = append(names, "{"+name+":String}")
		}
		where.WriteString(" AND severity IN (" + strings.Join(names, ", ") + ")")
	}
	if q.Confirmed != nil {
		p["confirmed"] = strconv.FormatBool(*q.Confirmed)
		where.WriteString(" AND confirmed = {confirmed:Bool}")
	}
	if q.BeforeID != "" {
		p["at"], p["id"] = micros(q.BeforeAt), q.BeforeID
		where.WriteString(" AND (occurred_at, alert_id) < (fromUnixTimestamp64Micro({at:Int64}, 'UTC'), {id:String})")
	}
	sql := "SELECT " + alertColumns + " FROM (SELECT * FROM " + TableAlerts + " WHERE tenant = {tenant:String} AND occurred_at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND occurred_at < fromUnixTimestamp64Micro({to:Int64}, 'UTC')" +
		" ORDER BY version DESC LIMIT 1 BY alert_id) WHERE 1" + where.String() + " ORDER BY occurred_at DESC, alert_id DESC LIMIT {limit:UInt32}"
	var out []event.Alert
	err := r.query(ctx, sql, p, func(rows driver.Rows) error {
		a, err := scanAlert(rows)
		if err != nil {
			return fmt.Errorf("reading an alert: %w", err)
		}
		out = append(out, a)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading alerts: %w", err)
	}
	return out, nil
}

// Alert gives one alert as it stands; false if there is none.
func (r *Reader) Alert(ctx context.Context, tenant, id string) (a event.Alert, found bool, err error) {
	err = r.query(ctx, "SELECT "+alertColumns+" FROM "+TableAlerts+" WHERE tenant = {tenant:String} AND alert_id = {id:String} ORDER BY version DESC LIMIT 1", params{"tenant": tenant, "id": id}, func(rows driver.Rows) error {
		var err error
		a, err = scanAlert(rows)
		found = err == nil
		return err
	})
	if err != nil {
		return event.Alert{}, false, fmt.Errorf("reading alert %s: %w", id, err)
	}
	return a, found, nil
}
