package embedded

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"millrace/internal/embedded/supervisor"
)

// childWord is the hidden subcommand by which a binary becomes one of its own children.
const childWord = "internal-child"

// MaybeChild turns the process into a child if it was started as one, and does
// not return then. Programs that start a Platform call it first in main, tests in TestMain.
func MaybeChild() {
	if os.Getenv(supervisor.Env) == "" || len(os.Args) < 3 || os.Args[1] != childWord {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	ctx, cancel := WithParent(ctx)
	err := ChildMain(ctx, os.Args[2:])
	cancel()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[2], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// ChildMain runs the child that args name (clickhouse, kfake or miniredis, then
// its flags) until ctx is done.
func ChildMain(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("no child named; there are clickhouse, kfake and miniredis")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "clickhouse":
		var o ClickHouseChildOptions
		o.flags(flags)
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return RunClickHouseChild(ctx, o)
	case "kfake":
		var o KfakeChildOptions
		o.flags(flags)
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return RunKfakeChild(ctx, o)
	case "miniredis":
		addr := flags.String("addr", "", "address to listen on")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return RunMiniredisChild(ctx, *addr)
	}
	return fmt.Errorf("no child %q; there are clickhouse, kfake and miniredis", args[0])
}

// WithParent returns a context that also ends when the supervisor that started
// this process does. In a process that has no supervisor it only adds a cancel.
func WithParent(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if os.Getenv(supervisor.Env) == "" {
		return ctx, cancel
	}
	// A copy, because the ClickHouse child puts a terminal in the place of its standard input.
	stdin, err := syscall.Dup(int(os.Stdin.Fd()))
	if err != nil {
		return ctx, cancel // the parent-death signal is left
	}
	pipe := os.NewFile(uintptr(stdin), "parent")
	// Owned by the process: a blocked read of stdin cannot be interrupted.
	go func() {
		_, _ = io.Copy(io.Discard, pipe) // any end of the pipe means that the parent is gone
		cancel()
	}()
	return ctx, cancel
}
