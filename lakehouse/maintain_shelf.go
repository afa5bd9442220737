package lakehouse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
)

// shelf is the folder of what maintenance notes down about a table: plans, results, lists of expired files. It is outside the table's location, where
// everything belongs to Iceberg and a file that no metadata names is an orphan.
type shelf struct {
	fs   shelfFS
	root string
}

// shelfFS is what stores must do beside what reading and writing tables needs.
type shelfFS interface {
	iceio.WriteFileIO
	iceio.ReadFileIO
	iceio.ListableIO
	iceio.StatIO
}

func (c *Catalog) shelf(ctx context.Context, name string, t *table.Table) (shelf, error) {
	f, err := t.FS(ctx)
	if err != nil {
		return shelf{}, fmt.Errorf("store of table %s: %w", name, err)
	}
	s, ok := f.(shelfFS)
	if !ok {
		return shelf{}, fmt.Errorf("store of table %s: %T cannot be listed", name, f)
	}
	return shelf{s, strings.TrimRight(c.cfg.Warehouse, "/") + "/_maintenance/" + c.cfg.Namespace + "/" + name}, nil
}

// put writes a record whole or not at all, where the store can.
func (s shelf) put(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("record %s: %w", name, err)
	}
	final := s.root + "/" + name
	r, ok := s.fs.(iceio.LocalFS)
	if !ok { // object stores publish whole objects
		if err := s.fs.WriteFile(final, b); err != nil {
			return fmt.Errorf("writing record %s: %w", name, err)
		}
		return nil
	}
	if err := s.fs.WriteFile(final+".part", b); err != nil {
		return fmt.Errorf("writing record %s: %w", name, err)
	}
	if err := r.Rename(final+".part", final); err != nil {
		return fmt.Errorf("writing record %s: %w", name, err)
	}
	return nil
}

// get reads a record. A missing one is fs.ErrNotExist.
func (s shelf) get(name string, v any) error {
	b, err := s.fs.ReadFile(s.root + "/" + name)
	if err != nil {
		return fmt.Errorf("reading record %s: %w", name, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("record %s: %w", name, err)
	}
	return nil
}

// prune removes a folder that is empty; where it is not, or stores have no folders, nothing happens.
func (s shelf) prune(folder string) {
	_ = s.fs.Remove(s.root + "/" + folder) // only for tidiness
}

// item is one file of a shelf, by its path below the root of what was listed.
type item struct {
	name  string
	path  string // for fs
	size  int64
	mtime time.Time
}

// list gives the files below a folder, which may be missing.
func (s shelf) list(folder string) ([]item, error) {
	var out []item
	err := walk(s.fs, s.root+"/"+folder, func(i item) error {
		if !strings.HasSuffix(i.name, ".part") {
			out = append(out, item{path.Join(folder, i.name), i.path, i.size, i.mtime})
		}
		return nil
	})
	return out, err
}

// walk calls f for each file below root.
func walk(store iceio.ListableIO, root string, f func(item) error) error {
	base := bare(root)
	err := store.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // the root, or a file that has gone meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return f(item{strings.TrimPrefix(strings.TrimPrefix(bare(p), base), "/"), p, info.Size(), info.ModTime()})
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listing %s: %w", root, err)
	}
	return nil
}

// remove deletes a file of a shelf or of a table; it may be gone already.
func remove(store iceio.IO, p string) error {
	if err := store.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", p, err)
	}
	return nil
}
