package model

import (
	"context"
	"sync"
	"time"
)

// batches gathers the rows of scores that are asked for at the same time. There is no goroutine: whoever comes first waits for more and asks for all.
type batches struct {
	mu   sync.Mutex
	open *batch // takes rows; nil: none
}

type batch struct {
	rows   [][]float64
	full   chan struct{} // closed by whoever adds the last row
	done   chan struct{} // closed when scores and err are there
	scores []float64
	err    error
}

func (s *Server) batched(ctx context.Context, features []float64) Answer {
	b, i := s.join(features)
	if i == 0 {
		// The others' answers do not end with this one's context: the request has its own deadline.
		s.lead(context.WithoutCancel(ctx), b)
	}
	wait, cancel := context.WithTimeout(ctx, s.cfg.BatchWait+s.cfg.Timeout)
	defer cancel()
	select {
	case <-b.done:
	case <-wait.Done():
		select {
		case <-b.done: // both
		default:
			return s.fallback(&reasoned{ReasonTimeout, wait.Err()})
		}
	}
	if b.err != nil {
		return s.fallback(b.err)
	}
	return Answer{Score: b.scores[i]}
}

// join adds a row to the open batch, or opens one: then its index is 0.
func (s *Server) join(features []float64) (*batch, int) {
	s.batches.mu.Lock()
	defer s.batches.mu.Unlock()
	b := s.batches.open
	if b != nil && len(b.rows[0]) != len(features) {
		b = nil // what does not fit has a batch of its own, whose request is refused or not without harm to the others
	}
	if b == nil {
		b = &batch{full: make(chan struct{}), done: make(chan struct{})}
		if s.batches.open == nil {
			s.batches.open = b
		}
	}
	b.rows = append(b.rows, features)
	if len(b.rows) == s.cfg.BatchRows {
		close(b.full)
		s.batches.open = nil
	}
	return b, len(b.rows) - 1
}

func (s *Server) lead(ctx context.Context, b *batch) {
	timer := time.NewTimer(s.cfg.BatchWait)
	select {
	case <-b.full:
	case <-timer.C:
	}
	timer.Stop()
	s.batches.mu.Lock()
	if s.batches.open == b {
		s.batches.open = nil
	}
	s.batches.mu.Unlock()
	b.scores, b.err = s.Scores(ctx, b.rows)
	close(b.done)
}
