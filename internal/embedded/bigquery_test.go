package embedded_test

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"millrace/internal/embedded"
	"millrace/internal/embedded/install"
	"millrace/internal/fault"
)

func bigQueryCall(t *testing.T, method, url, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %s (%v)", method, url, resp.Status, text, err)
	}
	return string(text)
}

func TestTheBigQueryEmulatorKeepsItsTablesThroughKill(t *testing.T) {
	t.Parallel()
	if os.Getenv(embedded.NoBigQueryEnv) != "" {
		t.Skipf("%s is set: the BigQuery emulator is not tested", embedded.NoBigQueryEnv)
	}
	s := startServers(t, "", "", embedded.BigQueryChild)
	at := s.Endpoints().BigQuery
	queries := at.Endpoint + "/bigquery/v2/projects/" + at.Project + "/queries"
	bigQueryCall(t, http.MethodPost, queries, `{"query": "CREATE TABLE millrace.t AS SELECT 7 AS n", "useLegacySql": false}`)
	if err := s.Kill(t.Context(), embedded.BigQueryChild); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitHealthy(t.Context(), embedded.BigQueryChild); err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	if got := bigQueryCall(t, http.MethodPost, queries, `{"query": "SELECT SUM(n) FROM millrace.t", "useLegacySql": false}`); !strings.Contains(got, `"v":"7"`) {
		t.Errorf("after kill -9: %s", got)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestWithoutAPythonTheErrorSaysWhatToInstall(t *testing.T) {
	for _, name := range []string{"PATH", "HOME", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR"} {
		t.Setenv(name, t.TempDir())
	}
	c, err := install.New(t.TempDir(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.BigQuery(t.Context())
	if id, _ := fault.IDOf(err); id != "MR-EMB-013" || !strings.Contains(fault.Remedy(id), "3.13") {
		t.Errorf("got %v", err)
	}
}
