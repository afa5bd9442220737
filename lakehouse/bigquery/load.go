package bigquery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	bq "cloud.google.com/go/bigquery"
	"github.com/apache/iceberg-go/table"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/failpoint"
	"millrace/internal/fault"
	"millrace/lakehouse"
)

// Failpoints of a load, in their order.
const (
	FailMade      = "bigquery.made"      // datasets, table and position are there
	FailPlanned   = "bigquery.planned"   // it is known what is to be loaded
	FailStage     = "bigquery.stage"     // the empty stage is there
	FailPart      = "bigquery.part"      // rows are in the stage; hit with each job
	FailStaged    = "bigquery.staged"    // all of them are
	FailSubmitted = "bigquery.submitted" // the transaction was sent, its outcome is not known
	FailCommitted = "bigquery.committed" // the rows are visible
	FailLeased    = "bigquery.leased"    // the lake's snapshot is held, the stage still there
)

// Outcomes of a load.
const (
	Loaded  = "loaded"
	Nothing = "nothing" // the range is empty, was loaded already, or nothing was published yet
	Early   = "early"   // the last load is not long enough ago
)

// The lease by which the snapshot that was loaded last, and the one that is being loaded, stay in the lake.
const (
	leaseKind = "bigquery"
	leaseLoad = "bigquery-load"
	leaseTime = 30 * 24 * time.Hour
	loadTime  = 24 * time.Hour
)

// Ledger gives the erasures as they are now; nil has none.
type Ledger func(ctx context.Context) (*event.Erased, error)

// Request says what to load.
type Request struct {
	Table string
	From  int64  // where the range begins; 0: where the last one ended. Another one than that is refused
	To    int64  // where it ends; 0: what is published
	Mend  bool   // compare all days with BigQuery, and replace those that differ
	Now   bool   // whenever the last load was
	Run   string // names who asks: an attempt that is repeated is told what an earlier one has done

	Ledger Ledger
	Note   func(state string, rows int64) // of progress
}

// Result says what a load did. It holds no rows.
type Result struct {
	Table    string         `json:"table"`
	Outcome  string         `json:"outcome"`
	From     int64          `json:"from"`
	To       int64          `json:"to"`
	Method   string         `json:"method,omitempty"` // files, rows or both
	Rows     event.Checksum `json:"rows"`
	Parts    int            `json:"parts"`
	Bytes    int64          `json:"bytes"`
	Replaced []string       `json:"replaced,omitempty"` // days
	Touched  []string       `json:"touched,omitempty"`  // days, those included
	Held     int64          `json:"held"`               // rows of erased subjects, left out
	JobID    string         `json:"job_id,omitempty"`
	Wait     time.Duration  `json:"wait,omitempty"` // until a load is due
	Revision int64          `json:"revision"`

	VectorFrom lakehouse.Vector `json:"-"`
	VectorTo   lakehouse.Vector `json:"-"`
}

// errMoved says that another load or erasure has changed the table since it was looked at.
var errMoved = errors.New("another load or erasure was first")

// Load brings a table to what is published: exactly once, whoever else loads it, and wherever earlier calls ended.
func (s *Store) Load(ctx context.Context, r Request) (Result, error) {
	if !slices.Contains(schema.BigQueryTables(), r.Table) {
		return Result{}, fault.Newf(rangeID, "table %s is not loaded into BigQuery; there are %s", r.Table, strings.Join(schema.BigQueryTables(), ", "))
	}
	if r.Note == nil {
		r.Note = func(string, int64) {}
	}
	var err error
	for range 4 {
		var out Result
		if out, err = s.load(ctx, r); !errors.Is(err, errMoved) {
			if err != nil {
				err = classify(fmt.Errorf("loading table %s into BigQuery: %w", r.Table, err))
			}
			return out, err
		}
	}
	return Result{}, classify(fmt.Errorf("loading table %s into BigQuery: %w", r.Table, err))
}

func (s *Store) load(ctx context.Context, r Request) (Result, error) {
	out := Result{Table: r.Table}
	to, err := s.goal(ctx, r)
	if errors.Is(err, lakehouse.ErrNoRef) || err == nil && to.SnapshotID == 0 {
		out.Outcome = Nothing
		return out, nil
	}
	if err != nil {
		return out, err
	}
	t, err := s.lake.Load(ctx, r.Table)
	if err != nil {
		return out, err
	}
	columns, err := columnsOf(r.Table, t.Schema())
	if err != nil {
		return out, err
	}
	r.Note("looking at BigQuery", 0)
	meta, err := s.ensure(ctx, r.Table, columns)
	if err != nil {
		return out, err
	}
	at, err := s.position(ctx, r.Table, meta)
	if err != nil {
		return out, err
	}
	if err := s.step(ctx, FailMade, ""); err != nil {
		return out, err
	}
	out.From, out.To, out.Revision, out.VectorFrom, out.VectorTo = at.SnapshotID, to.SnapshotID, at.Revision, at.Vector, to.Vector
	if before, ok := at.did(r); ok { // an earlier attempt came as far as that
		before.VectorFrom, before.VectorTo = lakehouse.Vector{}, at.Vector
		return before, s.hold(ctx, r.Table, at.SnapshotID)
	}
	due, err := s.due(r, t, at, to)
	if err != nil {
		return out, err
	}
	if !due {
		out.Outcome, out.JobID = Nothing, at.Job
		return out, s.hold(ctx, r.Table, at.SnapshotID)
	}
	if wait := s.cfg.MinInterval - s.now().Sub(at.LoadedAt); !r.Now && at.SnapshotID != 0 && wait > 0 {
		out.Outcome, out.Wait = Early, wait
		return out, nil
	}
	release, err := s.lake.Lease(ctx, r.Table, leaseLoad, r.Table, to.SnapshotID, loadTime)
	if err != nil {
		return out, err
	}
	var erased *event.Erased
	if r.Ledger != nil { // after the position: an erasure that comes later raises its revision
		if erased, err = r.Ledger(ctx); err != nil {
			return out, fmt.Errorf("reading the ledger of erasures: %w", err)
		}
	}
	p, err := s.planOf(ctx, r.Table, t, at, to, erased, r.Mend || at.SnapshotID == 0 && meta.NumRows > 0, r.Note)
	if err != nil {
		return out, err
	}
	if err := s.step(ctx, FailPlanned, ""); err != nil {
		return out, err
	}
	if err := s.deliver(ctx, r, p, columns, meta, &out); err != nil {
		return out, err
	}
	if err := s.hold(ctx, r.Table, to.SnapshotID); err != nil {
		return out, err
	}
	return out, release(ctx)
}

// tell fills in what a load does.
func (p *plan) tell(out *Result, g *stage) {
	out.Outcome, out.Rows, out.Held, out.Revision = Loaded, p.want, p.held, p.at.Revision+1
	out.Method, out.Parts, out.Bytes = g.method, g.parts, g.bytes
	out.Replaced, out.Touched = nil, nil
	for _, day := range p.replaced() {
		out.Replaced = append(out.Replaced, dayText(day))
	}
	for _, day := range p.touched() {
		out.Touched = append(out.Touched, dayText(day))
	}
}

// did gives what the last load gave, if it was made for the same run.
func (p Position) did(r Request) (Result, bool) {
	var out Result
	if r.Run == "" || r.Run != p.run || json.Unmarshal([]byte(p.result), &out) != nil {
		return out, false
	}
	return out, out.To == p.SnapshotID
}

// goal is the snapshot that a load ends at.
func (s *Store) goal(ctx context.Context, r Request) (lakehouse.RefState, error) {
	ref := lakehouse.RefPublished
	if r.To != 0 {
		ref = fmt.Sprint("snapshot:", r.To)
	}
	return s.lake.Ref(ctx, r.Table, ref)
}

// due says whether there is something to load, and refuses ranges that do not join what was loaded.
func (s *Store) due(r Request, t *table.Table, at Position, to lakehouse.RefState) (bool, error) {
	if at.SnapshotID == to.SnapshotID {
		return r.Mend, nil
	}
	if r.From != 0 && r.From != at.SnapshotID {
		if r.To != 0 && passed(at.Vector, to.Vector) {
			return false, nil // loaded before, and more since
		}
		return false, fault.Newf(rangeID, "the range begins at snapshot %d, table %s is loaded to snapshot %d", r.From, r.Table, at.SnapshotID)
	}
	if at.SnapshotID == 0 {
		return true, nil
	}
	from, end := t.SnapshotByID(at.SnapshotID), t.SnapshotByID(to.SnapshotID)
	if from != nil && end != nil && end.SequenceNumber < from.SequenceNumber || !passed(to.Vector, at.Vector) {
		if r.To == 0 {
			return false, fault.Newf(rangeID, "table %s is loaded to snapshot %d, and what is published, %d, lies before it", r.Table, at.SnapshotID, to.SnapshotID)
		}
		return false, nil
	}
	return true, nil
}

// passed says whether a vector is at least as far as another one everywhere.
func passed(v, o lakehouse.Vector) bool {
	for topic, parts := range o {
		for partition, next := range parts {
			if v.At(topic, partition) < next {
				return false
			}
		}
	}
	return true
}

// deliver stages the rows of a plan and makes them visible.
func (s *Store) deliver(ctx context.Context, r Request, p *plan, columns bq.Schema, meta *bq.TableMetadata, out *Result) error {
	const stages = 3
	for n := range stages {
		g, err := s.openStage(ctx, r.Table, p, columns)
		if err != nil {
			return err
		}
		g.note = r.Note
		if err := s.step(ctx, FailStage, ""); err != nil {
			return err
		}
		id, err := s.show(ctx, r, g, p, columns, meta, out)
		switch {
		case err == nil || errors.Is(err, errMoved):
			out.JobID = id
			if err == nil {
				err = s.step(ctx, FailCommitted, id)
			}
			if err != nil {
				return err
			}
			if err := s.step(ctx, FailLeased, id); err != nil {
				return err
			}
			return g.drop(ctx)
		case gone(err):
			// Another that loads the same range came to its end first and dropped what was staged.
			now, readErr := s.readPosition(ctx, r.Table)
			switch {
			case readErr != nil:
				return errors.Join(err, readErr)
			case now == nil || now.Revision != p.at.Revision:
				return errMoved
			case n == stages-1:
				return fault.New(stagedID, err)
			}
			s.log.WarnContext(ctx, "staged rows are gone and are staged anew", "table", r.Table, "error", err)
		case strings.Contains(err.Error(), stagedText) && n < stages-1:
			// Half of a load whose reply was lost, or rows that were staged when the ledger was shorter.
			s.log.WarnContext(ctx, "staged rows are not those of the range and are staged anew", "table", r.Table)
			if err := g.drop(ctx); err != nil {
				return err
			}
		case strings.Contains(err.Error(), stagedText):
			return fault.New(stagedID, err)
		default:
			return err
		}
	}
	return nil
}

// show fills a stage and makes its rows visible.
func (s *Store) show(ctx context.Context, r Request, g *stage, p *plan, columns bq.Schema, meta *bq.TableMetadata, out *Result) (string, error) {
	if err := g.fill(ctx, p); err != nil {
		return "", err
	}
	if err := s.step(ctx, FailStaged, ""); err != nil {
		return "", err
	}
	r.Note("making the rows visible", p.want.Count)
	p.tell(out, g)
	return s.commit(ctx, r, g, p, columns, meta, *out)
}

// commit makes staged rows visible and moves the position, in one transaction that fails if the position is another one, or the staged rows are not exactly the
// plan's. It may be called again, also by another process.
func (s *Store) commit(ctx context.Context, r Request, g *stage, p *plan, columns bq.Schema, meta *bq.TableMetadata, out Result) (string, error) {
	name := r.Table
	target, staged := s.name(s.cfg.Dataset, name), s.name(s.cfg.Work(), g.table.TableID)
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = "`" + c.Name + "`"
	}
	list := strings.Join(names, ", ")
	key := g.name + "-" + g.epoch + "-commit"
	out.JobID = key
	result, err := json.Marshal(out)
	if err != nil {
		return "", fmt.Errorf("noting what a load did: %w", err)
	}
	check, update := s.move(name, p.at.Revision,
		fmt.Sprintf("snapshot_id = %d", p.to.SnapshotID), "vector = "+quoted(p.to.Vector.String()), fmt.Sprintf("from_snapshot = %d", p.at.SnapshotID),
		fmt.Sprintf("rows_loaded = %d", p.want.Count), fmt.Sprintf("hash_lo = %d", p.want.HashLo), fmt.Sprintf("hash_hi = %d", p.want.HashHi),
		"job_id = "+quoted(key), "loaded_at = CURRENT_TIMESTAMP()", "run = "+quoted(r.Run), "result = "+quoted(string(result)), fmt.Sprintf("table_made = %d", meta.CreationTime.UnixMilli()))
	whole := fmt.Sprintf("SELECT IF((SELECT COUNT(*) = %d AND IFNULL(SUM(%s), 0) = %d AND IFNULL(SUM(%s), 0) = %d FROM %s), TRUE, ERROR('%s'))",
		p.want.Count, hashLo, p.want.HashLo, hashHi, p.want.HashHi, staged, stagedText)
	var dml []string
	if days := p.replaced(); len(days) > 0 {
		dml = append(dml, "DELETE FROM "+target+" WHERE "+within(days))
	}
	if p.want.Count > 0 {
		dml = append(dml, fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s", target, list, list, staged))
	}
	if err := s.guard(ctx, dml...); err != nil {
		return "", err
	}
	script := transaction(append(append([]string{check, whole}, dml...), update)...)
	done, err := s.once(ctx, key, func(ctx context.Context, id string) (*bq.Job, error) {
		job, err := s.submitQuery(ctx, id, script)
		if err == nil {
			err = s.step(ctx, FailSubmitted, id)
		}
		return job, err
	})
	if err != nil && !strings.Contains(err.Error(), movedText) && !transient(err) && !errors.Is(err, errAbandoned) {
		return done.id, err
	}
	// The position says whether it has come true: not the job, which may be one of before the position was made anew.
	now, readErr := s.readPosition(ctx, name)
	switch {
	case readErr != nil || now == nil:
		return done.id, errors.Join(err, readErr)
	case now.Job == key && now.Revision > p.at.Revision, err == nil && now.Revision > p.at.Revision:
		return done.id, nil
	case now.Revision != p.at.Revision:
		return done.id, errMoved
	case err == nil:
		return done.id, fmt.Errorf("job %s is of another time: %w", done.id, errStage)
	}
	return done.id, err
}

// errStage says that a stage is of no use.
var errStage = errors.New(stagedText)

// The two halves of row_hash.
const (
	hashLo = "row_hash & 4294967295"
	hashHi = "(row_hash >> 32) & 4294967295"
)

// within is the condition that a row is of one of some days, which are sorted.
func within(days []int32) string {
	var ranges []string
	for i := 0; i < len(days); {
		j := i
		for j+1 < len(days) && days[j+1] == days[j]+1 {
			j++
		}
		ranges = append(ranges, fmt.Sprintf("%[1]s >= TIMESTAMP '%[2]s' AND %[1]s < TIMESTAMP '%[3]s'", schema.BigQueryPartition, dayText(days[i]), dayText(days[j]+1)))
		i = j + 1
	}
	return strings.Join(ranges, " OR ")
}

// hold keeps the loaded snapshot in the lake, for the next range begins there. One that has expired already is no failure: the next load compares with BigQuery itself.
func (s *Store) hold(ctx context.Context, name string, snapshot int64) error {
	if snapshot == 0 {
		return nil
	}
	_, err := s.lake.Lease(ctx, name, leaseKind, name, snapshot, leaseTime)
	if errors.Is(err, lakehouse.ErrNoSnapshot) {
		s.log.WarnContext(ctx, "the snapshot that was loaded has expired", "table", name, "snapshot", snapshot)
		return nil
	}
	return err
}

// step is a place where drills end the process, or the server.
func (s *Store) step(ctx context.Context, name, job string) error {
	if s.hook != nil {
		s.hook(ctx, name, job)
	}
	return failpoint.Err(name)
}
