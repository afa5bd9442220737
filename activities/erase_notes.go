package activities

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"

	"millrace/event"
)

// eraseNotes keeps the tables erasures and erasure_certificates.
type eraseNotes struct {
	conn    driver.Conn
	key     event.SubjectKey
	cluster string
	now     func() time.Time
}

// ledgerEntry is what the table says of a request.
type ledgerEntry struct {
	subjects    int64 // 0: it is not there
	requestedAt time.Time
	cut         event.Cut
	cutText     string
}

func (n *eraseNotes) entry(ctx context.Context, request string) (ledgerEntry, error) {
	var e ledgerEntry
	var subjects uint64
	err := n.conn.QueryRow(ctx, "SELECT uniqExact(subject), min(requested_at), any(cut) FROM erasures WHERE request_id = ?", request).Scan(&subjects, &e.requestedAt, &e.cutText)
	if err != nil {
		return e, fmt.Errorf("reading request %s in the ledger of erasures: %w", request, err)
	}
	e.subjects, e.requestedAt = int64(subjects), e.requestedAt.UTC()
	if e.subjects > 0 {
		e.cut, err = event.ParseCut(e.cutText)
	}
	return e, err
}

// entries makes those of a request: the digests in their own order, so that nothing tells whose is whose.
func (n *eraseNotes) entries(request string, at time.Time, cut event.Cut, subjects []event.Subject) []event.Erasure {
	digests := make([]string, 0, len(subjects))
	for _, s := range subjects {
		digests = append(digests, n.key.Digest(s).String())
	}
	slices.Sort(digests)
	digests = slices.Compact(digests)
	var out []event.Erasure
	for part := range slices.Chunk(digests, event.MaxErasureSubjects) {
		out = append(out, event.Erasure{RequestID: request, Part: int32(len(out)), RequestedAt: at.UnixMicro(), Cut: cut.String(), Key: n.key.ID(), Subjects: part})
	}
	return out
}

// put stores entries. All rows are one insert: they are there together or not at all.
func (n *eraseNotes) put(ctx context.Context, entries []event.Erasure) error {
	batch, err := n.conn.PrepareBatch(ctx, "INSERT INTO "+n.local("erasures"))
	if err != nil {
		return fmt.Errorf("noting an erasure in the ledger: %w", err)
	}
	defer func() { _ = batch.Close() }() // what was sent stays
	version := uint64(n.now().UnixMicro())
	for _, e := range entries {
		for _, s := range e.Subjects {
			if err := batch.Append(e.RequestID, e.Part, s, event.Time(e.RequestedAt), e.Cut, e.Key, version); err != nil {
				return fmt.Errorf("noting an erasure in the ledger: %w", err)
			}
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("noting an erasure in the ledger: %w", err)
	}
	return nil
}

func (n *eraseNotes) certify(ctx context.Context, request, phase string, at time.Time, body string) error {
	batch, err := n.conn.PrepareBatch(ctx, "INSERT INTO "+n.local("erasure_certificates"))
	if err != nil {
		return fmt.Errorf("storing a certificate: %w", err)
	}
	defer func() { _ = batch.Close() }() // what was sent stays
	if err := batch.Append(request, phase, at, body, uint64(n.now().UnixMicro())); err != nil {
		return fmt.Errorf("storing a certificate: %w", err)
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("storing a certificate: %w", err)
	}
	return nil
}

// Certificate reads the newest certificate of a phase of a request; "" if there is none.
func Certificate(ctx context.Context, conn driver.Conn, request, phase string) (string, error) {
	var body string
	if err := conn.QueryRow(ctx, "SELECT argMax(body, version) FROM erasure_certificates WHERE request_id = ? AND phase = ?", request, phase).Scan(&body); err != nil {
		return "", fmt.Errorf("reading the certificate of request %s: %w", request, err)
	}
	return body, nil
}

// tenants lists those that have rows.
func (n *eraseNotes) tenants(ctx context.Context) ([]string, error) {
	var out []string
	if err := n.conn.QueryRow(ctx, "SELECT arraySort(groupUniqArray(t)) FROM (SELECT toString(tenant) AS t FROM events GROUP BY t UNION ALL SELECT toString(tenant) FROM erasure_subjects GROUP BY tenant)").Scan(&out); err != nil {
		return nil, fmt.Errorf("listing tenants: %w", err)
	}
	if !slices.Contains(out, "default") {
		out = append(out, "default")
	}
	return out, nil
}

func (n *eraseNotes) local(table string) string {
	if n.cluster != "" {
		return table + "_local"
	}
	return table
}

// eraseMetrics of erasures.
type eraseMetrics struct {
	rows         *prometheus.CounterVec
	seconds      *prometheus.HistogramVec
	certificates *prometheus.CounterVec
}

func newEraseMetrics(reg prometheus.Registerer) eraseMetrics {
	return eraseMetrics{
		rows: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_erase_rows_total", Help: "Rows of persons, or keys, erased by this process."}, []string{"store"})),
		seconds: register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "millrace_erase_step_seconds", Help: "Time of one activity of an erasure.", Buckets: prometheus.ExponentialBuckets(0.01, 4, 9),
		}, []string{"activity"})),
		certificates: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_erase_certificates_total", Help: "Certificates signed by this process, by phase."}, []string{"phase"})),
	}
}

func (m eraseMetrics) took(what string) func() {
	start := time.Now()
	return func() { m.seconds.WithLabelValues(what).Observe(time.Since(start).Seconds()) }
}

// EraseRequest is one request as its tables show it.
type EraseRequest struct {
	Request     string    `json:"request"`
	RequestedAt time.Time `json:"requested_at"`
	Subjects    int64     `json:"subjects"`
	State       string    `json:"state"` // taken, logical or physical
}

// EraseRequests lists the requests of the ledger, the newest first.
func EraseRequests(ctx context.Context, conn driver.Conn) ([]EraseRequest, error) {
	rows, err := conn.Query(ctx, `SELECT request_id, min(requested_at) AS at, toInt64(uniqExact(subject)), any(phase) FROM erasures
		LEFT JOIN (SELECT request_id, if(has(groupArray(toString(phase)), 'physical'), 'physical', 'logical') AS phase FROM erasure_certificates GROUP BY request_id) AS c USING (request_id)
		GROUP BY request_id ORDER BY at DESC`)
	if err != nil {
		return nil, fmt.Errorf("listing requests: %w", err)
	}
	defer rows.Close()
	out := []EraseRequest{}
	for rows.Next() {
		var r EraseRequest
		if err := rows.Scan(&r.Request, &r.RequestedAt, &r.Subjects, &r.State); err != nil {
			return nil, fmt.Errorf("listing requests: %w", err)
		}
		if r.State == "" {
			r.State = "taken"
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("listing requests: %w", err)
	}
	return out, nil
}
