// Command stores is object stores for tests on one machine: S3 (gofakes3) and Google Cloud Storage (fake-gcs-server) in one process, on the loopback interface.
//
// It stands in the place of a cloud under the lakehouse, in tests and in test programs only; a platform never starts it. It is a module of its own, so that
// neither stand-in comes into the product's dependencies. Objects of S3 are held in memory, those of GCS in a folder; both are gone when it ends.
//
// When both answer, it prints one line of JSON: {"s3":"http://127.0.0.1:PORT","gcs":"http://127.0.0.1:PORT"}. It ends when standard input does.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

func main() {
	dir := flag.String("dir", "", "folder for GCS's objects (required)")
	buckets := flag.String("buckets", "lake", "buckets of both stores, separated by commas")
	s3Port := flag.Int("s3-port", 0, "port of S3; 0 chooses one")
	gcsPort := flag.Int("gcs-port", 0, "port of GCS; 0 chooses one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // owned by the process: a blocked read of stdin cannot be interrupted
		_, _ = io.Copy(io.Discard, os.Stdin) // any end of the pipe means that the parent is gone
		cancel()
	}()
	if err := run(ctx, *dir, strings.Split(*buckets, ","), *s3Port, *gcsPort); err != nil {
		slog.Error("stores ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, buckets []string, s3Port, gcsPort int) error {
	if dir == "" {
		return errors.New("flag -dir is required")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("creating the folder of objects: %w", err)
	}
	memory := s3mem.New()
	for _, b := range buckets {
		if err := memory.CreateBucket(b); err != nil {
			return fmt.Errorf("creating bucket %s: %w", b, err)
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", s3Port))
	if err != nil {
		return fmt.Errorf("listening for S3: %w", err)
	}
	s3 := &http.Server{Handler: partly(gofakes3.New(memory).Server()), ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- s3.Serve(l) }()

	port, err := freePort(ctx, lc, gcsPort)
	if err != nil {
		return err
	}
	at := fmt.Sprintf("127.0.0.1:%d", port)
	gcs, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		Scheme: "http", Host: "127.0.0.1", Port: uint16(port), StorageRoot: dir, PublicHost: at, ExternalURL: "http://" + at,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("starting GCS: %w", err), s3.Close(), <-done)
	}
	for _, b := range buckets {
		gcs.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: b})
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"s3": "http://" + l.Addr().String(), "gcs": gcs.URL()}); err != nil {
		return fmt.Errorf("saying where the stores are: %w", err)
	}
	select {
	case <-ctx.Done():
		err = s3.Close()
		<-done
	case err = <-done:
		err = fmt.Errorf("serving S3: %w", err)
	}
	gcs.Stop()
	return err
}

// partly makes answers to requests for a part of an object as S3's are: without the checksum of the whole one, which gofakes3 sends and clients would hold the part to.
func partly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			w = &part{w}
		}
		h.ServeHTTP(w, r)
	})
}

type part struct{ http.ResponseWriter }

func (p *part) WriteHeader(status int) {
	for name := range p.Header() {
		if strings.HasPrefix(name, "X-Amz-Checksum-") {
			p.Header().Del(name)
		}
	}
	p.ResponseWriter.WriteHeader(status)
}

// freePort chooses a port where none is wanted: fake-gcs-server must know it beforehand.
func freePort(ctx context.Context, lc net.ListenConfig, want int) (int, error) {
	if want != 0 {
		return want, nil
	}
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("choosing a port for GCS: %w", err)
	}
	defer func() { _ = l.Close() }() // nothing was accepted
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("choosing a port for GCS: unexpected address %s", l.Addr())
	}
	return addr.Port, nil
}
