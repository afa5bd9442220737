package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"millrace/internal/fault"
	"millrace/olap"
)

// The ids of this package's errors; internal/fault has their remedies.
const (
	idRequest     fault.ID = "MR-API-001"
	idRange       fault.ID = "MR-API-002"
	idBusy        fault.ID = "MR-API-003"
	idUnavailable fault.ID = "MR-API-004"
	idTooLarge    fault.ID = "MR-API-005"
	idPath        fault.ID = "MR-API-006"
	idMethod      fault.ID = "MR-API-007"
	idInternal    fault.ID = "MR-API-008"
)

// statuses gives each id its HTTP status.
var statuses = map[fault.ID]int{
	idRequest: http.StatusBadRequest, idRange: http.StatusBadRequest, idBusy: http.StatusServiceUnavailable, idUnavailable: http.StatusServiceUnavailable,
	idTooLarge: http.StatusServiceUnavailable, idPath: http.StatusNotFound, idMethod: http.StatusMethodNotAllowed, idInternal: http.StatusInternalServerError, idModel: http.StatusNotFound, idAlert: http.StatusNotFound, idProduct: http.StatusNotFound,
}

// fieldError says what is wrong with one parameter.
type fieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// problem is the body of an error, RFC 9457.
type problem struct {
	Type   string       `json:"type"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	ID     fault.ID     `json:"id"`
	Remedy string       `json:"remedy"`
	Errors []fieldError `json:"errors"`
}

// Error makes a problem an error, so that any depth can return one.
func (p *problem) Error() string { return p.Detail }

func newProblem(id fault.ID, detail string, fields ...fieldError) *problem {
	e, _ := fault.Lookup(id)
	if fields == nil {
		fields = []fieldError{}
	}
	return &problem{Type: "docs/errors.md#" + strings.ToLower(string(id)), Title: e.Title, Status: statuses[id], Detail: detail, ID: id, Remedy: e.Remedy, Errors: fields}
}

// problemOf turns any error into what the client is told. The text of unexpected errors stays in the log.
func problemOf(err error) *problem {
	var p *problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, errBusy):
		return newProblem(idBusy, "no place for this question became free in time")
	case olap.Exceeded(err):
		return newProblem(idTooLarge, "the query reached its limit of time, memory or rows")
	case olap.Code(err) == 202: // TOO_MANY_SIMULTANEOUS_QUERIES
		return newProblem(idBusy, "ClickHouse runs as many queries as it may")
	case olap.Code(err) != 0: // it answers, but not as it should
		return newProblem(idUnavailable, "ClickHouse refused the query")
	case isDefect(err):
		return newProblem(idInternal, "the answer could not be made")
	}
	return newProblem(idUnavailable, "ClickHouse does not answer")
}

// isDefect tells errors of this program from those of a connection.
func isDefect(err error) bool {
	var m *json.UnsupportedValueError
	var d defectError
	return errors.As(err, &m) || errors.As(err, &d)
}

// defectError marks an error that no store is guilty of.
type defectError struct{ error }

func (d defectError) Unwrap() error { return d.error }

// fail answers with a problem.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return // the client has gone away
	}
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError {
		a.log.WarnContext(r.Context(), "question not answered", "path", r.URL.Path, "id", string(p.ID), "error", err)
	}
	a.m.problems.WithLabelValues(string(p.ID)).Inc()
	writeProblem(w, p)
}

func writeProblem(w http.ResponseWriter, p *problem) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(retryAfter))
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client has gone away: nobody to tell
}

// retryAfter is in how many seconds a client may ask again after a 503.
const retryAfter = 1
