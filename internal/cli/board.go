package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"millrace/internal/embedded"
	"millrace/internal/embedded/supervisor"
)

// board shows a line per child: redrawn in place on a terminal, a line per change elsewhere.
type board struct {
	w     io.Writer
	p     *embedded.Platform
	live  bool
	lines int
	last  map[string]string
	since map[string]time.Time
}

func newBoard(w io.Writer, p *embedded.Platform) *board {
	return &board{w: w, p: p, live: terminal(w), last: map[string]string{}, since: map[string]time.Time{}}
}

// until shows the platform until done gives a result, down is closed, or ctx ends.
func (b *board) until(ctx context.Context, done <-chan error, down <-chan struct{}) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	defer b.end()
	for {
		b.show(b.p.Status())
		select {
		case err := <-done:
			b.show(b.p.Status())
			if ctx.Err() != nil {
				return nil
			}
			return err
		case <-ctx.Done():
			return nil
		case <-down:
			return nil
		case <-tick.C:
		}
	}
}

var marks = map[supervisor.Phase]string{supervisor.Healthy: "✓", supervisor.Failed: "✗", supervisor.Backoff: "!", supervisor.Unhealthy: "!", supervisor.Held: "‖", supervisor.Stopped: "·"}

func (b *board) show(states []embedded.State) {
	if b.live && b.lines > 0 {
		_, _ = fmt.Fprintf(b.w, "\x1b[%dA", b.lines) // progress
	}
	b.lines = 0
	for _, s := range states {
		if _, ok := b.since[s.Name]; !ok {
			b.since[s.Name] = time.Now()
		}
		mark := marks[s.Phase]
		if mark == "" {
			mark = "…"
		}
		detail := s.Detail
		if s.Phase == supervisor.Backoff || s.Phase == supervisor.Failed {
			detail = s.LastError
		}
		detail, _, _ = strings.Cut(detail, "\n")
		if b.live {
			if len(detail) > 90 {
				detail = detail[:90]
			}
			_, _ = fmt.Fprintf(b.w, "\x1b[2K  %s %-16s %-10s %s\n", mark, s.Name, s.Phase, detail) // progress
			b.lines++
			continue
		}
		key := string(s.Phase)
		if s.Phase != supervisor.Preparing { // percentages are for terminals
			key += detail
		}
		if b.last[s.Name] != key {
			b.last[s.Name] = key
			_, _ = fmt.Fprintf(b.w, "%s %-16s %-10s %s\n", mark, s.Name, s.Phase, detail) // progress
		}
	}
}

// end leaves what is shown where it is.
func (b *board) end() { b.lines = 0 }
