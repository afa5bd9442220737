package lakehouse

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	iceio "github.com/apache/iceberg-go/io"
)

// Settings are Iceberg's own properties of a store or catalog. Any value may be a secret, so they are never printed as they are: see Redacted.
type Settings map[string]string

// Properties of a REST catalog that are not handed on.
const (
	propPrefix     = "prefix"
	propCredential = "credential"
	propScope      = "scope"
	propAudience   = "audience"
	propResource   = "resource"
	propAuthURI    = "oauth2-server-uri"
	propSigV4      = "rest.sigv4-enabled"
	propSigRegion  = "rest.signing-region"
	propSigName    = "rest.signing-name"
	propHeader     = "header."
)

// storeProperties are what stores read, by scheme; true: fit to be printed.
var storeProperties = map[string]map[string]bool{
	"file": {},
	"s3": {
		iceio.S3EndpointURL: true, iceio.S3Region: true, iceio.S3ClientRegion: true, iceio.S3ForceVirtualAddressing: true, iceio.S3CompatMode: true,
		iceio.S3ConnectTimeout: true, iceio.S3AccessKeyID: false, iceio.S3SecretAccessKey: false, iceio.S3SessionToken: false, iceio.S3ProxyURI: false,
	},
	"gs": {
		iceio.GCSEndpoint: true, iceio.GCSServiceHost: true, iceio.GCSUseJSONAPI: true, iceio.GCSNoAuth: true, iceio.GCSCredType: true, iceio.GCSKeyPath: true,
		iceio.GCSJSONKey: false, iceio.GCSOAuthToken: false, iceio.GCSOAuthExpiresAt: true,
	},
}

// restProperties are what REST catalogs read, beside header.NAME; true: fit to be printed.
var restProperties = map[string]bool{
	propPrefix: true, propScope: true, propAudience: true, propResource: true, propAuthURI: true, propSigV4: true, propSigRegion: true, propSigName: true, propCredential: false,
}

// Redacted is p with every secret masked; where a secret is (env:NAME, file:/path) is none.
func (p Settings) Redacted() map[string]string {
	out := make(map[string]string, len(p))
	for k, v := range p {
		if v != "" && !isReference(v) && !restProperties[k] && !storeProperties["s3"][k] && !storeProperties["gs"][k] {
			v = "***"
		}
		out[k] = v
	}
	return out
}

// String keeps secrets out of whatever prints the properties.
func (p Settings) String() string { return fmt.Sprint(p.Redacted()) }

// GoString is for %#v.
func (p Settings) GoString() string { return p.String() }

func (p Settings) fitsStore(scheme string) error {
	known := storeProperties[scheme]
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(p)) {
		if _, ok := known[k]; ok {
			continue
		}
		if len(known) == 0 {
			errs = append(errs, fmt.Errorf("%s is set, but a warehouse on disk has no such properties; remove it", k))
			continue
		}
		errs = append(errs, fmt.Errorf("%s is not a property of %s:// stores; there are %s", k, scheme, strings.Join(slices.Sorted(maps.Keys(known)), ", ")))
	}
	if (p[iceio.S3AccessKeyID] == "") != (p[iceio.S3SecretAccessKey] == "") {
		errs = append(errs, fmt.Errorf("%s and %s must both be given, or neither", iceio.S3AccessKeyID, iceio.S3SecretAccessKey))
	}
	return errors.Join(errs...)
}

func (p Settings) fitsREST() error {
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(p)) {
		if _, ok := restProperties[k]; !ok && !strings.HasPrefix(k, propHeader) {
			errs = append(errs, fmt.Errorf("%s is not known; there are %s and %sNAME", k, strings.Join(slices.Sorted(maps.Keys(restProperties)), ", "), propHeader))
		}
	}
	return errors.Join(errs...)
}

// isReference says whether a value tells where the value is.
func isReference(v string) bool { return strings.HasPrefix(v, "env:") || strings.HasPrefix(v, "file:") }

// dereference reads a value from where it says it is. Its errors do not repeat the value.
func dereference(v string) (string, error) {
	if name, ok := strings.CutPrefix(v, "env:"); ok {
		got := os.Getenv(name)
		if got == "" {
			return "", fmt.Errorf("the environment has no %s; set it", name)
		}
		return got, nil
	}
	if path, ok := strings.CutPrefix(v, "file:"); ok {
		path = "/" + strings.TrimLeft(path, "/")
		b, err := os.ReadFile(filepath.Clean(path))
		if err != nil {
			return "", fmt.Errorf("its file cannot be read: %w", err)
		}
		got := strings.TrimSpace(string(b))
		if got == "" {
			return "", fmt.Errorf("file %s is empty", path)
		}
		return got, nil
	}
	return v, nil
}

// resolve is the configuration with all secrets read from where they are.
func (c Config) resolve() (Config, error) {
	var errs []error
	read := func(key, v string) string {
		got, err := dereference(v)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
		return got
	}
	all := func(key string, p Settings) Settings {
		out := make(Settings, len(p))
		for _, k := range slices.Sorted(maps.Keys(p)) {
			out[k] = read(key+"."+k, p[k])
		}
		return out
	}
	c.CatalogPassword = read("catalog_password", c.CatalogPassword)
	c.CatalogToken = read("catalog_token", c.CatalogToken)
	c.CatalogProperties = all("catalog_properties", c.CatalogProperties)
	c.Store = all("store", c.Store)
	return c, errors.Join(errs...)
}
