package workers

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"go.temporal.io/sdk/converter"

	"millrace/internal/fault"
)

const (
	codecPath  = "/codec/"
	codecBody  = 16 << 20 // a page of a history
	codecToken = 32       // characters at least of the secret part of its address
)

// codecServer decrypts for the Temporal UI, which asks from the browser: POST /codec/<token>/decode. The token is the permission, since the UI can send no other without a
// login of its own; only pages of the UI's origin may read the answer. It does not encrypt: the UI starts workflows with plain JSON.
type codecServer struct {
	codec  http.Handler
	token  string
	origin string
	next   http.Handler
}

// codecBefore answers at /codec/ where temporal.codec_token_file is set, and leaves everything else to next.
func codecBefore(c TemporalConfig, next http.Handler) (http.Handler, error) {
	if c.CodecTokenFile == "" {
		return next, nil
	}
	codec, err := newCodec(c.EncryptionKeyFile)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(c.CodecTokenFile)
	if err != nil {
		return nil, fault.Newf("MR-NIT-003", "temporal.codec_token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < codecToken || url.PathEscape(token) != token {
		return nil, fault.Newf("MR-NIT-003", "temporal.codec_token_file: %s does not hold one line of at least %d characters that an address takes", c.CodecTokenFile, codecToken)
	}
	ui, err := url.Parse(c.UI)
	if err != nil {
		return nil, fault.Newf("MR-NIT-003", "temporal.ui: %w", err)
	}
	return &codecServer{codec: converter.NewPayloadCodecHTTPHandler(codec), token: token, origin: fmt.Sprintf("%s://%s", ui.Scheme, ui.Host), next: next}, nil
}

// ServeHTTP implements http.Handler.
func (s *codecServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, ours := strings.CutPrefix(r.URL.Path, codecPath)
	if !ours {
		s.next.ServeHTTP(w, r)
		return
	}
	token, what, _ := strings.Cut(rest, "/")
	if subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) != 1 || what != "decode" {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Vary", "Origin")
	if origin := r.Header.Get("Origin"); origin != "" {
		if origin != s.origin {
			http.Error(w, "another page than the Temporal UI", http.StatusForbidden)
			return
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Methods", "POST")
		h.Set("Access-Control-Allow-Headers", "Content-Type, X-Namespace, Authorization")
	}
	switch r.Method {
	case http.MethodOptions:
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPost:
		r.Body = http.MaxBytesReader(w, r.Body, codecBody)
		s.codec.ServeHTTP(w, r)
	default:
		h.Set("Allow", "POST, OPTIONS")
		http.Error(w, "POST only", http.StatusMethodNotAllowed)
	}
}
