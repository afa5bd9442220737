package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"

	"millrace/internal/fault"
)

// The ids of what can be wrong with a data folder and its children.
const (
	folderBusyID   fault.ID = "MR-EMB-001"
	portInUseID    fault.ID = "MR-EMB-002"
	diskFullID     fault.ID = "MR-EMB-004"
	cannotStartID  fault.ID = "MR-EMB-007"
	notRunningID   fault.ID = "MR-EMB-008"
	unknownChildID fault.ID = "MR-EMB-009"
)

// minFreeBytes is what must be free before anything is started: a store that runs
// out of space in the middle of a write is a worse error than none at all.
const minFreeBytes = 2 << 30

// Folder is a data folder that this process alone owns until Close.
type Folder struct {
	Dir   string
	Ports *Ports
	lock  *flock.Flock
}

// OpenFolder takes the folder's lock, ends what an earlier owner left running, and
// reads its port table.
func OpenFolder(ctx context.Context, dir string, log *slog.Logger) (*Folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("finding the data folder: %w", err)
	}
	for _, sub := range []string{runDir(dir), filepath.Join(dir, "logs")} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, fmt.Errorf("creating the data folder: %w", err)
		}
	}
	lock := flock.New(filepath.Join(runDir(dir), "lock"))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking the data folder: %w", err)
	}
	if !ok {
		return nil, fault.Newf(folderBusyID, "data folder %s: already running (pid %s): use `millrace down` or another --data", dir, ownerPID(dir))
	}
	f := &Folder{Dir: dir, lock: lock}
	if err := f.take(ctx, log); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return f, nil
}

func (f *Folder) take(ctx context.Context, log *slog.Logger) error {
	if err := CheckSpace(f.Dir); err != nil {
		return err
	}
	if err := writeFile(ownerPath(f.Dir), []byte(strconv.Itoa(os.Getpid()))); err != nil {
		return err
	}
	killed, err := killLeftovers(ctx, f.Dir)
	if len(killed) > 0 {
		log.Warn("ended children that an earlier run left behind", "children", strings.Join(killed, " "))
	}
	if err != nil {
		return fmt.Errorf("ending children of an earlier run: %w", err)
	}
	f.Ports, err = loadPorts(f.Dir)
	return err
}

// Close gives the folder back. All children must have ended.
func (f *Folder) Close() error {
	f.Ports.close()
	return errors.Join(os.Remove(ownerPath(f.Dir)), f.lock.Unlock())
}

// CheckSpace refuses a folder on a file system that is nearly full.
func CheckSpace(dir string) error {
	free, err := freeBytes(dir)
	if err != nil {
		return err
	}
	return checkFree(dir, free)
}

func checkFree(dir string, free uint64) error {
	if free < minFreeBytes {
		return fault.Newf(diskFullID, "%s has %d MiB free, %d MiB are needed", dir, free>>20, minFreeBytes>>20)
	}
	return nil
}

func ownerPath(dir string) string { return filepath.Join(runDir(dir), "owner") }

func ownerPID(dir string) string {
	b, err := os.ReadFile(ownerPath(dir))
	if err != nil {
		return "unknown"
	}
	return string(b)
}
