package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// waitroom is a port at which connections wait until another one is open, and are then passed on to it.
//
// The broker's transaction coordinator needs it. After a kill it writes the markers of a commit that the kill cut off. It does so before its own listener is
// open; refused, it looks its partitions' leaders up again, finds none while the broker is being registered anew, takes the partitions for deleted and drops
// their markers: offsets committed, outputs invisible for good. (Kafka 4.3.1, TransactionMarkerChannelManager: "likely deleted already and hence can be
// skipped".) A connection that waits is not refused.
type waitroom struct {
	listener net.Listener
	to       string
	log      *slog.Logger
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

func openWaitroom(ctx context.Context, at, to string, log *slog.Logger) (*waitroom, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
	if err != nil {
		return nil, fmt.Errorf("holding a port open for the broker: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // it lives as long as the platform
	w := &waitroom{listener: l, to: to, log: log, cancel: cancel}
	w.wg.Go(func() { w.accept(ctx) })
	return w, nil
}

func (w *waitroom) port() int { return w.listener.Addr().(*net.TCPAddr).Port }

func (w *waitroom) accept(ctx context.Context) {
	for {
		c, err := w.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				w.log.ErrorContext(ctx, "the port held open for the broker is gone", "error", err)
			}
			return
		}
		w.wg.Go(func() { w.pass(ctx, c) })
	}
}

// pass waits for the other port, at most as long as the broker's own request timeout, and copies both ways until either side ends.
func (w *waitroom) pass(ctx context.Context, c net.Conn) {
	defer func() { _ = c.Close() }() // ended either way
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var d net.Dialer
	var to net.Conn
	for deadline := time.Now().Add(time.Minute); ; {
		var err error
		if to, err = d.DialContext(ctx, "tcp", w.to); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return
		}
	}
	defer func() { _ = to.Close() }() // ended either way
	stop := context.AfterFunc(ctx, func() { _ = c.Close(); _ = to.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(to, c); _ = to.Close() }) // an end of one side is the end of both
	both.Go(func() { _, _ = io.Copy(c, to); _ = c.Close() })
	both.Wait()
}

// Close ends all connections.
func (w *waitroom) Close() error {
	err := w.listener.Close()
	w.cancel()
	w.wg.Wait()
	return err
}
