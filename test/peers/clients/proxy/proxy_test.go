package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fault Fault
		check func(t *testing.T, status int, err error)
		got   int32 // requests that the gateway has after the first try
	}{
		{None, func(t *testing.T, status int, err error) {
			if err != nil || status != http.StatusOK {
				t.Errorf("status %d, %v", status, err)
			}
		}, 1},
		{TooManyRequests, func(t *testing.T, status int, err error) {
			if err != nil || status != http.StatusTooManyRequests {
				t.Errorf("status %d, %v", status, err)
			}
		}, 0},
		{ServerError, func(t *testing.T, status int, err error) {
			if err != nil || status != http.StatusInternalServerError {
				t.Errorf("status %d, %v", status, err)
			}
		}, 0},
		{Reset, func(t *testing.T, _ int, err error) {
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v is no reset", err)
			}
		}, 1},
		{Timeout, func(t *testing.T, _ int, err error) {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no timeout", err)
			}
		}, 1},
	} {
		t.Run(string(test.fault), func(t *testing.T) {
			t.Parallel()
			var got atomic.Int32
			gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if string(body) == "hello" && r.URL.RequestURI() == "/v1/batch?a=1" && r.Header.Get("X-Test") == "yes" {
					got.Add(1)
				}
			}))
			defer gateway.Close()
			p, err := Start(t.Context(), gateway.URL, Plan{Fault: test.fault, Every: 2})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}()
			limit := 30 * time.Second
			if test.fault == Timeout {
				limit = 300 * time.Millisecond
			}
			status, err := post(t.Context(), p.URL(), limit)
			test.check(t, status, err)
			if got.Load() != test.got {
				t.Errorf("the gateway has %d requests, not %d", got.Load(), test.got)
			}
			if status, err := post(t.Context(), p.URL(), 30*time.Second); err != nil || status != http.StatusOK {
				t.Errorf("the second try: status %d, %v", status, err)
			}
			c := p.Counts()
			spoilt := 1
			if test.fault == None {
				spoilt = 0
			}
			if c.Requests != 2 || c.Spoilt != spoilt || c.Forwarded != int(test.got)+1 || len(c.Refused) != 0 {
				t.Errorf("counts %+v", c)
			}
		})
	}
}

func post(ctx context.Context, to string, limit time.Duration) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// No length: as CloudEvents' JavaScript sends it.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to+"/v1/batch?a=1", io.MultiReader(strings.NewReader("hello")))
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Test", "yes")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func TestPreflightsAndSettingsAreNeverSpoilt(t *testing.T) {
	t.Parallel()
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer gateway.Close()
	p, err := Start(t.Context(), gateway.URL, Plan{Fault: ServerError, Every: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, one := range []struct {
		method, path string
		status       int
	}{{http.MethodOptions, "/v1/t", 200}, {http.MethodGet, "/v1/projects/k/settings", 200}, {http.MethodGet, "/gone", 404}, {http.MethodPost, "/v1/t", 500}, {http.MethodGet, "/i", 500}} {
		req, err := http.NewRequestWithContext(t.Context(), one.method, p.URL()+one.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != one.status {
			t.Errorf("%s %s: %d", one.method, one.path, resp.StatusCode)
		}
	}
	if c := p.Counts(); c.Requests != 2 || c.Spoilt != 2 || len(c.Withheld) != 2 || len(c.Refused) != 1 {
		t.Errorf("counts %+v", c)
	}
}
