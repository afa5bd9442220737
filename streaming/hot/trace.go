package hot

import (
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"

	"millrace/internal/telemetry"
)

// spans are those of the sampled records of the open transaction. A span ends with the transaction: from then on the sinks see the record's outputs. Without a
// tracer, and for every record that is not sampled, there is none.
type spans struct {
	tracer *telemetry.Tracer
	now    *telemetry.Span // of the record in hand
	open   []*telemetry.Span
}

func (s *spans) begin(r *kgo.Record) {
	if s.now = s.tracer.Record(r, "hot process"); s.now != nil {
		s.open = append(s.open, s.now)
	}
}

// became notes what the record in hand turned out to be.
func (s *spans) became(o outcome) {
	if s.now != nil {
		s.now.Set(attribute.String("millrace.outcome", outcomeNames[o]))
	}
}

// end ends the transaction's spans; failure is empty if it is committed.
func (s *spans) end(failure string) {
	for _, x := range s.open {
		x.End(failure)
	}
	clear(s.open)
	s.open, s.now = s.open[:0], nil
}
