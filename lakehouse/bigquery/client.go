package bigquery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	bq "cloud.google.com/go/bigquery"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"millrace/internal/fault"
	"millrace/lakehouse"
)

// callTimeout bounds one call, with the client's own retries of it.
const callTimeout = time.Minute

// Store is the dataset that the tables of a lake are loaded into. It is safe for concurrent use.
type Store struct {
	cfg    Config
	lake   *lakehouse.Catalog
	client *bq.Client
	log    *slog.Logger
	now    func() time.Time

	datasets sync.Map // that were found, by name

	web  *http.Transport // of an emulator
	wait time.Duration   // before a failed job is made again
	hook func(ctx context.Context, step, job string)
}

// Open connects; nothing is asked yet. Close it.
func Open(ctx context.Context, cfg Config, lake *lakehouse.Catalog, log *slog.Logger) (*Store, error) {
	if !cfg.Enabled() {
		return nil, fault.Newf(refusedID, "bigquery.project is not set")
	}
	if err := cfg.Validate(); err != nil {
		return nil, fault.New("MR-CFG-001", fmt.Errorf("bigquery: %w", err))
	}
	s := &Store{cfg: cfg, lake: lake, log: log, now: time.Now, wait: time.Second}
	var opts []option.ClientOption
	switch {
	case cfg.Endpoint != "":
		s.web = &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second}
		opts = append(opts, option.WithEndpoint(strings.TrimRight(cfg.Endpoint, "/")+"/bigquery/v2/"), option.WithHTTPClient(&http.Client{Transport: s.web}))
	case cfg.Credentials != "":
		kind, err := credentialsKind(cfg.Credentials)
		if err != nil {
			return nil, fault.New(refusedID, err)
		}
		opts = append(opts, option.WithAuthCredentialsFile(kind, cfg.Credentials))
	}
	var err error
	if s.client, err = bq.NewClient(ctx, cfg.Project, opts...); err != nil {
		return nil, fault.New(refusedID, fmt.Errorf("connecting to BigQuery: %w", err))
	}
	s.client.Location = cfg.Location
	return s, nil
}

// credentialsKind reads which kind of credentials a file holds. What else it says is never looked at here, nor shown.
func credentialsKind(path string) (option.CredentialsType, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("credentials of BigQuery: %w", err)
	}
	var f struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(b, &f); err != nil || f.Type == "" {
		return "", fmt.Errorf("credentials of BigQuery: %s is no JSON with a type", path)
	}
	return option.CredentialsType(f.Type), nil
}

// Config is what the store was opened with.
func (s *Store) Config() Config { return s.cfg }

// Close ends the connections.
func (s *Store) Close() error {
	err := s.client.Close()
	if s.web != nil {
		s.web.CloseIdleConnections()
	}
	return err
}

// name is a table in SQL.
func (s *Store) name(dataset, table string) string {
	return "`" + s.cfg.Project + "." + dataset + "." + table + "`"
}

func (s *Store) target(table string) *bq.Table { return s.client.Dataset(s.cfg.Dataset).Table(table) }

func (s *Store) work(table string) *bq.Table { return s.client.Dataset(s.cfg.Work()).Table(table) }

// call bounds a call.
func (s *Store) call(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return f(ctx)
}

// rows reads the small result of a query, after its dry run.
func (s *Store) rows(ctx context.Context, sql string) ([][]bq.Value, error) {
	if err := s.guard(ctx, sql); err != nil {
		return nil, err
	}
	return s.ask(ctx, sql)
}

// ask reads the small result of a query of which is known that it costs next to nothing.
func (s *Store) ask(ctx context.Context, sql string) ([][]bq.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.JobTimeout)
	defer cancel()
	q := s.client.Query(sql)
	q.MaxBytesBilled = s.cfg.MaxBytesBilled
	it, err := q.Read(ctx)
	if err != nil {
		return nil, err
	}
	var out [][]bq.Value
	for {
		var r []bq.Value
		err := it.Next(&r)
		if errors.Is(err, iterator.Done) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
}

// guard asks what statements would cost, each by a dry run, and refuses them if that is more than one job may.
func (s *Store) guard(ctx context.Context, statements ...string) error {
	var total int64
	for _, sql := range statements {
		err := s.call(ctx, func(ctx context.Context) error {
			q := s.client.Query(sql)
			q.DryRun = true
			job, err := q.Run(ctx)
			if err != nil {
				return err
			}
			if st := job.LastStatus(); st != nil && st.Statistics != nil {
				total += st.Statistics.TotalBytesProcessed
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("dry run: %w", err)
		}
	}
	if total > s.cfg.MaxBytesBilled {
		return fault.Newf(costID, "it would process %d bytes, bigquery.max_bytes_billed is %d", total, s.cfg.MaxBytesBilled)
	}
	return nil
}

// Exec runs a statement of an operator or a drill, after its dry run.
func (s *Store) Exec(ctx context.Context, sql string) error {
	_, err := s.rows(ctx, sql)
	return classify(err)
}
