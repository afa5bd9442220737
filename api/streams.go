package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"

	"millrace/olap"
)

const (
	streamWindow = time.Minute
	tailLength   = 30 * time.Second
	// streamedEvents bounds the events of one message.
	streamedEvents = 50
	// tailBatch is what one poll of the live tail reads at most.
	tailBatch = 1000
	// tailReach is how far back a poll looks: partitions are stored by batches, which do not come in the order of arrival.
	tailReach = 20 * time.Second
)

// liveMessage is the data of an event "live".
type liveMessage struct {
	AsOf   stamp         `json:"as_of"`
	KPIs   *liveKPIs     `json:"kpis"`
	Health healthSummary `json:"health"`
	Tail   *series       `json:"tail"`
}

func (a *API) streamLive(w http.ResponseWriter, r *http.Request) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	tenant := q.tenant(a.cfg.Tenant)
	if err := q.err(); err != nil {
		a.fail(w, r, err)
		return
	}
	a.serveStream(w, r, "live\x00"+tenant, func() poller {
		return func(ctx context.Context) (message, message) {
			m := a.liveMessage(ctx, tenant)
			return m, m
		}
	})
}

func (a *API) liveMessage(ctx context.Context, tenant string) message {
	out := liveMessage{AsOf: stamp(a.now())}
	k, r, err := a.live(ctx, tenant, "", streamWindow)
	if err == nil {
		out.KPIs, out.AsOf = k, k.AsOf
		out.Tail, err = tail(tenant, a.definitions.Zone(tenant), r, time.Time(k.To), tailLength)
	}
	if err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "live message without KPIs", "error", err)
	}
	h, err := a.health.report(ctx)
	if err != nil {
		return nil // it is ending
	}
	out.Health = h.summary()
	b, err := encode(&out, nil)
	if err != nil {
		a.log.ErrorContext(ctx, "live message not encoded", "error", err)
		return nil
	}
	return encodeMessage("live", strconv.FormatInt(time.Time(out.AsOf).Unix(), 10), b)
}

// eventsMessage is the data of an event "events".
type eventsMessage struct {
	AsOf    stamp       `json:"as_of"`
	Events  []eventJSON `json:"events"`
	Skipped int64       `json:"skipped"`
}

func (a *API) streamEvents(w http.ResponseWriter, r *http.Request) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	f := a.eventFilter(q)
	if err := q.err(); err != nil {
		a.fail(w, r, err)
		return
	}
	a.serveStream(w, r, fmt.Sprintf("events\x00%q", f), func() poller {
		t := &eventTail{a: a, filter: f}
		return t.poll
	})
}

// place is where an event was read from, unique among events.
type place struct {
	topic     string
	partition int32
}

// eventTail finds what is new among the newest events.
type eventTail struct {
	a       *API
	filter  eventFilter
	started bool
	floor   time.Time       // the oldest arrival of the first reading, if there may be older ones than it could hold
	seen    map[place]int64 // the greatest offset that was shown, or passed by, of each partition
	newest  []eventJSON     // for those who come later
}

func (t *eventTail) poll(ctx context.Context) (now, welcome message) {
	found, err := t.read(ctx)
	if err != nil {
		if ctx.Err() == nil {
			t.a.log.WarnContext(ctx, "live tail not read", "error", err)
		}
		return nil, nil
	}
	fresh, skipped := t.take(found)
	first := !t.started
	t.started = true
	if len(fresh) == 0 && !first {
		return nil, nil
	}
	t.newest = append(fresh, t.newest...)
	t.newest = t.newest[:min(len(t.newest), streamedEvents)]
	return t.encode(ctx, fresh, skipped), t.encode(ctx, t.newest, 0)
}

// take gives the events that were not there before, newest first, at most streamedEvents, and how many more there are. An event can be read some time after its arrival, so
// that alone does not make it an old one: in a partition of which nothing has been shown, it is one only if the first reading had no room for it.
func (t *eventTail) take(found []olap.EventRow) (fresh []eventJSON, skipped int64) {
	fresh = []eventJSON{}
	before := t.seen
	t.seen = maps.Clone(before)
	if t.seen == nil {
		t.seen = map[place]int64{}
	}
	if !t.started {
		if n := len(found); n >= streamedEvents {
			t.floor = found[n-1].IngestedAt
		}
	}
	for i := range found {
		e := &found[i]
		at := place{e.KafkaTopic, e.KafkaPartition}
		last, known := before[at]
		if known && e.KafkaOffset <= last || !known && t.started && !e.IngestedAt.After(t.floor) {
			continue
		}
		if last, ok := t.seen[at]; !ok || e.KafkaOffset > last {
			t.seen[at] = e.KafkaOffset
		}
		if len(fresh) < streamedEvents {
			fresh = append(fresh, showEvent(e))
		} else if t.started {
			skipped++
		}
	}
	return fresh, skipped
}

func (t *eventTail) encode(ctx context.Context, events []eventJSON, skipped int64) message {
	b, err := encode(&eventsMessage{AsOf: stamp(t.a.now()), Events: events, Skipped: skipped}, nil)
	if err != nil {
		t.a.log.ErrorContext(ctx, "events message not encoded", "error", err)
		return nil
	}
	return encodeMessage("events", "", b)
}

// read gives the newest events; for the first message those of the last hour.
func (t *eventTail) read(ctx context.Context) ([]olap.EventRow, error) {
	release, err := t.a.flights.place(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if !t.started {
		return t.a.recent(ctx, t.filter, streamedEvents)
	}
	return t.a.olap.Events(ctx, t.filter.query(t.a.now().Add(-tailReach), tailBatch))
}
