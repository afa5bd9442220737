package deploy

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The image has no HTTP client, so its health check is a few words of bash. They are run here as they are there, but for the port.
func TestHealthCheckSaysWhatTheProcessSays(t *testing.T) {
	m := regexp.MustCompile(`(?m)^HEALTHCHECK .* CMD (\[.*\])$`).FindStringSubmatch(read(t, "Containerfile"))
	if m == nil {
		t.Fatal("the image has no health check")
	}
	var command []string
	if err := json.Unmarshal([]byte(m[1]), &command); err != nil {
		t.Fatal(err)
	}
	for status, healthy := range map[int]bool{http.StatusOK: true, http.StatusServiceUnavailable: false, http.StatusNotFound: false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/readyz" {
				status = http.StatusTeapot
			}
			w.WriteHeader(status)
		}))
		port := server.URL[strings.LastIndexByte(server.URL, ':')+1:]
		run := func() error {
			args := make([]string, len(command))
			for i, arg := range command {
				args[i] = strings.ReplaceAll(arg, "/9090", "/"+port)
			}
			cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
			cmd.WaitDelay = 10 * time.Second
			return cmd.Run()
		}
		if err := run(); (err == nil) != healthy {
			t.Errorf("of a process that answers %d the health check says %v", status, err)
		}
		server.Close()
		if run() == nil {
			t.Error("a process that is gone is healthy")
		}
	}
}
