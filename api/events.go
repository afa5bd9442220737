package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"millrace/event"
	"millrace/olap"
)

// eventJSON is one event as the API shows it.
type eventJSON struct {
	EventID    string   `json:"event_id"`
	Tenant     string   `json:"tenant"`
	Name       string   `json:"name"`
	Category   string   `json:"category"`
	VisitorID  string   `json:"visitor_id"`
	UserID     *string  `json:"user_id"`
	SessionID  *string  `json:"session_id"`
	OccurredAt stamp    `json:"occurred_at"`
	ReceivedAt stamp    `json:"received_at"`
	IngestedAt stamp    `json:"ingested_at"`
	Source     string   `json:"source"`
	Value      *string  `json:"value"`
	Currency   *string  `json:"currency"`
	OrderID    *string  `json:"order_id"`
	ProductIDs []string `json:"product_ids"`
	Properties string   `json:"properties"`
	Lane       string   `json:"lane"`
	Where      string   `json:"where"`
}

func showEvent(e *olap.EventRow) eventJSON {
	out := eventJSON{
		EventID: e.EventID, Tenant: e.Tenant, Name: e.Name, Category: e.Category, VisitorID: e.VisitorID, UserID: e.UserID, SessionID: e.SessionID,
		OccurredAt: stamp(e.OccurredAt), ReceivedAt: stamp(e.ReceivedAt), IngestedAt: stamp(e.IngestedAt), Source: e.Source, Currency: e.Currency, OrderID: e.OrderID,
		ProductIDs: e.ProductIDs, Properties: e.Properties, Lane: event.Lane(e.Lane).String(), Where: fmt.Sprintf("%s/%d@%d", e.KafkaTopic, e.KafkaPartition, e.KafkaOffset),
	}
	if out.ProductIDs == nil {
		out.ProductIDs = []string{}
	}
	if e.Value != nil {
		v := money(*e.Value)
		out.Value = &v
	}
	return out
}

// recentEvents is the answer of /api/v1/events/recent.
type recentEvents struct {
	AsOf   stamp       `json:"as_of"`
	Tenant string      `json:"tenant"`
	Events []eventJSON `json:"events"`
}

// lookbacks are how far it is looked for recent events, until there are enough: a busy shop's are in the last minute, and more of its past is not to be read.
var lookbacks = [...]time.Duration{time.Minute, 10 * time.Minute, time.Hour}

// eventFilter is what both the recent events and the live tail are asked for. It is comparable: equal filters share a poller.
type eventFilter struct{ tenant, category, name, search string }

func (a *API) eventFilter(q *query) eventFilter {
	names := make([]string, 0, len(event.Categories()))
	for _, c := range event.Categories() {
		names = append(names, c.String())
	}
	return eventFilter{tenant: q.tenant(a.cfg.Tenant), category: q.one("category", "", names...), name: q.text("name", "", 128), search: q.text("q", "", 128)}
}

// query makes the store's question of a filter.
func (f eventFilter) query(since time.Time, limit int) olap.EventsQuery {
	out := olap.EventsQuery{Tenant: f.tenant, Name: f.name, Search: f.search, Since: since, Limit: limit}
	if i := slices.IndexFunc(event.Categories(), func(c event.Category) bool { return c.String() == f.category }); i >= 0 {
		out.OneCategory, out.Category = true, event.Categories()[i]
	}
	return out
}

// tables that a filter's events are in.
func (f eventFilter) tables() []string {
	var out []string
	for _, c := range event.Categories() {
		if f.category == "" || c.String() == f.category {
			out = append(out, c.Table())
		}
	}
	return out
}

func (a *API) serveRecent(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	f, limit := a.eventFilter(q), q.integer("limit", 50, 1, 500)
	if err := q.err(); err != nil {
		return nil, err
	}
	key := fmt.Sprintf("recent\x00%q\x00%d\x00%d", f, limit, a.now().Unix()/60)
	return a.answer(r.Context(), key, f.tables(), func(ctx context.Context) (any, error) {
		found, err := a.recent(ctx, f, limit)
		if err != nil {
			return nil, err
		}
		out := &recentEvents{AsOf: stamp(a.now()), Tenant: f.tenant, Events: []eventJSON{}}
		for i := range found {
			out.Events = append(out.Events, showEvent(&found[i]))
		}
		return out, nil
	})
}

// recent finds the newest events of the last hour.
func (a *API) recent(ctx context.Context, f eventFilter, limit int) (found []olap.EventRow, err error) {
	for _, back := range lookbacks {
		if found, err = a.olap.Events(ctx, f.query(a.now().Add(-back), limit)); err != nil || len(found) >= limit {
			break
		}
	}
	return found, err
}
