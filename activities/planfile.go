package activities

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"millrace/lakehouse"
)

// planFolder holds one plan and the results of its groups. It is outside of all table locations, so that no listing of a table's files meets it, and seen by every
// worker and every committer. Files appear whole or not at all.
//
//	DIR/<table>/<key>/plan.json, group-0.json, group-1.json, …
type planFolder struct{ path string }

var errPlanLost = errors.New("the plan's folder has lost a file: are batch.dir of all workers and of the Iceberg sinks the same folder?")

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)

func openPlan(dir, table, key string) (planFolder, error) {
	if !plainName.MatchString(table) || !plainName.MatchString(key) {
		return planFolder{}, fmt.Errorf("no folder for a plan %q of table %q", key, table)
	}
	return planFolder{filepath.Join(dir, table, key)}, nil
}

// storedPlan is plan.json.
type storedPlan struct {
	Made   time.Time        `json:"made"`
	Policy lakehouse.Policy `json:"policy"`
	Plan   lakehouse.Plan   `json:"plan"`
}

func (f planFolder) plan() (storedPlan, bool, error) {
	var p storedPlan
	ok, err := f.read("plan.json", &p)
	return p, ok, err
}

// needPlan is plan for those who cannot make one.
func (f planFolder) needPlan() (storedPlan, error) {
	p, ok, err := f.plan()
	if err == nil && !ok {
		err = fmt.Errorf("plan.json: %w", errPlanLost)
	}
	return p, err
}

func (f planFolder) result(group int) (lakehouse.GroupResult, bool, error) {
	var r lakehouse.GroupResult
	ok, err := f.read(groupFile(group), &r)
	return r, ok, err
}

func groupFile(group int) string { return fmt.Sprintf("group-%d.json", group) }

// results reads those of all groups of a plan.
func (f planFolder) results(groups int) ([]lakehouse.GroupResult, error) {
	out := make([]lakehouse.GroupResult, 0, groups)
	for g := range groups {
		r, ok, err := f.result(g)
		if err == nil && !ok {
			err = fmt.Errorf("%s: %w", groupFile(g), errPlanLost)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (f planFolder) read(file string, into any) (bool, error) {
	b, err := os.ReadFile(filepath.Join(f.path, file))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return false, fmt.Errorf("reading %s of a plan: %w", file, err)
	}
	return true, nil
}

// write puts a file in place in one step. Two workers that write the same one each leave a whole file.
func (f planFolder) write(file string, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		err = os.MkdirAll(f.path, 0o755)
	}
	if err != nil {
		return fmt.Errorf("writing %s of a plan: %w", file, err)
	}
	tmp, err := os.CreateTemp(f.path, file+".*.new")
	if err != nil {
		return fmt.Errorf("writing %s of a plan: %w", file, err)
	}
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(f.path, file))
	}
	if err != nil {
		return fmt.Errorf("writing %s of a plan: %w", file, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// drop removes the folder; one that is gone is no error.
func (f planFolder) drop() error {
	if err := os.RemoveAll(f.path); err != nil {
		return fmt.Errorf("removing a plan: %w", err)
	}
	return nil
}

// dropOld removes the plans of a table that nobody came back to, such as those of terminated workflows.
func dropOld(dir, table string, before time.Time) error {
	entries, err := os.ReadDir(filepath.Join(dir, table))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing plans: %w", err)
	}
	var errs []error
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.ModTime().Before(before) {
			continue // it has just gone, or is in use
		}
		errs = append(errs, os.RemoveAll(filepath.Join(dir, table, e.Name())))
	}
	return errors.Join(errs...)
}
