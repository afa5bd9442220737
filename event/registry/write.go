package registry

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// change is one record to write; no value deletes the key.
type change struct {
	key   recordKey
	value any
}

// decision looks at the view and says what to write and what to answer then. It is called again when another instance's
// record came first.
type decision func(*state) ([]change, any, *apiError)

// write is a request's wish, handed to the one writer.
type write struct {
	ctx    context.Context
	decide decision
	done   chan outcome // holds one, so that the writer never waits for a request that gave up
}

type outcome struct {
	answer any
	err    *apiError
}

// attempts bounds how often a write is decided anew because another instance's record came first. An id conflict repeats
// only if the other instance registers something each time.
const attempts = 10

// submit has the writer decide and write, and waits for the outcome within the configured time.
func (r *Registry) submit(ctx context.Context, decide decision) (any, *apiError) {
	if !r.Ready() {
		return nil, errUnavailable()
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.WriteTimeout)
	defer cancel()
	w := &write{ctx: ctx, decide: decide, done: make(chan outcome, 1)}
	select {
	case r.writes <- w:
	case <-ctx.Done():
		return nil, errTimeout()
	}
	select {
	case o := <-w.done:
		return o.answer, o.err
	case <-ctx.Done():
		return nil, errTimeout()
	}
}

// write is the single writer: it reads the topic to its end, then performs one wish after the other. Each is decided on a view
// that holds all earlier ones.
func (r *Registry) write(ctx context.Context, client *kgo.Client) error {
	// The end of a compacted topic cannot be told from its offsets, as the last of them may have no record any more. A record
	// of our own is certainly behind everything that was there.
	if err := r.again(ctx, func() error { return r.put(ctx, client, []change{{key: recordKey{Type: typeNoop}}}) }); err != nil {
		return err
	}
	if err := r.again(ctx, func() error { return r.repair(ctx, client, nil) }); err != nil {
		return err
	}
	if err := r.again(ctx, func() error { return r.put(ctx, client, []change{r.highWater()}) }); err != nil {
		return err
	}
	r.mu.Lock()
	r.ready = true
	schemas := len(r.state.byID)
	r.mu.Unlock()
	r.log.Info("schema registry serves", "topic", r.cfg.Topic, "schemas", schemas)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case w := <-r.writes:
			if w.ctx.Err() != nil {
				continue // the request has been answered
			}
			answer, err := r.commit(ctx, client, w.decide)
			w.done <- outcome{answer, err}
		}
	}
}

// again repeats a start-up step until it works or ctx ends. The client itself retries for long; this covers a broker that
// stays away for longer.
func (r *Registry) again(ctx context.Context, step func() error) error {
	for {
		err := step()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.log.Warn("schema topic cannot be written; retrying", "topic", r.cfg.Topic, "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// highWater is a record that keeps the highest id.
func (r *Registry) highWater() change {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return change{key: recordKey{Type: typeNoop}, value: noopValue{MaxID: r.state.maxID}}
}

func (r *Registry) commit(ctx context.Context, client *kgo.Client, decide decision) (any, *apiError) {
	for range attempts {
		r.mu.RLock()
		changes, answer, refused := decide(r.state)
		r.mu.RUnlock()
		if refused != nil || len(changes) == 0 {
			return answer, refused
		}
		for _, c := range changes {
			if v, ok := c.value.(*schemaValue); ok {
				if raw, err := marshal(v); err != nil || len(raw) > maxRecordBytes {
					return nil, unprocessable(codeSchemaTooLarge, "Schema is too large: its record would exceed %d bytes", maxRecordBytes)
				}
			}
		}
		if err := r.put(ctx, client, changes); err != nil {
			return nil, storeError(err)
		}
		r.mu.RLock()
		won := true
		for _, c := range changes {
			won = won && r.state.holds(c)
		}
		r.mu.RUnlock()
		if won {
			return answer, nil
		}
		if err := r.repair(ctx, client, changes); err != nil {
			return nil, storeError(err)
		}
	}
	return nil, errStore(errors.New("another registry keeps writing to it; stop one of the two"))
}

func storeError(err error) *apiError {
	switch {
	case errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge):
		return unprocessable(codeSchemaTooLarge, "Schema is too large: the broker refuses its record")
	case errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kgo.ErrRecordRetries):
		return errTimeout()
	case errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed):
		return errUnavailable()
	}
	return errStore(err)
}
