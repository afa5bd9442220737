package main

import (
	"bytes"
	"context"
	_ "embed" // the program that Spark's Python runs
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"millrace/lakehouse"
)

//go:embed spark/rewrite.py
var sparkProgram string

// The peer's versions.
const (
	pyspark        = "pyspark==4.0.1"
	sparkIceberg   = "org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:1.11.0"
	sparkSQLite    = "org.xerial:sqlite-jdbc:3.54.1.0"
	sparkFolder    = "spark-4.0.1-iceberg-1.11.0"
	mavenPlugin    = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
	sparkStartTime = 5 * time.Minute
)

// sparkRequest is one rewrite.
type sparkRequest struct {
	Kind   string `json:"kind"`
	Order  string `json:"order,omitempty"`
	Target int64  `json:"target"`
}

type sparkAnswer struct {
	Ready bool    `json:"ready"`
	Error string  `json:"error"`
	CPU   float64 `json:"cpu"`
	Wall  float64 `json:"wall"`
	Peak  int64   `json:"peak_mib"`
	Files int64   `json:"files"`
}

// spark is a session that has started and is warm.
type spark struct {
	p  *process
	in *json.Encoder
	d  *json.Decoder
}

// startSpark installs Spark where it is missing and starts a session on the catalog.
func startSpark(ctx context.Context, cfg lakehouse.Config, say func(string, ...any)) (*spark, error) {
	home, err := installSpark(ctx, say)
	if err != nil {
		return nil, err
	}
	program := filepath.Join(filepath.Dir(strings.TrimPrefix(cfg.CatalogURI, "sqlite:///")), "rewrite.py")
	if err := os.WriteFile(program, []byte(sparkProgram), 0o600); err != nil {
		return nil, fmt.Errorf("writing Spark's program: %w", err)
	}
	p, err := start(ctx, filepath.Join(home, "venv", "bin", "python"), []string{
		program, filepath.Join(home, "jars"), cfg.CatalogName, strings.TrimPrefix(cfg.CatalogURI, "sqlite:///"), cfg.Warehouse, cfg.Namespace + "." + compactionTable,
	}, "SPARK_LOCAL_IP=127.0.0.1", "PYTHONDONTWRITEBYTECODE=1", "SPARK_LOCAL_DIRS="+filepath.Dir(program))
	if err != nil {
		return nil, err
	}
	s := &spark{p: p, in: json.NewEncoder(p.stdin), d: json.NewDecoder(p.out)}
	timer := time.AfterFunc(sparkStartTime, p.stop)
	defer timer.Stop()
	a, err := s.answer()
	if err == nil && !a.Ready {
		err = errors.New("it did not say that it is ready")
	}
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("starting Spark: %w: %s", err, p.said.text())
	}
	say("  Spark is there and warm after %.1f CPU s, which are not counted", a.CPU)
	return s, nil
}

// ask has a rewrite done. The cost's N is not set.
func (s *spark) ask(ctx context.Context, r sparkRequest) (cost, error) {
	if err := s.in.Encode(r); err != nil {
		return cost{}, fmt.Errorf("asking Spark: %w", err)
	}
	defer context.AfterFunc(ctx, s.p.stop)()
	a, err := s.answer()
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	if err != nil {
		return cost{}, fmt.Errorf("Spark's rewrite: %w", err)
	}
	return cost{CPU: a.CPU, Wall: a.Wall, Note: fmt.Sprintf("%d files, peak %d MiB", a.Files, a.Peak)}, nil
}

func (s *spark) answer() (sparkAnswer, error) {
	var a sparkAnswer
	if err := s.d.Decode(&a); err != nil {
		return a, fmt.Errorf("reading its answer: %w", err)
	}
	return a, nil
}

func (s *spark) stop() { s.p.stop() }

// cacheFolder is where what benches need is kept.
func cacheFolder() (string, error) {
	if dir := os.Getenv("MILLRACE_CACHE"); dir != "" {
		return dir, nil
	}
	root, err := checkout()
	return filepath.Join(root, ".cache"), err
}

// installSpark brings Spark and its Iceberg jar into the cache, once.
func installSpark(ctx context.Context, say func(string, ...any)) (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, sparkFolder)
	done := filepath.Join(home, ".complete")
	if _, err := os.Stat(done); err == nil {
		return home, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("looking for Spark: %w", err)
	}
	say("  installing Spark (half a gigabyte) into %s", home)
	jars := filepath.Join(home, "jars")
	for _, c := range [][]string{
		{"python3", "-m", "venv", filepath.Join(home, "venv")},
		{filepath.Join(home, "venv", "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", pyspark},
		{"mvn", "-q", "-B", mavenPlugin, "-Dartifact=" + sparkIceberg, "-DoutputDirectory=" + jars},
		{"mvn", "-q", "-B", mavenPlugin, "-Dartifact=" + sparkSQLite, "-DoutputDirectory=" + jars},
	} {
		cmd := exec.CommandContext(ctx, c[0], c[1:]...)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("installing Spark (needed are python3 with venv, mvn and a JDK of 17 or later): %s: %w: %s", strings.Join(c, " "), err, said.String())
		}
	}
	if err := os.WriteFile(done, nil, 0o600); err != nil {
		return "", fmt.Errorf("installing Spark: %w", err)
	}
	return home, nil
}
