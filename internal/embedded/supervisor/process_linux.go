package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawner forks all children from one operating-system thread. The kernel sends a
// child its parent-death signal when the forking thread ends, not the process, so
// that thread must live as long as the children may.
type spawner struct {
	jobs chan func()
}

func newSpawner() *spawner {
	s := &spawner{jobs: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		for job := range s.jobs {
			job()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	s.jobs <- func() { done <- cmd.Start() }
	return <-done
}

// close ends the thread, and with it any child still running.
func (s *spawner) close() { close(s.jobs) }

// process is a running child.
type process struct {
	cmd    *exec.Cmd
	stdin  *os.File // its closing tells the child that nobody is left above it
	exited chan struct{}
	err    error // how it ended; read after exited is closed
}

func (s *spawner) spawn(c Command, log *os.File) (*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making the stdin pipe: %w", err)
	}
	cmd := exec.Command(c.Path, c.Args...) //nolint:noctx // a child outlives any one context; stop ends it
	cmd.Env = append(append(os.Environ(), Env+"=1"), c.Env...)
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, log, log
	// A group of its own, so that Ctrl-C at the terminal reaches the supervisor alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = s.start(cmd)
	_ = r.Close() // the child has its own copy
	if err != nil {
		_ = w.Close() // nothing was written
		return nil, err
	}
	p := &process{cmd: cmd, stdin: w, exited: make(chan struct{})}
	go p.wait()
	return p, nil
}

// wait reaps the process. Its group is killed first, while the unreaped leader
// still keeps the group's number from being given to anyone else.
func (p *process) wait() {
	defer close(p.exited)
	for {
		err := unix.Waitid(unix.P_PID, p.pid(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = unix.Kill(-p.pid(), unix.SIGKILL) // most often there is nobody left
	p.err = p.cmd.Wait()
	_ = p.stdin.Close() // the reader is gone
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) } // fails only when it has ended

func (p *process) kill() { _ = unix.Kill(-p.pid(), unix.SIGKILL) } // as above

// identity tells a process from a later one with the same number: boot and start time.
func identity(pid int) (string, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	// The second field is the command in brackets and may hold anything.
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return "", false
	}
	fields := bytes.Fields(stat[i+1:])
	if len(fields) < 20 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return "", false // a dead process that nobody has waited for yet
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", false
	}
	return string(bytes.TrimSpace(boot)) + "/" + string(fields[19]), true
}

// killGroup kills a process that is not our child, with its group if it leads one.
func killGroup(pid int) error {
	if pgid, err := unix.Getpgid(pid); err == nil && pgid == pid {
		if err := unix.Kill(-pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("killing process group %d: %w", pid, err)
		}
		return nil
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing process %d: %w", pid, err)
	}
	return nil
}

// freeBytes is the space that an ordinary user can still write under dir.
func freeBytes(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("asking for the free space of %s: %w", dir, err)
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}

// ephemeralLow is the lowest port that the kernel gives to outgoing connections.
func ephemeralLow() int {
	const usual = 32768
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return usual
	}
	fields := bytes.Fields(b)
	if len(fields) != 2 {
		return usual
	}
	low, err := strconv.Atoi(string(fields[0]))
	if err != nil {
		return usual
	}
	return low
}
