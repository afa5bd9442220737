package activities

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"millrace/event"
	"millrace/olap"
	"millrace/workflows/name"
)

// exportManifest is manifest.json of an archive.
type exportManifest struct {
	Schema   string       `json:"schema"`
	Request  string       `json:"request"`
	MadeAt   time.Time    `json:"made_at"`
	Subjects int64        `json:"subjects"`
	Files    []exportFile `json:"files"`
}

// exportFile is one table of an archive.
type exportFile struct {
	Name   string `json:"name"`
	Table  string `json:"table"`
	Rows   int64  `json:"rows"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// ExportWrite writes everything that ClickHouse has of a request's subjects into an archive: a zip of one NDJSON a table and a manifest with their checksums, mode 0600,
// in the folder of erasures. Nothing of it is in what the activity gives back.
func (e *Erase) ExportWrite(ctx context.Context, in name.ExportSubjectInput) (name.ExportResult, error) {
	b := startBeats(ctx)
	defer b.end()
	defer e.metrics.took(name.ExportWrite)()
	out, err := e.export(ctx, in, b)
	return out, eraseFailure(ctx, err)
}

// ExportPath is where the archive of a request is.
func (e *Erase) ExportPath(request string) string {
	return filepath.Join(e.cfg.Dir, "exports", request+".zip")
}

func (e *Erase) export(ctx context.Context, in name.ExportSubjectInput, b *beats) (out name.ExportResult, err error) {
	out.Request = in.Request
	r, err := e.rows.Request(ctx, in.Request)
	if err != nil {
		return out, err
	}
	if r.Subjects != in.Subjects {
		return out, errInput(fmt.Sprintf("subjects: request %s has %d, not %d", in.Request, r.Subjects, in.Subjects))
	}
	if err := e.findFailed(ctx, in.Request); err != nil {
		return out, err
	}
	path := e.ExportPath(in.Request)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return out, fmt.Errorf("folder of exports: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), in.Request+".*.new") // 0600
	if err != nil {
		return out, fmt.Errorf("writing the archive: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	total := &counted{to: f, sum: sha256.New()}
	z := zip.NewWriter(total)
	m := exportManifest{Schema: "millrace/subject-export/1", Request: in.Request, MadeAt: e.now().UTC(), Subjects: r.Subjects, Files: []exportFile{}}
	for _, table := range olap.EraseTables() {
		one, err := e.exportTable(ctx, z, in.Request, table, func(rows int64) { b.note(Progress{Rows: out.Rows + rows}) })
		if err != nil {
			return out, errors.Join(err, f.Close())
		}
		m.Files = append(m.Files, one)
		out.Rows += one.Rows
	}
	text, err := json.MarshalIndent(m, "", " ")
	if err == nil {
		var w io.Writer
		if w, err = z.Create("manifest.json"); err == nil {
			_, err = w.Write(text)
		}
	}
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return out, fmt.Errorf("writing the archive: %w", err)
	}
	out.Bytes, out.SHA256 = total.n, hex.EncodeToString(total.sum.Sum(nil))
	// The request's ids are no longer needed.
	return out, e.rows.Forget(ctx, in.Request)
}

// findFailed notes which failed events have a subject's id in them: the filter is one of this request alone, without a cut.
func (e *Erase) findFailed(ctx context.Context, request string) error {
	subjects, err := e.rows.Subjects(ctx, request)
	if err != nil {
		return err
	}
	all := make([]int64, 4096)
	for i := range all {
		all[i] = 1<<63 - 1
	}
	filter := event.NewErased(e.notes.key)
	for _, entry := range e.notes.entries(request, e.now(), event.Cut{event.TopicRawFailed: all}, subjects) {
		if err := filter.Add(entry); err != nil {
			return err
		}
	}
	return e.rows.FindFailed(ctx, request, filter)
}

func (e *Erase) exportTable(ctx context.Context, z *zip.Writer, request, table string, progress func(rows int64)) (exportFile, error) {
	one := exportFile{Name: table + ".ndjson", Table: table}
	w, err := z.Create(one.Name)
	if err != nil {
		return one, fmt.Errorf("writing the archive: %w", err)
	}
	c := &counted{to: w, sum: sha256.New()}
	err = e.rows.Export(ctx, request, table, func(row string) error {
		one.Rows++
		if one.Rows%1000 == 0 {
			progress(one.Rows)
		}
		_, err := io.WriteString(c, row+"\n")
		return err
	})
	one.Bytes, one.SHA256 = c.n, hex.EncodeToString(c.sum.Sum(nil))
	return one, err
}

// ExportRemove removes an archive; one that is gone is no error.
func (e *Erase) ExportRemove(ctx context.Context, in name.ExportSubjectInput) error {
	b := startBeats(ctx)
	defer b.end()
	err := os.Remove(e.ExportPath(in.Request))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return eraseFailure(ctx, err)
}

// counted counts and hashes what goes through.
type counted struct {
	to  io.Writer
	n   int64
	sum hash.Hash
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.n += int64(n)
	_, _ = c.sum.Write(p[:n]) // a hash does not fail
	return n, err
}
