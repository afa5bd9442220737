package api

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// requestTimeout bounds the making of one answer, all of its queries together.
const requestTimeout = 30 * time.Second

// errBusy says that more is asked than may be computed and wait.
var errBusy = errors.New("too many questions at once")

// flights computes each answer once for all who ask for it at the same time. Unlike singleflight's, a flight belongs to nobody: it ends early when the last one who waits
// for it has left, and not when the first one leaves.
type flights struct {
	// places are the answers that are computed at once.
	places  *semaphore.Weighted
	maxWait time.Duration
	maxLine int64
	line    atomic.Int64 // who waits for a place

	mu sync.Mutex
	by map[string]*flight
	wg sync.WaitGroup
}

type flight struct {
	waiters int
	cancel  context.CancelFunc
	done    chan struct{}
	value   []byte
	err     error
}

func newFlights(cfg Config) *flights {
	return &flights{places: semaphore.NewWeighted(int64(cfg.MaxConcurrentQueries)), maxWait: cfg.MaxWait, maxLine: int64(cfg.MaxWaiting), by: map[string]*flight{}}
}

// do gives the answer of compute, made by this call or by an equal one that is under way.
func (f *flights) do(ctx context.Context, key string, compute func(ctx context.Context) ([]byte, error)) ([]byte, error) {
	f.mu.Lock()
	c := f.by[key]
	if c == nil {
		// Not a deadline: the driver would make its own time limit of one.
		flightCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		c = &flight{cancel: cancel, done: make(chan struct{})}
		f.by[key] = c
		f.wg.Go(func() {
			timer := time.AfterFunc(requestTimeout, cancel)
			value, err := guarded(flightCtx, compute)
			timer.Stop()
			cancel()
			f.mu.Lock()
			c.value, c.err = value, err
			if f.by[key] == c {
				delete(f.by, key)
			}
			f.mu.Unlock()
			close(c.done)
		})
	}
	c.waiters++
	f.mu.Unlock()
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.waiters--; c.waiters == 0 {
		c.cancel()
		if f.by[key] == c {
			delete(f.by, key) // whoever asks now must not get what was given up
		}
	}
	return nil, fmt.Errorf("waiting for an answer: %w", context.Cause(ctx))
}

// guarded keeps a defect in the making of one answer from ending all.
func guarded(ctx context.Context, compute func(ctx context.Context) ([]byte, error)) (b []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = defectError{fmt.Errorf("making an answer: %v\n%s", p, debug.Stack())}
		}
	}()
	return compute(ctx)
}

// place waits for a place among those who compute. release is to be called once.
func (f *flights) place(ctx context.Context) (release func(), err error) {
	if !f.places.TryAcquire(1) {
		if f.line.Add(1) > f.maxLine {
			f.line.Add(-1)
			return nil, errBusy
		}
		defer f.line.Add(-1)
		waitCtx, cancel := context.WithTimeout(ctx, f.maxWait)
		defer cancel()
		if err := f.places.Acquire(waitCtx, 1); err != nil {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("waiting for a place: %w", ctx.Err())
			}
			return nil, errBusy
		}
	}
	return func() { f.places.Release(1) }, nil
}

// close ends all flights and waits for them.
func (f *flights) close() {
	f.mu.Lock()
	for _, c := range f.by {
		c.cancel()
	}
	f.mu.Unlock()
	f.wg.Wait()
}
