package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"millrace/workflows/name"
)

// runBar shows the progress of a workflow: one line drawn again and again on a terminal, a line per change elsewhere.
type runBar struct {
	w    io.Writer
	live bool
	last string
}

func newRunBar(w io.Writer) *runBar { return &runBar{w: w, live: terminal(w)} }

// progress is what the query "progress" answers: MaintainTable's, or that of every other workflow.
type progress struct {
	name.MaintainProgress
	ID      string `json:"id"`
	Waiting string `json:"waiting"`
	Done    int64  `json:"done"`
	Total   int64  `json:"total"`
	text    json.RawMessage
}

// UnmarshalJSON keeps the text too.
func (p *progress) UnmarshalJSON(b []byte) error {
	type plain progress // without this method
	if err := json.Unmarshal(b, (*plain)(p)); err != nil {
		return fmt.Errorf("reading a progress: %w", err)
	}
	p.text = append(json.RawMessage(nil), b...)
	return nil
}

const barWidth = 30

func (b *runBar) show(p progress) {
	line := progressLine(p)
	if b.live {
		_, _ = fmt.Fprintf(b.w, "\r\x1b[2K[%s] %s", filled(p), line) // progress
	} else if line != b.last {
		_, _ = fmt.Fprintln(b.w, line) // progress
	}
	b.last = line
}

// end leaves what is shown and goes to the next line.
func (b *runBar) end() {
	if b.live && b.last != "" {
		_, _ = fmt.Fprintln(b.w) // progress
	}
}

func filled(p progress) string {
	n := 0
	switch {
	case p.Phase == name.Done:
		n = barWidth
	case p.Bytes > 0:
		n = int(int64(barWidth) * min(p.BytesDone, p.Bytes) / p.Bytes)
	case p.Total > 0:
		n = int(int64(barWidth) * min(p.Done, p.Total) / p.Total)
	}
	return strings.Repeat("#", n) + strings.Repeat(".", barWidth-n)
}

func progressLine(p progress) string {
	var s strings.Builder
	what := p.Table
	if what == "" {
		what = p.ID
	}
	fmt.Fprintf(&s, "%s: %s", what, p.Phase)
	if p.Paused {
		s.WriteString(", paused")
	}
	if p.Total > 0 && !p.Finished() {
		fmt.Fprintf(&s, ", %d of %d", p.Done, p.Total)
	}
	if p.Waiting != "" {
		fmt.Fprintf(&s, ", waits: %s", p.Waiting)
	}
	if p.Groups > 0 {
		fmt.Fprintf(&s, ", %d of %d groups, %s of %s, %d of %d rows", p.GroupsDone, p.Groups, bytes(p.BytesDone), bytes(p.Bytes), p.RowsDone, p.Rows)
	}
	if p.Round > 1 {
		fmt.Fprintf(&s, ", plan %d", p.Round)
	}
	return s.String()
}
