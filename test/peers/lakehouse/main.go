// Command lakehouse proves that other people's engines read the lakehouse as we do: after every kind of change to a table, PyIceberg, DuckDB, Polars and Spark give
// the same rows and the same exact sums with SELECT * as our own reader, over a SQLite and a REST catalog, on disk and on S3. Its last line is "N passed, M failed".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"millrace/internal/embedded/embeddedtest"
	"millrace/lakehouse"
)

// world is a kind of catalog on a kind of store.
type world struct{ catalog, store string }

func main() {
	python := flag.String("python", "", "Python that has the readers of requirements.txt (required)")
	program := flag.String("readers", "readers.py", "the readers' program")
	jars := flag.String("jars", "", "folder of Spark's jars (required)")
	run := flag.String("run", "", "only catalogs and stores whose name, as in rest-s3, matches this regular expression")
	rows := flag.Int("rows", 400, "rows of a commit")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	want, err := regexp.Compile(*run)
	if err != nil || *python == "" || *jars == "" {
		fmt.Fprintln(os.Stderr, "usage: lakehouse -python FILE -jars DIR [-readers FILE] [-run REGEXP] [-rows N]:", err)
		os.Exit(2)
	}
	b := &book{}
	if err := prove(ctx, b, *python, *program, *jars, want, *rows); err != nil {
		b.fail("the run ended early: " + err.Error())
	}
	fmt.Printf("%d passed, %d failed\n", b.passed, b.failed)
	if b.failed > 0 || b.passed == 0 {
		os.Exit(1)
	}
}

// book counts the checks.
type book struct{ passed, failed int }

func (b *book) pass(what string) { b.passed++; fmt.Println("PASS", what) }
func (b *book) fail(what string) { b.failed++; fmt.Println("FAIL", what) }

func prove(ctx context.Context, b *book, python, program, jars string, want *regexp.Regexp, rows int) (err error) {
	dir, err := os.MkdirTemp("", "millrace-peers-lakehouse-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	lake, err := embeddedtest.OpenLake(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lake.Close()) }()
	readers, err := startReaders(ctx, python, program, jars, lake.Jars(), filepath.Join(dir, "readers.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, readers.close()) }()
	for _, w := range []world{{"sqlite", "file"}, {"sqlite", "s3"}, {"rest", "file"}, {"rest", "s3"}} {
		name := w.catalog + "-" + w.store
		if !want.MatchString(name) {
			continue
		}
		cfg, err := configure(ctx, lake, w, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := w.prove(ctx, b, cfg, readers, rows); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// configure makes an empty lakehouse. Each has a catalog name of its own: Spark knows catalogs by it.
func configure(ctx context.Context, lake *embeddedtest.Lake, w world, dir string) (lakehouse.Config, error) {
	cfg := lakehouse.DefaultConfig()
	cfg.CatalogName = w.catalog + "_" + w.store
	cfg.Warehouse, cfg.Store = lake.Store(w.store, cfg.CatalogName)
	cfg.CatalogURI = "sqlite:///" + filepath.Join(dir, cfg.CatalogName+".db")
	if w.catalog == "rest" {
		var err error
		cfg.CatalogURI, err = lake.REST(ctx, cfg.CatalogName, cfg.Warehouse, cfg.Store)
		return cfg, err
	}
	return cfg, nil
}

func (w world) prove(ctx context.Context, b *book, cfg lakehouse.Config, readers *readers, rows int) (err error) {
	cat, err := lakehouse.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cat.Close()) }()
	if err := lakehouse.EnsureTables(ctx, cat); err != nil {
		return err
	}
	s := &subject{cat: cat, each: rows, gone: map[string]bool{}}
	for _, step := range steps {
		began := time.Now()
		if err := step.change(s, ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		head, err := cat.Describe(ctx, purchases)
		if err != nil {
			return err
		}
		changed := time.Since(began)
		ours, err := s.sums(ctx)
		if err != nil {
			return fmt.Errorf("%s: our own reader: %w", step.name, err)
		}
		at := fmt.Sprintf("%s-%s, %s", w.catalog, w.store, step.name)
		fmt.Printf("== %s: %d rows in %d files, changed in %d ms\n", at, ours.Rows, head.Files, changed.Milliseconds())
		if expected := s.expected(); ours.Rows != expected.Rows || ours.HashLo != expected.HashLo || ours.HashHi != expected.HashHi {
			b.fail(fmt.Sprintf("%s: our own reader has %d rows, %d were stored and not deleted", at, ours.Rows, expected.Rows))
		} else {
			b.pass(at + ": our own reader has what was stored and not deleted")
		}
		got, err := readers.read(ctx, cfg, head.MetadataLocation)
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		for _, name := range readerNames {
			r, ok := got[name]
			if !ok {
				b.fail(fmt.Sprintf("%s: %s did not answer", at, name))
				continue
			}
			if differences := ours.differences(r); len(differences) > 0 {
				b.fail(fmt.Sprintf("%s: %s: %v", at, name, differences))
				continue
			}
			b.pass(fmt.Sprintf("%s: %s has the same %d rows and sums (%d ms)", at, name, r.Rows, r.Millis))
		}
	}
	return nil
}
