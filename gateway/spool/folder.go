package spool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

const (
	suffix       = ".seg"
	lockName     = "lock"
	positionName = "position"
	asideName    = "aside" // records that no broker will take
)

// folder is one process's segments on disk.
type folder struct {
	path string
	lock *flock.Flock

	// What the drainer knows.
	at     position
	cur    *cursor
	oldest time.Time // of the last batch that was read
}

// claim locks a folder; nil if another process has it.
func claim(path string) (*folder, error) {
	l := flock.New(filepath.Join(path, lockName))
	got, err := l.TryLock()
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) { // drained and removed meanwhile
			return nil, nil
		}
		return nil, fmt.Errorf("locking spool folder %s: %w", path, err)
	}
	if !got {
		return nil, l.Close()
	}
	f := &folder{path: path, lock: l}
	f.at = f.load()
	return f, nil
}

// segments lists the numbers of the folder's segments, oldest first.
func (f *folder) segments() ([]int, error) {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return nil, fmt.Errorf("listing spool folder: %w", err)
	}
	var out []int
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), suffix)); err == nil && strings.HasSuffix(e.Name(), suffix) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (f *folder) segment(n int) string {
	return filepath.Join(f.path, fmt.Sprintf("%08d%s", n, suffix))
}

// bytes is what the folder's segments hold beyond the position.
func (f *folder) bytes() (int64, error) {
	ns, err := f.segments()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, n := range ns {
		info, err := os.Stat(f.segment(n))
		if err != nil {
			return 0, fmt.Errorf("looking at spool segment: %w", err)
		}
		if n < f.at.Segment {
			continue
		}
		sum += info.Size()
		if n == f.at.Segment {
			sum -= min(f.at.Offset, info.Size())
		}
	}
	return sum, nil
}

// position is up to where a folder is drained.
type position struct {
	Segment int   `json:"segment"`
	Offset  int64 `json:"offset"`
}

// load reads the position. Without a readable one everything is drained again, which duplicates and loses nothing.
func (f *folder) load() position {
	var p position
	text, err := os.ReadFile(filepath.Join(f.path, positionName))
	if err != nil || json.Unmarshal(text, &p) != nil {
		return position{}
	}
	return p
}

// save writes the position. It need not survive a crash of the machine, so it is not fsynced.
func (f *folder) save(p position) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("saving spool position: %w", err)
	}
	name := filepath.Join(f.path, positionName)
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return fmt.Errorf("saving spool position: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("saving spool position: %w", err)
	}
	return nil
}

// putAside appends a record that no broker will take to a file of its own, which stays.
func (f *folder) putAside(root string, r *Record) (err error) {
	dir := filepath.Join(root, asideName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("putting a spooled record aside: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, filepath.Base(f.path)+suffix), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("putting a spooled record aside: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.Write(appendFrame(nil, r, r.SpooledAt)); err != nil {
		return fmt.Errorf("putting a spooled record aside: %w", err)
	}
	return file.Sync()
}

// remove deletes a drained folder.
func (f *folder) remove() error {
	if f.cur != nil {
		if err := f.cur.file.Close(); err != nil {
			return errors.Join(err, f.lock.Close())
		}
		f.cur = nil
	}
	if err := os.RemoveAll(f.path); err != nil {
		return errors.Join(fmt.Errorf("removing drained spool folder: %w", err), f.lock.Close())
	}
	return f.lock.Close()
}

// release gives the folder up with what is in it.
func (f *folder) release() error {
	var err error
	if f.cur != nil {
		err = f.cur.file.Close()
		f.cur = nil
	}
	return errors.Join(err, f.lock.Close())
}

// syncDir makes the names in a folder durable.
func syncDir(path string) (err error) {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Sync()
}

// cursor reads a segment's frames from an offset on.
type cursor struct {
	file  *os.File
	buf   []byte
	start int64 // file offset of buf
	at    int   // in buf
	limit int64 // of the file that may be read; an unfinished frame before it is torn
}

// damage is what a cursor found broken on its way.
type damage struct {
	skipped int64 // bytes between frames that are none
	torn    int64 // bytes of an unfinished frame at the end of a segment
}

func (c *cursor) offset() int64 { return c.start + int64(c.at) }

// next gives the next frame up to limit; errMore if refill has to be called first, io.EOF if there is none yet, or none any more.
func (c *cursor) next(d *damage) (Record, error) {
	for {
		r, size, state := readFrame(c.buf[c.at:])
		switch state {
		case whole:
			c.at += size
			return r, nil
		case short:
			if c.start+int64(len(c.buf)) < c.limit {
				return Record{}, errMore
			}
			if c.at == len(c.buf) {
				return Record{}, io.EOF
			}
			// Nothing follows in the file; a frame may still hide in what looks like the inside of this one.
			if i := nextMagic(c.buf[c.at:]); i >= 0 {
				d.skipped += int64(i)
				c.at += i
				continue
			}
			d.torn += int64(len(c.buf) - c.at)
			c.at = len(c.buf)
			return Record{}, io.EOF
		case damaged:
			if i := nextMagic(c.buf[c.at:]); i >= 0 {
				d.skipped += int64(i)
				c.at += i
				continue
			}
			keep := min(len(magic)-1, len(c.buf)-c.at-1)
			if c.start+int64(len(c.buf)) < c.limit {
				d.skipped += int64(len(c.buf) - c.at - keep)
				c.at = len(c.buf) - keep
				return Record{}, errMore
			}
			d.skipped += int64(len(c.buf) - c.at)
			c.at = len(c.buf)
			return Record{}, io.EOF
		}
	}
}

// errMore asks for refill.
var errMore = errors.New("more to read")

// nextMagic finds the next possible frame behind the first byte.
func nextMagic(b []byte) int {
	if len(b) < 2 {
		return -1
	}
	if i := bytes.Index(b[1:], magic[:]); i >= 0 {
		return i + 1
	}
	return -1
}

const readAhead = 1 << 20

// refill reads on into a new buffer, so that records given out stay valid.
func (c *cursor) refill() error {
	rest := c.buf[c.at:]
	want := readAhead
	if _, size, state := readFrame(rest); state == short {
		want = max(want, size)
	}
	off := c.start + int64(c.at)
	n := min(int64(want), c.limit-off)
	buf := make([]byte, n)
	if _, err := c.file.ReadAt(buf, off); err != nil {
		return fmt.Errorf("reading spool segment: %w", err)
	}
	c.buf, c.start, c.at = buf, off, 0
	return nil
}
