package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/event/wire"
	"millrace/internal/simulate"
	"millrace/kpi"
	"millrace/streaming"
	"millrace/streaming/hot"
)

type options struct {
	events   int64
	tempo    float64
	seed     uint64
	disorder float64
	fraud    float64
}

// attacked is one attack.
type attacked struct {
	label  string
	first  int64 // µs, of its first labelled event
	events int
	found  int64 // µs, of the first event at which a rule was met; 0: none was
	after  int   // labelled events up to that one
	rules  map[string]bool
}

// result is what was found.
type result struct {
	attacks          []*attacked
	events, labelled int
	right, wrong     map[string]int // alerts at labelled and at other events, by rule
	fast, confirmed  int
	both             int
	spent            time.Duration
}

// collect makes the simulator's events, in their order, as the gateway decodes them.
func collect(ctx context.Context, o options) ([]event.Event, error) {
	var out []event.Event
	var failed error
	dec := wire.NewDecoder()
	dec.Reset(&wire.Source{Tenant: "default", Name: "shop", Redactor: wire.NewRedactor(nil), Secret: wire.Secret{ID: "k1", Key: []byte("secret")}})
	newest := int64(0)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			failed = err
		}
		wire.Split(body, func(text []byte) bool {
			var e event.Event
			if fail := dec.Decode(text, &e); fail != nil {
				failed = fmt.Errorf("an event is refused: %w", fail)
				return false
			}
			newest = max(newest, e.OccurredAt)
			if fail := dec.Complete(&wire.Request{ReceivedAt: newest}); fail != nil {
				failed = fmt.Errorf("an event is refused: %w", fail)
				return false
			}
			b, err := json.Marshal(e) // a copy that does not share the body
			if err == nil {
				var c event.Event
				if err = json.Unmarshal(b, &c); err == nil {
					out = append(out, c)
				}
			}
			failed = err
			return err == nil
		})
		_, _ = fmt.Fprint(w, `{"success":true}`) // the simulator counts what is lost
	}))
	defer server.Close()
	s := simulate.DefaultOptions()
	s.To, s.WriteKey, s.Seed, s.Events, s.Tempo, s.Connections, s.Shoppers = server.URL, "k", o.seed, o.events, o.tempo, 1, 1000
	s.Start, s.Diurnal = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC), 0
	s.Shares = simulate.Shares{OutOfOrder: o.disorder, Fraud: o.fraud}
	if _, err := simulate.Run(ctx, s); err != nil {
		return nil, err
	}
	return out, failed
}

// evaluate lets the events go through both stages, of one task each.
func evaluate(ctx context.Context, o options) (*result, error) {
	events, err := collect(ctx, o)
	if err != nil {
		return nil, err
	}
	codecs, err := schema.NewCodecs()
	if err != nil {
		return nil, err
	}
	codecs.AssignLocal()
	defs, err := kpi.New(kpi.Config{})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fraud-drill-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a folder of scratch files
	fast := map[string]bool{}
	cfg := hot.DefaultConfig()
	cfg.Dir = dir
	cfg.Fraud.Fast = func(a *event.Alert) {
		if a.Kind == event.AlertFraud {
			fast[strings.Clone(a.AlertID)] = true
		}
	}
	visitors, err := hot.Topology(cfg, 1, codecs, defs, prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	entities, err := hot.EntityTopology(cfg, 1, codecs, prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	start := event.Time(events[0].ReceivedAt)
	first, err := streaming.NewHarness(streaming.Config{}, visitors, 0, start)
	if err != nil {
		return nil, err
	}
	second, err := streaming.NewHarness(streaming.Config{}, entities, 0, start)
	if err != nil {
		return nil, err
	}
	passed := map[string]int{}
	step := func() error { // one commit of each stage
		if err := first.Feed(); err != nil {
			return err
		}
		if err := first.Advance(200 * time.Millisecond); err != nil {
			return err
		}
		if _, err := first.Commit(); err != nil {
			return err
		}
		for in, topic := range entities.Inputs {
			recs := first.Outputs(topic)
			for _, r := range recs[passed[topic]:] {
				second.Produce(in, &kgo.Record{Key: r.Key, Value: r.Value, Headers: r.Headers})
			}
			passed[topic] = len(recs)
		}
		if err := second.Feed(); err != nil {
			return err
		}
		if err := second.Advance(200 * time.Millisecond); err != nil {
			return err
		}
		_, err := second.Commit()
		return err
	}
	for i := range events {
		e := &events[i]
		cat := e.Category()
		if gap := event.Time(e.ReceivedAt).Sub(first.Now()); gap > 0 {
			if err := step(); err != nil {
				return nil, err
			}
		}
		first.Produce(int(cat), &kgo.Record{
			Key: e.AppendKey(nil), Value: codecs.AppendRaw(nil, cat, e), Timestamp: event.Time(e.ReceivedAt),
			Headers: []kgo.RecordHeader{{Key: event.HeaderCategory, Value: []byte(cat.String())}, {Key: event.HeaderTenant, Value: []byte(e.Tenant)}},
		})
	}
	for range 100 {
		if err := step(); err != nil {
			return nil, err
		}
	}
	r := &result{events: len(events), right: map[string]int{}, wrong: map[string]int{}, fast: len(fast), spent: time.Since(begin)}
	var alerts []event.Alert
	for _, h := range []*streaming.Harness{first, second} {
		for _, rec := range h.Outputs(event.TopicAlerts) {
			var a event.Alert
			if err := codecs.Decode(ctx, event.TopicAlerts, rec.Value, &a); err != nil {
				return nil, err
			}
			if a.Kind == event.AlertFraud {
				alerts = append(alerts, a)
			}
		}
	}
	r.compare(events, alerts, fast)
	return r, nil
}

// label of an event, and what tells its attack from others.
func label(e *event.Event) (name, attack string) {
	var p struct {
		Label string `json:"fraud_label"`
	}
	if !strings.Contains(e.Properties, "fraud_label") || json.Unmarshal([]byte(e.Properties), &p) != nil {
		return "", ""
	}
	if p.Label == "velocity_ip" {
		return p.Label, p.Label + e.IPHash
	}
	return p.Label, p.Label + e.VisitorID
}

func (r *result) compare(events []event.Event, alerts []event.Alert, fast map[string]bool) {
	by, of := map[string]*attacked{}, map[string]*attacked{}
	place, times := map[string]int{}, map[string]int64{}
	for i := range events {
		e := &events[i]
		name, key := label(e)
		if name == "" {
			continue
		}
		r.labelled++
		a := by[key]
		if a == nil {
			a = &attacked{label: name, first: e.OccurredAt, rules: map[string]bool{}}
			by[key] = a
			r.attacks = append(r.attacks, a)
		}
		a.events++
		a.first = min(a.first, e.OccurredAt)
		of[e.ID], place[e.ID], times[e.ID] = a, a.events, e.OccurredAt
	}
	for i := range alerts {
		al := &alerts[i]
		r.confirmed++
		if fast[al.AlertID] {
			r.both++
		}
		a := of[al.TriggerEventID]
		if a == nil {
			r.wrong[al.Rule]++
			continue
		}
		r.right[al.Rule]++
		a.rules[al.Rule] = true
		if at := times[al.TriggerEventID]; a.found == 0 || at < a.found {
			a.found, a.after = at, place[al.TriggerEventID]
		}
	}
}

// score is precision over all alerts, and recall of each attack.
func (r *result) score() (precision float64, recall map[string]float64) {
	right, wrong := 0, 0
	for _, n := range r.right {
		right += n
	}
	for _, n := range r.wrong {
		wrong += n
	}
	all, found := map[string]float64{}, map[string]float64{}
	for _, a := range r.attacks {
		all[a.label]++
		if a.found != 0 {
			found[a.label]++
		}
	}
	recall = map[string]float64{}
	for l, n := range all {
		recall[l] = found[l] / n
	}
	return float64(right) / float64(max(1, right+wrong)), recall
}

func (r *result) print(w io.Writer, disorder float64) {
	precision, recall := r.score()
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	p := func(format string, a ...any) { _, _ = fmt.Fprintf(out, format, a...) } // a report on a terminal
	p("%d events, %d of them labelled, disorder %.0f %%: precision %.3f; %d alerts told on arrival, %d confirmed, %d both (%.1f %% of those told); %s of computing\n", r.events, r.labelled, 100*disorder, precision, r.fast, r.confirmed, r.both, 100*float64(r.both)/float64(max(1, r.fast)), r.spent.Round(time.Millisecond))
	p("ATTACK\tNUMBER\tFOUND\tRECALL\tEVENTS TO ALERT\tSECONDS TO ALERT (p50, p95)\tBY RULES\n")
	for _, l := range slices.Sorted(maps.Keys(recall)) {
		var seconds []float64
		var after []int
		n, found, rules := 0, 0, map[string]bool{}
		for _, a := range r.attacks {
			if a.label != l {
				continue
			}
			n++
			if a.found != 0 {
				found++
				seconds, after = append(seconds, float64(a.found-a.first)/1e6), append(after, a.after)
				maps.Copy(rules, a.rules)
			}
		}
		slices.Sort(seconds)
		slices.Sort(after)
		p50, p95, ev := 0.0, 0.0, 0
		if found > 0 {
			p50, p95, ev = seconds[found/2], seconds[found*95/100], after[found/2]
		}
		p("%s\t%d\t%d\t%.3f\t%d\t%.1f, %.1f\t%s\n", l, n, found, recall[l], ev, p50, p95, strings.Join(slices.Sorted(maps.Keys(rules)), " "))
	}
	p("RULE\tAT LABELLED EVENTS\tAT OTHERS\n")
	names := maps.Clone(r.right)
	maps.Copy(names, r.wrong)
	for _, n := range slices.Sorted(maps.Keys(names)) {
		p("%s\t%d\t%d\n", n, r.right[n], r.wrong[n])
	}
	p("\n")
	_ = out.Flush() // as above
}
