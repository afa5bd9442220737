package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
)

type clickHouseTable struct {
	Name   string `json:"name"`
	Rows   int64  `json:"rows"`
	Bytes  int64  `json:"bytes"`
	Parts  int64  `json:"parts"`
	Newest *stamp `json:"newest"`
}

type icebergTable struct {
	Name       string  `json:"name"`
	Rows       int64   `json:"rows"`
	Bytes      int64   `json:"bytes"`
	Files      int64   `json:"files"`
	Snapshots  int     `json:"snapshots"`
	SnapshotID *string `json:"snapshot_id"`
	Newest     *stamp  `json:"newest"`
}

type tablesOf[T any] struct {
	Available bool   `json:"available"`
	Detail    string `json:"detail"`
	Tables    []T    `json:"tables"`
}

// tables is the answer of /api/v1/tables.
type tables struct {
	AsOf       stamp                     `json:"as_of"`
	ClickHouse tablesOf[clickHouseTable] `json:"clickhouse"`
	Iceberg    tablesOf[icebergTable]    `json:"iceberg"`
}

func (a *API) serveTables(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err == nil {
		err = q.err()
	}
	if err != nil {
		return nil, err
	}
	return a.flights.do(r.Context(), "tables", func(ctx context.Context) ([]byte, error) {
		out := &tables{AsOf: stamp(a.now())}
		out.ClickHouse.Tables, out.Iceberg.Tables = []clickHouseTable{}, []icebergTable{}
		if err := a.clickHouseTables(ctx, &out.ClickHouse); err != nil {
			a.log.WarnContext(ctx, "tables of ClickHouse not read", "error", err)
			out.ClickHouse.Detail = "ClickHouse does not answer"
		}
		if err := a.icebergTables(ctx, &out.Iceberg); err != nil {
			a.log.WarnContext(ctx, "tables of Iceberg not read", "error", err)
			out.Iceberg.Detail = "the Iceberg catalog does not answer"
		}
		return encode(out, nil)
	})
}

func (a *API) clickHouseTables(ctx context.Context, out *tablesOf[clickHouseTable]) error {
	release, err := a.flights.place(ctx)
	if err != nil {
		return err
	}
	defer release()
	sizes, err := a.olap.Tables(ctx)
	if err != nil {
		return err
	}
	newest, err := a.olap.Newest(ctx)
	if err != nil {
		return err
	}
	for _, t := range sizes {
		name := strings.TrimSuffix(t.Name, "_local") // what a cluster's shard holds of the table
		out.Tables = append(out.Tables, clickHouseTable{name, t.Rows, t.Bytes, t.Parts, stampOf(newest[name])})
	}
	out.Available = true
	return nil
}

func (a *API) icebergTables(ctx context.Context, out *tablesOf[icebergTable]) error {
	if a.lake == nil {
		out.Detail = "no Iceberg catalog is configured"
		return nil
	}
	all, err := a.lake.Tables(ctx)
	if err != nil {
		return err
	}
	for _, t := range all {
		one := icebergTable{Name: t.Name, Rows: t.Rows, Bytes: t.Bytes, Files: t.Files, Snapshots: t.Snapshots, Newest: stampOf(t.Committed)}
		for _, ref := range t.Refs {
			if ref.Name == "main" {
				id := strconv.FormatInt(ref.SnapshotID, 10)
				one.SnapshotID = &id
			}
		}
		out.Tables = append(out.Tables, one)
	}
	out.Available = true
	return nil
}
