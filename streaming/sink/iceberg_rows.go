package sink

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/internal/fault"
	"millrace/lakehouse"
)

// icebergRows is how the records of a topic become rows of its table. What was decoded last is what is written.
type icebergRows interface {
	// decode reads a record and says whether it is of an erased subject. A record that never can be read is a RowError; any other error is of the moment.
	decode(ctx context.Context, r *kgo.Record) (erased bool, err error)
	write(ctx context.Context, w *lakehouse.Writer, from lakehouse.Provenance) error
}

// unreadable says of an error of a codec whether it is of the record.
func unreadable(err error) error {
	if id, _ := fault.IDOf(err); id == "MR-EVT-003" { // the registry may be away, or behind
		return err
	}
	return &lakehouse.RowError{Err: err}
}

// eventRows are those of events_*.
type eventRows struct {
	s   *Iceberg
	cat event.Category
}

func (r eventRows) decode(ctx context.Context, rec *kgo.Record) (bool, error) {
	if err := r.s.dec.DecodeEnriched(ctx, r.cat, rec.Value, &r.s.event); err != nil {
		return false, unreadable(err)
	}
	return r.s.erasures.dropsEvent(&r.s.event), nil
}

func (r eventRows) write(ctx context.Context, w *lakehouse.Writer, from lakehouse.Provenance) error {
	return w.WriteEvent(ctx, &r.s.event, from)
}

// failedRows are those of failed_events.
type failedRows struct{ s *Iceberg }

func (r failedRows) decode(ctx context.Context, rec *kgo.Record) (bool, error) {
	r.s.failed = event.Failed{}
	if err := r.s.codecs.Decode(ctx, rec.Topic, rec.Value, &r.s.failed); err != nil {
		return false, unreadable(err)
	}
	return r.s.erasures.dropsFailed(&r.s.failed), nil
}

func (r failedRows) write(ctx context.Context, w *lakehouse.Writer, from lakehouse.Provenance) error {
	return w.WriteFailed(ctx, &r.s.failed, from)
}

// alertRows are those of alerts. What is on the topic is confirmed.
type alertRows struct{ s *Iceberg }

func (r alertRows) decode(ctx context.Context, rec *kgo.Record) (bool, error) {
	if err := decodeAlert(ctx, r.s.codecs, rec, &r.s.alert); err != nil {
		if errors.Is(err, errBadAlert) {
			err = &lakehouse.RowError{Err: err}
		}
		return false, err
	}
	return r.s.erasures.dropsAlert(&r.s.alert), nil
}

func (r alertRows) write(ctx context.Context, w *lakehouse.Writer, from lakehouse.Provenance) error {
	return w.WriteAlert(ctx, &r.s.alert, from)
}
