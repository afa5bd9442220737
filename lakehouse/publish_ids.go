package lakehouse

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// idMemory is how many ids are held in memory; more go to disk.
const idMemory = 4 << 20

const idBuckets = 64

// idCounter finds ids that are there twice, among any number of rows: ids beyond its memory go into files by their first bits, which are compared one by one. Its entries are
// fingerprints whose last bit says whether the row is new.
type idCounter struct {
	folder string
	limit  int
	held   [][16]byte
	files  []*os.File
	bufs   []*bufio.Writer
}

func newIDCounter(folder string, limit int) *idCounter {
	return &idCounter{folder: folder, limit: limit}
}

func (c *idCounter) add(fp [16]byte, fresh bool) error {
	fp[15] &^= 1
	if fresh {
		fp[15] |= 1
	}
	if c.held = append(c.held, fp); len(c.held) < c.limit {
		return nil
	}
	return c.spill()
}

func (c *idCounter) spill() error {
	if c.files == nil {
		if c.folder != "" {
			if err := os.MkdirAll(c.folder, 0o700); err != nil {
				return fmt.Errorf("folder for ids: %w", err)
			}
		}
		for range idBuckets {
			f, err := os.CreateTemp(c.folder, "ids-*")
			if err != nil {
				return fmt.Errorf("file for ids: %w", err)
			}
			c.files, c.bufs = append(c.files, f), append(c.bufs, bufio.NewWriterSize(f, 32<<10))
		}
	}
	for _, fp := range c.held {
		if _, err := c.bufs[fp[0]>>2].Write(fp[:]); err != nil {
			return fmt.Errorf("writing ids to disk: %w", err)
		}
	}
	c.held = c.held[:0]
	return nil
}

// duplicates counts the new rows whose id another row has: all but one of them if all are new.
func (c *idCounter) duplicates(ctx context.Context) (int64, error) {
	if c.files == nil {
		return countDuplicates(c.held), nil
	}
	if err := c.spill(); err != nil {
		return 0, err
	}
	total := int64(0)
	for i, f := range c.files {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := c.bufs[i].Flush(); err != nil {
			return 0, fmt.Errorf("writing ids to disk: %w", err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return 0, fmt.Errorf("reading ids from disk: %w", err)
		}
		c.held = c.held[:0]
		in := bufio.NewReaderSize(f, 1<<20)
		for {
			var fp [16]byte
			if _, err := io.ReadFull(in, fp[:]); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return 0, fmt.Errorf("reading ids from disk: %w", err)
			}
			c.held = append(c.held, fp)
		}
		total += countDuplicates(c.held)
	}
	return total, nil
}

func countDuplicates(ids [][16]byte) int64 {
	slices.SortFunc(ids, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	total := int64(0)
	for i := 0; i < len(ids); {
		key, fresh, old := ids[i], int64(0), false
		key[15] &^= 1
		for ; i < len(ids); i++ {
			at := ids[i]
			isNew := at[15]&1 == 1
			if at[15] &^= 1; at != key {
				break
			}
			if isNew {
				fresh++
			} else {
				old = true
			}
		}
		if old {
			total += fresh
		} else {
			total += fresh - 1
		}
	}
	return total
}

func (c *idCounter) close() {
	for _, f := range c.files {
		_ = f.Close() // it is thrown away
		_ = os.Remove(f.Name())
	}
	c.files, c.bufs, c.held = nil, nil, nil
}
