package simulate

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Progress is where a run is.
type Progress struct {
	Elapsed      time.Duration
	Sent         int64         // events in batches that were begun to be sent
	Acknowledged int64         // events in batches that were acknowledged
	Rate         float64       // acknowledged events a second since the last report
	Retries      int64         // requests beyond one a batch
	Outage       time.Duration // how long nothing has succeeded
	LastError    error         // of the last request that failed, nil if all is well
	Bytes, Total int64         // import: read so far, and of all files; simulation: events so far, and to be made (0: endless)
	Rejected     int64         // import: rows that are no events
	Done         bool          // the last report
}

// run is one run of the chain from a producer of batches to the book.
type run struct {
	target Target
	url    string
	header http.Header
	client *http.Client
	book   *book
	outage outage
	end    context.CancelCauseFunc // ends the run: nothing new is sent
	begun  time.Time

	ready chan *batch // to be sent
	free  chan *batch // to be filled

	sent, acked, retries atomic.Int64
	done, total          atomic.Int64 // Progress.Bytes and Total
	rejected             atomic.Int64
	lastError            atomic.Pointer[error]
}

// failure ends a run from within; any other cause of its end came with the context from outside.
type failure struct{ error }

// fail ends the run.
func (r *run) fail(err error) { r.end(failure{err}) }

func newRun(t Target, b *book) *run {
	r := &run{target: t, url: t.endpoint(), book: b, header: http.Header{}, begun: time.Now()}
	r.outage.patience = t.Patience
	r.header.Set("Content-Type", "application/json")
	if t.Format == FormatNDJSON {
		r.header.Set("Content-Type", "application/x-ndjson")
	}
	if t.WriteKey != "" {
		r.header.Set("X-Write-Key", t.WriteKey)
	}
	if t.Compression != None {
		r.header.Set("Content-Encoding", string(t.Compression))
	}
	n := t.Connections + 2 // one being filled, one waiting
	r.ready, r.free = make(chan *batch, 1), make(chan *batch, n)
	for range n {
		r.free <- &batch{format: t.Format}
	}
	return r
}

// do runs produce, which fills batches, beside the senders and the reports, and gives the summary when all have ended.
func (r *run) do(ctx context.Context, produce func(ctx context.Context) error) (Summary, error) {
	transport := r.target.Transport
	if transport == nil {
		own := &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			MaxIdleConnsPerHost: r.target.Connections, MaxConnsPerHost: r.target.Connections,
			DisableCompression: true, WriteBufferSize: 64 << 10,
		}
		defer own.CloseIdleConnections()
		transport = own
	}
	r.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

	ctx, r.end = context.WithCancelCause(ctx)
	// What is under way when the run ends may still finish, for Grace.
	sending, abandon := context.WithCancel(context.WithoutCancel(ctx))
	var grace errgroup.Group
	over := make(chan struct{})
	grace.Go(func() error {
		select {
		case <-over:
			return nil
		case <-ctx.Done():
		}
		t := time.NewTimer(r.target.Grace)
		defer t.Stop()
		select {
		case <-over:
		case <-t.C:
			abandon()
		}
		return nil
	})
	grace.Go(func() error { r.report(over); return nil })

	var work errgroup.Group
	work.Go(func() error {
		defer close(r.ready)
		err := produce(ctx)
		if err != nil && ctx.Err() == nil {
			r.fail(err)
		}
		return nil
	})
	for i := range r.target.Connections {
		work.Go(func() error { return r.send(ctx, sending, &random{uint64(i)}) })
	}
	err := work.Wait()
	close(over)
	_ = grace.Wait() // gives none
	abandon()

	cause := context.Cause(ctx)
	interrupted := ctx.Err() != nil
	r.end(nil)
	s := r.book.summary()
	s.Retries, s.ElapsedSeconds, s.Interrupted = r.retries.Load(), time.Since(r.begun).Seconds(), interrupted
	s.Rejected = r.rejected.Load()
	var own failure
	if interrupted && errors.As(cause, &own) {
		err = errors.Join(err, own.error)
	}
	return s, errors.Join(err, r.book.ledger.close())
}

// send is one connection: it delivers batches until there are none.
func (r *run) send(ctx, sending context.Context, rnd *random) error {
	p, err := newPacker(r.target.Compression)
	if err != nil {
		r.fail(err)
		for range r.ready { // so that the producer can end
		}
		return err
	}
	for b := range r.ready {
		body, err := p.pack(b.body)
		if err != nil {
			r.fail(err)
			r.free <- b
			continue
		}
		n := int64(len(b.records))
		if ctx.Err() == nil {
			r.sent.Add(n)
		}
		switch r.deliver(ctx, sending, body, rnd) {
		case accepted:
			r.acked.Add(n)
			r.book.acknowledged(b)
		case unknown:
			r.book.unknown(b)
		case unsent:
		}
		r.free <- b
	}
	return nil
}

// take waits for a batch to fill; it gives nil if the run is over.
func (r *run) take(ctx context.Context) *batch {
	select {
	case b := <-r.free:
		b.reset()
		return b
	case <-ctx.Done():
		return nil
	}
}

// put hands a batch to the senders, and says whether the run goes on.
func (r *run) put(ctx context.Context, b *batch) bool {
	if len(b.records) == 0 {
		r.free <- b
		return ctx.Err() == nil
	}
	b.seal()
	select {
	case r.ready <- b:
		return true
	case <-ctx.Done():
		return false
	}
}

// report calls Progress until the run is over.
func (r *run) report(over <-chan struct{}) {
	if r.target.Progress == nil {
		<-over
		return
	}
	t := time.NewTicker(r.target.ProgressEvery)
	defer t.Stop()
	last, lastAt := int64(0), r.begun
	for done := false; !done; {
		select {
		case <-over:
			done = true
		case <-t.C:
		}
		now, acked := time.Now(), r.acked.Load()
		p := Progress{
			Elapsed: now.Sub(r.begun), Sent: r.sent.Load(), Acknowledged: acked, Retries: r.retries.Load(), Outage: r.outage.lasting(),
			Bytes: r.done.Load(), Total: r.total.Load(), Rejected: r.rejected.Load(), Done: done,
		}
		if d := now.Sub(lastAt).Seconds(); d > 0 {
			p.Rate = float64(acked-last) / d
		}
		if e := r.lastError.Load(); e != nil && p.Outage > 0 {
			p.LastError = *e
		}
		last, lastAt = acked, now
		r.target.Progress(p)
	}
}

// linger is how long a batch of a paced run waits for further events.
const linger = 100 * time.Millisecond

// nap is the shortest wait of a paced run: events that are due meanwhile are sent together.
const nap = 2 * time.Millisecond

// Run simulates a shop until Events or For is reached, ctx is cancelled, or the gateway is dead or refuses. The summary is complete in every case; the error is
// nil if the run was done or was interrupted.
func Run(ctx context.Context, o Options) (Summary, error) {
	if err := o.Validate(); err != nil {
		return Summary{}, err
	}
	for o.Seed == 0 {
		o.Seed = rand.Uint64() >> 11 // exact in every JSON reader
	}
	if o.Start.IsZero() {
		o.Start = time.Now()
	}
	l, err := openLedger(o.Ledger)
	if err != nil {
		return Summary{}, err
	}
	g := newGenerator(o)
	var seen bitset
	coins := make([]string, len(currencies))
	for i := range currencies {
		coins[i] = currencies[i].code
	}
	r := newRun(o.Target, newBook(names[:], coins, g.flaws, seen.add, l))
	r.total.Store(o.Events)
	s, err := r.do(ctx, func(ctx context.Context) error { return r.produce(ctx, o, g) })
	s.Seed = o.Seed
	return s, err
}

// produce lets the generator fill batches, and releases them when their events are due.
//
// A paced run ends when event time reaches For, so its events do not depend on how fast they can be sent; if the gateway was away, they are sent late, as
// a shop's own would be, for up to Patience.
func (r *run) produce(ctx context.Context, o Options, g *generator) error {
	paced := o.Rate > 0
	begun := time.Now()
	var now time.Duration
	for made := int64(0); ; {
		b := r.take(ctx)
		if b == nil {
			return nil
		}
		ended := false
		opened := time.Since(begun)
		for !b.full(&o.Target) {
			if o.Events > 0 && made >= o.Events || paced && o.For > 0 && g.due() >= o.For {
				ended = true
				break
			}
			if paced && g.due() > now {
				now = time.Since(begun)
				if wait := g.due() - now; wait > 0 {
					if len(b.records) > 0 {
						if now-opened >= linger {
							break
						}
						wait = min(wait, linger-(now-opened))
					}
					if !sleep(ctx, max(wait, nap)) {
						return nil
					}
					if len(b.records) == 0 {
						opened = time.Since(begun)
					}
					continue
				}
			}
			b.begin()
			b.body = g.next(b.body)
			b.end(g.last, g.id)
			made++
		}
		r.done.Store(made)
		if !r.put(ctx, b) || ended {
			return nil
		}
		if wall := time.Since(begun); o.For > 0 && (!paced && wall >= o.For || paced && wall >= o.For+o.Patience) {
			return nil
		}
	}
}
