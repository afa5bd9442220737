package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"syscall"
	"time"
)

// processCPU is the CPU time of another process, user and system, threads that ended included. The kernel gives it in ticks.
func processCPU(pid int) (float64, error) {
	const ticks = 100 // a second: USER_HZ of every Linux that Go runs on
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, fmt.Errorf("reading the CPU time of process %d: %w", pid, err)
	}
	// The name, in brackets, may hold anything; utime and stime are the 12th and 13th fields behind it.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("reading the CPU time of process %d: %q", pid, text)
	}
	var sum int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading the CPU time of process %d: %w", pid, err)
		}
		sum += n
	}
	return float64(sum) / ticks, nil
}

// ownCPU is the CPU time of this process.
func ownCPU() (float64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("reading the own CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds(), nil
}

// measure is the cost of work in this process. Garbage of the time before is collected first; that of the work is the work's. profile, if not empty, is a file.
func measure(profile string, work func() (int64, error)) (cost, error) {
	runtime.GC()
	runtime.GC() // the first one's sweep is done by the second
	stop, err := startProfile(profile)
	if err != nil {
		return cost{}, err
	}
	before, err := ownCPU()
	if err != nil {
		return cost{}, err
	}
	start := time.Now()
	n, err := work()
	if err != nil {
		return cost{}, err
	}
	wall := time.Since(start).Seconds()
	after, err := ownCPU()
	if err != nil {
		return cost{}, err
	}
	return cost{CPU: after - before, Wall: wall, N: n}, stop()
}

// measureHeld is measure of work on data that is held in memory: the collector stays off, since going over that data is no cost of the work. It favours a peer.
func measureHeld(profile string, work func() (int64, error)) (cost, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	return measure(profile, work)
}

// startProfile begins a CPU profile unless path is empty; the result ends it.
func startProfile(path string) (func() error, error) {
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
