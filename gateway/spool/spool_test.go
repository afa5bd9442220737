package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, cfg Config) *Spool {
	t.Helper()
	s, _ := openWith(t, cfg)
	return s
}

func openWith(t testing.TB, cfg Config) (*Spool, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	s, err := Open(cfg, reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, reg
}

// metric is a metric's value.
func metric(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func config(t testing.TB) Config {
	c := DefaultConfig()
	c.Dir = filepath.Join(t.TempDir(), "spool")
	c.SegmentBytes, c.MaxBytes = 4<<10, 1<<20
	return c
}

func rec(partition int32, value string) Record {
	return Record{Topic: "raw.page", Partition: partition, Key: []byte("k"), Value: []byte(value), Headers: []Header{{Key: "ca", Value: []byte("page")}, {Key: "x"}}}
}

// sink collects what is delivered.
type sink struct {
	mu   sync.Mutex
	got  []Record
	fail error
	late bool // fail only when waited for
}

func (k *sink) deliver(_ context.Context, recs []Record) (func() ([]int, error), error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		if !k.late {
			return nil, k.fail
		}
		return func() ([]int, error) { return nil, k.fail }, nil
	}
	var refused []int
	for i, r := range recs {
		if strings.HasPrefix(string(r.Value), "poison") {
			refused = append(refused, i)
			continue
		}
		k.got = append(k.got, r)
	}
	return func() ([]int, error) { return refused, nil }, nil
}

func (k *sink) values() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := []string{}
	for _, r := range k.got {
		out = append(out, fmt.Sprintf("%d:%s", r.Partition, r.Value))
	}
	return out
}

func waits(s *Spool, topic string, partition int32) (yes bool) {
	s.Enter(func(w func(string, int32) bool) bool {
		yes = w(topic, partition)
		return false
	})()
	return yes
}

// drain runs the spool until it is empty.
func drain(t testing.TB, s *Spool, k *sink) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !s.Status().Empty() {
		if ctx.Err() != nil {
			t.Fatalf("not empty: %+v", s.Status())
		}
		if _, failed := s.drainOnce(ctx, k.deliver); failed {
			t.Fatal("delivery failed")
		}
	}
}

func TestRecordsComeBackAsTheyWereAndInOrder(t *testing.T) {
	s := open(t, config(t))
	var want []string
	for i := range 300 { // several segments
		r := rec(int32(i%3), fmt.Sprintf("%d-%s", i, strings.Repeat("x", i%90)))
		if err := s.Append([]Record{r}, 1); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%d:%s", r.Partition, r.Value))
	}
	if !waits(s, "raw.page", 2) || waits(s, "raw.page", 3) || waits(s, "raw.cart", 2) {
		t.Error("backlog of the wrong partitions")
	}
	k := &sink{}
	drain(t, s, k)
	if diff := cmp.Diff(want, k.values()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	first := k.got[0]
	if first.Topic != "raw.page" || string(first.Key) != "k" || len(first.Headers) != 2 || string(first.Headers[0].Value) != "page" || first.SpooledAt.IsZero() {
		t.Errorf("record %+v", first)
	}
	if waits(s, "raw.page", 0) || s.Status().Bytes != 0 {
		t.Errorf("not empty: %+v", s.Status())
	}
	ns, err := s.own.segments()
	if err != nil || len(ns) > 1 {
		t.Errorf("segments left: %v %v", ns, err)
	}
}

func TestAnyMixOfAppendsDrainsAndRestartsKeepsEveryRecordInOrder(t *testing.T) {
	parent := t.TempDir()
	var runs atomic.Int64
	rapid.Check(t, func(rt *rapid.T) {
		cfg := DefaultConfig()
		cfg.Dir = filepath.Join(parent, strconv.Itoa(int(runs.Add(1)))) // a folder a case: t.TempDir would grow a list of clean-ups
		if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
			rt.Fatal(err)
		}
		cfg.SegmentBytes, cfg.MaxBytes = 1<<10, 1<<30
		k := &sink{}
		var want []string
		var s *Spool
		start := func() {
			var err error
			if s, err = Open(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler)); err != nil {
				rt.Fatal(err)
			}
		}
		start()
		n := 0
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				var recs []Record
				for range rapid.IntRange(1, 20).Draw(rt, "records") {
					r := rec(0, fmt.Sprintf("%06d%s", n, strings.Repeat("y", n%200)))
					n++
					recs = append(recs, r)
					want = append(want, fmt.Sprintf("0:%s", r.Value))
				}
				if err := s.Append(recs, 1); err != nil {
					rt.Fatal(err)
				}
			},
			"drain": func(*rapid.T) { s.drainOnce(t.Context(), k.deliver) },
			"refuse": func(rt *rapid.T) {
				k.fail, k.late = errors.New("away"), rapid.Bool().Draw(rt, "late")
				s.drainOnce(t.Context(), k.deliver)
				k.fail = nil
			},
			"restart": func(rt *rapid.T) {
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				start()
				// What was adopted is older than what comes now.
				for s.Status().Adopted > 0 {
					if _, failed := s.drainOnce(t.Context(), k.deliver); failed {
						rt.Fatal("failed")
					}
				}
			},
		})
		for !s.Status().Empty() {
			s.drainOnce(t.Context(), k.deliver)
		}
		if err := s.Close(); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, append([]string{}, k.values()...)); diff != "" && len(want) > 0 {
			rt.Fatalf("-want +got\n%s", diff)
		}
		left, err := os.ReadDir(cfg.Dir)
		if err != nil || len(left) > 0 {
			rt.Fatalf("left: %v %v", left, err)
		}
	})
}

// left writes values and gives up the spool with its lock, as an ended process does. It gives the segment's path.
func left(t *testing.T, cfg Config, values ...string) string {
	t.Helper()
	s, err := Open(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		if err := s.Append([]Record{rec(0, v)}, 1); err != nil {
			t.Fatal(err)
		}
	}
	path := s.own.segment(1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDamageCostsOnlyWhatItTouched(t *testing.T) {
	size := len(appendFrame(nil, ptr(rec(0, "aaaa")), time.Now()))
	for name, c := range map[string]struct {
		damage  func(b []byte) []byte
		want    []string
		damaged bool
	}{
		"a torn tail":              {func(b []byte) []byte { return b[:len(b)-3] }, []string{"0:aaaa", "0:bbbb", "0:cccc"}, false},
		"a torn frame header":      {func(b []byte) []byte { return b[:3*size+5] }, []string{"0:aaaa", "0:bbbb", "0:cccc"}, false},
		"a flipped bit in a value": {func(b []byte) []byte { b[size+size-20] ^= 1; return b }, []string{"0:aaaa", "0:cccc", "0:dddd"}, true},
		"a flipped bit in a magic": {func(b []byte) []byte { b[size] ^= 1; return b }, []string{"0:aaaa", "0:cccc", "0:dddd"}, true},
		"a wild length":            {func(b []byte) []byte { b[size+6] = 0x7f; return b }, []string{"0:aaaa", "0:cccc", "0:dddd"}, true},
		"a length a little long":   {func(b []byte) []byte { b[size+5] = 0x7f; return b }, []string{"0:aaaa", "0:cccc", "0:dddd"}, true},
		"rubbish in front":         {func(b []byte) []byte { return append([]byte("rubbish"), b...) }, []string{"0:aaaa", "0:bbbb", "0:cccc", "0:dddd"}, true},
		"zeros behind":             {func(b []byte) []byte { return append(b, make([]byte, 5000)...) }, []string{"0:aaaa", "0:bbbb", "0:cccc", "0:dddd"}, true},
		"nothing":                  {func([]byte) []byte { return nil }, []string{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			path := left(t, cfg, "aaaa", "bbbb", "cccc", "dddd")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, c.damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			s, reg := openWith(t, cfg)
			k := &sink{}
			drain(t, s, k)
			if diff := cmp.Diff(c.want, k.values()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if got := metric(t, reg, "millrace_gateway_spool_damaged_bytes_total") > 0; got != c.damaged {
				t.Errorf("reported as damaged: %v", got)
			}
			if st := s.Status(); st.Bytes != 0 {
				t.Errorf("%d bytes counted after draining", st.Bytes)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestAFailedFsyncAcknowledgesNothingAndTheNextOneStartsAnew(t *testing.T) {
	s := open(t, config(t))
	if err := s.Append([]Record{rec(0, "a")}, 1); err != nil {
		t.Fatal(err)
	}
	fails := true
	s.sync = func(f *os.File) error {
		if fails {
			return errors.New("disk on fire")
		}
		return f.Sync()
	}
	if err := s.Append([]Record{rec(1, "lost")}, 1); err == nil || errors.Is(err, ErrFull) {
		t.Fatalf("got %v", err)
	}
	if waits(s, "raw.page", 1) {
		t.Error("an append that failed still blocks its partition")
	}
	fails = false
	if err := s.Append([]Record{rec(0, "b")}, 1); err != nil {
		t.Fatal(err)
	}
	k := &sink{}
	drain(t, s, k)
	if diff := cmp.Diff([]string{"0:a", "0:b"}, k.values()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestTheSpoolIsBoundedAndKeepsRoomForWhatMattersMore(t *testing.T) {
	cfg := config(t)
	cfg.MaxBytes, cfg.SegmentBytes = 10_000, 1024
	s := open(t, cfg)
	fill := func(share float64) int {
		n := 0
		for {
			err := s.Append([]Record{rec(0, strings.Repeat("x", 100))}, share)
			if errors.Is(err, ErrFull) {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	pages, all := fill(0.8), fill(1)
	if pages == 0 || all == 0 {
		t.Errorf("%d with a share, %d more without", pages, all)
	}
	if st := s.Status(); st.Bytes > cfg.MaxBytes {
		t.Errorf("%d bytes", st.Bytes)
	}
	k := &sink{}
	drain(t, s, k)
	if len(k.got) != pages+all {
		t.Errorf("%d records drained, want %d", len(k.got), pages+all)
	}
	if err := s.Append([]Record{rec(0, "again")}, 0.8); err != nil {
		t.Errorf("a drained spool refuses: %v", err)
	}
}

func TestALockedFolderIsLeftAlone(t *testing.T) {
	cfg := config(t)
	a := open(t, cfg)
	if err := a.Append([]Record{rec(0, "a")}, 1); err != nil {
		t.Fatal(err)
	}
	b := open(t, cfg)
	if n := b.Status().Adopted; n != 0 {
		t.Errorf("%d folders adopted from a living process", n)
	}
	k := &sink{}
	drain(t, a, k)
	if len(k.got) != 1 {
		t.Errorf("%d records", len(k.got))
	}
}

func TestARefusedRecordIsPutAsideAndTheOthersGoOn(t *testing.T) {
	cfg := config(t)
	s := open(t, cfg)
	if err := s.Append([]Record{rec(0, "a"), rec(0, "poison"), rec(0, "b")}, 1); err != nil {
		t.Fatal(err)
	}
	k := &sink{}
	drain(t, s, k)
	if diff := cmp.Diff([]string{"0:a", "0:b"}, k.values()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	files, err := filepath.Glob(filepath.Join(cfg.Dir, asideName, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if r, _, state := readFrame(b); state != whole || string(r.Value) != "poison" {
		t.Errorf("aside: %+v", r)
	}
}

func TestConcurrentAppendsAndARunningDrainerLoseNothing(t *testing.T) {
	s := open(t, config(t))
	s.cfg.MaxBytes = 1 << 30
	k := &sink{}
	ctx, cancel := context.WithCancel(t.Context())
	var run, writers sync.WaitGroup
	run.Go(func() {
		if err := s.Run(ctx, k.deliver); err != nil {
			t.Error(err)
		}
	})
	const each, of = 50, 8
	for p := range of {
		writers.Go(func() {
			for i := range each {
				if err := s.Append([]Record{rec(int32(p), fmt.Sprintf("%04d", i))}, 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	deadline := time.Now().Add(20 * time.Second)
	for !s.Status().Empty() && time.Now().Before(deadline) {
		s.wake()
	}
	cancel()
	run.Wait()
	last := map[int32]string{}
	for _, r := range k.got {
		if string(r.Value) <= last[r.Partition] {
			t.Fatalf("partition %d: %s after %s", r.Partition, r.Value, last[r.Partition])
		}
		last[r.Partition] = string(r.Value)
	}
	if len(k.got) != each*of {
		t.Errorf("%d records, want %d", len(k.got), each*of)
	}
}

// Callers that append only while something waits, as the gateway does, let the spool become empty however fast they are, and stay in order.
func TestSteadyLoadDoesNotKeepTheSpoolFromBecomingEmpty(t *testing.T) {
	s := open(t, config(t))
	s.cfg.MaxBytes = 1 << 30
	k := &sink{fail: errors.New("away")}
	ctx, cancel := context.WithCancel(t.Context())
	var run, writers sync.WaitGroup
	run.Go(func() {
		if err := s.Run(ctx, k.deliver); err != nil {
			t.Error(err)
		}
	})
	var direct atomic.Int64
	stop := make(chan struct{})
	for p := range 4 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				r := rec(int32(p), fmt.Sprintf("%08d", i))
				spool := false
				leave := s.Enter(func(waits func(string, int32) bool) bool {
					k.mu.Lock()
					defer k.mu.Unlock()
					if spool = k.fail != nil || waits(r.Topic, r.Partition); !spool {
						k.got = append(k.got, r)
						direct.Add(1)
					}
					return spool
				})
				if spool {
					if err := s.Append([]Record{r}, 1); err != nil {
						t.Error(err)
					}
				}
				leave()
			}
		})
	}
	wait := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("waited for %s: %+v", what, s.Status())
			}
		}
	}
	wait("a backlog", func() bool { return s.Status().Records > 100 })
	k.mu.Lock()
	k.fail = nil
	k.mu.Unlock()
	wait("records past the spool", func() bool { return direct.Load() > 1000 })
	close(stop)
	writers.Wait()
	wait("the end", func() bool { return s.Status().Empty() })
	cancel()
	run.Wait()
	last := map[int32]string{}
	for _, r := range k.got {
		if string(r.Value) <= last[r.Partition] {
			t.Fatalf("partition %d: %s after %s", r.Partition, r.Value, last[r.Partition])
		}
		last[r.Partition] = string(r.Value)
	}
}

func TestConfigReportsEveryProblem(t *testing.T) {
	err := Config{}.Validate()
	for _, want := range []string{"dir:", "segment_bytes:", "max_age:", "adopt_every:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %s", err, want)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(appendFrame(nil, ptr(rec(3, "v")), time.Now()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, n, state := readFrame(b); state == whole {
			again, _, _ := readFrame(appendFrame(nil, &r, r.SpooledAt))
			if diff := cmp.Diff(r, again); diff != "" || n > len(b) {
				t.Fatal(diff)
			}
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	cfg := DefaultConfig()
	cfg.Dir = b.TempDir()
	s := open(b, cfg)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := []Record{rec(0, strings.Repeat("x", 400))}
		for pb.Next() {
			if err := s.Append(r, 1); err != nil && !errors.Is(err, ErrFull) {
				b.Fatal(err)
			}
		}
	})
}
