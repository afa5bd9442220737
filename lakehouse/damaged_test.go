package lakehouse

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"millrace/internal/fault"
)

func TestADamagedFileIsNamedByWhateverReadsIt(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 6, 50)
	tbl, err := c.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := tbl.Scan().PlanFiles(t.Context())
	if err != nil || len(tasks) != 6 {
		t.Fatalf("%d files, %v", len(tasks), err)
	}
	victim := tasks[3].File.FilePath()
	path := strings.TrimPrefix(victim, "file://")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := c.PlanCompaction(t.Context(), purchases, small())
	if err != nil || len(plan.Groups) != 1 {
		t.Fatalf("%+v, %v", plan.Groups, err)
	}
	head, err := c.Head(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	all := func() error {
		return c.ScanRows(t.Context(), purchases, ScanOptions{}, func(arrow.RecordBatch) error { return nil })
	}
	readers := map[string]func() error{
		"a query": all,
		"the checks of publishing": func() error {
			_, err := c.CheckSnapshot(t.Context(), purchases, CheckOptions{Snapshot: head.SnapshotID, RawTopic: "raw.purchase"}, func(context.Context) ([]ControlRange, error) { return nil, nil }, nil)
			return err
		},
		"a rewrite": func() error {
			_, err := c.CompactGroup(t.Context(), plan, 0, nil)
			return err
		},
	}
	harm := map[string]func() error{
		"its footer is other bytes": func() error {
			b := append([]byte{}, whole...)
			copy(b[len(b)-60:], strings.Repeat("\xff", 52))
			return os.WriteFile(path, b, 0o600)
		},
		"its pages are other bytes": func() error {
			b := append([]byte{}, whole...)
			copy(b[4:], strings.Repeat("\xff", len(b)/3))
			return os.WriteFile(path, b, 0o600)
		},
		"it is cut off": func() error { return os.WriteFile(path, whole[:len(whole)/2], 0o600) },
		"it is gone":    func() error { return os.Remove(path) },
	}
	for what, spoil := range harm {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		for reader, read := range readers {
			err := read()
			if id, _ := fault.IDOf(err); !errors.Is(err, ErrDamaged) || id != "MR-ICE-065" || !strings.Contains(err.Error(), path) {
				t.Errorf("%s, read by %s: %v", what, reader, err)
			}
		}
		if after, err := c.Head(t.Context(), purchases); err != nil || after.SnapshotID != head.SnapshotID {
			t.Errorf("%s: something was committed: %+v, %v", what, after, err)
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	for reader, read := range readers {
		if err := read(); err != nil {
			t.Errorf("restored, read by %s: %v", reader, err)
		}
	}
}

func TestAnErrorThatIsNotOfAFileStaysAsItIs(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 2, 10)
	tbl, err := c.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := tbl.Scan().PlanFiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, told := range []error{errors.New("parquet: out of memory"), ErrConflict, errors.New("connection reset")} {
		if got := Damaged(t.Context(), tbl, tasks, told); !errors.Is(got, told) || errors.Is(got, ErrDamaged) {
			t.Errorf("%v became %v", told, got)
		}
	}
}
