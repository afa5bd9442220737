package install

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"millrace/internal/fault"
)

// The BigQuery emulator: Python packages, each pinned by version and checksum.
var (
	//go:embed bigquery/requirements.txt
	bigQueryRequirements []byte
	//go:embed bigquery/extensions.py
	bigQueryExtensions string
)

const bigQueryVersion = "0.4.0"

// pythonVersions are those that the pinned packages are there for, the one it was tried with first.
var pythonVersions = [...]string{"3.13", "3.14"}

const noPythonID fault.ID = "MR-EMB-013"

// BigQuery is an installed emulator: a Python program.
type BigQuery struct {
	Python string
	Args   []string // before its own
	Env    []string
}

// BigQuery installs the emulator. Without a Python that its packages are there for the error has id MR-EMB-013.
func (c *Cache) BigQuery(ctx context.Context) (BigQuery, error) {
	const name = "bigquery"
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return BigQuery{}, fault.Newf(platformID, "the BigQuery emulator is pinned for linux/amd64, this is %s/%s; configure a project", runtime.GOOS, runtime.GOARCH)
	}
	python, err := findPython(ctx)
	if err != nil {
		return BigQuery{}, err
	}
	sum := sha256.Sum256([]byte(string(bigQueryRequirements) + bigQueryExtensions))
	dir, err := c.once(ctx, name, bigQueryVersion+"-py"+python.version+"-"+hex.EncodeToString(sum[:6]), func(ctx context.Context, dir string) error {
		return c.fetchBigQuery(ctx, name, python.path, dir)
	})
	if err != nil {
		return BigQuery{}, err
	}
	return BigQuery{
		Python: python.path, Args: []string{"-s", "-c", "from local_bigquery.cli import main; main()"}, Env: bigQueryEnv(dir),
	}, nil
}

// bigQueryEnv is the environment of the installation: its packages, and a home for DuckDB's extensions.
func bigQueryEnv(dir string) []string {
	return []string{"PYTHONPATH=" + filepath.Join(dir, "site"), "HOME=" + filepath.Join(dir, "home"), "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"}
}

// fetchBigQuery installs through pip, so that the user's index and proxy settings hold. Nothing but what is pinned is taken: not even what the packages say they need.
func (c *Cache) fetchBigQuery(ctx context.Context, name, python, dir string) error {
	list, site, home := filepath.Join(dir, "requirements.txt"), filepath.Join(dir, "site"), filepath.Join(dir, "home")
	if err := os.WriteFile(list, bigQueryRequirements, 0o644); err != nil {
		return err
	}
	if err := os.Mkdir(home, 0o755); err != nil {
		return err
	}
	c.Progress(name, "downloading 230 MB of Python packages", 0, 0)
	pip := command{dir: dir, env: []string{"PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_NO_INPUT=1", "PIP_ROOT_USER_ACTION=ignore", "PYTHONPATH="}}
	if _, err := pip.run(ctx, python, "-s", "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--target", site, "-r", list); err != nil {
		return err
	}
	c.Progress(name, "unpacking DuckDB's extensions", 0, 0)
	if _, err := (command{dir: dir, env: bigQueryEnv(dir)}).run(ctx, python, "-s", "-c", bigQueryExtensions); err != nil {
		return err
	}
	packed, err := filepath.Glob(filepath.Join(site, "duckdb_extension_*"))
	for _, p := range packed { // they are unpacked
		if err == nil {
			err = os.RemoveAll(p)
		}
	}
	return err
}

// python is an interpreter and its version, as 3.13.
type python struct{ path, version string }

// findPython looks on PATH, then where pyenv, uv and builds from source put interpreters. One counts if it starts and has pip: a name on PATH may be a shim of a version
// that is not chosen.
func findPython(ctx context.Context) (python, error) {
	var tried []string
	for _, version := range pythonVersions {
		for _, path := range pythonPaths(version) {
			if slices.Contains(tried, path) {
				continue
			}
			tried = append(tried, path)
			out, err := (command{env: []string{"PYTHONPATH="}}).run(ctx, path, "-s", "-c", "import sys, pip; print('%d.%d %s' % (*sys.version_info[:2], sys.implementation.name))")
			if ctx.Err() != nil {
				return python{}, ctx.Err()
			}
			if err == nil && strings.TrimSpace(out) == version+" cpython" {
				return python{path, version}, nil
			}
		}
	}
	said := "none was found"
	if len(tried) > 0 {
		said = "these do not start or have no pip: " + strings.Join(tried, ", ")
	}
	return python{}, fault.Newf(noPythonID, "the BigQuery emulator needs CPython %s with pip: %s", strings.Join(pythonVersions[:], " or "), said)
}

func pythonPaths(version string) []string {
	var out []string
	if path, err := exec.LookPath("python" + version); err == nil {
		out = append(out, path)
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) { // pyenv's shims start only the chosen version; the others are beside them
		if filepath.Base(dir) == "shims" {
			found, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "versions", version+".*", "bin", "python"+version))
			if err == nil { // else the pattern is wrong, and nothing is found
				out = append(out, found...)
			}
		}
	}
	patterns := []string{"/usr/local/bin/python" + version, "/opt/python*" + version + "*/bin/python" + version}
	if home, err := os.UserHomeDir(); err == nil {
		root := os.Getenv("PYENV_ROOT")
		if root == "" {
			root = filepath.Join(home, ".pyenv")
		}
		uv := os.Getenv("UV_PYTHON_INSTALL_DIR")
		if uv == "" {
			uv = filepath.Join(home, ".local", "share", "uv", "python")
		}
		patterns = append(patterns, filepath.Join(root, "versions", version+".*", "bin", "python"+version), filepath.Join(uv, "cpython-"+version+".*", "bin", "python"+version))
	}
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err == nil { // else the pattern is wrong, and nothing is found
			out = append(out, found...)
		}
	}
	return out
}
