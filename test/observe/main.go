package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"millrace/workers"
)

// check runs the assets against a platform of its own.
type checker struct {
	dir        string // all that is written
	bin        string
	prometheus string // address
	programs   string // folder of prometheus and promtool
	endpoints  workers.Endpoints
	passed     int
	failed     int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bin := flag.String("bin", "bin/millrace", "the program under test")
	programs := flag.String("programs", "", "folder of prometheus and promtool")
	watch := flag.Duration("for", time.Minute, "how long the platform is watched before questions are asked")
	flag.Parse()
	if err := run(ctx, *bin, *programs, *watch); err != nil {
		fmt.Fprintln(os.Stderr, "observe:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, programs string, watch time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "millrace-observe-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c := &checker{dir: dir, programs: programs}
	if c.bin, err = filepath.Abs(bin); err != nil {
		return fmt.Errorf("finding %s: %w", bin, err)
	}
	a, err := readAssets(".")
	if err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	if out, err := c.command(ctx, c.bin, "up", "--data", data, "--broker", "kfake", "--rate", "100", "--detach"); err != nil {
		return fmt.Errorf("starting a platform: %w\n%s", err, out)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
		defer cancel()
		if out, derr := c.command(end, c.bin, "down", "--data", data); derr != nil {
			err = errors.Join(err, fmt.Errorf("ending the platform: %w\n%s", derr, out))
		}
	}()
	if c.endpoints, err = workers.LoadEndpoints(data); err != nil {
		return err
	}
	end, err := c.startPrometheus(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()

	if err := c.roles(ctx); err != nil {
		return err
	}
	if err := c.trouble(ctx, watch); err != nil { // meanwhile
		return err
	}
	c.dashboards(ctx, a)
	if err := c.rules(ctx); err != nil {
		return err
	}
	fmt.Printf("%d passed, %d failed\n", c.passed, c.failed)
	if c.failed > 0 {
		return fmt.Errorf("%d checks failed", c.failed)
	}
	return nil
}

func (c *checker) command(ctx context.Context, path string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	return string(out), err
}

func (c *checker) result(ok bool, format string, a ...any) {
	word := "PASS"
	if ok {
		c.passed++
	} else {
		c.failed++
		word = "FAIL"
	}
	fmt.Println(word, fmt.Sprintf(format, a...))
}

// startPrometheus starts a Prometheus with our configuration, beside which it writes the targets of the platform.
func (c *checker) startPrometheus(ctx context.Context) (func() error, error) {
	home := filepath.Join(c.dir, "prometheus")
	if err := os.CopyFS(home, os.DirFS("deploy/observability")); err != nil {
		return nil, fmt.Errorf("copying the configuration: %w", err)
	}
	var targets []string
	for _, m := range c.endpoints.Metrics {
		targets = append(targets, strings.TrimSuffix(strings.TrimPrefix(m, "http://"), "/metrics"))
	}
	text, err := json.Marshal([]map[string]any{{"targets": targets}})
	if err == nil {
		err = os.MkdirAll(filepath.Join(home, "targets"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(home, "targets", "millrace.json"), text, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the targets: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("finding a port: %w", err)
	}
	c.prometheus = l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, fmt.Errorf("finding a port: %w", err)
	}
	cmd := exec.Command(filepath.Join(c.programs, "prometheus"), "--config.file="+filepath.Join(home, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(home, "tsdb"), "--web.listen-address="+c.prometheus, "--log.level=warn") //nolint:noctx // ended in order
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting Prometheus: %w", err)
	}
	return func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return fmt.Errorf("ending Prometheus: %w", err)
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("ending Prometheus: %w", err)
		}
		return nil
	}, nil
}

// roles asks every role for its health and holds what it serves to the catalogue.
func (c *checker) roles(ctx context.Context) error {
	all, err := workers.Metrics()
	if err != nil {
		return err
	}
	known := map[string]string{}
	for _, m := range all {
		known[m.Name] = m.Type
	}
	c.result(len(c.endpoints.Metrics) == len(workers.Roles()), "%d of %d roles are in endpoints.json", len(c.endpoints.Metrics), len(workers.Roles()))
	kind := regexp.MustCompile(`(?m)^# TYPE (millrace_\S+) (\S+)$`)
	for _, m := range c.endpoints.Metrics {
		base := strings.TrimSuffix(m, "/metrics")
		for _, path := range []string{"/healthz", "/readyz"} {
			code, text, err := get(ctx, base+path)
			c.result(err == nil && code == http.StatusOK, "%s%s: %d %s %s", base, path, code, strings.TrimSpace(text), problem(err))
		}
		code, text, err := get(ctx, m)
		found := kind.FindAllStringSubmatch(text, -1)
		var wrong []string
		for _, f := range found {
			if known[f[1]] != f[2] {
				wrong = append(wrong, fmt.Sprintf("%s is a %s, the catalogue says %q", f[1], f[2], known[f[1]]))
			}
		}
		c.result(err == nil && code == http.StatusOK && len(found) > 1 && len(wrong) == 0, "%s serves %d metrics of the catalogue %s %s", m, len(found), strings.Join(wrong, "; "), problem(err))
	}
	return nil
}

func problem(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

// trouble sends what cannot be understood, so that there are failed events to be seen, and asks the API, until the platform has been watched for long enough.
func (c *checker) trouble(ctx context.Context, watch time.Duration) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(watch); time.Now().Before(end); {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoints.Gateway+"/v1/events", strings.NewReader(fmt.Sprintf(`{"name":7,"at":%d}`, time.Now().UnixNano())))
		if err != nil {
			return fmt.Errorf("making a request: %w", err)
		}
		req.Header.Set("X-Write-Key", c.endpoints.WriteKey)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("sending what cannot be understood: %w", err)
		}
		if err := resp.Body.Close(); err != nil {
			return fmt.Errorf("sending what cannot be understood: %w", err)
		}
		for _, path := range []string{"/api/v1/kpis/live?window=60s", "/api/v1/products/top?window=1h"} { // so that the API has something to show
			if _, _, err := get(ctx, c.endpoints.API+path); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// moreTime is what a busy machine is given beyond the watched minute.
const moreTime = 90 * time.Second

// dashboards asks what every panel asks.
func (c *checker) dashboards(ctx context.Context, a assets) {
	exprs, end := a.exprs(), time.Now().Add(moreTime)
	for _, where := range slices.Sorted(maps.Keys(exprs)) {
		n, err := c.query(ctx, exprs[where])
		for (err != nil || n == 0) && time.Now().Before(end) && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			n, err = c.query(ctx, exprs[where])
		}
		c.result(err == nil && n > 0, "%s: %d series %s", where, n, problem(err))
	}
}

// query gives how many series an expression has that are numbers.
func (c *checker) query(ctx context.Context, expr string) (int, error) {
	var answer struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := c.ask(ctx, "/api/v1/query?query="+url.QueryEscape(expr), &answer); err != nil {
		return 0, err
	}
	n := 0
	for _, r := range answer.Data.Result {
		if v := r.Value[1]; v != "NaN" && v != "+Inf" && v != "-Inf" {
			n++
		}
	}
	return n, nil
}

// rules looks whether Prometheus can evaluate every rule and whether an alert fires, which on a healthy platform is wrong.
func (c *checker) rules(ctx context.Context) error {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct {
					Name      string `json:"name"`
					Type      string `json:"type"`
					State     string `json:"state"`
					Health    string `json:"health"`
					LastError string `json:"lastError"`
				} `json:"rules"`
			} `json:"groups"`
		} `json:"data"`
	}
	if err := c.ask(ctx, "/api/v1/rules", &answer); err != nil {
		return err
	}
	n := 0
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			n++
			c.result(r.Health == "ok" && r.State != "firing", "rule %s: %s %s %s", r.Name, r.Health, r.State, r.LastError)
		}
	}
	c.result(n > 20, "%d rules are loaded", n)
	return nil
}

func (c *checker) ask(ctx context.Context, path string, into any) error {
	code, text, err := get(ctx, "http://"+c.prometheus+path)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("Prometheus answers %d %s", code, text)
	}
	if err := json.NewDecoder(bytes.NewReader([]byte(text))).Decode(into); err != nil {
		return fmt.Errorf("reading Prometheus's answer: %w", err)
	}
	return nil
}

func get(ctx context.Context, address string) (code int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, "", fmt.Errorf("asking %s: %w", address, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("asking %s: %w", address, err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}
