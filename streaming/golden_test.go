package streaming

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// TestTheFormatOfStateIsForEver holds store ids and every kind of changelog and log record, byte by byte: state in the field is read by
// later versions.
func TestTheFormatOfStateIsForEver(t *testing.T) {
	t.Parallel()
	h, err := NewHarness(Config{Generation: 3, MergeWait: 50 * time.Millisecond, Disorder: time.Second, IdleAfter: time.Second}, testTopology(4), 2, testEpoch)
	must(t, err)
	for in, topic := range h.top.Inputs { // ids as a broker would give them
		h.task.ids[topic] = topicID{0: 0xaa, 15: byte(in)}
	}
	h.task.meta.abort()
	must(t, h.task.checkMeta())
	at := testEpoch.UnixMicro()
	h.Produce(0, record("key", at+1_500_000, "first"))
	h.Produce(0, record("key", at+1_600_000, "second"))
	h.Produce(1, record("other", at+3_200_000, "third"))
	must(t, h.Feed())
	_, err = h.Commit() // entries with pending deltas
	must(t, err)
	h.Produce(0, record("key", at+9_000_000, "fourth"))
	must(t, h.Feed())
	must(t, h.Advance(3*time.Second)) // folds, idle decisions, closed windows, a timer
	_, err = h.Commit()
	must(t, err)
	h.Produce(1, record("other", at+40_000_000, "fifth"))
	must(t, h.Feed())
	must(t, h.Advance(2*time.Second)) // releases what is beyond lateness
	_, err = h.Commit()
	must(t, err)

	var b bytes.Buffer
	for _, s := range engineStores() {
		fmt.Fprintf(&b, "store %d %s format %d\n", s.ID, s.Name, s.Format)
	}
	fmt.Fprintf(&b, "topics %s", ChangelogTopic(h.top))
	for _, l := range h.top.Logs {
		fmt.Fprintf(&b, " %s", LogTopic(h.top, l.Name))
	}
	b.WriteByte('\n')
	for _, topic := range []string{ChangelogTopic(h.top), LogTopic(h.top, "ids")} {
		lines := []string{}
		for _, r := range h.Outputs(topic) { // within a commit the order of windows is a map's
			v := "deleted"
			if r.Value != nil {
				v = fmt.Sprintf("%x", r.Value)
			}
			lines = append(lines, fmt.Sprintf("%s +%s %x = %s\n", topic, r.Timestamp.Sub(testEpoch), r.Key, v))
		}
		slices.Sort(lines)
		for _, l := range lines {
			b.WriteString(l)
		}
	}
	path := filepath.Join("testdata", "state.golden")
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(path, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Fatalf("the format of state has changed (-golden +now); state in the field would not be read:\n%s", diff)
	}
}
