package embedded

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"millrace/internal/embedded/install"
	"millrace/internal/embedded/supervisor"
)

// bigQueryProject is the project of the emulator, which takes any.
const bigQueryProject = "millrace"

// NoBigQueryEnv is set by who runs the tests where no Python for the emulator can be had, and knows that what needs it is then not tested.
const NoBigQueryEnv = "MILLRACE_NO_BIGQUERY_EMULATOR"

// BigQuery is where a BigQuery emulator is.
type BigQuery struct {
	Endpoint string // http://host:port
	GRPC     string // host:port of the Storage APIs
	Project  string
	Dataset  string
}

// bigQuery is a stand-in for BigQuery (local-bigquery: its API and SQL over DuckDB), with its tables in the data folder. Nothing waits for it.
func (p *Platform) bigQuery(ctx context.Context) (Child, error) {
	ports, err := p.folder.Ports.Range(ctx, "bigquery", "bigquery-grpc")
	if err != nil {
		return Child{}, err
	}
	at := BigQuery{Endpoint: "http://" + local(ports[0]), GRPC: local(ports[1]), Project: bigQueryProject, Dataset: databaseName}
	p.endpoints.BigQuery = at
	dir := filepath.Join(p.opts.DataDir, "bigquery")
	var program install.BigQuery
	return Child{
		Name:     BigQueryChild,
		Optional: true,
		Ports:    []string{"bigquery", "bigquery-grpc"},
		Prepare: func(ctx context.Context, note func(string)) (err error) {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("creating BigQuery's folder: %w", err)
			}
			program, err = p.installer(note).BigQuery(ctx)
			if err == nil {
				note("")
			}
			return err
		},
		Command: func(context.Context) (Command, error) {
			return Command{Path: program.Python, Env: program.Env, Dir: dir, Args: append(append([]string{}, program.Args...),
				"--host", "127.0.0.1", "--port", strconv.Itoa(ports[0]), "--grpc-port", strconv.Itoa(ports[1]), // its own default is every interface
				"--data-dir", dir, "--project", at.Project, "--dataset", at.Dataset)}, nil
		},
		Healthy: func(ctx context.Context) error {
			return supervisor.GetOK(ctx, at.Endpoint+"/bigquery/v2/projects/"+at.Project+"/datasets/"+at.Dataset)
		},
		HealthTimeout: 2 * time.Minute,
	}, nil
}
