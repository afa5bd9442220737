package streaming

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// stamping copies the time of its input to its output, as an operator might.
type stamping struct{ t *Task }

func (o stamping) Process(_ int, r *kgo.Record) error {
	out := o.t.Record()
	out.Topic, out.Timestamp = "out", r.Timestamp
	o.t.Emit(out)
	return nil
}
func (stamping) Timer(Timer) error    { return nil }
func (stamping) Tick(time.Time) error { return nil }
func (stamping) BeforeCommit() error  { return nil }

// What is read again after a stop is older than the client's delivery timeout, which goes by the record's own time: stamped so, it could never be produced.
func TestOutputsAreStampedWithTheProcessingTime(t *testing.T) {
	top := Topology{Name: "test", Stage: "one", Inputs: []string{"in"}, Partitions: 1, New: func(t *Task) (Operator, error) { return stamping{t}, nil }}
	h, err := NewHarness(Config{Group: "g", InstanceID: "i"}, top, 0, testEpoch)
	if err != nil {
		t.Fatal(err)
	}
	h.Produce(0, &kgo.Record{Topic: "in", Timestamp: testEpoch.Add(-48 * time.Hour)})
	if err := h.Feed(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Commit(); err != nil {
		t.Fatal(err)
	}
	out := h.Outputs("out")
	if len(out) != 1 || out[0].Timestamp.Before(testEpoch) {
		t.Fatalf("outputs %v, want one at or after %s", out, testEpoch)
	}
}
