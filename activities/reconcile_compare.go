package activities

import (
	"context"
	"fmt"
	"slices"
	"sort"

	"millrace/event"
	"millrace/workflows/name"
)

// difference is a run of raw offsets of one partition that are wrong in one way: [from, to) with count rows.
type difference struct {
	kind      string
	partition int32
	from, to  int64
	count     int64
	state     string
}

// found is what a comparison found of one store.
type found struct {
	result name.StoreResult
	diffs  []difference
}

// comparison compares the stores with the control totals of one slice, and mends them if it is told to.
//
// The control totals say how many rows of a range there are and what their hashes add up to. Where a store has other sums, the rows themselves are looked at: the truth
// about a range is the set of rows that adds up to its control total, taken from Kafka, a store that agrees, or all of them together.
type comparison struct {
	slice  slice
	ledger []event.LedgerEntry // by partition and offset
	ends   map[int32]int64     // how far control totals are closed at all
	log    source              // nil: Kafka cannot be asked
	views  []view
	erased *event.Erased
	// covered says whether an offset is in a range of another hour.
	covered func(ctx context.Context, partition int32, offset int64) (bool, error)
	// refused says which rows, by their place on events.*, a store could not hold.
	refused func(ctx context.Context, places []string) (map[string]bool, error)
	beat    func(Progress)

	mend  bool
	token string

	found []*found // by view
	seen  Progress
}

// batchRows is how many rows of suspect ranges are looked at together: some 100 bytes each.
const batchRows = 500_000

// mendRows is how many whole rows are held and written together.
const mendRows = 20_000

// run compares.
func (c *comparison) run(ctx context.Context) error {
	bounds, entries := c.bounds()
	suspects := map[int32]map[int]bool{} // by partition: index of the entry in the ledger
	differs := make([]map[int]bool, len(c.views))
	c.found = make([]*found, len(c.views))
	for i, v := range c.views {
		f := &found{result: name.StoreResult{Store: v.name(), Ranges: int64(len(c.ledger)), Differences: map[string]int64{}}}
		c.found[i], differs[i] = f, map[int]bool{}
		sums, err := c.sumsOf(ctx, v, bounds)
		if err != nil {
			return fmt.Errorf("comparing %s of %s: %w", c.slice.table, v.name(), err)
		}
		for n := range c.ledger {
			e := &c.ledger[n]
			have := sums[e.RawPartition][e.RawFrom]
			f.result.Expected += e.Count
			f.result.Found += have.Count
			if have != checksumOf(e) {
				differs[i][n] = true
				if suspects[e.RawPartition] == nil {
					suspects[e.RawPartition] = map[int]bool{}
				}
				suspects[e.RawPartition][n] = true
			}
		}
		if err := c.between(ctx, v, f, sums, entries); err != nil {
			return err
		}
		c.seen.Rows += f.result.Found
		c.beat(c.seen)
	}
	partitions := make([]int32, 0, len(suspects))
	for p := range suspects {
		partitions = append(partitions, p)
	}
	slices.Sort(partitions)
	for _, p := range partitions {
		list := make([]int, 0, len(suspects[p]))
		for n := range suspects[p] {
			list = append(list, n)
		}
		sort.Ints(list)
		for len(list) > 0 {
			n, rows := 0, int64(0)
			for n < len(list) && (n == 0 || rows+c.ledger[list[n]].Count <= batchRows) {
				rows += c.ledger[list[n]].Count
				n++
			}
			if err := c.inspect(ctx, p, list[:n], differs); err != nil {
				return err
			}
			list = list[n:]
			c.beat(c.seen)
		}
	}
	for i := range c.views {
		c.judge(c.found[i])
	}
	return nil
}

// judge gives the outcome of a store.
func (c *comparison) judge(f *found) {
	left := int64(0)
	for _, d := range f.diffs {
		f.result.Differences[d.kind] += d.count
		switch {
		case d.state == name.StateRepaired:
			f.result.Repaired += d.count
		case slices.Contains(name.OpenKinds(), d.kind):
			left += d.count
		}
	}
	switch {
	case left > 0:
		f.result.Outcome = name.Differs
	case f.result.Repaired > 0:
		f.result.Outcome = name.Mended
	case len(c.ledger) == 0 && f.result.Found == 0:
		f.result.Outcome = name.Unjudged
	default:
		f.result.Outcome = name.Equal
	}
}

func checksumOf(e *event.LedgerEntry) event.Checksum {
	return event.Checksum{Count: e.Count, HashLo: e.HashLo, HashHi: e.HashHi}
}

// bounds gives where ranges and the gaps between them begin, by partition; entries are those that begin a range.
func (c *comparison) bounds() (map[int32][]int64, map[int32]map[int64]bool) {
	out, entries := map[int32][]int64{}, map[int32]map[int64]bool{}
	for p := range c.ends {
		out[p], entries[p] = nil, map[int64]bool{}
	}
	for i := range c.ledger {
		e := &c.ledger[i]
		p := e.RawPartition
		if entries[p] == nil {
			entries[p] = map[int64]bool{}
		}
		if b := out[p]; len(b) > 0 && b[len(b)-1] == e.RawFrom {
			out[p] = b[:len(b)-1] // no gap
		}
		out[p] = append(out[p], e.RawFrom, e.RawTo)
		entries[p][e.RawFrom] = true
	}
	return out, entries
}

// sumsOf reads the sums of a store. Where it has a cheap look and that agrees with all control totals of a partition, the ranges do too.
func (c *comparison) sumsOf(ctx context.Context, v view, bounds map[int32][]int64) (map[int32]map[int64]event.Checksum, error) {
	cheap, ok := v.(interface {
		totals(ctx context.Context) (map[int32]event.Checksum, error)
	})
	if !ok {
		return v.sums(ctx, bounds)
	}
	have, err := cheap.totals(ctx)
	if err != nil {
		return nil, err
	}
	want, out := map[int32]event.Checksum{}, map[int32]map[int64]event.Checksum{}
	for i := range c.ledger {
		e := &c.ledger[i]
		t := want[e.RawPartition]
		t.Count, t.HashLo, t.HashHi = t.Count+e.Count, t.HashLo+e.HashLo, t.HashHi+e.HashHi
		want[e.RawPartition] = t
	}
	look := map[int32][]int64{}
	for p, b := range bounds {
		if have[p] != want[p] {
			look[p] = b
			continue
		}
		out[p] = map[int64]event.Checksum{}
	}
	for i := range c.ledger {
		if e := &c.ledger[i]; out[e.RawPartition] != nil {
			out[e.RawPartition][e.RawFrom] = checksumOf(e)
		}
	}
	if len(look) == 0 {
		return out, nil
	}
	more, err := v.sums(ctx, look)
	for p, s := range more {
		out[p] = s
	}
	return out, err
}

// between looks at rows that are in no range of the hour. Beyond the last closed range they are not judged.
func (c *comparison) between(ctx context.Context, v view, f *found, sums map[int32]map[int64]event.Checksum, entries map[int32]map[int64]bool) error {
	for p, ranges := range sums {
		for at, sum := range ranges {
			if sum.Count == 0 || entries[p][at] || at >= c.ends[p] {
				continue
			}
			to := c.ends[p]
			for begin := range entries[p] {
				if begin > at {
					to = min(to, begin)
				}
			}
			lo, hi, count := int64(-1), int64(0), int64(0)
			err := v.spots(ctx, p, max(at, 0), to, func(s spot) error {
				other, err := c.covered(ctx, p, s.offset)
				if err != nil || other {
					return err
				}
				if lo < 0 || s.offset < lo {
					lo = s.offset
				}
				hi, count = max(hi, s.offset+1), count+int64(s.copies)
				return nil
			})
			if err != nil {
				return fmt.Errorf("looking at rows between the ranges of %s: %w", c.slice.table, err)
			}
			if count > 0 {
				f.diffs = append(f.diffs, difference{name.KindUncounted, p, lo, hi, count, name.StateOpen})
			}
		}
	}
	return nil
}

// known is what is known of a row, and from where.
type known struct {
	hash, at int64
	from     source
}

// inspect looks at the rows of some ranges of a partition, in all sources.
func (c *comparison) inspect(ctx context.Context, p int32, list []int, differs []map[int]bool) error {
	first, last := &c.ledger[list[0]], &c.ledger[list[len(list)-1]]
	within := func(offset int64) int { // of the list, -1 if none
		i := sort.Search(len(list), func(i int) bool { return c.ledger[list[i]].RawTo > offset })
		if i < len(list) && c.ledger[list[i]].RawFrom <= offset {
			return i
		}
		return -1
	}
	fromLog := map[int64]spot{}
	if c.log != nil {
		if err := c.log.spots(ctx, p, first.RawFrom, last.RawTo, func(s spot) error {
			if within(s.offset) >= 0 {
				fromLog[s.offset] = s
			}
			return nil
		}); err != nil {
			return fmt.Errorf("reading what Kafka has of %s: %w", c.slice.topic, err)
		}
	}
	have := make([]map[int64][]spot, len(c.views))
	for i, v := range c.views {
		have[i] = map[int64][]spot{}
		if err := v.spots(ctx, p, first.RawFrom, last.RawTo, func(s spot) error {
			if within(s.offset) >= 0 {
				have[i][s.offset] = append(have[i][s.offset], s)
			}
			return nil
		}); err != nil {
			return fmt.Errorf("reading rows of %s in %s: %w", c.slice.table, v.name(), err)
		}
		c.seen.Rows += int64(len(have[i]))
		c.beat(c.seen)
	}
	work := make([]mending, len(c.views))
	for _, n := range list {
		e := &c.ledger[n]
		rows, exact := c.truthOf(e, n, fromLog, have, differs)
		for i := range c.views {
			if differs[i][n] {
				c.inspectRange(e, i, rows, exact, have[i], &work[i])
			}
		}
	}
	for i := range c.views {
		if err := c.settle(ctx, p, i, &work[i]); err != nil {
			return err
		}
	}
	return nil
}

// truthOf finds the rows of a range, and whether they are exactly those of its control total.
func (c *comparison) truthOf(e *event.LedgerEntry, n int, fromLog map[int64]spot, have []map[int64][]spot, differs []map[int]bool) (map[int64]known, bool) {
	rows := map[int64]known{}
	exact := func() bool {
		var sum event.Checksum
		for _, k := range rows {
			sum.Add(k.hash)
		}
		return sum == checksumOf(e)
	}
	for o, s := range fromLog {
		if o >= e.RawFrom && o < e.RawTo {
			rows[o] = known{s.hash, s.at, c.log}
		}
	}
	if exact() {
		return rows, true
	}
	for i, v := range c.views { // one that agrees with the control total has exactly its rows
		if differs[i][n] {
			continue
		}
		clear(rows)
		for o, spots := range have[i] {
			if o >= e.RawFrom && o < e.RawTo {
				rows[o] = known{spots[0].hash, spots[0].at, v}
			}
		}
		return rows, exact()
	}
	for i, v := range c.views {
		for o, spots := range have[i] {
			if o < e.RawFrom || o >= e.RawTo {
				continue
			}
			if _, ok := rows[o]; !ok {
				rows[o] = known{spots[0].hash, spots[0].at, v}
			}
		}
	}
	return rows, exact()
}

// mending is what has to be done to a store.
type mending struct {
	missing []wanted
	drops   []drop
	diffs   []difference // but for those of missing rows, which may be explained
}

// wanted is a row that a store lacks, or has wrong.
type wanted struct {
	offset int64
	known  known
	kind   string
	sure   bool // it may be added
}

// inspectRange finds what is wrong with one range of one store.
func (c *comparison) inspectRange(e *event.LedgerEntry, i int, rows map[int64]known, exact bool, have map[int64][]spot, m *mending) {
	v, p := c.views[i], e.RawPartition
	one := func(kind string, offset, count int64, state string) {
		m.diffs = append(m.diffs, difference{kind, p, offset, offset + 1, count, state})
	}
	mendable := name.StateOpen
	for o, k := range rows {
		sure := exact || k.from == c.log
		spots := have[o]
		switch total, good := tally(spots, k.hash); {
		case total == 0 && k.at >= v.passed(p):
			one(name.KindLate, o, 1, name.StateNoted)
		case total == 0:
			m.missing = append(m.missing, wanted{o, k, name.KindMissing, sure})
		case good < 0:
			m.missing = append(m.missing, wanted{o, k, name.KindChanged, sure})
			if sure {
				m.drops = append(m.drops, drop{offset: o})
			}
		case total > 1:
			one(name.KindDuplicate, o, int64(total-1), mendable)
			m.drops = append(m.drops, drop{o, true, k.hash, good})
		}
	}
	for o, spots := range have {
		if _, ok := rows[o]; ok || o < e.RawFrom || o >= e.RawTo {
			continue
		}
		total, _ := tally(spots, 0)
		if !exact {
			one(name.KindUnexplained, o, int64(total), name.StateNoSource)
			continue
		}
		one(name.KindSurplus, o, int64(total), mendable)
		m.drops = append(m.drops, drop{offset: o})
	}
	if lost := e.Count - int64(len(rows)); !exact && lost > 0 {
		d := difference{name.KindUnexplained, p, e.RawFrom, e.RawTo, lost, name.StateNoSource}
		if c.erased.Below(e.RawTopic, p, e.RawFrom) {
			d.kind, d.state = name.KindErased, name.StateNoted
		}
		m.diffs = append(m.diffs, d)
	} else if !exact && len(rows) == int(e.Count) && !c.explained(m, e) {
		m.diffs = append(m.diffs, difference{name.KindUnexplained, p, e.RawFrom, e.RawTo, e.Count, name.StateNoSource})
	}
}

// explained says whether something was found of a range.
func (c *comparison) explained(m *mending, e *event.LedgerEntry) bool {
	for _, d := range m.diffs {
		if d.partition == e.RawPartition && d.from >= e.RawFrom && d.from < e.RawTo {
			return true
		}
	}
	for _, w := range m.missing {
		if w.offset >= e.RawFrom && w.offset < e.RawTo {
			return true
		}
	}
	return false
}

// tally counts the rows of an offset; good is the place of one with the hash, -1 if there is none.
func tally(spots []spot, hash int64) (total int, good int64) {
	good = -1
	for _, s := range spots {
		total += s.copies
		if s.hash == hash && (good < 0 || s.at < good) {
			good = s.at
		}
	}
	return total, good
}

// settle classifies the rows that a store lacks, mends it if that is asked for, and notes the differences.
func (c *comparison) settle(ctx context.Context, p int32, i int, m *mending) error {
	v := c.views[i]
	if c.mend && len(m.drops) > 0 {
		sort.Slice(m.drops, func(a, b int) bool { return m.drops[a].offset < m.drops[b].offset })
		if _, err := v.remove(ctx, p, m.drops, c.token); err != nil {
			return fmt.Errorf("deleting rows of %s in %s: %w", c.slice.table, v.name(), err)
		}
		for n := range m.diffs {
			if d := &m.diffs[n]; d.kind == name.KindDuplicate || d.kind == name.KindSurplus {
				d.state = name.StateRepaired
			}
		}
	}
	sort.Slice(m.missing, func(a, b int) bool { return m.missing[a].offset < m.missing[b].offset })
	for chunk := range slices.Chunk(m.missing, mendRows) {
		diffs, err := c.fill(ctx, p, v, chunk)
		if err != nil {
			return fmt.Errorf("looking for rows that %s lacks in %s: %w", v.name(), c.slice.table, err)
		}
		m.diffs = append(m.diffs, diffs...)
		c.beat(c.seen)
	}
	c.found[i].diffs = append(c.found[i].diffs, runsOf(m.diffs)...)
	return nil
}

// fill reads the rows that a store lacks, says which of them are to be there, and adds these if that is asked for.
func (c *comparison) fill(ctx context.Context, p int32, v view, list []wanted) ([]difference, error) {
	bySource := map[source][]int64{}
	for _, w := range list {
		bySource[w.known.from] = append(bySource[w.known.from], w.offset)
	}
	var rows []event.Stored
	why := map[int64]string{}
	place := map[string]int64{}
	for from, offsets := range bySource {
		err := from.rows(ctx, p, offsets, func(s event.Stored) error {
			_, _, o := s.Raw()
			if s.Dropped(c.erased) {
				why[o] = name.KindErased
				return nil
			}
			place[fmt.Sprintf("%s/%d@%d", s.Topic, s.Partition, s.Offset)] = o
			rows = append(rows, s)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading rows of %s: %w", from.name(), err)
		}
	}
	places := make([]string, 0, len(place))
	for at := range place {
		places = append(places, at)
	}
	refused, err := c.refused(ctx, places)
	if err != nil {
		return nil, err
	}
	for at := range refused {
		why[place[at]] = name.KindRefused
	}
	sure := map[int64]bool{}
	for _, w := range list {
		sure[w.offset] = w.sure
	}
	rows = slices.DeleteFunc(rows, func(s event.Stored) bool { _, _, o := s.Raw(); return why[o] != "" || !sure[o] })
	slices.SortFunc(rows, func(a, b event.Stored) int { return int(a.Offset - b.Offset) })
	added := map[int64]bool{}
	if c.mend && len(rows) > 0 {
		_, cannot, err := v.add(ctx, p, rows, c.token)
		if err != nil {
			return nil, err
		}
		if cannot > 0 {
			return nil, fmt.Errorf("%d rows cannot be held by %s", cannot, v.name())
		}
		for i := range rows {
			_, _, o := rows[i].Raw()
			added[o] = true
		}
	}
	out := make([]difference, 0, len(list))
	for _, w := range list {
		d := difference{w.kind, p, w.offset, w.offset + 1, 1, name.StateOpen}
		switch {
		case why[w.offset] != "":
			d.kind, d.state = why[w.offset], name.StateNoted
		case added[w.offset]:
			d.state = name.StateRepaired
		case !w.sure:
			d.state = name.StateNoSource
		}
		out = append(out, d)
	}
	return out, nil
}

// maxRuns bounds how many differences of a batch are told apart; beyond it those of a kind become one.
const maxRuns = 20_000

// runsOf puts differences of neighbouring offsets together.
func runsOf(in []difference) []difference {
	sort.Slice(in, func(a, b int) bool {
		x, y := in[a], in[b]
		if x.kind != y.kind {
			return x.kind < y.kind
		}
		if x.state != y.state {
			return x.state < y.state
		}
		return x.from < y.from
	})
	for gap := int64(0); ; gap = max(1, gap*16) {
		var out []difference
		for _, d := range in {
			if n := len(out) - 1; n >= 0 && out[n].kind == d.kind && out[n].state == d.state && out[n].partition == d.partition && d.from-out[n].to <= gap {
				out[n].to, out[n].count = max(out[n].to, d.to), out[n].count+d.count
				continue
			}
			out = append(out, d)
		}
		if len(out) <= maxRuns || gap > 1<<50 {
			return out
		}
	}
}
