package bigquery

import (
	"context"
	"errors"
	"fmt"

	"millrace/lakehouse"
)

// Status says how far a table is loaded.
type Status struct {
	Table     string   `json:"table"`
	Position  Position `json:"position"`
	Published int64    `json:"published"` // snapshot; 0: none
	Rows      uint64   `json:"rows"`      // in BigQuery
	State     string   `json:"state"`     // current, behind, unpublished, missing
}

// Status looks at BigQuery and the lake, and changes nothing.
func (s *Store) Status(ctx context.Context, table string) (Status, error) {
	out := Status{Table: table}
	err := s.status(ctx, table, &out)
	if err != nil {
		err = classify(fmt.Errorf("looking at table %s of BigQuery: %w", table, err))
	}
	return out, err
}

func (s *Store) status(ctx context.Context, table string, out *Status) error {
	ref, err := s.lake.Ref(ctx, table, lakehouse.RefPublished)
	if err != nil && !errors.Is(err, lakehouse.ErrNoRef) {
		return err
	}
	out.Published = ref.SnapshotID
	meta, err := s.metadata(ctx, s.target(table))
	if err != nil {
		return err
	}
	if meta == nil {
		out.State = "missing"
		return nil
	}
	out.Rows = meta.NumRows
	at, err := s.readPosition(ctx, table)
	if err != nil {
		return err
	}
	out.Position = deref(at)
	switch out.State = "behind"; {
	case out.Published == 0:
		out.State = "unpublished"
	case out.Position.SnapshotID == out.Published:
		out.State = "current"
	}
	return nil
}
