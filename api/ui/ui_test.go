package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

type answer struct {
	status int
	header http.Header
	body   string
}

func ask(t *testing.T, h http.Handler, method, target string, header ...string) answer {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

func TestPaths(t *testing.T) {
	script := strings.Repeat("console.log(1);\n", 100)
	h, err := newHandler(fstest.MapFS{
		"index.html":               {Data: []byte("<!doctype html>")},
		"favicon.svg":              {Data: []byte("<svg/>")},
		"assets/index-AbC_-123.js": {Data: []byte(script)},
	})
	if err != nil {
		t.Fatal(err)
	}
	const forever, asked = "public, max-age=31536000, immutable", "no-cache"
	for name, c := range map[string]struct {
		path        string
		status      int
		kind, cache string
	}{
		"the root is the page":                         {"/", 200, "text/html; charset=utf-8", asked},
		"a page's own address is the page":             {"/health", 200, "text/html; charset=utf-8", asked},
		"a page's address with a tail is the page":     {"/failed/bad_time", 200, "text/html; charset=utf-8", asked},
		"the page by name":                             {"/index.html", 200, "text/html; charset=utf-8", asked},
		"a hashed asset is kept for ever":              {"/assets/index-AbC_-123.js", 200, "text/javascript; charset=utf-8", forever},
		"a file without a hash is asked for again":     {"/favicon.svg", 200, "image/svg+xml", asked},
		"an asset of another build is not the page":    {"/assets/index-OLD_0000.js", 404, "text/plain; charset=utf-8", ""},
		"a missing file is not the page":               {"/robots.txt", 404, "text/plain; charset=utf-8", ""},
		"a path that climbs out stays inside":          {"/../../ui.go", 404, "text/plain; charset=utf-8", ""},
		"a path that climbs to an asset is that asset": {"/x/../favicon.svg", 200, "image/svg+xml", asked},
		"a path with a query is judged without it":     {"/live?category=page", 200, "text/html; charset=utf-8", asked},
		"a directory of assets is not listed":          {"/assets/", 200, "text/html; charset=utf-8", asked},
	} {
		t.Run(name, func(t *testing.T) {
			res := ask(t, h, http.MethodGet, c.path)
			got := []any{res.status, res.header.Get("Content-Type"), res.header.Get("Cache-Control")}
			if diff := cmp.Diff([]any{c.status, c.kind, c.cache}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompressionAndTags(t *testing.T) {
	script := strings.Repeat("console.log(1);\n", 100)
	h, err := newHandler(fstest.MapFS{"index.html": {Data: []byte("x")}, "assets/a-12345678.js": {Data: []byte(script)}})
	if err != nil {
		t.Fatal(err)
	}
	const target = "/assets/a-12345678.js"
	plain := ask(t, h, http.MethodGet, target)
	if got := plain.body; got != script || plain.header.Get("Content-Encoding") != "" {
		t.Errorf("without Accept-Encoding the content must come as it is, got %d bytes, encoding %q", len(got), plain.header.Get("Content-Encoding"))
	}
	for _, refused := range []string{"br", "gzip;q=0", "identity", "gzipped"} {
		res := ask(t, h, http.MethodGet, target, "Accept-Encoding", refused)
		if res.header.Get("Content-Encoding") != "" {
			t.Errorf("Accept-Encoding %q got gzip", refused)
		}
	}
	zipped := ask(t, h, http.MethodGet, target, "Accept-Encoding", "br, gzip;q=0.5")
	zr, err := gzip.NewReader(bytes.NewBufferString(zipped.body))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(zr); err != nil || string(b) != script {
		t.Errorf("unzipped content differs: %d bytes, %v", len(b), err)
	}
	if plain.header.Get("ETag") == zipped.header.Get("ETag") {
		t.Error("both forms have one tag")
	}
	for name, tag := range map[string]string{
		"the plain form's tag": plain.header.Get("ETag"), "the zipped form's tag": zipped.header.Get("ETag"), "any": "*",
		"a weak tag in a list": `"other", W/` + plain.header.Get("ETag"),
	} {
		res := ask(t, h, http.MethodGet, target, "If-None-Match", tag, "Accept-Encoding", "gzip")
		if got := res.body; res.status != http.StatusNotModified || got != "" || res.header.Get("Content-Encoding") != "" {
			t.Errorf("%s: status %d, %d bytes, want 304 and none", name, res.status, len(got))
		}
	}
	if res := ask(t, h, http.MethodGet, target, "If-None-Match", `"other"`); res.status != 200 {
		t.Errorf("another tag: status %d, want 200", res.status)
	}
	if res := ask(t, h, http.MethodHead, target); res.body != "" || res.header.Get("Content-Length") == "0" {
		t.Error("HEAD must have the length and no body")
	}
	if res := ask(t, h, http.MethodPost, "/"); res.status != http.StatusMethodNotAllowed || res.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: status %d, Allow %q", res.status, res.header.Get("Allow"))
	}
}

func TestNoPageIsAnError(t *testing.T) {
	if _, err := newHandler(fstest.MapFS{"other.txt": {Data: []byte("x")}}); err == nil {
		t.Error("files without index.html were accepted")
	}
}

// TestEmbeddedPage holds what the policy promises over the real build: nothing inline, nothing from elsewhere, and every file that it names is there.
func TestEmbeddedPage(t *testing.T) {
	h := Handler()
	res := ask(t, h, http.MethodGet, "/")
	page := res.body
	csp := res.header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("content security policy %q", csp)
	}
	if m := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script(?:\s[^>]*)?>\s*[^<\s]`).FindString(page); m != "" {
		t.Errorf("inline code in the page: %q", m)
	}
	refs := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(refs) < 3 {
		t.Fatalf("the page names %d files, want its script, style and icon", len(refs))
	}
	for _, ref := range refs {
		if !strings.HasPrefix(ref[1], "/") || strings.HasPrefix(ref[1], "//") {
			t.Errorf("%s is not of this origin", ref[1])
			continue
		}
		file := ask(t, h, http.MethodGet, ref[1])
		if n := len(file.body); file.status != 200 || n == 0 || strings.HasPrefix(file.header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: status %d, %d bytes of %s", ref[1], file.status, n, file.header.Get("Content-Type"))
		}
	}
}

// TestDistIsCurrent finds sources that were changed without `make ui`: the build leaves their digest in build.txt (vite.config.ts computes the same).
// That the output is what these sources give is shown by `make ui-check`, which builds it again.
func TestDistIsCurrent(t *testing.T) {
	files := []string{"index.html", "package-lock.json", "package.json", "tsconfig.json", "vite.config.ts"}
	for _, dir := range []string{"public", "src"} {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				files = append(files, filepath.ToSlash(name))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	lines := make([]string, 0, len(files))
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		lines = append(lines, name+" "+hex.EncodeToString(sum[:])+"\n")
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	built, err := fs.ReadFile(dist, "dist/build.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(built)); got != hex.EncodeToString(sum[:]) {
		t.Errorf("dist was built from other sources: run `make ui` (build.txt %s, sources %x)", got, sum)
	}
}
