package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// endpoints is what the suite reads of endpoints.json, whose shape is a promise.
type endpoints struct {
	Gateway    string `json:"gateway"`
	ClickHouse struct {
		HTTP     string `json:"http"`
		User     string `json:"user"`
		Password string `json:"password"`
		Database string `json:"database"`
	} `json:"clickhouse"`
}

// platform is a whole platform of the suite's own, with a source for every run.
type platform struct {
	bin, data string
	env       []string
	endpoints endpoints
}

// start brings it up. The caller takes it down.
func start(ctx context.Context, root, dir, broker string, todo []*trial, out io.Writer) (*platform, error) {
	p := &platform{bin: os.Getenv("MILLRACE_BIN"), data: filepath.Join(dir, "data")}
	if p.bin == "" {
		p.bin = filepath.Join(root, "bin", "millrace")
	}
	if _, err := os.Stat(p.bin); err != nil {
		return nil, fmt.Errorf("%w: run make build", err)
	}
	var sources []object
	for _, r := range todo {
		sources = append(sources, object{"key": r.key(), "source": r.source(), "tenant": "default"})
	}
	config := filepath.Join(dir, "millrace.yaml") // JSON is YAML
	if err := writeJSON(config, object{"gateway": object{"sources": sources}}); err != nil {
		return nil, err
	}
	say(out, "a platform on %s", p.data)
	p.env = os.Environ()
	if err := p.call(ctx, "up", "--config", config, "--detach", "--no-simulate", "--broker", broker); err != nil {
		_ = p.down() // an interrupted start may have left it running; if not, there is nothing to end
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(p.data, "endpoints.json"))
	if err == nil {
		err = json.Unmarshal(b, &p.endpoints)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading endpoints.json: %w", err), p.down())
	}
	return p, nil
}

// down ends it, also when the suite was interrupted.
func (p *platform) down() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	return p.call(ctx, "down")
}

func (p *platform) call(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, p.bin, append(args, "--data", p.data)...)
	cmd.Env = p.env
	said, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("millrace %s: %w: %s", strings.Join(args, " "), err, said)
	}
	return nil
}
