package olap

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Place is where a table has a row.
type Place struct {
	Table      string    `json:"table"`
	Part       string    `json:"part"`
	Row        uint64    `json:"row"` // within the part
	EventID    string    `json:"event_id"`
	Tenant     string    `json:"tenant"`
	IngestedAt time.Time `json:"ingested_at"`
	RawTopic   string    `json:"raw_topic"`
	RawPart    int32     `json:"raw_partition"`
	RawOffset  int64     `json:"raw_offset"`
	Topic      string    `json:"kafka_topic"`
	Partition  int32     `json:"kafka_partition"`
	Offset     int64     `json:"kafka_offset"`
}

// Where finds the rows of an offset: of a raw topic, or if raw is false of the topic that feeds the table.
func (r *Repair) Where(ctx context.Context, table, topic string, raw bool, partition int32, offset int64) ([]Place, error) {
	at := "kafka_topic = {topic:String} AND kafka_partition = {partition:Int32} AND kafka_offset = {offset:Int64}"
	if raw {
		at = "raw_topic = {topic:String} AND raw_partition = {partition:Int32} AND raw_offset = {offset:Int64}"
	}
	id := "event_id"
	if table == TableFailed {
		id = "failed_id"
	}
	var out []Place
	err := r.query(ctx, "SELECT _part, _part_offset, "+id+", tenant, ingested_at, raw_topic, raw_partition, raw_offset, kafka_topic, kafka_partition, kafka_offset FROM "+table+" WHERE "+at+" ORDER BY _part, _part_offset LIMIT 100",
		clickhouse.Parameters{"topic": unescaped.Replace(topic), "partition": strconv.Itoa(int(partition)), "offset": strconv.FormatInt(offset, 10)}, func(rows driver.Rows) error {
			p := Place{Table: table}
			if err := rows.Scan(&p.Part, &p.Row, &p.EventID, &p.Tenant, &p.IngestedAt, &p.RawTopic, &p.RawPart, &p.RawOffset, &p.Topic, &p.Partition, &p.Offset); err != nil {
				return err
			}
			out = append(out, p)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("looking for %s/%d@%d in %s: %w", topic, partition, offset, table, err)
	}
	return out, nil
}

// Original finds rows of an event by its id, but for that of one raw offset: what a duplicate is a duplicate of.
func (r *Repair) Original(ctx context.Context, table, tenant, source, eventID string) ([]Place, error) {
	var out []Place
	err := r.query(ctx, "SELECT _part, _part_offset, event_id, tenant, ingested_at, raw_topic, raw_partition, raw_offset, kafka_topic, kafka_partition, kafka_offset FROM "+table+" WHERE tenant = {tenant:String} AND source = {source:String} AND event_id = {id:String} ORDER BY ingested_at LIMIT 10",
		clickhouse.Parameters{"tenant": unescaped.Replace(tenant), "source": unescaped.Replace(source), "id": unescaped.Replace(eventID)}, func(rows driver.Rows) error {
			p := Place{Table: table}
			if err := rows.Scan(&p.Part, &p.Row, &p.EventID, &p.Tenant, &p.IngestedAt, &p.RawTopic, &p.RawPart, &p.RawOffset, &p.Topic, &p.Partition, &p.Offset); err != nil {
				return err
			}
			out = append(out, p)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("looking for event %s in %s: %w", eventID, table, err)
	}
	return out, nil
}

// FailedAt finds the failed event that a raw record became: its id and why.
func (r *Repair) FailedAt(ctx context.Context, rawTopic string, partition int32, offset int64) (id, reason string, err error) {
	err = r.query(ctx, "SELECT failed_id, reason FROM failed_events WHERE raw_topic = {topic:String} AND raw_partition = {partition:Int32} AND raw_offset = {offset:Int64} LIMIT 1",
		clickhouse.Parameters{"topic": unescaped.Replace(rawTopic), "partition": strconv.Itoa(int(partition)), "offset": strconv.FormatInt(offset, 10)}, func(rows driver.Rows) error {
			return rows.Scan(&id, &reason)
		})
	if err != nil {
		return "", "", fmt.Errorf("looking for the failed event of %s/%d@%d: %w", rawTopic, partition, offset, err)
	}
	return id, reason, nil
}

// Load is a job that loaded a range of a table into BigQuery.
type Load struct {
	Job     string `json:"job"`
	From    int64  `json:"from_snapshot"`
	To      int64  `json:"to_snapshot"`
	Outcome string `json:"outcome"`
	Vector0 string `json:"-"`
	Vector1 string `json:"-"`
}

// Loads lists the jobs that loaded a table.
func (r *Repair) Loads(ctx context.Context, table string) ([]Load, error) {
	var out []Load
	err := r.query(ctx, "SELECT job_id, from_snapshot, to_snapshot, outcome, vector_from, vector_to FROM bigquery_loads FINAL WHERE table_name = {table:String} ORDER BY started_at", clickhouse.Parameters{"table": unescaped.Replace(table)}, func(rows driver.Rows) error {
		var l Load
		if err := rows.Scan(&l.Job, &l.From, &l.To, &l.Outcome, &l.Vector0, &l.Vector1); err != nil {
			return err
		}
		out = append(out, l)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the loads of %s: %w", table, err)
	}
	return out, nil
}
