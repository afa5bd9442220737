package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// tools are the languages and packages that the clients need, installed once for each content of the lock files into the cache.
type tools struct {
	here                         string // this folder
	node, python, java, chromium string
	js                           string // the JavaScript drivers beside their node_modules
	scripts                      string // the Python drivers
	jars, classes                string
	modules                      string
}

// install brings what is missing.
func install(ctx context.Context, root string, out io.Writer) (*tools, error) {
	t := &tools{here: filepath.Join(root, "test", "peers", "clients")}
	t.scripts = filepath.Join(t.here, "python")
	var errs []error
	look := func(what string, names ...string) string {
		for _, name := range names {
			if path, err := exec.LookPath(name); err == nil {
				return path
			}
		}
		errs = append(errs, errors.New(what))
		return ""
	}
	t.node = look("Node.js 20 or newer is needed: node", "node")
	npm := look("npm is needed", "npm")
	python3 := look("Python 3.11 or newer with venv and pip is needed: python3", "python3")
	t.java = look("a JDK 17 or newer is needed: java", "java")
	javac := look("a JDK 17 or newer is needed: javac", "javac")
	mvn := look("Maven is needed: mvn", "mvn")
	t.chromium = os.Getenv("CHROMIUM")
	if t.chromium == "" {
		t.chromium = look("Chromium is needed (or CHROMIUM set to a browser): apt-get install -y --no-install-recommends chromium fonts-liberation", "chromium", "chromium-browser", "google-chrome")
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	cache := os.Getenv("MILLRACE_CACHE")
	if cache == "" {
		cache = filepath.Join(root, ".cache")
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(cache, ".peers-clients.lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()

	js, err := once(out, cache, "js", []string{t.here + "/js/package-lock.json", t.here + "/js/.npmrc"}, func(dir string) error {
		for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
			if err := copyFile(filepath.Join(dir, name), filepath.Join(t.here, "js", name)); err != nil {
				return err
			}
		}
		return command(ctx, dir, npm, "ci", "--no-progress", "--loglevel=error")
	})
	if err != nil {
		return nil, err
	}
	t.modules = filepath.Join(js, "node_modules")
	venv, err := once(out, cache, "python", []string{t.here + "/python/requirements.txt"}, func(dir string) error {
		if err := command(ctx, dir, python3, "-m", "venv", dir); err != nil {
			return err
		}
		return command(ctx, dir, filepath.Join(dir, "bin", "python"), "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--require-hashes", "-r", t.here+"/python/requirements.txt")
	})
	if err != nil {
		return nil, err
	}
	t.python = filepath.Join(venv, "bin", "python")
	jars, err := once(out, cache, "java", []string{t.here + "/java/pom.xml"}, func(dir string) error {
		return command(ctx, dir, mvn, "-q", "-B", "-f", t.here+"/java/pom.xml", "dependency:copy-dependencies", "-DoutputDirectory="+dir)
	})
	if err != nil {
		return nil, err
	}
	t.jars = jars + "/*"
	driver := filepath.Join(t.here, "java", "SegmentJava.java")
	t.classes, err = once(out, cache, "java-driver", []string{driver, t.here + "/java/pom.xml"}, func(dir string) error {
		return command(ctx, dir, javac, "-nowarn", "-Xlint:-unchecked", "-cp", t.jars, "-d", dir, driver)
	})
	return t, err
}

// prepare puts the JavaScript drivers beside their modules.
func (t *tools) prepare(_ context.Context, dir string) error {
	t.js = filepath.Join(dir, "js")
	if err := os.CopyFS(t.js, os.DirFS(filepath.Join(t.here, "js"))); err != nil {
		return err
	}
	_ = os.RemoveAll(filepath.Join(t.js, "node_modules")) // of somebody who installed by hand
	return os.Symlink(t.modules, filepath.Join(t.js, "node_modules"))
}

// once runs make in a fresh folder of the cache, for each content of files; afterwards the folder is there.
func once(out io.Writer, cache, what string, files []string, make func(dir string) error) (string, error) {
	h := sha256.New()
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		h.Write(b)
	}
	dir := filepath.Join(cache, "peers-clients-"+what+"-"+hex.EncodeToString(h.Sum(nil))[:12])
	done := filepath.Join(dir, ".complete")
	if _, err := os.Stat(done); err == nil {
		return dir, nil
	}
	say(out, "installing into %s", dir)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := make(dir); err != nil {
		return "", err
	}
	return dir, os.WriteFile(done, nil, 0o644)
}

// lock keeps a second suite from installing at the same time.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // closing gives the lock back
}

func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, said)
	}
	return nil
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}
