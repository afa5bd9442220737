package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/lakehouse"
)

// jsonRows are the rows of our tables on their way to Connect, and Connect's tables.
type jsonRows struct {
	ours *lakehouse.Catalog
	peer *lakehouse.Catalog
	raw  *rawCatalog
	cl   *kgo.Client
}

func newJSONRows(ctx context.Context, j job) (_ *jsonRows, err error) {
	r := &jsonRows{}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.ours, err = lakehouse.Open(ctx, compactionConfig(j.Dir)); err != nil {
		return nil, err
	}
	cfg := connectConfig(j)
	if r.peer, err = lakehouse.Open(ctx, cfg); err != nil {
		return nil, err
	}
	if r.raw, err = openRaw(cfg, strings.TrimPrefix(cfg.CatalogURI, "sqlite:///")); err != nil {
		return nil, err
	}
	if r.cl, err = kgo.NewClient(kgo.SeedBrokers(j.Brokers), kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(20*time.Millisecond)); err != nil {
		return nil, fmt.Errorf("connecting to Kafka: %w", err)
	}
	return r, r.createTables(ctx)
}

func (r *jsonRows) close() {
	if r.cl != nil {
		r.cl.Close()
	}
	if r.raw != nil {
		_ = r.raw.close() // nothing is under way
	}
	for _, c := range []*lakehouse.Catalog{r.peer, r.ours} {
		if c != nil {
			_ = c.Close() // nothing is under way
		}
	}
}

// createTables makes Connect's tables, with the columns of all of ours, their partition and properties.
func (r *jsonRows) createTables(ctx context.Context) error {
	var fields []iceberg.NestedField
	seen := map[string]bool{}
	id := 0
	for _, name := range eventTables() {
		t, err := r.ours.Load(ctx, name)
		if err != nil {
			return err
		}
		for _, f := range t.Schema().Fields() {
			if !seen[f.Name] {
				seen[f.Name] = true
				id++
				fields = append(fields, iceberg.NestedField{ID: 1000 + id, Name: f.Name, Type: f.Type})
			}
		}
	}
	sc := iceberg.NewSchema(0, fields...)
	day, ok := sc.FindFieldByName(lakehouse.PartitionColumn)
	if !ok {
		return fmt.Errorf("no column %s", lakehouse.PartitionColumn)
	}
	spec := iceberg.NewPartitionSpecID(0, iceberg.PartitionField{SourceIDs: []int{day.ID}, FieldID: iceberg.PartitionDataIDStart, Name: "ingested_day", Transform: iceberg.DayTransform{}})
	props := lakehouse.Properties("events_page")
	props["format-version"] = "2"
	for _, name := range []string{"warm", "events"} {
		if _, err := r.raw.cat.CreateTable(ctx, table.Identifier{"peer", name}, sc, catalog.WithPartitionSpec(&spec), catalog.WithProperties(props)); err != nil {
			return fmt.Errorf("creating table %s: %w", name, err)
		}
	}
	return nil
}

// topic makes one.
func (r *jsonRows) topic(ctx context.Context, name string, n int32) error {
	got, err := kadm.NewClient(r.cl).CreateTopic(ctx, n, 1, nil, name)
	if err := errors.Join(err, got.Err); err != nil {
		return fmt.Errorf("creating topic %s: %w", name, err)
	}
	return nil
}

// fill writes all rows to a topic, and the first ones to one for a warm-up. It gives the checksum of all.
func (r *jsonRows) fill(ctx context.Context, warm, all string) (event.Checksum, error) {
	var sum event.Checksum
	for _, t := range []string{warm, all} {
		if err := r.topic(ctx, t, partitions); err != nil {
			return sum, err
		}
	}
	var refused atomic.Pointer[error]
	send := func(topic string, value []byte) {
		r.cl.Produce(ctx, &kgo.Record{Topic: topic, Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				refused.Store(&err)
			}
		})
	}
	for _, name := range eventTables() {
		err := r.ours.Scan(ctx, name, "", nil, func(b arrow.RecordBatch) error {
			hashes, ok := b.Column(b.Schema().FieldIndices("row_hash")[0]).(*array.Int64)
			if !ok {
				return errors.New("row_hash is no number")
			}
			for i := range int(b.NumRows()) {
				value, err := jsonRow(b, i)
				if err != nil {
					return err
				}
				if sum.Count < connectWarm {
					send(warm, value)
				}
				send(all, value)
				sum.Add(hashes.Value(i))
			}
			return nil
		})
		if err != nil {
			return sum, err
		}
	}
	err := r.cl.Flush(ctx)
	if p := refused.Load(); p != nil {
		err = errors.Join(err, *p)
	}
	if err != nil {
		return sum, fmt.Errorf("filling %s: %w", all, err)
	}
	return sum, nil
}

// jsonRow is a row without its nulls.
func jsonRow(b arrow.RecordBatch, row int) ([]byte, error) {
	out := []byte{'{'}
	for i, f := range b.Schema().Fields() {
		col := b.Column(i)
		if col.IsNull(row) {
			continue
		}
		v, err := json.Marshal(col.GetOneForMarshal(row))
		if err != nil {
			return nil, fmt.Errorf("column %s as JSON: %w", f.Name, err)
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(append(out, '"'), f.Name...), '"', ':'), v...)
	}
	return append(out, '}'), nil
}

// count is how many rows a table of Connect's has, by its summary.
func (r *jsonRows) count(ctx context.Context, name string) (int64, error) {
	t, err := r.peer.Load(ctx, name)
	if err != nil || t.CurrentSnapshot() == nil {
		return 0, err
	}
	return t.CurrentSnapshot().Summary.Properties.GetInt64("total-records", 0), nil
}

// stored is the checksum of a table of Connect's.
func (r *jsonRows) stored(ctx context.Context, name string) (event.Checksum, error) {
	var sum event.Checksum
	err := r.peer.Scan(ctx, name, "", []string{"row_hash"}, func(b arrow.RecordBatch) error {
		col, ok := b.Column(0).(*array.Int64)
		if !ok {
			return fmt.Errorf("row_hash is %s", b.Column(0).DataType())
		}
		for _, v := range col.Int64Values() {
			sum.Add(v)
		}
		return nil
	})
	return sum, err
}
