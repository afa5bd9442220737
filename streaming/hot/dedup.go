package hot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"millrace/event"
)

// bucketSize is the span of arrival that one bucket holds.
const bucketSize = 10 * time.Minute

// dedup remembers what arrived within the window: 128-bit fingerprints in buckets of arrival time. The open bucket is a hash set in memory; closed ones are immutable
// runs (run.go), asked only for what the front (filter.go) cannot rule out.
//
// An id added in bucket b is found until the task has reached bucket b + window + 1: for the window and at most ten minutes more. Arrival is the broker's timestamp of the
// raw record, the same on replay. A record that arrives earlier than one of another topic that was handled before it goes to the bucket that is open.
//
// Ids added since the last commit are undone by an abort. What is committed is in the log, one value a commit, and is rebuilt from it at a restart; the local files
// hold nothing that the log does not.
//
// Measured (TestWhatTheIndexCosts, with 1 million ids a bucket): 34 bytes of memory an id while its bucket is open (27 to 53, as the table grows by doubling) and 4.1
// afterwards (up to 6, as the front grows by doubling), 16 bytes on disk and in the log; that is 4 to 6 MB of memory and 16 MB of disk per million closed ids. At 1,000 events/s a task holds 86 million ids of 24 h:
// 0.4 to 0.5 GB of memory and 1.4 GB of disk.
type dedup struct {
	dir     string
	window  int64 // buckets
	bucket  int64 // the open one
	open    *idSet
	closing []closingBucket // closed since the last commit
	runs    []*run          // oldest first
	front   front
	buf     [blockIDs * idBytes]byte

	base       *idSet // the open set as of the last commit,
	baseBucket int64  // and its bucket
	added      []id   // since then
	marks      []mark // where in added the bucket changes
}

type closingBucket struct {
	bucket int64
	set    *idSet
}

type mark struct {
	bucket int64
	from   int
}

const noBucket = math.MinInt64

func newDedup(dir string, window time.Duration) *dedup {
	d := &dedup{dir: dir, window: int64((window + bucketSize - 1) / bucketSize), bucket: noBucket, open: newIDSet(0), baseBucket: noBucket}
	d.base = d.open
	return d
}

// advance moves to the bucket of an arrival time, in µs, if it is later than the open one.
func (d *dedup) advance(at int64) {
	if b := at / bucketSize.Microseconds(); b > d.bucket {
		d.rotate(b)
	}
}

func (d *dedup) rotate(bucket int64) {
	if d.open.n > 0 {
		d.closing = append(d.closing, closingBucket{d.bucket, d.open})
		d.open = newIDSet(d.open.n)
	} else if d.open == d.base {
		d.open = newIDSet(0) // base stays what it was, for an abort
	}
	d.bucket = bucket
}

// first says whether x is seen for the first time within the window, and remembers it.
func (d *dedup) first(x id) (bool, error) {
	slot, found := d.open.find(x)
	if found {
		return false, nil
	}
	if len(d.closing) > 0 || len(d.runs) > 0 {
		if found, err := d.closed(x); found || err != nil {
			return false, err
		}
	}
	d.open.add(x, slot)
	d.front.add(x, d.bucket)
	if n := len(d.marks); n == 0 || d.marks[n-1].bucket != d.bucket {
		d.marks = append(d.marks, mark{d.bucket, len(d.added)})
	}
	d.added = append(d.added, x)
	return true, nil
}

// seen says whether x is remembered.
func (d *dedup) seen(x id) (bool, error) {
	if _, found := d.open.find(x); found {
		return true, nil
	}
	return d.closed(x)
}

// closed looks for x in the closed buckets of the window, the newest first: most copies come soon.
func (d *dedup) closed(x id) (bool, error) {
	if !d.front.has(x) {
		return false, nil
	}
	oldest := d.bucket - d.window
	for i := len(d.closing) - 1; i >= 0; i-- {
		if c := d.closing[i]; c.bucket >= oldest {
			if _, found := c.set.find(x); found {
				return true, nil
			}
		}
	}
	for i := len(d.runs) - 1; i >= 0 && d.runs[i].bucket >= oldest; i-- {
		if found, err := d.runs[i].has(x, &d.buf); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// rank is 1 for the first of equal orders within the window, 2, 3, … for its copies. The k-th of them is remembered as an id of its own, made of x and k.
func (d *dedup) rank(x id) (int32, error) {
	kth := func(k int32) id {
		return nonzero(id{x.hi ^ uint64(k)*0x9e3779b97f4a7c15, x.lo + uint64(k)})
	}
	// Copies are few, but nothing bounds them: the steps grow so that the thousandth costs little more than the tenth.
	have, step := int32(0), int32(1)
	for {
		found, err := d.seen(kth(have + step))
		if err != nil {
			return 0, err
		}
		switch {
		case found:
			have += step
			if have >= 8 {
				step *= 2
			}
		case step == 1:
			_, err := d.first(kth(have + 1))
			return have + 1, err
		default:
			step /= 2
			for ; step >= 1; step /= 2 { // the last one is between have and have + 2 × step
				found, err := d.seen(kth(have + step))
				if err != nil {
					return 0, err
				}
				if found {
					have += step
				}
			}
			step = 1
		}
	}
}

// Value of the log: u8 format ‖ { varint bucket ‖ uvarint n ‖ n × 16 bytes }.
const (
	logFormat   = 1
	logValueIDs = 16 << 10 // at most so many ids in a value: 256 KiB
)

// flush hands what was added since the last commit to the log.
func (d *dedup) flush(buf []byte, write func(value []byte)) []byte {
	for m, mk := range d.marks {
		to := len(d.added)
		if m+1 < len(d.marks) {
			to = d.marks[m+1].from
		}
		for from := mk.from; from < to; from += logValueIDs {
			ids := d.added[from:min(to, from+logValueIDs)]
			buf = binary.AppendVarint(append(buf[:0], logFormat), mk.bucket)
			buf = binary.AppendUvarint(buf, uint64(len(ids)))
			for _, x := range ids {
				buf = x.append(buf)
			}
			write(buf)
		}
	}
	return buf
}

// restore takes up a value of the log.
func (d *dedup) restore(value []byte) error {
	if len(value) == 0 || value[0] != logFormat {
		return errors.New("a value of the dedup log has an unknown format")
	}
	value = value[1:]
	for len(value) > 0 {
		bucket, k := binary.Varint(value)
		if k <= 0 {
			return errDedupLog
		}
		value = value[k:]
		n, k := binary.Uvarint(value)
		if k <= 0 || n > uint64(len(value)-k)/idBytes {
			return errDedupLog
		}
		value = value[k:]
		if bucket > d.bucket {
			d.rotate(bucket)
		}
		for range n {
			x := idOf([idBytes]byte(value))
			value = value[idBytes:]
			if slot, found := d.open.find(x); !found {
				d.open.add(x, slot)
				d.front.add(x, d.bucket)
			}
		}
	}
	return nil
}

var errDedupLog = errors.New("a value of the dedup log is cut off")

// commit makes what was added permanent, writes closed buckets and forgets those that have left the window. The error is one of local files: the index is whole
// all the same.
func (d *dedup) commit() error {
	var errs []error
	for i, c := range d.closing {
		r, err := newRun(d.dir, c.bucket, c.set)
		errs = append(errs, err)
		d.runs = append(d.runs, r)
		d.closing[i] = closingBucket{}
	}
	d.closing = d.closing[:0]
	gone := 0
	for oldest := d.bucket - d.window; d.bucket != noBucket && gone < len(d.runs) && d.runs[gone].bucket < oldest; gone++ {
		if err := d.runs[gone].close(); err != nil {
			errs = append(errs, fmt.Errorf("closing a dedup bucket: %w", err))
		}
		d.runs[gone] = nil
	}
	d.runs = d.runs[gone:]
	if d.bucket != noBucket {
		d.front.expire(d.bucket - d.window)
	}
	d.begin()
	return errors.Join(errs...)
}

// abort goes back to the last commit.
func (d *dedup) abort() {
	for m, mk := range d.marks {
		to := len(d.added)
		if m+1 < len(d.marks) {
			to = d.marks[m+1].from
		}
		if mk.bucket == d.baseBucket {
			for _, x := range d.added[mk.from:to] {
				d.base.remove(x)
			}
		}
	}
	clear(d.closing)
	d.closing = d.closing[:0]
	d.open, d.bucket = d.base, d.baseBucket
	d.begin()
}

func (d *dedup) begin() {
	d.base, d.baseBucket = d.open, d.bucket
	d.added, d.marks = d.added[:0], d.marks[:0]
}

// close gives the local files back.
func (d *dedup) close() error {
	var errs []error
	for _, r := range d.runs {
		errs = append(errs, r.close())
	}
	d.runs = nil
	return errors.Join(errs...)
}

// size is how many ids are remembered, and the memory and the disk they take.
func (d *dedup) size() (ids, memory, disk int) {
	ids, memory = d.open.n, d.open.bytes()+d.front.bytes()
	for _, r := range d.runs {
		ids += r.n
		memory += r.memory()
		if r.file != nil {
			disk += r.n * idBytes
		}
	}
	return ids, memory, disk
}

// The kinds of ids share the index; what is put before the id keeps them apart. No tenant begins with a zero byte.
func eventID(e *event.Event) id { return idOf(event.Fingerprint(e.Tenant, e.Source, e.ID)) }

func orderID(e *event.Event) id { return idOf(event.Fingerprint("\x00order", e.Tenant, e.OrderID)) }

func failedID(failed string) id { return idOf(event.Fingerprint("\x00failed", "", failed)) }
