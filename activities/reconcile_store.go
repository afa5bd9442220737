package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace/event"
	"millrace/lakehouse"
	"millrace/olap"
)

// slice is what is reconciled at a time: the records of one raw topic that the platform took in an hour, and the table that their events are in.
type slice struct {
	topic    string // events.*
	raw      string
	table    string
	from, to time.Time
}

// spot is one row by its raw offset, its hash and its offset on events.*. The raw partition is that of events.* too: a task reads and writes one partition number.
type spot struct {
	offset, hash, at int64
	copies           int
}

// drop names rows to be deleted: all of one raw offset, but for one with this hash and place if keep says so.
type drop struct {
	offset   int64
	keep     bool
	hash, at int64
}

// source knows rows: a store, or the topic that stores are fed from.
type source interface {
	name() string
	// spots gives the rows with raw offsets [from, to) of a partition, in any order.
	spots(ctx context.Context, partition int32, from, to int64, each func(spot) error) error
	// rows reads whole rows by their raw offsets, in any order, once each.
	rows(ctx context.Context, partition int32, offsets []int64, each func(event.Stored) error) error
}

// view is a store at the moment of a reconciliation.
type view interface {
	source
	// passed says up to which offset of events.* the store had taken a partition before anything was read.
	passed(partition int32) int64
	// sums adds up rows by raw partition and range: bounds are where ranges begin, and what is below the first counts for -1.
	sums(ctx context.Context, bounds map[int32][]int64) (map[int32]map[int64]event.Checksum, error)
	// add adds rows that are not there, once for a token, and gives how many it added and how many the store cannot hold.
	add(ctx context.Context, partition int32, rows []event.Stored, token string) (added, refused int64, err error)
	// remove deletes rows.
	remove(ctx context.Context, partition int32, drops []drop, token string) (int64, error)
}

// ReconcileStore is one store that is compared with the control totals.
type ReconcileStore interface {
	Name() string
	look(ctx context.Context, s slice) (view, error)
}

// ClickHouseStore is the tables of ClickHouse.
type ClickHouseStore struct {
	repair *olap.Repair
	group  string // of the sink
	log    *EventLog
}

// NewClickHouseStore makes it. group is the sink's consumer group; log may be nil.
func NewClickHouseStore(repair *olap.Repair, group string, log *EventLog) *ClickHouseStore {
	return &ClickHouseStore{repair, group, log}
}

// Name implements ReconcileStore.
func (c *ClickHouseStore) Name() string { return "clickhouse" }

func (c *ClickHouseStore) look(ctx context.Context, s slice) (view, error) {
	v := &clickhouseView{ClickHouseStore: c, part: olap.Part{Table: s.table, RawTopic: s.raw, From: s.from, To: s.to}}
	var err error
	if c.log != nil {
		if v.at, err = c.log.Positions(ctx, c.group, s.topic); err != nil {
			return nil, err
		}
	}
	have, err := c.repair.Positions(ctx, s.table, s.from)
	if err != nil {
		return nil, err
	}
	if v.at == nil {
		v.at = map[int32]int64{}
	}
	for p, next := range have {
		v.at[p] = max(v.at[p], next)
	}
	return v, nil
}

type clickhouseView struct {
	*ClickHouseStore
	part olap.Part
	at   map[int32]int64
}

func (v *clickhouseView) name() string { return v.Name() }

func (v *clickhouseView) passed(p int32) int64 { return v.at[p] }

func (v *clickhouseView) sums(ctx context.Context, bounds map[int32][]int64) (map[int32]map[int64]event.Checksum, error) {
	out := map[int32]map[int64]event.Checksum{}
	for p, b := range bounds {
		sums, err := v.repair.RangeSums(ctx, v.part, p, b)
		if err != nil {
			return nil, err
		}
		out[p] = sums
	}
	return out, nil
}

// totals is the cheap look: one sum a partition.
func (v *clickhouseView) totals(ctx context.Context) (map[int32]event.Checksum, error) {
	return v.repair.Sums(ctx, v.part)
}

func (v *clickhouseView) spots(ctx context.Context, p int32, from, to int64, each func(spot) error) error {
	all, err := v.repair.Spots(ctx, v.part, p, from, to)
	if err != nil {
		return err
	}
	for _, s := range all {
		if err := each(spot{s.Offset, s.Hash, s.At, s.Copies}); err != nil {
			return err
		}
	}
	return nil
}

func (v *clickhouseView) rows(ctx context.Context, p int32, offsets []int64, each func(event.Stored) error) error {
	return v.repair.Rows(ctx, v.part, p, offsets, each)
}

func (v *clickhouseView) add(ctx context.Context, p int32, rows []event.Stored, token string) (int64, int64, error) {
	ps, err := v.log.promotions(ctx, v.part.Table)
	if err != nil {
		return 0, 0, err
	}
	n, err := v.repair.Insert(ctx, v.part, p, rows, ps, token)
	return int64(n), 0, err
}

func (v *clickhouseView) remove(ctx context.Context, p int32, drops []drop, _ string) (int64, error) {
	all := make([]olap.Drop, len(drops))
	for i, d := range drops {
		all[i] = olap.Drop{Offset: d.offset, Keep: d.keep, Hash: d.hash, At: d.at}
	}
	n, err := v.repair.Delete(ctx, v.part, p, all)
	return int64(n), err
}

// RepairLake is what reconciliation asks of the lakehouse.
type RepairLake interface {
	Head(ctx context.Context, table string) (lakehouse.Head, error)
	Spots(ctx context.Context, table string, snapshot int64, p lakehouse.Part, within *lakehouse.Within, each func(lakehouse.Spot) error) error
	StoredRows(ctx context.Context, table string, snapshot int64, p lakehouse.Part, partition int32, offsets []int64, each func(event.Stored) error) error
	AppendRows(ctx context.Context, table, topicID, id string, rows []event.Stored) (lakehouse.Repaired, error)
	DropRows(ctx context.Context, table, id string, p lakehouse.Part, partition int32, drop map[int64]bool) (lakehouse.Repaired, error)
}

// IcebergStore is main of the Iceberg tables.
type IcebergStore struct {
	lake RepairLake
	log  *EventLog
}

// NewIcebergStore makes it; log may be nil.
func NewIcebergStore(lake RepairLake, log *EventLog) *IcebergStore { return &IcebergStore{lake, log} }

// Name implements ReconcileStore.
func (i *IcebergStore) Name() string { return "iceberg" }

func (i *IcebergStore) look(ctx context.Context, s slice) (view, error) {
	v := &icebergView{IcebergStore: i, table: s.table, part: lakehouse.Part{RawTopic: s.raw, From: s.from, To: s.to}}
	if err := v.pin(ctx, s.topic); err != nil {
		return nil, err
	}
	return v, nil
}

type icebergView struct {
	*IcebergStore
	table    string
	part     lakehouse.Part
	head     lakehouse.Head
	topic    string
	topicID  string
	snapshot int64
}

// pin reads the head: everything is compared at one snapshot. After a change of our own it is called again.
func (v *icebergView) pin(ctx context.Context, topic string) error {
	h, err := v.lake.Head(ctx, v.table)
	if err != nil {
		return err
	}
	v.head, v.topic, v.snapshot = h, topic, h.SnapshotID
	v.topicID = ""
	if v.log != nil {
		if v.topicID, err = v.log.TopicID(ctx, topic); err != nil {
			return err
		}
	}
	if v.topicID == "" && len(h.Vector) == 1 {
		for id := range h.Vector {
			v.topicID = id
		}
	}
	return nil
}

func (v *icebergView) name() string { return v.Name() }

func (v *icebergView) passed(p int32) int64 { return v.head.Vector.At(v.topicID, p) }

func (v *icebergView) sums(ctx context.Context, bounds map[int32][]int64) (map[int32]map[int64]event.Checksum, error) {
	out := map[int32]map[int64]event.Checksum{}
	for p := range bounds {
		out[p] = map[int64]event.Checksum{}
	}
	if v.snapshot == 0 {
		return out, nil
	}
	err := v.lake.Spots(ctx, v.table, v.snapshot, v.part, nil, func(s lakehouse.Spot) error {
		b, ok := bounds[s.RawPartition]
		if !ok {
			return nil
		}
		at := rangeOf(b, s.RawOffset)
		c := out[s.RawPartition][at]
		c.Add(s.Hash)
		out[s.RawPartition][at] = c
		return nil
	})
	return out, err
}

// rangeOf is the last bound that is not above an offset, -1 if there is none.
func rangeOf(bounds []int64, offset int64) int64 {
	lo, hi := 0, len(bounds)
	for lo < hi {
		if mid := (lo + hi) / 2; bounds[mid] <= offset {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return -1
	}
	return bounds[lo-1]
}

func (v *icebergView) spots(ctx context.Context, p int32, from, to int64, each func(spot) error) error {
	if v.snapshot == 0 {
		return nil
	}
	return v.lake.Spots(ctx, v.table, v.snapshot, v.part, &lakehouse.Within{Partition: p, From: from, To: to}, func(s lakehouse.Spot) error {
		return each(spot{s.RawOffset, s.Hash, s.At, 1})
	})
}

func (v *icebergView) rows(ctx context.Context, p int32, offsets []int64, each func(event.Stored) error) error {
	if v.snapshot == 0 {
		return nil
	}
	return v.lake.StoredRows(ctx, v.table, v.snapshot, v.part, p, offsets, each)
}

// errMoved says that a table was changed under a repair: what differs is to be looked for again.
var errMoved = errors.New("the table was changed meanwhile")

func moved(err error) error {
	if errors.Is(err, lakehouse.ErrConflict) {
		return fmt.Errorf("%w: %w", errMoved, err)
	}
	return err
}

func (v *icebergView) add(ctx context.Context, p int32, rows []event.Stored, token string) (int64, int64, error) {
	r, err := v.lake.AppendRows(ctx, v.table, v.topicID, fmt.Sprintf("%s:%d:add-%s", token, p, digestOfRows(rows)), rows)
	if err != nil {
		return 0, 0, moved(err)
	}
	return r.Rows, int64(len(r.Refused)), v.pin(ctx, v.topic)
}

func (v *icebergView) remove(ctx context.Context, p int32, drops []drop, token string) (int64, error) {
	all := make(map[int64]bool, len(drops))
	for _, d := range drops {
		all[d.offset] = d.keep
	}
	r, err := v.lake.DropRows(ctx, v.table, fmt.Sprintf("%s:%d:drop-%s", token, p, digestOfDrops(drops)), v.part, p, all)
	if err != nil {
		return 0, moved(err)
	}
	return r.Rows, v.pin(ctx, v.topic)
}
