package streaming

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// A snapshot is what the local base holds of one task: its committed state as of a changelog offset. It is taken between two
// transactions, from the keys changed since the one before, and written as one batch, so that a crash leaves the one or the other.
const (
	snapshotEvery = 10 * time.Second
	snapshotAgain = time.Minute // it says that it is that young although nothing changed
	snapshotPiece = 8192        // keys a commit, while there is no snapshot yet that must stay whole
	blindBytes    = 4 << 20     // of a batch while restoring blind
)

// snapshotOrigin is what must be equal for a snapshot to be the state of this task.
type snapshotOrigin struct {
	Cluster    string `json:"cluster"`
	Topic      string `json:"topic"` // id of the changelog
	Partitions int32  `json:"partitions"`
	Generation uint32 `json:"generation"`
	Formats    string `json:"formats"` // of all stores
}

// snapshotMeta is what a snapshot says of itself.
type snapshotMeta struct {
	snapshotOrigin
	Offset int64          `json:"offset"` // of the changelog: everything before it is in the snapshot
	At     int64          `json:"at"`     // wall clock, µs
	Keys   map[uint16]int `json:"keys"`   // by store
	Bytes  int64          `json:"bytes"`  // in memory, were all of it there
}

// pager is a table that keeps its base on disk itself. Of the others the engine remembers what they wrote.
type pager interface {
	table
	collect(b *pebble.Batch, limit int) (left int, err error)
	flushed()
	evict(want int64)
	resident() int64
	adopt(keys int, intoMemory bool) error
	goBlind() error
	endBlind() error
	pinned() bool     // stays in memory
	whole() int64     // bytes that all keys would take in memory
	onDiskAlone() int // keys
}

// localPart is a task's part of the local base.
type localPart struct {
	base    *localBase
	part    int32
	origin  snapshotOrigin
	share   int64 // of the worker's bound
	pagers  []pager
	others  map[uint16]map[string][]byte // what tables that are no pagers wrote since the last snapshot; nil values delete
	flying  chan error                   // the batch under way, nil if there is none
	whole   bool                         // there is a snapshot, so the next one must be one batch
	offset  int64                        // of the changelog, after the last commit
	written int64                        // offset of the last snapshot
	at      time.Time                    // of it
	blind   *pebble.Batch
	isBlind bool
	fetches int64 // cells made from the disk
	out     []otherWrites
}

// otherWrites are the task's outputs [from, to) that are changelog records of a table that is no pager.
type otherWrites struct {
	store    uint16
	from, to int
}

func newLocalPart(base *localBase, part int32) *localPart {
	return &localPart{base: base, part: part, share: math.MaxInt64, others: map[uint16]map[string][]byte{}, written: -1}
}

func (l *localPart) dataPrefix() []byte { return dataKey(l.part) }

func (l *localPart) iter(prefix []byte) (*pebble.Iterator, error) {
	it, err := l.base.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, fmt.Errorf("reading the local state: %w", err)
	}
	return it, nil
}

func (l *localPart) blindBatch() (*pebble.Batch, error) {
	if l.blind != nil && l.blind.Len() > blindBytes {
		if err := l.applyBlind(); err != nil {
			return nil, err
		}
	}
	if l.blind == nil {
		l.blind = l.base.db.NewBatch()
	}
	return l.blind, nil
}

func (l *localPart) applyBlind() error {
	if l.blind == nil {
		return nil
	}
	b := l.blind
	l.blind = nil
	return errors.Join(l.base.db.Apply(b, pebble.NoSync), b.Close())
}

// formats names every store with its format: another version of the code may read them differently.
func formats(tables []table) string {
	var out []string
	for _, x := range tables {
		s := x.store()
		out = append(out, fmt.Sprintf("%05d=%d", s.ID, s.Format))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// identify sets what the task's snapshots belong to.
func (t *Task) identify(cluster string, changelog topicID) {
	if l := t.local; l != nil {
		l.origin = snapshotOrigin{cluster, hex.EncodeToString(changelog[:]), t.top.Partitions, t.cfg.Generation, formats(t.tables)}
		for _, x := range t.tables {
			if p, ok := x.(pager); ok {
				l.pagers = append(l.pagers, p)
			}
		}
	}
}

// span is what a snapshot must lie in to be used: its offset within the changelog, its age below the time for which tombstones are kept.
type span struct {
	start, end int64
	maxAge     time.Duration // 0: any
}

// adopt loads the task's snapshot. It gives the changelog's offset to go on from, or start with the reason why there is no snapshot to use.
func (t *Task) adopt(now time.Time, s span) (from int64, refused string, err error) {
	l := t.local
	if err := l.base.drain(); err != nil { // a former owner of this partition on this worker may have left a batch
		return 0, "", localError{err}
	}
	m, refused, err := l.read(now, s)
	if err != nil {
		return 0, "", localError{err}
	}
	if refused != "" {
		if err := l.base.remove(l.part); err != nil {
			return 0, "", localError{err}
		}
		return s.start, refused, nil
	}
	all := m.Bytes <= l.share
	for _, x := range t.tables {
		id := x.store().ID
		if p, ok := x.(pager); ok {
			err = p.adopt(m.Keys[id], all || p.pinned())
		} else {
			err = l.loadTable(x)
		}
		if err != nil {
			return 0, "", localError{fmt.Errorf("reading the snapshot of task %d: %w", t.part, err)}
		}
	}
	l.whole, l.offset, l.written, l.at = true, m.Offset, m.Offset, time.UnixMicro(m.At)
	return m.Offset, "", nil
}

// read gives the snapshot's description if it may be used.
func (l *localPart) read(now time.Time, s span) (m snapshotMeta, refused string, err error) {
	v, closer, err := l.base.db.Get(metaKey(l.part))
	if errors.Is(err, pebble.ErrNotFound) {
		return m, "there is none", nil
	}
	if err != nil {
		return m, "", fmt.Errorf("reading what a snapshot says of itself: %w", err)
	}
	bad := json.Unmarshal(v, &m)
	if err := closer.Close(); err != nil {
		return m, "", fmt.Errorf("reading what a snapshot says of itself: %w", err)
	}
	age := now.Sub(time.UnixMicro(m.At))
	switch o := l.origin; {
	case bad != nil:
		return m, "it cannot be read", nil
	case m.Cluster != o.Cluster:
		return m, "it belongs to another cluster", nil
	case m.Topic != o.Topic:
		return m, "the changelog is another topic", nil
	case m.Partitions != o.Partitions:
		return m, "it was made with another partition count", nil
	case m.Generation != o.Generation:
		return m, "it was made in another topic generation", nil
	case m.Formats != o.Formats:
		return m, "it was made with other stores or formats", nil
	case m.Offset > s.end:
		return m, "it is ahead of the changelog", nil
	case m.Offset < s.start:
		return m, "the changelog begins after it", nil
	case s.maxAge > 0 && age > s.maxAge:
		return m, "it is too old: the changelog may have dropped tombstones since", nil
	case age < -time.Minute:
		return m, "it was made in the future", nil
	}
	return m, "", nil
}

// loadTable loads a table that is no pager.
func (l *localPart) loadTable(x table) (err error) {
	prefix := binary.BigEndian.AppendUint16(l.dataPrefix(), x.store().ID)
	it, err := l.iter(prefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		if err := x.load(it.Key()[len(prefix):], it.Value()); err != nil {
			return err
		}
	}
	return nil
}

// remember keeps what a table that is no pager has written, until the next snapshot.
func (l *localPart) remember(store uint16, key, value []byte) {
	m := l.others[store]
	if m == nil {
		m = map[string][]byte{}
		l.others[store] = m
	}
	if value != nil {
		value = append([]byte{}, value...)
	}
	m[string(key)] = value
}

// committed takes over what a committed transaction wrote, and where the changelog stands now. It is called before outputs are forgotten.
func (l *localPart) committed(t *Task) {
	for _, o := range l.out {
		for _, r := range t.out[o.from:o.to] {
			v := r.Value
			if v != nil {
				v = v[1:]
			}
			l.remember(o.store, r.Key[2:], v)
		}
	}
	l.out = l.out[:0]
	if t.logged > 0 {
		for _, r := range t.out[:t.logged] { // at least once they are not written in this order
			if r.Topic == t.changelog {
				l.offset = max(l.offset, r.Offset+1)
			}
		}
	}
}

func (l *localPart) aborted() { l.out = l.out[:0] }

func (l *localPart) resident() int64 {
	n := int64(0)
	for _, p := range l.pagers {
		n += p.resident()
	}
	return n
}

// maintain is called between steps of the task: it takes note of a snapshot that was written, starts the next when it is due, and keeps
// the memory within the task's share.
func (t *Task) maintain(now time.Time) error {
	l := t.local
	if l == nil {
		return nil
	}
	far := l.resident() > l.share+l.share/4
	if l.flying != nil && far {
		if err := l.landed(<-l.flying); err != nil { // more is changed than can be written: the task waits for its disk
			return err
		}
	}
	if l.flying != nil {
		select {
		case err := <-l.flying:
			if err := l.landed(err); err != nil {
				return err
			}
		default:
		}
	}
	if l.flying == nil && !t.touched {
		since := now.Sub(l.at)
		if changed := l.offset != l.written; !l.whole || changed && far || changed && since >= snapshotEvery || since >= snapshotAgain || since < 0 {
			if err := t.snapshot(now); err != nil {
				return err
			}
		}
	}
	if l.resident() > l.share {
		l.evict()
	}
	return nil
}

func (l *localPart) evict() {
	for _, p := range l.pagers {
		if want := l.resident() - l.share + l.share/16; want > 0 && !p.pinned() {
			p.evict(want)
		}
	}
}

func (l *localPart) landed(err error) error {
	l.flying = nil
	if err != nil {
		return localError{fmt.Errorf("writing a snapshot: %w", err)}
	}
	for _, p := range l.pagers {
		p.flushed()
	}
	return nil
}

// snapshot gives what has changed to the base's writer. While there is no snapshot yet it goes in pieces, and only the last says that
// there is one. It must not be called in an open transaction.
func (t *Task) snapshot(now time.Time) error {
	l := t.local
	b := l.base.db.NewBatch()
	limit := math.MaxInt
	if !l.whole {
		limit = snapshotPiece
	}
	left := 0
	for _, p := range l.pagers {
		n, err := p.collect(b, limit)
		if err != nil {
			return localError{err}
		}
		left += n
	}
	if left == 0 {
		if err := l.finish(t, b, now); err != nil {
			return localError{err}
		}
	}
	l.at = now
	l.flying = make(chan error, 1)
	l.base.jobs <- localJob{batch: b, done: l.flying}
	return nil
}

// finish adds the other tables and the description.
func (l *localPart) finish(t *Task, b *pebble.Batch, now time.Time) error {
	var errs []error
	for id, m := range l.others {
		prefix := binary.BigEndian.AppendUint16(l.dataPrefix(), id)
		for k, v := range m {
			key := append(prefix[:len(prefix):len(prefix)], k...)
			if v == nil {
				errs = append(errs, b.Delete(key, nil))
			} else {
				errs = append(errs, b.Set(key, v, nil))
			}
		}
		clear(m)
	}
	m := snapshotMeta{snapshotOrigin: l.origin, Offset: l.offset, At: now.UnixMicro(), Keys: map[uint16]int{}}
	for _, p := range l.pagers {
		m.Keys[p.store().ID] = p.size()
		m.Bytes += p.whole()
	}
	v, err := json.Marshal(m)
	errs = append(errs, err, b.Set(metaKey(l.part), v, nil))
	l.whole, l.written = true, l.offset
	return errors.Join(errs...)
}

// flushNow writes the snapshot and waits for it: the worker stops.
func (t *Task) flushNow(now time.Time) error {
	l := t.local
	if l == nil || t.touched {
		return nil
	}
	for {
		if l.flying != nil {
			if err := l.landed(<-l.flying); err != nil {
				return err
			}
		}
		if l.whole && l.written == l.offset && !l.pending() {
			return nil
		}
		if err := t.snapshot(now); err != nil {
			return err
		}
	}
}

func (l *localPart) pending() bool {
	for _, m := range l.others {
		if len(m) > 0 {
			return true
		}
	}
	return false
}

// relieve keeps a restore within the task's share. A restore that began with nothing gives up what it has loaded and goes on blind; one
// that goes on from a snapshot writes what it has as another one: restored up to offset is a state like any other.
func (t *Task) relieve(now time.Time, offset int64) error {
	l := t.local
	if l == nil || l.isBlind || l.resident() <= l.share {
		return nil
	}
	if !l.whole {
		l.isBlind = true
		for _, p := range l.pagers {
			if !p.pinned() {
				if err := p.goBlind(); err != nil {
					return localError{err}
				}
			}
		}
		if err := l.applyBlind(); err != nil {
			return localError{err}
		}
		return nil
	}
	l.offset = offset
	if err := t.flushNow(now); err != nil {
		return err
	}
	for i := 0; i < 64 && l.resident() > l.share; i++ {
		l.evict()
	}
	return nil
}

// restoredTo ends a restore: everything before offset is loaded.
func (t *Task) restoredTo(offset int64) error {
	l := t.local
	if l == nil {
		return nil
	}
	l.offset = offset
	if !l.isBlind {
		return nil
	}
	if err := l.applyBlind(); err != nil {
		return localError{err}
	}
	for _, p := range l.pagers {
		if err := p.endBlind(); err != nil {
			return localError{err}
		}
	}
	l.isBlind = false
	return nil
}
