package lakehouse

import (
	"context"
	"fmt"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// stream is one file being written (a few if it grows beyond the target size), by a goroutine of its own that close or abort waits for.
type stream struct {
	batches chan arrow.RecordBatch
	cancel  context.CancelFunc
	done    chan struct{}
	files   []iceberg.DataFile
	err     error
}

func (w *Writer) open(ctx context.Context, t *table.Table) *stream {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // the stream outlives the call
	s := &stream{batches: make(chan arrow.RecordBatch, 1), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		input := func(yield func(arrow.RecordBatch, error) bool) {
			for {
				select {
				case b, ok := <-s.batches:
					if !ok || !yield(b, nil) {
						return
					}
				case <-ctx.Done():
					yield(nil, ctx.Err())
					return
				}
			}
		}
		for f, err := range table.WriteRecords(ctx, t, w.layout.arrow, input, table.WithClusteredWrite(), table.WithRecordBatchBufferSize(1)) {
			if err != nil {
				s.err = err
				return
			}
			s.files = append(s.files, f)
		}
	}()
	return s
}

func (s *stream) send(b arrow.RecordBatch) error {
	select {
	case s.batches <- b:
		return nil
	case <-s.done:
		b.Release()
		return fmt.Errorf("writing a batch: %w", s.err)
	}
}

func (s *stream) close() ([]iceberg.DataFile, error) {
	close(s.batches)
	<-s.done
	s.cancel()
	return s.files, s.err
}

// abort gives the files that were complete; the one being written is removed by its writer.
func (s *stream) abort() []iceberg.DataFile {
	s.cancel()
	<-s.done
	for {
		select {
		case b := <-s.batches:
			b.Release()
		default:
			return s.files
		}
	}
}

// unsorted is t as a writer of the stream is to see it: without a sort order, since iceberg-go would sort every batch by it, which compaction does for whole files.
func unsorted(t *table.Table) (*table.Table, error) {
	b, err := table.MetadataBuilderFromBase(t.Metadata(), t.MetadataLocation())
	if err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	none := table.UnsortedSortOrder
	if err := b.AddSortOrder(&none); err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	if err := b.SetDefaultSortOrderID(table.UnsortedSortOrderID); err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	meta, err := b.Build()
	if err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	return table.New(t.Identifier(), meta, t.MetadataLocation(), t.FS, nil), nil
}

// sized is the table with Bloom filters for a file of so many rows.
func (w *Writer) sized(rows int) (*table.Table, error) {
	size := bloomBytes(int64(rows))
	if size == table.ParquetBloomFilterMaxBytesDefault {
		return w.tbl, nil
	}
	if t := w.small[size]; t != nil {
		return t, nil
	}
	t, err := withBlooms(w.tbl, size)
	if err == nil {
		w.small[size] = t
	}
	return t, err
}

// bloomBytes is the size of a Bloom filter for so many values: iceberg-go makes each as large as the table's bound allows, 1 MiB, which a file of a few hundred
// rows would carry twice. Ten bits a value give 1 % false positives (Bloom 1970).
func bloomBytes(rows int64) int {
	size := 1024
	for int64(size) < rows*10/8 && size < table.ParquetBloomFilterMaxBytesDefault {
		size *= 2
	}
	return size
}

// withBlooms is a table whose writers make Bloom filters of so many bytes.
func withBlooms(t *table.Table, size int) (*table.Table, error) {
	b, err := table.MetadataBuilderFromBase(t.Metadata(), t.MetadataLocation())
	if err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	if err := b.SetProperties(iceberg.Properties{table.ParquetBloomFilterMaxBytesKey: strconv.Itoa(size)}); err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	meta, err := b.Build()
	if err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	return table.New(t.Identifier(), meta, t.MetadataLocation(), t.FS, nil), nil
}
