package registry

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The content types of the API, the preferred one first.
var contentTypes = []string{"application/vnd.schemaregistry.v1+json", "application/vnd.schemaregistry+json", "application/json"}

// latest stands for the newest version.
const latest = -1

// route is one path of the API. {} in the pattern is an argument.
type route struct {
	method, pattern string
	serve           func(*Registry, *request) (any, *apiError)
}

// routes is the API.
var routes = []route{
	{"GET", "/", (*Registry).root},
	{"GET", "/subjects", (*Registry).listSubjects},
	{"POST", "/subjects/{}", (*Registry).lookup},
	{"DELETE", "/subjects/{}", (*Registry).deleteSubject},
	{"GET", "/subjects/{}/versions", (*Registry).listVersions},
	{"POST", "/subjects/{}/versions", (*Registry).register},
	{"GET", "/subjects/{}/versions/{}", (*Registry).getVersion},
	{"DELETE", "/subjects/{}/versions/{}", (*Registry).deleteVersion},
	{"GET", "/subjects/{}/versions/{}/schema", (*Registry).getVersionText},
	{"GET", "/subjects/{}/versions/{}/referencedby", (*Registry).getReferencedBy},
	{"GET", "/schemas", (*Registry).listSchemas},
	{"GET", "/schemas/types", (*Registry).listTypes},
	{"GET", "/schemas/ids/{}", (*Registry).getID},
	{"GET", "/schemas/ids/{}/schema", (*Registry).getIDText},
	{"GET", "/schemas/ids/{}/subjects", (*Registry).getIDSubjects},
	{"GET", "/schemas/ids/{}/versions", (*Registry).getIDVersions},
	{"GET", "/schemas/guids/{}", (*Registry).getGUID},
	{"GET", "/schemas/guids/{}/ids", (*Registry).getGUID},
	{"GET", "/config", (*Registry).getConfig},
	{"PUT", "/config", (*Registry).putConfig},
	{"DELETE", "/config", (*Registry).deleteConfig},
	{"GET", "/config/{}", (*Registry).getConfig},
	{"PUT", "/config/{}", (*Registry).putConfig},
	{"DELETE", "/config/{}", (*Registry).deleteConfig},
	{"GET", "/mode", (*Registry).getMode},
	{"PUT", "/mode", (*Registry).putMode},
	{"DELETE", "/mode", (*Registry).deleteMode},
	{"GET", "/mode/{}", (*Registry).getMode},
	{"PUT", "/mode/{}", (*Registry).putMode},
	{"DELETE", "/mode/{}", (*Registry).deleteMode},
	{"POST", "/compatibility/subjects/{}/versions", (*Registry).checkAll},
	{"POST", "/compatibility/subjects/{}/versions/{}", (*Registry).checkVersion},
	{"GET", "/contexts", (*Registry).listContexts},
	{"DELETE", "/contexts/{}", (*Registry).deleteContext},
}

// request is what a handler sees.
type request struct {
	*http.Request
	args  []string
	query url.Values
	body  []byte
}

// text is an answer that is sent as it is: the schema, not a JSON string of it.
type text string

// ServeHTTP answers one request of the API.
func (r *Registry) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	accepted := accept(hr.Header.Values("Accept"))
	label := "other"
	answer, failure := func() (any, *apiError) {
		rt, req, failure := match(hr)
		if failure != nil {
			return nil, failure
		}
		label = rt.pattern
		if accepted == "" {
			return nil, errorf(http.StatusNotAcceptable, http.StatusNotAcceptable, "HTTP 406 Not Acceptable: the answer is %s", contentTypes[0])
		}
		if failure := r.readBody(w, req); failure != nil {
			return nil, failure
		}
		if !r.Ready() {
			return nil, errUnavailable()
		}
		return rt.serve(r, req)
	}()
	status := http.StatusOK
	if failure != nil {
		status, answer = failure.Status, failure
	}
	var raw []byte
	if t, ok := answer.(text); ok {
		raw = []byte(t)
	} else {
		var err error
		if raw, err = marshal(answer); err != nil {
			status, raw = http.StatusInternalServerError, []byte(`{"error_code":500,"message":"the answer could not be encoded"}`)
			r.log.Error("answer could not be encoded", "route", label, "error", err)
		}
	}
	r.metrics.requests.WithLabelValues(label, methodLabel(hr.Method), strconv.Itoa(status)).Inc()
	h := w.Header()
	h.Set("Content-Type", cmp.Or(accepted, contentTypes[0]))
	h.Set("Content-Length", strconv.Itoa(len(raw)))
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_, _ = w.Write(raw) // the client is gone if this fails
}

// methodLabel bounds what a client can put into the metrics.
func methodLabel(m string) string {
	if slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "DELETE"}, m) {
		return m
	}
	return "other"
}

// match finds the route of a request and its arguments, which are unescaped segment by segment, so that a subject may hold a
// slash.
func match(hr *http.Request) (*route, *request, *apiError) {
	segments := strings.Split(strings.Trim(hr.URL.EscapedPath(), "/"), "/")
	for i, s := range segments {
		u, err := url.PathUnescape(s)
		if err != nil {
			return nil, nil, errorf(http.StatusBadRequest, http.StatusBadRequest, "HTTP 400 Bad Request: the path cannot be unescaped")
		}
		segments[i] = u
	}
	if len(segments) > 2 && segments[0] == "contexts" {
		if !slices.Contains([]string{".", ":.:"}, segments[1]) {
			return nil, nil, notFound(http.StatusNotFound, "Context '%s' not found: this registry has the default context only", segments[1])
		}
		segments = segments[2:]
	}
	method := hr.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	known := false
	for i := range routes {
		args, ok := routes[i].args(segments)
		if !ok {
			continue
		}
		known = true
		if routes[i].method != method {
			continue
		}
		query, err := url.ParseQuery(hr.URL.RawQuery)
		if err != nil {
			return nil, nil, errorf(http.StatusBadRequest, http.StatusBadRequest, "HTTP 400 Bad Request: the query cannot be parsed")
		}
		return &routes[i], &request{Request: hr, args: args, query: query}, nil
	}
	if known {
		return nil, nil, errorf(http.StatusMethodNotAllowed, http.StatusMethodNotAllowed, "HTTP 405 Method Not Allowed")
	}
	return nil, nil, notFound(http.StatusNotFound, "HTTP 404 Not Found")
}

func (rt *route) args(segments []string) ([]string, bool) {
	want := strings.Split(strings.Trim(rt.pattern, "/"), "/")
	if len(want) != len(segments) {
		return nil, false
	}
	var args []string
	for i, s := range want {
		switch {
		case s == "{}":
			args = append(args, segments[i])
		case s != segments[i]:
			return nil, false
		}
	}
	return args, true
}

// accept picks the content type of the answer; "" if the client takes none that there is.
func accept(headers []string) string {
	if len(headers) == 0 {
		return contentTypes[0]
	}
	for _, part := range strings.Split(strings.Join(headers, ","), ",") {
		mt, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil {
			continue
		}
		if q, err := strconv.ParseFloat(params["q"], 64); err == nil && q == 0 {
			continue
		}
		switch {
		case mt == "*/*" || mt == "application/*":
			return contentTypes[0]
		case slices.Contains(contentTypes, mt):
			return mt
		}
	}
	return ""
}

// readBody takes the body of a request that has one.
func (r *Registry) readBody(w http.ResponseWriter, req *request) *apiError {
	if req.Method != http.MethodPost && req.Method != http.MethodPut {
		return nil
	}
	if ct := req.Header.Get("Content-Type"); ct != "" {
		mt, _, err := mime.ParseMediaType(ct)
		if err != nil || !slices.Contains(contentTypes, mt) && mt != "application/octet-stream" {
			return errorf(http.StatusUnsupportedMediaType, http.StatusUnsupportedMediaType, "HTTP 415 Unsupported Media Type: send %s", contentTypes[0])
		}
	}
	if enc := req.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return errorf(http.StatusUnsupportedMediaType, http.StatusUnsupportedMediaType, "HTTP 415 Unsupported Media Type: content encodings are not supported")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, r.cfg.MaxBodyBytes))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return errorf(http.StatusRequestEntityTooLarge, http.StatusRequestEntityTooLarge, "HTTP 413 Request Entity Too Large: at most %d bytes", tooLarge.Limit)
		}
		return errorf(http.StatusBadRequest, http.StatusBadRequest, "HTTP 400 Bad Request: the body cannot be read")
	}
	req.body = body
	return nil
}

// decode reads the body; members that are not in v are ignored, as newer clients send more than older servers know.
func (q *request) decode(v any) *apiError {
	if !utf8.Valid(q.body) {
		return errorf(http.StatusBadRequest, http.StatusBadRequest, "HTTP 400 Bad Request: the body is not UTF-8")
	}
	var wrongType *json.UnmarshalTypeError
	if err := json.Unmarshal(q.body, v); errors.As(err, &wrongType) {
		return errorf(http.StatusBadRequest, http.StatusBadRequest, "HTTP 400 Bad Request: %s has the wrong JSON type (%s)", cmp.Or(wrongType.Field, "the body"), wrongType.Value)
	} else if err != nil {
		return errorf(http.StatusBadRequest, http.StatusBadRequest, "HTTP 400 Bad Request: %s", err)
	}
	return nil
}

func (q *request) flag(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(q.query.Get(n), "true") })
}

// page cuts list to the offset and limit of the query.
func page[T any](q *request, list []T) ([]T, *apiError) {
	from, limit := 0, -1
	for name, at := range map[string]*int{"offset": &from, "limit": &limit} {
		if s := q.query.Get(name); s != "" {
			n, err := strconv.ParseInt(s, 10, 32)
			if err != nil {
				return nil, errorf(http.StatusBadRequest, http.StatusBadRequest, "HTTP 400 Bad Request: %s is not a number", name)
			}
			*at = int(n)
		}
	}
	list = list[min(max(from, 0), len(list)):]
	if limit >= 0 {
		list = list[:min(limit, len(list))]
	}
	return list, nil
}

// subject gives the subject of the path: the default context's prefix is taken off, other contexts are refused.
func (q *request) subject() (string, *apiError) { return checkSubject(q.args[0]) }

func checkSubject(s string) (string, *apiError) {
	s = strings.TrimPrefix(s, ":.:")
	switch {
	case s == "" || s == "__GLOBAL" || s == "__EMPTY",
		len(s) > maxSubjectLen,
		!utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		shown := s
		if len(shown) > maxSubjectLen {
			shown = strings.ToValidUTF8(shown[:maxSubjectLen], "") + "…"
		}
		return "", unprocessable(codeInvalidSubject, "The specified subject '%s' is not valid: a subject has 1 to %d bytes of UTF-8 without control characters", shown, maxSubjectLen)
	case strings.HasPrefix(s, ":.") || strings.HasPrefix(s, ":*:"):
		return "", unprocessable(codeInvalidSubject, "The specified subject '%s' names a context; this registry has the default context only", s)
	}
	return s, nil
}

// optionalSubject is subject for paths that are also served without one, then "".
func (q *request) optionalSubject() (string, *apiError) {
	if len(q.args) == 0 {
		return "", nil
	}
	return q.subject()
}

// version gives the version of the path.
func (q *request) version() (int, *apiError) {
	s := q.args[1]
	if s == "latest" || s == "-1" {
		return latest, nil
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 1 {
		return 0, unprocessable(codeInvalidVersion, "The specified version '%s' is not a valid version id. Allowed values are between [1, %d] and the string \"latest\"", s, math.MaxInt32)
	}
	return int(n), nil
}

// id gives the schema id of the path.
func (q *request) id() (int, *apiError) {
	n, err := strconv.ParseInt(q.args[0], 10, 32)
	if err != nil {
		return 0, notFound(http.StatusNotFound, "HTTP 404 Not Found: '%s' is not a schema id", q.args[0])
	}
	return int(n), nil
}

// marshal encodes JSON as Confluent does: <, > and & stand for themselves.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
