//go:build kserve

package model

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// TestARealKServeServer needs a Python with kserve 0.21, named by MILLRACE_KSERVE_PYTHON.
func TestARealKServeServer(t *testing.T) {
	python := os.Getenv("MILLRACE_KSERVE_PYTHON")
	if python == "" {
		t.Fatal("MILLRACE_KSERVE_PYTHON names no Python with kserve")
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/serving/kserve_model.py", "--http_port", strconv.Itoa(port), "--enable_grpc", "false")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // it is ended by a signal
	at := fmt.Sprintf("http://127.0.0.1:%d", port)
	v1 := client(t, at, func(c *ServerConfig) { c.Protocol = KServeV1 })
	for deadline := time.Now().Add(90 * time.Second); ; {
		err := v1.Ready(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("KServe is not ready: %v", err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	v2 := client(t, at, func(c *ServerConfig) { c.Protocol = KServeV2 })
	if err := v2.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	batch := client(t, at, func(c *ServerConfig) { c.Protocol, c.BatchRows = KServeV1, 16 })
	for name, s := range map[string]*Server{"v1": v1, "v2": v2, "batched": batch} {
		if got := s.Score(t.Context(), []float64{1, -1, 0.5, 0}); got.Score != 0.9046505351008906 || got.Reason != "" {
			t.Errorf("%s: %+v", name, got)
		}
		if got := s.Score(t.Context(), []float64{1, -1}); got.Score != 0.125 || got.Reason == "" {
			t.Errorf("%s with two features: %+v", name, got)
		}
		scores, err := s.Scores(t.Context(), [][]float64{{1, -1, 0.5, 0}, {0, 0, 0, 0}, {-1, 1, 0, 0}})
		if err != nil || len(scores) != 3 || scores[1] != 0.5 {
			t.Errorf("%s: %v, %v", name, scores, err)
		}
	}
	none := client(t, at, func(c *ServerConfig) { c.Protocol, c.Model = KServeV2, "nope" })
	if got := none.Score(t.Context(), []float64{1}); got.Reason != ReasonStatus {
		t.Errorf("%+v", got)
	}
}
