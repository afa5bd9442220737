package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// child is a Child under supervision. What is below state needs the supervisor's lock.
type child struct {
	Child
	s      *Supervisor
	deps   []*child
	cancel context.CancelFunc
	poke   chan struct{} // held was changed, or a retry is wanted
	done   chan struct{} // run has returned

	prepared bool // touched by run alone

	state       State
	held        bool
	everHealthy bool
	starts      int
	failures    int // deaths in a row without health
	lastErr     error
}

// errAsked ends a process's life on request: a stop, or being held down.
var errAsked = errors.New("asked to stop")

// run is the whole life of a child.
func (c *child) run(ctx context.Context) {
	defer close(c.done)
	defer c.enter(Stopped, nil)
	if !c.waitDeps(ctx) {
		return
	}
	pause := c.s.cfg.BackoffMin
	for c.waitWanted(ctx) {
		if err := c.prepare(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			if errors.Is(err, errAsked) {
				continue
			}
			c.enter(Failed, err)
			if !c.waitPoke(ctx, 0) {
				return
			}
			continue
		}
		healthyFor, err := c.live(ctx)
		if errors.Is(err, errAsked) {
			continue
		}
		if healthyFor >= c.s.cfg.SettledAfter {
			pause = c.s.cfg.BackoffMin
		}
		c.s.cfg.Log.Warn("child died", "child", c.Name, "error", err, "restart_in", pause)
		c.enter(Backoff, err)
		if !c.waitPoke(ctx, pause) {
			return
		}
		pause = min(2*pause, c.s.cfg.BackoffMax)
	}
}

// enter moves to a phase; a nil error leaves the last one standing for the reader.
func (c *child) enter(phase Phase, err error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.state.Phase, c.state.Since = phase, time.Now()
	switch phase {
	case Starting, Healthy, Unhealthy:
	default:
		c.state.PID = 0
	}
	if phase == Healthy {
		c.everHealthy, c.failures = true, 0
	}
	if phase == Backoff {
		c.failures++
	}
	if err != nil {
		c.lastErr, c.state.LastError = err, err.Error()
	}
	c.s.broadcast()
}

func (c *child) note(detail string) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.state.Detail = detail
	c.s.broadcast()
}

func (c *child) isHeld() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.held
}

// waitDeps waits until every dependency has been healthy once.
func (c *child) waitDeps(ctx context.Context) bool {
	return c.s.await(ctx, func() (bool, error) {
		for _, dep := range c.deps {
			if !dep.everHealthy {
				return false, nil
			}
		}
		return true, nil
	}) == nil
}

// waitWanted waits while the child is held; false means that it is to end.
func (c *child) waitWanted(ctx context.Context) bool {
	for c.isHeld() {
		c.enter(Held, nil)
		if !c.waitPoke(ctx, 0) {
			return false
		}
	}
	return ctx.Err() == nil
}

// waitPoke waits for a request, or for d if it is not 0.
func (c *child) waitPoke(ctx context.Context, d time.Duration) bool {
	var timeout <-chan time.Time
	if d > 0 {
		timeout = time.After(d)
	}
	select {
	case <-ctx.Done():
		return false
	case <-c.poke:
	case <-timeout:
	}
	return ctx.Err() == nil
}

func (c *child) prepare(ctx context.Context) error {
	if c.Prepare == nil || c.prepared {
		return nil
	}
	c.enter(Preparing, nil)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	prepared := make(chan error, 1)
	go func() { prepared <- c.Prepare(ctx, c.note) }()
	for {
		select {
		case err := <-prepared:
			c.prepared = err == nil
			return err
		case <-c.poke:
			if c.isHeld() {
				cancel()
				err := <-prepared // a half-made installation is made again the next time
				c.prepared = err == nil
				return errAsked
			}
		}
	}
}

// live starts the process once and stays until it has ended. It tells how long it was healthy.
func (c *child) live(ctx context.Context) (healthyFor time.Duration, err error) {
	c.s.mu.Lock()
	c.starts++
	c.state.Restarts = c.starts - 1
	c.s.mu.Unlock()
	c.enter(Starting, nil)
	p, err := c.start(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return 0, errAsked
		}
		return 0, err
	}
	c.s.mu.Lock()
	c.state.PID = p.pid()
	c.s.broadcast()
	c.s.mu.Unlock()

	healthySince, err := c.watch(ctx, p)
	if !healthySince.IsZero() {
		healthyFor = time.Since(healthySince)
	}
	return healthyFor, errors.Join(err, removePID(c.s.folder.Dir, c.Name))
}

func (c *child) start(ctx context.Context) (*process, error) {
	if err := c.s.folder.Ports.handOver(ctx, c.Ports); err != nil {
		return nil, err
	}
	cmd, err := c.Command(ctx)
	if err != nil {
		return nil, fmt.Errorf("making the command of %s: %w", c.Name, err)
	}
	log, err := openLog(c.s.folder.Dir, c.Name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own copy
	p, err := c.s.spawn.spawn(cmd, log)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Name, err)
	}
	if err := writePID(c.s.folder.Dir, c.Name, p.pid()); err != nil {
		p.kill()
		<-p.exited
		return nil, err
	}
	return p, nil
}

// watch checks a process's health until it has ended, by itself or because it was asked to.
func (c *child) watch(ctx context.Context, p *process) (healthySince time.Time, err error) {
	checks := make(chan error)
	checkCtx, endChecks := context.WithCancel(ctx)
	checked := make(chan struct{})
	go func() {
		defer close(checked)
		c.check(checkCtx, checks)
	}()
	defer func() { endChecks(); <-checked }()

	deadline := time.NewTimer(c.HealthTimeout)
	defer deadline.Stop()
	var lastCheck error
	misses := 0
	for {
		select {
		case <-p.exited:
			return healthySince, exitError(c.Name, p.err)
		case <-ctx.Done():
			c.end(p)
			return healthySince, errAsked
		case <-c.poke:
			if c.isHeld() {
				c.end(p)
				return healthySince, errAsked
			}
		case lastCheck = <-checks:
			healthySince, misses = c.judge(lastCheck, healthySince, misses)
		case <-deadline.C:
			if healthySince.IsZero() {
				p.kill()
				<-p.exited
				return healthySince, fmt.Errorf("%s was not healthy within %s: %w", c.Name, c.HealthTimeout, lastCheck)
			}
		}
	}
}

// check sends the result of one health check after another: often until the first good one.
func (c *child) check(ctx context.Context, out chan<- error) {
	interval := 20 * time.Millisecond
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := c.Healthy(attempt)
		cancel()
		select {
		case out <- err:
		case <-ctx.Done():
			return
		}
		if err == nil {
			interval = c.s.cfg.CheckInterval
		} else {
			interval = min(interval*3/2, 250*time.Millisecond)
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return
		}
	}
}

// judge turns a check's result into a phase. A child that was healthy is never
// killed for not answering: a slow store that is killed is only slower.
func (c *child) judge(err error, healthySince time.Time, misses int) (time.Time, int) {
	const tolerated = 3
	switch {
	case err == nil && healthySince.IsZero():
		healthySince = time.Now()
		c.enter(Healthy, nil)
	case err == nil && misses >= tolerated:
		c.enter(Healthy, nil)
	case err != nil && !healthySince.IsZero():
		if misses++; misses == tolerated {
			c.enter(Unhealthy, err)
		}
		return healthySince, misses
	}
	return healthySince, 0
}

// end asks a process to stop, and kills its group when its grace is over.
func (c *child) end(p *process) {
	p.signal(c.Signal)
	select {
	case <-p.exited:
		return
	case <-time.After(c.Grace):
	}
	c.s.cfg.Log.Warn("child did not stop in time and is killed", "child", c.Name, "grace", c.Grace)
	p.kill()
	<-p.exited
}

func exitError(name string, err error) error {
	if err == nil {
		return errors.New(name + " ended by itself")
	}
	return fmt.Errorf("%s ended: %w", name, err)
}
