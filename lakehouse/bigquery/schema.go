package bigquery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	bq "cloud.google.com/go/bigquery"
	"github.com/apache/iceberg-go"

	"millrace/event/schema"
	"millrace/internal/fault"
)

// columnsOf are the columns that a table of the lake has in BigQuery: those of the table of fields, then those that were promoted from properties since.
func columnsOf(table string, have *iceberg.Schema) (bq.Schema, error) {
	known, err := schema.BigQueryColumns(table)
	if err != nil {
		return nil, err
	}
	byName := map[string]bool{}
	for _, c := range known {
		byName[c.Name] = true
	}
	out := bqSchema(known)
	for _, f := range have.Fields() {
		if byName[f.Name] {
			continue
		}
		kind, err := promotedKind(f.Type)
		if err != nil {
			return nil, fault.Newf(schemaID, "table %s: column %s: %w", table, f.Name, err)
		}
		out = append(out, &bq.FieldSchema{Name: f.Name, Type: kind, Description: fmt.Sprintf("%s [field %d]", f.Doc, f.ID)})
	}
	return out, nil
}

func bqSchema(from []schema.BigQueryColumn) bq.Schema {
	var out bq.Schema
	for _, c := range from {
		out = append(out, &bq.FieldSchema{
			Name: c.Name, Description: c.Description, Type: bq.FieldType(c.Type), Required: c.Mode == "REQUIRED", Repeated: c.Mode == "REPEATED", Schema: bqSchema(c.Fields),
		})
	}
	return out
}

func promotedKind(t iceberg.Type) (bq.FieldType, error) {
	switch t := t.(type) {
	case iceberg.StringType:
		return bq.StringFieldType, nil
	case iceberg.Int32Type, iceberg.Int64Type:
		return bq.IntegerFieldType, nil
	case iceberg.BooleanType:
		return bq.BooleanFieldType, nil
	case iceberg.Float32Type, iceberg.Float64Type:
		return bq.FloatFieldType, nil
	case iceberg.TimestampTzType:
		return bq.TimestampFieldType, nil
	case iceberg.BinaryType:
		return bq.BytesFieldType, nil
	case iceberg.DecimalType:
		if t.Scale() <= 9 && t.Precision()-t.Scale() <= 29 {
			return bq.NumericFieldType, nil
		}
		return bq.BigNumericFieldType, nil
	}
	return "", fmt.Errorf("type %s has no counterpart in BigQuery here", t)
}

// ensure makes what is missing: datasets, the table, its columns. Columns are only added, and only such as may be null. It gives the table as it is now.
func (s *Store) ensure(ctx context.Context, table string, want bq.Schema) (*bq.TableMetadata, error) {
	for _, d := range [...]string{s.cfg.Dataset, s.cfg.Work()} {
		if err := s.ensureDataset(ctx, d); err != nil {
			return nil, err
		}
	}
	t := s.target(table)
	var refused error
	for n := range 5 {
		meta, err := s.metadata(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("looking at table %s: %w", table, err)
		}
		if meta == nil {
			err := s.call(ctx, func(ctx context.Context) error {
				return t.Create(ctx, &bq.TableMetadata{
					Schema: want, Description: "Category " + strings.TrimPrefix(table, "events_") + " of the platform's events; one row an event.",
					TimePartitioning: &bq.TimePartitioning{Type: bq.DayPartitioningType, Field: schema.BigQueryPartition},
					Clustering:       &bq.Clustering{Fields: schema.BigQueryClustering()},
				})
			})
			if err != nil && !hasStatus(err, http.StatusConflict) { // another process may have made it at the same moment
				refused = fmt.Errorf("creating table %s: %w", table, err)
				if err := s.pause(ctx, n); err != nil {
					return nil, errors.Join(err, refused)
				}
			}
			continue // as the service sees it
		}
		merged, changed, err := merge(meta.Schema, want)
		if err != nil {
			return nil, fault.New(schemaID, fmt.Errorf("table %s: %w", table, err))
		}
		if p := meta.TimePartitioning; p == nil || p.Field != schema.BigQueryPartition || p.Type != bq.DayPartitioningType {
			return nil, fault.Newf(schemaID, "table %s is not partitioned by the day of %s", table, schema.BigQueryPartition)
		}
		if !changed {
			return meta, nil
		}
		err = s.call(ctx, func(ctx context.Context) error {
			_, err := t.Update(ctx, bq.TableMetadataToUpdate{Schema: merged}, meta.ETag)
			return err
		})
		if err != nil && !hasStatus(err, http.StatusPreconditionFailed) { // another process was first
			refused = fmt.Errorf("adding columns to table %s: %w", table, err)
			if !transient(err) {
				return nil, refused
			}
			if err := s.pause(ctx, n); err != nil {
				return nil, errors.Join(err, refused)
			}
		}
	}
	if refused != nil {
		return nil, refused
	}
	return nil, fmt.Errorf("table %s changed five times while columns were added", table)
}

func (s *Store) ensureDataset(ctx context.Context, id string) error {
	if _, ok := s.datasets.Load(id); ok {
		return nil
	}
	var refused error
	for n := range 4 {
		err := s.call(ctx, func(ctx context.Context) error {
			_, err := s.client.Dataset(id).Metadata(ctx)
			return err
		})
		if err == nil {
			s.datasets.Store(id, true)
			return nil
		}
		if !hasStatus(err, http.StatusNotFound) {
			return fmt.Errorf("dataset %s: %w", id, err)
		}
		if !s.cfg.CreateDatasets {
			return fault.Newf(refusedID, "dataset %s does not exist, and bigquery.create_datasets is false", id)
		}
		if n > 0 {
			if err := s.pause(ctx, n-1); err != nil {
				return errors.Join(err, refused)
			}
		}
		refused = s.call(ctx, func(ctx context.Context) error {
			return s.client.Dataset(id).Create(ctx, &bq.DatasetMetadata{Location: s.cfg.Location})
		})
	}
	return fmt.Errorf("creating dataset %s: %w", id, refused)
}

// metadata is nil for a table that does not exist.
func (s *Store) metadata(ctx context.Context, t *bq.Table) (*bq.TableMetadata, error) {
	var meta *bq.TableMetadata
	err := s.call(ctx, func(ctx context.Context) (err error) {
		meta, err = t.Metadata(ctx)
		return err
	})
	if hasStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	return meta, err
}

// merge gives have with what it lacks of want at its end, and whether that is another schema. A column of another type is refused, whichever is the narrower: rows that
// are there, or rows that come, would lose something.
func merge(have, want bq.Schema) (bq.Schema, bool, error) {
	out := slices.Clone(have)
	changed := false
	var errs []error
	missing := map[string]bool{} // required ones that nobody fills
	at := map[string]int{}
	for i, f := range have {
		at[strings.ToLower(f.Name)] = i
		missing[strings.ToLower(f.Name)] = f.Required
	}
	for _, w := range want {
		i, ok := at[strings.ToLower(w.Name)]
		if !ok {
			if w.Required {
				errs = append(errs, fmt.Errorf("column %s is missing and cannot be added, since rows that are there would have no value", w.Name))
				continue
			}
			out, changed = append(out, w), true
			continue
		}
		h := have[i]
		missing[strings.ToLower(w.Name)] = false
		switch {
		case h.Type != w.Type:
			errs = append(errs, fmt.Errorf("column %s has type %s, the lake's needs %s", w.Name, h.Type, w.Type))
			continue
		case h.Repeated != w.Repeated:
			errs = append(errs, fmt.Errorf("column %s: one of BigQuery's and the lake's is repeated", w.Name))
			continue
		}
		next := *h
		if h.Required && !w.Required {
			next.Required, changed = false, true
		}
		if w.Type == bq.RecordFieldType {
			fields, more, err := merge(h.Schema, w.Schema)
			if err != nil {
				errs = append(errs, fmt.Errorf("column %s: %w", w.Name, err))
				continue
			}
			next.Schema, changed = fields, changed || more
		}
		out[i] = &next
	}
	for _, h := range have {
		if missing[strings.ToLower(h.Name)] {
			errs = append(errs, fmt.Errorf("column %s is required there, and the lake does not have it", h.Name))
		}
	}
	return out, changed, errors.Join(errs...)
}
