package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"millrace/internal/fault"
)

// The ids of what can go wrong.
const (
	missingToolID fault.ID = "MR-EMB-003"
	diskFullID    fault.ID = "MR-EMB-004"
	checksumID    fault.ID = "MR-EMB-005"
	platformID    fault.ID = "MR-EMB-006"
	failedID      fault.ID = "MR-EMB-010"
	noSourceID    fault.ID = "MR-EMB-012"
)

// Progress is called as an installation moves on: in bytes or files, total 0 when
// it is not known. It may be called from several goroutines.
type Progress func(name, step string, done, total int64)

// Cache is the folder that installations are kept in. It may be shared by any
// number of platforms.
type Cache struct {
	Dir      string
	Log      *slog.Logger
	Progress Progress
}

// New makes a cache in dir; log and progress may be nil.
func New(dir string, log *slog.Logger, progress Progress) (*Cache, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("finding the cache folder: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if progress == nil {
		progress = func(string, string, int64, int64) {}
	}
	return &Cache{Dir: dir, Log: log, Progress: progress}, nil
}

// once returns the folder of an installation, making it if it is not there. fill
// gets an empty folder, which is given its name only when fill has succeeded.
func (c *Cache) once(ctx context.Context, name, key string, fill func(ctx context.Context, dir string) error) (string, error) {
	final := filepath.Join(c.Dir, name+"-"+key)
	if done, err := isDir(final); done || err != nil {
		return final, err
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return "", installErr(name, err)
	}
	c.Progress(name, "waiting for the cache", 0, 0)
	lock := flock.New(filepath.Join(c.Dir, "."+name+".lock"))
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return "", installErr(name, fmt.Errorf("locking the cache: %w", err))
	}
	defer func() { _ = lock.Unlock() }() // closing the file unlocks as well
	if done, err := isDir(final); done || err != nil {
		return final, err // another process made it while we waited
	}
	draft := filepath.Join(c.Dir, ".draft-"+name)
	err := errors.Join(os.RemoveAll(draft), os.Mkdir(draft, 0o755))
	if err == nil {
		err = fill(ctx, draft)
	}
	if err == nil {
		err = os.Rename(draft, final)
	}
	if err != nil {
		return "", errors.Join(installErr(name, err), os.RemoveAll(draft))
	}
	return final, nil
}

func isDir(path string) (bool, error) {
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("looking into the cache: %w", err)
	case !info.IsDir():
		return false, fmt.Errorf("looking into the cache: %s is not a folder", path)
	}
	return true, nil
}

// installErr gives an error the id that fits it, if it has none yet.
func installErr(name string, err error) error {
	err = fmt.Errorf("installing %s: %w", name, err)
	if _, ok := fault.IDOf(err); ok || errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) || saysDiskFull(err.Error()) {
		return fault.New(diskFullID, err)
	}
	return fault.New(failedID, err)
}

// fileSHA256 reads a whole file.
func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("opening for its checksum: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("reading for its checksum: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func checkSHA256(path, want string) error {
	got, err := fileSHA256(path)
	if err != nil {
		return err
	}
	if got != want {
		return fault.Newf(checksumID, "%s has sha256 %s, expected %s", filepath.Base(path), got, want)
	}
	return nil
}
