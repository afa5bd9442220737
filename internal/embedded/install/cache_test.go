package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"millrace/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newCache(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := New(dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

func TestInstallationsAtTheSameTimeAreDoneOnce(t *testing.T) {
	dir := t.TempDir()
	var fills atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		c := newCache(t, dir) // as if in another process: the lock is the file system's
		wg.Go(func() {
			got, err := c.once(t.Context(), "thing", "1", func(_ context.Context, dir string) error {
				fills.Add(1)
				return os.WriteFile(filepath.Join(dir, "content"), []byte("whole"), 0o600)
			})
			if err != nil {
				t.Error(err)
				return
			}
			if b, err := os.ReadFile(filepath.Join(got, "content")); err != nil || string(b) != "whole" {
				t.Errorf("content is %q, %v", b, err)
			}
		})
	}
	wg.Wait()
	if n := fills.Load(); n != 1 {
		t.Errorf("installed %d times", n)
	}
}

func TestFailedInstallationLeavesNothingAndIsMadeAgain(t *testing.T) {
	c := newCache(t, t.TempDir())
	half := func(_ context.Context, dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "half"), nil, 0o600); err != nil {
			return err
		}
		return errors.New("the line went dead")
	}
	_, err := c.once(t.Context(), "thing", "1", half)
	if id, _ := fault.IDOf(err); id != failedID {
		t.Errorf("error is %v", err)
	}
	if diff := cmp.Diff([]string{".thing.lock"}, entries(t, c.Dir)); diff != "" {
		t.Error(diff)
	}
	// What a kill in the middle leaves behind is no hindrance either.
	if err := os.MkdirAll(filepath.Join(c.Dir, ".draft-thing", "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := c.once(t.Context(), "thing", "1", func(context.Context, string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if got := entries(t, dir); len(got) != 0 {
		t.Errorf("the installation has %v of the one before", got)
	}
}

func TestFullDiskIsToldApartFromOtherFailures(t *testing.T) {
	c := newCache(t, t.TempDir())
	for what, cause := range map[string]error{
		"a write of ours": fmt.Errorf("unpacking: %w", &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}),
		"npm":             errors.New("npm error code ENOSPC"),
		"maven":           errors.New("java.io.IOException: No space left on device"),
	} {
		_, err := c.once(t.Context(), "thing", "1", func(context.Context, string) error { return cause })
		if id, _ := fault.IDOf(err); id != diskFullID {
			t.Errorf("%s: error is %v", what, err)
		}
	}
}

func TestWaitingForTheCacheEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	inside, leave := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		c, err := New(dir, nil, nil)
		if err == nil {
			_, err = c.once(context.Background(), "thing", "1", func(context.Context, string) error { close(inside); <-leave; return nil })
		}
		done <- err
	}()
	<-inside
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := newCache(t, dir).once(ctx, "thing", "1", func(context.Context, string) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestChecksumOfAnotherFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const hello = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	if err := checkSHA256(path, hello); err != nil {
		t.Error(err)
	}
	err := checkSHA256(path, strings.Repeat("0", 64))
	if id, _ := fault.IDOf(err); id != checksumID {
		t.Errorf("error is %v", err)
	}
}

func TestProgressOfACommandAndItsLastWords(t *testing.T) {
	var seen []string
	_, err := command{line: func(l string) { seen = append(seen, l) }}.run(t.Context(), "/bin/sh", "-c", "echo one >&2; printf two >&2; exit 4")
	if err == nil || !strings.Contains(err.Error(), "exit status 4") || !strings.Contains(err.Error(), "one\ntwo") {
		t.Errorf("error is %v", err)
	}
	if diff := cmp.Diff([]string{"one"}, seen); diff != "" {
		t.Error(diff)
	}
	if _, err := lookTool("no-such-tool", "for this test"); err == nil || !strings.Contains(err.Error(), "for this test") {
		t.Errorf("error is %v", err)
	} else if id, _ := fault.IDOf(err); id != missingToolID {
		t.Errorf("id is %s", id)
	}
}
