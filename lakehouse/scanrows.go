package lakehouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// scanRows is how many rows a batch of a scan has at most.
const scanRows = 8192

// ScanOptions says which rows to read.
type ScanOptions struct {
	Ref      string // as of Catalog.Ref; "" is main
	Snapshot int64  // instead of Ref
	Columns  []string
	Filter   iceberg.BooleanExpression
	// From and To select the rows with From ≤ kafka_offset < To in each partition. A partition that To does not have gives no rows; without To there is no upper bound. The
	// rows do not say which topic id they are of, so vectors may name one topic only.
	From, To Vector
	Limit    int64 // 0: all
	Parallel int   // files read at once, each held decoded; 0: small ones two at a time, large ones one by one
}

// ScanRows calls each with the rows of one snapshot, with deletes applied. each must not keep a batch. The columns of a branch are those of the table today, those
// of a tag or snapshot are of its time. Memory is bounded by the batches of one file, or some small ones.
func (c *Catalog) ScanRows(ctx context.Context, name string, o ScanOptions, each func(arrow.RecordBatch) error) error {
	if o.Ref == "" && o.Snapshot == 0 {
		o.Ref = RefMain
	}
	if o.Ref != "" && o.Snapshot != 0 {
		return fmt.Errorf("scanning table %s: ref %q and snapshot %d exclude each other", name, o.Ref, o.Snapshot)
	}
	t, err := c.Load(ctx, name)
	if err != nil {
		return err
	}
	if err := scanTable(ctx, name, t, o, each); err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("scanning table %s: %w", name, err)
	}
	return nil
}

var errEnough = errors.New("enough rows")

func scanTable(ctx context.Context, name string, t *table.Table, o ScanOptions, each func(arrow.RecordBatch) error) error {
	p, err := scanOf(ctx, name, t, o)
	if err != nil || p == nil {
		return err
	}
	defer func() { _ = p.scan.Close() }() // planned locally: there is nothing to give back
	_, batches, err := p.scan.ReadTasks(ctx, p.tasks)
	if err != nil {
		return Damaged(ctx, t, p.tasks, err)
	}
	left := o.Limit
	for b, err := range batches {
		if err != nil {
			return Damaged(ctx, t, p.tasks, err)
		}
		if b, err = p.wanted(ctx, b); err != nil {
			return err
		}
		if b == nil {
			continue
		}
		if o.Limit > 0 && b.NumRows() > left {
			whole := b
			b = whole.NewSlice(0, left)
			whole.Release()
		}
		left -= b.NumRows()
		err := each(b)
		b.Release()
		if err != nil {
			return err
		}
		if o.Limit > 0 && left <= 0 {
			return errEnough
		}
	}
	return ctx.Err()
}

// plannedRows is what a scan reads.
type plannedRows struct {
	scan  *table.Scan
	tasks []table.FileScanTask
	rows  *rowFilter // nil: all
	drop  []string   // columns that only the filter needs
}

// wanted gives what is asked for of a batch, nil if there is nothing; it takes the batch.
func (p *plannedRows) wanted(ctx context.Context, b arrow.RecordBatch) (arrow.RecordBatch, error) {
	if p.rows != nil {
		whole := b
		var err error
		b, err = p.rows.keep(ctx, whole)
		whole.Release()
		if err != nil || b == nil {
			return nil, err
		}
	}
	if len(p.drop) > 0 {
		whole := b
		b = lessColumns(whole, p.drop)
		whole.Release()
	}
	return b, nil
}

// scanOf plans a scan; nil if there is nothing to read.
func scanOf(ctx context.Context, name string, t *table.Table, o ScanOptions) (*plannedRows, error) {
	filter := o.Filter
	if o.From != nil || o.To != nil {
		between, err := offsetsBetween(o.From, o.To)
		if err != nil {
			return nil, err
		}
		if filter = between; o.Filter != nil {
			filter = iceberg.NewAnd(o.Filter, between)
		}
	}
	at, err := RefState{SnapshotID: o.Snapshot}, error(nil)
	if o.Snapshot == 0 {
		at, err = refOf(name, t, o.Ref)
		if at.SnapshotID == 0 {
			return nil, err // nil: main is empty
		}
	}
	snap := t.SnapshotByID(at.SnapshotID)
	if snap == nil {
		return nil, cmp.Or(err, fmt.Errorf("%w: %d", ErrNoSnapshot, at.SnapshotID))
	}
	branch := at.Kind == string(table.BranchRef)
	sc := t.Schema()
	if !branch {
		sc = schemaOf(t, snap)
	}
	p := &plannedRows{}
	if filter != nil {
		if p.rows, err = newRowFilter(sc, filter); err != nil {
			return nil, err
		}
		for _, c := range p.rows.columns {
			if len(o.Columns) > 0 && !slices.Contains(o.Columns, c) {
				p.drop = append(p.drop, c)
			}
		}
	}
	scan := func(opts ...table.ScanOption) (*table.Scan, error) {
		opts = append(opts, table.WithArrowBatchSize(scanRows), table.WithSelectedFields(slices.Concat(o.Columns, p.drop)...))
		if branch {
			return t.Scan(opts...).UseRef(o.Ref)
		}
		return t.Scan(append(opts, table.WithSnapshotID(at.SnapshotID))...), nil
	}
	plan, err := scan(table.WithRowFilter(filter))
	if err != nil {
		return nil, err
	}
	if p.tasks, err = plan.PlanFiles(ctx); err != nil {
		return nil, err
	}
	readers := o.Parallel
	if readers <= 0 {
		readers = 2
		if slices.ContainsFunc(p.tasks, func(t table.FileScanTask) bool { return t.Length > wideFile }) {
			readers = 1
		}
	}
	for i := range p.tasks {
		p.tasks[i].Residual = nil // of the filter, which is applied here
	}
	p.scan, err = scan(table.WithMaxConcurrency(readers))
	return p, err
}

// schemaOf is the schema of a snapshot's time.
func schemaOf(t *table.Table, s *table.Snapshot) *iceberg.Schema {
	if s.SchemaID != nil {
		for _, sc := range t.Metadata().Schemas() {
			if sc.ID == *s.SchemaID {
				return sc
			}
		}
	}
	return t.Schema()
}

// lessColumns gives a batch less some columns. The caller owns it.
func lessColumns(b arrow.RecordBatch, drop []string) arrow.RecordBatch {
	var fields []arrow.Field
	var cols []arrow.Array
	for i, f := range b.Schema().Fields() {
		if !slices.Contains(drop, f.Name) {
			fields, cols = append(fields, f), append(cols, b.Column(i))
		}
	}
	meta := b.Schema().Metadata()
	return array.NewRecordBatch(arrow.NewSchema(fields, &meta), cols, b.NumRows())
}

// offsetsBetween is the filter of a range of offsets.
func offsetsBetween(from, to Vector) (iceberg.BooleanExpression, error) {
	topics := map[string]bool{}
	for _, v := range [...]Vector{from, to} {
		for topic := range v {
			topics[topic] = true
		}
	}
	if len(topics) > 1 {
		return nil, fmt.Errorf("offsets of %d topics (%v): rows do not say which of them they are from", len(topics), slices.Sorted(maps.Keys(topics)))
	}
	partition, offset := iceberg.Reference("kafka_partition"), iceberg.Reference("kafka_offset")
	var lows, highs map[int32]int64
	for topic := range topics {
		lows, highs = from[topic], to[topic]
	}
	if to == nil { // everything but what lies below
		var out iceberg.BooleanExpression = iceberg.AlwaysTrue{}
		for _, p := range slices.Sorted(maps.Keys(lows)) {
			if lows[p] > 0 {
				out = iceberg.NewAnd(out, iceberg.NewOr(iceberg.NotEqualTo(partition, p), iceberg.GreaterThanEqual(offset, lows[p])))
			}
		}
		return out, nil
	}
	var out iceberg.BooleanExpression = iceberg.AlwaysFalse{}
	for _, p := range slices.Sorted(maps.Keys(highs)) {
		if lo := lows[p]; lo < highs[p] {
			out = iceberg.NewOr(out, iceberg.NewAnd(iceberg.EqualTo(partition, p), iceberg.NewAnd(iceberg.GreaterThanEqual(offset, lo), iceberg.LessThan(offset, highs[p]))))
		}
	}
	return out, nil
}
