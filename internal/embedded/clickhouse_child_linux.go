package embedded

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// RunClickHouseChild runs the ClickHouse engine as a server until ctx is done. It
// takes over the process (standard input, signal handling, one thread) and so can
// run only in a process of its own.
func RunClickHouseChild(ctx context.Context, o ClickHouseChildOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	master, err := terminalOnStdin()
	if err != nil {
		return fmt.Errorf("making a terminal: %w", err)
	}
	// The engine leaves its prompt, and shuts down cleanly, when its terminal hangs up.
	var once sync.Once
	hangUp := func() { once.Do(func() { _ = unix.Close(master) }) }
	defer context.AfterFunc(ctx, hangUp)()

	lib, err := purego.Dlopen(o.Library, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return fmt.Errorf("loading the engine: %w", err)
	}
	var setSignalHandlers func(enabled int32)
	var queryCmdline func(argc int32, argv unsafe.Pointer) uintptr
	var resultError func(result uintptr) string
	purego.RegisterLibFunc(&setSignalHandlers, lib, "chdb_set_signal_handlers_enabled")
	purego.RegisterLibFunc(&queryCmdline, lib, "chdb_query_cmdline")
	purego.RegisterLibFunc(&resultError, lib, "chdb_result_error")
	setSignalHandlers(0) // signals are Go's

	args := o.arguments()
	argv := make([]*byte, len(args)+1)
	for i, arg := range args {
		if argv[i], err = unix.BytePtrFromString(arg); err != nil {
			return fmt.Errorf("argument %q: %w", arg, err)
		}
	}
	runtime.LockOSThread()
	result := queryCmdline(int32(len(args)), unsafe.Pointer(&argv[0]))
	runtime.KeepAlive(argv)
	if message := resultError(result); message != "" && ctx.Err() == nil {
		return errors.New(message)
	}
	return nil
}

// terminalOnStdin puts a new pseudo-terminal in the place of standard input and
// returns its other end.
func terminalOnStdin() (master int, err error) {
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening the multiplexer: %w", err)
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return 0, fmt.Errorf("unlocking: %w", err)
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return 0, fmt.Errorf("asking for its number: %w", err)
	}
	slave, err := unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return 0, fmt.Errorf("opening the slave: %w", err)
	}
	if err := unix.Dup2(slave, 0); err != nil {
		return 0, fmt.Errorf("putting it in the place of stdin: %w", err)
	}
	return master, unix.Close(slave)
}
