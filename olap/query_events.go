package olap

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/shopspring/decimal"

	"millrace/event"
)

// EventRow is the part of an event that all categories have.
type EventRow struct {
	EventID, Tenant, Name, Category, VisitorID string
	UserID, SessionID                          *string
	OccurredAt, ReceivedAt, IngestedAt         time.Time
	Source                                     string
	Value                                      *decimal.Decimal
	Currency, OrderID                          *string
	ProductIDs                                 []string
	Properties                                 string // cut at maxProperties characters
	KafkaTopic                                 string
	KafkaPartition                             int32
	KafkaOffset                                int64
	Lane                                       int32
}

const maxProperties = 4096

// EventsQuery is a question for the newest events.
type EventsQuery struct {
	Tenant   string
	Category event.Category // only with OneCategory
	// OneCategory restricts to Category.
	OneCategory bool
	Name        string // "": any
	Search      string // an id of the event; "": any
	Since       time.Time
	Limit       int
}

// Events reads the newest events that were ingested since a time, newest first.
func (r *Reader) Events(ctx context.Context, q EventsQuery) ([]EventRow, error) {
	table := "events"
	if q.OneCategory {
		if !slices.Contains(event.Categories(), q.Category) {
			return nil, fmt.Errorf("category %d is not known", q.Category)
		}
		table = q.Category.Table()
	}
	p := params{"tenant": q.Tenant, "since": micros(q.Since), "limit": strconv.Itoa(q.Limit)}
	var where strings.Builder
	if q.Name != "" {
		where.WriteString(" AND name = {name:String}")
		p["name"] = q.Name
	}
	if q.Search != "" {
		where.WriteString(" AND (event_id = {q:String} OR visitor_id = {q:String} OR user_id = {q:String} OR session_id = {q:String} OR order_id = {q:String} OR has(product_ids, {q:String}))")
		p["q"] = q.Search
	}
	sql := fmt.Sprintf("SELECT event_id, toString(tenant), toString(name), toString(category), visitor_id, user_id, session_id, occurred_at, received_at, ingested_at, toString(source), value, toNullable(toString(currency)), order_id, product_ids, "+
		"leftUTF8(properties, %d), toString(kafka_topic), kafka_partition, kafka_offset, lane FROM %s WHERE tenant = {tenant:String} AND ingested_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')%s "+
		"ORDER BY ingested_at DESC, kafka_topic, kafka_partition, kafka_offset DESC LIMIT {limit:UInt32}", maxProperties, table, where.String())
	var out []EventRow
	err := r.query(ctx, sql, p, func(rows driver.Rows) error {
		var e EventRow
		if err := rows.Scan(&e.EventID, &e.Tenant, &e.Name, &e.Category, &e.VisitorID, &e.UserID, &e.SessionID, &e.OccurredAt, &e.ReceivedAt, &e.IngestedAt, &e.Source, &e.Value, &e.Currency,
			&e.OrderID, &e.ProductIDs, &e.Properties, &e.KafkaTopic, &e.KafkaPartition, &e.KafkaOffset, &e.Lane); err != nil {
			return fmt.Errorf("reading an event: %w", err)
		}
		out = append(out, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading recent events: %w", err)
	}
	return out, nil
}

// FailedQuery is a question about failed events of a tenant.
type FailedQuery struct {
	Tenant string
	// Unowned also takes failed events that belong to no tenant, since their key is not known.
	Unowned  bool
	From, To time.Time // of failed_at
	Reason   string    // "": any
}

// FailedReason counts the failed events of a reason.
type FailedReason struct {
	Reason string
	Count  int64
	Last   time.Time
}

// FailedPoint counts the failed events of a reason in one step.
type FailedPoint struct {
	At     int64 // begin of the step, unix seconds
	Reason string
	Count  int64
}

// FailedSample is one failed event.
type FailedSample struct {
	FailedID                         string
	EventID                          *string
	FailedAt, ReceivedAt             time.Time
	Tenant, Reason, Error, ErrorPath string
	Payload                          string // cut at maxPayload characters
	PayloadBytes                     int64  // of the whole
	Source                           string
	Cut                              bool
}

const maxPayload = 16384

func (q FailedQuery) source(p params) string {
	p["tenant"], p["from"], p["to"] = q.Tenant, micros(q.From), micros(q.To)
	// ingested_at prunes partitions; it is the broker's clock, so an hour is left for the difference.
	s := " FROM failed_events WHERE failed_at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND failed_at < fromUnixTimestamp64Micro({to:Int64}, 'UTC') AND ingested_at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') - INTERVAL 1 HOUR"
	if q.Unowned {
		s += " AND tenant IN ({tenant:String}, '')"
	} else {
		s += " AND tenant = {tenant:String}"
	}
	if q.Reason != "" {
		p["reason"] = q.Reason
		s += " AND reason = {reason:String}"
	}
	return s
}

// FailedReasons counts failed events by reason, most first.
func (r *Reader) FailedReasons(ctx context.Context, q FailedQuery) ([]FailedReason, error) {
	p := params{}
	var out []FailedReason
	err := r.query(ctx, "SELECT toString(reason) AS r, toInt64(count()) AS n, max(failed_at)"+q.source(p)+" GROUP BY r ORDER BY n DESC, r LIMIT 1000", p, func(rows driver.Rows) error {
		var f FailedReason
		if err := rows.Scan(&f.Reason, &f.Count, &f.Last); err != nil {
			return fmt.Errorf("reading a reason: %w", err)
		}
		out = append(out, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("counting failed events: %w", err)
	}
	return out, nil
}

// FailedSeries counts failed events of the given reasons by steps.
func (r *Reader) FailedSeries(ctx context.Context, q FailedQuery, reasons []string, step time.Duration) ([]FailedPoint, error) {
	p := params{"step": strconv.FormatInt(int64(step/time.Second), 10)}
	var out []FailedPoint
	sql := "SELECT intDiv(toInt64(toUnixTimestamp(failed_at)), {step:Int64}) * {step:Int64} AS at, toString(reason) AS r, toInt64(count())" + q.source(p) + " AND reason IN " + bindAll(p, reasons) + " GROUP BY at, r"
	err := r.query(ctx, sql, p, func(rows driver.Rows) error {
		var f FailedPoint
		if err := rows.Scan(&f.At, &f.Reason, &f.Count); err != nil {
			return fmt.Errorf("reading a point: %w", err)
		}
		out = append(out, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("counting failed events over time: %w", err)
	}
	return out, nil
}

// FailedSamples reads the newest failed events.
func (r *Reader) FailedSamples(ctx context.Context, q FailedQuery, limit int) ([]FailedSample, error) {
	p := params{"limit": strconv.Itoa(limit)}
	var out []FailedSample
	sql := fmt.Sprintf("SELECT failed_id, event_id, failed_at, received_at, toString(tenant), toString(reason), error, toString(error_path), leftUTF8(payload, %d), payload_bytes, toString(source), lengthUTF8(payload) > %d OR length(payload) < payload_bytes",
		maxPayload, maxPayload) + q.source(p) + " ORDER BY failed_at DESC, failed_id LIMIT {limit:UInt32}"
	err := r.query(ctx, sql, p, func(rows driver.Rows) error {
		var f FailedSample
		var cut uint8
		if err := rows.Scan(&f.FailedID, &f.EventID, &f.FailedAt, &f.ReceivedAt, &f.Tenant, &f.Reason, &f.Error, &f.ErrorPath, &f.Payload, &f.PayloadBytes, &f.Source, &cut); err != nil {
			return fmt.Errorf("reading a failed event: %w", err)
		}
		f.Cut = cut != 0
		out = append(out, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading failed events: %w", err)
	}
	return out, nil
}
