package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/event"
	"millrace/internal/fault"
	"millrace/live"
	"millrace/olap"
)

const idAlert fault.ID = "MR-ALT-004"

// alertJSON is one alert as it stands.
type alertJSON struct {
	AlertID        string          `json:"alert_id"`
	Kind           string          `json:"kind"`
	Rule           string          `json:"rule"`
	RuleVersion    int32           `json:"rule_version"`
	Tenant         string          `json:"tenant"`
	Entity         string          `json:"entity"`
	Key            string          `json:"key"`
	Severity       string          `json:"severity"`
	Score          float64         `json:"score"`
	Reasons        []string        `json:"reasons"`
	TriggerEventID string          `json:"trigger_event_id"`
	OccurredAt     stamp           `json:"occurred_at"`
	DetectedAt     stamp           `json:"detected_at"`
	Confirmed      bool            `json:"confirmed"`
	Details        json.RawMessage `json:"details"`
}

func showAlert(a *event.Alert) alertJSON {
	out := alertJSON{
		AlertID: a.AlertID, Kind: a.Kind, Rule: a.Rule, RuleVersion: a.RuleVersion, Tenant: a.Tenant, Entity: a.Entity, Key: a.Key, Severity: a.Severity, Score: a.Score, Reasons: a.Reasons,
		TriggerEventID: a.TriggerEventID, OccurredAt: stamp(time.UnixMicro(a.OccurredAt)), DetectedAt: stamp(time.UnixMicro(a.DetectedAt)), Confirmed: a.Confirmed, Details: json.RawMessage("null"),
	}
	if out.Reasons == nil {
		out.Reasons = []string{}
	}
	if strings.HasPrefix(a.Details, "{") && json.Valid([]byte(a.Details)) {
		out.Details = json.RawMessage(a.Details)
	}
	return out
}

// alertList is the answer of /api/v1/alerts.
type alertList struct {
	AsOf   stamp       `json:"as_of"`
	Tenant string      `json:"tenant"`
	Alerts []alertJSON `json:"alerts"`
	Next   string      `json:"next"` // page; "" at the end
}

const (
	maxAlertRange = 366 * 24 * time.Hour
	alertRange    = 24 * time.Hour
)

// alertFilter is which alerts are asked for.
type alertFilter struct {
	tenant, kind, rule, entity, key, severity, state string
}

func (a *API) alertFilter(q *query) alertFilter {
	return alertFilter{
		tenant: q.tenant(a.cfg.Tenant), kind: q.one("kind", "", event.AlertFraud, event.AlertAnomaly, event.AlertStock, event.AlertEngine), rule: q.text("rule", "", 128),
		entity: q.one("entity", "", event.EntityVisitor, event.EntityUser, event.EntityCard, event.EntityIP, event.EntityDevice, event.EntityProduct, event.EntityKPI), key: q.text("key", "", 256),
		severity: q.one("severity", "", alertSeverities()...), state: q.one("state", "", "confirmed", "provisional"),
	}
}

// alertSeverities are the severities, least first.
func alertSeverities() []string {
	return []string{event.SeverityInfo, event.SeverityWarn, event.SeverityCritical}
}

// least gives the severities from the one that was asked for; nil for all.
func (f alertFilter) least() []string {
	if f.severity == "" {
		return nil
	}
	all := alertSeverities()
	return all[slices.Index(all, f.severity):]
}

func (f alertFilter) takes(a *event.Alert) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	return is(f.kind, a.Kind) && is(f.rule, a.Rule) && is(f.entity, a.Entity) && is(f.key, a.Key) && (f.severity == "" || slices.Contains(f.least(), a.Severity)) &&
		(f.state == "" || (f.state == "confirmed") == a.Confirmed)
}

// pageToken is where the next page begins: behind an alert.
var pageToken = regexp.MustCompile(`^([0-9]{1,16})\.([0-9A-Za-z_-]{1,64})$`)

func (a *API) serveAlerts(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	f := a.alertFilter(q)
	limit, page := q.integer("limit", 50, 1, 500), q.text("page", "", 96)
	to := q.time("to", a.now().Truncate(time.Second).Add(time.Minute)) // clocks of tasks may be a little ahead
	from := q.time("from", to.Add(-alertRange))
	if !from.Before(to) {
		q.bad("from", "is not before to")
	} else if to.Sub(from) > maxAlertRange {
		q.bad("from", "is more than %s before to", short(maxAlertRange))
	}
	ask := olap.AlertQuery{Tenant: f.tenant, From: from, To: to, Kind: f.kind, Rule: f.rule, Entity: f.entity, Key: f.key, Severities: f.least(), Limit: limit + 1}
	if f.state != "" {
		confirmed := f.state == "confirmed"
		ask.Confirmed = &confirmed
	}
	if page != "" {
		m := pageToken.FindStringSubmatch(page)
		if m == nil {
			q.bad("page", "is not the next of an answer")
		} else {
			at, _ := strconv.ParseInt(m[1], 10, 64) // digits
			ask.BeforeAt, ask.BeforeID = time.UnixMicro(at), m[2]
		}
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	key := fmt.Sprintf("alerts\x00%q\x00%d\x00%d\x00%s\x00%d", f, from.UnixMicro(), to.UnixMicro(), page, limit)
	return a.answer(r.Context(), key, []string{olap.TableAlerts}, func(ctx context.Context) (any, error) {
		found, err := a.olap.Alerts(ctx, ask)
		if err != nil {
			return nil, err
		}
		out := &alertList{AsOf: stamp(a.now()), Tenant: f.tenant, Alerts: []alertJSON{}}
		if len(found) > limit {
			found = found[:limit]
			last := found[limit-1]
			out.Next = fmt.Sprintf("%d.%s", last.OccurredAt, last.AlertID)
		}
		for i := range found {
			out.Alerts = append(out.Alerts, showAlert(&found[i]))
		}
		return out, nil
	})
}

// alertID is an id of an alert.
var alertID = regexp.MustCompile(`^[0-9A-Za-z_-]{1,64}$`)

// serveAlert gives one alert: from Redis, which has it first, else from ClickHouse.
func (a *API) serveAlert(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	tenant := q.tenant(a.cfg.Tenant)
	if err := q.err(); err != nil {
		return nil, err
	}
	id := r.PathValue("alert_id")
	none := func() error { return newProblem(idAlert, "there is no alert "+clean(id)) }
	if !alertID.MatchString(id) {
		return nil, none()
	}
	return a.flights.do(r.Context(), "alert\x00"+tenant+"\x00"+id, func(ctx context.Context) ([]byte, error) {
		if found, ok := a.liveAlert(ctx, tenant, id); ok {
			return encode(showAlert(&found), nil)
		}
		release, err := a.flights.place(ctx)
		if err != nil {
			return nil, err
		}
		defer release()
		found, ok, err := a.olap.Alert(ctx, tenant, id)
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return nil, none()
		}
		return encode(showAlert(&found), nil)
	})
}

func (a *API) liveAlert(ctx context.Context, tenant, id string) (event.Alert, bool) {
	if a.redis == nil || a.away.now() {
		return event.Alert{}, false
	}
	limited, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	found, ok, err := live.Alert(limited, a.redis, tenant, id)
	a.away.note(ctx, err)
	if err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "alert not read from Redis, asking ClickHouse", "error", err)
	}
	return found, ok && err == nil
}

// alertsMessage is the data of an event "alerts".
type alertsMessage struct {
	AsOf    stamp       `json:"as_of"`
	Alerts  []alertJSON `json:"alerts"`
	Skipped int64       `json:"skipped"`
}

const (
	streamedAlerts = 100  // of one message
	alertBatch     = 1000 // what one poll reads
)

func (a *API) streamAlerts(w http.ResponseWriter, r *http.Request) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	f := a.alertFilter(q)
	if err := q.err(); err != nil {
		a.fail(w, r, err)
		return
	}
	if a.redis == nil {
		a.fail(w, r, newProblem(idUnavailable, "no Redis is configured"))
		return
	}
	a.serveStream(w, r, fmt.Sprintf("alerts\x00%q", f), func() poller {
		t := &alertTail{a: a, filter: f}
		return t.poll
	})
}

// alertTail follows a tenant's stream of alerts.
type alertTail struct {
	a      *API
	filter alertFilter
	entry  string // last one read; "": none
	newest []alertJSON
}

func (t *alertTail) poll(ctx context.Context) (now, welcome message) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	first := t.entry == ""
	found, err := t.read(ctx)
	if err != nil {
		if ctx.Err() == nil {
			t.a.log.WarnContext(ctx, "stream of alerts not read", "error", err)
		}
		return nil, nil
	}
	fresh, skipped := []alertJSON{}, int64(0)
	for i := len(found) - 1; i >= 0; i-- { // newest first
		if !t.filter.takes(&found[i].Alert) || slices.ContainsFunc(fresh, func(a alertJSON) bool { return a.AlertID == found[i].Alert.AlertID }) {
			continue // a later one of the same alert stands for both
		}
		if len(fresh) == streamedAlerts {
			skipped++
			continue
		}
		fresh = append(fresh, showAlert(&found[i].Alert))
	}
	if len(fresh) == 0 && !first {
		return nil, nil
	}
	t.newest = slices.DeleteFunc(t.newest, func(old alertJSON) bool {
		return slices.ContainsFunc(fresh, func(a alertJSON) bool { return a.AlertID == old.AlertID })
	})
	t.newest = append(slices.Clone(fresh), t.newest...)
	t.newest = t.newest[:min(len(t.newest), streamedAlerts)]
	if first {
		skipped = 0 // what is older than the first message was not skipped
	}
	return t.encode(ctx, fresh, skipped), t.encode(ctx, t.newest, 0)
}

// read gives the entries that are new, oldest first; at first the newest that there are.
func (t *alertTail) read(ctx context.Context) ([]live.StreamedAlert, error) {
	var found []live.StreamedAlert
	var err error
	if t.entry == "" {
		found, err = live.NewestAlerts(ctx, t.a.redis, t.filter.tenant, alertBatch)
		slices.Reverse(found)
	} else {
		found, err = live.AlertsAfter(ctx, t.a.redis, t.filter.tenant, t.entry, alertBatch)
	}
	switch {
	case err != nil:
		return nil, err
	case len(found) > 0:
		t.entry = found[len(found)-1].Entry
	case t.entry == "":
		t.entry = "0"
	}
	return found, nil
}

func (t *alertTail) encode(ctx context.Context, alerts []alertJSON, skipped int64) message {
	b, err := encode(&alertsMessage{AsOf: stamp(t.a.now()), Alerts: alerts, Skipped: skipped}, nil)
	if err != nil {
		t.a.log.ErrorContext(ctx, "alerts message not encoded", "error", err)
		return nil
	}
	return encodeMessage("alerts", t.entry, b)
}
