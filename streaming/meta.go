package streaming

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"millrace/internal/fault"
)

// Keys of the meta store. What they say of the topology the state belongs to must be true of the one that uses it.
const (
	metaPartitions = "partitions"
	metaGeneration = "generation"
	metaInput      = "input/"  // + topic: the topic's id
	metaBarrier    = "barrier" // written by whoever restores, to know where the end is
)

type topicID = [16]byte

// ready ends a restore: indexes are built, what the state says of itself is checked, the operator is told.
func (t *Task) ready(ids map[string]topicID, now time.Time) (err error) {
	defer func() {
		if p := recover(); p != nil {
			local, ok := p.(localError)
			if !ok {
				panic(p)
			}
			err = local
		}
	}()
	t.clock = now
	t.water.restored(now)
	t.down.aborted()
	if err := t.timers.restored(); err != nil {
		return err
	}
	for _, w := range t.windows {
		w.restored()
	}
	t.ids = ids
	if err := t.checkMeta(); err != nil {
		return err
	}
	if r, ok := t.op.(Restored); ok {
		return t.call("after the restore", r.Restored)
	}
	return nil
}

// checkMeta compares what the state says of itself, and writes what it does not say yet.
func (t *Task) checkMeta() error {
	if how, ok := t.meta.Get(metaGrow); ok && (len(how) != 1 || how[0] != growDone) {
		return fault.Newf("MR-STR-022", "the state of task %d in %s is being moved here from another generation", t.part, t.changelog)
	}
	var errs []error
	number := func(key string, want uint32, what string) {
		have, ok := t.meta.Get(key)
		if !ok {
			t.meta.Put(key, binary.BigEndian.AppendUint32(nil, want))
		} else if len(have) != 4 || binary.BigEndian.Uint32(have) != want {
			errs = append(errs, fault.Newf("MR-STR-002", "the state of %s was written with %s %d, now it is %d", t.changelog, what, number32(have), want))
		}
	}
	number(metaPartitions, uint32(t.top.Partitions), "partition count")
	number(metaGeneration, t.cfg.Generation, "topic generation")
	for topic, id := range t.ids {
		key := metaInput + topic
		have, ok := t.meta.Get(key)
		if !ok {
			t.meta.Put(key, id[:])
		} else if !bytes.Equal(have, id[:]) {
			errs = append(errs, fault.Newf("MR-STR-003", "topic %s has id %s, the state of task %d was made from the topic with id %s", topic, hex.EncodeToString(id[:]), t.part, hex.EncodeToString(have)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("checking the state of task %d: %w", t.part, err)
	}
	return nil
}

func number32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
