package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"

	"millrace/test/bench/child"
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

// measureHeld is measure of work on data that is held in memory: the collector stays off, since going over that data is no cost of the work. It favours a peer.
func measureHeld(profile string, work func() (int64, error)) (cost, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	return child.Measure(profile, work)
}
