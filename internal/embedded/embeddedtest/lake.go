package embeddedtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"millrace/internal/embedded"
	"millrace/internal/embedded/install"
)

// startupTimeout bounds the start of one server that is installed.
const startupTimeout = time.Minute

// Lake has the servers under a lakehouse: object stores, REST catalogs and PostgreSQL, each started when it is first asked for. All are on the loopback
// interface but the REST catalog, which has no option for that. Close it.
type Lake struct {
	dir       string
	stores    string
	rest      *install.IcebergREST
	processes []*process

	S3, GCS string // addresses of the stores; both have the bucket Bucket
}

// Bucket is the one that the stores have.
const Bucket = "lake"

// OpenLake installs what is missing and starts the object stores, with state below dir.
func OpenLake(ctx context.Context, dir string) (*Lake, error) {
	l := &Lake{dir: dir}
	installing, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	if l.stores, l.rest, err = embedded.LakeTools(installing); err != nil {
		return nil, err
	}
	p, err := l.start("stores", l.stores, []string{"-dir", filepath.Join(dir, "gcs"), "-buckets", Bucket}, nil, nil)
	if err != nil {
		return nil, err
	}
	if err := p.say(ctx, func(line string) error {
		var at struct{ S3, GCS string }
		if err := json.Unmarshal([]byte(line), &at); err != nil {
			return err
		}
		l.S3, l.GCS = at.S3, at.GCS
		return nil
	}); err != nil {
		return nil, errors.Join(fmt.Errorf("starting object stores: %w", err), l.Close())
	}
	return l, nil
}

// Store is a warehouse of a kind (file, s3, gs) named name, and the properties that reach it.
func (l *Lake) Store(scheme, name string) (warehouse string, properties map[string]string) {
	switch scheme {
	case "s3":
		return "s3://" + Bucket + "/" + name, map[string]string{"s3.endpoint": l.S3, "s3.region": "us-east-1", "s3.access-key-id": "test", "s3.secret-access-key": "test-secret"}
	case "gs":
		return "gs://" + Bucket + "/" + name, map[string]string{"gcs.endpoint": l.GCS + "/storage/v1/", "gcs.no-auth": "true", "gcs.usejsonapi": "true"}
	}
	return "file://" + filepath.Join(l.dir, name), nil
}

// REST starts a REST catalog over a warehouse and gives its address. properties are those of the store.
func (l *Lake) REST(ctx context.Context, name, warehouse string, properties map[string]string) (string, error) {
	port, err := freePort(ctx)
	if err != nil {
		return "", err
	}
	path, args, env := l.rest.Command(port, filepath.Join(l.dir, name+".db"), warehouse, properties)
	if _, err := l.start(name, path, args, env, nil); err != nil {
		return "", err
	}
	address := "http://127.0.0.1:" + port
	return address, l.await(ctx, name, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/v1/config", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }() // only the status counts
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the catalog answers %s", resp.Status)
		}
		return nil
	})
}

// ErrNoPostgres says that this machine has no PostgreSQL server.
var ErrNoPostgres = errors.New("no PostgreSQL server is installed: initdb and postgres are neither on PATH nor in /usr/lib/postgresql (Debian's package postgresql)")

// Postgres starts a PostgreSQL server with an empty database and gives its address without a password, and the password.
func (l *Lake) Postgres(ctx context.Context) (address, password string, err error) {
	bin, err := postgresPrograms()
	if err != nil {
		return "", "", err
	}
	port, err := freePort(ctx)
	if err != nil {
		return "", "", err
	}
	// It refuses to run as root, and its folder must then belong to somebody else.
	owner, err := ordinaryUser()
	if err != nil {
		return "", "", err
	}
	home, err := os.MkdirTemp("", "millrace-postgres-")
	if err != nil {
		return "", "", fmt.Errorf("making a folder for PostgreSQL: %w", err)
	}
	password = "only-for-tests"
	secret := filepath.Join(home, "password")
	if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
		return "", "", err
	}
	if owner != nil {
		uid, gid := int(owner.Uid), int(owner.Gid)
		if err := errors.Join(os.Chown(home, uid, gid), os.Chown(secret, uid, gid)); err != nil {
			return "", "", fmt.Errorf("giving away PostgreSQL's folder: %w", err)
		}
	}
	data := filepath.Join(home, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "millrace", "-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	initdb.Dir, initdb.SysProcAttr = home, &syscall.SysProcAttr{Credential: owner}
	if out, err := initdb.CombinedOutput(); err != nil {
		return "", "", errors.Join(fmt.Errorf("initdb: %w\n%s", err, out), os.RemoveAll(home))
	}
	args := []string{"-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=on", "-c", "max_connections=60"}
	p, err := l.start("postgres", filepath.Join(bin, "postgres"), args, nil, owner)
	if err != nil {
		return "", "", errors.Join(err, os.RemoveAll(home))
	}
	p.after = func() error { return os.RemoveAll(home) }
	err = l.await(ctx, "postgres", func(ctx context.Context) error {
		ready := exec.CommandContext(ctx, filepath.Join(bin, "pg_isready"), "-h", "127.0.0.1", "-p", port)
		if out, err := ready.CombinedOutput(); err != nil {
			return fmt.Errorf("pg_isready: %w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	})
	return "postgres://millrace@127.0.0.1:" + port + "/postgres?sslmode=disable", password, err
}

// postgresPrograms is the folder of the newest server; Debian keeps it off PATH.
func postgresPrograms() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), "postgres")); err == nil {
				return filepath.Dir(path), nil
			}
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", ErrNoPostgres
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// ordinaryUser is who servers run as that refuse to run as root; nil: as whoever this is.
func ordinaryUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, fmt.Errorf("looking for an ordinary user: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("user %s: %w", u.Username, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// Close ends all servers.
func (l *Lake) Close() error {
	var errs []error
	for i := len(l.processes) - 1; i >= 0; i-- {
		errs = append(errs, l.processes[i].end())
	}
	l.processes = nil
	http.DefaultClient.CloseIdleConnections()
	return errors.Join(errs...)
}

// process is a server that ends with this process, however that ends: a shell holds the other end of its standard input and ends the server when it closes.
type process struct {
	cmd   *exec.Cmd
	in    io.Closer
	out   *os.File // what it prints, line by line
	log   string
	after func() error
}

// guard runs "$@" until its standard input ends.
const guard = `exec 3<&0; "$@" 3<&- </dev/null & p=$!; cat <&3 >/dev/null; kill -TERM $p 2>/dev/null; wait $p; true`

func (l *Lake) start(name, path string, args, env []string, as *syscall.Credential) (*process, error) {
	p := &process{log: filepath.Join(l.dir, name+".log")}
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer func() { _ = log.Close() }() // the child has its own copy
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	out, outW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", name, err), r.Close(), w.Close())
	}
	shell := append([]string{"-c", guard, name, path}, args...)
	if name == "stores" { // looks after its standard input itself
		p.cmd = exec.Command(path, args...) //nolint:noctx // it outlives any one context; end ends it
	} else {
		p.cmd = exec.Command("/bin/sh", shell...) //nolint:noctx // as above
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = r, log, log
	if name == "stores" {
		p.cmd.Stdout = outW
	}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Dir = "/"
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as}
	err = p.cmd.Start()
	_, _ = r.Close(), outW.Close() // the child has its own copies
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", name, err), w.Close(), out.Close())
	}
	p.in, p.out = w, out
	l.processes = append(l.processes, p)
	return p, nil
}

// say waits for the first line that a server prints.
func (p *process) say(ctx context.Context, line func(string) error) error {
	ctx, cancel := context.WithTimeout(ctx, startupTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = p.out.SetReadDeadline(time.Unix(1, 0)) }) // ends the read
	defer stop()
	text, err := bufio.NewReader(p.out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("waiting for its first line: %w\n%s", err, p.tail())
	}
	return line(text)
}

func (p *process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// await asks until a server answers.
func (l *Lake) await(ctx context.Context, name string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startupTimeout)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("starting %s: %w\n%s", name, err, l.processes[len(l.processes)-1].tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *process) end() error {
	_ = p.in.Close()                                                                                          // which ends it
	timer := time.AfterFunc(20*time.Second, func() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }) // fails only when it has ended
	_ = p.cmd.Wait()                                                                                          // a server ends with many a status
	timer.Stop()
	_ = p.out.Close() // nothing is read any more
	if p.after != nil {
		return p.after()
	}
	return nil
}

func freePort(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("choosing a port: %w", err)
	}
	defer func() { _ = l.Close() }() // nothing was accepted
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// Jars is the folder of the REST catalog's jars.
func (l *Lake) Jars() string { return l.rest.Jars() }
