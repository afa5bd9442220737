package olap

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/event"
)

// Payments reads the live events of the given names that came in [from, to), in the order in which they came, and calls each with it; device is made of what a browser says
// of itself. Copies of orders are left out, as the stream leaves them out.
func Payments(ctx context.Context, conn driver.Conn, names []string, from, to time.Time, device func(userAgent, os, browser, locale, zone string) string, each func(*event.Rekeyed) error) (err error) {
	byCategory := map[event.Category][]string{}
	for _, n := range names {
		byCategory[event.CategoryOf(n)] = append(byCategory[event.CategoryOf(n)], n)
	}
	var parts []string
	var args []any
	for _, c := range event.Categories() {
		of := byCategory[c]
		if len(of) == 0 {
			continue
		}
		units, rank := "toInt64(0)", ""
		if slices.Contains([]event.Category{event.Page, event.Cart, event.Purchase}, c) {
			units = "toInt64(arraySum(`items.quantity`))"
		}
		if c == event.Purchase {
			rank = " AND order_rank <= 1"
		}
		text := func(col string) string { return "ifNull(toString(" + col + "), '')" }
		parts = append(parts, "SELECT event_id, toString(tenant), toString(name), visitor_id, "+text("user_id")+", occurred_at, received_at, ingested_at AS known, "+
			"toInt64(ifNull(value, 0) * 1000000), "+text("currency")+", "+units+", "+text("country")+", "+text("region")+", "+text("city")+", "+text("device_type")+", "+text("device_os")+", "+text("device_browser")+", "+
			text("user_agent")+", "+text("locale")+", "+text("time_zone")+", "+text("ip_hash")+", "+text("card_fingerprint")+", "+text("card_bin")+", "+text("payment_method")+", JSONExtractBool(properties, 'declined'), kafka_offset AS place "+
			"FROM "+c.Table()+" WHERE name IN (?) AND lane = 0 AND ingested_at >= ? AND ingested_at < ?"+rank)
		args = append(args, of, from.UTC(), to.UTC())
	}
	if len(parts) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, "SELECT * FROM ("+strings.Join(parts, " UNION ALL ")+") ORDER BY known, place", args...)
	if err != nil {
		return fmt.Errorf("reading events of the past: %w", err)
	}
	defer func() { _ = rows.Close() }() // only read
	for rows.Next() {
		var e event.Rekeyed
		var occurred, received, ingested time.Time
		var agent, locale, zone string
		var place int64
		var declined bool
		if err := rows.Scan(&e.EventID, &e.Tenant, &e.Name, &e.VisitorID, &e.UserID, &occurred, &received, &ingested, &e.Value, &e.Currency, &e.Units, &e.Country, &e.Region, &e.City, &e.DeviceType,
			&e.DeviceOS, &e.DeviceBrowser, &agent, &locale, &zone, &e.IPHash, &e.CardFingerprint, &e.CardBIN, &e.PaymentMethod, &declined, &place); err != nil {
			return fmt.Errorf("reading an event of the past: %w", err)
		}
		e.OccurredAt, e.ReceivedAt, e.IngestedAt, e.Declined = occurred.UnixMicro(), received.UnixMicro(), ingested.UnixMicro(), declined
		e.At, e.Device = min(e.OccurredAt, e.ReceivedAt, e.IngestedAt), device(agent, e.DeviceOS, e.DeviceBrowser, locale, zone)
		if err := each(&e); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading events of the past: %w", err)
	}
	return nil
}

// RuleSet is a set of rules that was applied.
type RuleSet struct {
	Version   int32     `json:"version"`
	Hash      string    `json:"hash"`
	Text      string    `json:"-"`
	AppliedAt time.Time `json:"applied_at"`
	Forced    bool      `json:"forced"`
	From      time.Time `json:"replay_from"`
	To        time.Time `json:"replay_to"`
	Events    uint64    `json:"replay_events"`
	Replay    string    `json:"-"` // JSON
}

// KeepRuleSet notes that a set was applied, with what its replay found.
func KeepRuleSet(ctx context.Context, conn driver.Conn, s RuleSet) error {
	err := conn.Exec(ctx, "INSERT INTO rule_sets (rules_version, hash, text, applied_at, forced, replay_from, replay_to, replay_events, replay, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		s.Version, s.Hash, s.Text, s.AppliedAt.UTC(), s.Forced, s.From.UTC(), s.To.UTC(), s.Events, s.Replay, uint64(s.AppliedAt.UnixMicro()))
	if err != nil {
		return fmt.Errorf("noting a set of rules: %w", err)
	}
	return nil
}

const ruleSets = "SELECT rules_version, hash, text, applied_at, forced, replay_from, replay_to, replay_events FROM rule_sets FINAL ORDER BY applied_at DESC LIMIT "

func scanRuleSet(rows driver.Rows) (s RuleSet, err error) {
	if err := rows.Scan(&s.Version, &s.Hash, &s.Text, &s.AppliedAt, &s.Forced, &s.From, &s.To, &s.Events); err != nil {
		return s, fmt.Errorf("reading a set of rules: %w", err)
	}
	return s, nil
}

// RuleSets lists the sets that were applied, the newest first.
func RuleSets(ctx context.Context, conn driver.Conn, limit int) ([]RuleSet, error) {
	rows, err := conn.Query(ctx, ruleSets+"?", limit)
	if err != nil {
		return nil, fmt.Errorf("reading the sets of rules: %w", err)
	}
	defer func() { _ = rows.Close() }() // only read
	out := []RuleSet{}
	for rows.Next() {
		s, err := scanRuleSet(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the sets of rules: %w", err)
	}
	return out, nil
}

// RuleSets lists the sets that were applied, the newest first.
func (r *Reader) RuleSets(ctx context.Context, limit int) ([]RuleSet, error) {
	out := []RuleSet{}
	err := r.query(ctx, ruleSets+"{limit:UInt32}", params{"limit": strconv.Itoa(limit)}, func(rows driver.Rows) error {
		s, err := scanRuleSet(rows)
		out = append(out, s)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("asking for the sets of rules: %w", err)
	}
	return out, nil
}
