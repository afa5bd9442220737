package simulate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"millrace/internal/fault"
)

// outage watches how long nothing has succeeded, over all connections.
type outage struct {
	mu       sync.Mutex
	last     time.Time // success
	since    time.Time // begin of the first request that failed after it
	patience time.Duration
}

func (o *outage) success() {
	o.mu.Lock()
	o.last, o.since = time.Now(), time.Time{}
	o.mu.Unlock()
}

// failure notes that a request begun at the given time came to nothing, and gives the patience that is left.
func (o *outage) failure(begun time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if begun.Before(o.last) { // another connection has had success meanwhile
		begun = o.last
	}
	if o.since.IsZero() || begun.Before(o.since) {
		o.since = begun
	}
	return o.patience - time.Since(o.since)
}

// lasting is how long the outage has lasted, 0 if there is none.
func (o *outage) lasting() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return 0
	}
	return time.Since(o.since)
}

// verdict is what became of a batch.
type verdict uint8

const (
	accepted verdict = iota
	unknown          // it may or may not have been taken
	unsent           // it was never tried
)

// answer is what one request came to.
type answer struct {
	err   error         // nil: acknowledged
	final bool          // no retry changes it
	after time.Duration // the gateway wants to be left alone for so long
}

// post sends one request. Only a 2xx whose answer arrives whole is an acknowledgement; for everything else the same bytes can be sent again.
func (r *run) post(ctx context.Context, body []byte) answer {
	ctx, cancel := context.WithTimeout(ctx, r.target.Timeout)
	defer cancel()
	text := newRequestBody(body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, text)
	if err != nil {
		return answer{err: fmt.Errorf("making the request: %w", err), final: true}
	}
	req.ContentLength = int64(len(body))
	req.Header = r.header.Clone()
	defer text.wait()
	defer cancel()
	resp, err := r.client.Do(req)
	if err != nil {
		return answer{err: fmt.Errorf("sending a batch: %w", err)}
	}
	defer func() { _ = resp.Body.Close() }() // it was read, or its error is reported
	said, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return answer{err: fmt.Errorf("reading the answer to a batch: %w", err)}
	}
	code := resp.StatusCode
	if code >= 200 && code < 300 {
		return answer{}
	}
	err = fmt.Errorf("the gateway answered %s: %s", resp.Status, bytes.TrimSpace(said[:min(len(said), 200)]))
	switch {
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusTooEarly:
		return answer{err: err, after: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	}
	return answer{err: err, final: true}
}

// requestBody knows when the transport is done with it, which may be after the request has failed: only then may its bytes be changed.
type requestBody struct {
	bytes.Reader
	once   sync.Once
	closed chan struct{}
}

func newRequestBody(b []byte) *requestBody {
	t := &requestBody{closed: make(chan struct{})}
	t.Reset(b)
	return t
}

// Close is called by the transport, in every case.
func (b *requestBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

func (b *requestBody) wait() { <-b.closed }

// retryAfter reads the header of that name: seconds, or a date (RFC 9110 §10.2.3).
func retryAfter(h string, now time.Time) time.Duration {
	h = strings.TrimSpace(h)
	if s, err := strconv.ParseUint(h, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(h); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// Pauses between attempts double from the first to the last.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// deliver sends a batch until it is acknowledged, the run ends, or patience does.
func (r *run) deliver(ctx, sending context.Context, body []byte, rnd *random) verdict {
	if ctx.Err() != nil {
		return unsent
	}
	pause := firstPause
	for attempt := 0; ; attempt++ {
		if attempt > 0 {
			r.retries.Add(1)
		}
		begun := time.Now()
		a := r.post(sending, body)
		if a.err == nil {
			r.outage.success()
			return accepted
		}
		r.lastError.Store(&a.err)
		if a.final {
			r.fail(fault.New("MR-SIM-003", a.err))
			return unknown
		}
		left := r.outage.failure(begun)
		if ctx.Err() != nil {
			return unknown
		}
		if left <= 0 {
			r.fail(fault.Newf("MR-SIM-002", "no success for %s: %w", r.target.Patience, a.err))
			return unknown
		}
		wait := max(a.after, pause/2+time.Duration(rnd.n(int(pause/2)))) // jitter keeps the connections apart
		pause = min(2*pause, lastPause)
		if !sleep(ctx, min(wait, left)) {
			return unknown
		}
	}
}

// sleep says whether the time has passed before ctx was done.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
