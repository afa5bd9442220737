// Package failpoint lets drills end a process, or make a step fail, at a named place. It is a leaf and does nothing unless
// the environment variable MILLRACE_FAILPOINTS arms it when the process starts:
//
//	MILLRACE_FAILPOINTS="sink.clickhouse.inserted=kill@3,lakehouse.commit=error@1"
//
// kills the process (SIGKILL, so that nothing is flushed) at the third hit of the first name, and makes the first hit of the second fail.
package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Env is the variable that arms failpoints.
const Env = "MILLRACE_FAILPOINTS"

type point struct {
	action string
	at     int
	hits   int
}

var armed = struct {
	once sync.Once
	mu   sync.Mutex
	m    map[string]*point
}{}

func load() {
	spec := os.Getenv(Env)
	if spec == "" {
		return
	}
	armed.m = map[string]*point{}
	for one := range strings.SplitSeq(spec, ",") {
		name, rest, _ := strings.Cut(strings.TrimSpace(one), "=")
		action, n, ok := strings.Cut(rest, "@")
		at := 1
		if ok {
			if v, err := strconv.Atoi(n); err == nil {
				at = v
			}
		}
		armed.m[name] = &point{action: action, at: at}
	}
}

// Hit ends the process by SIGKILL if name is armed with kill and this is the hit it waits for.
func Hit(name string) {
	if hit(name) == "kill" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}

// Err is Hit, and gives an error if name is armed with error and this is the hit it waits for.
func Err(name string) error {
	switch hit(name) {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "error":
		return fmt.Errorf("failpoint %s", name)
	}
	return nil
}

func hit(name string) string {
	armed.once.Do(load)
	if armed.m == nil {
		return ""
	}
	armed.mu.Lock()
	defer armed.mu.Unlock()
	p := armed.m[name]
	if p == nil {
		return ""
	}
	if p.hits++; p.hits != p.at {
		return ""
	}
	return p.action
}
