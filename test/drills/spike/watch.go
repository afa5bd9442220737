package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/internal/simulate"
	"millrace/olap"
	"millrace/workers"
)

// watch follows the lag of the stream in seconds: how long ago the topics ended where the stream is now.
type watch struct {
	dir    string
	group  string
	cl     *kgo.Client
	ends   []mark // of the last minutes
	most   time.Duration
	caught time.Time // since when the lag has been below the bound; zero: it is not
}

type mark struct {
	at  time.Time
	end int64
}

func newWatch(dir string) (*watch, error) {
	cfg, err := workers.Load("", map[string]any{"data": dir})
	if err != nil {
		return nil, err
	}
	e, err := workers.LoadEndpoints(dir)
	if err != nil {
		return nil, err
	}
	cfg.Fill(e)
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Kafka.Brokers...))
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return &watch{dir: dir, group: cfg.Stream.Group, cl: cl}, nil
}

func (w *watch) close() { w.cl.Close() }

// follow looks at the lag until the traffic has ended and the lag has been below the bound for some seconds.
func (w *watch) follow(ctx context.Context, sent <-chan error, over time.Time, patience time.Duration) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	var ended time.Time
	told := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-sent:
			if err != nil {
				return fmt.Errorf("sending: %w", err)
			}
			sent, ended = nil, time.Now()
		case <-tick.C:
		}
		lag, records, err := w.lag(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		w.most = max(w.most, lag)
		if now.Before(over) || lag >= behind {
			w.caught = time.Time{}
		} else if w.caught.IsZero() {
			w.caught = now
		}
		if now.Sub(told) > 10*time.Second {
			told = now
			fmt.Printf("     lag %s, %d records\n", lag.Round(100*time.Millisecond), records)
		}
		switch {
		case ended.IsZero():
		case !w.caught.IsZero() && now.Sub(w.caught) > behind, now.Sub(ended) > patience:
			return nil
		}
	}
}

// lag asks where the inputs end and where the stream is.
func (w *watch) lag(ctx context.Context) (time.Duration, int64, error) {
	var inputs []string
	for _, t := range event.Topics() {
		if t.HotInput {
			inputs = append(inputs, t.Name)
		}
	}
	adm := kadm.NewClient(w.cl)
	now := time.Now()
	ends, err := adm.ListCommittedOffsets(ctx, inputs...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("asking where topics end: %w", err)
	}
	at, err := adm.FetchOffsets(ctx, w.group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) && !kerr.IsRetriable(err) {
		return 0, 0, fmt.Errorf("asking where the stream is: %w", err)
	}
	end, done := int64(0), int64(0)
	ends.Each(func(o kadm.ListedOffset) {
		end += o.Offset
		if x, ok := at.Lookup(o.Topic, o.Partition); ok && x.At > 0 {
			done += x.At
		}
	})
	w.ends = append(w.ends, mark{now, end})
	for len(w.ends) > 1 && w.ends[1].end <= done { // the stream has passed the first
		w.ends = w.ends[1:]
	}
	if done >= end {
		return 0, 0, nil
	}
	return now.Sub(w.ends[0].at), end - done, nil
}

// put is where events of a category were made durable.
type put struct{ kafka, spool float64 }

func (p put) share() float64 {
	if p.spool == 0 {
		return 0
	}
	return p.spool / (p.spool + p.kafka)
}

// String implements fmt.Stringer.
func (p put) String() string {
	return fmt.Sprintf("%.0f of %.0f (%.2f %%)", p.spool, p.spool+p.kafka, 100*p.share())
}

type gatewaySays struct {
	requests, serverErrors, tooMany float64
	put                             map[string]put // by category
	shed                            map[string]float64
}

// other are all categories but page and purchase.
func (g gatewaySays) other() (sum put) {
	for c, p := range g.put {
		if c != "page" && c != "purchase" && c != "failed" {
			sum.kafka, sum.spool = sum.kafka+p.kafka, sum.spool+p.spool
		}
	}
	return sum
}

// forMemory says that want of memory is the one cause for which events went to the spool: none waits there behind others, the broker took all others in time.
func (g gatewaySays) forMemory() bool {
	n := 0.0
	for _, p := range g.put {
		n += p.spool
	}
	return n == g.shed["memory"] && g.shed["behind"] == 0
}

func gatewayMetrics(ctx context.Context, dir string) (gatewaySays, error) {
	g := gatewaySays{put: map[string]put{}, shed: map[string]float64{}}
	e, err := workers.LoadEndpoints(dir)
	if err != nil {
		return g, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(e.Gateway, "/")+"/metrics", nil)
	if err != nil {
		return g, fmt.Errorf("asking the gateway for its metrics: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return g, fmt.Errorf("asking the gateway for its metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return g, fmt.Errorf("reading the gateway's metrics: %w", err)
	}
	each := func(name string, f func(labels map[string]string, v float64)) {
		for _, m := range families[name].GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			f(labels, m.GetCounter().GetValue())
		}
	}
	each("millrace_gateway_requests_total", func(l map[string]string, v float64) {
		g.requests += v
		switch {
		case strings.HasPrefix(l["code"], "5"):
			g.serverErrors += v
		case l["code"] == "429":
			g.tooMany += v
		}
	})
	each("millrace_gateway_events_total", func(l map[string]string, v float64) {
		p := g.put[l["category"]]
		if l["outcome"] == "spool" {
			p.spool += v
		} else {
			p.kafka += v
		}
		g.put[l["category"]] = p
	})
	each("millrace_gateway_shed_total", func(l map[string]string, v float64) { g.shed[l["cause"]] += v })
	return g, nil
}

// stored waits until ClickHouse has what was acknowledged, or for as long as there is patience, and tells what it has.
func stored(ctx context.Context, cfg workers.Config, sum simulate.Summary, patience time.Duration) (rows, distinct int64, hash string, took time.Duration, err error) {
	conn, err := olap.Open(ctx, cfg.ClickHouse)
	if err != nil {
		return 0, 0, "", 0, err
	}
	defer func() { _ = conn.Close() }() // only reads
	began := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var n, ids, x uint64
		if err := conn.QueryRow(ctx, "SELECT count(), uniqExact(tenant, source, event_id), sum(xxHash64(event_id)) FROM events").Scan(&n, &ids, &x); err != nil {
			return 0, 0, "", 0, fmt.Errorf("asking ClickHouse for its events: %w", err)
		}
		rows, distinct, hash, took = int64(n), int64(ids), fmt.Sprintf("%016x", x), time.Since(began)
		if rows == sum.DistinctIDs && distinct == rows && hash == sum.IDHash || took > patience {
			return rows, distinct, hash, took, nil
		}
		select {
		case <-ctx.Done():
			return 0, 0, "", 0, ctx.Err()
		case <-tick.C:
		}
	}
}
