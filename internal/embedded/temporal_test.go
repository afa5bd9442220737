package embedded_test

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
)

func TestTemporalKeepsWorkflowsThroughKillAndHasItsNamespaceAsPromised(t *testing.T) {
	t.Parallel()
	if built, err := embedded.TemporalBuilt(); err != nil {
		t.Fatal(err)
	} else if !built && os.Getenv("MILLRACE_TEST_TEMPORAL") == "" {
		t.Skip("the Temporal child is not built, which takes minutes: MILLRACE_TEST_TEMPORAL=1 builds it here")
	}
	dir := t.TempDir()
	// What a kill in the middle of the very first start leaves behind.
	if err := os.MkdirAll(filepath.Join(dir, "temporal"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "temporal", "temporal.db.new"), []byte("half a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServers(t, dir, "", embedded.TemporalChild)
	c := temporalClient(t, s)
	_, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "w", TaskQueue: "nobody"}, "Anything", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(t.Context(), embedded.TemporalChild); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitHealthy(t.Context(), embedded.TemporalChild); err != nil {
		t.Fatal(err)
	}
	c = temporalClient(t, s)
	w, err := c.DescribeWorkflowExecution(t.Context(), "w", "")
	if err != nil || w.GetWorkflowExecutionInfo().GetStatus() != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
		t.Errorf("after kill -9 the workflow is %v, %v", w.GetWorkflowExecutionInfo().GetStatus(), err)
	}
	ns, err := c.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: "default"})
	if got := ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(); err != nil || got != 30*24*time.Hour {
		t.Errorf("retention is %s, %v", got, err)
	}
	have, err := c.OperatorService().ListSearchAttributes(t.Context(), &operatorservice.ListSearchAttributesRequest{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]enums.IndexedValueType{
		"MillraceTable": enums.INDEXED_VALUE_TYPE_KEYWORD, "MillraceTrigger": enums.INDEXED_VALUE_TYPE_KEYWORD, "MillraceRows": enums.INDEXED_VALUE_TYPE_INT,
	} {
		if have.GetCustomAttributes()[name] != kind {
			t.Errorf("search attribute %s is %s", name, have.GetCustomAttributes()[name])
		}
	}
	if n := len(have.GetCustomAttributes()); n != 12 {
		t.Errorf("there are %d search attributes of ours, want 12", n)
	}
	http.DefaultClient.CloseIdleConnections()
}

func temporalClient(t *testing.T, s *embeddedtest.Servers) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: s.Endpoints().Temporal.Address, Logger: tlog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
