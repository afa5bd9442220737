package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/parquet/file"
	icebergio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"millrace/internal/fault"
)

// ErrDamaged says that a data file of a table cannot be read although its store answers: it was changed or removed. Trying again does not help.
var ErrDamaged = errors.New("a data file is damaged or gone")

// Limits of looking for the file that made reading fail: beyond them the error stays as it is.
const (
	damageFiles = 2000
	damageBytes = 1 << 30
)

// Damaged looks for the file because of which tasks of a table could not be read, since Parquet's errors name none. What is not the fault of a file is given back as it is.
func Damaged(ctx context.Context, t *table.Table, tasks []table.FileScanTask, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, ErrDamaged) || len(tasks) == 0 || len(tasks) > damageFiles {
		return err
	}
	text := strings.ToLower(err.Error())
	if !slices.ContainsFunc([]string{"parquet", "thrift", "eof", "no such file", "not found", "not exist", "nosuchkey", "zstd", "decompress", "magic"}, func(s string) bool { return strings.Contains(text, s) }) {
		return err
	}
	fs, openErr := t.FS(ctx)
	if openErr != nil {
		return err
	}
	left := int64(damageBytes)
	for _, deep := range []bool{false, true} { // footers tell most, and cost little
		for _, task := range tasks {
			if deep {
				if left -= task.File.FileSizeBytes(); left < 0 {
					return err
				}
			}
			path := task.File.FilePath()
			bad := readable(fs, path, deep)
			if ctx.Err() != nil {
				return err
			}
			if bad != nil {
				return fault.New("MR-ICE-065", fmt.Errorf("%w: %s: %w (MR-ICE-065: restore the file from the store's versions or a copy, or roll the table back behind it)", ErrDamaged, path, bad))
			}
		}
	}
	return err
}

// readable opens a Parquet file; deep reads every page of it too.
func readable(fs icebergio.IO, path string, deep bool) (err error) {
	defer func() {
		if p := recover(); p != nil { // what a file of any bytes may make the reader do
			err = fmt.Errorf("%v", p)
		}
	}()
	f, err := fs.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	r, err := file.NewParquetReader(f)
	if err != nil || !deep {
		return err
	}
	for g := range r.NumRowGroups() {
		group := r.RowGroup(g)
		for c := range r.MetaData().Schema.NumColumns() {
			pages, err := group.GetColumnPageReader(c)
			if err != nil {
				return err
			}
			for pages.Next() {
			}
			if err := pages.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}
