// Package drill is what drills share: a list of what held and what did not, and a platform of their own, driven by its command line.
package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Drill counts what held and what did not.
type Drill struct{ passed, failed int }

// Check prints and counts one statement.
func (d *Drill) Check(ok bool, format string, a ...any) {
	word := "PASS"
	if ok {
		d.passed++
	} else {
		d.failed++
		word = "FAIL"
	}
	fmt.Printf("%s %s\n", word, fmt.Sprintf(format, a...))
}

// Result is how many statements held and how many did not.
func (d *Drill) Result() (passed, failed int) { return d.passed, d.failed }

// Main runs a drill until its end or an interrupt, prints "N passed, N failed" as the last line, and ends the process. An error counts as a failure, and so does a drill that
// has checked nothing.
func Main(run func(context.Context, *Drill) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	d := &Drill{}
	if err := run(ctx, d); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		d.failed++
	}
	stop()
	fmt.Printf("%d passed, %d failed\n", d.passed, d.failed)
	if d.failed > 0 || d.passed == 0 {
		os.Exit(1)
	}
}

// Folder makes a folder for a drill's data. The function removes it, unless it is to be kept.
func Folder(name string, keep bool) (string, func() error, error) {
	dir, err := os.MkdirTemp("", "millrace-"+name+"-")
	if err != nil {
		return "", nil, fmt.Errorf("making a data directory: %w", err)
	}
	return dir, func() error {
		if keep {
			fmt.Println("kept:", dir)
			return nil
		}
		return os.RemoveAll(dir)
	}, nil
}

// Program is the command line of a platform.
type Program struct {
	Bin    string // absolute
	Data   string
	Env    []string // besides this process's own
	Config string   // file; "": none
}

// NewProgram finds the program.
func NewProgram(bin, data string, env ...string) (Program, error) {
	path, err := filepath.Abs(bin)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return Program{}, fmt.Errorf("finding the program (make build): %w", err)
	}
	return Program{Bin: path, Data: data, Env: env}, nil
}

// Call runs a command and gives its stdout. Its stderr is part of the error.
func (p Program) Call(ctx context.Context, args ...string) ([]byte, error) {
	args = append(args, "--data", p.Data)
	if p.Config != "" {
		args = append(args, "--config", p.Config)
	}
	cmd := exec.CommandContext(ctx, p.Bin, args...)
	cmd.Env = append(os.Environ(), p.Env...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("millrace %v: %w\n%s", args, err, said.String())
	}
	return out.Bytes(), nil
}

// Into is Call with JSON read into v.
func (p Program) Into(ctx context.Context, v any, args ...string) error {
	out, err := p.Call(ctx, args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, v); err != nil {
		return fmt.Errorf("millrace %v answered %q: %w", args, out, err)
	}
	return nil
}

// With is the program with more environment.
func (p Program) With(env ...string) Program {
	p.Env = append(append([]string{}, p.Env...), env...)
	return p
}

// stopTime is how long a platform may take to end.
const stopTime = 2 * time.Minute

// Up starts the platform; the function ends it, also after ctx was canceled.
func (p Program) Up(ctx context.Context, args ...string) (func() error, error) {
	stop := func() error {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		_, err := p.Call(down, "down")
		return err
	}
	if _, err := p.Call(ctx, append([]string{"up", "--detach"}, args...)...); err != nil {
		return nil, errors.Join(err, stop()) // what has started by then
	}
	return stop, nil
}
