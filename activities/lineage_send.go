package activities

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	lineageBatch    = 100
	lineageKeep     = 30 // days after which an event that nobody took is no longer sent
	lineagePauseMax = 5 * time.Minute
)

// Run sends what the table holds and the receiver has not taken, until ctx ends; without a receiver it only waits. The table is the outbox: a receiver that is away gets
// its events later, in order. An event is sent at least once: where a process ends between sending and noting it, or two processes send, twice with the same run and type.
func (l *Lineage) Run(ctx context.Context) error {
	if l.cfg.URL == "" {
		<-ctx.Done()
		return nil
	}
	pause := l.cfg.Every
	for ctx.Err() == nil {
		n, err := l.send(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			l.failed.WithLabelValues("send").Inc()
			l.log.WarnContext(ctx, "lineage events not sent", "url", l.cfg.URL, "pause", pause, "error", err)
			pause = min(2*pause, lineagePauseMax)
		case n == lineageBatch:
			pause = 0 // there may be more
		default:
			pause = l.cfg.Every
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = max(pause, l.cfg.Every)
	}
	l.http.CloseIdleConnections()
	return nil
}

// send sends the oldest events that are not sent, and says how many there were.
func (l *Lineage) send(ctx context.Context) (int, error) {
	waiting, err := l.waiting(ctx)
	if err != nil {
		return 0, err
	}
	l.unsent.Set(float64(len(waiting)))
	var sent []row
	for _, r := range waiting {
		var refused bool
		if refused, err = l.post(ctx, r.body); err != nil {
			break
		}
		if r.sent = 1; refused {
			r.sent = 2
		}
		sent = append(sent, r)
	}
	if len(sent) == 0 {
		return 0, err
	}
	if noted := l.put(ctx, sent...); noted != nil {
		return 0, noted
	}
	l.unsent.Set(float64(len(waiting) - len(sent)))
	return len(waiting), err
}

func (l *Lineage) waiting(ctx context.Context) ([]row, error) {
	rows, err := l.conn.Query(ctx, `SELECT argMax(event_time, version) AS at, event_type, run_id, job, argMax(inputs, version), argMax(outputs, version), argMax(body, version)
		FROM lineage_events GROUP BY job, run_id, event_type HAVING argMax(sent, version) = 0 AND at > now() - toIntervalDay(?) ORDER BY at, event_type DESC LIMIT ?`, lineageKeep, lineageBatch)
	if err != nil {
		return nil, fmt.Errorf("reading lineage_events: %w", err)
	}
	defer rows.Close()
	var out []row
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.at, &r.kind, &r.run, &r.job, &r.inputs, &r.outputs, &r.body); err != nil {
			return nil, fmt.Errorf("reading lineage_events: %w", err)
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading lineage_events: %w", err)
	}
	return out, nil
}

// post sends one event. refused: the receiver does not want it, and would not want it again.
func (l *Lineage) post(ctx context.Context, body string) (refused bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(l.cfg.URL, "/")+"/api/v1/lineage", strings.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("sending a lineage event: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if l.cfg.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+l.cfg.APIKey)
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return false, fmt.Errorf("sending a lineage event: %w", err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is used again
	_ = resp.Body.Close()                                         // read
	switch s := resp.StatusCode; {
	case s < 300:
		return false, nil
	case s == http.StatusBadRequest || s == http.StatusUnprocessableEntity || s == http.StatusRequestEntityTooLarge:
		l.log.WarnContext(ctx, "lineage event refused", "url", l.cfg.URL, "status", s)
		l.failed.WithLabelValues("send").Inc()
		return true, nil
	default: // also a key that is wrong: it is mended, and the events wait
		return false, fmt.Errorf("sending a lineage event: the receiver answers %d", s)
	}
}
