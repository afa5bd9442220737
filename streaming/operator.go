package streaming

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Operator is the code of one task. One goroutine at a time calls it, so it needs no locks; it must not block on the outside world.
//
// An error (or a panic, which becomes an error naming topic, partition and offset) ends the worker: input that cannot be understood is
// the operator's to turn into an output of its own kind, never an error.
type Operator interface {
	// Process takes one record of input `in`, in merged order. Emitted records may refer to r's slices (its key, its value); nothing may
	// refer to them, or change them, after the transaction has ended.
	Process(in int, r *kgo.Record) error
	// Timer is called once for each timer whose time the watermark has reached, in the order (At, Owner, Key). The timer is gone
	// when it is called.
	Timer(tm Timer) error
	// Tick is processing time: about every 100 ms, and before a commit that follows a second boundary. Engine windows have emitted before.
	Tick(now time.Time) error
	// BeforeCommit is the last chance to emit and to write state in this transaction. It is called only if the task did something
	// in it (read, fired, wrote or emitted).
	BeforeCommit() error
}

// LogRestorer is implemented by operators of a topology with logs. RestoreLog is called for every value appended within the log's
// retention, oldest first, before the first Process; written is the wall clock of the commit that wrote it. value is not to be retained.
type LogRestorer interface {
	RestoreLog(log string, value []byte, written time.Time) error
}

// Refuser is implemented by operators that want to put records somewhere that the engine leaves out (Config.MaxKeyBytes): Refused is called in place of Process, and may
// emit. Nothing may be kept under r.Key.
type Refuser interface {
	Refused(in int, r *kgo.Record) error
}

// Restored is implemented by operators that derive memory from their stores: it is called once, after stores and logs are restored and
// before the first Process.
type Restored interface {
	Restored() error
}

// Committer is implemented by operators that keep derived memory beside their stores. Committed: what happened since the last call
// is durable. Aborted: it never happened; stores, windows, timers and watermarks have been set back already, the operator sets its
// own memory back to the last Committed (or to Restored), and the same records will come again, perhaps merged or cut otherwise.
// The task of an operator without Committer is discarded on an abort and restored.
type Committer interface {
	Committed()
	Aborted()
}

// An operator that holds something outside of the task's state (files, gauges) implements io.Closer: Close is called when the worker gives the task up, and nothing
// of the operator is called after it.

// Timer is an event-time timer. At is in microseconds since the epoch.
type Timer struct {
	Owner uint16 // whose timer: free for the operator, so that several parts of it can share the timers
	Key   string
	At    int64
}
