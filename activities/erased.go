package activities

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/event"
	"millrace/internal/fault"
)

// ErasedSource gives the ledger of erasures as it is now, as a filter. Every path that writes rows that are not fresh from Kafka's head asks it first.
type ErasedSource interface {
	Erased(ctx context.Context) (*event.Erased, error)
}

// ErasedLedger is the ledger as the table erasures holds it. It is safe for concurrent use.
type ErasedLedger struct {
	conn driver.Conn
	key  event.SubjectKey

	mu   sync.Mutex
	mark ledgerMark
	last *event.Erased
}

// ledgerMark is by what a ledger is known not to have changed: entries are never taken away.
type ledgerMark struct{ rows, version uint64 }

// NewErasedLedger makes the source. The key is the one that the ledger was written with.
func NewErasedLedger(conn driver.Conn, key event.SubjectKey) *ErasedLedger {
	return &ErasedLedger{conn: conn, key: key}
}

// Erased implements ErasedSource. The filter is shared: it must not be added to.
func (l *ErasedLedger) Erased(ctx context.Context) (*event.Erased, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var now ledgerMark
	if err := l.conn.QueryRow(ctx, "SELECT count(), max(version) FROM erasures").Scan(&now.rows, &now.version); err != nil {
		return nil, fmt.Errorf("reading the ledger of erasures: %w", err)
	}
	if l.last != nil && now == l.mark {
		return l.last, nil
	}
	e := event.NewErased(l.key)
	rows, err := l.conn.Query(ctx, "SELECT request_id, part, cut, key, toInt64(toUnixTimestamp64Micro(min(requested_at))), groupUniqArray(toString(subject)) FROM erasures GROUP BY request_id, part, cut, key")
	if err != nil {
		return nil, fmt.Errorf("reading the ledger of erasures: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var entry event.Erasure
		if err := rows.Scan(&entry.RequestID, &entry.Part, &entry.Cut, &entry.Key, &entry.RequestedAt, &entry.Subjects); err != nil {
			return nil, fmt.Errorf("reading the ledger of erasures: %w", err)
		}
		if err := e.Add(entry); err != nil {
			if errors.Is(err, event.ErrSubjectKey) {
				return nil, fault.New("MR-ERA-001", err)
			}
			return nil, fmt.Errorf("reading the ledger of erasures: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the ledger of erasures: %w", err)
	}
	l.last, l.mark = e, now
	return e, nil
}
