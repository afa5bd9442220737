package streaming

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"millrace/internal/fault"
)

// localBase is a worker's own disk: one Pebble for all of its tasks, with their snapshots. What it holds is a copy of what the
// changelog says, so nothing is ever lost with it.
//
// Keys: 'd' ‖ u32 partition ‖ u16 store ‖ key for state, 'm' ‖ u32 partition for what a snapshot says of itself.
type localBase struct {
	dir  string // of the slot
	held string // the directory in it that this process holds
	log  *slog.Logger
	size int64
	lock *pebble.Lock
	db   *pebble.DB

	jobs    chan localJob
	writing sync.WaitGroup
}

// localJob is a batch to be written, or nothing but the question whether all before it are.
type localJob struct {
	batch *pebble.Batch
	done  chan<- error // has room for one
}

// localError is a disk that fails or holds what cannot be read. It ends the session; the base is made anew and filled from the changelog.
type localError struct{ err error }

func (e localError) Error() string { return "the local state: " + e.err.Error() }
func (e localError) Unwrap() error { return e.err }

// localSlots is how many directories a slot may have: a process that hangs may hold the first, and must not keep its successor from working.
const localSlots = 4

// openLocal opens the base in the first directory of the slot that no process holds. bytes bounds what the tasks hold in memory; the
// disk's own caches come on top, about three eighths of it.
func openLocal(dir string, bytes int64, log *slog.Logger) (*localBase, error) {
	l := &localBase{dir: dir, log: log, size: bytes, jobs: make(chan localJob, 64)}
	if err := l.open(); err != nil {
		return nil, err
	}
	l.writing.Go(l.write)
	return l, nil
}

func (l *localBase) open() error {
	var errs []error
	for i := range localSlots {
		held := filepath.Join(l.dir, strconv.Itoa(i))
		if err := os.MkdirAll(held, 0o700); err != nil {
			return fault.Newf("MR-STR-020", "making the directory of local state: %w", err)
		}
		lock, err := pebble.LockDirectory(held, vfs.Default)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		db, err := pebble.Open(held, l.options(lock))
		if err != nil { // torn by something worse than a kill: it is a copy, so it can go
			l.log.Warn("local state cannot be opened and is made anew", "dir", held, "error", err)
			if err = wipe(held); err == nil {
				db, err = pebble.Open(held, l.options(lock))
			}
		}
		if err != nil {
			return fault.Newf("MR-STR-020", "opening the local state in %s: %w", held, errors.Join(err, lock.Close()))
		}
		if i > 0 {
			l.log.Warn("another process holds this worker's local state: another directory is used", "dir", held)
		}
		l.held, l.lock, l.db = held, lock, db
		return nil
	}
	return fault.Newf("MR-STR-020", "every directory of local state in %s is held by a process: %w", l.dir, errors.Join(errs...))
}

// wipe removes all files but the lock.
func wipe(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("reading %s: %w", dir, err)
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != "LOCK" {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func (l *localBase) options(lock *pebble.Lock) *pebble.Options {
	part := l.size / 8
	if l.size <= 0 {
		part = 64 << 20
	}
	o := &pebble.Options{
		Lock: lock, Logger: localLog{l.log}, FormatMajorVersion: pebble.FormatNewest,
		// Random reads of more keys than the cache has filters for cost ten times as much: 10 bits a key.
		CacheSize: max(2*part, 8<<20), MemTableSize: uint64(min(max(part/2, 1<<20), 32<<20)), MemTableStopWritesThreshold: 4,
		L0CompactionThreshold: 4, L0StopWritesThreshold: 24, MaxOpenFiles: 256,
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // most keys asked for and not in memory are new ones
		o.Levels[i].FilterType = pebble.TableFilter
	}
	return o
}

// localLog gives what Pebble says to the log.
type localLog struct{ log *slog.Logger }

// Infof implements pebble.Logger: flushes and compactions are not worth a line.
func (localLog) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (l localLog) Errorf(format string, args ...any) {
	l.log.Warn("local state", "error", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger: a write-ahead log that cannot be written (a full disk) leaves Pebble nothing to go on with.
func (l localLog) Fatalf(format string, args ...any) {
	err := fault.Newf("MR-STR-020", "writing the local state: "+format, args...)
	l.log.Error("local state", "error", err)
	panic(err)
}

// write applies batches in the order they were given. A batch is whole or not there after a crash, in that order: Pebble's log sees
// to it, without a sync, since what a power cut takes is in the changelog.
func (l *localBase) write() {
	for j := range l.jobs {
		var err error
		if j.batch != nil {
			err = errors.Join(l.db.Apply(j.batch, pebble.NoSync), j.batch.Close())
		}
		j.done <- err
	}
}

// drain waits until everything given before is written.
func (l *localBase) drain() error {
	done := make(chan error, 1)
	l.jobs <- localJob{done: done}
	return <-done
}

// reset makes the base anew and empty. No task may be using it.
func (l *localBase) reset() error {
	_ = l.drain()
	if err := errors.Join(l.db.Close(), wipe(l.held), l.lock.Close()); err != nil {
		l.log.Warn("closing a failed local state", "error", err)
	}
	return l.open()
}

func (l *localBase) close() error {
	close(l.jobs)
	l.writing.Wait()
	if err := errors.Join(l.db.Close(), l.lock.Close()); err != nil {
		return fmt.Errorf("closing the local state: %w", err)
	}
	return nil
}

// usage is what the base takes on disk.
func (l *localBase) usage() int64 { return int64(l.db.Metrics().DiskSpaceUsage()) }

func metaKey(part int32) []byte { return binary.BigEndian.AppendUint32([]byte{'m'}, uint32(part)) }

func dataKey(part int32) []byte { return binary.BigEndian.AppendUint32([]byte{'d'}, uint32(part)) }

// after is the first key that does not begin with prefix.
func after(prefix []byte) []byte {
	end := append([]byte{}, prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// remove drops a partition's snapshot: first what it says of itself.
func (l *localBase) remove(part int32) error {
	b := l.db.NewBatch()
	d := dataKey(part)
	err := errors.Join(b.Delete(metaKey(part), nil), b.DeleteRange(d, after(d), nil))
	if err = errors.Join(err, l.db.Apply(b, pebble.NoSync), b.Close()); err != nil {
		return fmt.Errorf("removing a snapshot: %w", err)
	}
	return nil
}
