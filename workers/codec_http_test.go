package workers

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	commonpb "go.temporal.io/api/common/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"millrace/internal/fault"
)

func TestTheAPIDecryptsForTheTemporalUIOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := strings.Repeat("t0", 20)
	cfg := TemporalConfig{EncryptionKeyFile: file("keys", testKey("a", 0)), CodecTokenFile: file("token", token+"\n"), UI: "http://ui.example:8233/"}
	dashboard := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "dashboard") })
	h, err := codecBefore(cfg, dashboard)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := mustKeys(t, testKey("a", 0)).Encode([]*commonpb.Payload{{Metadata: map[string][]byte{"encoding": []byte("json/plain")}, Data: []byte(`{"day":"2026-10-22"}`)}})
	if err != nil {
		t.Fatal(err)
	}
	body, err := protojson.Marshal(&commonpb.Payloads{Payloads: locked})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, origin string) *httptest.ResponseRecorder {
		req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(string(body)))
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		return w
	}
	const ui = "http://ui.example:8233"
	w := ask(http.MethodPost, "/codec/"+token+"/decode", ui)
	var got commonpb.Payloads
	if err := protojson.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK || string(got.GetPayloads()[0].GetData()) != `{"day":"2026-10-22"}` || w.Header().Get("Access-Control-Allow-Origin") != ui {
		t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
	}
	if w := ask(http.MethodOptions, "/codec/"+token+"/decode", ui); w.Code != http.StatusNoContent || w.Header().Get("Access-Control-Allow-Origin") != ui {
		t.Errorf("the browser's question first: %d %v", w.Code, w.Header())
	}
	for what, c := range map[string]struct {
		method, path, origin string
		status               int
	}{
		"another page":  {http.MethodPost, "/codec/" + token + "/decode", "http://evil.example", http.StatusForbidden},
		"a wrong token": {http.MethodPost, "/codec/" + strings.Repeat("x", 40) + "/decode", ui, http.StatusNotFound},
		"no token":      {http.MethodPost, "/codec/decode", ui, http.StatusNotFound},
		"encryption":    {http.MethodPost, "/codec/" + token + "/encode", ui, http.StatusNotFound},
		"a look":        {http.MethodGet, "/codec/" + token + "/decode", ui, http.StatusMethodNotAllowed},
	} {
		if w := ask(c.method, c.path, c.origin); w.Code != c.status || strings.Contains(w.Body.String(), "2026-10-22") {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
	}
	if w := ask(http.MethodGet, "/", ""); w.Body.String() != "dashboard" {
		t.Errorf("the dashboard is gone: %s", w.Body)
	}
	cfg.CodecTokenFile = file("short", "short")
	if _, err := codecBefore(cfg, dashboard); err == nil {
		t.Error("a short token is taken")
	} else if id, _ := fault.IDOf(err); id != "MR-NIT-003" {
		t.Error(err)
	}
	if plain, err := codecBefore(TemporalConfig{}, dashboard); err != nil || plain == nil {
		t.Error(err)
	}
}
