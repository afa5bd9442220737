package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"millrace/internal/fault"
)

// maxSocketPath is what the kernel takes in a socket's address, with the final zero.
const maxSocketPath = 107

func controlAddr(dir string) string { return filepath.Join(runDir(dir), "control.addr") }

// Report is what a running supervisor says of itself.
type Report struct {
	PID      int       `json:"pid"`
	Dir      string    `json:"dir"`
	Started  time.Time `json:"started"`
	Children []State   `json:"children"`
}

// problem is the body of an answer that is not 2xx.
type problem struct {
	Error string   `json:"error"`
	ID    fault.ID `json:"id,omitempty"`
}

// Control answers other processes on a socket in the data folder.
type Control struct {
	server  *http.Server
	served  chan error
	tempDir string // of a socket whose path would be too long in the data folder
	down    chan struct{}
}

// Serve opens the control socket of s.
func Serve(ctx context.Context, s *Supervisor) (*Control, error) {
	dir := s.folder.Dir
	c := &Control{served: make(chan error, 1), down: make(chan struct{})}
	path := filepath.Join(runDir(dir), "control.sock")
	if len(path) > maxSocketPath {
		var err error
		if c.tempDir, err = os.MkdirTemp("", "millrace-"); err != nil {
			return nil, fmt.Errorf("making a folder for the control socket: %w", err)
		}
		path = filepath.Join(c.tempDir, "control.sock")
	}
	// The lock is ours, so a socket that is there belongs to nobody.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing an old control socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), writeFile(controlAddr(dir), []byte(path))); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	c.server = &http.Server{Handler: c.handler(s, time.Now()), ReadHeaderTimeout: 5 * time.Second}
	go func() { c.served <- c.server.Serve(l) }()
	return c, nil
}

// Down is closed when another process asks the platform to end.
func (c *Control) Down() <-chan struct{} { return c.down }

// Close ends the answering.
func (c *Control) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := c.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = c.server.Close() // a request was in the middle of holding a child down
	}
	if served := <-c.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if c.tempDir != "" {
		err = errors.Join(err, os.RemoveAll(c.tempDir))
	}
	return err
}

func (c *Control) handler(s *Supervisor, started time.Time) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, Report{PID: os.Getpid(), Dir: s.folder.Dir, Started: started, Children: s.Status()})
	})
	mux.HandleFunc("POST /children/{name}/stop", func(w http.ResponseWriter, r *http.Request) {
		answerErr(w, s.Hold(r.Context(), r.PathValue("name")))
	})
	mux.HandleFunc("POST /children/{name}/start", func(w http.ResponseWriter, r *http.Request) {
		answerErr(w, s.Release(r.PathValue("name")))
	})
	var once sync.Once
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusAccepted, struct{}{})
		once.Do(func() { close(c.down) })
	})
	return mux
}

func answerErr(w http.ResponseWriter, err error) {
	if err == nil {
		answer(w, http.StatusOK, struct{}{})
		return
	}
	status := http.StatusInternalServerError
	id, _ := fault.IDOf(err)
	if id == unknownChildID {
		status = http.StatusNotFound
	}
	answer(w, status, problem{Error: err.Error(), ID: id})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the asker may have gone
}
