//go:build !linux

package supervisor

import (
	"errors"
	"os"
	"syscall"
)

// Parent-death signals, process start times and port owners are read the Linux way.
var errNotLinux = errors.New("child processes are supervised on Linux only")

type spawner struct{}

type process struct {
	exited chan struct{}
	err    error
}

func newSpawner() *spawner { return &spawner{} }

func (*spawner) spawn(Command, *os.File) (*process, error) { return nil, errNotLinux }
func (*spawner) close()                                    {}
func (*process) pid() int                                  { return 0 }
func (*process) signal(syscall.Signal)                     {}
func (*process) kill()                                     {}
func identity(int) (string, bool)                          { return "", false }
func killGroup(int) error                                  { return errNotLinux }
func freeBytes(string) (uint64, error)                     { return 0, errNotLinux }
func ephemeralLow() int                                    { return 32768 }
