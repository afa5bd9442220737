package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"millrace/internal/fault"
)

// Ports is the port table of one data folder: chosen once, kept in ports.json. A
// port that nobody listens on yet is held open, so that two platforms that start
// at the same time never choose the same one.
type Ports struct {
	path     string
	patience time.Duration // with a kept port that is in use

	mu    sync.Mutex
	ports map[string]int
	held  map[string]net.Listener
}

// loadPorts reads the table of dir. A kept port in use is reported when it is asked for.
func loadPorts(dir string) (*Ports, error) {
	p := &Ports{path: filepath.Join(dir, "ports.json"), patience: 3 * time.Second, ports: map[string]int{}, held: map[string]net.Listener{}}
	b, err := os.ReadFile(p.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return p, nil
	case err != nil:
		return nil, fmt.Errorf("reading the port table: %w", err)
	}
	if err := json.Unmarshal(b, &p.ports); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", p.path, err)
	}
	return p, nil
}

// Get gives the port of that name, choosing a free one the first time.
func (p *Ports) Get(ctx context.Context, name string) (int, error) {
	ports, err := p.Range(ctx, name)
	if err != nil {
		return 0, err
	}
	return ports[0], nil
}

// Range gives consecutive ports, one for each name. If one of them has no port yet, all are chosen anew.
func (p *Ports) Range(ctx context.Context, names ...string) ([]int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ports, ok := p.known(names); ok {
		for i, name := range names {
			if err := p.holdPatiently(ctx, name, ports[i]); err != nil {
				return nil, portInUse(name, ports[i])
			}
		}
		return ports, nil
	}
	// Below the range of outgoing connections: there a client that dials a server which
	// is down can be given the server's own port, and is then connected to itself.
	const low = 10000
	high := ephemeralLow()
	if high < low+2000 {
		high = 65536
	}
	for range 200 {
		base := low + rand.IntN(high-low-len(names))
		if ports, ok := p.holdAll(ctx, names, base); ok {
			for i, name := range names {
				p.ports[name] = ports[i]
			}
			return ports, p.save()
		}
	}
	return nil, fault.Newf(portInUseID, "no %d free consecutive ports between %d and %d for %s", len(names), low, high, names[0])
}

func (p *Ports) known(names []string) ([]int, bool) {
	ports := make([]int, len(names))
	for i, name := range names {
		port, ok := p.ports[name]
		if !ok || (i > 0 && port != ports[i-1]+1) {
			return nil, false
		}
		ports[i] = port
	}
	return ports, true
}

func (p *Ports) holdAll(ctx context.Context, names []string, base int) ([]int, bool) {
	ports := make([]int, len(names))
	for i, name := range names {
		p.drop(name)
		ports[i] = base + i
		if p.taken(ports[i]) || p.hold(ctx, name, ports[i]) != nil {
			for _, held := range names[:i] {
				p.drop(held)
			}
			return nil, false
		}
	}
	return ports, true
}

func (p *Ports) taken(port int) bool {
	for _, other := range p.ports {
		if other == port {
			return true
		}
	}
	return false
}

// hold listens on a port so that nobody else gets it; a port held already stays so.
func (p *Ports) hold(ctx context.Context, name string, port int) error {
	if p.held[name] != nil {
		return nil
	}
	l, err := listen(ctx, port)
	if err != nil {
		return err
	}
	p.held[name] = l
	return nil
}

// holdPatiently is hold for a kept port. A child of a supervisor that was killed a
// moment ago may still be on its way out; nobody but the kernel knows of it.
func (p *Ports) holdPatiently(ctx context.Context, name string, port int) error {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	for {
		err := p.hold(ctx, name, port)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *Ports) drop(name string) {
	if l := p.held[name]; l != nil {
		_ = l.Close() // it has served its purpose
		delete(p.held, name)
	}
}

func listen(ctx context.Context, port int) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// handOver frees the named ports for a child that is about to be started, or says who has them.
func (p *Ports) handOver(ctx context.Context, names []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range names {
		port, ok := p.ports[name]
		if !ok {
			return fmt.Errorf("port %s was never chosen", name)
		}
		if p.held[name] == nil {
			if err := p.hold(ctx, name, port); err != nil {
				return portInUse(name, port)
			}
		}
		p.drop(name)
	}
	return nil
}

func (p *Ports) save() error {
	b, err := json.MarshalIndent(p.ports, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the port table: %w", err)
	}
	return writeFile(p.path, append(b, '\n'))
}

func (p *Ports) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.held {
		p.drop(name)
	}
}

func portInUse(name string, port int) error {
	if owner := portOwner(port); owner != "" {
		return fault.Newf(portInUseID, "port %d, kept for %s, is in use by %s", port, name, owner)
	}
	return fault.Newf(portInUseID, "port %d, kept for %s, is in use by another process", port, name)
}
