package hot

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
)

// run is a closed bucket: sorted ids that never change. Small ones stay in memory; a large one is a file with a Bloom filter and an index of its blocks in memory, so
// that an id that is not in it costs no read, and one that is costs one read of 4 KiB.
type run struct {
	bucket int64
	n      int
	ids    []id // in memory, else
	file   *os.File
	filter filter
	fence  []id // the first id of each block
}

const (
	blockIDs   = 256  // 4 KiB
	inMemoryTo = 4096 // ids: 64 KiB
)

// newRun makes a run of a set. If its file cannot be written the run is in memory and works all the same; the error says what happened.
func newRun(dir string, bucket int64, set *idSet) (*run, error) {
	r := &run{bucket: bucket, n: set.n, ids: set.sorted()}
	if r.n <= inMemoryTo {
		return r, nil
	}
	if err := r.spill(dir); err != nil {
		return r, fmt.Errorf("writing a closed dedup bucket of %d ids: %w", r.n, err)
	}
	return r, nil
}

// spill moves the ids to a file. The file has no name from the start: it goes away with the process, however that ends, and what it holds is in the log.
func (r *run) spill(dir string) (err error) {
	f, err := os.CreateTemp(dir, "dedup-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<16)
	filter := newFilter(r.n, bitsPerRun)
	fence := make([]id, 0, (r.n+blockIDs-1)/blockIDs)
	var buf [idBytes]byte
	for i, x := range r.ids {
		if i%blockIDs == 0 {
			fence = append(fence, x)
		}
		filter.add(x)
		if _, err := w.Write(x.append(buf[:0])); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	r.file, r.filter, r.fence, r.ids = f, filter, fence, nil
	return nil
}

// has looks for x; buf is room for a block.
func (r *run) has(x id, buf *[blockIDs * idBytes]byte) (bool, error) {
	if r.file == nil {
		_, found := slices.BinarySearchFunc(r.ids, x, compareIDs)
		return found, nil
	}
	if !r.filter.has(x) {
		return false, nil
	}
	i, found := slices.BinarySearchFunc(r.fence, x, compareIDs)
	if found || i == 0 {
		return found, nil
	}
	from := (i - 1) * blockIDs
	b := buf[:min(blockIDs, r.n-from)*idBytes]
	if _, err := r.file.ReadAt(b, int64(from)*idBytes); err != nil {
		return false, fmt.Errorf("reading a closed dedup bucket: %w", err)
	}
	lo, hi := 0, len(b)/idBytes
	for lo < hi {
		mid := (lo + hi) / 2
		switch c := compareIDs(idOf([idBytes]byte(b[mid*idBytes:])), x); {
		case c == 0:
			return true, nil
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return false, nil
}

func (r *run) memory() int {
	return len(r.ids)*idBytes + len(r.fence)*idBytes + len(r.filter.blocks)*64
}

func (r *run) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
