package lakehouse

import (
	"fmt"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/codec"
	"github.com/apache/iceberg-go/table"
)

// groupNote is what a group leaves on the shelf: its result, and files as manifest entries.
type groupNote struct {
	Result GroupResult `json:"result"`
	Old    [][]byte    `json:"old"`
	New    [][]byte    `json:"new"`
}

// planFolder is where the groups of a plan leave their notes, on the shelf of its table.
func planFolder(id string) string { return "plans/" + refSafe(id) }

// noteName and attemptName begin the names of a group's notes, and of the marks that tell whose files are being written. The id of the attempt ends them.
func noteName(plan string, group int) string {
	return fmt.Sprintf("%s/group-%05d-", planFolder(plan), group)
}

func attemptName(plan string, group int) string {
	return fmt.Sprintf("%s/attempt-%05d-", planFolder(plan), group)
}

// earlier finds the result of an attempt that came to its end, if its files are still there.
func (r *rewrite) earlier() (*GroupResult, error) {
	items, err := r.shelf.list(planFolder(r.plan.ID))
	if err != nil {
		return nil, err
	}
	for _, i := range items {
		if !strings.HasPrefix(i.name, noteName(r.plan.ID, r.g.ID)) {
			continue
		}
		var n groupNote
		if err := r.shelf.get(i.name, &n); err != nil {
			return nil, err
		}
		files, err := decodeFiles(r.t, n.New)
		if err == nil {
			err = r.shelf.there(files)
		}
		if err == nil {
			return &n.Result, nil
		}
	}
	return nil, nil
}

// there says whether files are in the store, whole.
func (s shelf) there(files []iceberg.DataFile) error {
	for _, f := range files {
		info, err := s.fs.Stat(f.FilePath())
		if err != nil {
			return fmt.Errorf("file %s: %w", f.FilePath(), err)
		}
		if info.Size() != f.FileSizeBytes() {
			return fmt.Errorf("file %s has %d bytes, not %d", f.FilePath(), info.Size(), f.FileSizeBytes())
		}
	}
	return nil
}

// note puts the result where a repeated call and the commit find it.
func (r *rewrite) note() (*GroupResult, error) {
	n := groupNote{Result: GroupResult{
		Plan: r.plan.ID, Group: r.g.ID, Note: noteName(r.plan.ID, r.g.ID) + r.id.String(),
		Files: int64(len(r.files)), Rows: r.in.Count, FilesIn: int64(len(r.g.Files)), BytesIn: r.g.Bytes, Deleted: r.g.Rows - r.in.Count, Checksum: r.in.Checksum,
	}}
	old := make([]iceberg.DataFile, 0, len(r.tasks))
	for _, t := range r.tasks {
		old = append(old, t.File)
	}
	for _, f := range r.files {
		n.Result.Bytes += f.FileSizeBytes()
	}
	n.Result.ReadBefore, n.Result.ReadAfter = r.asked.opened(old, r.t.Schema()), r.asked.opened(r.files, r.t.Schema())
	var err error
	if n.Old, err = encodeFiles(r.t, old); err != nil {
		return nil, err
	}
	if n.New, err = encodeFiles(r.t, r.files); err != nil {
		return nil, err
	}
	if err := r.shelf.put(n.Result.Note, n); err != nil {
		return nil, err
	}
	return &n.Result, nil
}

func encodeFiles(t *table.Table, files []iceberg.DataFile) ([][]byte, error) {
	out := make([][]byte, 0, len(files))
	for _, f := range files {
		spec := t.Metadata().PartitionSpecByID(int(f.SpecID()))
		if spec == nil {
			return nil, fmt.Errorf("file %s has unknown partition spec %d", f.FilePath(), f.SpecID())
		}
		b, err := codec.EncodeDataFile(f, *spec, t.Schema(), t.Metadata().Version())
		if err != nil {
			return nil, fmt.Errorf("noting file %s: %w", f.FilePath(), err)
		}
		out = append(out, b)
	}
	return out, nil
}

// decodeFiles reads what encodeFiles gave; only files of the table's present spec are rewritten.
func decodeFiles(t *table.Table, files [][]byte) ([]iceberg.DataFile, error) {
	out := make([]iceberg.DataFile, 0, len(files))
	for _, b := range files {
		f, err := codec.DecodeDataFile(b, t.Spec(), t.Schema(), t.Metadata().Version())
		if err != nil {
			return nil, fmt.Errorf("reading the note of a file: %w", err)
		}
		out = append(out, f)
	}
	return out, nil
}
