package api

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go/catalog"

	"millrace/lakehouse"
)

// tableRef is where a ref of an Iceberg table stands.
type tableRef struct {
	Name       string           `json:"name"`
	Kind       string           `json:"kind"`
	SnapshotID string           `json:"snapshot_id"` // beyond what JavaScript counts
	At         stamp            `json:"at"`
	Until      *stamp           `json:"until"`
	Lease      bool             `json:"lease"`
	Offsets    lakehouse.Vector `json:"offsets"`
}

// tableRefs is the answer of /api/v1/tables/{table}/refs.
type tableRefs struct {
	AsOf      stamp      `json:"as_of"`
	Table     string     `json:"table"`
	Available bool       `json:"available"`
	Detail    string     `json:"detail"`
	Refs      []tableRef `json:"refs"`
}

var tableName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,127}$`)

func (a *API) serveRefs(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err == nil {
		err = q.err()
	}
	if err != nil {
		return nil, err
	}
	table := r.PathValue("table")
	if !tableName.MatchString(table) {
		return nil, newProblem(idPath, "there is no table "+clean(table))
	}
	return a.flights.do(r.Context(), "refs\x00"+table, func(ctx context.Context) ([]byte, error) {
		out := &tableRefs{AsOf: stamp(a.now()), Table: table, Refs: []tableRef{}}
		if a.lake == nil {
			out.Detail = "no Iceberg catalog is configured"
			return encode(out, nil)
		}
		refs, err := a.lake.Refs(ctx, table)
		if errors.Is(err, catalog.ErrNoSuchTable) {
			return nil, newProblem(idPath, "there is no table "+table)
		}
		if err != nil {
			a.log.WarnContext(ctx, "refs of an Iceberg table not read", "table", table, "error", err)
			out.Detail = "the Iceberg catalog does not answer"
			return encode(out, nil)
		}
		for _, ref := range refs {
			out.Refs = append(out.Refs, tableRef{
				ref.Name, ref.Kind, strconv.FormatInt(ref.SnapshotID, 10), stamp(ref.At), stampOf(ref.Until), strings.HasPrefix(ref.Name, lakehouse.LeasePrefix), ref.Vector,
			})
		}
		out.Available = true
		return encode(out, nil)
	})
}
