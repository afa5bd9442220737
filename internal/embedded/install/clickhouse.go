package install

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/gzip"

	"millrace/internal/fault"
)

// The ClickHouse engine: the package that ships it, pinned by version, by the
// registry's own integrity value, and by the checksum of the archive.
const (
	chdbPackage   = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1"
	chdbKey       = "26.7.3-stable.1"
	chdbSHA256    = "c0d32b129e988f2b9a9a31c9141aecf5e1e2453f9a079efc4d36ab8e3f92b2ad"
	chdbIntegrity = "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw=="
	chdbLibrary   = "libchdb.so"
	chdbBytes     = 566330096
)

// ClickHouse installs the engine and returns its library's path.
func (c *Cache) ClickHouse(ctx context.Context) (string, error) {
	const name = "clickhouse"
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return "", fault.Newf(platformID, "the ClickHouse engine is there for linux/amd64, this is %s/%s; configure the address of a ClickHouse server", runtime.GOOS, runtime.GOARCH)
	}
	dir, err := c.once(ctx, name, chdbKey, func(ctx context.Context, dir string) error {
		archive, err := c.npmPack(ctx, name, dir)
		if err != nil {
			return err
		}
		c.Progress(name, "checking", 0, 0)
		if err := checkSHA256(archive, chdbSHA256); err != nil {
			return err
		}
		if err := c.unpackLibrary(name, archive, filepath.Join(dir, chdbLibrary)); err != nil {
			return fmt.Errorf("unpacking: %w", err)
		}
		return os.Remove(archive)
	})
	if err != nil {
		return "", err
	}
	lib := filepath.Join(dir, chdbLibrary)
	if info, err := os.Stat(lib); err != nil || info.Size() != chdbBytes {
		return "", fault.Newf(checksumID, "%s is damaged: remove the folder %s", lib, dir)
	}
	return lib, nil
}

// npmPack downloads through the npm client, so that the user's registry and proxy settings hold.
func (c *Cache) npmPack(ctx context.Context, name, dir string) (string, error) {
	npm, err := lookTool("npm", "to fetch the ClickHouse engine; or configure the address of a ClickHouse server")
	if err != nil {
		return "", err
	}
	c.Progress(name, "downloading 178 MB", 0, 0)
	out, err := command{dir: dir, env: []string{"npm_config_update_notifier=false"}}.run(ctx, npm, "pack", "--json", "--loglevel=error", "--pack-destination", dir, chdbPackage)
	if err != nil {
		return "", err
	}
	var packed []struct {
		Filename  string `json:"filename"`
		Integrity string `json:"integrity"`
	}
	if err := json.Unmarshal([]byte(out), &packed); err != nil {
		return "", fmt.Errorf("decoding what npm pack printed: %w", err)
	}
	if len(packed) != 1 {
		return "", fmt.Errorf("npm pack made %d archives, expected 1", len(packed))
	}
	if packed[0].Integrity != chdbIntegrity {
		return "", fault.Newf(checksumID, "%s has integrity %s, expected %s", chdbPackage, packed[0].Integrity, chdbIntegrity)
	}
	return filepath.Join(dir, filepath.Base(packed[0].Filename)), nil
}

func (c *Cache) unpackLibrary(name, archive, target string) (err error) {
	in, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only
	unzipped, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	files := tar.NewReader(unzipped)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the archive holds no %s", chdbLibrary)
		}
		if err != nil {
			return err
		}
		if header.Name != "package/"+chdbLibrary {
			continue
		}
		out, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
		if err != nil {
			return err
		}
		report := func(done int64) { c.Progress(name, "unpacking", done, header.Size) }
		_, err = io.Copy(io.MultiWriter(out, &counter{report: report}), files)
		return errors.Join(err, out.Close())
	}
}

// counter reports how many bytes went through, at every mebibyte.
type counter struct {
	report         func(int64)
	done, reported int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.done += int64(len(p))
	if c.done-c.reported >= 1<<20 {
		c.reported = c.done
		c.report(c.done)
	}
	return len(p), nil
}
