package workers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	tlog "go.temporal.io/sdk/log"

	"millrace/internal/fault"
)

// TemporalTLS is how the connection to Temporal is secured.
type TemporalTLS struct {
	Enabled    bool   `koanf:"enabled" desc:"connect with TLS"`
	CAFile     string `koanf:"ca_file" desc:"PEM of who may have signed the server's certificate; empty: the system's roots"`
	CertFile   string `koanf:"cert_file" desc:"PEM of the client's certificate, where the server asks for one"`
	KeyFile    string `koanf:"key_file" desc:"PEM of its key"`
	ServerName string `koanf:"server_name" desc:"name in the server's certificate, where it is not that of the address"`
}

func (c TemporalTLS) validate() error {
	var errs []error
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, errors.New("tls: cert_file and key_file go together"))
	}
	if !c.Enabled && (c.CAFile != "" || c.CertFile != "" || c.ServerName != "") {
		errs = append(errs, errors.New("tls: enabled is false, but other keys of tls are set"))
	}
	return errors.Join(errs...)
}

// config reads the files. A client's certificate is read again for each connection, so that it may be renewed in place.
func (c TemporalTLS) config() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("temporal.tls.ca_file: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("temporal.tls.ca_file: %s holds no certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile); err != nil {
			return nil, fmt.Errorf("temporal.tls.cert_file: %w", err)
		}
		out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
			return &cert, err
		}
	}
	return out, nil
}

// TemporalDeployment is the version under which workers serve Temporal's worker deployments.
type TemporalDeployment struct {
	Name    string `koanf:"name" desc:"worker deployment that this process belongs to; empty: workers are not versioned"`
	BuildID string `koanf:"build_id" desc:"its version, which becomes the current one when its workers poll"`
}

func (c TemporalDeployment) validate() error {
	if (c.Name == "") != (c.BuildID == "") {
		return errors.New("deployment: name and build_id go together")
	}
	if strings.Contains(c.Name, ".") {
		return fmt.Errorf("deployment.name: %q has a dot", c.Name)
	}
	return nil
}

// temporalOptions are what every client of Temporal in the platform is made with.
func temporalOptions(c TemporalConfig, log *slog.Logger) (client.Options, error) {
	o := client.Options{HostPort: c.Address, Namespace: c.Namespace, Logger: tlog.NewStructuredLogger(log)}
	if c.TLS.Enabled {
		conf, err := c.TLS.config()
		if err != nil {
			return o, fault.New("MR-NIT-003", err)
		}
		o.ConnectionOptions.TLS = conf
	}
	if c.APIKeyFile != "" {
		if _, err := apiKey(c.APIKeyFile); err != nil {
			return o, err
		}
		// Read for each call, so that it may be renewed in place. With a key the client uses TLS also where nothing says so.
		o.Credentials = client.NewAPIKeyDynamicCredentials(func(context.Context) (string, error) { return apiKey(c.APIKeyFile) })
	}
	if c.EncryptionKeyFile != "" {
		codec, err := newCodec(c.EncryptionKeyFile)
		if err != nil {
			return o, err
		}
		o.DataConverter = converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), codec)
	}
	return o, nil
}

func apiKey(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fault.Newf("MR-NIT-003", "temporal.api_key_file: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if key == "" {
		return "", fault.Newf("MR-NIT-003", "temporal.api_key_file: %s is empty", path)
	}
	return key, nil
}
