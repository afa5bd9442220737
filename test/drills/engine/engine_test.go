package main

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"millrace/internal/embedded"
	"millrace/streaming"
	"millrace/test/drills/drill"
	"millrace/test/drills/hotrun"
)

func TestMain(m *testing.M) {
	embedded.MaybeChild()
	hotrun.MaybeChild(topologies)
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		_, _ = os.Stderr.WriteString(err.Error() + "\n") // the exit code tells as well
		code = 1
	}
	os.Exit(code)
}

func TestAKilledWorkerFindsWhatOneThatIsLetAloneFinds(t *testing.T) {
	for _, protocol := range []string{streaming.ProtocolClassic, streaming.ProtocolConsumer} {
		t.Run(protocol, func(t *testing.T) {
			// Three of the broker's session timeouts of KIP-848 (45 s) would be beyond the limit.
			o := options{broker: embedded.BrokerKfake, kills: 3, rate: 300, atLeast: 3000, seed: 7, protocol: protocol, partitions: 2, local: protocol == streaming.ProtocolClassic, limit: 2 * time.Minute}
			d := &drill.Drill{}
			if err := kills(t.Context(), d, o, t.TempDir()); err != nil {
				t.Fatal(err)
			}
			if passed, failed := d.Result(); failed > 0 || passed < 6 {
				t.Errorf("%d passed, %d failed", passed, failed)
			}
		})
	}
}

func TestAStateAboveItsBoundIsRestoredAndTakenOverWithoutLoss(t *testing.T) {
	o := options{broker: embedded.BrokerKfake, rate: 500, seed: 7, protocol: streaming.ProtocolClassic, partitions: 4, keys: 50_000, stateBytes: 1 << 20}
	d := &drill.Drill{}
	if err := manyKeys(t.Context(), d, o, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if passed, failed := d.Result(); failed > 0 || passed < 5 {
		t.Errorf("%d passed, %d failed", passed, failed)
	}
}
