package sink

import (
	"context"

	"millrace/event"
	"millrace/lakehouse"
)

// icebergRows is how the records of a topic become rows of its table. What was decoded last is what is written.
type icebergRows interface {
	// decode reads a record and says whether it is of an erased subject.
	decode(ctx context.Context, value []byte) (erased bool, err error)
	write(ctx context.Context, w *lakehouse.Writer, from lakehouse.Provenance) error
}

// eventRows are those of events_*.
type eventRows struct {
	s   *Iceberg
	cat event.Category
}

func (r eventRows) decode(ctx context.Context, value []byte) (bool, error) {
	if err := r.s.dec.DecodeEnriched(ctx, r.cat, value, &r.s.event); err != nil {
		return false, err
	}
	return r.s.erasures.dropsEvent(&r.s.event), nil
}

func (r eventRows) write(ctx context.Context, w *lakehouse.Writer, from lakehouse.Provenance) error {
	return w.WriteEvent(ctx, &r.s.event, from)
}

// failedRows are those of failed_events.
type failedRows struct{ s *Iceberg }

func (r failedRows) decode(ctx context.Context, value []byte) (bool, error) {
	r.s.failed = event.Failed{}
	if err := r.s.codecs.Decode(ctx, event.TopicEventsFailed, value, &r.s.failed); err != nil {
		return false, err
	}
	return r.s.erasures.dropsFailed(&r.s.failed), nil
}

func (r failedRows) write(ctx context.Context, w *lakehouse.Writer, from lakehouse.Provenance) error {
	return w.WriteFailed(ctx, &r.s.failed, from)
}

// alertRows are those of alerts. What is on the topic is confirmed.
type alertRows struct{ s *Iceberg }

func (r alertRows) decode(ctx context.Context, value []byte) (bool, error) {
	r.s.alert = event.Alert{}
	if err := r.s.codecs.Decode(ctx, event.TopicAlerts, value, &r.s.alert); err != nil {
		return false, err
	}
	r.s.alert.Confirmed = true
	return r.s.erasures.dropsAlert(&r.s.alert), nil
}

func (r alertRows) write(ctx context.Context, w *lakehouse.Writer, from lakehouse.Provenance) error {
	return w.WriteAlert(ctx, &r.s.alert, from)
}
