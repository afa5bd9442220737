package api

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"millrace/kpi"
)

// goal is what an analytics question may take, at the 95th percentile (docs/DESIGN.md §8).
const goal = 200 * time.Millisecond

// BenchmarkAnswers asks each path over 1.12 million events of a week (and the KPI rows that they make, in two versions each), one question after the other and each a
// different one, with nothing cached. It reports the 50th and 95th percentile, the latter as a part of the goal too, beside the floor: a round trip to the API that
// asks no store. Run it with -benchtime=100x.
func BenchmarkAnswers(b *testing.B) {
	const days, perDay = 7, 160_000
	s := openAlone(b)
	defs, err := kpi.New(kpi.Config{})
	if err != nil {
		b.Fatal(err)
	}
	for day := range days {
		events := invent(s.tenant, perDay, 24*time.Hour-time.Minute, uint64(day))
		back := time.Duration(day) * 24 * time.Hour
		midnight := now.Truncate(24 * time.Hour)
		for i := range events { // each chunk in a day of its own: partials of one window must not meet
			e := &events[i]
			at := midnight.Add(-back).Add(time.UnixMicro(e.OccurredAt).Sub(now.Add(-24 * time.Hour))).UnixMicro()
			e.ReceivedAt, e.IngestedAt, e.OccurredAt = at+5000, at+20_000, at
		}
		s.insertEvents(b, events)
		partials := count(b, defs, events)
		s.insertKPIs(b, partials)
		if day == 0 {
			s.putLive(b, partials)
		}
	}
	s.clock.advance(12 * time.Hour) // the end of the newest day
	end := s.clock.now()
	week := fmt.Sprintf("from=%d&to=%d", end.Add(-days*24*time.Hour).Unix(), end.Unix())
	for _, q := range []struct {
		name string
		path func(i int) string
	}{
		{"floor", func(int) string { return "/healthz" }},
		{"kpis live", func(i int) string { return fmt.Sprintf("/api/v1/kpis/live?window=%ds", 60+i) }},
		{"series, a week by hour", func(i int) string { return "/api/v1/kpis/series?measures=orders,revenue&grain=1h&" + week + q2(i) }},
		{"series, a day by minute and country", func(i int) string {
			from := end.Add(-24*time.Hour - time.Duration(i)*time.Minute)
			return fmt.Sprintf("/api/v1/kpis/series?measures=orders&grain=1m&by=country&from=%d&to=%d", from.Unix(), from.Add(24*time.Hour).Unix())
		}},
		{"series, an hour by second", func(i int) string {
			from := end.Add(-2*time.Hour - time.Duration(i)*time.Second)
			return fmt.Sprintf("/api/v1/kpis/series?measures=page_views&grain=1s&from=%d&to=%d", from.Unix(), from.Add(time.Hour).Unix())
		}},
		{"products, a week", func(i int) string { return fmt.Sprintf("/api/v1/products/top?window=7d&by=revenue&limit=%d", 1+i%50) }},
		{"recent events", func(i int) string { return fmt.Sprintf("/api/v1/events/recent?limit=%d", 1+i%200) }},
		{"failed events", func(i int) string { return fmt.Sprintf("/api/v1/failed?window=24h&limit=%d", 1+i%100) }},
		{"tables", func(int) string { return "/api/v1/tables" }},
	} {
		b.Run(q.name, func(b *testing.B) {
			var took []time.Duration
			i := 0
			for b.Loop() {
				begun := time.Now()
				r, err := http.Get(s.server.URL + q.path(i))
				if err != nil {
					b.Fatal(err)
				}
				text, err := io.ReadAll(r.Body)
				_ = r.Body.Close() // read to its end
				took = append(took, time.Since(begun))
				if err != nil || r.StatusCode != http.StatusOK {
					b.Fatalf("%s: %d %v %s", q.path(i), r.StatusCode, err, text)
				}
				i++
			}
			slices.Sort(took)
			p95 := took[len(took)*95/100]
			b.ReportMetric(float64(took[len(took)/2])/1e6, "p50-ms")
			b.ReportMetric(float64(p95)/1e6, "p95-ms")
			b.ReportMetric(float64(p95)/float64(goal), "p95/goal")
		})
	}
}

// q2 makes questions differ.
func q2(i int) string { return fmt.Sprintf("&limit=%d", 1+i%25) }
