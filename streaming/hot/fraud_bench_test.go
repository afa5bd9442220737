package hot

import (
	"testing"
	"time"

	"millrace/streaming"
)

// BenchmarkFraud is the topology with fraud detection and without it: the difference is what it costs, over the traffic of BenchmarkTopology (3 orders and 12 carts in a
// hundred events).
func BenchmarkFraud(b *testing.B) {
	codecs, err := testCodecs()
	if err != nil {
		b.Fatal(err)
	}
	for _, on := range []bool{false, true} {
		name := map[bool]string{false: "without", true: "with"}[on]
		b.Run(name, func(b *testing.B) {
			g := newTraffic(codecs)
			r := newRig(b, option{cfg: func(c *Config) { c.Fraud.Enabled = on }, eng: func(c *streaming.Config) { c.MergeWait = -1 }})
			var working time.Duration
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				for range batch {
					in, rec := g.next()
					r.h.Produce(in, rec)
					n++
				}
				start := cpu(b)
				b.StartTimer()
				r.feed()
				b.StopTimer()
				working += cpu(b) - start
				r.commit()
				b.StartTimer()
			}
			b.ReportMetric(float64(working.Nanoseconds())/float64(n), "cpu-ns/event")
		})
	}
}
