package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"millrace/internal/fault"
)

// Client speaks to the supervisor of a data folder from another process.
type Client struct {
	dir  string
	http *http.Client
}

// Dial finds the supervisor of dir. It fails with a remedy if none is running.
func Dial(ctx context.Context, dir string) (*Client, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("finding the data folder: %w", err)
	}
	path, err := os.ReadFile(controlAddr(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Newf(notRunningID, "no platform is running on data folder %s", dir)
	} else if err != nil {
		return nil, fmt.Errorf("reading the control address: %w", err)
	}
	var d net.Dialer
	c := &Client{dir: dir, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", strings.TrimSpace(string(path)))
		},
		DisableKeepAlives: true, // calls are rare, and Down must not wait for idle connections
	}}}
	if _, err := c.Status(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Status asks for all children.
func (c *Client) Status(ctx context.Context) (Report, error) {
	var r Report
	return r, c.call(ctx, http.MethodGet, "/status", &r)
}

// Hold stops a child and keeps it down; it returns when the child is gone.
func (c *Client) Hold(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "/children/"+url.PathEscape(name)+"/stop", nil)
}

// Release lets a held child run again; it does not wait for its health.
func (c *Client) Release(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "/children/"+url.PathEscape(name)+"/start", nil)
}

// Down asks the platform to end and returns when it has given the folder back.
func (c *Client) Down(ctx context.Context) error {
	if err := c.call(ctx, http.MethodPost, "/down", nil); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(runDir(c.dir), "lock"))
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return fmt.Errorf("waiting for the platform to end: %w", err)
	}
	return lock.Unlock()
}

func (c *Client) call(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://control"+path, nil)
	if err != nil {
		return fmt.Errorf("making a control request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fault.Newf(notRunningID, "no platform is running on data folder %s: %w", c.dir, err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below
	if resp.StatusCode >= 300 {
		var p problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			return fmt.Errorf("control request %s: status %d", path, resp.StatusCode)
		}
		if p.ID == "" {
			return errors.New(p.Error)
		}
		return fault.New(p.ID, errors.New(strings.TrimSuffix(p.Error, " ["+string(p.ID)+"]")))
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("decoding the answer of %s: %w", path, err)
	}
	return nil
}
