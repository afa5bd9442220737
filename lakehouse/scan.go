package lakehouse

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go/table"
	"github.com/cespare/xxhash/v2"

	"millrace/event"
)

// Scan reads columns of a table (all if none are named) at the head of a ref ("" is main). each must not keep the batch.
func (c *Catalog) Scan(ctx context.Context, name, ref string, columns []string, each func(arrow.RecordBatch) error) error {
	t, err := c.Load(ctx, name)
	if err != nil {
		return err
	}
	if t.CurrentSnapshot() == nil {
		return nil
	}
	var opts []table.ScanOption
	if len(columns) > 0 {
		opts = append(opts, table.WithSelectedFields(columns...))
	}
	scan := t.Scan(opts...)
	if ref != "" && ref != table.MainBranch {
		if scan, err = scan.UseRef(ref); err != nil {
			return fmt.Errorf("scanning table %s at %s: %w", name, ref, err)
		}
	}
	_, batches, err := scan.ToArrowRecords(ctx)
	if err != nil {
		return fmt.Errorf("scanning table %s: %w", name, err)
	}
	for b, err := range batches {
		if err != nil {
			return fmt.Errorf("scanning table %s: %w", name, err)
		}
		err := each(b)
		b.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// Totals are the sums by which stores are compared.
type Totals struct {
	event.Checksum
	Distinct int64                // distinct (tenant, source, event_id)
	IDHash   uint64               // Σ xxhash64(event_id) over them, mod 2^64
	Values   map[string]event.Sum // currency → Σ value over all rows
}

// Totals reads a whole events_* table at the head of main. It remembers 16 bytes for each distinct id.
func (c *Catalog) Totals(ctx context.Context, name string) (Totals, error) {
	out := Totals{Values: map[string]event.Sum{}}
	seen := map[[16]byte]struct{}{}
	err := c.Scan(ctx, name, "", []string{"event_id", "tenant", "source", "row_hash", "value", "currency"}, func(b arrow.RecordBatch) error {
		col := map[string]arrow.Array{}
		for i, f := range b.Schema().Fields() {
			col[f.Name] = b.Column(i)
		}
		id, ok1 := col["event_id"].(*array.String)
		tenant, ok2 := col["tenant"].(*array.String)
		source, ok3 := col["source"].(*array.String)
		hash, ok4 := col["row_hash"].(*array.Int64)
		value, ok5 := col["value"].(*array.Decimal128)
		currency, ok6 := col["currency"].(*array.String)
		if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 {
			return fmt.Errorf("table %s has no columns of an events table: %s", name, b.Schema())
		}
		for i := range int(b.NumRows()) {
			out.Add(hash.Value(i))
			if fp := event.Fingerprint(tenant.Value(i), source.Value(i), id.Value(i)); !has(seen, fp) {
				seen[fp] = struct{}{}
				out.Distinct++
				out.IDHash += xxhash.Sum64String(id.Value(i))
			}
			if value.IsValid(i) {
				cur := ""
				if currency.IsValid(i) {
					cur = currency.Value(i)
				}
				out.Values[cur] = out.Values[cur].AddMicros(int64(value.Value(i).LowBits()))
			}
		}
		return nil
	})
	return out, err
}

func has(m map[[16]byte]struct{}, k [16]byte) bool {
	_, ok := m[k]
	return ok
}
