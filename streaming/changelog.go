package streaming

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"millrace/internal/fault"
)

// The engine's own stores: ids and formats are for ever, a golden test holds them.
const (
	storeMeta       uint16 = 0
	storeWatermarks uint16 = 1
	storeTimers     uint16 = 2
	storeDecisions  uint16 = 3
	storeUpstream   uint16 = 4
)

func engineStores() []StoreSpec {
	return []StoreSpec{{storeMeta, "meta", 1}, {storeWatermarks, "watermarks", 1}, {storeTimers, "timers", 1}, {storeDecisions, "decisions", 1}, {storeUpstream, "upstream", 1}}
}

func engineStore(id uint16) (StoreSpec, bool) {
	for _, s := range engineStores() {
		if s.ID == id {
			return s, true
		}
	}
	return StoreSpec{}, false
}

const (
	maxInputs   = 64
	maxUpstream = 1 << 14
	// maxLogRecord keeps a log record below the brokers' default limit of a batch (1 MiB).
	maxLogRecord = 900 << 10
)

// A changelog record: key = u16 store (big endian) ‖ key, value = u8 format ‖ bytes, a null value deletes. Its timestamp is the wall
// clock of the commit, because the broker's retention of tombstones goes by it.
func (t *Task) writeChangelog() error {
	topic := t.changelog
	for i, x := range t.tables {
		spec := x.store()
		from, bytes := len(t.out), t.outBytes
		err := x.flush(func(key, value []byte) {
			r := t.mem.record()
			b := append(binary.BigEndian.AppendUint16(t.mem.buf(2+len(key)), spec.ID), key...)
			r.Topic, r.Key = topic, t.mem.keep(b)
			if value != nil {
				r.Value = t.mem.keep(append(append(t.mem.buf(1+len(value)), spec.Format), value...))
			}
			r.Partition = t.part
			t.write(r)
			t.stats.changes++
		})
		if err != nil {
			return fmt.Errorf("writing store %s of task %d: %w", spec.Name, t.part, err)
		}
		if len(t.out) == from {
			continue
		}
		t.logged = len(t.out)
		t.entry[i] = int64((t.outBytes - bytes) / (t.logged - from))
		if t.local != nil {
			if _, ok := x.(pager); !ok {
				t.local.out = append(t.local.out, otherWrites{spec.ID, from, t.logged})
			}
		}
	}
	return nil
}

// loadState applies one changelog record.
func (t *Task) loadState(key, value []byte) error {
	if len(key) < 2 {
		return fault.Newf("MR-STR-005", "a changelog key has %d bytes", len(key))
	}
	id := binary.BigEndian.Uint16(key)
	x := t.byID[id]
	if x == nil {
		return fault.Newf("MR-STR-005", "the changelog has entries of store %d, which this version does not know", id)
	}
	if value == nil {
		if err := x.load(key[2:], nil); err != nil {
			return unreadable(err)
		}
		t.loaded(x, key[2:], nil)
		return nil
	}
	if len(value) == 0 || value[0] != x.store().Format {
		return fault.Newf("MR-STR-005", "store %s has entries of format %v, this version reads %d", x.store().Name, value[:min(1, len(value))], x.store().Format)
	}
	if err := x.load(key[2:], value[1:]); err != nil {
		return unreadable(err)
	}
	t.loaded(x, key[2:], value[1:])
	return nil
}

// unreadable says that state cannot be read, unless it is the local disk that cannot.
func unreadable(err error) error {
	if local := (localError{}); errors.As(err, &local) {
		return err
	}
	return fault.New("MR-STR-005", err)
}

// loaded: what a table that is no pager was given is to be part of the next snapshot.
func (t *Task) loaded(x table, key, value []byte) {
	if t.local != nil {
		if _, ok := x.(pager); !ok {
			t.local.remember(x.store().ID, key, value)
		}
	}
}

// writeLogs turns what was appended to logs in this transaction into records: uvarint length ‖ value, again and again.
func (t *Task) writeLogs() {
	for i := range t.logs {
		l := &t.logs[i]
		for vals := l.vals; len(vals) > 0; {
			n := 0
			for n < len(vals) {
				size, k := binary.Uvarint(vals[n:])
				if n > 0 && n+k+int(size) > maxLogRecord {
					break
				}
				n += k + int(size)
			}
			r := t.mem.record()
			r.Topic, r.Value = l.topic, t.Copy(vals[:n])
			r.Partition = t.part
			t.write(r)
			vals = vals[n:]
		}
	}
}

// loadLog gives the values of one log record to the operator.
func (t *Task) loadLog(log string, value []byte, written time.Time) error {
	for len(value) > 0 {
		n, k := binary.Uvarint(value)
		if k <= 0 || n > uint64(len(value)-k) {
			return fault.Newf("MR-STR-005", "a record of log %s is cut off", log)
		}
		if err := t.op.(LogRestorer).RestoreLog(log, value[k:k+int(n)], written); err != nil {
			return fault.Newf("MR-STR-006", "restoring log %s of task %d: %w", log, t.part, err)
		}
		value = value[k+int(n):]
	}
	return nil
}
