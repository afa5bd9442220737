package supervisor

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// Env tells a child that its standard input is a pipe from its supervisor, which
// ends when the supervisor does.
const Env = "MILLRACE_SUPERVISED"

// Child describes one supervised process.
type Child struct {
	Name string
	// Deps are children that must have been healthy once before this one is started the
	// first time, and that are stopped after it. A dependency that dies later does not
	// touch this child.
	Deps []string
	// Ports are names in the data folder's port table that this child listens on. Its
	// start is refused while another process has one of them.
	Ports []string
	// Prepare installs or builds what the child needs. It runs once, before the first
	// start; its failure is final until the child is released again.
	Prepare func(ctx context.Context, note func(detail string)) error
	// Command is asked before each start.
	Command func(ctx context.Context) (Command, error)
	// Healthy returns nil when the child serves. Without it a running child is healthy.
	Healthy func(ctx context.Context) error
	// HealthTimeout bounds the time from start to healthy; past it the child is killed
	// and started again. Default 60 s.
	HealthTimeout time.Duration
	// Signal asks the child to stop (default SIGTERM); Grace later its whole process
	// group is killed (default 10 s).
	Signal syscall.Signal
	Grace  time.Duration
	// Optional children are not waited for by WaitHealthy without names.
	Optional bool
}

// Command is what is executed.
type Command struct {
	Path string
	Args []string // without the program's own name
	Env  []string // added to the supervisor's environment
	Dir  string   // "" is the root folder
}

func (c *Child) setDefaults() {
	if c.HealthTimeout == 0 {
		c.HealthTimeout = time.Minute
	}
	if c.Signal == 0 {
		c.Signal = syscall.SIGTERM
	}
	if c.Grace == 0 {
		c.Grace = 10 * time.Second
	}
	if c.Healthy == nil {
		c.Healthy = func(context.Context) error { return nil }
	}
}

func (c *Child) validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, errors.New("child: Name is empty"))
	}
	if c.Command == nil {
		errs = append(errs, fmt.Errorf("child %s: Command is nil", c.Name))
	}
	for field, d := range map[string]time.Duration{"HealthTimeout": c.HealthTimeout, "Grace": c.Grace} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("child %s: %s is %s, must not be negative", c.Name, field, d))
		}
	}
	return errors.Join(errs...)
}

// Phase is where a child is in its life.
type Phase string

// The phases of a child.
const (
	Waiting   Phase = "waiting"   // for its dependencies
	Preparing Phase = "preparing" // being installed or built
	Starting  Phase = "starting"  // running, not healthy yet
	Healthy   Phase = "healthy"
	Unhealthy Phase = "unhealthy" // was healthy, runs, does not answer
	Backoff   Phase = "backoff"   // died, will be started again
	Failed    Phase = "failed"    // could not be prepared
	Held      Phase = "held"      // kept down on request
	Stopped   Phase = "stopped"
)

// State is a snapshot of one child.
type State struct {
	Name      string    `json:"name"`
	Phase     Phase     `json:"state"`
	PID       int       `json:"pid,omitempty"`
	Restarts  int       `json:"restarts"`
	Detail    string    `json:"detail,omitempty"` // what Prepare is doing, or what is to be known of the child
	LastError string    `json:"last_error,omitempty"`
	Since     time.Time `json:"since"` // when the phase began
	Optional  bool      `json:"optional,omitempty"`
}
