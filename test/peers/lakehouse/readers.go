package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"millrace/lakehouse"
)

// readerNames are the engines that readers.py has.
var readerNames = [...]string{"pyiceberg", "duckdb", "polars", "spark"}

// readTimeout bounds what all engines together need for one table; Spark starts its JVM with the first.
const readTimeout = 5 * time.Minute

// readers is the process that has the engines, which are started once.
type readers struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	log string
}

func startReaders(ctx context.Context, python, program, jars, more, log string) (*readers, error) {
	cmd := exec.CommandContext(ctx, python, program, jars, more)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Spark's JVM belongs to the group
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	f, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("starting the readers: %w", err)
	}
	defer func() { _ = f.Close() }() // the process has its own copy
	cmd.Stderr = f
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("starting the readers: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the readers: %w", err)
	}
	return &readers{cmd: cmd, in: in, out: bufio.NewReaderSize(out, 1<<20), log: log}, nil
}

// question is one line for readers.py.
type question struct {
	CatalogURI       string            `json:"catalog_uri"`
	CatalogName      string            `json:"catalog_name"`
	Warehouse        string            `json:"warehouse"`
	Table            string            `json:"table"`
	MetadataLocation string            `json:"metadata_location"`
	Store            map[string]string `json:"store"`
}

// read has all engines read the table and gives what each has added up.
func (r *readers) read(ctx context.Context, cfg lakehouse.Config, metadata string) (map[string]sums, error) {
	line, err := json.Marshal(question{cfg.CatalogURI, cfg.CatalogName, cfg.Warehouse, cfg.Namespace + "." + purchases, metadata, cfg.Store})
	if err != nil {
		return nil, fmt.Errorf("asking the readers: %w", err)
	}
	if _, err := r.in.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("asking the readers: %w\n%s", err, r.tail())
	}
	timer := time.AfterFunc(readTimeout, func() { _ = r.cmd.Cancel() }) // ends the read below
	defer timer.Stop()
	for {
		text, err := r.out.ReadBytes('\n')
		if err != nil {
			return nil, errors.Join(fmt.Errorf("waiting for the readers: %w\n%s", err, r.tail()), ctx.Err())
		}
		var out map[string]sums
		if json.Unmarshal(text, &out) == nil { // libraries print what they like
			return out, nil
		}
	}
}

func (r *readers) tail() string {
	b, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}

func (r *readers) close() error {
	_ = r.in.Close() // which ends it
	timer := time.AfterFunc(time.Minute, func() { _ = r.cmd.Cancel() })
	defer timer.Stop()
	if err := r.cmd.Wait(); err != nil {
		return fmt.Errorf("the readers ended: %w\n%s", err, r.tail())
	}
	return nil
}
