package cli

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/workers"
)

const streamMetricsText = `
# TYPE millrace_stream_lag_records gauge
millrace_stream_lag_records{topology="hot",stage="visitor",partition="10",topic="a"} 3
millrace_stream_lag_records{topology="hot",stage="visitor",partition="2",topic="a"} 40
millrace_stream_lag_records{topology="hot",stage="visitor",partition="2",topic="b"} 2
# TYPE millrace_stream_watermark_delay_seconds gauge
millrace_stream_watermark_delay_seconds{topology="hot",stage="visitor",partition="2"} 2.5
# TYPE millrace_stream_state_keys gauge
millrace_stream_state_keys{topology="hot",stage="visitor",partition="2",store="ledger"} 1000
millrace_stream_state_keys{topology="hot",stage="visitor",partition="2",store="kpi"} 24
# TYPE millrace_stream_state_bytes gauge
millrace_stream_state_bytes{topology="hot",stage="visitor",partition="2"} 2097152
# TYPE millrace_stream_state_disk_keys gauge
millrace_stream_state_disk_keys{topology="hot",stage="visitor",partition="2"} 7
# TYPE millrace_stream_task_commit_seconds gauge
millrace_stream_task_commit_seconds{topology="hot",stage="visitor",partition="2"} 0.0521
# TYPE millrace_stream_hot_key_share gauge
millrace_stream_hot_key_share{topology="hot",stage="visitor",partition="2"} 0.31
# TYPE millrace_stream_restored_share gauge
millrace_stream_restored_share{topology="hot",stage="visitor",partition="11"} 0.42
# TYPE millrace_gateway_requests_total counter
millrace_gateway_requests_total 5
`

func TestTheTableOfTasksIsWhatTheStreamRoleSays(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(streamMetricsText)) }))
	t.Cleanup(srv.Close)
	// the first role does not answer
	got := streamTasks(t.Context(), workers.Endpoints{Metrics: []string{"http://127.0.0.1:1/metrics", srv.URL}})
	delay := 2.5
	want := []taskStatus{
		{Topology: "hot", Stage: "visitor", Partition: 2, Lag: 42, WatermarkDelay: &delay, StateKeys: 1024, StateBytes: 2 << 20, DiskKeys: 7, Commit: 0.0521, HotKeyShare: 0.31, RestoredShare: 1},
		{Topology: "hot", Stage: "visitor", Partition: 10, Lag: 3, RestoredShare: 1},
		{Topology: "hot", Stage: "visitor", Partition: 11, Restoring: true, RestoredShare: 0.42},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("tasks (-want +got):\n%s", diff)
	}
	rows := taskRows(got)
	if diff := cmp.Diff([]string{"hot.visitor/2", "42", "2.5s", "1024", "2.0 MiB", "7", "52.1ms", "31 %", ""}, rows[1]); diff != "" {
		t.Errorf("first row (-want +got):\n%s", diff)
	}
	if rows[3][8] != "42 %" || rows[3][2] != "-" {
		t.Errorf("a task being restored: %q", rows[3])
	}
}
