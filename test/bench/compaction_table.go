package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	icebergsql "github.com/apache/iceberg-go/catalog/sql"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"millrace/lakehouse"
)

// compactionSchema is of twelve columns, of the kinds that events have.
var compactionSchema = iceberg.NewSchema(0,
	iceberg.NestedField{ID: 1, Name: "event_id", Type: iceberg.PrimitiveTypes.String, Required: true},
	iceberg.NestedField{ID: 2, Name: "user_id", Type: iceberg.PrimitiveTypes.Int64, Required: true},
	iceberg.NestedField{ID: 3, Name: "session_id", Type: iceberg.PrimitiveTypes.String},
	iceberg.NestedField{ID: 4, Name: "name", Type: iceberg.PrimitiveTypes.String},
	iceberg.NestedField{ID: 5, Name: "product_id", Type: iceberg.PrimitiveTypes.Int64},
	iceberg.NestedField{ID: 6, Name: "price", Type: iceberg.DecimalTypeOf(12, 2)},
	iceberg.NestedField{ID: 7, Name: "currency", Type: iceberg.PrimitiveTypes.String},
	iceberg.NestedField{ID: 8, Name: "quantity", Type: iceberg.PrimitiveTypes.Int32},
	iceberg.NestedField{ID: 9, Name: "country", Type: iceberg.PrimitiveTypes.String},
	iceberg.NestedField{ID: 10, Name: "occurred_at", Type: iceberg.PrimitiveTypes.TimestampTz, Required: true},
	iceberg.NestedField{ID: 11, Name: "ingested_at", Type: iceberg.PrimitiveTypes.TimestampTz},
	iceberg.NestedField{ID: 12, Name: "row_hash", Type: iceberg.PrimitiveTypes.Int64, Required: true},
)

// compactionProperties hold for both engines: zstd 3 and row groups of 128 MB, however many rows these have.
var compactionProperties = iceberg.Properties{
	"format-version": "2", table.ParquetCompressionKey: "zstd", table.ParquetCompressionLevelKey: "3",
	table.ParquetRowGroupSizeBytesKey: strconv.Itoa(128 << 20), table.ParquetRowGroupLimitKey: "100000000",
}

// rawCatalog does what the lakehouse does not: a table of another schema than events, and a head that goes back.
type rawCatalog struct {
	db  *sql.DB
	cat *icebergsql.Catalog
	id  table.Identifier
}

func openRaw(cfg lakehouse.Config, path string) (*rawCatalog, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(30000)&_pragma=journal_mode(WAL)")
	if err != nil {
		return nil, fmt.Errorf("opening the catalog: %w", err)
	}
	cat, err := icebergsql.NewCatalog(cfg.CatalogName, db, icebergsql.SQLite, iceberg.Properties{"warehouse": cfg.Warehouse})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the catalog: %w", err), db.Close())
	}
	return &rawCatalog{db, cat, table.Identifier{cfg.Namespace, compactionTable}}, nil
}

func (r *rawCatalog) close() error { return errors.Join(r.cat.Close(), r.db.Close()) }

func (l *compactionLake) create(ctx context.Context) error {
	if _, err := l.raw.cat.CreateTable(ctx, l.raw.id, compactionSchema, catalog.WithProperties(compactionProperties)); err != nil {
		return fmt.Errorf("creating the table: %w", err)
	}
	return nil
}

// append commits files, with the vector of offsets that our own commits carry on.
func (l *compactionLake) append(ctx context.Context, files []iceberg.DataFile) error {
	t, err := l.raw.cat.LoadTable(ctx, l.raw.id)
	if err != nil {
		return fmt.Errorf("loading the table: %w", err)
	}
	tx := t.NewTransaction()
	if err := tx.AddDataFiles(ctx, files, iceberg.Properties{lakehouse.OffsetsProperty: lakehouse.Vector{}.String()}, table.WithoutDuplicateCheck(), table.WithoutAutoNameMapping()); err != nil {
		return fmt.Errorf("appending files: %w", err)
	}
	if _, err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("appending files: %w", err)
	}
	return nil
}

func (r *rawCatalog) setMain(ctx context.Context, snapshot int64) error {
	update := table.NewSetSnapshotRefUpdate(table.MainBranch, snapshot, table.BranchRef, 0, 0, 0)
	if _, _, err := r.cat.CommitTable(ctx, r.id, nil, []table.Update{update}); err != nil {
		return fmt.Errorf("putting the small files back: %w", err)
	}
	return nil
}

// compactionRows makes rows, always the same ones.
type compactionRows struct {
	r              *rand.Rand
	schema         *arrow.Schema
	users, product *rand.Zipf
	at, step       int64 // µs
}

func newCompactionRows(r *rand.Rand, sc *arrow.Schema, rows int) *compactionRows {
	const start, day = 1_772_323_200_000_000, 24 * 3600 * 1_000_000
	return &compactionRows{r: r, schema: sc, users: rand.NewZipf(r, 1.1, 10, 999_999), product: rand.NewZipf(r, 1.2, 10, 49_999), at: start, step: int64(day / max(1, rows))}
}

var (
	compactionNames      = []string{"page_view", "page_view", "page_view", "page_view", "view_item", "view_item", "add_to_cart", "add_to_cart", "begin_checkout", "purchase"}
	compactionCurrencies = []string{"USD", "EUR", "GBP", "JPY", "PLN"}
	compactionCountries  = []string{"US", "DE", "GB", "JP", "PL", "FR", "ES", "IT", "NL", "SE", "BR", "IN", "MX", "CA", "AU"}
)

func (g *compactionRows) batch(n int) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, g.schema)
	defer b.Release()
	b.Reserve(n)
	text := func(i int, v string) { b.Field(i).(*array.StringBuilder).Append(v) }
	long := func(i int, v int64) { b.Field(i).(*array.Int64Builder).Append(v) }
	pick := func(of []string) string { return of[g.r.IntN(len(of))] }
	for range n {
		var id uuid.UUID
		for i := range id {
			id[i] = byte(g.r.Uint32())
		}
		user, product := int64(g.users.Uint64()), int64(g.product.Uint64())
		text(0, id.String())
		long(1, user)
		text(2, fmt.Sprintf("s-%d-%d", user, g.r.IntN(4)))
		text(3, pick(compactionNames))
		long(4, product)
		b.Field(5).(*array.Decimal128Builder).Append(decimal128.FromI64(99 + product*7919%50_000))
		text(6, pick(compactionCurrencies))
		b.Field(7).(*array.Int32Builder).Append(int32(1 + g.r.IntN(3)))
		text(8, pick(compactionCountries))
		g.at += g.step
		b.Field(9).(*array.TimestampBuilder).Append(arrow.Timestamp(g.at + int64(g.r.IntN(1000))))
		b.Field(10).(*array.TimestampBuilder).Append(arrow.Timestamp(g.at + 1_500_000 + int64(g.r.IntN(1_000_000))))
		long(11, int64(g.r.Uint64()))
	}
	return b.NewRecordBatch()
}
