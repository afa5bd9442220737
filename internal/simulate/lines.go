package simulate

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// unpack reads through the compression that a file's name tells.
func unpack(path string, r io.Reader) (io.Reader, func(), error) {
	switch low := strings.ToLower(path); {
	case strings.HasSuffix(low, ".gz"):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, fmt.Errorf("opening gzip: %w", err)
		}
		return z, func() { _ = z.Close() }, nil // it was only read
	case strings.HasSuffix(low, ".zst"):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, nil, fmt.Errorf("opening zstd: %w", err)
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}

var byteOrderMark = []byte{0xEF, 0xBB, 0xBF}

// readNDJSON reads an event a line. Empty lines are none.
func (im *importer) readNDJSON(ctx context.Context, in io.Reader) error {
	r := bufio.NewReaderSize(in, 256<<10)
	var long []byte // a line that is longer than the reader's memory
	for number := int64(1); ; number++ {
		line, err := r.ReadSlice('\n')
		tooLong := false
		if errors.Is(err, bufio.ErrBufferFull) {
			for long = append(long[:0], line...); errors.Is(err, bufio.ErrBufferFull); {
				line, err = r.ReadSlice('\n')
				if tooLong = tooLong || len(long)+len(line) > maxRow; !tooLong {
					long = append(long, line...)
				}
			}
			line = long
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading line %d: %w", number, err)
		}
		if number == 1 {
			line = bytes.TrimPrefix(line, byteOrderMark)
		}
		line = bytes.TrimSpace(line)
		switch {
		case tooLong:
			im.reject(number, line[:min(len(line), 4096)], errTooLong)
		case len(line) > 0:
			if !im.row(ctx, number, line) {
				return nil
			}
		}
		if err != nil || ctx.Err() != nil {
			return nil
		}
	}
}

// budget fails when one row takes more of a reader than it may.
type budget struct {
	r    io.Reader
	left int
}

func (b *budget) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.r.Read(p)
	b.left -= n
	return n, err
}

// readCSV reads an event a row; the first row names native fields, nested ones by dots: context.page.url, items.0.item_id. A cell of a field that is an object
// or array (items, properties, …) holds JSON. An empty cell is an absent field.
func (im *importer) readCSV(ctx context.Context, in io.Reader) error {
	limit := &budget{r: in, left: maxRow}
	buffered := bufio.NewReader(limit)
	if mark, err := buffered.Peek(3); err == nil && bytes.Equal(mark, byteOrderMark) {
		_, _ = buffered.Discard(3) // they were just seen
	}
	r := csv.NewReader(buffered)
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return fmt.Errorf("reading the header row: %w", err)
	}
	root, err := newTree(header)
	if err != nil {
		return fmt.Errorf("reading the header row: %w", err)
	}
	var text []byte
	for ctx.Err() == nil {
		limit.left = maxRow
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		var bad *csv.ParseError
		switch {
		case errors.As(err, &bad):
			im.reject(int64(bad.StartLine), joined(cells), fmt.Errorf("not CSV: %w", bad.Err))
			continue
		case err != nil:
			line, _ := r.FieldPos(0)
			return fmt.Errorf("reading the row after line %d: %w", line, err)
		}
		line, _ := r.FieldPos(0)
		text, _ = root.append(text[:0], func(dst []byte, leaf *tree) ([]byte, bool) {
			cell := cells[leaf.column]
			return leaf.appendText(dst, cell), cell != ""
		})
		if !im.row(ctx, int64(line), text) {
			return nil
		}
	}
	return nil
}

// joined is a row that could not be parsed, for the rejects file.
func joined(cells []string) []byte { return []byte(strings.Join(cells, ",")) }
