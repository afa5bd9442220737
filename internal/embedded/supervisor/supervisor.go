package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/internal/fault"
)

// startAttempts is how often a child may die before it was ever healthy until waiting for it is given up.
const startAttempts = 5

// Config of a Supervisor. Zero durations mean the defaults.
type Config struct {
	BackoffMin    time.Duration // first pause before a dead child is started again (100 ms)
	BackoffMax    time.Duration // longest pause (10 s)
	SettledAfter  time.Duration // healthy for so long, the next pause is the first again (10 s)
	CheckInterval time.Duration // between health checks of a healthy child (2 s)
	Log           *slog.Logger
}

func (c *Config) setDefaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.BackoffMin, 100*time.Millisecond)
	set(&c.BackoffMax, 10*time.Second)
	set(&c.SettledAfter, 10*time.Second)
	set(&c.CheckInterval, 2*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Supervisor runs the children of one data folder. Its methods may be called from any goroutine.
type Supervisor struct {
	cfg    Config
	folder *Folder
	spawn  *spawner

	mu       sync.Mutex
	children []*child
	changed  chan struct{} // closed and replaced when any state changes
	stopping bool
	stopOnce sync.Once
}

// New makes a supervisor of children in folder.
func New(folder *Folder, cfg Config) *Supervisor {
	cfg.setDefaults()
	return &Supervisor{cfg: cfg, folder: folder, spawn: newSpawner(), changed: make(chan struct{})}
}

// Add puts a child under supervision; it starts as soon as its dependencies, which
// must have been added before, have been healthy once.
func (s *Supervisor) Add(spec Child) error {
	spec.setDefaults()
	if err := spec.validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return fmt.Errorf("adding child %s: the supervisor is stopping", spec.Name)
	}
	if s.find(spec.Name) != nil {
		return fmt.Errorf("adding child %s: there is one of that name", spec.Name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &child{
		Child: spec, s: s, cancel: cancel,
		poke: make(chan struct{}, 1), done: make(chan struct{}),
		state: State{Name: spec.Name, Phase: Waiting, Since: time.Now(), Optional: spec.Optional},
	}
	for _, name := range spec.Deps {
		dep := s.find(name)
		if dep == nil {
			cancel()
			return fmt.Errorf("adding child %s: it depends on %s, which is not there", spec.Name, name)
		}
		c.deps = append(c.deps, dep)
	}
	s.children = append(s.children, c)
	go c.run(ctx) // ended and awaited by Stop
	return nil
}

// Status is a snapshot of all children in the order they were added.
func (s *Supervisor) Status() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]State, len(s.children))
	for i, c := range s.children {
		out[i] = c.state
	}
	return out
}

// State is a snapshot of one child.
func (s *Supervisor) State(name string) (State, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.find(name); c != nil {
		return c.state, true
	}
	return State{}, false
}

// Changed gives a channel that is closed at the next change of any state.
func (s *Supervisor) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Hold stops a child and keeps it down until Release. It returns when the child is gone.
func (s *Supervisor) Hold(ctx context.Context, name string) error {
	c, err := s.want(name, true)
	if err != nil {
		return err
	}
	return s.await(ctx, func() (bool, error) {
		// A child that still waits for others is not running either.
		return c.state.Phase == Held || c.state.Phase == Stopped || c.state.Phase == Waiting || !c.held, nil
	})
}

// Release lets a held child run again, tries a failed one again, and ends the pause of one that died.
func (s *Supervisor) Release(name string) error {
	_, err := s.want(name, false)
	return err
}

func (s *Supervisor) want(name string, held bool) (*child, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(name)
	if c == nil {
		names := make([]string, len(s.children))
		for i, other := range s.children {
			names[i] = other.Name
		}
		return nil, fault.Newf(unknownChildID, "no child %q; there are: %s", name, strings.Join(names, " "))
	}
	c.held = held
	select {
	case c.poke <- struct{}{}:
	default: // a poke is waiting already
	}
	return c, nil
}

// WaitHealthy returns when the named children are healthy, without names all that
// are not optional. It fails as soon as one of them cannot be prepared or keeps dying.
func (s *Supervisor) WaitHealthy(ctx context.Context, names ...string) error {
	return s.await(ctx, func() (bool, error) {
		for _, name := range names {
			if s.find(name) == nil {
				return false, fault.Newf(unknownChildID, "no child %q", name)
			}
		}
		all := true
		for _, c := range s.children {
			if (len(names) == 0 && c.Optional) || (len(names) > 0 && !slices.Contains(names, c.Name)) {
				continue
			}
			if err := c.hopeless(); err != nil {
				return false, err
			}
			all = all && c.state.Phase == Healthy
		}
		return all, nil
	})
}

// await blocks until done, which is called with the lock held after every change.
func (s *Supervisor) await(ctx context.Context, done func() (bool, error)) error {
	for {
		s.mu.Lock()
		ok, err := done()
		changed := s.changed
		s.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Stop ends all children, dependents before what they depend on, and returns when
// all are gone. Each has its own grace, so Stop always ends.
func (s *Supervisor) Stop() {
	s.mu.Lock()
	s.stopping = true
	children := slices.Clone(s.children)
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range children {
		wg.Go(func() {
			for _, other := range children {
				if slices.Contains(other.deps, c) {
					<-other.done
				}
			}
			c.cancel()
			<-c.done
		})
	}
	wg.Wait()
	s.stopOnce.Do(s.spawn.close)
}

// find needs the lock.
func (s *Supervisor) find(name string) *child {
	i := slices.IndexFunc(s.children, func(c *child) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return s.children[i]
}

// broadcast needs the lock.
func (s *Supervisor) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// hopeless says why a child will not become healthy by itself. It needs the lock.
func (c *child) hopeless() error {
	switch {
	case c.state.Phase == Failed:
		return fmt.Errorf("preparing %s: %w", c.Name, c.lastErr)
	case !c.everHealthy && c.failures >= startAttempts:
		err := fmt.Errorf("%s died %d times before it was healthy: %w", c.Name, c.failures, c.lastErr)
		if tail := logTail(c.s.folder.Dir, c.Name, 5); tail != "" {
			err = fmt.Errorf("%w; its log %s ends with:\n%s", err, LogFile(c.s.folder.Dir, c.Name), tail)
		}
		if _, ok := fault.IDOf(c.lastErr); ok {
			return err
		}
		return fault.New(cannotStartID, err)
	case c.state.Phase == Stopped:
		return errors.New(c.Name + " was stopped")
	}
	return nil
}
