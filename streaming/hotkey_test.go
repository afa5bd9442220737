package streaming

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestAHotKeyIsFoundWithItsShare(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		share float64 // of one key; the others are evenly spread over 100,000
		every int     // records between two of the hot key, where they come in a rhythm
	}{
		{"no key is hot", 0, 0},
		{"a tenth", 0.1, 0},
		{"a fifth", 0.2, 0},
		{"a visitor that is 30 % of the partition", 0.3, 0},
		{"a third", 0.33, 0},
		{"nearly all", 0.95, 0},
		{"in a rhythm that divides the sampling's", 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(1, 2))
			var h hotKeys
			h.read(testEpoch)
			n := 200_000
			want := 0.0
			for i := range n {
				key := fmt.Appendf(nil, "visitor-%d", rnd.IntN(100_000))
				if rnd.Float64() < c.share || c.every > 0 && i%c.every == 0 {
					key = []byte("the hot one")
					want += 1 / float64(n)
				}
				h.note(key)
			}
			got, news := h.read(testEpoch.Add(hotWindow))
			if got.Share < want-0.05 || got.Share > want+0.03 {
				t.Errorf("share %.3f, want %.3f", got.Share, want)
			}
			if news != (want >= HotKeyShare) {
				t.Errorf("told as news: %v at a share of %.3f", news, want)
			}
			again, news := h.read(testEpoch.Add(hotWindow + time.Second))
			if again != got || news {
				t.Errorf("within the next window it is %v (news %v), want %v", again, news, got)
			}
		})
	}
}

func TestAFewRecordsMakeNoKeyHot(t *testing.T) {
	t.Parallel()
	var h hotKeys
	h.read(testEpoch)
	for range 1000 {
		h.note([]byte("only"))
	}
	if k, news := h.read(testEpoch.Add(hotWindow)); k.Share != 0 || news {
		t.Errorf("a window of few samples is not over: %v, %v", k, news)
	}
	for range 100 * hotSamples {
		h.note([]byte("only"))
	}
	if k, news := h.read(testEpoch.Add(2 * hotWindow)); k.Share < 0.99 || !news {
		t.Errorf("now it is hot: %v, %v", k, news)
	}
	if k, news := h.read(testEpoch.Add(9 * hotWindow)); k.Share != 0 || news {
		t.Errorf("a minute without records: %v, %v", k, news)
	}
}

// TestAWorkerTellsOfAHotKey: one visitor is 30 % of one partition, for longer than a window.
func TestAWorkerTellsOfAHotKey(t *testing.T) {
	t.Parallel()
	b := newBed(t, kfakeBrokers(t), "hotkey", 2, true)
	w := b.start("w0", func(_ *Config, top *Topology, _ *Worker) { *top = visitorsTopology(b) })
	b.ready(w)
	eventually(t, patience, func() string {
		for i := range 10_000 {
			for p := range b.parts {
				key := fmt.Appendf(nil, "v%d", i)
				if p == 1 && i%10 < 3 {
					key = []byte("bot")
				}
				b.cl.Produce(t.Context(), &kgo.Record{Topic: b.prefix + "in.a", Partition: p, Key: key, Value: []byte("x")}, nil)
			}
		}
		must(t, b.cl.Flush(t.Context()))
		if share, _ := w.metric(t, "hot_key_share"); share < HotKeyShare || share > 0.35 {
			return fmt.Sprintf("the shares of the hottest keys add up to %.2f, want 0.3", share)
		}
		return ""
	})
	for _, s := range w.Status() {
		if hot := s.HotKeyShare >= HotKeyShare; hot != (s.Partition == 1) {
			t.Errorf("partition %d has a hot key of %.2f", s.Partition, s.HotKeyShare)
		}
	}
}

func BenchmarkHotKeys(b *testing.B) {
	recs := benchRecords(100_000)
	var h hotKeys
	b.ReportAllocs()
	for i := range b.N {
		h.note(recs[i%len(recs)].Key)
	}
}
