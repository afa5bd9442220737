package sink

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/fault"
	"millrace/olap"
)

// clickhouseTopic is one topic that the sink reads and the tables that its records go to.
type clickhouseTopic struct {
	name     string
	once     bool               // exactly once, one partition a block, with an intent; else at least once into tables that replace rows by version
	category event.Category     // of an events.* topic
	events   bool               // is one
	tables   []*clickhouseTable // one; for kpi.partial one a family and grain
	byKey    map[string]int     // family + grain → index into tables

	id       string    // topic id, known once the sink runs
	erasures *erasures // nil: no row is dropped
}

// clickhouseTable is a table and its reusable blocks.
type clickhouseTable struct {
	layout *clickhouseLayout
	plain  *clickhouseLayout // without promoted columns
	ids    []byte            // bitmap of the columns
	mu     sync.Mutex
	free   []*clickhouseBlock

	parts    int       // active parts of the fullest partition, as last counted
	inserted time.Time // last insert
}

func (t *clickhouseTable) block(columns []byte, rows int) *clickhouseBlock {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b *clickhouseBlock
	if n := len(t.free); n > 0 {
		b, t.free = t.free[n-1], t.free[:n-1]
	} else {
		b = t.layout.newBlock()
	}
	b.reset(columns, rows)
	return b
}

// keptBlocks is how many unused blocks a table keeps: as many as the default number of inserts at the same time.
const keptBlocks = 2

// release keeps a block for the next batch.
func (t *clickhouseTable) release(b *clickhouseBlock) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.free) < keptBlocks {
		t.free = append(t.free, b)
	}
}

// clickhouseTopics is every topic that the sink reads.
func clickhouseTopics() ([]*clickhouseTopic, error) {
	var out []*clickhouseTopic
	var errs []error
	add := func(t *clickhouseTopic, table string, cols []olap.Column, err error, record reflect.Type, constants map[string]string) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		l, err := newClickhouseLayout(table, cols, record, constants)
		if err != nil {
			errs = append(errs, err)
			return
		}
		t.tables = append(t.tables, &clickhouseTable{layout: l, plain: l, ids: l.ids})
	}
	for _, c := range event.Categories() {
		t := &clickhouseTopic{name: c.EventsTopic(), once: true, events: true, category: c}
		cols, err := olap.Columns(c.Table())
		add(t, c.Table(), cols, err, reflect.TypeFor[event.Event](), map[string]string{"category": c.String(), "kafka_topic": t.name})
		out = append(out, t)
	}
	failed := &clickhouseTopic{name: event.TopicEventsFailed, once: true}
	cols, err := olap.Columns(olap.TableFailed)
	add(failed, olap.TableFailed, cols, err, reflect.TypeFor[event.Failed](), map[string]string{"kafka_topic": failed.name})

	partial := &clickhouseTopic{name: event.TopicKPIPartial, byKey: map[string]int{}}
	for _, family := range []string{"shop", "items"} {
		for _, grain := range []string{"1s", "1m", "1h", "1d"} {
			table := olap.KPITable(family, grain)
			cols, err := olap.RecordColumns(table)
			partial.byKey[family+grain] = len(partial.byKey)
			add(partial, table, cols, err, reflect.TypeFor[event.KPIPartial](), nil)
		}
	}
	late := &clickhouseTopic{name: event.TopicKPILate}
	cols, err = olap.RecordColumns(olap.TableKPILate)
	add(late, olap.TableKPILate, cols, err, reflect.TypeFor[event.KPILate](), nil)
	ledger := &clickhouseTopic{name: event.TopicLedger}
	cols, err = olap.RecordColumns(olap.TableLedger)
	add(ledger, olap.TableLedger, cols, err, reflect.TypeFor[event.LedgerEntry](), nil)
	for _, name := range alertTopics() {
		t := &clickhouseTopic{name: name}
		cols, err := olap.RecordColumns(olap.TableAlerts)
		add(t, olap.TableAlerts, cols, err, reflect.TypeFor[event.Alert](), nil)
		out = append(out, t)
	}
	return append(out, failed, partial, late, ledger), errors.Join(errs...)
}

// clickhouseRefused is a record that cannot be a row, and why.
type clickhouseRefused struct {
	record *kgo.Record
	why    error
}

// clickhouseRows is what records decode into: per table the block and its records, in order.
type clickhouseRows struct {
	blocks   []*clickhouseBlock
	tables   []*clickhouseTable
	records  [][]*kgo.Record
	refused  []clickhouseRefused
	min, max int64             // ingested_at
	extract  *schema.Extractor // nil: no promoted columns
}

func (r *clickhouseRows) release() {
	for i, b := range r.blocks {
		if b != nil {
			r.tables[i].release(b)
		}
	}
}

// decode makes rows of records. An error means that the records cannot be judged now (the registry is away); one that never can be a row is in refused.
func (t *clickhouseTopic) decode(ctx context.Context, codecs *schema.Codecs, records []*kgo.Record, columns []byte, generation uint16) (*clickhouseRows, error) {
	out := &clickhouseRows{
		tables: t.tables, blocks: make([]*clickhouseBlock, len(t.tables)), records: make([][]*kgo.Record, len(t.tables)), min: math.MaxInt64, max: math.MinInt64,
	}
	d := clickhouseDecoder{codecs: codecs, events: codecs.NewEventDecoder()}
	promoted := t.tables[0].layout.promoted
	if len(promoted) > 0 {
		out.extract = schema.NewExtractor(promoted)
	}
	for _, r := range records {
		row, table, ingested, err := d.decode(ctx, t, r)
		if err != nil {
			if id, ok := fault.IDOf(err); ok && id == "MR-EVT-003" {
				out.release()
				return nil, err
			}
			out.refused = append(out.refused, clickhouseRefused{r, err})
			continue
		}
		if t.events && t.erasures.dropsEvent(&d.event) || t.name == event.TopicEventsFailed && t.erasures.dropsFailed(&d.failed) || t.alerts() && t.erasures.dropsAlert(&d.alert) {
			continue
		}
		if out.blocks[table] == nil {
			out.blocks[table] = t.tables[table].block(columns, len(records))
		}
		out.min, out.max = min(out.min, ingested), max(out.max, ingested)
		var values []schema.Promoted
		if out.extract != nil {
			values = out.extract.Values(d.event.Properties)
		}
		out.blocks[table].add(row, values, r.Partition, r.Offset, t.version(generation, r.Offset))
		out.records[table] = append(out.records[table], r)
	}
	return out, nil
}

// clickhouseDecoder decodes records into structs that it reuses.
type clickhouseDecoder struct {
	codecs  *schema.Codecs
	events  *schema.EventDecoder
	event   event.Event
	failed  event.Failed
	partial event.KPIPartial
	late    event.KPILate
	ledger  event.LedgerEntry
	alert   event.Alert
}

func (d *clickhouseDecoder) decode(ctx context.Context, t *clickhouseTopic, r *kgo.Record) (row unsafe.Pointer, table int, ingested int64, err error) {
	switch {
	case t.events:
		if err := d.events.DecodeEnriched(ctx, t.category, r.Value, &d.event); err != nil {
			return nil, 0, 0, err
		}
		return unsafe.Pointer(&d.event), 0, d.event.IngestedAt, clickhouseCheckEvent(&d.event)
	case t.name == event.TopicEventsFailed:
		d.failed = event.Failed{}
		if err := d.codecs.Decode(ctx, t.name, r.Value, &d.failed); err != nil {
			return nil, 0, 0, err
		}
		return unsafe.Pointer(&d.failed), 0, d.failed.IngestedAt, clickhouseCheckTimes(d.failed.IngestedAt, d.failed.FailedAt, d.failed.ReceivedAt)
	case t.name == event.TopicKPIPartial:
		d.partial = event.KPIPartial{}
		if err := d.codecs.Decode(ctx, t.name, r.Value, &d.partial); err != nil {
			return nil, 0, 0, err
		}
		i, ok := t.byKey[d.partial.Family+d.partial.Grain]
		if !ok {
			return nil, 0, 0, fmt.Errorf("no table holds KPIs of family %q and grain %q", d.partial.Family, d.partial.Grain)
		}
		return unsafe.Pointer(&d.partial), i, d.partial.WindowStart, clickhouseCheckTimes(d.partial.WindowStart)
	case t.name == event.TopicKPILate:
		d.late = event.KPILate{}
		if err := d.codecs.Decode(ctx, t.name, r.Value, &d.late); err != nil {
			return nil, 0, 0, err
		}
		return unsafe.Pointer(&d.late), 0, d.late.IngestedAt, clickhouseCheckTimes(d.late.OccurredAt, d.late.IngestedAt)
	case t.alerts():
		if err := decodeAlert(ctx, d.codecs, r, &d.alert); err != nil {
			return nil, 0, 0, err
		}
		return unsafe.Pointer(&d.alert), 0, d.alert.DetectedAt, clickhouseCheckTimes(d.alert.OccurredAt, d.alert.DetectedAt)
	default:
		d.ledger = event.LedgerEntry{}
		if err := d.codecs.Decode(ctx, t.name, r.Value, &d.ledger); err != nil {
			return nil, 0, 0, err
		}
		return unsafe.Pointer(&d.ledger), 0, d.ledger.IngestedTo, nil
	}
}

// The columns' ranges. The native protocol does not check them: a value outside would be stored as another one.
const clickhouseMaxAmount = 1_000_000_000_000_000_000 // Decimal(18, 6), in micros

var (
	clickhouseMinTime = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	clickhouseMaxTime = time.Date(2299, 12, 31, 23, 59, 59, 0, time.UTC).UnixMicro()
)

func clickhouseCheckTimes(times ...int64) error {
	for _, t := range times {
		if t < clickhouseMinTime || t > clickhouseMaxTime {
			return fmt.Errorf("time of %d µs is outside DateTime64(6), 1900 to 2299", t)
		}
	}
	return nil
}

func clickhouseCheckEvent(e *event.Event) error {
	if err := clickhouseCheckTimes(e.OccurredAt, e.ReceivedAt, e.IngestedAt); err != nil {
		return err
	}
	for _, v := range [...]*int64{e.Value, e.Tax, e.Shipping, e.Discount, e.Total} {
		if !clickhouseAmountOK(v) {
			return errors.New("amount is outside Decimal(18, 6)")
		}
	}
	for i := range e.Items {
		if !clickhouseAmountOK(e.Items[i].Price) || !clickhouseAmountOK(e.Items[i].Discount) {
			return fmt.Errorf("amount of item %d is outside Decimal(18, 6)", i)
		}
	}
	return nil
}

func clickhouseAmountOK(v *int64) bool {
	return v == nil || *v > -clickhouseMaxAmount && *v < clickhouseMaxAmount
}
