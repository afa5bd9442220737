package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"millrace/olap"
)

// fraudHour is how often a version of a rule was met in an hour of event time.
type fraudHour struct {
	Rule         string  `json:"rule"`
	RuleVersion  int32   `json:"rule_version"`
	Entity       string  `json:"entity"`
	Severity     string  `json:"severity"`
	Hour         stamp   `json:"hour"`
	Alerts       uint64  `json:"alerts"`
	Confirmed    uint64  `json:"confirmed"`
	Keys         uint64  `json:"keys"`
	Score        float64 `json:"score"`
	DelaySeconds float64 `json:"delay_seconds"`
}

// fraudSummary is the answer of /api/v1/fraud.
type fraudSummary struct {
	AsOf   stamp       `json:"as_of"`
	Tenant string      `json:"tenant"`
	From   stamp       `json:"from"`
	To     stamp       `json:"to"`
	Hours  []fraudHour `json:"hours"`
}

const maxFraudRange = 31 * 24 * time.Hour

func (a *API) serveFraud(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	tenant := q.tenant(a.cfg.Tenant)
	to := q.time("to", a.now().Truncate(time.Second).Add(time.Minute)) // clocks of tasks may be a little ahead
	from := q.time("from", to.Add(-24*time.Hour))
	if !from.Before(to) {
		q.bad("from", "is not before to")
	} else if to.Sub(from) > maxFraudRange {
		q.bad("from", "is more than %s before to", short(maxFraudRange))
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	key := fmt.Sprintf("fraud\x00%s\x00%d\x00%d", tenant, from.UnixMicro(), to.UnixMicro())
	return a.answer(r.Context(), key, []string{olap.TableAlerts}, func(ctx context.Context) (any, error) {
		found, err := a.olap.FraudSummary(ctx, tenant, from, to)
		if err != nil {
			return nil, err
		}
		out := fraudSummary{AsOf: stamp(a.now()), Tenant: tenant, From: stamp(from), To: stamp(to), Hours: []fraudHour{}}
		for _, x := range found {
			out.Hours = append(out.Hours, fraudHour{
				Rule: x.Rule, RuleVersion: x.Version, Entity: x.Entity, Severity: x.Severity, Hour: stamp(x.Hour), Alerts: x.Alerts, Confirmed: x.Confirmed, Keys: x.Keys, Score: x.Score, DelaySeconds: x.Delay.Seconds(),
			})
		}
		return out, nil
	})
}
