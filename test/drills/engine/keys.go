package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/streaming"
	"millrace/test/drills/drill"
	"millrace/test/drills/hotrun"
)

const (
	keysTopology = "keys"
	keysIn       = "keys.in"
	keysOut      = "keys.out"
	keysStore    = streaming.FirstStoreID
)

// topologies are those of this drill's workers.
var topologies = hotrun.Topologies{keysTopology: keysTop}

// keysTop counts the records of each key and says the count behind each record: whoever reads 1, 2, 3, … for a key has seen none lost and none twice.
func keysTop(s hotrun.Spec) (streaming.Topology, error) {
	return streaming.Topology{
		Name: keysTopology, Stage: "count", Inputs: []string{keysIn}, Partitions: s.Partitions,
		Stores: []streaming.StoreSpec{{ID: keysStore, Name: "counts", Format: 1}},
		New: func(t *streaming.Task) (streaming.Operator, error) {
			return &counter{t: t, counts: streaming.OpenStore(t, keysStore, streaming.Codec[tally](tallyCodec{}))}, nil
		},
	}, nil
}

// tally is a key's count and when it was counted last: as large as the state of a real operator's small key.
type tally struct{ n, at int64 }

type tallyCodec struct{}

// Append implements streaming.Codec.
func (tallyCodec) Append(b []byte, v tally) []byte {
	return binary.AppendVarint(binary.AppendVarint(b, v.n), v.at)
}

// Decode implements streaming.Codec.
func (tallyCodec) Decode(b []byte) (tally, error) {
	n, k := binary.Varint(b)
	if k <= 0 {
		return tally{}, errors.New("a tally is cut off")
	}
	at, m := binary.Varint(b[k:])
	if m <= 0 {
		return tally{}, errors.New("a tally is cut off")
	}
	return tally{n, at}, nil
}

type counter struct {
	t      *streaming.Task
	counts *streaming.Store[tally]
}

// Process implements streaming.Operator.
func (c *counter) Process(in int, r *kgo.Record) error {
	c.t.Observe(in, streaming.LaneLive, r.Timestamp.UnixMicro())
	v, _ := c.counts.GetBytes(r.Key)
	v.n, v.at = v.n+1, r.Timestamp.UnixMicro()
	c.counts.PutBytes(r.Key, v)
	if v.n == 1 && len(r.Value) == 0 {
		return nil // of the filling
	}
	out := c.t.Record()
	out.Topic, out.Key, out.Value = keysOut, c.t.Copy(r.Key), c.t.Keep(binary.AppendVarint(c.t.Buf(binary.MaxVarintLen64), v.n))
	c.t.Emit(out)
	return nil
}

// Timer implements streaming.Operator.
func (c *counter) Timer(streaming.Timer) error { return nil }

// Tick implements streaming.Operator.
func (c *counter) Tick(time.Time) error { return nil }

// BeforeCommit implements streaming.Operator.
func (c *counter) BeforeCommit() error { return nil }

// manyKeys fills a state that is many times larger than its bound, restores it in both ways, and lets a second worker take half of it over while records come.
func manyKeys(ctx context.Context, d *drill.Drill, o options, dir string) (err error) {
	b, err := hotrun.StartBroker(ctx, filepath.Join(dir, "servers"), o.broker)
	if err != nil {
		return err
	}
	defer b.Stop()
	spec := func(instance string) hotrun.Spec {
		s := o.spec(b.Addr, dir, instance)
		s.Topology, s.Engine.Group, s.Engine.TransactionalID = keysTopology, keysTopology, ""
		s.Engine.StateDir, s.Engine.StateBytes = filepath.Join(dir, "state"), int64(o.stateBytes)
		return s
	}
	top, err := keysTop(spec(""))
	if err != nil {
		return err
	}
	for _, name := range []string{keysIn, keysOut} {
		if err := b.Create(ctx, int32(o.partitions), nil, name); err != nil {
			return err
		}
	}
	if err := b.CreateState(ctx, top); err != nil {
		return err
	}
	fmt.Printf("%d keys in %d tasks, bound %s (%s)\n", o.keys, o.partitions, o.stateBytes.String(), o.broker)
	first, err := hotrun.Start(ctx, spec("stream-0"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, first.Stop()) }()
	began := time.Now()
	if err := fillKeys(ctx, b, o); err != nil {
		return err
	}
	if err := caughtUp(ctx, b, first, 20*time.Minute); err != nil {
		return err
	}
	took := time.Since(began)
	rss, peak := memory(first.PID())
	d.Check(true, "%d keys are counted in %s, %.0f a second; the worker's resident memory is %d MiB, its peak %d MiB", o.keys, round(took), float64(o.keys)/took.Seconds(), rss>>20, peak>>20)
	// A killed worker goes on from its local snapshot, and without one from the changelog.
	for _, local := range []bool{true, false} {
		if err := first.Kill(); err != nil {
			return fmt.Errorf("killing the worker: %w", err)
		}
		if !local {
			if err := os.RemoveAll(filepath.Join(dir, "state")); err != nil {
				return fmt.Errorf("removing the local state: %w", err)
			}
		}
		if first, err = hotrun.Start(ctx, spec("stream-0")); err != nil {
			return err
		}
		took, err := first.Ready(ctx, 20*time.Minute)
		if err != nil {
			return err
		}
		read, _ := first.Restored()
		from := "its local snapshot"
		if !local {
			from = "the changelog alone"
		}
		_, peak := memory(first.PID())
		d.Check(true, "after kill -9 the worker has its state again from %s in %s (%.0f records read, peak memory %d MiB)", from, round(took), read, peak>>20)
	}
	return takeOver(ctx, d, o, b, spec)
}

// takeOver lets a second worker join while records come.
func takeOver(ctx context.Context, d *drill.Drill, o options, b *hotrun.Broker, spec func(string) hotrun.Spec) (err error) {
	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var sent atomic.Int64
	loaded := make(chan error, 1)
	go func() { loaded <- loadKeys(loading, b.Addr, o, &sent) }()
	began := time.Now()
	second, err := hotrun.Start(ctx, spec("stream-1"))
	if err != nil {
		return errors.Join(err, func() error { stopLoad(); return <-loaded }())
	}
	defer func() { err = errors.Join(err, second.Stop()) }()
	if _, err = second.Committed(ctx, 20*time.Minute); err == nil {
		took := time.Since(began)
		parts, perr := owned(ctx, b, "stream-1")
		err = perr
		read, _ := second.Restored()
		d.Check(parts == o.partitions/2, "a second worker has %d of %d tasks %s after its start (%.0f records read)", parts, o.partitions, round(took), read)
	}
	if err == nil { // some load on both
		select {
		case <-time.After(3 * time.Second):
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	stopLoad()
	if err = errors.Join(err, <-loaded); err != nil {
		return err
	}
	if err := caughtUp(ctx, b, second, 5*time.Minute); err != nil {
		return err
	}
	counts := make([]uint16, o.keys) // 1 behind the filling
	var lost, twice, got int64
	err = b.ReadCommitted(ctx, []string{keysOut}, func(r *kgo.Record) error {
		k, err := strconv.ParseInt(strings.TrimPrefix(string(r.Key), "key-"), 10, 64)
		n, used := binary.Varint(r.Value)
		if err != nil || used <= 0 || k < 0 || k >= o.keys {
			return fmt.Errorf("record %.100q is none of this drill's", r.Key)
		}
		got++
		switch want := int64(counts[k]) + 2; {
		case n > want:
			lost += n - want
		case n < want:
			twice++
		}
		counts[k] = uint16(n - 1)
		return nil
	})
	if err != nil {
		return err
	}
	d.Check(sent.Load() > 0 && got == sent.Load() && lost == 0 && twice == 0, "of %d records under load %d are counted: %d lost, %d twice", sent.Load(), got, lost, twice)
	return nil
}

// owned is how many tasks a worker has.
func owned(ctx context.Context, b *hotrun.Broker, instance string) (int, error) {
	groups, err := b.Admin.DescribeGroups(ctx, keysTopology)
	if err == nil {
		err = groups.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("asking for the group's members: %w", err)
	}
	for _, m := range groups[keysTopology].Members {
		if a, ok := m.Assigned.AsConsumer(); ok && m.InstanceID != nil && *m.InstanceID == instance {
			n := 0
			for _, t := range a.Topics {
				n += len(t.Partitions)
			}
			return n, nil
		}
	}
	return 0, nil
}

func caughtUp(ctx context.Context, b *hotrun.Broker, w *hotrun.Proc, limit time.Duration) error {
	return hotrun.Eventually(ctx, "all records to be counted", limit, func() (bool, error) {
		select {
		case <-w.Ended():
			return false, fmt.Errorf("the worker has ended: %s", w.Said())
		default:
		}
		_, lag, err := b.Position(ctx, keysTopology, keysIn)
		return lag == 0, err
	})
}

func keyRecord(n int64, partitions int, value []byte) *kgo.Record {
	key := strconv.AppendInt([]byte("key-"), n, 10)
	return &kgo.Record{Topic: keysIn, Key: key, Partition: event.Partition(key, int32(partitions)), Value: value}
}

// fillKeys writes a record of each key.
func fillKeys(ctx context.Context, b *hotrun.Broker, o options) error {
	cl, err := hotrun.Writer(b.Addr)
	if err != nil {
		return err
	}
	defer cl.Close()
	var refused atomic.Pointer[error]
	for n := range o.keys {
		cl.Produce(ctx, keyRecord(n, o.partitions, nil), func(_ *kgo.Record, err error) {
			if err != nil {
				refused.Store(&err)
			}
		})
		if n%1_000_000 == 999_999 {
			fmt.Printf("     %d keys written\n", n+1)
		}
	}
	err = cl.Flush(ctx)
	if r := refused.Load(); r != nil {
		err = errors.Join(err, *r)
	}
	if err != nil {
		return fmt.Errorf("writing keys: %w", err)
	}
	return nil
}

// loadKeys writes records of keys from all over the state until ctx is done.
func loadKeys(ctx context.Context, brokers string, o options, sent *atomic.Int64) error {
	cl, err := hotrun.Writer(brokers)
	if err != nil {
		return err
	}
	defer cl.Close()
	var refused atomic.Pointer[error]
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	began, n := time.Now(), int64(0)
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case <-tick.C:
		}
		for ; n < int64(o.rate*time.Since(began).Seconds()); n++ {
			key := int64((uint64(n) * 0x9E3779B97F4A7C15) >> 1 % uint64(o.keys))
			cl.Produce(context.WithoutCancel(ctx), keyRecord(key, o.partitions, []byte{1}), func(_ *kgo.Record, err error) {
				if err != nil {
					refused.Store(&err)
				}
			})
		}
	}
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err = cl.Flush(flush)
	sent.Store(n)
	if r := refused.Load(); r != nil {
		err = errors.Join(err, *r)
	}
	return err
}

// memory is a process's resident memory now and at most so far.
func memory(pid int) (rss, peak int64) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, 0 // another system
	}
	for line := range strings.Lines(string(text)) {
		name, v, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64) // 0 of other lines
		switch name {
		case "VmRSS":
			rss = kib << 10
		case "VmHWM":
			peak = kib << 10
		}
	}
	return rss, peak
}

// size is a number of bytes as a flag.
type size int64

// String implements flag.Value.
func (s *size) String() string { return strconv.FormatInt(int64(*s)>>20, 10) + "MiB" }

// Set implements flag.Value.
func (s *size) Set(text string) error {
	n, err := strconv.ParseInt(strings.TrimSuffix(text, "MiB"), 10, 64)
	if err != nil || n < 1 || !strings.HasSuffix(text, "MiB") {
		return fmt.Errorf("%q is no size such as 512MiB", text)
	}
	*s = size(n << 20)
	return nil
}
