package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxLogBytes is the size past which a log is put aside when its child starts.
const maxLogBytes = 16 << 20

func runDir(dir string) string { return filepath.Join(dir, "run") }

// LogFile is where the named child of a data folder writes what it says.
func LogFile(dir, name string) string { return filepath.Join(dir, "logs", name+".log") }

// openLog opens a child's log for appending, keeping one older file.
func openLog(dir, name string) (*os.File, error) {
	path := LogFile(dir, name)
	if info, err := os.Stat(path); err == nil && info.Size() > maxLogBytes {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("putting the old log aside: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	return f, nil
}

// logTail is the end of a child's log: what a user wants to see when it does not start.
func logTail(dir, name string, lines int) string {
	f, err := os.Open(LogFile(dir, name))
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // read only
	const window = 8 << 10
	if info, err := f.Stat(); err == nil && info.Size() > window {
		if _, err := f.Seek(-window, io.SeekEnd); err != nil {
			return ""
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// writeFile replaces path as a whole or not at all.
func writeFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // the first error is the one that matters
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// pidFile names a process beyond its number, which the system gives again.
type pidFile struct {
	PID      int    `json:"pid"`
	Identity string `json:"identity"`
}

func pidPath(dir, name string) string { return filepath.Join(runDir(dir), name+".pid") }

func writePID(dir, name string, pid int) error {
	id, ok := identity(pid)
	if !ok {
		return nil // it has ended already; there is nothing to find later
	}
	b, err := json.Marshal(pidFile{PID: pid, Identity: id})
	if err != nil {
		return fmt.Errorf("encoding a pid: %w", err)
	}
	return writeFile(pidPath(dir, name), b)
}

func removePID(dir, name string) error {
	if err := os.Remove(pidPath(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing a pid file: %w", err)
	}
	return nil
}

// killLeftovers ends children that an earlier supervisor of this folder left
// behind, and waits until they are gone. Only the holder of the folder's lock may call it.
func killLeftovers(ctx context.Context, dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(runDir(dir), "*.pid"))
	if err != nil {
		return nil, fmt.Errorf("listing pid files: %w", err)
	}
	var killed []string
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return killed, fmt.Errorf("reading a pid file: %w", err)
		}
		var p pidFile
		// A file that does not decode was never finished: nothing is known to have been started.
		if json.Unmarshal(b, &p) == nil && p.PID > 1 && alive(p) {
			if err := killGroup(p.PID); err != nil {
				return killed, err
			}
			if err := waitGone(ctx, p); err != nil {
				return killed, err
			}
			killed = append(killed, strings.TrimSuffix(filepath.Base(path), ".pid"))
		}
		if err := os.Remove(path); err != nil {
			return killed, fmt.Errorf("removing a pid file: %w", err)
		}
	}
	return killed, nil
}

func alive(p pidFile) bool {
	id, ok := identity(p.PID)
	return ok && id == p.Identity
}

func waitGone(ctx context.Context, p pidFile) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for alive(p) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for process %d to end: %w", p.PID, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}
