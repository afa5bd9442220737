package model

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"millrace/internal/fault"
)

// exchange is a request and an answer as they went over the wire.
type exchange struct {
	Name     string          `json:"name"`
	Path     string          `json:"path"`
	Request  json.RawMessage `json:"request"`
	Status   int             `json:"status"`
	Response string          `json:"response"`
	Scores   []float64       `json:"scores"`
	Reason   string          `json:"reason"`
}

func exchanges(t *testing.T, file string) []exchange {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata/serving", file))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var out []exchange
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e exchange
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	if len(out) == 0 {
		t.Fatal("nothing in " + file)
	}
	return out
}

// modelServer answers as told and keeps what it was asked.
type modelServer struct {
	*httptest.Server
	answer atomic.Pointer[http.HandlerFunc]
	mu     sync.Mutex
	asked  []string // path and body
}

func newModelServer(t *testing.T, answer http.HandlerFunc) *modelServer {
	m := &modelServer{}
	m.answer.Store(&answer)
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a test's own client
		m.mu.Lock()
		m.asked = append(m.asked, r.URL.Path+" "+string(body))
		m.mu.Unlock()
		(*m.answer.Load())(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *modelServer) requests() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.asked...)
}

func say(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text) // a test's own client
	}
}

func client(t *testing.T, at string, change func(*ServerConfig)) *Server {
	t.Helper()
	cfg := DefaultServerConfig()
	cfg.URL, cfg.Model, cfg.Timeout, cfg.Failures, cfg.OpenFor, cfg.Fallback = at, "ctr", 20*time.Second, 1000, time.Hour, 0.125
	if change != nil {
		change(&cfg)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: cfg.MaxConcurrent}
	t.Cleanup(transport.CloseIdleConnections)
	s, err := NewServer(cfg, transport, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnswersOfTensorFlowServingAreRead(t *testing.T) {
	for _, e := range exchanges(t, "tfserving.jsonl") {
		t.Run(e.Name, func(t *testing.T) {
			srv := newModelServer(t, say(e.Status, e.Response))
			got, err := client(t, srv.URL, nil).Scores(t.Context(), [][]float64{{1, -1, 0.5, 0}, {0, 0, 0, 0}})
			if diff := cmp.Diff(e.Scores, got); diff != "" || reasonOf(err) != e.Reason {
				t.Errorf("%s reason %q, %v", diff, reasonOf(err), err)
			}
			if id, _ := fault.IDOf(err); err != nil && id != "MR-MOD-005" {
				t.Error(err)
			}
			if diff := cmp.Diff([]string{`/v1/models/ctr:predict {"instances":[[1,-1,0.5,0],[0,0,0,0]]}`}, srv.requests()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnswersOfKServeAndMLServerAreRead(t *testing.T) {
	want := map[string]struct {
		scores []float64
		reason string
	}{
		"v1_predict": {[]float64{0.9046505351008906, 0.5}, ""}, "v2_infer": {[]float64{0.9046505351008906, 0.5}, ""}, "v1_err_model": {nil, ReasonStatus}, "v2_err_model": {nil, ReasonStatus},
		"v1_err_shape": {nil, ReasonStatus}, "v1_bad_json": {nil, ReasonRequest}, "v1_err_body": {nil, ReasonStatus},
		"infer": {[]float64{1, 0}, ""}, "infer_proba": {nil, ReasonAnswer}, "infer_two_outputs": {nil, ReasonAnswer}, "err_shape": {nil, ReasonStatus}, "err_dtype": {nil, ReasonRequest}, "err_noinputs": {nil, ReasonRequest}, "err_model": {nil, ReasonStatus},
	}
	seen := 0
	for _, file := range []string{"kserve.jsonl", "mlserver_v2.jsonl"} {
		for _, e := range exchanges(t, file) {
			w, ok := want[e.Name]
			if !ok {
				continue // no prediction
			}
			seen++
			srv := newModelServer(t, say(e.Status, e.Response))
			s := client(t, srv.URL, func(c *ServerConfig) {
				if c.Protocol = KServeV1; strings.HasPrefix(e.Path, "/v2") {
					c.Protocol = KServeV2
				}
			})
			got, err := s.Scores(t.Context(), [][]float64{{1, -1, 0.5, 0}, {0, 0, 0, 0}})
			if diff := cmp.Diff(w.scores, got); diff != "" || reasonOf(err) != w.reason {
				t.Errorf("%s: %s reason %q, %v", e.Name, diff, reasonOf(err), err)
			}
		}
	}
	if seen != len(want) {
		t.Errorf("%d of %d exchanges were seen", seen, len(want))
	}
}

func TestAnOutputAndAClassAreChosen(t *testing.T) {
	for _, e := range exchanges(t, "mlserver_v2.jsonl") {
		if e.Name != "infer_two_outputs" {
			continue
		}
		srv := newModelServer(t, say(e.Status, e.Response))
		for output, want := range map[string]map[int]float64{"predict_proba": {-1: 0.9742786962905011, 0: 0.025721303709498877}, "predict": {-1: 1, 0: 1}} {
			for class, score := range want {
				s := client(t, srv.URL, func(c *ServerConfig) { c.Protocol, c.Output, c.Class = KServeV2, output, class })
				if got := s.Score(t.Context(), []float64{1, -1, 0.5, 0}); got.Score != score || got.Reason != "" {
					t.Errorf("%s class %d: %+v", output, class, got)
				}
			}
		}
		if got := srv.requests()[0]; !strings.Contains(got, `/v2/models/ctr/infer {"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[1,-1,0.5,0]}],"outputs":[{"name":`) {
			t.Error(got)
		}
		return
	}
	t.Fatal("no such exchange")
}

func TestRequestsAreThoseThatAClientOfTensorFlowServingSends(t *testing.T) {
	text, err := os.ReadFile("testdata/serving/ovmsclient_tfs_rest.json")
	if err != nil {
		t.Fatal(err)
	}
	var foreign []struct{ Method, Path, Body string }
	if err := json.Unmarshal(text, &foreign); err != nil {
		t.Fatal(err)
	}
	srv := newModelServer(t, say(200, `{"model_version_status":[{"version":"1","state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}]}`))
	s := client(t, srv.URL, func(c *ServerConfig) { c.Version, c.Signature, c.Input = "0", "serving_default", "x" })
	if err := s.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Scores(t.Context(), [][]float64{{1, math.NaN()}}); reasonOf(err) != ReasonAnswer {
		t.Error(err)
	}
	got := srv.requests()
	if want := []string{foreign[0].Path + " ", foreign[2].Path + ` {"signature_name":"serving_default","instances":[{"x":[1,NaN]}]}`}; !cmp.Equal(want, got) {
		t.Error(cmp.Diff(want, got))
	}
}

func TestAHostileAnswerGivesTheFallbackAndItsReason(t *testing.T) {
	huge := `{"predictions":[0.5],"x":"` + strings.Repeat("y", 2<<20) + `"}`
	v2 := func(shape, data string) string {
		return `{"outputs":[{"name":"p","shape":` + shape + `,"datatype":"FP64","data":` + data + `}]}`
	}
	for name, c := range map[string]struct {
		protocol string
		answer   http.HandlerFunc
		reason   string
	}{
		"two predictions for one row":   {TFServing, say(200, `{"predictions":[0.5,0.5]}`), ReasonAnswer},
		"no prediction":                 {TFServing, say(200, `{"predictions":[]}`), ReasonAnswer},
		"nothing":                       {TFServing, say(200, ``), ReasonAnswer},
		"another page":                  {TFServing, say(200, `<html>welcome</html>`), ReasonAnswer},
		"a list without numbers":        {TFServing, say(200, `{"predictions":[[]]}`), ReasonAnswer},
		"null":                          {TFServing, say(200, `{"predictions":[null]}`), ReasonAnswer},
		"a text":                        {TFServing, say(200, `{"predictions":["0.5"]}`), ReasonAnswer},
		"a number beyond a float64":     {TFServing, say(200, `{"predictions":[1e999]}`), ReasonAnswer},
		"NaN":                           {TFServing, say(200, `{"predictions":[NaN]}`), ReasonAnswer},
		"two outputs and none is named": {TFServing, say(200, `{"predictions":[{"a":1,"b":2}]}`), ReasonAnswer},
		"JSON of great depth":           {TFServing, say(200, `{"predictions":`+strings.Repeat("[", 100_000)), ReasonAnswer},
		"a huge body":                   {TFServing, say(200, huge), ReasonAnswer},
		"a redirect": {TFServing, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusTemporaryRedirect)
		}, ReasonStatus},
		"a failing server":                  {TFServing, say(503, `oops`), ReasonStatus},
		"features refused":                  {TFServing, say(400, `{"error":"shape"}`), ReasonRequest},
		"a connection that is cut":          {TFServing, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ReasonAway},
		"a shape of another number of rows": {KServeV2, say(200, v2("[2]", "[1,2]")), ReasonAnswer},
		"fewer numbers than the shape":      {KServeV2, say(200, v2("[1,3]", "[1,2]")), ReasonAnswer},
		"a shape that overflows":            {KServeV2, say(200, v2("[1,4294967296,4294967296]", "[]")), ReasonAnswer},
		"a negative shape":                  {KServeV2, say(200, v2("[1,-1]", "[1]")), ReasonAnswer},
		"no shape":                          {KServeV2, say(200, v2("[]", "[1]")), ReasonAnswer},
		"no outputs":                        {KServeV2, say(200, `{"outputs":[]}`), ReasonAnswer},
		"texts as data":                     {KServeV2, say(200, v2("[1]", `["a"]`)), ReasonAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			srv := newModelServer(t, c.answer)
			s := client(t, srv.URL, func(cfg *ServerConfig) { cfg.Protocol = c.protocol })
			got := s.Score(t.Context(), []float64{1, 2})
			if got.Score != 0.125 || got.Reason != c.reason {
				t.Errorf("%+v, want the fallback for %s", got, c.reason)
			}
			if id, _ := fault.IDOf(got.Err); id != "MR-MOD-005" {
				t.Errorf("%v has no id", got.Err)
			}
			var n dto.Metric
			if err := s.requests.WithLabelValues(c.reason).Write(&n); err != nil || n.GetCounter().GetValue() != 1 {
				t.Errorf("%v counted, %v", &n, err)
			}
		})
	}
}

func TestFeaturesThatCannotBeSentDoNotReachTheServer(t *testing.T) {
	srv := newModelServer(t, say(200, `{"predictions":[0.5]}`))
	s := client(t, srv.URL, nil)
	if got := s.Score(t.Context(), []float64{math.Inf(1)}); got.Reason != ReasonRequest || got.Score != 0.125 {
		t.Errorf("%+v", got)
	}
	if _, err := s.Scores(t.Context(), [][]float64{{1}, {1, 2}}); reasonOf(err) != ReasonRequest {
		t.Error(err)
	}
	if n := len(srv.requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestAScoreDoesNotWaitLongerThanItsTime(t *testing.T) {
	hold := make(chan struct{})
	srv := newModelServer(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(hold) })
	s := client(t, srv.URL, func(c *ServerConfig) { c.Timeout = 20 * time.Millisecond })
	if got := s.Score(t.Context(), []float64{1}); got.Reason != ReasonTimeout || got.Score != 0.125 {
		t.Errorf("%+v", got)
	}
}

func TestMoreRequestsThanMayBeUnderWayAreBusy(t *testing.T) {
	hold, arrived := make(chan struct{}), make(chan struct{}, 8)
	srv := newModelServer(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-hold
		say(200, `{"predictions":[0.5]}`)(w, r)
	})
	s := client(t, srv.URL, func(c *ServerConfig) { c.MaxConcurrent = 2 })
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if got := s.Score(t.Context(), []float64{1}); got.Reason != "" || got.Score != 0.5 {
				t.Errorf("%+v", got)
			}
		})
	}
	<-arrived
	<-arrived
	if got := s.Score(t.Context(), []float64{1}); got.Reason != ReasonBusy {
		t.Errorf("%+v", got)
	}
	close(hold)
	wg.Wait()
}

func TestAServerThatFailsIsLeftAloneAndTriedAgain(t *testing.T) {
	srv := newModelServer(t, say(500, `down`))
	s := client(t, srv.URL, func(c *ServerConfig) { c.Failures, c.OpenFor = 3, 50*time.Millisecond })
	for range 3 {
		if got := s.Score(t.Context(), []float64{1}); got.Reason != ReasonStatus {
			t.Fatalf("%+v", got)
		}
	}
	good := say(200, `{"predictions":[0.75]}`)
	srv.answer.Store(&good)
	asked := len(srv.requests())
	if got := s.Score(t.Context(), []float64{1}); got.Reason != ReasonOpen && got.Reason != "" {
		t.Errorf("%+v", got)
	} else if got.Reason == ReasonOpen && len(srv.requests()) != asked {
		t.Error("a server that is left alone was asked")
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		got := s.Score(t.Context(), []float64{1})
		if got.Score == 0.75 {
			break
		}
		if got.Reason != ReasonOpen || time.Now().After(deadline) {
			t.Fatalf("%+v", got)
		}
	}
}

func TestFeaturesThatTheServerRefusesDoNotOpenTheBreaker(t *testing.T) {
	srv := newModelServer(t, say(400, `{"error":"no"}`))
	s := client(t, srv.URL, func(c *ServerConfig) { c.Failures = 1 })
	for range 3 {
		if got := s.Score(t.Context(), []float64{1}); got.Reason != ReasonRequest {
			t.Errorf("%+v", got)
		}
	}
}

func TestAServerThatIsNotThere(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := client(t, "http://"+at, nil)
	if got := s.Score(t.Context(), []float64{1}); got.Reason != ReasonAway || got.Score != 0.125 {
		t.Errorf("%+v", got)
	}
	if err := s.Ready(t.Context()); err == nil {
		t.Error("it is ready")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := s.Score(ctx, []float64{1}); got.Reason != ReasonTimeout || !errors.Is(got.Err, context.Canceled) {
		t.Errorf("%+v", got)
	}
}

func TestScoresThatAreAskedForTogetherShareRequests(t *testing.T) {
	srv := newModelServer(t, nil)
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := srv.requests()
		_, body, _ := strings.Cut(asked[len(asked)-1], " ")
		var q struct{ Instances [][]float64 }
		if err := json.Unmarshal([]byte(body), &q); err != nil {
			t.Error(err)
		}
		a := map[string][]float64{}
		for _, row := range q.Instances {
			a["predictions"] = append(a["predictions"], row[0]*2)
		}
		_ = json.NewEncoder(w).Encode(a) // a test's own client
	})
	srv.answer.Store(&echo)
	s := client(t, srv.URL, func(c *ServerConfig) { c.BatchRows, c.BatchWait, c.MaxConcurrent = 8, 500*time.Millisecond, 1 })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if got := s.Score(t.Context(), []float64{float64(i)}); got.Score != float64(2*i) || got.Reason != "" {
				t.Errorf("%d: %+v", i, got)
			}
		})
	}
	wg.Wait()
	if n := len(srv.requests()); n != 1 {
		t.Errorf("%d requests for a full batch", n)
	}
	if got := s.Score(t.Context(), []float64{21}); got.Score != 42 { // nobody joins it
		t.Errorf("%+v", got)
	}
	bad := say(500, "x")
	srv.answer.Store(&bad)
	if got := s.Score(t.Context(), []float64{21}); got.Score != 0.125 || got.Reason != ReasonStatus {
		t.Errorf("%+v", got)
	}
}

func TestTheConfigurationSaysEverythingThatIsWrong(t *testing.T) {
	cfg := ServerConfig{URL: "ftp://x", Protocol: "soap", Model: "a/b", Version: "?", Class: -2, Missing: "zero", Timeout: time.Hour, BatchWait: time.Hour, Fallback: math.NaN()}
	_, err := NewServer(cfg, nil, prometheus.NewRegistry())
	if id, _ := fault.IDOf(err); id != "MR-MOD-006" {
		t.Fatal(err)
	}
	for _, field := range []string{"url", "protocol", "model", "version", "class", "missing", "timeout", "open_for", "batch_wait", "max_concurrent", "max_bytes", "failures", "batch_rows", "fallback"} {
		if !strings.Contains(err.Error(), field+":") {
			t.Errorf("nothing about %s in %v", field, err)
		}
	}
}

func TestReadinessIsReadInEveryForm(t *testing.T) {
	for text, ready := range map[string]bool{
		`{"name":"ctr","ready":true}`: true, `{"name":"ctr","ready":false}`: false, ``: true, `{`: false,
		`{"model_version_status":[{"version":"1","state":"LOADING"}]}`:                                     false,
		`{"model_version_status":[{"version":"2","state":"LOADING"},{"version":"1","state":"AVAILABLE"}]}`: true,
	} {
		srv := newModelServer(t, say(200, text))
		if err := client(t, srv.URL, nil).Ready(t.Context()); (err == nil) != ready {
			t.Errorf("%s: %v", text, err)
		}
	}
	srv := newModelServer(t, say(404, `{"error":"no"}`))
	if err := client(t, srv.URL, nil).Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
}
