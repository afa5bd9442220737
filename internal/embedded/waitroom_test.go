package embedded

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

func TestAConnectionWaitsUntilTheOtherPortIsOpen(t *testing.T) {
	var lc net.ListenConfig
	free, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	w, err := openWaitroom(t.Context(), "127.0.0.1:0", to, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", local(w.port())) // nobody is behind it yet
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // the test is over
	if _, err := fmt.Fprintln(c, "ping"); err != nil {
		t.Fatal(err)
	}
	l, err := lc.Listen(ctx, "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // the test is over
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = served.Close() }() // the test is over
	if line, err := bufio.NewReader(served).ReadString('\n'); err != nil || line != "ping\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if _, err := fmt.Fprintln(served, "pong"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "pong\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if err := w.Close(); err != nil { // with a connection under way
		t.Fatal(err)
	}
	if _, err := io.ReadAll(served); err != nil {
		t.Errorf("the other side was not ended: %v", err)
	}
}
