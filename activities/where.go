package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/lakehouse"
	"millrace/olap"
)

// Whereabouts is where an offset has gone.
type Whereabouts struct {
	Topic      string             `json:"topic"`
	Partition  int32              `json:"partition"`
	Offset     int64              `json:"offset"`
	Answer     string             `json:"answer"`
	Nowhere    bool               `json:"nowhere"`
	Kafka      string             `json:"kafka"` // held, deleted, future, or unknown
	ClickHouse []olap.Place       `json:"clickhouse"`
	Iceberg    []lakehouse.Place  `json:"iceberg"`
	BigQuery   []olap.Load        `json:"bigquery"`
	Ledger     *event.LedgerEntry `json:"ledger,omitempty"`
	Failed     string             `json:"failed_id,omitempty"`
	Reason     string             `json:"failed_reason,omitempty"`
	Copies     []olap.Place       `json:"duplicate_of,omitempty"`
}

// WhereLake is what looking for an offset asks of the lakehouse.
type WhereLake interface {
	Where(ctx context.Context, table, topic string, raw bool, partition int32, offset int64) ([]lakehouse.Place, error)
}

// ErrTopic says that a topic is none of events.
var ErrTopic = errors.New("no topic of events")

// Where looks for an offset of raw.* or events.* in every store. lake and log may be nil.
func Where(ctx context.Context, repair *olap.Repair, lake WhereLake, log *EventLog, topic string, partition int32, offset int64) (*Whereabouts, error) {
	raw, table, category, err := whereTopic(topic)
	if err != nil {
		return nil, err
	}
	w := &Whereabouts{Topic: topic, Partition: partition, Offset: offset, Kafka: "unknown"}
	if log != nil {
		if w.Kafka, err = log.holds(ctx, topic, partition, offset); err != nil {
			return nil, err
		}
	}
	if w.ClickHouse, err = repair.Where(ctx, table, topic, raw, partition, offset); err != nil {
		return nil, err
	}
	if lake != nil {
		if w.Iceberg, err = lake.Where(ctx, table, topic, raw, partition, offset); err != nil {
			return nil, err
		}
	}
	rawTopic, rawPartition, rawOffset := topic, partition, offset
	if !raw {
		rawTopic = ""
	}
	at, events := int64(-1), offset
	if raw {
		events = -1
	}
	for _, p := range w.ClickHouse {
		rawTopic, rawPartition, rawOffset, at, events = p.RawTopic, p.RawPart, p.RawOffset, p.RawOffset, p.Offset
	}
	if rawTopic != "" {
		e, ok, err := repair.LedgerAt(ctx, rawTopic, rawPartition, rawOffset)
		if err != nil {
			return nil, err
		}
		if ok {
			w.Ledger = &e
		}
		if w.Failed, w.Reason, err = repair.FailedAt(ctx, rawTopic, rawPartition, rawOffset); err != nil {
			return nil, err
		}
	}
	if w.BigQuery, err = loadsOf(ctx, repair, table, partition, events); err != nil {
		return nil, err
	}
	if raw && at < 0 && w.Failed == "" && w.Kafka == "held" && table != olap.TableFailed {
		if w.Copies, err = log.copiesOf(ctx, repair, category, table, topic, partition, offset); err != nil {
			return nil, err
		}
	}
	ends := map[int32]int64{}
	if rawTopic != "" {
		if ends, err = repair.LedgerEnds(ctx, rawTopic); err != nil {
			return nil, err
		}
	}
	w.answer(raw, ends[rawPartition])
	return w, nil
}

func whereTopic(topic string) (raw bool, table string, c event.Category, err error) {
	switch topic {
	case event.TopicRawFailed:
		return true, olap.TableFailed, 0, nil
	case event.TopicEventsFailed:
		return false, olap.TableFailed, 0, nil
	}
	var names []string
	for _, c := range event.Categories() {
		if topic == c.RawTopic() || topic == c.EventsTopic() {
			return topic == c.RawTopic(), c.Table(), c, nil
		}
		names = append(names, c.RawTopic(), c.EventsTopic())
	}
	return false, "", 0, fmt.Errorf("%w: %s; there are %s", ErrTopic, topic, strings.Join(names, ", "))
}

// answer puts what was found into a sentence.
func (w *Whereabouts) answer(raw bool, closed int64) {
	var in []string
	if n := len(w.ClickHouse); n > 0 {
		in = append(in, fmt.Sprintf("in ClickHouse, part %s of %s", w.ClickHouse[0].Part, w.ClickHouse[0].Table))
		if n > 1 {
			in[len(in)-1] += fmt.Sprintf(" (%d times: reconcile would delete the copies)", n)
		}
	}
	if n := len(w.Iceberg); n > 0 {
		in = append(in, fmt.Sprintf("in Iceberg, snapshot %d, file %s", w.Iceberg[0].SnapshotID, w.Iceberg[0].File))
		if n > 1 || w.Iceberg[0].Rows > 1 {
			in[len(in)-1] += " (more than once: reconcile would delete the copies)"
		}
	}
	if len(in) > 0 && len(w.BigQuery) > 0 { // a job is known by its range, which also has markers and rows that are nowhere
		in = append(in, "in BigQuery by job "+w.BigQuery[len(w.BigQuery)-1].Job)
	}
	if len(in) > 0 {
		w.Answer = strings.Join(in, "; ")
		return
	}
	w.Nowhere = true
	why := ""
	switch {
	case w.Failed != "":
		why = fmt.Sprintf("it is a failed event: %s, failed_id %s", w.Reason, w.Failed)
	case len(w.Copies) > 0:
		c := w.Copies[0]
		why = fmt.Sprintf("it is a duplicate of %s/%d@%d", c.RawTopic, c.RawPart, c.RawOffset)
	case w.Kafka == "future":
		why = "the topic has no such offset yet"
	case w.Ledger != nil && w.Ledger.Count == 0 && w.Ledger.Duplicates+w.Ledger.Failed > 0:
		why = fmt.Sprintf("its range [%d, %d) holds only duplicates (%d) and failed events (%d)", w.Ledger.RawFrom, w.Ledger.RawTo, w.Ledger.Duplicates, w.Ledger.Failed)
	case w.Ledger != nil && w.Ledger.Duplicates+w.Ledger.Failed+w.Ledger.Erased > 0:
		why = fmt.Sprintf("of its range [%d, %d) the control totals count %d rows, %d duplicates, %d failed and %d erased events; `millrace reconcile` says whether a row is missing", w.Ledger.RawFrom, w.Ledger.RawTo, w.Ledger.Count, w.Ledger.Duplicates, w.Ledger.Failed, w.Ledger.Erased)
	case w.Ledger != nil:
		why = fmt.Sprintf("it should be: the control totals count %d rows in its range [%d, %d), unless the offset is a marker; `millrace reconcile` names and mends what is missing, and erased events stay away", w.Ledger.Count, w.Ledger.RawFrom, w.Ledger.RawTo)
	case raw && w.Offset >= closed && w.Kafka == "held":
		why = "the stream has not closed the control total of its range yet; it is written within a minute or two"
	case w.Kafka == "deleted":
		why = "it is below what Kafka still holds, and no control total has it: it is older than the stores keep, or was never an event"
	case !raw && w.Kafka == "held":
		why = "Kafka holds it and no store has it: it is a transaction marker, of an aborted transaction, or the sinks have not come so far"
	default:
		why = "no store, no control total and no topic knows it"
	}
	w.Answer = "nowhere, because " + why
}

// loadsOf gives the jobs whose range has an offset of events.*; a negative one is none's.
func loadsOf(ctx context.Context, repair *olap.Repair, table string, partition int32, offset int64) ([]olap.Load, error) {
	if offset < 0 {
		return nil, nil
	}
	all, err := repair.Loads(ctx, table)
	if err != nil {
		return nil, err
	}
	next := func(text string) (int64, bool) {
		v := lakehouse.Vector{}
		if text == "" || json.Unmarshal([]byte(text), &v) != nil {
			return 0, text == ""
		}
		var at int64
		for _, parts := range v {
			at = max(at, parts[partition])
		}
		return at, true
	}
	return slices.DeleteFunc(all, func(l olap.Load) bool {
		from, ok1 := next(l.Vector0)
		to, ok2 := next(l.Vector1)
		return !ok1 || !ok2 || offset < from || offset >= to
	}), nil
}

// holds says whether Kafka has an offset: held, deleted, future, or unknown without the topic.
func (l *EventLog) holds(ctx context.Context, topic string, partition int32, offset int64) (string, error) {
	adm, err := l.admin()
	if err != nil {
		return "", err
	}
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return "", fmt.Errorf("asking what Kafka holds of %s: %w", topic, err)
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return "", fmt.Errorf("asking what Kafka holds of %s: %w", topic, err)
	}
	first, ok1 := starts.Lookup(topic, partition)
	last, ok2 := ends.Lookup(topic, partition)
	switch {
	case !ok1 || !ok2 || errors.Is(first.Err, kerr.UnknownTopicOrPartition):
		return "unknown", nil
	case first.Err != nil || last.Err != nil:
		return "", fmt.Errorf("asking what Kafka holds of %s/%d: %w", topic, partition, errors.Join(first.Err, last.Err))
	case offset < first.Offset:
		return "deleted", nil
	case offset >= last.Offset:
		return "future", nil
	}
	return "held", nil
}

// copiesOf reads a raw record and finds the row of the same event.
func (l *EventLog) copiesOf(ctx context.Context, repair *olap.Repair, c event.Category, table, topic string, partition int32, offset int64) ([]olap.Place, error) {
	codecs, err := l.codecs(ctx)
	if err != nil {
		return nil, err
	}
	var e event.Event
	found := false
	err = l.read(ctx, topic, partition, kgo.NewOffset().At(offset), func(r *kgo.Record) (bool, error) {
		if r.Offset == offset {
			// A record that is no event became a failed one, which is looked for elsewhere.
			_, err := codecs.NewEventDecoder().DecodeRaw(ctx, c, r.Value, &e)
			found = err == nil
		}
		return false, nil
	})
	if err != nil || !found {
		return nil, err
	}
	return repair.Original(ctx, table, e.Tenant, e.Source, e.ID)
}
