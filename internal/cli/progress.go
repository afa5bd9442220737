package cli

import (
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

const barWidth = 30

func (b *runBar) show(p name.MaintainProgress) {
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

func filled(p name.MaintainProgress) string {
	n := 0
	switch {
	case p.Phase == name.Done:
		n = barWidth
	case p.Bytes > 0:
		n = int(int64(barWidth) * min(p.BytesDone, p.Bytes) / p.Bytes)
	}
	return strings.Repeat("#", n) + strings.Repeat(".", barWidth-n)
}

func progressLine(p name.MaintainProgress) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s: %s", p.Table, p.Phase)
	if p.Paused {
		s.WriteString(", paused")
	}
	if p.Groups > 0 {
		fmt.Fprintf(&s, ", %d of %d groups, %s of %s, %d of %d rows", p.GroupsDone, p.Groups, bytes(p.BytesDone), bytes(p.Bytes), p.RowsDone, p.Rows)
	}
	if p.Round > 1 {
		fmt.Fprintf(&s, ", plan %d", p.Round)
	}
	return s.String()
}
