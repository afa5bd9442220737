package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

func testFlights(places, line int) *flights {
	cfg := DefaultConfig()
	cfg.MaxConcurrentQueries, cfg.MaxWaiting, cfg.MaxWait = places, line, time.Hour
	return newFlights(cfg)
}

func TestEqualQuestionsAreAnsweredOnce(t *testing.T) {
	t.Parallel()
	f := testFlights(4, 4)
	var computed atomic.Int32
	open := make(chan struct{})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			b, err := f.do(t.Context(), "k", func(context.Context) ([]byte, error) {
				computed.Add(1)
				<-open
				return []byte("x"), nil
			})
			if err != nil || string(b) != "x" {
				t.Errorf("%s %v", b, err)
			}
		})
	}
	eventually(t, "fifty who wait", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.by["k"] != nil && f.by["k"].waiters == 50
	})
	close(open)
	wg.Wait()
	if n := computed.Load(); n != 1 {
		t.Errorf("computed %d times", n)
	}
}

func TestAFlightEndsWithTheLastOfThoseWhoWait(t *testing.T) {
	t.Parallel()
	f := testFlights(4, 4)
	ended := make(chan struct{})
	compute := func(ctx context.Context) ([]byte, error) {
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}
	first, leaveFirst := context.WithCancel(t.Context())
	second, leaveSecond := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, ctx := range []context.Context{first, second} {
		wg.Go(func() {
			if _, err := f.do(ctx, "k", compute); !errors.Is(err, context.Canceled) {
				t.Errorf("who left is told %v", err)
			}
		})
	}
	waiters := func(n int) func() bool {
		return func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.by["k"] != nil && f.by["k"].waiters == n
		}
	}
	eventually(t, "two who wait", waiters(2))
	leaveFirst()
	eventually(t, "one who waits", waiters(1))
	select {
	case <-ended:
		t.Error("the flight ended although one still waits")
	default:
	}
	leaveSecond()
	<-ended
	wg.Wait()
	f.close()
}

func TestADefectInOneAnswerEndsOnlyThat(t *testing.T) {
	t.Parallel()
	f := testFlights(1, 1)
	_, err := f.do(t.Context(), "k", func(context.Context) ([]byte, error) { panic("broken") })
	if p := problemOf(err); p.ID != idInternal || strings.Contains(p.Detail, "broken") {
		t.Errorf("a defect is told as %s %s", p.ID, p.Detail)
	}
}

func TestMoreThanMayWaitAreSentAway(t *testing.T) {
	t.Parallel()
	f := testFlights(1, 1)
	release, err := f.place(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error, 1)
	go func() {
		_, err := f.place(ctx)
		waiting <- err
	}()
	eventually(t, "one in line", func() bool { return f.line.Load() == 1 })
	if _, err := f.place(t.Context()); !errors.Is(err, errBusy) {
		t.Errorf("the second in line is told %v", err)
	}
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("who left the line is told %v", err)
	}
	release()
	again, err := f.place(t.Context())
	if err != nil {
		t.Fatalf("a free place is not given: %v", err)
	}
	again()
	f.maxWait = time.Millisecond
	hold, _ := f.place(t.Context()) // it is free
	defer hold()
	if _, err := f.place(t.Context()); !errors.Is(err, errBusy) {
		t.Errorf("who waited too long is told %v", err)
	}
}

func TestABusyAPISaysWhenToComeAgain(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config, d *Deps) { c.MaxConcurrentQueries, c.MaxWaiting, d.Redis = 1, 0, nil })
	release, err := s.api.flights.place(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.server.URL+"/api/v1/kpis/series", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("%s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
	}
}

// answersFrom reads a counter of the API's.
func (s *shop) answersFrom(t testing.TB, from string) float64 {
	t.Helper()
	var m dto.Metric
	if err := s.api.m.answers.WithLabelValues(from).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func TestAnAnswerIsKeptUntilTheDataChanges(t *testing.T) {
	t.Parallel()
	s := openAlone(t)
	s.seed(t, invent(s.tenant, 200, 10*time.Minute, 60), "UTC")
	path := "/api/v1/kpis/series?grain=1m&from=-1h"
	first := answer[series](t, s, path)
	second := answer[series](t, s, path)
	if c, k := s.answersFrom(t, "computed"), s.answersFrom(t, "cache"); c != 1 || k != 1 {
		t.Errorf("asked twice: computed %v times, cached %v times", c, k)
	}
	if fmt.Sprint(first.Times, len(first.Series)) != fmt.Sprint(second.Times, len(second.Series)) {
		t.Error("the kept answer is another one")
	}
	// Merging the parts of a table changes nothing that an answer depends on.
	if err := s.conn.Exec(t.Context(), "OPTIMIZE TABLE kpi_1m FINAL"); err != nil {
		t.Fatal(err)
	}
	answer[series](t, s, path)
	if c := s.answersFrom(t, "computed"); c != 1 {
		t.Errorf("after a merge it was computed again: %v times", c)
	}
	s.insertKPIs(t, count(t, s.api.definitions, invent(s.tenant, 50, 10*time.Minute, 61)))
	answer[series](t, s, path)
	if c := s.answersFrom(t, "computed"); c != 2 {
		t.Errorf("after new rows it was computed %v times in all, want 2", c)
	}
}
