package bigquery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go/table"

	"millrace/event"
	"millrace/internal/fault"
	"millrace/lakehouse"
)

// What BigQuery takes of partitions.
const (
	maxJobPartitions   = 4_000
	maxTablePartitions = 10_000
)

// plan is what a range comes to: rows that are new, days that are replaced as a whole because the lake has changed rows of them, and where all these rows are.
type plan struct {
	at      Position
	to      lakehouse.RefState
	snap    snapshot
	stored  map[int32]int64
	erased  *event.Erased
	replace map[int32]bool

	files []table.FileScanTask // all of whose rows are loaded, as they are
	rows  []table.FileScanTask // some of whose rows are
	want  event.Checksum
	days  map[int32]event.Checksum // of what is loaded
	held  int64                    // rows left out, since their subject is erased
}

// tally is the rows of one file by day, without those of erased subjects.
type tally struct {
	fresh, old map[int32]event.Checksum
	held       int64
}

// planOf compares two snapshots. With mend, or where the snapshot of the position has expired, what was stored before is compared with BigQuery itself.
func (s *Store) planOf(ctx context.Context, name string, t *table.Table, at Position, to lakehouse.RefState, erased *event.Erased, mend bool, note func(state string, rows int64)) (*plan, error) {
	p := &plan{at: at, to: to, erased: erased, replace: map[int32]bool{}, days: map[int32]event.Checksum{}}
	var err error
	if p.stored, err = vectorAt(at.Vector); err != nil {
		return nil, fault.New(rangeID, fmt.Errorf("table %s: %w", name, err))
	}
	if p.snap, err = snapshotOf(ctx, t, to.SnapshotID); err != nil {
		return nil, err
	}
	before := snapshot{t: t, id: at.SnapshotID}
	if !mend {
		if before, err = snapshotOf(ctx, t, at.SnapshotID); errors.Is(err, lakehouse.ErrNoSnapshot) {
			mend = true
		} else if err != nil {
			return nil, err
		}
	}
	added := p.snap.without(before)
	tallies := map[string]tally{}
	old := map[int32]event.Checksum{} // rows that BigQuery should have already, in files that are new
	var seen int64
	count := func(snap snapshot, task table.FileScanTask) (tally, error) {
		tl, err := tallyOf(ctx, snap, task, p.stored, erased)
		seen += task.File.Count()
		note("reading what the range holds", seen)
		return tl, err
	}
	for _, task := range added {
		tl, err := count(p.snap, task)
		if err != nil {
			return nil, err
		}
		tallies[keyOf(task)] = tl
		addAll(old, tl.old)
	}
	had := map[int32]event.Checksum{}
	if mend {
		if had, err = s.daySums(ctx, name, nil); err != nil {
			return nil, err
		}
	} else {
		for _, task := range before.without(p.snap) {
			tl, err := count(before, task)
			if err != nil {
				return nil, err
			}
			addAll(had, tl.old)
			addAll(had, tl.fresh) // cannot be, and must not go unseen
		}
	}
	for _, days := range [...]map[int32]event.Checksum{old, had} {
		for day := range days {
			if old[day] != had[day] {
				p.replace[day] = true
			}
		}
	}
	if len(p.replace) > 0 { // the rest of these days, which is in files that both have
		for _, task := range p.snap.without(snapshot{}) {
			if _, ok := tallies[keyOf(task)]; ok {
				continue
			}
			if day, ok := p.snap.dayOf(task.File); ok && !p.replace[day] {
				continue
			}
			if tallies[keyOf(task)], err = count(p.snap, task); err != nil {
				return nil, err
			}
			added = append(added, task)
		}
	}
	for _, task := range added {
		p.take(task, tallies[keyOf(task)])
	}
	return p, s.bounds(name, p)
}

// take decides how the rows of a file are loaded.
func (p *plan) take(task table.FileScanTask, tl tally) {
	var sum event.Checksum
	for _, part := range [...]struct {
		days map[int32]event.Checksum
		old  bool
	}{{tl.fresh, false}, {tl.old, true}} {
		for day, c := range part.days {
			if part.old && !p.replace[day] {
				continue
			}
			sum = add(sum, c)
			p.days[day] = add(p.days[day], c)
		}
	}
	p.held += tl.held
	p.want = add(p.want, sum)
	switch {
	case sum.Count == 0:
	case sum.Count == task.File.Count() && !hasDeletes(task):
		p.files = append(p.files, task)
	default:
		p.rows = append(p.rows, task)
	}
}

// bounds says whether BigQuery takes so many days.
func (s *Store) bounds(name string, p *plan) error {
	days := map[int32]bool{}
	for day := range p.days {
		days[day] = true
	}
	for day := range p.replace {
		days[day] = true
	}
	if len(days) > maxJobPartitions {
		return fault.Newf(partitionsID, "table %s: the range touches %d days, a job of BigQuery at most %d", name, len(days), maxJobPartitions)
	}
	for _, task := range p.snap.files {
		if day, ok := p.snap.dayOf(task.File); ok {
			days[day] = true
		}
	}
	if len(days) > maxTablePartitions {
		return fault.Newf(partitionsID, "table %s has rows of %d days, a table of BigQuery at most %d", name, len(days), maxTablePartitions)
	}
	return nil
}

func tallyOf(ctx context.Context, snap snapshot, task table.FileScanTask, stored map[int32]int64, erased *event.Erased) (tally, error) {
	tl := tally{fresh: map[int32]event.Checksum{}, old: map[int32]event.Checksum{}}
	err := snap.read(ctx, task, keyColumns(snap.t.Schema(), erased), func(b arrow.RecordBatch) error {
		k, err := keysOf(b, stored, erased)
		if err != nil {
			return fmt.Errorf("%s: %w", task.File.FilePath(), err)
		}
		for i := range int(b.NumRows()) {
			k.row(i)
			into := tl.old
			switch {
			case k.rowErased:
				tl.held++
				continue
			case k.rowFresh:
				into = tl.fresh
			}
			c := into[k.rowDay]
			c.Add(k.rowHash)
			into[k.rowDay] = c
		}
		return nil
	})
	return tl, err
}

// takes says whether a row is part of what is loaded.
func (p *plan) takes(k *keys) bool { return !k.rowErased && (k.rowFresh || p.replace[k.rowDay]) }

func addAll(into, from map[int32]event.Checksum) {
	for day, c := range from {
		into[day] = add(into[day], c)
	}
}

func add(a, b event.Checksum) event.Checksum {
	return event.Checksum{Count: a.Count + b.Count, HashLo: a.HashLo + b.HashLo, HashHi: a.HashHi + b.HashHi}
}

// replaced lists the days that are replaced.
func (p *plan) replaced() []int32 { return slices.Sorted(maps.Keys(p.replace)) }

// touched lists all days of which BigQuery gets another set of rows.
func (p *plan) touched() []int32 {
	days := maps.Clone(p.replace)
	for day := range p.days {
		days[day] = true
	}
	return slices.Sorted(maps.Keys(days))
}

func dayText(day int32) string { return time.Unix(int64(day)*86_400, 0).UTC().Format(time.DateOnly) }
