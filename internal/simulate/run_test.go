package simulate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.uber.org/goleak"

	"millrace/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testOptions(to string) Options {
	o := DefaultOptions()
	o.To, o.WriteKey, o.Seed, o.Events, o.Batch, o.Shoppers = to, "wk", 8, 5_000, 100, 100
	o.Shares = Shares{Duplicates: 0.05, Late: 0.05, OutOfOrder: 0.05, Malformed: 0.05, Fraud: 0.01}
	return o
}

func TestTheBooksAgreeWithTheGateway(t *testing.T) {
	t.Parallel()
	every := func(n int, of ...ruling) func(int) ruling {
		return func(request int) ruling {
			if request%n == n-1 {
				return of[request/n%len(of)]
			}
			return accept
		}
	}
	for _, c := range []struct {
		name    string
		rule    func(int) ruling
		change  func(*Options)
		retries bool
	}{
		{"when all goes well", always, func(*Options) {}, false},
		{"as NDJSON with broken lines", always, func(o *Options) { o.Format = FormatNDJSON }, false},
		{"compressed with gzip", always, func(o *Options) { o.Compression = Gzip }, false},
		{"compressed with zstd", every(5, fails), func(o *Options) { o.Compression = Zstd }, true},
		{"when it refuses and breaks connections", every(3, tooMany, fails, hangsUp, unfinished), func(*Options) {}, true},
		{"when answers are lost after accepting", every(4, loses, breaksOff), func(*Options) {}, true},
		{"when it does all of that", every(3, loses, tooMany, breaksOff, hangsUp, fails), func(o *Options) { o.Format = FormatNDJSON; o.Compression = Gzip }, true},
		{"when it accepts and never answers", every(20, forgets), func(o *Options) { o.Timeout = 300 * time.Millisecond }, true},
		{"on one connection with small batches", every(7, loses), func(o *Options) { o.Connections, o.Batch, o.Events = 1, 7, 3000 }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDouble(t, c.rule)
			o := testOptions(d.URL)
			c.change(&o)
			o.Ledger = filepath.Join(t.TempDir(), "ids")
			s, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			d.agrees(t, s)
			if s.Acknowledged != o.Events {
				t.Errorf("%d acknowledged, want %d", s.Acknowledged, o.Events)
			}
			if s.Duplicates == 0 || s.Malformed == 0 || s.Late == 0 {
				t.Errorf("a share is missing: %+v", s)
			}
			if (s.Retries > 0) != c.retries {
				t.Errorf("%d retries", s.Retries)
			}
			if d.key != "wk" {
				t.Errorf("write key %q", d.key)
			}
			d.ledgerHolds(t, o.Ledger)
		})
	}
}

// ledgerHolds checks that a ledger has exactly the gateway's ids.
func (d *double) ledgerHolds(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(text))
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(lines) != len(d.ids) {
		t.Errorf("the ledger has %d lines, the gateway got %d ids", len(lines), len(d.ids))
	}
	for _, id := range lines {
		if !d.ids[id] {
			t.Fatalf("id %s of the ledger is not with the gateway", id)
		}
	}
}

func TestARetryIsTheSameBytes(t *testing.T) {
	t.Parallel()
	d := newDouble(t, func(request int) ruling {
		if request%2 == 0 {
			return loses
		}
		return accept
	})
	o := testOptions(d.URL)
	o.Connections, o.Events, o.Batch = 1, 1000, 100
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if len(d.bodies) != 10 {
		t.Errorf("%d different bodies, want 10", len(d.bodies))
	}
	for body, n := range d.bodies {
		if n != 2 {
			t.Errorf("body %x came %d times, want 2", body, n)
		}
	}
}

func TestARefusalEndsTheRunAtOnce(t *testing.T) {
	t.Parallel()
	d := newDouble(t, func(request int) ruling {
		if request < 3 {
			return accept
		}
		return refuses
	})
	o := testOptions(d.URL)
	o.Connections = 1
	s, err := Run(t.Context(), o)
	if id, _ := fault.IDOf(err); id != "MR-SIM-003" {
		t.Errorf("error %v", err)
	}
	if s.Acknowledged != 300 || s.Unacknowledged != 100 || !s.Interrupted || s.Retries != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAnInterruptedRunCountsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d := newDouble(t, func(request int) ruling {
		if request < 10 {
			return accept
		}
		cancel()
		return forgets
	})
	o := testOptions(d.URL)
	o.Events, o.Connections, o.Grace = 0, 2, 50*time.Millisecond
	o.Ledger = filepath.Join(t.TempDir(), "ids")
	s, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Interrupted || s.Acknowledged != 1000 {
		t.Errorf("interrupted %v, %d acknowledged", s.Interrupted, s.Acknowledged)
	}
	if s.Unacknowledged < 100 || s.Unacknowledged > 200 {
		t.Errorf("%d unacknowledged, want the one or two batches under way", s.Unacknowledged)
	}
	ids, err := os.ReadFile(o.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(ids, []byte("\n")); int64(n) != s.DistinctIDs {
		t.Errorf("%d ids in the ledger, %d in the summary", n, s.DistinctIDs)
	}
}

func TestWhatIsUnderWayIsFinishedOnInterruption(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d := newDouble(t, func(request int) ruling {
		if request == 5 {
			cancel() // and then accepts
		}
		return accept
	})
	o := testOptions(d.URL)
	o.Events = 0
	s, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	d.agrees(t, s)
}

// fake is a gateway in memory, for runs in virtual time.
type fake struct {
	answer func() (int, http.Header, error)
	events atomic.Int64
	calls  atomic.Int64
}

func (f *fake) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	_ = req.Body.Close()
	if err != nil {
		return nil, err
	}
	f.calls.Add(1)
	code, header, err := f.answer()
	if err != nil {
		return nil, err
	}
	if code == 0 { // never
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	if code == http.StatusOK {
		f.events.Add(int64(bytes.Count(body, []byte(`"event_id"`))))
	}
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Header: header, Body: io.NopCloser(strings.NewReader(`{"success":true}`)), Request: req}, nil
}

func virtual(t *testing.T, f *fake, change func(*Options), check func(s Summary, err error, took time.Duration)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := testOptions("http://gateway.invalid")
		o.Transport, o.Events, o.Shares = f, 0, Shares{}
		change(&o)
		begun := time.Now()
		s, err := Run(t.Context(), o)
		check(s, err, time.Since(begun))
	})
}

func ok() (int, http.Header, error) { return http.StatusOK, http.Header{}, nil }

func TestPatienceEndsWithoutAnySuccess(t *testing.T) {
	errRefused := errors.New("connection refused")
	for name, answer := range map[string]func() (int, http.Header, error){
		"connections are refused":  func() (int, http.Header, error) { return 0, nil, errRefused },
		"it answers 503":           func() (int, http.Header, error) { return 503, http.Header{}, nil },
		"it is full for an hour":   func() (int, http.Header, error) { return 429, http.Header{"Retry-After": {"3600"}}, nil },
		"it never answers at all":  func() (int, http.Header, error) { return 0, nil, nil },
		"it is full and impatient": func() (int, http.Header, error) { return 429, http.Header{}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, &fake{answer: answer}, func(o *Options) { o.Rate = 1000 }, func(s Summary, err error, took time.Duration) {
				if id, _ := fault.IDOf(err); id != "MR-SIM-002" {
					t.Errorf("error %v", err)
				}
				if took < 30*time.Second || took > 46*time.Second { // patience, the request under way, grace
					t.Errorf("gave up after %s", took)
				}
				if s.Acknowledged != 0 || s.Unacknowledged != 400 || s.DistinctIDs != 0 || s.IDHash != "0000000000000000" {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestAnOutageWithinPatienceIsBridged(t *testing.T) {
	var begun time.Time
	f := &fake{answer: func() (int, http.Header, error) {
		if since := time.Since(begun); since > 5*time.Second && since < 30*time.Second {
			return http.StatusServiceUnavailable, http.Header{}, nil
		}
		return ok()
	}}
	virtual(t, f, func(o *Options) { o.Rate, o.For, begun = 1000, 60*time.Second, time.Now() }, func(s Summary, err error, took time.Duration) {
		if err != nil || s.Acknowledged != f.events.Load() || s.Unacknowledged != 0 {
			t.Errorf("%v %+v", err, s)
		}
		if math.Abs(float64(s.Acknowledged)-60_000) > 200 {
			t.Errorf("%d acknowledged, want 60000: what the shop did during the outage is sent afterwards", s.Acknowledged)
		}
		if took > 62*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	first := true
	f := &fake{answer: func() (int, http.Header, error) {
		if first {
			first = false
			return http.StatusTooManyRequests, http.Header{"Retry-After": {"7"}}, nil
		}
		return ok()
	}}
	virtual(t, f, func(o *Options) { o.Connections, o.Events = 1, 100 }, func(s Summary, err error, took time.Duration) {
		if err != nil || took < 7*time.Second || took > 8*time.Second || s.Retries != 1 {
			t.Errorf("%v after %s, %d retries", err, took, s.Retries)
		}
	})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for h, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, " 3 ": 3 * time.Second, "-1": 0, "soon": 0, "99999999999999999999": 0,
		"Sun, 01 Mar 2026 12:00:09 GMT": 9 * time.Second, "Sun, 01 Mar 2026 11:00:09 GMT": 0,
	} {
		if got := retryAfter(h, now); got != want {
			t.Errorf("Retry-After %q is %s, want %s", h, got, want)
		}
	}
}

func TestThePaceIsTheRate(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		events float64
		took   time.Duration
	}{
		{"a steady minute", func(o *Options) { o.Rate, o.For = 500, time.Minute }, 30_000, time.Minute},
		{"one event a second", func(o *Options) { o.Rate, o.For = 1, time.Minute }, 60, time.Minute},
		{"a spike of ten times for 20 s", func(o *Options) { o.Rate, o.For, o.Spike = 200, time.Minute, 10 }, 200*40 + 2000*20, time.Minute},
		{"a number of events", func(o *Options) { o.Rate, o.Events = 100, 1000 }, 1000, 10 * time.Second},
		{"a day has its wave", func(o *Options) {
			o.Rate, o.For, o.Diurnal, o.Start = 0.2, 24*time.Hour, 0.4, time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC) // where the wave is at its mean
		}, 17_280, 24 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{answer: ok}
			virtual(t, f, c.change, func(s Summary, err error, took time.Duration) {
				if err != nil {
					t.Fatal(err)
				}
				if got := float64(s.Acknowledged); math.Abs(got-c.events) > 0.005*c.events+2 || s.Acknowledged != f.events.Load() {
					t.Errorf("%v events, want %v", got, c.events)
				}
				if took < c.took-6*time.Second || took > c.took+2*time.Second {
					t.Errorf("took %s, want %s", took, c.took)
				}
			})
		})
	}
}

func TestAnUnpacedRunEndsAfterItsTime(t *testing.T) {
	f := &fake{answer: func() (int, http.Header, error) {
		<-time.After(10 * time.Millisecond) // virtual
		return ok()
	}}
	virtual(t, f, func(o *Options) { o.For, o.Connections, o.Batch = 2*time.Second, 2, 10 }, func(s Summary, err error, took time.Duration) {
		if err != nil || took < 2*time.Second || took > 2100*time.Millisecond || s.Interrupted {
			t.Errorf("%v after %s: %+v", err, took, s)
		}
	})
}

func TestProgressIsReported(t *testing.T) {
	var reports []Progress
	virtual(t, &fake{answer: ok}, func(o *Options) {
		o.Rate, o.Events = 100, 1000
		o.Progress = func(p Progress) { reports = append(reports, p) }
	}, func(s Summary, err error, took time.Duration) {
		if err != nil || len(reports) < 9 || len(reports) > 12 {
			t.Fatalf("%v, %d reports in %s", err, len(reports), took)
		}
		if !slices.IsSortedFunc(reports, func(a, b Progress) int { return int(a.Acknowledged - b.Acknowledged) }) {
			t.Error("acknowledged events become fewer")
		}
		if p := reports[5]; math.Abs(p.Rate-100) > 15 || p.Total != 1000 || p.Done {
			t.Errorf("%+v", p)
		}
		if p := reports[len(reports)-1]; !p.Done || p.Acknowledged != 1000 || p.Bytes != 1000 || p.Sent != 1000 {
			t.Errorf("last report %+v", p)
		}
	})
}

func TestASeedIsChosenIfNoneIsGiven(t *testing.T) {
	run := func() (s Summary) {
		virtual(t, &fake{answer: ok}, func(o *Options) { o.Seed, o.Events = 0, 100 }, func(got Summary, err error, _ time.Duration) {
			if err != nil {
				t.Fatal(err)
			}
			s = got
		})
		return s
	}
	a, b := run(), run()
	if a.Seed == 0 || a.Seed == b.Seed || a.IDHash == b.IDHash {
		t.Errorf("seeds %d and %d, hashes %s and %s", a.Seed, b.Seed, a.IDHash, b.IDHash)
	}
}

func TestAnUnwritableLedgerIsToldBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	d := newDouble(t, always)
	o := testOptions(d.URL)
	o.Ledger = filepath.Join(t.TempDir(), "no", "such", "folder")
	_, err := Run(t.Context(), o)
	if id, _ := fault.IDOf(err); id != "MR-SIM-004" || d.requests != 0 {
		t.Errorf("%v, %d requests", err, d.requests)
	}
}

func TestOptionsReportEveryProblem(t *testing.T) {
	t.Parallel()
	o := DefaultOptions()
	o.To, o.Connections, o.Batch, o.BatchBytes, o.Format, o.Compression, o.Patience, o.Timeout, o.Grace = "localhost", 0, 0, 1, "xml", "lz4", 0, 0, -1
	o.Shares = Shares{Duplicates: -1, Late: 2, OutOfOrder: 1, Malformed: math.NaN(), Fraud: 0.2}
	o.Rate, o.For, o.Events, o.Shoppers, o.MaxLate, o.Diurnal, o.Spike = -1, -1, -1, 0, 48*time.Hour, 1, 0.5
	err := o.Validate()
	if id, _ := fault.IDOf(err); id != "MR-SIM-001" {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{
		"to:", "connections:", "batch:", "batch bytes:", "format:", "compression:", "patience:", "timeout:", "grace:", "duplicates:", "late:", "out of order:",
		"malformed:", "fraud:", "rate:", "for:", "events:", "shoppers:", "max late:", "diurnal:", "spike:",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nothing is said about %q", want)
		}
	}
	o = DefaultOptions()
	o.To = "http://127.0.0.1:1"
	if err := o.Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	for in, want := range map[string]float64{"10x": 10, "2.5": 2.5, "1x": 1} {
		if got, err := ParseSpike(in); err != nil || got != want {
			t.Errorf("spike %q is %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "x", "0", "-3x", "1e9x", "NaN", "tenx"} {
		if _, err := ParseSpike(in); err == nil {
			t.Errorf("spike %q is accepted", in)
		}
	}
	for in, want := range map[string]string{"http://h:1": "http://h:1/v1/events", "http://h:1/": "http://h:1/v1/events", "https://h/v1/events": "https://h/v1/events", "http://h/x": "http://h/x"} {
		if got := (Target{To: in}).endpoint(); got != want {
			t.Errorf("%s becomes %s, want %s", in, got, want)
		}
	}
}

func TestASuccessElsewhereRenewsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := outage{patience: 30 * time.Second}
		begun := time.Now()
		<-time.After(20 * time.Second)
		o.success()
		<-time.After(5 * time.Second)
		if left := o.failure(begun); left != 25*time.Second || o.lasting() != 5*time.Second {
			t.Errorf("%s left after an outage of %s", left, o.lasting())
		}
		if left := o.failure(time.Now()); left != 25*time.Second {
			t.Errorf("%s left", left)
		}
		o.success()
		if o.lasting() != 0 {
			t.Errorf("an outage of %s after a success", o.lasting())
		}
	})
}

func TestARunOfACancelledContextSendsNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := newDouble(t, always)
	s, err := Run(ctx, testOptions(d.URL))
	if err != nil || !s.Interrupted || s.Acknowledged != 0 || s.Unacknowledged != 0 || d.requests != 0 {
		t.Errorf("%v %+v, %d requests", err, s, d.requests)
	}
}

func TestCopiesCountOnceWhicheverIsAcknowledged(t *testing.T) {
	t.Parallel()
	var seen bitset
	b := newBook(names[:], []string{"USD"}, nil, seen.add, nil)
	one := func(seq uint64, id string) *batch {
		x := &batch{}
		x.end(record{seq: seq, name: purchase, value: 5}, []byte(id))
		return x
	}
	b.unknown(one(0, "a")) // the original is lost
	b.acknowledged(one(0, "a"))
	b.acknowledged(one(0, "a"))
	b.acknowledged(one(200, "b"))
	s := b.summary()
	if s.DistinctIDs != 2 || s.Duplicates != 1 || s.Unacknowledged != 1 || s.Acknowledged != 3 || s.RevenueMicros["USD"].Int64() != 10 ||
		s.IDHash != fmt.Sprintf("%016x", xxhash.Sum64String("a")+xxhash.Sum64String("b")) {
		t.Errorf("%+v", s)
	}
}
