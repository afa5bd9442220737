// Package ui is the dashboard: the page that people look at, built from TypeScript by Vite and embedded into the binary. It stands at the very end of the data
// flow and speaks only HTTP: everything it shows comes from /api/v1 of the same origin.
//
// dist is committed, so that building the binary needs no Node; `make ui` builds it anew and `make ui-check` proves that it is what the sources give.
package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
)

//go:embed all:dist
var dist embed.FS

// policy lets the page load and ask nothing but its own origin. Styles that scripts set through the object model need no 'unsafe-inline'.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; manifest-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// types names what the page consists of; the machine's own table of types differs from system to system.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	".png": "image/png", ".webmanifest": "application/manifest+json", ".txt": "text/plain; charset=utf-8",
}

// hashed are the names that change whenever the content does.
var hashed = regexp.MustCompile(`^assets/.+-[A-Za-z0-9_-]{8}\.[a-z]+$`)

// asset is one file as it is sent.
type asset struct {
	plain, zipped []byte // zipped is nil where it would not be smaller
	kind          string
	tag           string // of the plain form, quoted
	cache         string
}

type handler struct {
	assets map[string]*asset
}

// Handler serves the page: any path that is not a file gives index.html, for the page has its own addresses (/live, /health, …). Paths of the API never belong
// here: they must be registered beside it. It answers GET and HEAD only.
func Handler() http.Handler {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(fmt.Sprintf("ui: embedded files: %v", err)) // the path is a constant: cannot happen in a binary that was built
	}
	h, err := newHandler(sub)
	if err != nil {
		panic(fmt.Sprintf("ui: embedded files: %v", err)) // reading from memory
	}
	return h
}

func newHandler(files fs.FS) (*handler, error) {
	h := &handler{assets: map[string]*asset{}}
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		h.assets[name], err = newAsset(name, b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the dashboard's files: %w", err)
	}
	if h.assets["index.html"] == nil {
		return nil, fmt.Errorf("the dashboard's files have no index.html: %w", fs.ErrNotExist)
	}
	return h, nil
}

func newAsset(name string, b []byte) (*asset, error) {
	sum := sha256.Sum256(b)
	a := &asset{plain: b, kind: types[path.Ext(name)], tag: base64.RawURLEncoding.EncodeToString(sum[:12]), cache: "no-cache"}
	if a.kind == "" {
		a.kind = "application/octet-stream"
	}
	if hashed.MatchString(name) {
		a.cache = "public, max-age=31536000, immutable"
	}
	var buf bytes.Buffer
	zw, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := zw.Write(b); err != nil {
		return nil, err
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	if buf.Len() < len(b)*9/10 {
		a.zipped = buf.Bytes()
	}
	return a, nil
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	a := h.assets[name]
	switch {
	case a != nil:
	case path.Ext(name) != "" || strings.HasPrefix(name, "assets/"):
		// A missing file is an error: HTML in its place would only be cached or parsed as what it is not.
		http.NotFound(w, r)
		return
	default:
		a = h.assets["index.html"]
	}
	a.serve(w, r)
}

func (a *asset) serve(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	body, tag := a.plain, `"`+a.tag+`"`
	if a.zipped != nil {
		head.Add("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Get("Accept-Encoding")) {
			body, tag = a.zipped, `"`+a.tag+`-gz"`
			head.Set("Content-Encoding", "gzip")
		}
	}
	head.Set("Content-Type", a.kind)
	head.Set("Cache-Control", a.cache)
	head.Set("ETag", tag)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "same-origin")
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Content-Security-Policy", policy)
	if matches(r.Header.Get("If-None-Match"), a.tag) {
		head.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	head.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(body) // the client has gone away: nobody to tell
}

// acceptsGzip reads Accept-Encoding: gzip or * without q=0.
func acceptsGzip(header string) bool {
	for one := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(one), ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") && strings.TrimSpace(name) != "*" {
			continue
		}
		q := strings.TrimPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		if v, err := strconv.ParseFloat(q, 64); params == "" || (err == nil && v > 0) {
			return true
		}
	}
	return false
}

// matches says whether If-None-Match names either form of the content; weak tags count, as its comparison is the weak one.
func matches(header, tag string) bool {
	for one := range strings.SplitSeq(header, ",") {
		one = strings.Trim(strings.TrimPrefix(strings.TrimSpace(one), "W/"), `"`)
		if one == "*" || one == tag || one == tag+"-gz" {
			return true
		}
	}
	return false
}
