package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"millrace/activities"
	"millrace/event"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/test/drills/drill"
	"millrace/workflows"
	"millrace/workflows/name"
)

// erasure makes the activities.
func (p *platform) erasure() (*activities.Erase, *activities.ErasedLedger, error) {
	cfg := activities.DefaultErasureConfig()
	cfg.Dir = filepath.Join(p.dir, "erasure")
	key, err := activities.LoadSubjectKey(cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	ledger := activities.NewErasedLedger(p.conn, key)
	e := activities.NewErase(cfg, activities.EraseParts{
		Rows: olap.NewEraser(p.conn, ""), Ledger: ledger, Log: ends{activities.NewEraseTopic(p.cl, p.codecs), p.cut()}, Lake: p.cat, Redis: p.rdb,
	}, prometheus.NewRegistry())
	return e, ledger, nil
}

// erase puts the subjects there and runs the workflow, activities and all, on a virtual clock.
func (p *platform) erase(ctx context.Context, d *drill.Drill) error {
	e, _, err := p.erasure()
	if err != nil {
		return err
	}
	var subjects []event.Subject
	for n := range p.o.subjects {
		subjects = append(subjects, event.Subject{Tenant: "default", Kind: event.SubjectVisitor, ID: subject(n)})
	}
	if err := olap.NewEraser(p.conn, "").PutSubjects(ctx, p.request, subjects, time.Now().UTC()); err != nil {
		return err
	}
	var s testsuite.WorkflowTestSuite
	s.SetLogger(tlog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := s.NewTestWorkflowEnvironment()
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: 10 * time.Minute, BackgroundActivityContext: ctx})
	env.SetTestTimeout(3 * time.Hour)
	env.SetStartTime(time.Now())
	workflows.Register(env)
	activities.NewRuns(p.conn, p.cat, "").Register(env)
	took := map[string]time.Duration{}
	e.RegisterHeavy(env)
	e.Register(except{env, name.EraseCertify})
	env.RegisterActivityWithOptions(func(ctx context.Context, in activities.CertifyInput) (activities.CertifyOutput, error) {
		out, err := e.Certify(ctx, in)
		if err == nil && in.Phase == name.PhaseLogical {
			err = p.unfindable(ctx, d)
		}
		return out, err
	}, activity.RegisterOptions{Name: name.EraseCertify})
	env.RegisterActivityWithOptions(p.publish, activity.RegisterOptions{Name: name.StartAndWait})
	began := time.Now()
	last := began
	env.SetOnActivityStartedListener(func(*activity.Info, context.Context, converterValues) { last = time.Now() })
	env.SetOnActivityCompletedListener(func(info *activity.Info, _ converterValue, _ error) {
		took[info.ActivityType.Name] += time.Since(last)
	})
	env.ExecuteWorkflow(name.EraseSubject, name.EraseSubjectInput{Request: p.request, Subjects: int64(p.o.subjects)})
	if !env.IsWorkflowCompleted() {
		return errors.New("the workflow has not ended")
	}
	if err := env.GetWorkflowError(); err != nil {
		return err
	}
	var r name.EraseResult
	if err := env.GetWorkflowResult(&r); err != nil {
		return err
	}
	var parts []string
	for n, t := range took {
		if t > 100*time.Millisecond {
			parts = append(parts, fmt.Sprintf("%s %s", n, t.Round(100*time.Millisecond)))
		}
	}
	sort.Strings(parts)
	fmt.Printf("the workflow took %s, of its own time %s: %s\n", time.Since(began).Round(time.Second), env.Now().Sub(began).Round(time.Hour), strings.Join(parts, ", "))
	d.Check(r.Rows > 0 && r.Files > 0, "the workflow erased %d rows in all stores and rewrote %d files, in %d rounds", r.Rows, r.Files, r.Rounds)
	found, err := p.scan(ctx, "files")
	if err != nil {
		return err
	}
	d.Check(total(found) == 0, "after the date: DuckDB finds %d rows of the subjects in all files on disk", total(found))
	return nil
}

// publish stands for PublishTable: no gate is shut.
func (p *platform) publish(ctx context.Context, r activities.StartRequest) (activities.WaitOutput, error) {
	var in struct {
		Table string `json:"table"`
	}
	if err := json.Unmarshal(r.Input, &in); err != nil {
		return activities.WaitOutput{}, err
	}
	at, err := p.cat.Ref(ctx, in.Table, lakehouse.RefPublished)
	if err != nil {
		return activities.WaitOutput{}, err
	}
	head, err := p.cat.Head(ctx, in.Table)
	if err != nil {
		return activities.WaitOutput{}, err
	}
	return activities.WaitOutput{Result: json.RawMessage("{}")}, p.cat.MoveRef(ctx, in.Table, lakehouse.RefPublished, at.SnapshotID, head.SnapshotID)
}

// unfindable is what holds in the logical state.
func (p *platform) unfindable(ctx context.Context, d *drill.Drill) error {
	found, err := p.scan(ctx, "refs")
	if err != nil {
		return err
	}
	d.Check(total(found) == 0, "logical: DuckDB finds %d rows of the subjects in %d refs", total(found), refs(found))
	onDisk, err := p.scan(ctx, "files")
	if err != nil {
		return err
	}
	d.Check(total(onDisk) > 0, "logical: the files of snapshots from before still have %d, until their date", total(onDisk))
	n, err := p.clickhouse(ctx, "SELECT count() FROM events WHERE visitor_id IN (SELECT line FROM input)")
	if err != nil {
		return err
	}
	d.Check(n == 0, "logical: ClickHouse has %d rows of the subjects", n)
	keys, err := p.rdb.Keys(ctx, "r1:*").Result()
	if err != nil {
		return err
	}
	of := 0
	for _, k := range keys {
		if p.isSubject(strings.TrimSuffix(strings.TrimPrefix(k, "r1:{default|"), "}")) {
			of++
		}
	}
	d.Check(of == 0 && len(keys) > 0, "logical: of %d keys in Redis %d name a subject", len(keys), of)
	p.others(ctx, d, "logical")
	return nil
}

// clickhouse counts by the subjects' file: ids are in no statement.
func (p *platform) clickhouse(ctx context.Context, sql string) (int64, error) {
	var n uint64
	max := 2 * p.o.subjects
	sql = strings.ReplaceAll(sql, "(SELECT line FROM input)", fmt.Sprintf("(SELECT 'v' || leftPad(toString(2 * number), 8, '0') FROM numbers(%d))", max/2))
	err := p.conn.QueryRow(ctx, sql).Scan(&n)
	return int64(n), err
}

// expect notes how many rows of others there are.
func (p *platform) expect(ctx context.Context, d *drill.Drill) {
	for _, c := range []event.Category{event.Page, event.Cart, event.Purchase} {
		n, err := p.clickhouse(ctx, "SELECT count() FROM "+c.Table()+" WHERE visitor_id NOT IN (SELECT line FROM input)")
		if err != nil {
			d.Check(false, "counting %s: %v", c.Table(), err)
		}
		p.left[c.Table()] = n
	}
}

// others checks that nobody else's rows have gone.
func (p *platform) others(ctx context.Context, d *drill.Drill, when string) {
	for _, c := range []event.Category{event.Page, event.Cart, event.Purchase} {
		n, err := p.clickhouse(ctx, "SELECT count() FROM "+c.Table())
		head, headErr := p.cat.Head(ctx, c.Table())
		if err = errors.Join(err, headErr); err != nil {
			d.Check(false, "%s: counting %s: %v", when, c.Table(), err)
			continue
		}
		d.Check(n == p.left[c.Table()] && head.Rows == n, "%s: %s has %d rows in ClickHouse and %d in Iceberg, others had %d", when, c.Table(), n, head.Rows, p.left[c.Table()])
	}
}

// certificates checks both, and that a changed one is refused.
func (p *platform) certificates(ctx context.Context, d *drill.Drill) error {
	public, err := activities.PublicKey(filepath.Join(p.dir, "erasure"))
	if err != nil {
		return err
	}
	for _, phase := range []string{name.PhaseLogical, name.PhasePhysical} {
		path := filepath.Join(p.dir, "erasure", "certificates", p.request+"-"+phase+".json")
		file, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		c, err := activities.VerifyCertificate(public, file)
		d.Check(err == nil && c.Subjects == int64(p.o.subjects) && c.Phase == phase, "the certificate of the %s state verifies: %d places, %d residues: %v", phase, len(c.Stores), len(c.Residues), err)
		_, err = activities.VerifyCertificate(public, []byte(strings.Replace(string(file), `"subjects":`, `"subjects":1`, 1)))
		d.Check(errors.Is(err, activities.ErrCertificate), "a changed one does not")
		info, err := os.Stat(path)
		d.Check(err == nil && info.Mode().Perm() == 0o600 && !strings.Contains(string(file), "v0000"), "it is private and names nobody")
		for _, r := range c.Residues {
			if phase == name.PhasePhysical && (r.Store == string(event.StoreIceberg) || r.Store == string(event.StoreClickHouse) && strings.HasPrefix(r.Name, "events")) {
				d.Check(false, "the physical state has a residue: %s %s: %s", r.Store, r.Name, r.What)
			}
		}
	}
	ids, err := p.clickhouse(ctx, "SELECT count() FROM erasure_subjects")
	if err != nil {
		return err
	}
	d.Check(ids == 0, "%d ids of the request are left", ids)
	return nil
}

// scan has other engines look.
func (p *platform) scan(ctx context.Context, mode string) (map[string]map[string]int64, error) {
	cmd := exec.CommandContext(ctx, p.python, "test/drills/erase/scan.py", mode, p.lake.CatalogURI, p.lake.CatalogName, p.lake.Warehouse, p.lake.Namespace, filepath.Join(p.dir, "subjects.txt"))
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("looking with other engines: %w", err)
	}
	if mode == "refs" {
		out := map[string]map[string]int64{}
		return out, json.Unmarshal(text, &out)
	}
	var flat map[string]int64
	if err := json.Unmarshal(text, &flat); err != nil {
		return nil, err
	}
	return map[string]map[string]int64{"files": flat}, nil
}

func total(found map[string]map[string]int64) (n int64) {
	for _, refs := range found {
		for _, rows := range refs {
			n += rows
		}
	}
	return n
}

func refs(found map[string]map[string]int64) (n int) {
	for _, r := range found {
		n += len(r)
	}
	return n
}

// peers finds the Python that `make peers` has installed.
func peers(ctx context.Context) (string, error) {
	cache := os.Getenv("MILLRACE_CACHE")
	if cache == "" {
		cache = ".cache"
	}
	all, err := filepath.Glob(filepath.Join(cache, "peers-????????????", "bin", "python"))
	if err != nil {
		return "", err
	}
	for _, python := range all {
		if exec.CommandContext(ctx, python, "-c", "import duckdb, pyiceberg, duckdb_extension_iceberg").Run() == nil {
			return filepath.Abs(python)
		}
	}
	return "", errors.New("DuckDB and PyIceberg are not installed: `make peers` installs them")
}
