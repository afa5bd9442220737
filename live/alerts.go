package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/event"
)

// Alerts live in two kinds of keys, both of the tenant's hash tag, so that one script keeps them equal:
//
//	al1:{tenant}:s       stream of what is new, for whoever follows alerts: XREAD, XRANGE. An entry has the fields id (of the alert), c (1: confirmed) and v (the alert as
//	                     JSON, event.Alert). An alert that was provisional comes a second time when it is confirmed: the same id, and replaces the first.
//	al1:{tenant}:a:ID    the alert as it stands: c, then v
//
// Both are kept for AlertsKept, the stream for the last AlertsStreamed alerts at most (a little more: it is trimmed by whole nodes).
const alertsPrefix = "al1:{"

// Bounds of what is kept.
const (
	AlertsKept     = 7 * 24 * time.Hour
	AlertsStreamed = 10_000
)

func alertStream(tenant string) string { return alertsPrefix + tenant + "}:s" }

func alertKey(tenant, id string) string { return alertsPrefix + tenant + "}:a:" + id }

// putAlert takes KEYS stream, alert; ARGV c, v, milliseconds to keep it, length of the stream, id, oldest id of the stream. It answers 0 if nothing is new in it, 1 for a
// new alert, 2 for one that is confirmed now.
var putAlert = redis.NewScript(`
local have = redis.call('GET', KEYS[2])
if have and (string.sub(have, 1, 1) == '1' or ARGV[1] == '0') then return 0 end
redis.call('SET', KEYS[2], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], '*', 'id', ARGV[5], 'c', ARGV[1], 'v', ARGV[2])
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if have then return 2 end
return 1`)

// PutAlerts brings alerts to whoever follows them, in one pipeline, and says how many were new and how many are confirmed now. An alert is new once and confirmed once, in
// whatever order and however often it is put. What is older than AlertsKept is left out.
func PutAlerts(ctx context.Context, rdb redis.UniversalClient, alerts []event.Alert, now time.Time) (added, confirmed int64, err error) {
	pipe := rdb.Pipeline()
	var cmds []*redis.Cmd
	for i := range alerts {
		a := &alerts[i]
		if now.Sub(event.Time(a.DetectedAt)) >= AlertsKept {
			continue
		}
		text, err := json.Marshal(a)
		if err != nil {
			return 0, 0, fmt.Errorf("alert %s: %w", a.AlertID, err)
		}
		c := "0"
		if a.Confirmed {
			c = "1"
		}
		// EVAL, not EVALSHA: in a pipeline there is no falling back from NOSCRIPT, which a restarted or other node answers.
		cmds = append(cmds, putAlert.Eval(ctx, pipe, []string{alertStream(a.Tenant), alertKey(a.Tenant, a.AlertID)},
			c, text, AlertsKept.Milliseconds(), AlertsStreamed, a.AlertID, now.Add(-AlertsKept).UnixMilli()))
	}
	if len(cmds) == 0 {
		return 0, 0, nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, 0, fmt.Errorf("writing %d alerts: %w", len(cmds), err)
	}
	for _, c := range cmds {
		switch n, err := c.Int64(); {
		case err != nil:
			return added, confirmed, fmt.Errorf("writing alerts: %w", err)
		case n == 1:
			added++
		case n == 2:
			confirmed++
		}
	}
	return added, confirmed, nil
}

// StreamedAlert is an entry of a tenant's stream.
type StreamedAlert struct {
	Entry string // id of the entry, for AlertsAfter
	Alert event.Alert
}

// AlertsAfter gives the entries behind one, oldest first, at most limit. Behind "0" are all that the stream holds.
func AlertsAfter(ctx context.Context, rdb redis.UniversalClient, tenant, entry string, limit int64) ([]StreamedAlert, error) {
	got, err := rdb.XRangeN(ctx, alertStream(tenant), "("+entry, "+", limit).Result()
	if err != nil {
		return nil, fmt.Errorf("reading alerts of tenant %s: %w", tenant, err)
	}
	return streamedAlerts(got)
}

// NewestAlerts gives the last entries, newest first, at most limit.
func NewestAlerts(ctx context.Context, rdb redis.UniversalClient, tenant string, limit int64) ([]StreamedAlert, error) {
	got, err := rdb.XRevRangeN(ctx, alertStream(tenant), "+", "-", limit).Result()
	if err != nil {
		return nil, fmt.Errorf("reading alerts of tenant %s: %w", tenant, err)
	}
	return streamedAlerts(got)
}

func streamedAlerts(got []redis.XMessage) ([]StreamedAlert, error) {
	out := make([]StreamedAlert, len(got))
	for i, m := range got {
		text, ok := m.Values["v"].(string)
		if !ok {
			return nil, fmt.Errorf("entry %s of the alerts has no alert", m.ID)
		}
		out[i].Entry = m.ID
		if err := json.Unmarshal([]byte(text), &out[i].Alert); err != nil {
			return nil, fmt.Errorf("entry %s of the alerts: %w", m.ID, err)
		}
	}
	return out, nil
}

// Alert gives an alert as it stands; false if it is not kept.
func Alert(ctx context.Context, rdb redis.UniversalClient, tenant, id string) (event.Alert, bool, error) {
	var a event.Alert
	text, err := rdb.Get(ctx, alertKey(tenant, id)).Result()
	if errors.Is(err, redis.Nil) {
		return a, false, nil
	}
	if err != nil {
		return a, false, fmt.Errorf("reading alert %s: %w", id, err)
	}
	if text == "" {
		return a, false, fmt.Errorf("alert %s is empty", id)
	}
	if err := json.Unmarshal([]byte(text[1:]), &a); err != nil {
		return a, false, fmt.Errorf("alert %s: %w", id, err)
	}
	return a, true, nil
}

// Deliveries notes which alerts a destination has taken, so that none is sent twice while the note is kept: ad1:{tenant}:DESTINATION:ID, "0" for a provisional one, "1" for a confirmed
// one.
type Deliveries struct {
	Destination string
	Keep        time.Duration
}

func (d Deliveries) key(a *event.Alert) string {
	return "ad1:{" + a.Tenant + "}:" + d.Destination + ":" + a.AlertID
}

func state(confirmed bool) int {
	if confirmed {
		return 1
	}
	return 0
}

// Taken says whether the destination has taken the alert as it is, or confirmed.
func (d Deliveries) Taken(ctx context.Context, rdb redis.UniversalClient, a *event.Alert) (bool, error) {
	have, err := rdb.Get(ctx, d.key(a)).Result()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking whether %s has alert %s: %w", d.Destination, a.AlertID, err)
	}
	n, err := strconv.Atoi(have)
	return err == nil && n >= state(a.Confirmed), nil
}

// Note says that it has.
func (d Deliveries) Note(ctx context.Context, rdb redis.UniversalClient, a *event.Alert) error {
	if err := rdb.Set(ctx, d.key(a), state(a.Confirmed), d.Keep).Err(); err != nil {
		return fmt.Errorf("noting that %s has alert %s: %w", d.Destination, a.AlertID, err)
	}
	return nil
}
