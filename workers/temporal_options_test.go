package workers

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/internal/fault"
)

func TestTheConnectionToTemporalTrustsWhomItIsTold(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it are what is tested
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	dial := func(c TemporalTLS) error {
		conf, err := c.config()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", srv.Listener.Addr().String())
		if err != nil {
			return err
		}
		return conn.Close()
	}
	if err := dial(TemporalTLS{Enabled: true, CAFile: ca, ServerName: "example.com"}); err != nil { // a name of the test server's certificate
		t.Errorf("the named CA: %v", err)
	}
	if err := dial(TemporalTLS{Enabled: true}); err == nil {
		t.Error("a server that nobody trusts is trusted")
	}
	if err := dial(TemporalTLS{Enabled: true, CAFile: ca, ServerName: "temporal.example.org"}); err == nil {
		t.Error("a server of another name is trusted")
	}
}

func TestWrongCredentialsOfTemporalAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := DefaultConfig().Temporal
	base.Address = "127.0.0.1:1"
	for what, c := range map[string]struct {
		change func(*TemporalConfig)
		id     fault.ID
		says   string
	}{
		"no CA":            {func(c *TemporalConfig) { c.TLS = TemporalTLS{Enabled: true, CAFile: filepath.Join(dir, "none")} }, "MR-NIT-003", "temporal.tls.ca_file"},
		"a CA of no PEM":   {func(c *TemporalConfig) { c.TLS = TemporalTLS{Enabled: true, CAFile: empty} }, "MR-NIT-003", "holds no certificate"},
		"no certificate":   {func(c *TemporalConfig) { c.TLS = TemporalTLS{Enabled: true, CertFile: empty, KeyFile: empty} }, "MR-NIT-003", "temporal.tls.cert_file"},
		"no API key":       {func(c *TemporalConfig) { c.APIKeyFile = filepath.Join(dir, "none") }, "MR-NIT-003", "temporal.api_key_file"},
		"an empty API key": {func(c *TemporalConfig) { c.APIKeyFile = empty }, "MR-NIT-003", "is empty"},
		"no keys":          {func(c *TemporalConfig) { c.EncryptionKeyFile = empty }, "MR-NIT-001", "there is no key"},
	} {
		cfg := base
		c.change(&cfg)
		_, err := temporalOptions(cfg, slog.New(slog.DiscardHandler))
		if id, _ := fault.IDOf(err); id != c.id || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, c := range map[string]func(*TemporalConfig){
		"half a certificate":    func(c *TemporalConfig) { c.TLS = TemporalTLS{Enabled: true, CertFile: empty} },
		"a CA without TLS":      func(c *TemporalConfig) { c.TLS = TemporalTLS{CAFile: empty} },
		"half a deployment":     func(c *TemporalConfig) { c.Deployment.Name = "millrace" },
		"a deployment with dot": func(c *TemporalConfig) { c.Deployment = TemporalDeployment{"a.b", "1"} },
	} {
		cfg := base
		c(&cfg)
		if err := cfg.Validate(); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if err := base.Validate(); err != nil {
		t.Error(err)
	}
}
