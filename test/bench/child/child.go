// Package child is what the processes share whose CPU time the benches measure: what they are told, how they measure, and what they say.
package child

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Engine is what a process is told that runs a job on the stream engine alone.
type Engine struct {
	Brokers string   `json:"brokers"`
	Profile string   `json:"profile"` // a file for its CPU profile, "": none
	Flink   FlinkRun `json:"flink"`
	Nexmark NexRun   `json:"nexmark"`
}

// Cost is what one side took in one turn.
type Cost struct {
	CPU  float64 `json:"cpu"`  // seconds, user and system
	Wall float64 `json:"wall"` // seconds
	N    int64   `json:"n"`    // events or rows
	Note string  `json:"note,omitempty"`
	Peak float64 `json:"peak,omitempty"` // MiB of memory
}

// Told reads what a process is to do, a line of JSON, and calls ended when in ends, which the parent holds open.
func Told(in io.Reader, job any, ended func()) error {
	lines := bufio.NewReader(in)
	text, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading the job: %w", err)
	}
	if err := json.Unmarshal(text, job); err != nil {
		return fmt.Errorf("reading the job: %w", err)
	}
	go func() { // owned by the process: a blocked read of stdin cannot be interrupted
		_, _ = io.Copy(io.Discard, lines) // any end means that the parent is gone
		ended()
	}()
	return nil
}

// Quiet logs what should not happen.
func Quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// OwnCPU is the CPU time of this process.
func OwnCPU() (float64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("reading the own CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds(), nil
}

// OwnPeak is the largest resident memory of this process so far, in MiB.
func OwnPeak() (float64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("reading the own memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 64)
			if err != nil {
				return 0, fmt.Errorf("reading the own memory: %w", err)
			}
			return kib / 1024, nil
		}
	}
	return 0, errors.New("reading the own memory: the kernel does not say its peak")
}

// Measure is the Cost of work in this process. Garbage of the time before is collected first; that of the work is the work's. profile, if not empty, is a file.
func Measure(profile string, work func() (int64, error)) (Cost, error) {
	runtime.GC()
	runtime.GC() // the first one's sweep is done by the second
	stop, err := StartProfile(profile)
	if err != nil {
		return Cost{}, err
	}
	before, err := OwnCPU()
	if err != nil {
		return Cost{}, err
	}
	start := time.Now()
	n, err := work()
	if err != nil {
		return Cost{}, err
	}
	wall := time.Since(start).Seconds()
	after, err := OwnCPU()
	if err != nil {
		return Cost{}, err
	}
	return Cost{CPU: after - before, Wall: wall, N: n}, stop()
}

// StartProfile begins a CPU profile unless path is empty; the result ends it.
func StartProfile(path string) (func() error, error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("making a profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		_ = f.Close() // the profiler's error says more
		return nil, fmt.Errorf("making a profile: %w", err)
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
