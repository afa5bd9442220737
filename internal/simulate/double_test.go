package simulate

import (
	"bytes"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"millrace/event"
	"millrace/event/wire"
)

// ruling is what the gateway double does with a request.
type ruling uint8

const (
	accept     ruling = iota
	tooMany           // 429 and a Retry-After
	fails             // 500
	hangsUp           // the connection breaks before anything is read
	loses             // accepts, and the connection breaks before the answer
	breaksOff         // accepts, and the answer breaks in its middle
	forgets           // accepts, and never answers
	refuses           // 401
	unfinished        // 503, and nothing is accepted
)

// double is a gateway that decodes what it is sent with the gateway's own decoder, deduplicates by id as the platform does, and misbehaves as it is told.
type double struct {
	*httptest.Server
	rule func(request int) ruling

	mu       sync.Mutex
	requests int
	lane     string
	key      string
	bodies   map[uint64]int // hash of body → how often it was seen
	ids      map[string]bool
	hash     uint64
	names    map[string]int64
	revenue  map[string]*big.Int
	failed   map[string]string // failed id → reason
	valid    int64             // events, copies included
	noID     int64
}

func newDouble(t *testing.T, rule func(request int) ruling) *double {
	d := &double{rule: rule, bodies: map[uint64]int{}, ids: map[string]bool{}, names: map[string]int64{}, revenue: map[string]*big.Int{}, failed: map[string]string{}}
	d.Server = httptest.NewServer(http.HandlerFunc(d.serve))
	t.Cleanup(d.Close)
	return d
}

func always(request int) ruling { return accept }

func (d *double) serve(w http.ResponseWriter, req *http.Request) {
	d.mu.Lock()
	n := d.requests
	d.requests++
	d.mu.Unlock()
	what := d.rule(n)
	hangUp := func() { panic(http.ErrAbortHandler) }
	if what == hangsUp {
		hangUp()
	}
	body, err := decompressed(req)
	if err != nil || req.URL.Path != "/v1/events" || req.Method != http.MethodPost {
		http.Error(w, fmt.Sprint(req.Method, req.URL.Path, err), http.StatusBadRequest)
		return
	}
	switch what {
	case accept, loses, breaksOff, forgets:
		d.take(req, body)
	}
	w.Header().Set("Content-Type", "application/json")
	switch what {
	case accept:
		_, _ = io.WriteString(w, `{"success":true}`)
	case tooMany:
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusTooManyRequests)
	case fails:
		w.WriteHeader(http.StatusInternalServerError)
	case unfinished:
		w.WriteHeader(http.StatusServiceUnavailable)
	case refuses:
		http.Error(w, `{"error":"unknown write key"}`, http.StatusUnauthorized)
	case breaksOff:
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"succ`)
		hangUp()
	case forgets:
		<-req.Context().Done()
	default:
		hangUp()
	}
}

func decompressed(req *http.Request) ([]byte, error) {
	switch req.Header.Get("Content-Encoding") {
	case "gzip":
		z, err := gzip.NewReader(req.Body)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(z)
	case "zstd":
		z, err := zstd.NewReader(req.Body)
		if err != nil {
			return nil, err
		}
		defer z.Close()
		return io.ReadAll(z)
	}
	return io.ReadAll(req.Body)
}

func newDecoder() *wire.Decoder {
	d := wire.NewDecoder()
	d.Reset(&wire.Source{Tenant: "default", Name: "shop", Redactor: wire.NewRedactor(nil), Secret: wire.Secret{ID: "k1", Key: []byte("secret")}})
	return d
}

func (d *double) take(req *http.Request, body []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lane, d.key = req.Header.Get("X-Millrace-Lane"), req.Header.Get("X-Write-Key")
	d.bodies[xxhash.Sum64(body)]++
	dec := newDecoder()
	wire.Split(body, func(text []byte) bool {
		var e event.Event
		payload := bytes.Clone(text)
		fail := dec.Decode(text, &e)
		if fail == nil {
			fail = dec.Complete(&wire.Request{ReceivedAt: time.Now().UnixMicro(), Replay: d.lane == "replay"})
		}
		if fail != nil {
			d.failed[event.FailedID("default", "shop", fail.Reason, payload)] = fail.Reason
			return true
		}
		d.valid++
		switch {
		case e.ID == "":
			d.noID++
		case d.ids[e.ID]:
			return true
		default:
			d.ids[string([]byte(e.ID))] = true
			d.hash += xxhash.Sum64String(e.ID)
		}
		d.names[string([]byte(e.Name))]++
		if e.Name == event.NamePurchase && e.Value != nil && *e.Value != 0 {
			sum := d.revenue[e.Currency]
			if sum == nil {
				sum = new(big.Int)
				d.revenue[string([]byte(e.Currency))] = sum
			}
			sum.Add(sum, big.NewInt(*e.Value))
		}
		return true
	})
}

// agrees checks a summary of a run without unacknowledged events against what the gateway truly got.
func (d *double) agrees(t *testing.T, s Summary) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.Unacknowledged != 0 {
		t.Errorf("%d events are unacknowledged", s.Unacknowledged)
	}
	if s.DistinctIDs != int64(len(d.ids)) {
		t.Errorf("summary has %d distinct ids, the gateway got %d", s.DistinctIDs, len(d.ids))
	}
	if want := fmt.Sprintf("%016x", d.hash); s.IDHash != want {
		t.Errorf("id hash %s, the gateway's ids have %s", s.IDHash, want)
	}
	if diff := cmp.Diff(d.names, s.ByName); diff != "" {
		t.Errorf("by name (-gateway +summary):\n%s", diff)
	}
	categories := map[string]int64{}
	for name, n := range d.names {
		categories[event.CategoryOf(name).String()] += n
	}
	if diff := cmp.Diff(categories, s.ByCategory); diff != "" {
		t.Errorf("by category (-gateway +summary):\n%s", diff)
	}
	if diff := cmp.Diff(d.revenue, s.RevenueMicros, cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 })); diff != "" {
		t.Errorf("revenue (-gateway +summary):\n%s", diff)
	}
	reasons := map[string]int64{}
	for _, reason := range d.failed {
		reasons[reason]++
	}
	if diff := cmp.Diff(reasons, s.MalformedByReason); diff != "" {
		t.Errorf("malformed by reason (-gateway +summary):\n%s", diff)
	}
	if s.Malformed != int64(len(d.failed)) {
		t.Errorf("summary has %d malformed events, the gateway %d failed ones", s.Malformed, len(d.failed))
	}
	if got := s.DistinctIDs + s.Duplicates + s.Malformed + s.WithoutID; got != s.Acknowledged {
		t.Errorf("distinct + duplicates + malformed + without id = %d, acknowledged = %d", got, s.Acknowledged)
	}
}
