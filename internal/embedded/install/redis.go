package install

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Redis is a server program and what its environment needs.
type Redis struct {
	Path string
	Env  []string
}

// redisPackages are the server and the libraries that a bare system does not have.
var redisPackages = []string{"redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1"}

// Redis finds the system's redis-server, or unpacks Debian's into the cache
// without touching the system. An error means that there is none to be had.
func (c *Cache) Redis(ctx context.Context) (Redis, error) {
	const name = "redis"
	if path, err := exec.LookPath("redis-server"); err == nil {
		return Redis{Path: path}, nil
	}
	if runtime.GOARCH != "amd64" {
		return Redis{}, installErr(name, fmt.Errorf("no redis-server on PATH, and none is fetched for %s", runtime.GOARCH))
	}
	dir, err := c.once(ctx, name, systemKey(), func(ctx context.Context, dir string) error {
		return c.unpackRedis(ctx, name, dir)
	})
	if err != nil {
		return Redis{}, err
	}
	return Redis{
		Path: filepath.Join(dir, "usr", "bin", "redis-server"),
		Env:  []string{"LD_LIBRARY_PATH=" + filepath.Join(dir, "usr", "lib", "x86_64-linux-gnu")},
	}, nil
}

// systemKey names the release that packages are unpacked for: their libraries must fit its own.
func systemKey() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "linux"
	}
	var id, version string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if v, ok := strings.CutPrefix(line, "ID="); ok {
			id = strings.Trim(v, `"`)
		}
		if v, ok := strings.CutPrefix(line, "VERSION_ID="); ok {
			version = strings.Trim(v, `"`)
		}
	}
	return id + version
}

// unpackRedis downloads with package lists of its own, so that neither root nor an
// up-to-date system is needed; apt checks signatures and checksums.
func (c *Cache) unpackRedis(ctx context.Context, name, dir string) error {
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := lookTool(tool, "to fetch redis-server, which is not on PATH"); err != nil {
			return err
		}
	}
	work := filepath.Join(dir, "work")
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "debs"} {
		if err := os.MkdirAll(filepath.Join(work, sub), 0o755); err != nil {
			return err
		}
	}
	options := []string{
		"-q", "-o", "Dir::State::lists=" + filepath.Join(work, "lists"), "-o", "Dir::Cache=" + filepath.Join(work, "cache"),
		"-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=",
	}
	c.Progress(name, "reading package lists", 0, 0)
	if _, err := (command{}).run(ctx, "apt-get", append(options, "update")...); err != nil {
		return err
	}
	c.Progress(name, "downloading", 0, 0)
	debs := filepath.Join(work, "debs")
	if _, err := (command{dir: debs}).run(ctx, "apt-get", append(append(options, "download"), redisPackages...)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for i, file := range files {
		c.Progress(name, "unpacking", int64(i+1), int64(len(files)))
		if _, err := (command{}).run(ctx, "dpkg-deb", "-x", file, dir); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "usr", "bin", "redis-server")); err != nil {
		return fmt.Errorf("the packages hold no redis-server: %w", err)
	}
	return os.RemoveAll(work)
}
