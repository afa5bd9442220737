package embedded

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"millrace/internal/embedded/install"
	"millrace/internal/fault"
)

func (p *Platform) redis(ctx context.Context) (Child, error) {
	port, err := p.folder.Ports.Get(ctx, "redis")
	if err != nil {
		return Child{}, err
	}
	addr := local(port)
	p.endpoints.Redis = addr
	dir := filepath.Join(p.opts.DataDir, "redis")
	var server install.Redis // without a path: the stand-in
	return Child{
		Name:  RedisChild,
		Ports: []string{"redis"},
		Prepare: func(ctx context.Context, note func(string)) (err error) {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("creating Redis's folder: %w", err)
			}
			server, err = p.installer(note).Redis(ctx)
			note("")
			if id, _ := fault.IDOf(err); err == nil || ctx.Err() != nil || id == "MR-EMB-004" {
				return err
			}
			p.opts.Log.Warn("Redis is not to be had here, using miniredis", "error", err)
			note("miniredis: everything in it is lost when it stops")
			return nil
		},
		Command: func(context.Context) (Command, error) {
			if server.Path == "" {
				return p.self("miniredis", "-addr", addr), nil
			}
			return Command{Path: server.Path, Env: server.Env, Dir: dir, Args: []string{
				"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--protected-mode", "yes", "--daemonize", "no",
				"--dir", dir, "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
			}}, nil
		},
		Healthy: func(ctx context.Context) error { return redisPing(ctx, addr) },
	}, nil
}

// redisPing tells a server that serves from one that still loads its data.
func redisPing(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing is buffered
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return fmt.Errorf("bounding a Redis ping: %w", err)
		}
	}
	if _, err := conn.Write([]byte("*1\r\n$4\r\nPING\r\n")); err != nil {
		return fmt.Errorf("writing a Redis ping: %w", err)
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("reading a Redis ping: %w", err)
	}
	if answer = strings.TrimSpace(answer); answer != "+PONG" {
		return fmt.Errorf("the answer to a Redis ping is %q", answer)
	}
	return nil
}
