package simulate

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"millrace/internal/fault"
)

// Format is how a batch of events is written.
type Format string

// The formats.
const (
	FormatArray  Format = "array"  // one JSON array
	FormatNDJSON Format = "ndjson" // a JSON object a line
)

// Compression is how a batch is compressed.
type Compression string

// The compressions.
const (
	None Compression = "none"
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// Target says where events go and how hard to try.
type Target struct {
	To          string        // URL of the gateway; /v1/events is added if it has no path
	WriteKey    string        // sent as X-Write-Key
	Connections int           // batches under way at once
	Batch       int           // events in a batch
	BatchBytes  int           // bytes in a batch, before compression
	Format      Format        //
	Compression Compression   //
	Patience    time.Duration // how long to go on without any success
	Timeout     time.Duration // of one request
	Grace       time.Duration // how long requests under way are waited for when the run is interrupted

	// Ledger, if not empty, is a file to which the acknowledged valid ids are written, one a line.
	Ledger string

	// Progress, if not nil, is called every ProgressEvery and at the end, never from two goroutines at once.
	Progress      func(Progress)
	ProgressEvery time.Duration

	// Transport, if not nil, is used in place of one of the run's own.
	Transport http.RoundTripper
}

// Shares are parts of all events sent, each in [0, 1).
type Shares struct {
	Duplicates float64 // the same event sent again
	Late       float64 // happened a minute to MaxLate before it is sent
	OutOfOrder float64 // happened some seconds before its predecessors
	Malformed  float64 // becomes a failed event
	Fraud      float64 // belongs to an attack (FraudLabels), labelled so in its properties
}

// Options of a simulation.
type Options struct {
	Target
	Shares

	Seed   uint64        // the events are a function of it; 0 means one chosen at random, which the summary tells
	Start  time.Time     // event time begins here; zero means now
	Rate   float64       // events a second; 0 means as fast as possible
	Tempo  float64       // without a rate: events in a second of event time
	For    time.Duration // ends the run after this much time; 0 means never
	Events int64         // ends the run after so many events, copies and malformed ones included; 0 means never

	Shoppers int           // sessions open at once
	MaxLate  time.Duration // bounds how late late events are
	Diurnal  float64       // amplitude of the day's wave in [0, 1): the rate asked for is that at the start, and over hours it follows the day

	Spike      float64       // rate during a spike, as a multiple; 0 or 1 means no spikes
	SpikeAfter time.Duration // until the first spike
	SpikeFor   time.Duration // length of a spike
	SpikeEvery time.Duration // from the start of one to the start of the next
}

// ImportOptions of an import.
type ImportOptions struct {
	Target

	Files  []string // read one after the other
	Source Source   // kind of the files; "" goes by their names

	// Rejects, if not empty, is a file to which rows that are no events are written as JSON lines {"file","line","error","row"}.
	Rejects string
}

// DefaultTarget is how events are sent unless said otherwise.
func DefaultTarget() Target {
	return Target{
		Connections: 4, Batch: 500, BatchBytes: 1 << 20, Format: FormatArray, Compression: None,
		Patience: 30 * time.Second, Timeout: 10 * time.Second, Grace: 5 * time.Second, ProgressEvery: time.Second,
	}
}

// DefaultOptions is an endless run as fast as possible.
func DefaultOptions() Options {
	return Options{
		Target:   DefaultTarget(),
		Shares:   Shares{Duplicates: 0.01, Late: 0.01, OutOfOrder: 0.03, Malformed: 0.005, Fraud: 0.002},
		Tempo:    20_000,
		Shoppers: 2000, MaxLate: 6 * time.Hour, Diurnal: 0.4,
		SpikeAfter: 20 * time.Second, SpikeFor: 20 * time.Second, SpikeEvery: 5 * time.Minute,
	}
}

// DefaultImportOptions imports nothing yet.
func DefaultImportOptions() ImportOptions { return ImportOptions{Target: DefaultTarget()} }

// ParseSpike reads the factor of --spike: "10x" or "10".
func ParseSpike(s string) (float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(s), "x"), 64)
	if err != nil || !(f >= 1 && f <= maxSpike) {
		return 0, fault.Newf("MR-SIM-001", "spike: %q is no factor from 1x to %dx", s, maxSpike)
	}
	return f, nil
}

// Bounds of options.
const (
	maxSpike       = 1000
	maxConnections = 256
	maxBatch       = 10_000 // the gateway's own bound
	minBatchBytes  = 1 << 10
	maxBatchBytes  = 8 << 20
	maxShoppers    = 200_000
	maxRate        = 10_000_000
)

// problems collects what is wrong with options.
type problems []error

func (p *problems) check(ok bool, format string, a ...any) {
	if !ok {
		*p = append(*p, fmt.Errorf(format, a...))
	}
}

func (p problems) err() error { return fault.New("MR-SIM-001", errors.Join(p...)) }

func (t Target) validate(p *problems) {
	u, err := url.Parse(t.To)
	p.check(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "", "to: %q is no http or https URL", t.To)
	p.check(t.Connections >= 1 && t.Connections <= maxConnections, "connections: %d is not from 1 to %d", t.Connections, maxConnections)
	p.check(t.Batch >= 1 && t.Batch <= maxBatch, "batch: %d is not from 1 to %d", t.Batch, maxBatch)
	p.check(t.BatchBytes >= minBatchBytes && t.BatchBytes <= maxBatchBytes, "batch bytes: %d is not from %d to %d", t.BatchBytes, minBatchBytes, maxBatchBytes)
	p.check(t.Format == FormatArray || t.Format == FormatNDJSON, "format: %q is neither array nor ndjson", t.Format)
	p.check(t.Compression == None || t.Compression == Gzip || t.Compression == Zstd, "compression: %q is none of none, gzip and zstd", t.Compression)
	p.check(t.Patience > 0, "patience: %s is not above 0", t.Patience)
	p.check(t.Timeout > 0, "timeout: %s is not above 0", t.Timeout)
	p.check(t.Grace >= 0, "grace: %s is below 0", t.Grace)
	p.check(t.Progress == nil || t.ProgressEvery > 0, "progress every: %s is not above 0", t.ProgressEvery)
}

// Validate reports every problem.
func (o Options) Validate() error {
	var p problems
	o.Target.validate(&p)
	sum := 0.0
	for _, s := range []struct {
		name  string
		share float64
		below float64
	}{
		{"duplicates", o.Duplicates, 1},
		{"late", o.Late, 1},
		{"out of order", o.OutOfOrder, 1},
		{"malformed", o.Malformed, 1},
		{"fraud", o.Fraud, attackDense / 2}, // an attack is a burst: there must be time between two
	} {
		p.check(s.share >= 0 && s.share < s.below, "%s: a share of %g is not from 0 to below %g", s.name, s.share, s.below)
		sum += s.share
	}
	p.check(sum <= 1, "shares: together they are %g, above 1", sum)
	p.check(o.Rate >= 0 && o.Rate <= maxRate, "rate: %g is not from 0 to %d", o.Rate, maxRate)
	p.check(o.Rate > 0 || o.Tempo > 0 && o.Tempo <= maxRate, "tempo: %g is not above 0 and up to %d", o.Tempo, maxRate)
	p.check(o.For >= 0, "for: %s is below 0", o.For)
	p.check(o.Events >= 0, "events: %d is below 0", o.Events)
	p.check(o.Shoppers >= 1 && o.Shoppers <= maxShoppers, "shoppers: %d is not from 1 to %d", o.Shoppers, maxShoppers)
	p.check(o.MaxLate > time.Minute && o.MaxLate < 24*time.Hour, "max late: %s is not above 1m0s and below 24h0m0s, which is where the live lane ends", o.MaxLate)
	p.check(o.Diurnal >= 0 && o.Diurnal < 1, "diurnal: %g is not from 0 to below 1", o.Diurnal)
	p.check(o.Spike == 0 || o.Spike >= 1 && o.Spike <= maxSpike, "spike: %g is not from 1 to %d", o.Spike, maxSpike)
	if o.Spike > 1 {
		p.check(o.SpikeAfter >= 0, "spike after: %s is below 0", o.SpikeAfter)
		p.check(o.SpikeFor > 0 && o.SpikeFor < o.SpikeEvery, "spike for: %s is not above 0 and below spike every, %s", o.SpikeFor, o.SpikeEvery)
	}
	return p.err()
}

// Validate reports every problem.
func (o ImportOptions) Validate() error {
	var p problems
	o.Target.validate(&p)
	p.check(len(o.Files) > 0, "files: none is named")
	for _, f := range o.Files {
		_, err := o.source(f)
		p.check(err == nil, "files: %w", err)
	}
	return p.err()
}

// tempo is the number of events in a second of event time, at the start.
func (o Options) tempo() float64 {
	if o.Rate > 0 {
		return o.Rate
	}
	return o.Tempo
}

// endpoint is the URL that events are posted to.
func (t Target) endpoint() string {
	u, err := url.Parse(t.To)
	if err != nil {
		return t.To // Validate has refused it
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/events"
	}
	return u.String()
}
