package streaming

import (
	"fmt"
	"testing"
	"time"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/internal/fault"
)

// TestOnApacheKafka runs the contract of the worker on a real broker, and then kills the broker.
func TestOnApacheKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a JVM: run without -short")
	}
	t.Parallel()
	s, err := embeddedtest.Start(t.Context(), "", embedded.BrokerApache, embedded.KafkaChild)
	if id, _ := fault.IDOf(err); id == "MR-EMB-003" {
		t.Skipf("no Java, so no Apache Kafka: %v", err)
	}
	must(t, err)
	t.Cleanup(s.Stop)
	brokers := []string{s.Endpoints().Kafka}
	t.Run("contract", func(t *testing.T) { runConformance(t, brokers, false) })
	t.Run("a broker that is killed loses and doubles nothing", func(t *testing.T) {
		b := newBed(t, brokers, "killed", 4, false)
		w := b.start("w0", nil)
		b.ready(w)
		n := 0
		for i := range 4 {
			b.feed(fmt.Sprintf("x%d", i), 300, 1_000_000_000+int64(i)*3_000_000)
			n += 1200
		}
		must(t, s.Kill(t.Context(), embedded.KafkaChild))
		must(t, s.WaitHealthy(t.Context(), embedded.KafkaChild))
		b.feed("y", 100, 1_012_000_000)
		n += 400
		eventually(t, time.Minute, func() string {
			if err := w.Ready(); err != nil {
				return err.Error()
			}
			return ""
		})
		b.count(n)
		b.stateIsOne(w)
	})
}
